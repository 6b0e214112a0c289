//! Who is working on which block: equal work is done once, and the others wait for it.

use baton_proto::ids::{SeqKey, SequenceHash};
use std::collections::BTreeMap;

/// Blocks that are being computed or pulled, by the sequence that does it.
///
/// A claim is advice among the sequences of one worker. It is given up when the block is
/// published, when the attempt failed, and when its sequence ends, so that a waiting one takes
/// over; it never outlives a sequence, which bounds the map.
#[derive(Debug, Default)]
pub struct Claims {
    holders: BTreeMap<SequenceHash, SeqKey>,
}

impl Claims {
    /// Claims a block; `false` where another sequence has it.
    pub fn claim(&mut self, hash: SequenceHash, seq: SeqKey) -> bool {
        *self.holders.entry(hash).or_insert(seq) == seq
    }

    /// Whether a sequence other than `seq` works on the block.
    pub fn taken(&self, hash: &SequenceHash, seq: SeqKey) -> bool {
        self.holders.get(hash).is_some_and(|holder| *holder != seq)
    }

    /// Who works on the block.
    pub fn holder(&self, hash: &SequenceHash) -> Option<SeqKey> {
        self.holders.get(hash).copied()
    }

    /// Gives up one claim, if `seq` holds it.
    pub fn release(&mut self, hash: &SequenceHash, seq: SeqKey) {
        if self.holders.get(hash) == Some(&seq) {
            self.holders.remove(hash);
        }
    }

    /// Gives up everything that a sequence holds.
    pub fn release_all(&mut self, seq: SeqKey) {
        self.holders.retain(|_, holder| *holder != seq);
    }

    /// Blocks claimed now.
    pub fn len(&self) -> usize {
        self.holders.len()
    }

    /// Whether nothing is claimed.
    pub fn is_empty(&self) -> bool {
        self.holders.is_empty()
    }
}
