//! What only shared memory has: copies in place, by several threads, with fewer checks.

use super::*;
use crate::shm::{Shm, ShmOptions, Verify};
use baton_proto::ids::Generation;
use std::num::NonZeroU32;

const BYTES: usize = 3 << 20;

/// An owner of large blocks and a puller with these options.
async fn large(options: ShmOptions) -> Rig {
    let mut place = Place::new(TransportKind::Shm);
    let owner = Owner::start(&mut place, Store::new(8, BYTES), 1, Guards::default()).await;
    let mut puller = Puller::with(&place, Guards::default(), Store::new(8, BYTES), token());
    puller.transport = Box::new(Shm::new(puller.local.clone(), options));
    Rig { place, owner, puller }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_threads_copy_one_pull() {
    let options = ShmOptions { threads: 3, bytes_per_thread: 1 << 20, ..ShmOptions::default() };
    let rig = large(options).await;
    let blocks: Vec<_> = (1..=7).map(|tag| rig.owner.publish(tag, BYTES - tag as usize)).collect();
    // `pull` compares every byte, and the order of the answers.
    assert_eq!(rig.puller.pull(&rig.owner.peer, &blocks).await, vec![Ok(()); 7]);
    assert_eq!(rig.puller.local.counters.sample(TransportKind::Shm, Op::Pull).blocks, 7);
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_small_has_arrived_when_the_pull_returns() {
    let rig = Rig::new(TransportKind::Shm).await;
    let blocks: Vec<_> = (1..=4).map(|tag| rig.owner.publish(tag, 4096)).collect();
    // The first pull attaches; that takes a task.
    assert_eq!(rig.puller.pull(&rig.owner.peer, &blocks).await, vec![Ok(()); 4]);
    let flight = rig.puller.start(&rig.owner.peer, &blocks);
    assert_eq!(rig.puller.local.counters.sample(TransportKind::Shm, Op::Pull).blocks, 8);
    assert_eq!(rig.puller.judge(flight.settle().await, &blocks), vec![Ok(()); 4]);
    // Also when nobody waits for it.
    drop(rig.puller.start(&rig.owner.peer, &blocks));
    rig.finish().await;
}

/// One payload in three is compared with its checksum, slot records always are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sampling_leaves_out_checksums_and_nothing_else() {
    let verify = Verify::Sampled { one_in: NonZeroU32::new(3).unwrap() };
    let rig = large(ShmOptions { verify, ..ShmOptions::default() }).await;
    let block = rig.owner.publish(1, BYTES);
    rig.owner.store.arena.write(block.slot.0)[BYTES - 1] ^= 1;
    let mut outcomes = Vec::new();
    for _ in 0..6 {
        let settled = rig.puller.start(&rig.owner.peer, &[block]).settle().await.remove(0);
        outcomes.push(matches!(settled, Settled::Arrived { .. }));
        settled.give_back();
    }
    assert_eq!(outcomes, [false, true, true, false, true, true]);
    let stale = BlockDescriptor { generation: Generation(block.generation.0 + 1), ..block };
    for _ in 0..6 {
        let settled = rig.puller.start(&rig.owner.peer, &[stale]).settle().await.remove(0);
        assert!(matches!(&settled, Settled::Failed { error: TransferError::Mismatch(_), .. }));
        settled.give_back();
    }
    rig.finish().await;
}

/// A thread that panics half way has written nobody knows what.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copying_thread_that_panics_quarantines_its_slots() {
    let options = ShmOptions { threads: 2, bytes_per_thread: 1 << 20, ..ShmOptions::default() };
    let rig = large(options).await;
    let blocks: Vec<_> = (1..=4).map(|tag| rig.owner.publish(tag, BYTES)).collect();
    let pulls = rig.puller.pulls(&blocks);
    // The third is copied by the second thread. That a slot which is being read is written is a
    // broken invariant: the arena panics.
    let reader = rig.puller.store.arena.read(pulls[2].into.slot().0);
    let settled = rig.puller.transport.pull(&rig.owner.peer, pulls, SOON).settle().await;
    assert_eq!(rig.puller.judge(settled, &blocks[..2]), vec![Ok(()); 2]);
    drop(reader);
    let Counts { free, quarantined, .. } = rig.puller.store.counts();
    assert_eq!((free, quarantined), (6, 2));
    assert_eq!(rig.puller.store.arena.guards(), 0);
    rig.puller.quiesce().await;
    rig.owner.stop().await;
}
