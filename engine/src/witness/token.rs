//! From the digests of what was read to a token. The engine and the [oracle](super::expected)
//! share it.

use super::bytes::{absorb, mix};
use super::spec::WitnessSpec;
use crate::api::{Drawn, Sample};
use baton_proto::ids::TokenId;

/// The name of a draw: what is known before anything is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name(u64);

/// What a draw has read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// The blocks before the tail, as they were when they entered.
    pub(super) before: u64,
    /// The tail: the block of the last position, up to that position.
    pub(super) tail: u64,
    /// The block that [`Name::pick`] chose, if there is any before the tail.
    pub(super) picked: Option<u64>,
    /// The blocks before the tail as they are now, for the last draw of a sequence.
    pub(super) sweep: Option<u64>,
}

impl Name {
    pub(super) fn new(seed: u64, choice: u16, position: u32) -> Self {
        Self(absorb(mix(seed), u64::from(choice) << 32 | u64::from(position)))
    }

    /// Which of the blocks before the tail is read again.
    pub(super) fn pick(self, blocks: usize) -> Option<usize> {
        (blocks > 0).then(|| scale(mix(!self.0), blocks as u64) as usize)
    }

    /// The token that follows from what was read.
    pub(super) fn token(self, spec: &WitnessSpec, seen: Seen, suppressed: &[TokenId]) -> TokenId {
        let read = [Some(seen.before), Some(seen.tail), seen.picked, seen.sweep];
        let chance = read.into_iter().flatten().fold(self.0, absorb);
        if let Some(ends) = spec.ends
            && scale(mix(!chance), u64::from(ends.get())) == 0
            && !suppressed.contains(&spec.eos[0])
        {
            return spec.eos[0];
        }
        allowed(spec, scale(chance, u64::from(spec.vocab)) as TokenId, suppressed)
    }
}

/// The first token from `token` on, cyclically, that is no end token and not suppressed.
fn allowed(spec: &WitnessSpec, token: TokenId, suppressed: &[TokenId]) -> TokenId {
    let forbidden = |token: &TokenId| spec.eos.contains(token) || suppressed.contains(token);
    (token..spec.vocab).chain(0..token).find(|token| !forbidden(token)).unwrap_or(token)
}

/// A number in `0..n` from 64 random bits.
fn scale(bits: u64, n: u64) -> u64 {
    ((u128::from(bits) * u128::from(n)) >> 64) as u64
}

/// The report on a token by an engine that has no distribution: the token has probability 1/2,
/// the ids after it 1/4, 1/8 and so on.
pub(crate) fn report(token: TokenId, vocab: u32, sample: &Sample<'_>) -> Drawn {
    let logprob = |rank: u32| -(rank as f32 + 1.0) * std::f32::consts::LN_2;
    let top = |count: u32| {
        let ranks = 0..count.min(vocab);
        ranks.map(|rank| ((token + rank) % vocab, logprob(rank))).collect()
    };
    Drawn {
        token,
        logprob: logprob(0),
        top: top(sample.logprobs.map_or(0, u32::from)),
        raw_top: top(u32::from(sample.raw_top)),
    }
}
