//! A worker's blocks: the pool's bookkeeping and, in the arena, the records that readers check.
//!
//! Every change of a slot goes through here, so that the order always holds: a record says `Draft`
//! before the first byte is written, and says `Sealed` before the index hears of the block.

use baton_arena::Arena;
use baton_kv::lease::{Draft, ReadPin};
use baton_kv::pool::{BlockId, Counts, Exhausted, Pool, PoolConfig, SharedPool, lock};
use baton_kv::record::{RecordState, SlotRecord};
use baton_kv::retention::{Class, Retention};
use baton_proto::block::BlockDescriptor;
use baton_proto::ids::{GroupId, Incarnation, LeaseId, SequenceHash, WorkerId};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// The only group of models whose layers all keep keys and values of every token.
pub const GROUP: GroupId = GroupId(0);

/// A worker's blocks. Cheap to clone; all clones are the same blocks.
#[derive(Clone, Debug)]
pub struct Blocks {
    pool: SharedPool,
    arena: Arena,
    worker: WorkerId,
    incarnation: Incarnation,
    evictions: Arc<[AtomicU64; Class::ALL.len()]>,
}

impl Blocks {
    /// Takes charge of an arena; `config.slots` must be the arena's.
    pub fn new(
        arena: Arena,
        config: PoolConfig,
        worker: WorkerId,
        incarnation: Incarnation,
    ) -> Self {
        assert_eq!(config.slots, arena.slots(), "pool and arena differ in size");
        let pool = Arc::new(Mutex::new(Pool::new(config)));
        Self { pool, arena, worker, incarnation, evictions: Arc::default() }
    }

    /// The memory.
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// The bookkeeping, shared with the transport's servers.
    pub fn pool(&self) -> &SharedPool {
        &self.pool
    }

    /// The owner of these blocks.
    pub fn worker(&self) -> WorkerId {
        self.worker
    }

    /// The owner's present run.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// A slot to write, evicting the least recently used leaf where none is free.
    pub fn draft(&self) -> Result<Draft, Exhausted> {
        let (draft, evicted) = self.lock().draft()?;
        if let Some(evicted) = evicted {
            self.evictions[evicted.retention.class as usize].fetch_add(1, Ordering::Relaxed);
        }
        let record = SlotRecord {
            state: RecordState::Draft,
            group: GROUP,
            generation: draft.generation(),
            hash: SequenceHash::default(),
            len: 0,
            crc: 0,
        };
        self.arena.set_record(draft.slot().0, &record.to_bytes());
        Ok(draft)
    }

    /// Seals a block that this worker computed, and publishes it.
    pub fn publish_computed(
        &self,
        draft: Draft,
        hash: SequenceHash,
        parent: Option<SequenceHash>,
        class: Class,
    ) -> ReadPin {
        let (len, crc) = {
            let payload = self.arena.read(draft.slot().0);
            (payload.len() as u32, crc32c::crc32c(&payload))
        };
        self.publish(draft, BlockId { hash, parent, group: GROUP }, len, crc, class)
    }

    /// Seals a block that a transport brought and verified, and publishes it.
    pub fn publish_pulled(
        &self,
        draft: Draft,
        block: &BlockDescriptor,
        parent: Option<SequenceHash>,
    ) -> ReadPin {
        let id = BlockId { hash: block.hash, parent, group: block.group };
        self.publish(draft, id, block.len, block.crc, Class::History)
    }

    fn publish(&self, draft: Draft, id: BlockId, len: u32, crc: u32, class: Class) -> ReadPin {
        let record = SlotRecord {
            state: RecordState::Sealed,
            group: id.group,
            generation: draft.generation(),
            hash: id.hash,
            len,
            crc,
        };
        self.arena.set_record(draft.slot().0, &record.to_bytes());
        let mut pool = self.lock();
        let sealed = pool.seal(draft, id, len, crc);
        pool.publish_as(sealed, Retention { class, ..Retention::default() })
    }

    /// A reader's pin on a block, where it is held.
    pub fn pin(&self, hash: &SequenceHash) -> Option<ReadPin> {
        self.lock().pin(hash, GROUP)
    }

    /// Pins on the leading blocks of a chain that are held.
    pub fn pin_prefix(&self, chain: &[SequenceHash]) -> Vec<ReadPin> {
        self.lock().pin_prefix(chain, GROUP)
    }

    /// Keeps the pinned blocks in place for a peer, and says where they lie.
    ///
    /// `lease`: the lease to extend; `None` makes a new one.
    pub fn lend(
        &self,
        pins: &[ReadPin],
        lease: Option<LeaseId>,
        ttl: Duration,
        now: Duration,
    ) -> Option<(LeaseId, Vec<BlockDescriptor>)> {
        let mut pool = self.lock();
        let id = match lease {
            Some(id) => pool.extend_lease(id, pins.to_vec(), ttl, now).then_some(id)?,
            None => pool.lease(pins.to_vec(), ttl, now).ok()?,
        };
        let describe = |pin: &ReadPin| pool.descriptor(pin, self.worker, self.incarnation, id, ttl);
        let blocks = pins.iter().map(describe).collect();
        Some((id, blocks))
    }

    /// Lengthens a lease; `false` where it has run out.
    pub fn renew(&self, lease: LeaseId, ttl: Duration, now: Duration) -> bool {
        self.lock().extend_lease(lease, Vec::new(), ttl, now)
    }

    /// Ends a lease early.
    pub fn release(&self, lease: LeaseId) {
        self.lock().release(lease);
    }

    /// Ends the leases whose time is over.
    pub fn expire(&self, now: Duration) -> usize {
        self.lock().expire(now)
    }

    /// How many slots are in which state.
    pub fn counts(&self) -> Counts {
        self.lock().counts()
    }

    /// Slots that can ever be had: all but those lost to writers that were never quiet.
    pub fn usable_slots(&self) -> usize {
        (self.arena.slots() - self.counts().quarantined) as usize
    }

    /// Blocks that have made room so far, by class as in [`Class::ALL`].
    pub fn evictions(&self) -> [u64; Class::ALL.len()] {
        Class::ALL.map(|class| self.evictions[class as usize].load(Ordering::Relaxed))
    }

    /// Slots that can be had now: free or evictable.
    pub fn available(&self) -> u32 {
        self.lock().available()
    }

    /// The pool, for the moment.
    pub fn lock(&self) -> MutexGuard<'_, Pool> {
        lock(&self.pool)
    }
}
