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
//! A block that one worker holds takes 44 to 50 bytes: 32 for the entry (up to an eighth more
//! allocated in advance), 4 to 5 for the bucket, 6 to 12 in the worker's own set. Each further
//! holder adds the latter. Each distinct set of two or more holders, which the blocks of one
//! conversation share, takes 8 + 24 bytes per 64 workers of the bound, and some 30 of the writer's.
//! Nothing grows by churn: entries and sets are reused.

mod holdings;
mod pending;
mod segments;
mod sets;
mod table;
mod view;

pub use pending::Expected;
pub use view::{Holder, Match, View};

use crate::block::{BlockKey, Tier};
use crate::events::{Batch, BlockEvent, EventKind};
use crate::guard::Guard;
use baton_proto::ids::{EventSeq, GroupId, Incarnation, SequenceHash, WorkerId};
use holdings::Holdings;
use pending::PendingWork;
use sets::{EMPTY, SetWriter};
use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::atomic::Ordering;
use std::time::Duration;
use table::{Name, TableWriter};
use thiserror::Error;

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
    workers: BTreeMap<WorkerId, Worker>,
    /// Slots without a worker.
    free_slots: Vec<u32>,
    blocks: TableWriter,
    sets: SetWriter,
    pending: PendingWork,
}

#[derive(Debug)]
struct Worker {
    incarnation: Incarnation,
    /// The event that has to come next.
    next: EventSeq,
    /// The worker's number in sets.
    slot: u32,
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
            workers: BTreeMap::new(),
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
        if let Some(known) = self.workers.get(&worker)
            && known.incarnation == incarnation
        {
            return Ok(known.next);
        }
        self.pending.forget(worker);
        let slot = if self.workers.contains_key(&worker) {
            self.forget_blocks(worker);
            self.workers[&worker].slot
        } else {
            let max = self.config.workers_max;
            self.free_slots.pop().ok_or(TooManyWorkers { max })?
        };
        self.view.rename(slot, Some(worker));
        let joined = Worker::new(incarnation, slot);
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
        self.pending.forget(worker);
        self.forget_blocks(worker);
        let Some(gone) = self.workers.remove(&worker) else { return false };
        self.view.rename(gone.slot, None);
        self.free_slots.push(gone.slot);
        true
    }

    /// Takes note that `worker` computes or fetches a block, and will have it at `eta`; both times
    /// on the caller's clock. The note ends when the block is published, when the worker leaves or
    /// restarts, and at `eta`. `false` if the worker has not joined, or there is no room.
    pub fn announce(
        &mut self,
        worker: WorkerId,
        block: BlockKey,
        eta: Duration,
        now: Duration,
    ) -> bool {
        self.workers.contains_key(&worker)
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
        let depth = |worker| matches.iter().find(|m| m.worker == worker).map_or(0, |m| m.depth);
        let workers = self.pending.workers();
        workers
            .filter_map(|worker| self.pending.after(worker, chain, group, depth(worker), now))
            .collect()
    }

    /// Up to where a worker's stream is known: its run, and the event to ask for next.
    pub fn position(&self, worker: WorkerId) -> Option<(Incarnation, EventSeq)> {
        self.workers.get(&worker).map(|state| (state.incarnation, state.next))
    }

    /// How many blocks a worker holds, as far as is known.
    pub fn blocks_of(&self, worker: WorkerId) -> usize {
        self.workers.get(&worker).map_or(0, |state| state.holdings.len())
    }

    /// How many distinct blocks are known, with those that are only named as a held one's parent.
    pub fn blocks(&self) -> usize {
        self.blocks.used()
    }

    /// How many blocks of a worker were not remembered because of the bound, in its present run.
    pub fn overflowed(&self, worker: WorkerId) -> u64 {
        self.workers.get(&worker).map_or(0, |state| state.overflowed)
    }

    fn holds(&mut self, worker: WorkerId, block: &BlockKey) -> bool {
        let table = &self.view.0.table;
        let Some(slot) = self.workers.get(&worker).map(|worker| worker.slot) else { return false };
        TableWriter::find(table, Name::new(block)).is_some_and(|entry| {
            let set = TableWriter::set(table, entry);
            self.sets.tier_of(&self.view.0.rows, set, slot).is_some()
        })
    }

    /// A block that appears twice, or goes without having come, changes nothing: the events after
    /// it count all the same.
    fn apply_events(&mut self, id: WorkerId, events: &[BlockEvent]) {
        for event in events {
            let key = BlockKey { hash: event.hash, group: event.group };
            self.pending.settle(id, &key);
            match event.kind {
                EventKind::Published => self.publish(id, &key, event.parent, event.tier),
                EventKind::Removed => self.remove(id, &key),
            }
        }
    }

    fn publish(&mut self, id: WorkerId, key: &BlockKey, parent: Option<SequenceHash>, tier: Tier) {
        let shared = &*self.view.0;
        let worker = self.workers.get_mut(&id).expect("it has joined");
        let name = Name::new(key);
        let known = TableWriter::find(&shared.table, name);
        let set = known.map_or(EMPTY, |entry| TableWriter::set(&shared.table, entry));
        if self.sets.tier_of(&shared.rows, set, worker.slot).is_none() {
            // Whoever holds it first says what it continues; the same hash has the same parent.
            let parent = parent.filter(|parent| *parent != key.hash && set == EMPTY);
            let parent = parent.map(|hash| Name::new(&BlockKey { hash, group: key.group }));
            let unknown = |name| usize::from(TableWriter::find(&shared.table, name).is_none());
            let more = usize::from(known.is_none()) + parent.map_or(0, unknown);
            if worker.holdings.len() >= self.config.blocks_per_worker_max
                || !self.blocks.has_room(more)
            {
                worker.overflowed = worker.overflowed.saturating_add(1);
                return;
            }
            let entry = self.blocks.find_or_add(&shared.table, name);
            if let Some(parent) = parent {
                let parent = self.blocks.find_or_add(&shared.table, parent);
                TableWriter::link(&shared.table, entry, parent);
            }
            worker.holdings.insert(entry, TableWriter::parent(&shared.table, entry));
        }
        let slot = worker.slot;
        let entry = TableWriter::find(&shared.table, name).expect("it was found, or just added");
        self.change(id, |index| index.set_tier(entry, slot, Some(tier)));
    }

    fn remove(&mut self, id: WorkerId, key: &BlockKey) {
        if !self.holds(id, key) {
            return;
        }
        let worker = self.workers.get_mut(&id).expect("it has joined");
        let table = &self.view.0.table;
        let entry = TableWriter::find(table, Name::new(key)).expect("it is held");
        worker.holdings.remove(entry, TableWriter::parent(table, entry));
        let slot = worker.slot;
        self.change(id, |index| index.set_tier(entry, slot, None));
    }

    /// Changes what readers see of a worker. They must never take it for closed while it is not:
    /// the mark comes before the change, and goes after it.
    fn change(&mut self, id: WorkerId, body: impl FnOnce(&mut Self)) {
        let (slot, closed) = self.closed(id);
        if !closed {
            self.view.mark(slot, true);
        }
        body(self);
        if closed {
            self.view.mark(slot, false);
        }
    }

    fn closed(&self, id: WorkerId) -> (u32, bool) {
        let worker = &self.workers[&id];
        (worker.slot, worker.holdings.is_closed())
    }

    fn set_tier(&mut self, entry: u32, slot: u32, tier: Option<Tier>) {
        let shared = &*self.view.0;
        let old = TableWriter::set(&shared.table, entry);
        let new = self.sets.with(&shared.rows, old, slot, tier);
        TableWriter::replace_set(&shared.table, entry, new);
        self.sets.release(&shared.rows, old);
        if new == EMPTY {
            self.blocks.unlink(&shared.table, entry);
        }
    }

    /// In any order: the worker is not closed until it holds nothing.
    fn forget_blocks(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let (slot, holdings) = (worker.slot, std::mem::take(&mut worker.holdings));
        self.view.mark(slot, true);
        for entry in holdings.entries() {
            self.set_tier(entry, slot, None);
        }
        self.view.mark(slot, false);
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
        self.0.members.fetch_add(1, Ordering::Release);
    }

    /// Says whether a worker has to be followed block by block.
    fn mark(&self, slot: u32, open: bool) {
        let (word, bit) = (&self.0.open[slot as usize / 64], 1 << (slot % 64));
        let before = word.load(Ordering::Relaxed);
        let after = if open { before | bit } else { before & !bit };
        if after != before {
            word.store(after, Ordering::Release);
            // Lookups that have begun look again.
            self.0.members.fetch_add(1, Ordering::Release);
        }
    }
}

impl Worker {
    fn new(incarnation: Incarnation, slot: u32) -> Self {
        let holdings = Holdings::default();
        Self { incarnation, next: EventSeq(1), slot, holdings, overflowed: 0 }
    }
}

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;
