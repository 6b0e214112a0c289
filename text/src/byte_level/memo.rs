//! The ids of pieces that were seen before.
//!
//! Nearly all pieces are short, and of one to three ids: both lie in the table's own entries.

use ahash::RandomState;
use baton_proto::ids::TokenId;
use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

/// Longer pieces are not remembered.
const PIECE_BYTES_MAX: usize = 64;
/// Bytes of a piece that is its own key.
const SHORT_BYTES_MAX: usize = 15;
/// Ids that lie in an entry.
const FEW_IDS_MAX: usize = 3;
/// Short pieces in one generation: more than a language's common words, in a table of 1 MB.
const SHORT_MAX: usize = 28 << 10;
/// The others, which are rare, and rarely the same: less than 1 MB.
const LONG_MAX: usize = 2 << 10;

/// Pieces and their ids.
pub(super) struct Memo {
    short: Generations<u128, FewIds>,
    long: Generations<Box<str>, Arc<[TokenId]>>,
}

#[derive(Clone, Copy)]
struct FewIds {
    ids: [TokenId; FEW_IDS_MAX],
    count: u8,
}

impl Default for Memo {
    fn default() -> Self {
        Self { short: Generations::new(SHORT_MAX), long: Generations::new(LONG_MAX) }
    }
}

impl Memo {
    /// Appends the ids of the piece of `text` from `start` to `end`, if they are known.
    pub(super) fn append(
        &mut self,
        text: &str,
        start: usize,
        end: usize,
        ids: &mut Vec<TokenId>,
    ) -> bool {
        if let Some(key) = short_key(text.as_bytes(), start, end)
            && let Some(few) = self.short.get(&key)
        {
            // All of them, and then back: a copy of a fixed length is a single move.
            let end = ids.len() + usize::from(few.count);
            ids.extend_from_slice(&few.ids);
            ids.truncate(end);
            return true;
        }
        if self.long.is_empty() {
            return false;
        }
        let known = self.long.get(&text[start..end]);
        known.inspect(|known| ids.extend_from_slice(known)).is_some()
    }

    /// Remembers a piece's ids.
    pub(super) fn put(&mut self, piece: &str, ids: &[TokenId]) {
        let key = short_key(piece.as_bytes(), 0, piece.len());
        if let Some(key) = key.filter(|_| ids.len() <= FEW_IDS_MAX) {
            let mut few = FewIds { ids: [0; FEW_IDS_MAX], count: ids.len() as u8 };
            few.ids[..ids.len()].copy_from_slice(ids);
            self.short.put(key, few);
        } else if piece.len() <= PIECE_BYTES_MAX {
            self.long.put(piece.into(), ids.into());
        }
    }
}

/// A short piece's bytes, and its length in the last one.
fn short_key(text: &[u8], start: usize, end: usize) -> Option<u128> {
    let length = end - start;
    if length > SHORT_BYTES_MAX {
        return None;
    }
    let bytes = if let Some(bytes) = text[start..].first_chunk::<16>() {
        // One read of a fixed length; what does not belong to the piece is shifted out.
        u128::from_le_bytes(*bytes) & ((1 << (8 * length)) - 1)
    } else {
        let mut bytes = [0; 16];
        bytes[..length].copy_from_slice(&text[start..end]);
        u128::from_le_bytes(bytes)
    };
    Some(bytes | (length as u128) << 120)
}

/// A map in two generations: what was not asked for while one filled up goes with it.
struct Generations<K, V> {
    young: HashMap<K, V, RandomState>,
    old: HashMap<K, V, RandomState>,
    /// Entries of a generation.
    max: usize,
}

impl<K: Hash + Eq, V: Clone> Generations<K, V> {
    fn new(max: usize) -> Self {
        Self { young: HashMap::default(), old: HashMap::default(), max }
    }

    fn get<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let (key, value) = self.old.remove_entry(key)?;
        self.put(key, value.clone());
        Some(value)
    }

    fn put(&mut self, key: K, value: V) {
        if self.young.len() >= self.max {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    fn is_empty(&self) -> bool {
        self.young.is_empty() && self.old.is_empty()
    }
}
