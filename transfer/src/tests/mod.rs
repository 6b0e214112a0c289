//! One adversarial suite for all transports, and what it stands on: two workers in one process,
//! one that holds blocks and one that pulls them.
#![allow(clippy::unwrap_used)]

mod cancel;
mod fabric;
mod flight;
mod guards;
mod hostile;
mod links;
mod mapping;
mod near;
mod near_faults;
mod parts;
mod processes;
mod refusals;
mod reuse;
mod storm;
mod suite;
mod tcp_batches;
mod tcp_tls;
mod verbs_keys;
mod verbs_pairing;
mod verbs_push;
mod verbs_trouble;
mod wire;
mod wires;

use crate::guards::Guards;
use crate::*;
use baton_arena::{Arena, ArenaOptions};
use baton_kv::lease::Draft;
use baton_kv::pool::{self, BlockId, Counts, Pool, PoolConfig, SharedPool};
use baton_proto::block::BlockDescriptor;
use baton_proto::ids::{GroupId, Incarnation, SequenceHash, WorkerId};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wires::{Place, on_all, on_real};

pub(super) const OWNER: WorkerId = WorkerId(11);
pub(super) const SLOT_BYTES: usize = 256 << 10;
pub(super) const SOON: Duration = Duration::from_secs(10);
/// Pseudo-random bytes that belong to a tag.
pub(super) fn content(tag: u64, len: usize) -> Vec<u8> {
    let mut state = tag.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    std::iter::repeat_with(step).take(len).collect()
}

pub(super) fn hash(tag: u64) -> SequenceHash {
    SequenceHash(u128::from(tag).to_le_bytes())
}

/// The tag that [`hash`] was made of.
pub(super) fn tag(block: &BlockDescriptor) -> u64 {
    u128::from_le_bytes(block.hash.0) as u64
}

/// An arena and the pool of its slots.
#[derive(Clone)]
pub(super) struct Store {
    pub(super) arena: Arena,
    pub(super) pool: SharedPool,
}

impl Store {
    pub(super) fn new(slots: u32, slot_bytes: usize) -> Self {
        let arena = Arena::create(ArenaOptions { slots, slot_bytes, name: "test" }).unwrap();
        let config = PoolConfig { slots, events_kept: 64, leases_max: 1024 };
        Self { arena, pool: Arc::new(Mutex::new(Pool::new(config))) }
    }

    pub(super) fn counts(&self) -> Counts {
        pool::lock(&self.pool).counts()
    }

    /// Nothing is used, nothing lost, and nobody touches anything.
    pub(super) fn assert_at_rest(&self) {
        let rest = Counts { free: self.arena.slots(), ..Counts::default() };
        assert_eq!(self.counts(), rest);
        assert_eq!(self.arena.guards(), 0);
    }
}

/// A worker that holds blocks, in one run.
pub(super) struct Owner {
    pub(super) store: Store,
    pub(super) peer: Peer,
    pub(super) counters: Counters,
    pub(super) shutdown: CancellationToken,
    pub(super) tasks: TaskTracker,
    clock_ms: Arc<AtomicU64>,
}

pub(super) fn token() -> Token {
    Token::new([7; 32])
}

impl Owner {
    pub(super) async fn start(place: &mut Place, store: Store, run: u64, guards: Guards) -> Self {
        Self::limited(place, store, run, guards, ServeLimits::default()).await
    }

    pub(super) async fn limited(
        place: &mut Place,
        store: Store,
        run: u64,
        guards: Guards,
        limits: ServeLimits,
    ) -> Self {
        let clock_ms = Arc::new(AtomicU64::new(0));
        let identity = Identity { worker: OWNER, incarnation: Incarnation(run) };
        let ticks = Arc::clone(&clock_ms);
        let context = ServeContext {
            arena: store.arena.clone(),
            pool: Arc::clone(&store.pool),
            identity,
            token: token(),
            clock: Arc::new(move || Duration::from_millis(ticks.load(Ordering::Relaxed))),
            counters: Counters::default(),
            tasks: TaskTracker::new(),
            shutdown: CancellationToken::new(),
        };
        let (counters, tasks) = (context.counters.clone(), context.tasks.clone());
        let shutdown = context.shutdown.clone();
        place.serve(context, limits, guards).await;
        let peer =
            Peer { worker: OWNER, incarnation: Incarnation(run), endpoints: place.endpoints() };
        Self { store, peer, counters, shutdown, tasks, clock_ms }
    }

    /// Publishes a block whose bytes follow from `tag`, under a lease of its own.
    pub(super) fn publish(&self, tag: u64, len: usize) -> BlockDescriptor {
        self.publish_bytes(tag, &content(tag, len))
    }

    pub(super) fn publish_bytes(&self, tag: u64, bytes: &[u8]) -> BlockDescriptor {
        let (draft, _) = pool::lock(&self.store.pool).draft().unwrap();
        self.publish_draft(draft, tag, bytes)
    }

    pub(super) fn publish_draft(&self, draft: Draft, tag: u64, bytes: &[u8]) -> BlockDescriptor {
        let mut pool = pool::lock(&self.store.pool);
        let slot = draft.slot().0;
        self.store.arena.set_record(slot, &[0; 64]);
        self.store.arena.write(slot)[..bytes.len()].copy_from_slice(bytes);
        let id = BlockId { hash: hash(tag), parent: None, group: GroupId(0) };
        let sealed = pool.seal(draft, id, bytes.len() as u32, crc32c::crc32c(bytes));
        self.store.arena.set_record(slot, &sealed.record().to_bytes());
        let pin = pool.publish(sealed);
        let ttl = Duration::from_mins(1);
        let lease = pool.lease(vec![pin.clone()], ttl, self.now()).unwrap();
        pool.descriptor(&pin, OWNER, self.peer.incarnation, lease, ttl)
    }

    /// Ends a block's lease, so that it can be evicted.
    pub(super) fn release(&self, block: &BlockDescriptor) {
        pool::lock(&self.store.pool).release(block.lease);
    }

    pub(super) fn now(&self) -> Duration {
        Duration::from_millis(self.clock_ms.load(Ordering::Relaxed))
    }

    pub(super) fn advance(&self, by: Duration) {
        self.clock_ms.fetch_add(by.as_millis() as u64, Ordering::Relaxed);
    }

    /// Ends the run; everything it started has to end too.
    pub(super) async fn stop(&self) {
        self.shutdown.cancel();
        self.tasks.close();
        tokio::time::timeout(SOON, self.tasks.wait()).await.expect("the owner's tasks end");
    }
}

/// A worker that pulls.
pub(super) struct Puller {
    pub(super) store: Store,
    pub(super) local: Local,
    pub(super) transport: Box<dyn Transport>,
}

impl Puller {
    pub(super) fn new(place: &Place, guards: Guards) -> Self {
        Self::with(place, guards, Store::new(64, SLOT_BYTES), token())
    }

    pub(super) fn with(place: &Place, guards: Guards, store: Store, token: Token) -> Self {
        let local = Local {
            arena: store.arena.clone(),
            token,
            counters: Counters::default(),
            tasks: TaskTracker::new(),
            shutdown: CancellationToken::new(),
        };
        let transport = place.transport(local.clone(), guards);
        Self { store, local, transport }
    }

    /// Pairs blocks with fresh slots.
    pub(super) fn pulls(&self, blocks: &[BlockDescriptor]) -> Vec<Pull> {
        let mut pool = pool::lock(&self.store.pool);
        let pull = |&from| Pull::whole(from, pool.draft().unwrap().0.lend());
        blocks.iter().map(pull).collect()
    }

    pub(super) fn start(&self, peer: &Peer, blocks: &[BlockDescriptor]) -> InFlight {
        self.transport.pull(peer, self.pulls(blocks), SOON)
    }

    /// Pulls and judges: an error for each block that did not arrive. Bytes that arrived wrong are
    /// a panic: no guard but the one that a test removed lets them pass.
    pub(super) async fn pull(
        &self,
        peer: &Peer,
        blocks: &[BlockDescriptor],
    ) -> Vec<Result<(), TransferError>> {
        let settled = self.start(peer, blocks).settle().await;
        assert_eq!(settled.len(), blocks.len());
        self.judge(settled, blocks)
    }

    pub(super) async fn pull_one(
        &self,
        peer: &Peer,
        block: &BlockDescriptor,
    ) -> Result<(), TransferError> {
        self.pull(peer, &[*block]).await.remove(0)
    }

    pub(super) fn judge(
        &self,
        settled: Vec<Settled>,
        blocks: &[BlockDescriptor],
    ) -> Vec<Result<(), TransferError>> {
        let judge = |(settled, expected): (Settled, &BlockDescriptor)| match settled {
            Settled::Arrived { block, lease } => {
                assert_eq!(block, *expected);
                let draft = lease.settle();
                let len = block.len as usize;
                let found = &self.store.arena.read(draft.slot().0)[..len];
                assert!(found == content(tag(&block), len), "wrong bytes for {block:?}");
                Ok(())
            }
            Settled::Failed { block, lease, error } => {
                assert_eq!(block, *expected);
                drop(lease.settle());
                Err(error)
            }
        };
        settled.into_iter().zip(blocks).map(judge).collect()
    }

    /// Waits until all tasks have ended, and stays usable.
    pub(super) async fn quiesce(&self) {
        self.quiesce_but(0).await;
    }

    /// The same with so many slots in use by others than pulls.
    pub(super) async fn quiesce_but(&self, kept: u32) {
        if self.transport.kind() == TransportKind::Verbs {
            // Connections have tasks as long as they live; what counts is the slots.
            let at_rest = async {
                while self.store.counts().free != self.store.arena.slots() - kept {
                    tokio::task::yield_now().await;
                }
            };
            return tokio::time::timeout(SOON, at_rest).await.expect("the pulls end");
        }
        self.local.tasks.close();
        tokio::time::timeout(SOON, self.local.tasks.wait()).await.expect("the pulls end");
        self.local.tasks.reopen();
    }

    /// Waits until all of a pull has been reported, whatever else still runs.
    pub(super) async fn over(&self, flight: &InFlight) {
        if self.transport.kind() != TransportKind::Verbs {
            return self.quiesce().await;
        }
        let over = async {
            while !flight.is_reported() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SOON, over).await.expect("the pull ends");
    }

    /// Everything ends, and no slot is missing.
    pub(super) async fn finish(self) {
        self.local.shutdown.cancel();
        self.local.tasks.close();
        tokio::time::timeout(SOON, self.local.tasks.wait()).await.expect("the puller's tasks end");
        self.store.assert_at_rest();
    }
}

/// Both workers.
pub(super) struct Rig {
    pub(super) place: Place,
    pub(super) owner: Owner,
    pub(super) puller: Puller,
}

impl Rig {
    pub(super) async fn new(kind: TransportKind) -> Self {
        Self::guarded(kind, Guards::default()).await
    }

    pub(super) async fn guarded(kind: TransportKind, guards: Guards) -> Self {
        Self::at(Place::new(kind), guards).await
    }

    pub(super) async fn at(mut place: Place, guards: Guards) -> Self {
        let store = Store::new(64, SLOT_BYTES);
        let owner = Owner::start(&mut place, store, 1, guards).await;
        let puller = Puller::new(&place, guards);
        Self { place, owner, puller }
    }

    /// Ends both and checks that nothing was lost on either side.
    pub(super) async fn finish(self) {
        self.puller.finish().await;
        self.owner.stop().await;
        self.owner.advance(Duration::from_hours(1));
        let now = self.owner.now();
        pool::lock(&self.owner.store.pool).expire(now);
        let Counts { free, cached, draft, sealed, pinned, set_aside, quarantined, leases } =
            self.owner.store.counts();
        assert_eq!(free + cached, self.owner.store.arena.slots());
        assert_eq!((draft, sealed, pinned, set_aside, quarantined, leases), (0, 0, 0, 0, 0, 0));
        assert_eq!(self.owner.store.arena.guards(), 0);
        self.place.finish().await;
    }
}
