//! An arena, the pool of its slots, and bytes that follow from a number.

use crate::sim::chance::Chance;
use baton_arena::{Arena, ArenaError, ArenaOptions};
use baton_kv::lease::{Draft, ReadPin};
use baton_kv::pool::{self, BlockId, Pool, PoolConfig, SharedPool};
use baton_proto::ids::{GroupId, SequenceHash};
use std::sync::{Arc, Mutex};

/// An arena and the pool of its slots.
#[derive(Clone)]
pub(super) struct Store {
    pub(super) arena: Arena,
    pub(super) pool: SharedPool,
}

/// The identity of the block of this number.
pub(super) fn hash(tag: u64) -> SequenceHash {
    SequenceHash(u128::from(tag).to_le_bytes())
}

/// The number of a block.
pub(super) fn tag(hash: &SequenceHash) -> u64 {
    u128::from_le_bytes(hash.0) as u64
}

/// Fills a block's bytes.
pub(super) fn fill(tag: u64, bytes: &mut [u8]) {
    let mut chance = Chance::new(tag);
    for word in bytes.chunks_mut(8) {
        word.copy_from_slice(&chance.next().to_le_bytes()[..word.len()]);
    }
}

/// Where the bytes of a block are not what they should be.
pub(super) fn first_wrong(tag: u64, bytes: &[u8]) -> Option<usize> {
    let mut chance = Chance::new(tag);
    bytes.chunks(8).enumerate().find_map(|(at, word)| {
        let right = chance.next().to_le_bytes();
        let wrong = word.iter().zip(right).position(|(found, expected)| *found != expected);
        wrong.map(|within| at * 8 + within)
    })
}

impl Store {
    pub(super) fn new(slots: u32, slot_bytes: u64) -> Result<Self, ArenaError> {
        let slot_bytes = usize::try_from(slot_bytes).unwrap_or(usize::MAX);
        let arena = Arena::create(ArenaOptions { slots, slot_bytes, name: "baton-xfer-bench" })?;
        let config = PoolConfig { slots, events_kept: 16, leases_max: 4 };
        Ok(Self { arena, pool: Arc::new(Mutex::new(Pool::new(config))) })
    }

    /// All slots, for writing.
    pub(super) fn drafts(&self) -> Vec<Draft> {
        let mut pool = pool::lock(&self.pool);
        let all = std::iter::from_fn(|| pool.draft().ok().map(|(draft, _)| draft));
        all.take(self.arena.slots() as usize).collect()
    }

    /// Fills all slots with blocks and publishes them, in the order of their tags.
    pub(super) fn publish(&self) -> Vec<ReadPin> {
        let slot_bytes = self.arena.slot_bytes() as u32;
        let publish = |(tag, draft): (u64, Draft)| {
            let slot = draft.slot().0;
            let mut bytes = self.arena.write(slot);
            let payload = &mut bytes[..slot_bytes as usize];
            fill(tag, payload);
            let crc = crc32c::crc32c(payload);
            drop(bytes);
            let mut pool = pool::lock(&self.pool);
            let id = BlockId { hash: hash(tag), parent: None, group: GroupId(0) };
            let sealed = pool.seal(draft, id, slot_bytes, crc);
            self.arena.set_record(slot, &sealed.record().to_bytes());
            pool.publish(sealed)
        };
        let mut drafts = self.drafts();
        // The tags follow the slots, so that neighbours are neighbours.
        drafts.sort_by_key(Draft::slot);
        (0..).zip(drafts).map(publish).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn wrong_bytes_are_found_and_right_ones_are_not() {
        let mut bytes = vec![0; 4099];
        fill(7, &mut bytes);
        assert_eq!(first_wrong(7, &bytes), None);
        assert_eq!(tag(&hash(7)), 7);
        assert!(first_wrong(8, &bytes).is_some());
        for at in [0, 8, 4098] {
            bytes[at] ^= 1;
            assert_eq!(first_wrong(7, &bytes), Some(at));
            bytes[at] ^= 1;
        }
    }
}
