//! What names a block, and maps by that name.

use baton_proto::ids::{GroupId, SequenceHash};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// What is said of a block when it is sealed: its name and what it continues.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockId {
    /// The block's identity.
    pub hash: SequenceHash,
    /// The identity of the block before it; `None` for the first one of a chain.
    pub parent: Option<SequenceHash>,
    /// The block's group.
    pub group: GroupId,
}

impl BlockId {
    /// The block's name.
    pub fn key(&self) -> BlockKey {
        BlockKey { hash: self.hash, group: self.group }
    }

    /// The name of the block before it.
    pub fn parent_key(&self) -> Option<BlockKey> {
        self.parent.map(|hash| BlockKey { hash, group: self.group })
    }
}

/// Where a worker has a block, the quickest first. On the wire as its number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Tier {
    /// Where the engine computes on it.
    #[default]
    Device,
    /// In the host's memory.
    Host,
    /// On a disk of the worker's node.
    Disk,
    /// On another node, or in an object store.
    Remote,
}

impl Tier {
    /// How many there are.
    pub const COUNT: usize = 4;

    /// The tier's number, less than [`COUNT`](Self::COUNT).
    pub fn bits(self) -> u32 {
        self as u32
    }

    /// The tier with the number in the two lowest bits.
    pub fn from_bits(bits: u32) -> Self {
        match bits & 3 {
            0 => Tier::Device,
            1 => Tier::Host,
            2 => Tier::Disk,
            _ => Tier::Remote,
        }
    }
}

/// The name of stored KV.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct BlockKey {
    /// The block's identity.
    pub hash: SequenceHash,
    /// The block's group.
    pub group: GroupId,
}

impl Hash for BlockKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let low = u128::from_le_bytes(self.hash.0) as u64;
        state.write_u64(low ^ u64::from(self.group.0).rotate_left(32));
    }
}

/// A map by block. Identities are keyed hashes that no client can choose, so their own bits serve
/// as the hash: faster than `SipHash`, and the same in every run, which a replay from a seed needs.
pub(crate) type BlockMap<V> = HashMap<BlockKey, V, BuildHasherDefault<KeyHasher>>;

/// Folds 64 bits by a multiplication, so that identities that differ in few bits (as in tests)
/// spread too.
#[derive(Default)]
pub(crate) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write_u64(&mut self, value: u64) {
        let product = u128::from(self.0 ^ value ^ 0x243F_6A88_85A3_08D3)
            * u128::from(0x9E37_79B9_7F4A_7C15_u64);
        self.0 = product as u64 ^ (product >> 64) as u64;
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
