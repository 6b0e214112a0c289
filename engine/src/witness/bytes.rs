//! The witness's bytes: how a position is written, and how bytes are digested.
//!
//! ```text
//! block     [kv_head][layer][k|v][token][dim x 4 bytes]     rows = kv_head x layer x 2
//! position  one piece of dim x 4 bytes in every row
//! ```
//!
//! Each step of a digest is a bijection of its state for a given word and of the word for a given
//! state. So two byte strings that differ in one 64-bit word only never have the same digest;
//! others have it with probability 2^-64. Digests cover whole blocks, single positions, or a
//! block's first positions: never pieces that depend on how a prompt was cut into steps.

use super::spec::WitnessSpec;
use baton_proto::ids::TokenId;

const ODD: u64 = 0x9E37_79B9_7F4A_7C15;
const LANES: usize = 8;
const WORD: usize = 8;

/// Scatters 64 bits; a bijection (the finaliser of SplitMix64).
pub(super) fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// Takes a further word into a state; a bijection of either, and the order counts.
pub(super) fn absorb(state: u64, word: u64) -> u64 {
    mix(state.wrapping_mul(ODD).rotate_left(23) ^ word)
}

/// Words of a byte string, dealt to eight lanes that the processor advances side by side.
struct Digest {
    lanes: [u64; LANES],
    words: u64,
}

impl Digest {
    fn new() -> Self {
        let mut lanes = [0; LANES];
        for (lane, start) in lanes.iter_mut().zip(1..) {
            *lane = ODD.wrapping_mul(start);
        }
        Self { lanes, words: 0 }
    }

    /// Takes a piece in, its first word into the first lane; pieces are whole words long.
    fn update(&mut self, piece: &[u8]) {
        let (words, rest) = piece.as_chunks::<WORD>();
        assert!(rest.is_empty(), "rows are whole words");
        let (full, rest) = words.as_chunks::<LANES>();
        for eight in full {
            for (lane, word) in self.lanes.iter_mut().zip(eight) {
                *lane = step(*lane, *word);
            }
        }
        for (lane, word) in self.lanes.iter_mut().zip(rest) {
            *lane = step(*lane, *word);
        }
        self.words += words.len() as u64;
    }

    /// Two by two, so that the processor takes them in side by side.
    fn finish(&self) -> u64 {
        let [a, b, c, d, e, f, g, h] = self.lanes;
        let first = absorb(absorb(a, b), absorb(c, d));
        let second = absorb(absorb(e, f), absorb(g, h));
        absorb(self.words, absorb(first, second))
    }
}

fn step(lane: u64, word: [u8; WORD]) -> u64 {
    (lane ^ u64::from_le_bytes(word)).wrapping_mul(ODD).rotate_left(29)
}

/// Writes and digests blocks of one shape.
#[derive(Clone, Debug)]
pub(crate) struct Bytes {
    rows: usize,
    /// Bytes of a position in a row.
    piece: usize,
    block_tokens: usize,
    root: u64,
}

impl Bytes {
    /// For a checked specification; `weights` tells one witness from another.
    pub(crate) fn new(spec: &WitnessSpec, weights: &[u8; 32]) -> Self {
        let (first, _) = weights.as_chunks::<WORD>();
        Self {
            rows: spec.heads as usize * spec.layers as usize * 2,
            piece: spec.dim as usize * 4,
            block_tokens: spec.block_tokens as usize,
            root: first.iter().fold(0, |state, word| absorb(state, u64::from_le_bytes(*word))),
        }
    }

    /// Bytes of a block.
    pub(crate) fn block_bytes(&self) -> usize {
        self.rows * self.row_bytes()
    }

    /// What stands for no blocks at all.
    pub(crate) fn root(&self) -> u64 {
        self.root
    }

    /// The digest of a whole block.
    pub(crate) fn block(&self, block: &[u8]) -> u64 {
        let mut digest = Digest::new();
        digest.update(&block[..self.block_bytes()]);
        digest.finish()
    }

    /// The digest of a block's first `tokens` positions.
    pub(crate) fn head(&self, block: &[u8], tokens: usize) -> u64 {
        self.positions(block, 0, tokens)
    }

    /// Writes positions from `offset` in a block. Every position's bytes come from its token and
    /// from what is read back of the one before; those of the first in a block from `before`, the
    /// digests of all blocks before this one.
    pub(crate) fn write(&self, block: &mut [u8], before: u64, offset: usize, tokens: &[TokenId]) {
        let mut state = match offset.checked_sub(1) {
            None => mix(before),
            Some(last) => self.positions(block, last, 1),
        };
        for (offset, token) in (offset..).zip(tokens) {
            self.write_position(block, offset, absorb(state, u64::from(*token)));
            state = self.positions(block, offset, 1);
        }
    }

    fn write_position(&self, block: &mut [u8], offset: usize, key: u64) {
        let mut counter = key;
        for row in 0..self.rows {
            let start = row * self.row_bytes() + offset * self.piece;
            let bytes = &mut block[start..start + self.piece];
            for word in bytes.as_chunks_mut::<WORD>().0 {
                counter = counter.wrapping_add(ODD);
                *word = step(counter, ODD.to_le_bytes()).to_le_bytes();
            }
        }
    }

    fn positions(&self, block: &[u8], first: usize, count: usize) -> u64 {
        let mut digest = Digest::new();
        for row in 0..self.rows {
            let start = row * self.row_bytes() + first * self.piece;
            digest.update(&block[start..start + count * self.piece]);
        }
        digest.finish()
    }

    fn row_bytes(&self) -> usize {
        self.block_tokens * self.piece
    }
}
