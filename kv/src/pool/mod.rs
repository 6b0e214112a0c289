//! The slots of one worker: which are free, who writes, what is held and who reads.
//!
//! Every operation costs constant or logarithmic time in the number of slots; pinning a block
//! without its prefix may in addition walk up that prefix once (see [`forest`]).

mod forest;
mod gate;
mod leases;

use crate::block::{BlockKey, Tier};
use crate::events::{Batch, BlockEvent, EventLog};
use crate::guard::Guard;
use crate::lease::{Claim, Content, Draft, Fate, Pinned, ReadPin, Return, ReturnBin, Sealed};
use crate::retention::Retention;
use baton_proto::block::BlockDescriptor;
use baton_proto::ids::{
    EventSeq, Generation, GroupId, Incarnation, LeaseId, SequenceHash, SlotId, WorkerId,
};
use forest::Forest;
use gate::Gates;
use leases::Leases;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use thiserror::Error;

pub use crate::block::BlockId;
pub use gate::SlotGate;

/// A pool that several threads use; see [`lock`].
pub type SharedPool = Arc<Mutex<Pool>>;

/// Locks a pool. A thread that panicked inside it may have left its books half written, so a
/// poisoned pool is a broken invariant: this panics.
#[track_caller]
pub fn lock(pool: &SharedPool) -> MutexGuard<'_, Pool> {
    pool.lock().unwrap_or_else(|_| {
        panic!("a thread panicked inside the block pool; its books cannot be trusted")
    })
}

/// Bounds of a pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PoolConfig {
    /// Slots of the arena.
    pub slots: u32,
    /// Events kept for watchers that lag; older ones cost them a snapshot.
    pub events_kept: usize,
    /// Live leases.
    pub leases_max: usize,
}

/// The slots of one worker.
#[derive(Debug)]
pub struct Pool {
    slots: Vec<Slot>,
    /// Free slots, the one freed last on top: its memory is warm.
    free: Vec<SlotId>,
    forest: Forest,
    leases: Leases,
    gates: Gates,
    log: EventLog,
    drafts: u32,
    sealed: u32,
    quarantined: u32,
    bin: Arc<ReturnBin>,
    /// Kept empty; swapped with the bin's content, so that neither allocates.
    returns: Vec<Return>,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    generation: Generation,
    used_as: Use,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Use {
    Free,
    Draft,
    Sealed,
    Held(BlockKey),
    SetAside,
    Quarantined,
}

/// How many slots are in which state; the sum of all but `leases` is the number of slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Hold nothing.
    pub free: u32,
    /// Writable, lent to a writer or not.
    pub draft: u32,
    /// Sealed, not published.
    pub sealed: u32,
    /// Published, pinned by nobody.
    pub cached: u32,
    /// Published and pinned.
    pub pinned: u32,
    /// Hold nothing, but a reader that the pool does not know still uses them; see [`SlotGate`].
    pub set_aside: u32,
    /// Lost to a writer that was never known to be quiet.
    pub quarantined: u32,
    /// Leases that have not ended; their blocks are among the pinned.
    pub leases: u32,
}

/// A block that made room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Evicted {
    /// Which block.
    pub id: BlockId,
    /// Why it might have been worth keeping.
    pub retention: Retention,
}

/// No slot can be handed out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error(
    "no slot is free and no block can be evicted: {} drafts, {} sealed, {} pinned, {} cached under pinned ones, \
     or mapped by readers, {} set aside for such, {} quarantined; wait until a sequence ends, or configure more slots",
    .counts.draft, .counts.sealed, .counts.pinned, .counts.cached, .counts.set_aside,
    .counts.quarantined
)]
pub struct Exhausted {
    /// Where the slots are.
    pub counts: Counts,
}

/// No lease can be granted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("{max} leases are live already; release some, or configure more")]
pub struct TooManyLeases {
    /// The bound.
    pub max: usize,
}

/// Why a descriptor is not served.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The lease was released, its time is up, or it never existed.
    #[error("lease {0} is not live; ask for a new one")]
    Lease(LeaseId),
    /// The lease does not cover the slot.
    #[error("lease {lease} does not cover slot {slot}; the descriptor is not ours or was altered")]
    Slot {
        /// The lease.
        lease: LeaseId,
        /// The slot asked for.
        slot: SlotId,
    },
    /// The slot has been handed out again since.
    #[error(
        "slot is at generation {held}, the descriptor at {asked}; the block is gone, look it up again"
    )]
    Generation {
        /// The descriptor's.
        asked: Generation,
        /// The slot's.
        held: Generation,
    },
    /// The slot holds another block.
    #[error("the slot holds another block than the descriptor names; look it up again")]
    Identity,
    /// Length or checksum are not those of the block.
    #[error("length or checksum of the descriptor are not the block's; look it up again")]
    Content,
}

impl Pool {
    /// A pool of free slots.
    pub fn new(config: PoolConfig) -> Self {
        let slot = Slot { generation: Generation(0), used_as: Use::Free };
        Self {
            slots: vec![slot; config.slots as usize],
            free: (0..config.slots).rev().map(SlotId).collect(),
            forest: Forest::default(),
            leases: Leases::new(config.leases_max),
            gates: Gates::default(),
            log: EventLog::new(config.events_kept),
            drafts: 0,
            sealed: 0,
            quarantined: 0,
            bin: Arc::default(),
            returns: Vec::new(),
        }
    }

    /// How many leading blocks of `chain` are held.
    pub fn held(&self, chain: &[SequenceHash], group: GroupId) -> usize {
        let held =
            |hash: &&SequenceHash| self.forest.get(&BlockKey { hash: **hash, group }).is_some();
        chain.iter().take_while(held).count()
    }

    /// Pins a held block. It counts as used until the last pin is dropped.
    pub fn pin(&mut self, hash: &SequenceHash, group: GroupId) -> Option<ReadPin> {
        self.settle_returns();
        self.pin_held(BlockKey { hash: *hash, group })
    }

    /// Pins the leading blocks of `chain` that are held.
    pub fn pin_prefix(&mut self, chain: &[SequenceHash], group: GroupId) -> Vec<ReadPin> {
        self.settle_returns();
        chain.iter().map_while(|hash| self.pin_held(BlockKey { hash: *hash, group })).collect()
    }

    /// A slot to write, with a new generation. Where none is free, the unpinned leaf that was used
    /// least recently makes room; its removal is in the log before the slot is handed out. A block
    /// that a gate does not let go stays held, and counts as used just now.
    pub fn draft(&mut self) -> Result<(Draft, Option<Evicted>), Exhausted> {
        self.settle_returns();
        let (id, evicted) = if let Some(id) = self.take_free() {
            (id, None)
        } else {
            let evicted = self.evict();
            let (id, evicted) =
                evicted.ok_or_else(|| Exhausted { counts: self.settled_counts() })?;
            (id, Some(evicted))
        };
        let slot = &mut self.slots[id.0 as usize];
        slot.generation.0 += 1;
        slot.used_as = Use::Draft;
        self.drafts += 1;
        Ok((Draft::new(Claim::new(id, slot.generation, Fate::GiveBack, &self.bin)), evicted))
    }

    /// Makes a written draft immutable: `len` bytes whose CRC32C is `crc`.
    pub fn seal(&mut self, draft: Draft, id: BlockId, len: u32, crc: u32) -> Sealed {
        self.settle_returns();
        assert_ne!(id.parent, Some(id.hash), "a block does not follow itself");
        let slot = self.claimed(draft.claim(), draft.slot(), draft.generation(), Use::Draft);
        slot.used_as = Use::Sealed;
        self.drafts -= 1;
        self.sealed += 1;
        draft.into_sealed(Content { id, len, crc })
    }

    /// Makes a sealed block findable, and pins it. If the same block is held already, that one is
    /// pinned and the slot is free again: equal identity means interchangeable.
    ///
    /// Publish parents before their children: a block whose parent is not held cannot be found
    /// through its chain.
    pub fn publish(&mut self, sealed: Sealed) -> ReadPin {
        self.publish_as(sealed, Retention::default())
    }

    /// As [`publish`](Self::publish), saying why the block may be worth keeping. A block that is
    /// held already stays what it was.
    pub fn publish_as(&mut self, sealed: Sealed, retention: Retention) -> ReadPin {
        self.settle_returns();
        let (id, generation) = (sealed.slot(), sealed.generation());
        let slot = self.claimed(sealed.claim(), id, generation, Use::Sealed);
        let key = sealed.id().key();
        slot.used_as = Use::Held(key);
        let content = sealed.spend();
        self.sealed -= 1;
        if self.forest.get(&key).is_some() {
            self.free_slot(id);
        } else {
            self.forest.insert(id, generation, content, retention);
            self.log.push(BlockEvent::published(&content.id, Tier::Device));
        }
        self.pin_held(key).expect("just published")
    }

    /// Keeps `pins` for a peer until [`release`](Self::release) or for `ttl` from `now` on.
    pub fn lease(
        &mut self,
        pins: Vec<ReadPin>,
        ttl: Duration,
        now: Duration,
    ) -> Result<LeaseId, TooManyLeases> {
        self.settle_returns();
        self.assert_own(&pins);
        self.leases.grant(pins, ttl, now).ok_or(TooManyLeases { max: self.leases.max() })
    }

    /// Adds pins to a live lease and keeps it for `ttl` from `now` on, or longer if that was
    /// promised before. `false`, and nothing is kept, if it is not live.
    pub fn extend_lease(
        &mut self,
        id: LeaseId,
        pins: Vec<ReadPin>,
        ttl: Duration,
        now: Duration,
    ) -> bool {
        self.settle_returns();
        self.assert_own(&pins);
        self.leases.extend(id, pins, ttl, now)
    }

    /// Whether a lease is live.
    pub fn lease_live(&self, id: LeaseId, now: Duration) -> bool {
        self.leases.live(id, now)
    }

    /// Ends a lease; whether there was one.
    pub fn release(&mut self, id: LeaseId) -> bool {
        self.leases.release(id)
    }

    /// Ends the leases whose time is up; how many. Until this is called their blocks stay pinned,
    /// but nothing is served under them.
    pub fn expire(&mut self, now: Duration) -> usize {
        self.leases.expire(now)
    }

    /// The block that a peer's descriptor refers to, if it is still what the descriptor says and
    /// the lease is live. Owner and incarnation are for the caller to compare: the pool does not
    /// know its own.
    pub fn resolve(&mut self, d: &BlockDescriptor, now: Duration) -> Result<ReadPin, Refusal> {
        self.settle_returns();
        if !Guard::Lease.passes(self.leases.live(d.lease, now)) {
            return Err(Refusal::Lease(d.lease));
        }
        // The lease's own pin: that it exists proves that the slot holds a published block.
        let pin = self.leases.pin(d.lease, d.slot);
        let pin = pin.ok_or(Refusal::Slot { lease: d.lease, slot: d.slot })?;
        if !Guard::Generation.passes(d.generation == pin.generation()) {
            return Err(Refusal::Generation { asked: d.generation, held: pin.generation() });
        }
        if !Guard::Identity.passes(d.hash == pin.hash() && d.group == pin.group()) {
            return Err(Refusal::Identity);
        }
        if !Guard::Content.passes(d.len == pin.len_bytes() && d.crc == pin.crc()) {
            return Err(Refusal::Content);
        }
        Ok(pin.clone())
    }

    /// What a peer is told about a pinned block. `lease` has to cover it.
    pub fn descriptor(
        &self,
        pin: &ReadPin,
        owner: WorkerId,
        incarnation: Incarnation,
        lease: LeaseId,
        remaining: Duration,
    ) -> BlockDescriptor {
        self.assert_own(std::slice::from_ref(pin));
        BlockDescriptor {
            owner,
            incarnation,
            lease,
            lease_remaining_ms: u32::try_from(remaining.as_millis()).unwrap_or(u32::MAX),
            slot: pin.slot(),
            generation: pin.generation(),
            hash: pin.hash(),
            group: pin.group(),
            len: pin.len_bytes(),
            crc: pin.crc(),
        }
    }

    /// How many slots are in which state, exactly: every handle dropped before this call counts.
    pub fn counts(&mut self) -> Counts {
        self.settle_returns();
        self.settled_counts()
    }

    /// How many slots could be handed out if nothing else changed: free ones and those of blocks
    /// that can be evicted, descendants first. Slots that were set aside for readers are asked about
    /// again, 64 at a time, and count as soon as they are free. Of all others only a draft asks
    /// whether readers have mapped them, so it may fail where this says that some are left.
    pub fn available(&mut self) -> u32 {
        self.settle_returns();
        self.readmit();
        self.free.len() as u32 + self.forest.reclaimable()
    }

    /// The newest events.
    pub fn log(&self) -> &EventLog {
        &self.log
    }

    /// Everything that is held, for a watcher that knows nothing.
    pub fn snapshot(&self) -> Batch {
        let held = self.slots.iter().filter_map(|slot| match slot.used_as {
            Use::Held(key) => {
                let block = self.forest.get(&key)?;
                Some(BlockEvent::published(&block.content.id, Tier::Device))
            }
            _ => None,
        });
        Batch { snapshot: true, first_seq: self.log.next_seq(), events: held.collect() }
    }

    /// What a watcher gets that wants events from `from` on: at most `events_max` of them, or a
    /// snapshot where the log no longer has them.
    pub fn watch(&self, from: EventSeq, events_max: usize) -> Batch {
        match self.log.since(from) {
            Ok(events) => {
                let events = events.take(events_max).map(|(_, event)| event).collect();
                Batch { snapshot: false, first_seq: from, events }
            }
            Err(_) => self.snapshot(),
        }
    }

    fn pin_held(&mut self, key: BlockKey) -> Option<ReadPin> {
        let block = self.forest.get(&key)?;
        if let Some(shared) = block.pin.upgrade() {
            return Some(ReadPin(shared));
        }
        let claim = Claim::new(block.slot, block.generation, Fate::Unpin, &self.bin);
        let pinned = Arc::new(Pinned::new(claim, block.content));
        self.forest.pin(&key, Arc::downgrade(&pinned));
        Some(ReadPin(pinned))
    }

    fn evict(&mut self) -> Option<(SlotId, Evicted)> {
        for _ in 0..gate::LOOKS {
            let block = self.forest.oldest()?;
            let (key, slot) = (block.content.id.key(), block.slot);
            let (generation, content) = (block.generation, block.content);
            if self.close(slot, generation, content) {
                let block = self.forest.evict()?;
                let id = block.content.id;
                assert_eq!(self.slots[slot.0 as usize].used_as, Use::Held(id.key()));
                self.log.push(BlockEvent::removed(&id.key()));
                return Some((slot, Evicted { id, retention: block.retention }));
            }
            self.forest.touch(&key);
        }
        None
    }

    /// Accounts for the handles that were dropped since the last call, in the order of the drops.
    fn settle_returns(&mut self) {
        let mut returns = std::mem::take(&mut self.returns);
        self.bin.take(&mut returns);
        for back in returns.drain(..) {
            self.settle_return(back);
        }
        self.returns = returns;
    }

    fn settle_return(&mut self, Return { slot: id, generation, fate }: Return) {
        let slot = &mut self.slots[id.0 as usize];
        assert_eq!(slot.generation, generation, "slot {id} was handed out while a handle lived");
        match (slot.used_as, fate) {
            (Use::Draft, Fate::GiveBack) => {
                self.drafts -= 1;
                self.free_slot(id);
            }
            (Use::Sealed, Fate::GiveBack) => {
                self.sealed -= 1;
                self.free_slot(id);
            }
            (Use::Draft, Fate::Quarantine) => {
                self.drafts -= 1;
                self.quarantined += 1;
                slot.used_as = Use::Quarantined;
            }
            (Use::Held(key), Fate::Unpin) => self.forest.unpin(&key),
            (used_as, fate) => panic!("slot {id} is {used_as:?}, but a handle says {fate:?}"),
        }
    }

    fn free_slot(&mut self, id: SlotId) {
        self.slots[id.0 as usize].used_as = Use::Free;
        self.free.push(id);
    }

    /// The slot of a handle that must be this pool's and in the state that the handle stands for.
    fn claimed(
        &mut self,
        claim: &Claim,
        id: SlotId,
        generation: Generation,
        used_as: Use,
    ) -> &mut Slot {
        assert!(claim.belongs_to(&self.bin), "{claim:?} belongs to another pool");
        let slot = &mut self.slots[id.0 as usize];
        assert_eq!((slot.generation, slot.used_as), (generation, used_as), "{claim:?}");
        slot
    }

    fn assert_own(&self, pins: &[ReadPin]) {
        for pin in pins {
            assert!(pin.0.claim().belongs_to(&self.bin), "{pin:?} belongs to another pool");
        }
    }

    fn settled_counts(&self) -> Counts {
        Counts {
            free: self.free.len() as u32,
            draft: self.drafts,
            sealed: self.sealed,
            cached: self.forest.held() - self.forest.pinned(),
            pinned: self.forest.pinned(),
            set_aside: self.gates.set_aside(),
            quarantined: self.quarantined,
            leases: self.leases.len() as u32,
        }
    }
}

#[cfg(test)]
mod gate_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;
