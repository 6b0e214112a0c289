//! Blocks that the owner writes, when it dies in the middle, or writes once more. The whole suite
//! runs over pushes too, see `wires.rs`.

use super::fabric::by_write;
use super::*;
use crate::caller::lock;
use crate::guards::Guard;
use crate::verbs::Server;
use baton_proto::internal::{PushReply, PushRequest};
use std::sync::atomic::AtomicBool;

const CANARY: u8 = 0xa5;
const LEN: usize = 100_001;

/// Runs a case over pushes, where there is a device.
fn run(case: impl Future<Output = ()>) {
    by_write(|| wires::run(TransportKind::Verbs, case));
}

/// Decides what becomes of the next push.
fn next_push<F: Future<Output = PushReply> + Send + 'static>(
    rig: &Rig,
    then: impl FnOnce(Server, PushRequest) -> F + Send + 'static,
) {
    let boxed = |server, request| -> futures_util::future::BoxFuture<'static, PushReply> {
        Box::pin(then(server, request))
    };
    *lock(&rig.place.verbs.trouble) = Some(Box::new(boxed));
}

/// Pulls into slots full of canaries; which slots those are.
fn marked(rig: &Rig, blocks: &[BlockDescriptor]) -> (Vec<Pull>, Vec<u32>) {
    let pulls = rig.puller.pulls(blocks);
    let slots: Vec<u32> = pulls.iter().map(|pull| pull.into.slot().0).collect();
    for slot in 0..rig.puller.store.arena.slots() {
        rig.puller.store.arena.write(slot).fill(CANARY);
    }
    (pulls, slots)
}

/// All slots as they are, each with its checksum.
fn sums(rig: &Rig) -> Vec<u32> {
    let arena = &rig.puller.store.arena;
    (0..arena.slots()).map(|slot| crc32c::crc32c(&arena.read(slot))).collect()
}

#[test]
fn a_block_whose_lease_is_over_is_not_written() {
    run(async {
        let rig = Rig::new(TransportKind::Verbs).await;
        let blocks: Vec<_> = (1..=3).map(|tag| rig.owner.publish(tag, LEN)).collect();
        rig.owner.release(&blocks[1]);
        let (pulls, slots) = marked(&rig, &blocks);
        let settled = rig.puller.transport.pull(&rig.owner.peer, pulls, SOON).settle().await;
        let refused = rig.puller.store.arena.read(slots[1]);
        assert!(refused.iter().all(|&byte| byte == CANARY));
        drop(refused);
        let results = rig.puller.judge(settled, &blocks);
        let lease = Err(TransferError::Refused(Refused::Lease));
        assert_eq!(results, [Ok(()), lease, Ok(())]);
        rig.finish().await;
    });
}

#[test]
fn an_owner_that_dies_half_way_costs_no_slot_and_touches_no_other() {
    run(async {
        let rig = Rig::new(TransportKind::Verbs).await;
        let blocks: Vec<_> = (1..=16).map(|tag| rig.owner.publish(tag, LEN)).collect();
        assert_eq!(rig.puller.pull(&rig.owner.peer, &blocks).await, vec![Ok(()); 16]);
        let died = Arc::new(AtomicBool::new(false));
        let dead = Arc::clone(&died);
        next_push(&rig, |server, whole| async move {
            let half = whole.blocks.len() / 2;
            let begun = PushRequest {
                blocks: whole.blocks[..half].to_vec(),
                into_slots: whole.into_slots[..half].to_vec(),
                windows: whole.windows[..whole.windows.len().min(half)].to_vec(),
                // Of another push: this one is not complete.
                immediate: whole.immediate ^ 0x8000_0000,
                ..whole
            };
            assert_eq!(server.push(begun).await.status, 0);
            server.handles().iter().for_each(|handle| handle.fail(LinkFault::Closed));
            dead.store(true, Ordering::Relaxed);
            std::future::pending().await
        });
        let (pulls, slots) = marked(&rig, &blocks);
        let deadline = Duration::from_millis(500);
        let settled = rig.puller.transport.pull(&rig.owner.peer, pulls, deadline).settle().await;
        assert!(died.load(Ordering::Relaxed), "in the middle");
        for slot in 0..rig.puller.store.arena.slots() {
            let found = rig.puller.store.arena.read(slot);
            let begun = slots[..8].contains(&slot);
            assert_eq!(found[..LEN].iter().all(|&byte| byte == CANARY), !begun, "slot {slot}");
            assert!(found[LEN..].iter().all(|&byte| byte == CANARY), "slot {slot}");
        }
        let results = rig.puller.judge(settled, &blocks);
        assert_eq!(results, vec![Err(TransferError::Deadline); 16]);
        rig.puller.store.assert_at_rest();
        // The next one has another connection.
        assert_eq!(rig.puller.pull(&rig.owner.peer, &blocks).await, vec![Ok(()); 16]);
        rig.finish().await;
    });
}

/// A push that the owner carries out once more after it was settled. Whether a byte changed by
/// that, and why the connection ended, if it did.
async fn written_again(guards: Guards) -> (bool, Option<LinkFault>) {
    let rig = Rig::guarded(TransportKind::Verbs, guards).await;
    let blocks: Vec<_> = (1..=4).map(|tag| rig.owner.publish(tag, LEN)).collect();
    let again = Arc::new(Mutex::new(None));
    let kept = Arc::clone(&again);
    next_push(&rig, |server, request| async move {
        *lock(&kept) = Some((server.clone(), request.clone()));
        server.push(request).await
    });
    assert_eq!(rig.puller.pull(&rig.owner.peer, &blocks).await, vec![Ok(()); 4]);
    let (server, request) = lock(&again).take().unwrap();
    let (rest, _) = marked(&rig, &[]);
    assert!(rest.is_empty());
    let before = sums(&rig);
    let connection = server.handles().remove(0);
    let status = server.push(request).await.status;
    let changed = sums(&rig) != before;
    let fault = connection.fault();
    let refused = u32::from(Refused::Connection.code());
    assert_eq!(status, if fault.is_some() { refused } else { 0 });
    drop(connection);
    // What follows is not in its way.
    if !changed {
        assert_eq!(rig.puller.pull(&rig.owner.peer, &blocks).await, vec![Ok(()); 4]);
    }
    rig.finish().await;
    (changed, fault)
}

#[test]
fn what_was_opened_for_a_push_is_closed_when_it_is_settled() {
    run(async {
        let with = written_again(Guards::default()).await;
        // The write is refused, which ends both ends of the connection: the owner hears of it from
        // its own card, or first from the receiver.
        let ended = matches!(with, (false, Some(LinkFault::RemoteAccess | LinkFault::Peer)));
        assert!(ended, "{with:?}");
        let without = written_again(Guards::without(Guard::Revocation)).await;
        assert_eq!(without, (true, None));
    });
}
