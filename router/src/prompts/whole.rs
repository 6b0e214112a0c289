//! Whole prompts, for the commonest case: the next turn begins with all of the last one. Then the
//! work is to compare the bytes and to copy the ids; nothing is looked up piece by piece.

use super::cache::Cache;
use baton_proto::ids::{SequenceHash, TenantId, TokenId};
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;

/// A prompt is found by what stands before the last multiple of this in it, in bytes.
const STRIDE: usize = 4096;
/// By so much of it.
const WINDOW: usize = 128;
/// So many places of a text are tried, from its end: other conversations begin with it as well.
const PLACES_MAX: usize = 256;
/// A prompt of a million tokens fits: some four bytes of text, and four of id, for each.
const SHARD_BYTES: usize = 32 << 20;

/// A prompt that was prepared.
pub(super) struct Whole {
    pub(super) tenant: TenantId,
    /// The model's, whose hashes these are.
    pub(super) domain: Vec<u8>,
    pub(super) text: String,
    pub(super) ids: Vec<TokenId>,
    pub(super) chain: Vec<SequenceHash>,
    /// Where firm segments begin: in `text`, in `ids`.
    pub(super) firm: Vec<(u32, u32)>,
}

/// Prompts by their ends.
#[derive(Debug)]
pub(super) struct Wholes {
    prompts: Cache<u64, Arc<Whole>>,
    hasher: RandomState,
}

/// What a text has in common with an earlier prompt.
pub(super) struct Found {
    pub(super) whole: Arc<Whole>,
    /// Of `whole.firm`, the last that both have.
    pub(super) firm: usize,
    pub(super) text_end: usize,
    pub(super) ids_end: usize,
    /// Where `whole` is kept, if this text goes on where it ends.
    pub(super) extended: Option<u64>,
}

impl Wholes {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { prompts: Cache::new(bytes_max, SHARD_BYTES), hasher: RandomState::new() }
    }

    /// A prompt that begins like `text`, of the same tenant and model. A segment is firm in both
    /// where they are alike up to `lookahead` bytes behind its beginning.
    pub(super) fn find(
        &self,
        tenant: &TenantId,
        domain: &[u8],
        text: &str,
        lookahead: usize,
    ) -> Option<Found> {
        let places = (1..=text.len() / STRIDE).rev().take(PLACES_MAX);
        let mut keys = places.map(|place| self.key(tenant, text, place));
        let (key, whole) = keys.find_map(|key| Some((key, self.prompts.get(key)?)))?;
        if whole.tenant != *tenant || whole.domain != domain {
            return None;
        }
        let alike = alike(whole.text.as_bytes(), text.as_bytes());
        let firm = |(at, _): &(u32, u32)| *at as usize + lookahead <= alike;
        let last = whole.firm.partition_point(firm).checked_sub(1)?;
        let (text_end, ids_end) = whole.firm[last];
        // Only the beginning of an answer that was to come may be missing.
        let extended = (last + 2 >= whole.firm.len()).then_some(key);
        let (text_end, ids_end) = (text_end as usize, ids_end as usize);
        Some(Found { whole, firm: last, text_end, ids_end, extended })
    }

    /// Whether a prompt with such firm segments is kept; short ones are not.
    pub(super) fn keeps(firm: &[(u32, u32)]) -> bool {
        place(firm).is_some()
    }

    /// Keeps a prompt in place of the one that it extends.
    pub(super) fn keep(&self, whole: Whole, extended: Option<u64>) {
        let Some(place) = place(&whole.firm) else { return };
        if let Some(extended) = extended {
            self.prompts.remove(extended);
        }
        let weight = super::ENTRY_BYTES
            + whole.text.capacity()
            + size_of_val(&*whole.ids)
            + size_of_val(&*whole.chain)
            + size_of_val(&*whole.firm);
        let key = self.key(&whole.tenant, &whole.text, place);
        self.prompts.insert(key, Arc::new(whole), weight);
    }

    fn key(&self, tenant: &TenantId, text: &str, place: usize) -> u64 {
        let end = place * STRIDE;
        self.hasher.hash_one((&tenant.0, end, &text.as_bytes()[end - WINDOW..end]))
    }
}

/// By which multiple of `STRIDE` a prompt is kept.
fn place(firm: &[(u32, u32)]) -> Option<usize> {
    let (at, _) = firm.last()?;
    Some(*at as usize / STRIDE).filter(|place| *place > 0)
}

/// How many bytes two texts begin with alike.
fn alike(a: &[u8], b: &[u8]) -> usize {
    let same = a.chunks(STRIDE).zip(b.chunks(STRIDE)).take_while(|(a, b)| a == b).count();
    let start = (same * STRIDE).min(a.len()).min(b.len());
    start + a[start..].iter().zip(&b[start..]).take_while(|(a, b)| a == b).count()
}

/// Shows no text: prompts do not belong in logs.
impl std::fmt::Debug for Whole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Whole({} bytes, {} ids)", self.text.len(), self.ids.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alike_counts_the_bytes_before_the_first_difference() {
        let text: Vec<u8> = (0..20_000_u32).map(|n| (n % 251) as u8).collect();
        for at in [0, 1, 4095, 4096, 4097, 8191, 8192, 12_288, 19_999] {
            let mut other = text.clone();
            other[at] ^= 1;
            assert_eq!(alike(&text, &other), at);
            assert_eq!(alike(&text, &text[..at]), at);
            assert_eq!(alike(&text[..at], &text), at);
        }
        assert_eq!(alike(&text, &text), text.len());
    }
}
