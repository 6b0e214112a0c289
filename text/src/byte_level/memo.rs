//! The ids of pieces that were seen before.

use ahash::RandomState;
use baton_proto::ids::TokenId;
use std::collections::HashMap;
use std::ops::Range;

/// Longer pieces are rare, and rarely the same.
const PIECE_BYTES_MAX: usize = 64;
/// Pieces in one generation: more than a language's common words, about 3 MB.
const PIECES_MAX: usize = 32 << 10;

/// Pieces and their ids, in two generations: what was not asked for while one filled up goes with it.
#[derive(Default)]
pub(super) struct Memo {
    young: Generation,
    old: Generation,
}

#[derive(Default)]
struct Generation {
    /// By piece: where its ids are.
    pieces: HashMap<Box<str>, Range<u32>, RandomState>,
    ids: Vec<TokenId>,
}

impl Memo {
    /// A piece's ids, if they are known.
    pub(super) fn get(&mut self, piece: &str) -> Option<&[TokenId]> {
        if piece.len() > PIECE_BYTES_MAX {
            return None;
        }
        let range = match self.young.pieces.get(piece) {
            Some(range) => range.clone(),
            None => self.rejuvenate(piece)?,
        };
        Some(&self.young.ids[range.start as usize..range.end as usize])
    }

    fn rejuvenate(&mut self, piece: &str) -> Option<Range<u32>> {
        let (piece, range) = self.old.pieces.remove_entry(piece)?;
        let ids = self.old.ids[range.start as usize..range.end as usize].to_vec();
        Some(self.insert(piece, &ids))
    }

    /// Remembers a piece's ids.
    pub(super) fn put(&mut self, piece: &str, ids: &[TokenId]) {
        if piece.len() <= PIECE_BYTES_MAX {
            self.insert(piece.into(), ids);
        }
    }

    fn insert(&mut self, piece: Box<str>, ids: &[TokenId]) -> Range<u32> {
        if self.young.pieces.len() >= PIECES_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        // No piece has more ids than bytes, so they are far fewer than u32 counts.
        let start = self.young.ids.len() as u32;
        self.young.ids.extend_from_slice(ids);
        let range = start..self.young.ids.len() as u32;
        self.young.pieces.insert(piece, range.clone());
        range
    }
}
