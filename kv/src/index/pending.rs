//! Work in flight: blocks that somebody computes or fetches, and when they will be there.
//!
//! A request that would need such a block may wait for it instead of computing it again. An
//! announcement is a hint with an end: it goes when the block is published, when its worker goes,
//! and at its time in any case: what is late by as much as it was announced ahead, and a second,
//! will not come.

use crate::block::{BlockKey, BlockMap};
use baton_proto::ids::{GroupId, SequenceHash, WorkerId};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// Blocks on their way to a worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Expected {
    /// Which worker will hold them.
    pub worker: WorkerId,
    /// How many of the chain's leading blocks it will hold then.
    pub depth: usize,
    /// When the last of them is expected, on the clock of whoever announced them here.
    pub eta: Duration,
}

/// All announcements.
#[derive(Debug, Default)]
pub(super) struct PendingWork {
    max: usize,
    by_worker: BTreeMap<WorkerId, BlockMap<Announced>>,
    count: usize,
}

/// When a block is expected, and until when.
#[derive(Clone, Copy, Debug)]
struct Announced {
    eta: Duration,
    until: Duration,
}

/// So much later than twice the time foreseen, nobody waits for a block.
const LATE_MAX: Duration = Duration::from_secs(1);

impl PendingWork {
    pub(super) fn new(max: usize) -> Self {
        Self { max, ..Self::default() }
    }

    /// Takes note of a block, or of another time for it; `false` if there is no room, even after
    /// those whose time has passed have gone.
    pub(super) fn announce(
        &mut self,
        worker: WorkerId,
        key: BlockKey,
        eta: Duration,
        now: Duration,
    ) -> bool {
        let known = self.by_worker.get(&worker).is_some_and(|blocks| blocks.contains_key(&key));
        if !known {
            if self.count >= self.max {
                self.expire(now);
            }
            if self.count >= self.max {
                return false;
            }
            self.count += 1;
        }
        let until = eta + eta.saturating_sub(now) + LATE_MAX;
        self.by_worker.entry(worker).or_default().insert(key, Announced { eta, until });
        true
    }

    /// The block is there, or will not come.
    pub(super) fn settle(&mut self, worker: WorkerId, key: &BlockKey) {
        let Some(blocks) = self.by_worker.get_mut(&worker) else { return };
        if blocks.remove(key).is_some() {
            self.count -= 1;
            if blocks.is_empty() {
                self.by_worker.remove(&worker);
            }
        }
    }

    pub(super) fn forget(&mut self, worker: WorkerId) {
        self.count -= self.by_worker.remove(&worker).map_or(0, |blocks| blocks.len());
    }

    /// Forgets what should have been there by now.
    pub(super) fn expire(&mut self, now: Duration) {
        self.by_worker.retain(|_, blocks| {
            blocks.retain(|_, announced| announced.until > now);
            !blocks.is_empty()
        });
        self.count = self.by_worker.values().map(HashMap::len).sum();
    }

    /// How far `worker`, which holds `depth` of the chain's leading blocks, will hold them.
    pub(super) fn after(
        &self,
        worker: WorkerId,
        chain: &[SequenceHash],
        group: GroupId,
        depth: usize,
        now: Duration,
    ) -> Option<Expected> {
        let blocks = self.by_worker.get(&worker)?;
        let next = chain.get(depth..)?.iter().map_while(|hash| {
            blocks.get(&BlockKey { hash: *hash, group }).filter(|announced| announced.until > now)
        });
        let (count, eta) =
            next.fold((0, now), |(count, last), announced| (count + 1, last.max(announced.eta)));
        (count > 0).then_some(Expected { worker, depth: depth + count, eta })
    }

    pub(super) fn workers(&self) -> impl Iterator<Item = WorkerId> + '_ {
        self.by_worker.keys().copied()
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }
}
