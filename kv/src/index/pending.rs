//! Work in flight: blocks that somebody computes or fetches, and when they will be there.
//!
//! A request that would need such a block may wait for it instead of computing it again. An
//! announcement is a hint with an end: it goes when the block is published, when its worker goes,
//! and at its time in any case: what is late by as much as it was announced ahead, and a second,
//! will not come.
//!
//! A lookup costs a probe for each depth to which the chain is held, and the blocks that are on
//! their way to those who hold it that far; how much is on its way elsewhere does not matter.

use super::view::Match;
use crate::block::{BlockKey, BlockMap};
use crate::events::BlockEvent;
use baton_proto::ids::{GroupId, SequenceHash, WorkerId};
use std::collections::BTreeMap;
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
    /// To whom a block is on its way; mostly one worker, or a prefill and a decode worker.
    by_block: BlockMap<Vec<Announced>>,
    /// How many blocks are on their way to whom.
    by_worker: BTreeMap<WorkerId, usize>,
    count: usize,
}

/// When a block is expected, and until when.
#[derive(Clone, Copy, Debug)]
struct Announced {
    worker: WorkerId,
    eta: Duration,
    until: Duration,
}

/// So much later than twice the time foreseen, nobody waits for a block.
const LATE_MAX: Duration = Duration::from_secs(1);

impl PendingWork {
    pub(super) fn new(max: usize) -> Self {
        Self { max, ..Self::default() }
    }

    /// Takes note of a block, unless it is announced already; `false` if there is no room, even
    /// after those whose time has passed have gone.
    pub(super) fn announce(
        &mut self,
        worker: WorkerId,
        key: BlockKey,
        eta: Duration,
        now: Duration,
    ) -> bool {
        let until = eta.saturating_add(eta.saturating_sub(now)).saturating_add(LATE_MAX);
        let announced = Announced { worker, eta, until };
        let known = self.by_block.get_mut(&key);
        if let Some(known) = known.and_then(|all| all.iter_mut().find(|at| at.worker == worker)) {
            // Who joins later does not put it off.
            if known.until <= now {
                *known = announced;
            }
            return true;
        }
        if self.count >= self.max {
            self.expire(now);
        }
        if self.count >= self.max {
            return false;
        }
        self.by_block.entry(key).or_default().push(announced);
        *self.by_worker.entry(worker).or_default() += 1;
        self.count += 1;
        true
    }

    /// What is on its way to a worker and was published has come.
    pub(super) fn settle_all(&mut self, worker: WorkerId, events: &[BlockEvent]) {
        if !self.by_worker.contains_key(&worker) {
            return;
        }
        for BlockEvent { hash, group, .. } in events {
            self.settle(worker, &BlockKey { hash: *hash, group: *group });
        }
    }

    /// The block is there, or will not come.
    pub(super) fn settle(&mut self, worker: WorkerId, key: &BlockKey) {
        if !self.by_worker.contains_key(&worker) {
            return;
        }
        let Some(all) = self.by_block.get_mut(key) else { return };
        let Some(at) = all.iter().position(|announced| announced.worker == worker) else { return };
        all.swap_remove(at);
        if all.is_empty() {
            self.by_block.remove(key);
        }
        self.count -= 1;
        if let Some(count) = self.by_worker.get_mut(&worker) {
            *count -= 1;
            if *count == 0 {
                self.by_worker.remove(&worker);
            }
        }
    }

    pub(super) fn forget(&mut self, worker: WorkerId) {
        if self.by_worker.contains_key(&worker) {
            self.keep(|announced| announced.worker != worker);
        }
    }

    /// Forgets what should have been there by now.
    pub(super) fn expire(&mut self, now: Duration) {
        self.keep(|announced| announced.until > now);
    }

    fn keep(&mut self, stays: impl Fn(&Announced) -> bool) {
        self.by_worker.clear();
        self.count = 0;
        let (by_worker, count) = (&mut self.by_worker, &mut self.count);
        self.by_block.retain(|_, all| {
            all.retain(&stays);
            for announced in all.iter() {
                *by_worker.entry(announced.worker).or_default() += 1;
            }
            *count += all.len();
            !all.is_empty()
        });
    }

    /// Who will hold more of the beginning of `chain` than by `matches`, which is all who hold
    /// something of it, the deepest first.
    pub(super) fn after(
        &self,
        chain: &[SequenceHash],
        group: GroupId,
        matches: &[Match],
        now: Duration,
    ) -> Vec<Expected> {
        let mut expected = Vec::new();
        if self.count == 0 {
            return expected;
        }
        let mut depths: Vec<usize> = matches.iter().map(|held| held.depth).collect();
        depths.push(0);
        depths.dedup();
        for depth in depths {
            for first in self.at(chain, group, depth, now) {
                let held = matches.iter().find(|held| held.worker == first.worker);
                if held.map_or(0, |held| held.depth) == depth {
                    expected.push(self.run(chain, group, depth, first, now));
                }
            }
        }
        expected
    }

    /// What is on its way of the block at that place of a chain.
    fn at<'a>(
        &'a self,
        chain: &[SequenceHash],
        group: GroupId,
        depth: usize,
        now: Duration,
    ) -> impl Iterator<Item = Announced> + use<'a> {
        let key = chain.get(depth).map(|hash| BlockKey { hash: *hash, group });
        let all = key.and_then(|key| self.by_block.get(&key)).map_or(&[][..], Vec::as_slice);
        all.iter().copied().filter(move |announced| announced.until > now)
    }

    /// The blocks from `depth` on that are on their way to one worker without a gap.
    fn run(
        &self,
        chain: &[SequenceHash],
        group: GroupId,
        depth: usize,
        first: Announced,
        now: Duration,
    ) -> Expected {
        let Announced { worker, mut eta, .. } = first;
        let mut end = depth + 1;
        while let Some(next) = self.at(chain, group, end, now).find(|next| next.worker == worker) {
            eta = eta.max(next.eta);
            end += 1;
        }
        Expected { worker, depth: end, eta: eta.max(now) }
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }
}
