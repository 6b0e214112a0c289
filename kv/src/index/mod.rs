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
//! A block that one worker holds takes 42 to 47 bytes: 32 for the entry (up to an eighth more
//! allocated in advance), 8 to 9 for the buckets, 1 to 2 in the worker's own set, or up to 15 where
//! its blocks were published each for itself. Each further holder adds the latter. Each distinct set of two or more holders, which the blocks of one
//! conversation share, takes 16 + 24 bytes per 64 workers of the bound, and some 30 of the writer's.
//! Nothing grows by churn: entries and sets are reused.

mod atomics;
mod holdings;
mod pages;
mod pending;
mod reader;
mod segments;
mod sets;
mod steps;
mod table;
mod view;

pub use pending::Expected;
pub use reader::{Depths, Reader};
pub use view::{Holder, Match, View};

use crate::block::{BlockKey, Tier};
use crate::events::{Batch, BlockEvent, EventKind};
use crate::guard::Guard;
use atomics::{BUCKETS, Ordering};
use baton_proto::ids::{EventSeq, GroupId, Incarnation, SequenceHash, WorkerId};
use holdings::Holdings;
use pending::PendingWork;
use sets::{EMPTY, SetWriter};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::ops::Deref;
use std::time::Duration;
use table::{Name, Probe, TableWriter};
use thiserror::Error;
use view::Shared;

/// Events whose memory is read together before they are taken up.
const TOUCHED: usize = 16;

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
    /// The entry that was changed last.
    last: u32,
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
            last: 0,
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
        TableWriter::find(table, Name::new(block)).is_some_and(|entry| {
            SetWriter::tier_of(rows, TableWriter::set(table, entry), slot).is_some()
        })
    }

    /// A block that appears twice, or goes without having come, changes nothing: the events after
    /// it count all the same.
    fn apply_events(&mut self, worker: WorkerId, slot: u32, events: &[BlockEvent]) {
        for events in events.chunks(TOUCHED) {
            self.touch(slot, events);
            for event in events {
                let key = BlockKey { hash: event.hash, group: event.group };
                self.pending.settle(worker, &key);
                match event.kind {
                    EventKind::Published => self.publish(slot, &key, event.parent, event.tier),
                    EventKind::Removed => self.remove(slot, &key),
                }
            }
        }
    }

    /// Reads what the events will need, so that the processor overlaps the memory accesses of all of
    /// them, which would have to wait for each other one event after the other.
    fn touch(&self, slot: u32, events: &[BlockEvent]) {
        let table = &self.view.0.table;
        let mut probes = [Probe::default(); TOUCHED];
        for (probe, event) in probes.iter_mut().zip(events) {
            let key = BlockKey { hash: event.hash, group: event.group };
            *probe = table.begin(Name::new(&key));
        }
        let probes = &probes[..events.len()];
        for probe in probes {
            black_box(table.touch(probe));
        }
        table.touch_splits(BUCKETS * events.len());
        let holdings = &self.worker(slot).holdings;
        let upcoming = self.blocks.upcoming();
        for (probe, new) in probes.iter().zip(upcoming..) {
            black_box(holdings.touch(table.first(probe).unwrap_or(new)));
        }
    }

    /// The entry of a name, which is probably that one.
    fn find(&self, name: Name, guess: u32) -> Option<u32> {
        let table = &self.view.0.table;
        TableWriter::find_at(table, name, guess).or_else(|| TableWriter::find(table, name))
    }

    fn publish(&mut self, slot: u32, key: &BlockKey, parent: Option<SequenceHash>, tier: Tier) {
        let Shared { table, rows, .. } = &*self.view.0;
        let name = Name::new(key);
        // Blocks that were published one after the other have entries one after the other.
        let known = self.find(name, self.last.wrapping_add(1));
        let set = known.map_or(EMPTY, |entry| TableWriter::set(table, entry));
        let entry = match (known, SetWriter::tier_of(rows, set, slot)) {
            (_, Some(held)) if held == tier => return,
            (Some(entry), Some(_)) => entry,
            _ => {
                // Whoever holds it first says what it continues; the same hash has the same parent.
                let parent = parent.filter(|parent| *parent != key.hash && set == EMPTY);
                let parent = parent.map(|hash| Name::new(&BlockKey { hash, group: key.group }));
                let Some(entry) = self.take_up(slot, name, known, parent) else { return };
                entry
            }
        };
        self.change(slot, entry, Some(tier));
    }

    /// Adds a block to what a worker holds; `None`, and it is counted, if there is no room.
    fn take_up(
        &mut self,
        slot: u32,
        name: Name,
        known: Option<u32>,
        parent: Option<Name>,
    ) -> Option<u32> {
        let table = &self.view.0.table;
        let parent = parent.map(|name| (name, self.find(name, self.last)));
        let worker = &mut self.workers[slot as usize];
        let more = usize::from(known.is_none())
            + usize::from(parent.is_some_and(|(_, entry)| entry.is_none()));
        if worker.holdings.len() >= self.config.blocks_per_worker_max || !self.blocks.has_room(more)
        {
            worker.overflowed = worker.overflowed.saturating_add(1);
            return None;
        }
        let entry = known.unwrap_or_else(|| self.blocks.add(table, name));
        if let Some((name, parent)) = parent {
            let parent = parent.unwrap_or_else(|| self.blocks.add(table, name));
            TableWriter::link(table, entry, parent);
        }
        worker.holdings.insert(entry, TableWriter::parent(table, entry));
        Some(entry)
    }

    fn remove(&mut self, slot: u32, key: &BlockKey) {
        let Shared { table, rows, .. } = &*self.view.0;
        let Some(entry) = self.find(Name::new(key), self.last.wrapping_sub(1)) else { return };
        if SetWriter::tier_of(rows, TableWriter::set(table, entry), slot).is_none() {
            return;
        }
        let parent = TableWriter::parent(table, entry);
        self.workers[slot as usize].holdings.remove(entry, parent);
        self.change(slot, entry, None);
    }

    /// Changes what readers see of a worker, whose holdings have changed. They must never take it
    /// for closed while it is not: the mark comes before the change, and goes after it.
    fn change(&mut self, slot: u32, entry: u32, tier: Option<Tier>) {
        let closed = self.worker(slot).holdings.is_closed();
        if !closed {
            self.view.mark(slot, true);
            self.view.0.steps.fetch_add(1, Ordering::Release);
        }
        self.set_tier(entry, slot, tier);
        self.last = entry;
        if closed {
            self.view.mark(slot, false);
        }
    }

    fn set_tier(&mut self, entry: u32, slot: u32, tier: Option<Tier>) {
        let Shared { table, rows, .. } = &*self.view.0;
        let old = TableWriter::set(table, entry);
        let new = self.sets.with(rows, old, slot, tier);
        TableWriter::replace_set(table, entry, new);
        if tier.is_some() {
            rows.note_latest(new, entry);
        } else if let Some(parent) = TableWriter::parent(table, entry) {
            rows.note_latest(old, parent);
        }
        self.sets.release(rows, old);
        if new == EMPTY {
            self.blocks.unlink(table, entry);
        }
    }

    /// In any order: the worker is not closed until it holds nothing.
    fn forget_blocks(&mut self, slot: u32) {
        let holdings = std::mem::take(&mut self.workers[slot as usize].holdings);
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
        self.0.renames.fetch_add(1, Ordering::Release);
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
