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
//!
//! # Depth without a walk
//!
//! Workers give up only leaves, so normally a worker that holds a block holds all before it, and a
//! few probes find how deep it holds a chain ([`View::matches`]). That is not taken on trust: with
//! each event comes the block's parent, and the index counts, per worker, the blocks that are
//! continued but not held. Where a worker has any (it published a child first, or blocks of it were
//! not remembered because of a bound), its depth is found block by block until it has none again.
//! So every answer is the one that a walk would give.
//!
//! # One writer, any number of readers
//!
//! [`Index`] is the one writer. [`View`]s look things up from any thread without a lock: they
//! notice what was changed under them, and look again.
//!
//! # Memory
//!
//! A block that one worker holds takes 57 to 60 bytes: 32 for the entry and 21 for the buckets (up to
//! an eighth more allocated in advance), 1 to 2 in the worker's own set, or up to 15 where its blocks
//! were published each for itself. Each further holder adds the latter. Each distinct set of two or
//! more holders, which the blocks of one conversation share, takes 16 + 24 bytes per 64 workers of
//! the bound, and some 30 of the writer's.
//! Nothing grows by churn: entries and sets are reused.

mod atomics;
mod bucket;
mod holdings;
mod pages;
mod pending;
mod prefetch;
mod reader;
mod segments;
mod sets;
mod steps;
mod table;
mod update;
mod view;

pub use pending::Expected;
pub use reader::{Depths, Reader};
pub use view::{Holder, Match, View};

use crate::block::BlockKey;
use crate::events::{Batch, BlockEvent};
use crate::guard::Guard;
use atomics::Ordering;
use baton_proto::ids::{EventSeq, GroupId, Incarnation, SequenceHash, WorkerId};
use holdings::Holdings;
use pending::PendingWork;
use sets::SetWriter;
use std::collections::BTreeMap;
use std::ops::Deref;
use std::time::Duration;
use table::{Sought, TableWriter};
use thiserror::Error;
use update::Update;
use view::Shared;

/// Bounds of an index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IndexConfig {
    /// Workers known at a time.
    pub workers_max: usize,
    /// Blocks remembered per worker; further ones are not found, and counted.
    pub blocks_per_worker_max: usize,
    /// Distinct blocks remembered; further ones are not found, and counted.
    pub blocks_max: usize,
    /// Blocks announced as being on their way, at a time.
    pub pending_max: usize,
}

/// Which worker holds which block. Dereferences to the [`View`] for lookups.
#[derive(Debug)]
pub struct Index {
    config: IndexConfig,
    view: View,
    /// The slot of each worker that has joined.
    slots: BTreeMap<WorkerId, u32>,
    /// By slot; that of a free slot is nobody's.
    workers: Vec<Worker>,
    free_slots: Vec<u32>,
    blocks: TableWriter,
    sets: SetWriter,
    pending: PendingWork,
}

/// A worker; its slot is its number in sets.
#[derive(Debug)]
struct Worker {
    incarnation: Incarnation,
    /// The event that has to come next.
    next: EventSeq,
    holdings: Holdings,
    overflowed: u64,
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
        Self {
            config,
            view: View::new(config.workers_max),
            slots: BTreeMap::new(),
            workers: Vec::new(),
            free_slots: (0..config.workers_max as u32).rev().collect(),
            blocks: TableWriter::new(config.blocks_max),
            sets: SetWriter::default(),
            pending: PendingWork::new(config.pending_max),
        }
    }

    /// For those who look things up.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Takes note of a worker's present run, as the worker itself tells it to whoever connects.
    /// Another run than before voids everything that was known of the worker. Returns the event to
    /// watch from.
    pub fn join(
        &mut self,
        worker: WorkerId,
        incarnation: Incarnation,
    ) -> Result<EventSeq, TooManyWorkers> {
        let known = self.slots.get(&worker).copied();
        if let Some(slot) = known
            && self.worker(slot).incarnation == incarnation
        {
            return Ok(self.worker(slot).next);
        }
        self.pending.forget(worker);
        let slot = if let Some(slot) = known {
            self.forget_blocks(slot);
            slot
        } else {
            let max = self.config.workers_max;
            let slot = self.free_slots.pop().ok_or(TooManyWorkers { max })?;
            self.slots.insert(worker, slot);
            slot
        };
        self.view.rename(slot, Some(worker));
        // Slots are given out from the lowest on.
        let at = slot as usize;
        if at >= self.workers.len() {
            self.workers.resize_with(at + 1, || Worker::new(incarnation));
        }
        self.workers[at] = Worker::new(incarnation);
        Ok(self.workers[at].next)
    }

    /// Takes up what a worker that has joined says.
    pub fn apply(
        &mut self,
        worker: WorkerId,
        incarnation: Incarnation,
        batch: &Batch,
    ) -> Result<Applied, NeedSnapshot> {
        let Some(&slot) = self.slots.get(&worker) else { return Ok(Applied::Void) };
        let state = self.worker(slot);
        if !Guard::Incarnation.passes(state.incarnation == incarnation) {
            return Ok(Applied::Void);
        }
        let next = state.next;
        if batch.snapshot {
            // An older snapshot would take back what later events have said.
            if batch.first_seq < next {
                return Ok(Applied::Known);
            }
            self.forget_blocks(slot);
            self.apply_events(worker, slot, &batch.events);
        } else {
            if batch.first_seq > next {
                return Err(NeedSnapshot { from: next });
            }
            let known = next.0 - batch.first_seq.0;
            let fresh = usize::try_from(known).ok().and_then(|known| batch.events.get(known..));
            let Some(fresh) = fresh.filter(|fresh| !fresh.is_empty()) else {
                return Ok(Applied::Known);
            };
            self.apply_events(worker, slot, fresh);
        }
        self.workers[slot as usize].next = batch.next_seq();
        Ok(Applied::Advanced)
    }

    /// Forgets a worker, in time proportional to the blocks it held; whether it was known.
    pub fn remove_worker(&mut self, worker: WorkerId) -> bool {
        self.pending.forget(worker);
        let Some(slot) = self.slots.remove(&worker) else { return false };
        self.forget_blocks(slot);
        self.view.rename(slot, None);
        self.free_slots.push(slot);
        true
    }

    /// Takes note that `worker` computes or fetches a block, and will have it at `eta`; both times
    /// on the caller's clock. The note ends when the block is published, when the worker leaves or
    /// restarts, and when it is far behind its time. `false` if the worker has not joined, or there is no room.
    pub fn announce(
        &mut self,
        worker: WorkerId,
        block: BlockKey,
        eta: Duration,
        now: Duration,
    ) -> bool {
        self.slots.contains_key(&worker)
            && eta > now
            && !self.holds(worker, &block)
            && self.pending.announce(worker, block, eta, now)
    }

    /// The announced block will not come.
    pub fn retract(&mut self, worker: WorkerId, block: &BlockKey) {
        self.pending.settle(worker, block);
    }

    /// Forgets announcements whose time has passed.
    pub fn expire(&mut self, now: Duration) {
        self.pending.expire(now);
    }

    /// Blocks announced and not published yet.
    pub fn pending_blocks(&self) -> usize {
        self.pending.len()
    }

    /// Workers that will hold more of the beginning of `chain` than they do now, and when;
    /// `matches` is what [`View::matches`] said of the same chain.
    pub fn expected(
        &self,
        chain: &[SequenceHash],
        group: GroupId,
        matches: &[Match],
        now: Duration,
    ) -> Vec<Expected> {
        self.pending.after(chain, group, matches, now)
    }

    /// Up to where a worker's stream is known: its run, and the event to ask for next.
    pub fn position(&self, worker: WorkerId) -> Option<(Incarnation, EventSeq)> {
        self.joined(worker).map(|state| (state.incarnation, state.next))
    }

    /// How many blocks a worker holds, as far as is known.
    pub fn blocks_of(&self, worker: WorkerId) -> usize {
        self.joined(worker).map_or(0, |state| state.holdings.len())
    }

    /// How many distinct blocks are known, with those that are only named as a held one's parent.
    pub fn blocks(&self) -> usize {
        self.blocks.used()
    }

    /// How many blocks of a worker were not remembered because of the bound, in its present run.
    pub fn overflowed(&self, worker: WorkerId) -> u64 {
        self.joined(worker).map_or(0, |state| state.overflowed)
    }

    fn joined(&self, worker: WorkerId) -> Option<&Worker> {
        self.slots.get(&worker).map(|slot| self.worker(*slot))
    }

    fn worker(&self, slot: u32) -> &Worker {
        &self.workers[slot as usize]
    }

    fn holds(&self, worker: WorkerId, block: &BlockKey) -> bool {
        let Shared { table, rows, .. } = &*self.view.0;
        let Some(&slot) = self.slots.get(&worker) else { return false };
        TableWriter::find(table, &Sought::new(block))
            .is_some_and(|block| SetWriter::tier_of(rows, block.set(), slot).is_some())
    }

    fn apply_events(&mut self, worker: WorkerId, slot: u32, events: &[BlockEvent]) {
        self.pending.settle_all(worker, events);
        self.update(slot).apply(events);
    }

    fn forget_blocks(&mut self, slot: u32) {
        self.update(slot).forget();
    }

    fn update(&mut self, slot: u32) -> Update<'_> {
        Update {
            shared: &self.view.0,
            blocks: &mut self.blocks,
            sets: &mut self.sets,
            worker: &mut self.workers[slot as usize],
            slot,
            held_max: self.config.blocks_per_worker_max,
        }
    }
}

impl Deref for Index {
    type Target = View;

    fn deref(&self) -> &View {
        &self.view
    }
}

impl View {
    /// Says which worker has a slot; its predecessor holds nothing any more.
    fn rename(&self, slot: u32, worker: Option<WorkerId>) {
        let name = worker.map_or(0, |worker| u64::from(worker.0) + 1);
        self.0.names[slot as usize].store(name, Ordering::Relaxed);
        self.0.renames.fetch_add(1, Ordering::Release);
        self.0.members.fetch_add(1, Ordering::Release);
    }
}

impl Worker {
    fn new(incarnation: Incarnation) -> Self {
        let holdings = Holdings::default();
        Self { incarnation, next: EventSeq(1), holdings, overflowed: 0 }
    }
}

#[cfg(test)]
mod lookup_tests;
#[cfg(test)]
mod loom_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;
