//! Leases: pins that are kept for a peer until it releases them or their time is up.

use crate::lease::ReadPin;
use baton_proto::ids::{LeaseId, SlotId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The leases of one pool, at most `max`.
#[derive(Debug)]
pub(super) struct Leases {
    live: BTreeMap<LeaseId, Lease>,
    deadlines: BTreeSet<(Duration, LeaseId)>,
    minted: u64,
    max: usize,
}

#[derive(Debug)]
struct Lease {
    /// By slot, so that one lease keeps no more pins than there are slots.
    pins: BTreeMap<SlotId, ReadPin>,
    deadline: Duration,
}

impl Leases {
    pub(super) fn new(max: usize) -> Self {
        Self { live: BTreeMap::new(), deadlines: BTreeSet::new(), minted: 0, max }
    }

    pub(super) fn max(&self) -> usize {
        self.max
    }

    pub(super) fn len(&self) -> usize {
        self.live.len()
    }

    /// A new lease, unless there are too many even without those whose time is up.
    pub(super) fn grant(
        &mut self,
        pins: Vec<ReadPin>,
        ttl: Duration,
        now: Duration,
    ) -> Option<LeaseId> {
        if self.live.len() >= self.max {
            self.expire(now);
        }
        if self.live.len() >= self.max {
            return None;
        }
        self.minted += 1;
        let id = LeaseId(self.minted);
        let deadline = now.saturating_add(ttl);
        let pins = pins.into_iter().map(|pin| (pin.slot(), pin)).collect();
        self.live.insert(id, Lease { pins, deadline });
        self.deadlines.insert((deadline, id));
        Some(id)
    }

    /// Adds pins and moves the end to `now + ttl`, never to an earlier time.
    pub(super) fn extend(
        &mut self,
        id: LeaseId,
        pins: Vec<ReadPin>,
        ttl: Duration,
        now: Duration,
    ) -> bool {
        let Some(lease) = self.live.get_mut(&id).filter(|lease| now < lease.deadline) else {
            return false;
        };
        lease.pins.extend(pins.into_iter().map(|pin| (pin.slot(), pin)));
        let deadline = now.saturating_add(ttl);
        if deadline > lease.deadline {
            self.deadlines.remove(&(lease.deadline, id));
            self.deadlines.insert((deadline, id));
            lease.deadline = deadline;
        }
        true
    }

    pub(super) fn live(&self, id: LeaseId, now: Duration) -> bool {
        self.live.get(&id).is_some_and(|lease| now < lease.deadline)
    }

    /// The lease's pin on a slot, whether or not its time is up.
    pub(super) fn pin(&self, id: LeaseId, slot: SlotId) -> Option<&ReadPin> {
        self.live.get(&id)?.pins.get(&slot)
    }

    pub(super) fn release(&mut self, id: LeaseId) -> bool {
        let Some(lease) = self.live.remove(&id) else { return false };
        self.deadlines.remove(&(lease.deadline, id));
        true
    }

    /// Ends the leases whose time is up; how many.
    pub(super) fn expire(&mut self, now: Duration) -> usize {
        let before = self.live.len();
        while let Some(&(deadline, id)) = self.deadlines.first() {
            if now < deadline {
                break;
            }
            self.deadlines.pop_first();
            self.live.remove(&id);
        }
        before - self.live.len()
    }
}
