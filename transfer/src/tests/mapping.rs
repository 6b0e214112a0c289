//! Blocks used where they lie: what holds them there, what does not, and who may not know better.

use super::*;
use crate::guards::Guard;
use crate::shm::{Mapped, Shm, ShmOptions};
use baton_proto::ids::{Generation, SlotId};

/// An owner with so many slots, and a reader.
pub(super) struct Near {
    pub(super) rig: Rig,
    pub(super) shm: Shm,
}

impl Near {
    pub(super) async fn new(slots: u32, guards: Guards) -> Self {
        Self::of(Store::new(slots, SLOT_BYTES), ServeLimits::default(), guards).await
    }

    /// An owner of this store, and a reader.
    pub(super) async fn of(store: Store, limits: ServeLimits, guards: Guards) -> Self {
        let mut place = Place::new(TransportKind::Shm);
        let slot_bytes = store.arena.slot_bytes();
        let owner = Owner::limited(&mut place, store, 1, guards, limits).await;
        let puller = Puller::with(&place, guards, Store::new(64, slot_bytes), token());
        let shm = Shm::guarded(puller.local.clone(), ShmOptions::default(), guards);
        Self { rig: Rig { place, owner, puller }, shm }
    }

    pub(super) fn owner(&self) -> &Owner {
        &self.rig.owner
    }

    pub(super) async fn map(&self, blocks: &[BlockDescriptor]) -> Result<Mapped, TransferError> {
        self.shm.map(&self.rig.owner.peer, blocks, SOON).await
    }

    /// A slot to write, if the owner has one.
    pub(super) fn draft(&self) -> Option<Draft> {
        pool::lock(&self.owner().store.pool).draft().ok().map(|(draft, _)| draft)
    }

    /// Waits until the owner has a slot to write.
    pub(super) async fn draft_soon(&self) -> Draft {
        soon(|| self.draft()).await
    }

    pub(super) async fn finish(self) {
        drop(self.shm);
        self.rig.finish().await;
    }
}

/// Waits until there is something.
pub(super) async fn soon<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let found = async {
        loop {
            match look() {
                Some(found) => return found,
                None => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(SOON, found).await.expect("it happens in time")
}

/// Whether every mapped byte is that of its block.
pub(super) fn intact(mapped: &Mapped) -> bool {
    mapped.blocks().iter().enumerate().all(|(i, block)| {
        let mut bytes = vec![0; block.len as usize];
        mapped.copy_out(i, 0, &mut bytes).unwrap();
        bytes == content(tag(block), bytes.len())
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mapped_blocks_are_read_where_they_lie() {
    let near = Near::new(64, Guards::default()).await;
    let blocks: Vec<_> =
        (1..=5).map(|tag| near.owner().publish(tag, SLOT_BYTES - tag as usize)).collect();
    let mapped = near.map(&blocks).await.unwrap();
    assert_eq!(mapped.blocks(), blocks);
    assert!(intact(&mapped));
    assert_eq!(mapped.held(), Ok(()));
    let raw = mapped.raw(3);
    assert_eq!((raw.len, raw.ptr.addr() % 64), (SLOT_BYTES - 4, 0));
    let error = mapped.copy_out(3, SLOT_BYTES - 4, &mut [0; 1]).unwrap_err();
    assert!(matches!(error, TransferError::Span { .. }), "{error}");
    // Some of them twice, beside the others, and in one mapping.
    let again = near.map(&[blocks[0], blocks[1], blocks[0]]).await.unwrap();
    near.map(&[BlockDescriptor { crc: !blocks[0].crc, ..blocks[0] }]).await.unwrap_err();
    let counted = near.rig.puller.local.counters.sample(TransportKind::Shm, Op::Map);
    let bytes = [0, 1, 2, 3, 4, 0, 1, 0].map(|i| u64::from(blocks[i].len)).iter().sum();
    assert_eq!((counted.blocks, counted.bytes, counted.failed), (8, bytes, 1));
    assert_eq!(counted.copied_bytes, 0);
    drop(mapped);
    assert!(intact(&again));
    drop(again);
    near.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payload_is_compared_once_and_again_when_its_slot_was_reused() {
    let near = Near::new(1, Guards::default()).await;
    let block = near.owner().publish(1, 4096);
    drop(near.map(&[block]).await.unwrap());
    let damage = |slot: SlotId| near.owner().store.arena.write(slot.0)[7] ^= 1;
    // Damaged behind everybody's back: who has verified it does not look again ...
    damage(block.slot);
    drop(near.map(&[block]).await.unwrap());
    // ... another reader does ...
    let other = Shm::new(near.rig.puller.local.clone(), ShmOptions::default());
    let error = other.map(&near.owner().peer, &[block], SOON).await.unwrap_err();
    assert!(matches!(error, TransferError::Mismatch(Mismatch::Checksum { .. })), "{error}");
    // ... and so does the first one for the next block in that slot.
    near.owner().release(&block);
    let next = near.owner().publish(2, 4096);
    assert_eq!(next.slot, block.slot);
    damage(next.slot);
    let error = near.map(&[next]).await.unwrap_err();
    assert!(matches!(error, TransferError::Mismatch(Mismatch::Checksum { .. })), "{error}");
    damage(next.slot);
    drop(near.map(&[next]).await.unwrap());
    drop(other);
    near.finish().await;
}

/// Maps a block, ends its lease, and lets the owner want its only slot. Whether it got it.
async fn reuse_under_a_reader(guards: Guards) -> bool {
    let near = Near::new(1, guards).await;
    let block = near.owner().publish(1, 4096);
    let mapped = near.map(&[block]).await.unwrap();
    near.owner().release(&block);
    let reused = near.draft().is_some();
    if reused {
        drop(mapped);
    } else {
        assert!(intact(&mapped));
        // The block stays what it was to everybody else, too.
        let other = near.map(&[block]).await.unwrap();
        assert_eq!(near.rig.puller.pull_one(&near.owner().peer, &block).await, Ok(()));
        drop((mapped, other));
        drop(near.draft().expect("nobody uses it any more"));
    }
    near.finish().await;
    reused
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_board_keeps_a_mapped_block_from_being_reused() {
    assert!(!reuse_under_a_reader(Guards::default()).await);
    let reused = reuse_under_a_reader(Guards::without(Guard::Board)).await;
    assert!(reused, "something else keeps it as well");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn references_that_are_wrong_are_not_mapped() {
    let near = Near::new(8, Guards::default()).await;
    let block = near.owner().publish(1, 4096);
    // Verified, so that the short way is taken.
    drop(near.map(&[block]).await.unwrap());
    let before = Generation(block.generation.0 - 1);
    let cases = [
        BlockDescriptor { generation: before, ..block },
        BlockDescriptor { hash: hash(2), ..block },
        BlockDescriptor { group: GroupId(1), ..block },
        BlockDescriptor { crc: !block.crc, ..block },
        BlockDescriptor { len: 4095, ..block },
        BlockDescriptor { len: u32::MAX, ..block },
        BlockDescriptor { slot: SlotId(3), ..block },
        BlockDescriptor { slot: SlotId(8), ..block },
        BlockDescriptor { slot: SlotId(u32::MAX), ..block },
        BlockDescriptor { owner: WorkerId(12), ..block },
        BlockDescriptor { incarnation: Incarnation(2), ..block },
        BlockDescriptor { lease_remaining_ms: 0, ..block },
    ];
    for wrong in cases {
        // Beside a right one, which is not kept either.
        let error = near.map(&[block, wrong]).await.unwrap_err();
        let expected = matches!(
            error,
            TransferError::Mismatch(_)
                | TransferError::Refused(Refused::Slot)
                | TransferError::TooLong { .. }
                | TransferError::Foreign { .. }
                | TransferError::LeaseExpired
        );
        assert!(expected, "{wrong:?}: {error}");
    }
    near.owner().release(&block);
    let drafts: Vec<_> = (0..8).map(|_| near.draft().expect("no pin is left behind")).collect();
    drop(drafts);
    near.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_than_the_limit_is_mapped() {
    let near = Near::new(16, Guards::default()).await;
    let blocks: Vec<_> = (1..=5).map(|tag| near.owner().publish(tag, 4096)).collect();
    let four = near.map(&blocks[..4]).await.unwrap();
    for more in [&blocks[4..], &blocks[3..]] {
        let error = near.map(more).await.unwrap_err();
        assert_eq!(error, TransferError::TooManyMapped { limit: 4 });
    }
    // What is mapped already costs nothing.
    let again = near.map(&blocks[..4]).await.unwrap();
    drop(four);
    assert!(near.map(&blocks[4..]).await.is_err());
    drop(again);
    drop(near.map(&blocks[4..]).await.unwrap());
    near.finish().await;
}

/// Verifying a long block is given up with the future, the deadline or the process; the pins go,
/// when the thread that verifies has noticed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_map_that_is_given_up_leaves_no_pin() {
    const BYTES: usize = 8 << 20;
    let store = Store::new(4, BYTES);
    let near = Near::of(store, ServeLimits::default(), Guards::default()).await;
    let small = near.owner().publish(1, 4096);
    let long = near.owner().publish(2, BYTES);
    let error = near.shm.map(&near.owner().peer, &[long], Duration::ZERO).await.unwrap_err();
    assert_eq!(error, TransferError::Deadline);
    let mut dropped = 0;
    for round in 0..30 {
        // Attached beforehand: what is left is to verify, on a thread of its own.
        let other = Shm::new(near.rig.puller.local.clone(), ShmOptions::default());
        drop(other.map(&near.owner().peer, &[small], SOON).await.unwrap());
        let (blocks, peer) = ([long], near.owner().peer.clone());
        let mut map = std::pin::pin!(other.map(&peer, &blocks, SOON));
        // Polled so often, then dropped.
        for _ in 0..=round % 3 {
            tokio::select! {
                biased;
                _ = &mut map => {}
                () = tokio::task::yield_now() => { dropped += 1; continue }
            }
            break;
        }
    }
    assert!(dropped > 0, "none was given up while it was verified");
    let error = near.shm.map(&near.owner().peer, &[long], Duration::from_micros(100)).await;
    assert!(matches!(error, Ok(_) | Err(TransferError::Deadline)), "{error:?}");
    drop(error);
    near.owner().release(&small);
    near.owner().release(&long);
    near.rig.puller.quiesce().await;
    let mut drafts = Vec::new();
    for _ in 0..4 {
        drafts.push(near.draft_soon().await);
    }
    drop(drafts);
    near.finish().await;
}

/// An owner that reuses its few slots as fast as it can, and readers that map what it announces and
/// look at every byte for as long as they hold it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mapped_block_never_changes_under_its_reader() {
    const LEN: usize = 3000;
    let near = Arc::new(Near::new(8, Guards::default()).await);
    let announced = Arc::new(Mutex::new(vec![near.owner().publish(1, LEN)]));
    let stop = CancellationToken::new();
    let churn = {
        let (near, announced, stop) = (Arc::clone(&near), Arc::clone(&announced), stop.clone());
        std::thread::spawn(move || {
            let mut published = 1;
            while !stop.is_cancelled() {
                // Nothing but the board keeps a block.
                let keep = announced.lock().unwrap().clone();
                for block in &keep {
                    near.owner().release(block);
                }
                if let Some(draft) = near.draft() {
                    published += 1;
                    let bytes = content(published, LEN);
                    let block = near.owner().publish_draft(draft, published, &bytes);
                    let mut announced = announced.lock().unwrap();
                    announced.push(block);
                    let old = announced.len().saturating_sub(6);
                    announced.drain(..old);
                }
            }
            published
        })
    };
    let mut readers = Vec::new();
    let rounds = if std::env::var_os("BATON_LONG").is_some() { 20_000 } else { 1000 };
    for _ in 0..2 {
        let (near, announced) = (Arc::clone(&near), Arc::clone(&announced));
        let tasks = near.rig.puller.local.tasks.clone();
        readers.push(tasks.spawn(async move {
            let mut mapped = 0;
            let other = Shm::new(near.rig.puller.local.clone(), ShmOptions::default());
            for round in 0..rounds {
                let blocks = announced.lock().unwrap().clone();
                let some = &blocks[round % blocks.len()..];
                let some = &some[..some.len().min(2)];
                match other.map(&near.owner().peer, some, SOON).await {
                    Ok(held) => {
                        for _ in 0..3 {
                            assert!(intact(&held), "a mapped block changed");
                        }
                        mapped += 1;
                    }
                    Err(TransferError::Mismatch(_) | TransferError::TooManyMapped { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            mapped
        }));
    }
    let mut mapped = 0;
    for reader in readers {
        mapped += reader.await.unwrap();
    }
    stop.cancel();
    let published = churn.join().unwrap();
    assert!(mapped > 100 && published > 100, "{mapped} mapped, {published} published");
    for block in announced.lock().unwrap().iter() {
        near.owner().release(block);
    }
    Arc::into_inner(near).unwrap().finish().await;
}
