//! What the servers share: who may come in, what they may have, and how many at once.

use crate::guards::{Guard, Guards};
use crate::wire::{Hello, Welcome};
use crate::{Identity, Refused, ServeContext};
use baton_kv::lease::ReadPin;
use baton_kv::pool::{self, Refusal};
#[cfg(test)]
use baton_kv::record::SlotRecord;
use baton_proto::block::BlockDescriptor;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bounds of a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ServeLimits {
    /// Connections at once; more are told that it is busy.
    pub connections: usize,
    /// How long a caller may take to say hello.
    pub hello: Duration,
    /// How long a connection may stay without a request.
    pub idle: Duration,
    /// How long a caller may take to accept one block. Its pin ends with it.
    pub send: Duration,
    /// Slots that one reader on this host may use in place at a time; at most a quarter of all.
    pub mapped_slots: u32,
}

impl Default for ServeLimits {
    fn default() -> Self {
        Self {
            connections: 256,
            hello: Duration::from_secs(5),
            idle: Duration::from_mins(5),
            send: Duration::from_secs(10),
            mapped_slots: 4096,
        }
    }
}

/// Callers that are told at once that there is no room; more of them are just left.
const TURNED_AWAY: usize = 16;

/// The places of a server.
pub(crate) struct Seats {
    seats: Arc<Semaphore>,
    turned_away: Arc<Semaphore>,
}

/// One caller's place, until it is dropped.
pub(crate) struct Seat {
    /// There was no room: the caller only gets to hear why it has to leave.
    standing: bool,
    _permit: OwnedSemaphorePermit,
}

impl Seats {
    pub(crate) fn new(limits: &ServeLimits) -> Self {
        let [seats, turned_away] =
            [limits.connections, TURNED_AWAY].map(|permits| Arc::new(Semaphore::new(permits)));
        Self { seats, turned_away }
    }

    /// A place for one more caller.
    pub(crate) fn take(&self) -> Option<Seat> {
        let take = |from: &Arc<Semaphore>, standing| {
            let permit = Arc::clone(from).try_acquire_owned().ok()?;
            Some(Seat { standing, _permit: permit })
        };
        take(&self.seats, false).or_else(|| take(&self.turned_away, true))
    }
}

/// How a hello is to be answered. The token comes first: who lacks it learns nothing else.
pub(crate) fn judge(
    hello: &[u8; Hello::BYTES],
    seat: &Seat,
    context: &ServeContext,
    guards: Guards,
) -> Result<Welcome, Refused> {
    let hello = Hello::from_bytes(hello)?;
    if guards.on(Guard::Token) && !context.token.matches(hello.token.bytes()) {
        return Err(Refused::Token);
    }
    let Identity { worker, incarnation } = context.identity;
    if hello.peer.worker != worker {
        return Err(Refused::Worker);
    }
    if guards.on(Guard::Incarnation) && hello.peer.incarnation != incarnation {
        return Err(Refused::Incarnation);
    }
    if seat.standing {
        return Err(Refused::Busy);
    }
    let slot_bytes = context.arena.slot_bytes() as u64;
    if guards.on(Guard::Layout) && hello.slot_bytes != slot_bytes {
        return Err(Refused::SlotBytes);
    }
    Ok(Welcome::Accepted { identity: context.identity, slots: context.arena.slots(), slot_bytes })
}

/// Pins what a descriptor names, if all of it still holds.
pub(crate) fn resolve(
    block: &BlockDescriptor,
    context: &ServeContext,
    guards: Guards,
) -> Result<ReadPin, Refused> {
    if guards.on(Guard::Incarnation) && block.incarnation != context.identity.incarnation {
        return Err(Refused::Incarnation);
    }
    let now = (context.clock)();
    let mut pool = pool::lock(&context.pool);
    #[cfg(test)]
    if !guards.on(Guard::Lease) || !guards.on(Guard::Generation) {
        return pool.pin(&block.hash, block.group).ok_or(Refused::Hash);
    }
    #[cfg(test)]
    let block = &if guards.on(Guard::Identity) {
        *block
    } else {
        let record = context.arena.record(block.slot.0);
        let held = SlotRecord::from_bytes(&record).expect("the slot holds a block");
        BlockDescriptor { hash: held.hash, group: held.group, ..*block }
    };
    pool.resolve(block, now).map_err(|refusal| match refusal {
        Refusal::Lease(_) => Refused::Lease,
        Refusal::Generation { .. } => Refused::Generation,
        Refusal::Identity => Refused::Hash,
        Refusal::Content => Refused::Content,
        // The lease does not cover the slot; and whatever the pool learns to object to later.
        _ => Refused::Slot,
    })
}
