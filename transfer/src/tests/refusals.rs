//! Stale, foreign, altered and damaged: refused with a reason, on every transport.

use super::*;

on_all! {
    callers_without_the_token_are_turned_away
    another_worker_is_not_mistaken_for_the_peer
    slots_of_another_size_are_refused
    altered_descriptors_are_refused
    descriptors_of_other_owners_are_refused
    a_block_that_does_not_fit_is_refused
    a_lease_that_ran_out_is_refused
    a_bit_that_flips_in_the_payload_is_found
    a_bit_that_flips_in_the_record_is_found
    a_refused_block_does_not_hold_up_the_others
    void_references_are_refused_however_often_they_come
}

async fn callers_without_the_token_are_turned_away(kind: TransportKind) {
    let rig = Rig::new(kind).await;
    let block = rig.owner.publish(1, 64);
    let mut wrong = [7; 32];
    wrong[31] ^= 1;
    let store = Store::new(4, SLOT_BYTES);
    let stranger = Puller::with(&rig.place, Guards::default(), store, Token::new(wrong));
    let refused = Err(TransferError::Refused(Refused::Token));
    assert_eq!(stranger.pull_one(&rig.owner.peer, &block).await, refused);
    stranger.finish().await;
    rig.finish().await;
}

async fn another_worker_is_not_mistaken_for_the_peer(kind: TransportKind) {
    let rig = Rig::new(kind).await;
    let block = BlockDescriptor { owner: WorkerId(12), ..rig.owner.publish(1, 64) };
    let peer = Peer { worker: WorkerId(12), ..rig.owner.peer.clone() };
    let refused = Err(TransferError::Refused(Refused::Worker));
    assert_eq!(rig.puller.pull_one(&peer, &block).await, refused);
    rig.finish().await;
}

async fn slots_of_another_size_are_refused(kind: TransportKind) {
    let rig = Rig::new(kind).await;
    let block = rig.owner.publish(1, 64);
    let store = Store::new(4, SLOT_BYTES / 2);
    let other = Puller::with(&rig.place, Guards::default(), store, token());
    let refused = Err(TransferError::Refused(Refused::SlotBytes));
    assert_eq!(other.pull_one(&rig.owner.peer, &block).await, refused);
    other.finish().await;
    rig.finish().await;
}

async fn altered_descriptors_are_refused(kind: TransportKind) {
    let rig = Rig::new(kind).await;
    let (block, other) = (rig.owner.publish(1, 4096), rig.owner.publish(2, 4096));
    let mut altered = vec![
        BlockDescriptor { hash: hash(77), ..block },
        BlockDescriptor { group: GroupId(1), ..block },
        BlockDescriptor { len: 4095, ..block },
        BlockDescriptor { crc: block.crc ^ 1, ..block },
        BlockDescriptor { slot: other.slot, ..block },
        // Never used, the first beyond the arena, absurd.
        BlockDescriptor { slot: baton_proto::ids::SlotId(63), ..block },
        BlockDescriptor { slot: baton_proto::ids::SlotId(64), ..block },
        BlockDescriptor { slot: baton_proto::ids::SlotId(u32::MAX), ..block },
    ];
    for generation in [0, block.generation.0 + 1, u64::MAX] {
        let generation = baton_proto::ids::Generation(generation);
        altered.push(BlockDescriptor { generation, ..block });
    }
    if kind != TransportKind::Shm {
        // Only the owner knows its leases, and over shm it is not asked.
        altered.push(BlockDescriptor { lease: other.lease, ..block });
        altered.push(BlockDescriptor { lease: baton_proto::ids::LeaseId(1 << 40), ..block });
    }
    for block in altered {
        let error = rig.puller.pull_one(&rig.owner.peer, &block).await.expect_err("altered");
        let refused = matches!(error, TransferError::Refused(_) | TransferError::Mismatch(_));
        assert!(refused, "{block:?}: {error}");
    }
    assert_eq!(rig.puller.pull_one(&rig.owner.peer, &block).await, Ok(()));
    rig.finish().await;
}

async fn descriptors_of_other_owners_are_refused(kind: TransportKind) {
    let rig = Rig::new(kind).await;
    let block = rig.owner.publish(1, 64);
    for foreign in [
        BlockDescriptor { owner: WorkerId(99), ..block },
        BlockDescriptor { incarnation: Incarnation(99), ..block },
    ] {
        let error = rig.puller.pull_one(&rig.owner.peer, &foreign).await.unwrap_err();
        assert!(matches!(error, TransferError::Foreign { .. }), "{error}");
    }
    rig.finish().await;
}

async fn a_block_that_does_not_fit_is_refused(kind: TransportKind) {
    let rig = Rig::new(kind).await;
    let block = BlockDescriptor { len: SLOT_BYTES as u32 + 1, ..rig.owner.publish(1, 64) };
    let error = rig.puller.pull_one(&rig.owner.peer, &block).await;
    assert_eq!(error, Err(TransferError::TooLong { len: block.len, slot_bytes: SLOT_BYTES }));
    rig.finish().await;
}

async fn a_lease_that_ran_out_is_refused(kind: TransportKind) {
    let rig = Rig::new(kind).await;
    let block = rig.owner.publish(1, 4096);
    // By the puller's clock.
    let over = BlockDescriptor { lease_remaining_ms: 0, ..block };
    let result = rig.puller.pull_one(&rig.owner.peer, &over).await;
    assert_eq!(result, Err(TransferError::LeaseExpired));
    // By the owner's, where it is asked; and a lease that it ended early.
    if kind != TransportKind::Shm {
        let refused = Err(TransferError::Refused(Refused::Lease));
        rig.owner.advance(Duration::from_secs(61));
        assert_eq!(rig.puller.pull_one(&rig.owner.peer, &block).await, refused);
        let block = rig.owner.publish(2, 4096);
        rig.owner.release(&block);
        assert_eq!(rig.puller.pull_one(&rig.owner.peer, &block).await, refused);
    }
    rig.finish().await;
}

async fn a_bit_that_flips_in_the_payload_is_found(kind: TransportKind) {
    let rig = Rig::new(kind).await;
    let block = rig.owner.publish(1, 5000);
    let slot = block.slot.0;
    for bit in [0, 7, 8, 20_000, 39_999].into_iter().chain((0..40_000).step_by(997)) {
        let flip = || rig.owner.store.arena.write(slot)[bit / 8] ^= 1 << (bit % 8);
        flip();
        let error = rig.puller.pull_one(&rig.owner.peer, &block).await.unwrap_err();
        let found = matches!(error, TransferError::Mismatch(Mismatch::Checksum { .. }));
        assert!(found, "bit {bit}: {error}");
        flip();
    }
    assert_eq!(rig.puller.pull_one(&rig.owner.peer, &block).await, Ok(()));
    rig.finish().await;
}

async fn a_bit_that_flips_in_the_record_is_found(kind: TransportKind) {
    let rig = Rig::new(kind).await;
    let block = rig.owner.publish(1, 64);
    let (arena, slot) = (&rig.owner.store.arena, block.slot.0);
    let right = arena.record(slot);
    for bit in 0..512 {
        let mut record = right;
        record[bit / 8] ^= 1 << (bit % 8);
        arena.set_record(slot, &record);
        let error = rig.puller.pull_one(&rig.owner.peer, &block).await.unwrap_err();
        assert!(matches!(error, TransferError::Mismatch(_)), "bit {bit}: {error}");
    }
    arena.set_record(slot, &right);
    assert_eq!(rig.puller.pull_one(&rig.owner.peer, &block).await, Ok(()));
    rig.finish().await;
}

async fn a_refused_block_does_not_hold_up_the_others(kind: TransportKind) {
    let rig = Rig::new(kind).await;
    let mut blocks: Vec<_> = (1..=20).map(|tag| rig.owner.publish(tag, 1000)).collect();
    for i in (0..20).step_by(3) {
        blocks[i].crc ^= 1;
    }
    let results = rig.puller.pull(&rig.owner.peer, &blocks).await;
    for (i, result) in results.iter().enumerate() {
        assert_eq!(result.is_err(), i % 3 == 0, "block {i}: {result:?}");
    }
    rig.finish().await;
}

/// Unknown, out of range, given back, of an earlier use of the slot, out of time: each is refused
/// each time, mixed with good ones, and changes nothing at the owner.
async fn void_references_are_refused_however_often_they_come(kind: TransportKind) {
    use baton_proto::ids::{LeaseId, SlotId};
    let mut place = Place::new(kind);
    let owner = Owner::start(&mut place, Store::new(4, SLOT_BYTES), 1, Guards::default()).await;
    let puller = Puller::new(&place, Guards::default());
    let reused = owner.publish(1, 2000);
    owner.release(&reused);
    for tag in 2..8 {
        owner.release(&owner.publish(tag, 2000));
    }
    let good = owner.publish(9, 3000);
    let given_back = owner.publish(10, 2000);
    owner.release(&given_back);
    let void = [
        BlockDescriptor { hash: hash(99), lease: LeaseId(1 << 40), ..good },
        BlockDescriptor { slot: SlotId(4), ..good },
        BlockDescriptor { slot: SlotId(u32::MAX), ..good },
        reused,
        BlockDescriptor { lease_remaining_ms: 0, ..good },
        given_back,
    ];
    let mut blocks = void.to_vec();
    blocks.push(good);
    let rounds = if std::env::var_os("BATON_LONG").is_some() { 20_000 } else { 100 };
    let before = owner.store.counts();
    for _ in 0..rounds {
        // `pull` compares the bytes of what arrives.
        let mut results = puller.pull(&owner.peer, &blocks).await;
        assert_eq!(results.pop(), Some(Ok(())));
        // Over shm the owner is not asked: the block is still there, so its bytes are right.
        let given_back = results.pop().unwrap();
        assert_eq!(given_back.is_ok(), kind == TransportKind::Shm, "{given_back:?}");
        assert_eq!(results.pop(), Some(Err(TransferError::LeaseExpired)));
        for error in results.into_iter().map(Result::unwrap_err) {
            let refused = matches!(error, TransferError::Refused(_) | TransferError::Mismatch(_));
            assert!(refused, "{error}");
        }
    }
    puller.finish().await;
    owner.stop().await;
    assert_eq!(owner.store.counts(), before);
    place.finish().await;
}
