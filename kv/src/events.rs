//! What a worker tells about its blocks: a numbered stream of events, of which the newest are kept.
//!
//! Whoever has missed more than is kept gets a snapshot: everything that is held, in place of
//! everything that was known.

use crate::block::{BlockId, BlockKey, Tier};
use baton_proto::ids::{EventSeq, GroupId, SequenceHash};
use std::collections::VecDeque;
use thiserror::Error;

/// What happened to a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventKind {
    /// It is held from now on; it has been verified.
    Published,
    /// It is held no more; its slot has not been reused yet.
    Removed,
}

/// One event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockEvent {
    /// What happened.
    pub kind: EventKind,
    /// To which block.
    pub hash: SequenceHash,
    /// The block's group.
    pub group: GroupId,
    /// The block before it; `None` for the first one of a chain. Of a published block.
    pub parent: Option<SequenceHash>,
    /// Where the worker has it. Published once more in another tier, it has moved there; removed,
    /// the worker has it in none.
    pub tier: Tier,
}

impl BlockEvent {
    /// A block is held from now on.
    pub fn published(id: &BlockId, tier: Tier) -> Self {
        let BlockId { hash, parent, group } = *id;
        Self { kind: EventKind::Published, hash, group, parent, tier }
    }

    /// A block is held no more.
    pub fn removed(key: &BlockKey) -> Self {
        let BlockKey { hash, group } = *key;
        Self { kind: EventKind::Removed, hash, group, parent: None, tier: Tier::default() }
    }
}

/// Consecutive events, or a snapshot, as they travel to a watcher.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    /// Whether `events` replace everything known about the worker. All of them are
    /// [`Published`](EventKind::Published) then.
    pub snapshot: bool,
    /// The number of the first of `events`. Of a snapshot: the number of the first event that
    /// happened after it.
    pub first_seq: EventSeq,
    /// The events, without a gap.
    pub events: Vec<BlockEvent>,
}

impl Batch {
    /// The number of the event that has to follow.
    pub fn next_seq(&self) -> EventSeq {
        let count = if self.snapshot { 0 } else { self.events.len() as u64 };
        EventSeq(self.first_seq.0.saturating_add(count))
    }
}

/// The newest events of one pool; the first event ever is number 1.
#[derive(Debug)]
pub struct EventLog {
    kept: VecDeque<BlockEvent>,
    kept_max: usize,
    next: EventSeq,
}

/// Events that were asked for are not in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error(
    "events from {wanted} on were asked for, kept are {first_kept} to before {next}; take a snapshot"
)]
pub struct Gap {
    /// The first event asked for.
    pub wanted: EventSeq,
    /// The first event that is kept.
    pub first_kept: EventSeq,
    /// The next event to come.
    pub next: EventSeq,
}

impl EventLog {
    /// The number of the next event to come.
    pub fn next_seq(&self) -> EventSeq {
        self.next
    }

    /// The events from `from` on, none if `from` is the next to come. A watcher that asks for what
    /// lies further ahead knows another run of this worker: that is a gap too.
    pub fn since(
        &self,
        from: EventSeq,
    ) -> Result<impl Iterator<Item = (EventSeq, BlockEvent)> + '_, Gap> {
        let first_kept = EventSeq(self.next.0 - self.kept.len() as u64);
        if from < first_kept || from > self.next {
            return Err(Gap { wanted: from, first_kept, next: self.next });
        }
        let skipped = (from.0 - first_kept.0) as usize;
        Ok((from.0..).map(EventSeq).zip(self.kept.iter().skip(skipped).copied()))
    }

    pub(crate) fn new(kept_max: usize) -> Self {
        Self { kept: VecDeque::new(), kept_max, next: EventSeq(1) }
    }

    pub(crate) fn push(&mut self, event: BlockEvent) {
        self.kept.push_back(event);
        if self.kept.len() > self.kept_max {
            self.kept.pop_front();
        }
        self.next.0 += 1;
    }
}

#[cfg(test)]
#[path = "events_tests.rs"]
mod tests;
