//! What a router knows of all workers' blocks: who holds which, made of their event streams.
//!
//! The index is advice. It is always exactly what a worker held at some point of its stream, and
//! that point may lie in the past: a wrong entry costs time, never a wrong token.
//!
//! Batches may be lost, doubled, reordered, or come from an earlier run of a worker. What was
//! applied before is skipped, another run than the joined one is ignored, and behind a gap nothing
//! is applied until the missing events or a snapshot arrive.
//!
//! Incarnations are random, so which of two is the later one cannot be told from a batch. Whoever
//! connects to a worker learns it there, and says so by [`Index::join`].

use crate::block::{BlockKey, BlockMap, BlockSet};
use crate::events::{Batch, BlockEvent, EventKind};
use crate::guard::Guard;
use baton_proto::ids::{EventSeq, GroupId, Incarnation, SequenceHash, WorkerId};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use thiserror::Error;

/// Bounds of an index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IndexConfig {
    /// Workers known at a time.
    pub workers_max: usize,
    /// Blocks remembered per worker; further ones are not found, and counted.
    pub blocks_per_worker_max: usize,
}

/// Which worker holds which block.
#[derive(Debug)]
pub struct Index {
    config: IndexConfig,
    workers: BTreeMap<WorkerId, Worker>,
    holders: BlockMap<Holders>,
}

#[derive(Debug)]
struct Worker {
    incarnation: Incarnation,
    /// The event that has to come next.
    next: EventSeq,
    blocks: BlockSet,
    overflowed: u64,
}

/// The workers that hold one block: mostly one, so that one costs no allocation.
#[derive(Debug)]
enum Holders {
    One(WorkerId),
    /// Two or more, in order.
    Many(Vec<WorkerId>),
}

/// What became of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Applied {
    /// It brought the index further.
    Advanced,
    /// All of it was known.
    Known,
    /// It came from another run than the one that joined, or from a worker that has not joined;
    /// it was ignored.
    Void,
}

/// Events before the batch are missing; it was not applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("events from {from} on are missing; watch again from there")]
pub struct NeedSnapshot {
    /// The first missing event. A worker that is asked for it answers with a snapshot where its
    /// log does not reach back that far.
    pub from: EventSeq,
}

/// There is no room for one more worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("{max} workers are known already; remove some, or configure more")]
pub struct TooManyWorkers {
    /// The bound.
    pub max: usize,
}

impl Index {
    /// An index that knows nothing.
    pub fn new(config: IndexConfig) -> Self {
        Self { config, workers: BTreeMap::new(), holders: BlockMap::default() }
    }

    /// Takes note of a worker's present run, as the worker itself tells it to whoever connects.
    /// Another run than before voids everything that was known of the worker. Returns the event to
    /// watch from.
    pub fn join(
        &mut self,
        worker: WorkerId,
        incarnation: Incarnation,
    ) -> Result<EventSeq, TooManyWorkers> {
        match self.workers.get(&worker) {
            Some(known) if known.incarnation == incarnation => return Ok(known.next),
            None if self.workers.len() >= self.config.workers_max => {
                return Err(TooManyWorkers { max: self.config.workers_max });
            }
            _ => {}
        }
        self.forget_blocks(worker);
        let joined = Worker::new(incarnation);
        let next = joined.next;
        self.workers.insert(worker, joined);
        Ok(next)
    }

    /// Takes up what a worker that has joined says.
    pub fn apply(
        &mut self,
        worker: WorkerId,
        incarnation: Incarnation,
        batch: &Batch,
    ) -> Result<Applied, NeedSnapshot> {
        let Some(state) = self.workers.get_mut(&worker) else { return Ok(Applied::Void) };
        if !Guard::Incarnation.passes(state.incarnation == incarnation) {
            return Ok(Applied::Void);
        }
        let next = state.next;
        if batch.snapshot {
            // An older snapshot would take back what later events have said.
            if batch.first_seq < next {
                return Ok(Applied::Known);
            }
            self.forget_blocks(worker);
            self.apply_events(worker, &batch.events);
        } else {
            if batch.first_seq > next {
                return Err(NeedSnapshot { from: next });
            }
            let known = next.0 - batch.first_seq.0;
            let fresh = usize::try_from(known).ok().and_then(|known| batch.events.get(known..));
            let Some(fresh) = fresh.filter(|fresh| !fresh.is_empty()) else {
                return Ok(Applied::Known);
            };
            self.apply_events(worker, fresh);
        }
        self.workers.get_mut(&worker).expect("it has joined").next = batch.next_seq();
        Ok(Applied::Advanced)
    }

    /// Forgets a worker, in time proportional to the blocks it held; whether it was known.
    pub fn remove_worker(&mut self, worker: WorkerId) -> bool {
        self.forget_blocks(worker);
        self.workers.remove(&worker).is_some()
    }

    /// The workers that hold the beginning of `chain`, and how many of its leading blocks; the
    /// deepest first.
    pub fn matches(&self, chain: &[SequenceHash], group: GroupId) -> Vec<(WorkerId, usize)> {
        let mut live: Vec<WorkerId> = match chain.first() {
            Some(first) => self.holders(first, group).to_vec(),
            None => Vec::new(),
        };
        let mut found = Vec::with_capacity(live.len());
        for (depth, hash) in chain.iter().enumerate().skip(1) {
            let holders = self.holders(hash, group);
            if holders == live {
                continue;
            }
            live.retain(|worker| {
                let holds = holders.binary_search(worker).is_ok();
                if !holds {
                    found.push((*worker, depth));
                }
                holds
            });
            if live.is_empty() {
                break;
            }
        }
        found.extend(live.into_iter().map(|worker| (worker, chain.len())));
        found.sort_unstable_by_key(|(worker, depth)| (Reverse(*depth), *worker));
        found
    }

    /// The workers that hold one block, in order.
    pub fn holders(&self, hash: &SequenceHash, group: GroupId) -> &[WorkerId] {
        self.holders.get(&BlockKey { hash: *hash, group }).map_or(&[], Holders::as_slice)
    }

    /// Up to where a worker's stream is known: its run, and the event to ask for next.
    pub fn position(&self, worker: WorkerId) -> Option<(Incarnation, EventSeq)> {
        self.workers.get(&worker).map(|state| (state.incarnation, state.next))
    }

    /// How many blocks a worker holds, as far as is known.
    pub fn blocks_of(&self, worker: WorkerId) -> usize {
        self.workers.get(&worker).map_or(0, |state| state.blocks.len())
    }

    /// How many blocks of a worker were not remembered because of the bound, in its present run.
    pub fn overflowed(&self, worker: WorkerId) -> u64 {
        self.workers.get(&worker).map_or(0, |state| state.overflowed)
    }

    /// A block that appears twice, or goes without having come, changes nothing: the events after
    /// it count all the same.
    fn apply_events(&mut self, id: WorkerId, events: &[BlockEvent]) {
        let worker = self.workers.get_mut(&id).expect("it has joined");
        for event in events {
            let key = BlockKey { hash: event.hash, group: event.group };
            match event.kind {
                EventKind::Published if worker.blocks.contains(&key) => {}
                EventKind::Published
                    if worker.blocks.len() >= self.config.blocks_per_worker_max =>
                {
                    worker.overflowed = worker.overflowed.saturating_add(1);
                }
                EventKind::Published => {
                    worker.blocks.insert(key);
                    self.holders
                        .entry(key)
                        .and_modify(|holders| holders.add(id))
                        .or_insert(Holders::One(id));
                }
                EventKind::Removed => {
                    if worker.blocks.remove(&key) {
                        drop_holder(&mut self.holders, key, id);
                    }
                }
            }
        }
    }

    fn forget_blocks(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        for key in std::mem::take(&mut worker.blocks) {
            drop_holder(&mut self.holders, key, id);
        }
    }
}

impl Worker {
    fn new(incarnation: Incarnation) -> Self {
        Self { incarnation, next: EventSeq(1), blocks: BlockSet::default(), overflowed: 0 }
    }
}

impl Holders {
    fn as_slice(&self) -> &[WorkerId] {
        match self {
            Holders::One(worker) => std::slice::from_ref(worker),
            Holders::Many(workers) => workers,
        }
    }

    fn add(&mut self, worker: WorkerId) {
        let mut all = match self {
            Holders::One(other) => vec![*other],
            Holders::Many(workers) => std::mem::take(workers),
        };
        if let Err(place) = all.binary_search(&worker) {
            all.insert(place, worker);
        }
        *self = match all[..] {
            [one] => Holders::One(one),
            _ => Holders::Many(all),
        };
    }

    /// Whether a holder is left.
    fn remove(&mut self, worker: WorkerId) -> bool {
        match self {
            Holders::One(other) => *other != worker,
            Holders::Many(workers) => {
                workers.retain(|other| *other != worker);
                if let [one] = workers[..] {
                    *self = Holders::One(one);
                }
                true
            }
        }
    }
}

fn drop_holder(holders: &mut BlockMap<Holders>, key: BlockKey, worker: WorkerId) {
    if holders.get_mut(&key).is_some_and(|all| !all.remove(worker)) {
        holders.remove(&key);
    }
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
