//! Losing interest at any moment: no slot is lost, and none comes back too early.

use super::*;

on_all! {
    pulls_that_are_cancelled_at_random_moments_lose_no_slot
    pulls_that_are_dropped_at_random_moments_lose_no_slot
    a_settle_that_is_dropped_half_way_loses_no_slot
    a_shutdown_ends_what_is_in_flight
    a_deadline_that_is_over_fails_everything
}

/// Waits a little, somewhere between nothing and about the length of a pull.
async fn moment(kind: TransportKind, round: u64) {
    let wait = Duration::from_micros(round.wrapping_mul(7919) % 4000);
    if kind == TransportKind::Sim {
        // Timers of tokio count milliseconds, and a pull takes some of them here.
        return tokio::time::sleep(wait * 4).await;
    }
    let started = tokio::time::Instant::now();
    while started.elapsed() < wait {
        tokio::task::yield_now().await;
    }
}

async fn pulls_that_are_cancelled_at_random_moments_lose_no_slot(kind: TransportKind) {
    let rig = Rig::new(kind).await;
    let blocks: Vec<_> = (1..=16).map(|tag| rig.owner.publish(tag, SLOT_BYTES)).collect();
    for round in 0..100 {
        let flight = rig.puller.start(&rig.owner.peer, &blocks);
        moment(kind, round).await;
        flight.cancel();
        let results = rig.puller.judge(flight.settle().await, &blocks);
        assert_eq!(results.len(), blocks.len());
        for result in results {
            assert!(matches!(result, Ok(()) | Err(TransferError::Cancelled)), "{result:?}");
        }
        rig.puller.store.assert_at_rest();
    }
    // What was cancelled does not get in the way of what follows.
    let results = rig.puller.pull(&rig.owner.peer, &blocks).await;
    assert_eq!(results, vec![Ok(()); 16]);
    rig.finish().await;
}

async fn pulls_that_are_dropped_at_random_moments_lose_no_slot(kind: TransportKind) {
    let rig = Rig::new(kind).await;
    let blocks: Vec<_> = (1..=16).map(|tag| rig.owner.publish(tag, SLOT_BYTES)).collect();
    for round in 0..100 {
        let flight = rig.puller.start(&rig.owner.peer, &blocks);
        moment(kind, round).await;
        drop(flight);
        rig.puller.quiesce().await;
        rig.puller.store.assert_at_rest();
    }
    rig.finish().await;
}

async fn a_settle_that_is_dropped_half_way_loses_no_slot(kind: TransportKind) {
    let rig = Rig::new(kind).await;
    let blocks: Vec<_> = (1..=16).map(|tag| rig.owner.publish(tag, SLOT_BYTES)).collect();
    for round in 0..100 {
        let settle = rig.puller.start(&rig.owner.peer, &blocks).settle();
        tokio::select! {
            biased;
            () = moment(kind, round) => {}
            settled = settle => settled.into_iter().for_each(Settled::give_back),
        }
        rig.puller.quiesce().await;
        rig.puller.store.assert_at_rest();
    }
    rig.finish().await;
}

async fn a_shutdown_ends_what_is_in_flight(kind: TransportKind) {
    let rig = Rig::new(kind).await;
    let blocks: Vec<_> = (1..=16).map(|tag| rig.owner.publish(tag, SLOT_BYTES)).collect();
    let flight = rig.puller.start(&rig.owner.peer, &blocks);
    rig.puller.local.shutdown.cancel();
    for result in rig.puller.judge(flight.settle().await, &blocks) {
        assert!(matches!(result, Ok(()) | Err(TransferError::Cancelled)), "{result:?}");
    }
    rig.finish().await;
}

async fn a_deadline_that_is_over_fails_everything(kind: TransportKind) {
    let rig = Rig::new(kind).await;
    let blocks: Vec<_> = (1..=4).map(|tag| rig.owner.publish(tag, SLOT_BYTES)).collect();
    for micros in [0, 1, 50, 100, 200, 400, 800, 1600] {
        let deadline = Duration::from_micros(micros);
        let pulls = rig.puller.pulls(&blocks);
        let settled = rig.puller.transport.pull(&rig.owner.peer, pulls, deadline).settle().await;
        for result in rig.puller.judge(settled, &blocks) {
            let in_time = micros > 0 && result == Ok(());
            assert!(in_time || result == Err(TransferError::Deadline), "{micros} us: {result:?}");
        }
        rig.puller.store.assert_at_rest();
    }
    // The same where the peer is known and next to nothing is to be done.
    let small = [rig.owner.publish(5, 64)];
    assert_eq!(rig.puller.pull(&rig.owner.peer, &small).await, [Ok(())]);
    let pulls = rig.puller.pulls(&small);
    let settled = rig.puller.transport.pull(&rig.owner.peer, pulls, Duration::ZERO).settle().await;
    assert_eq!(rig.puller.judge(settled, &small), [Err(TransferError::Deadline)]);
    rig.finish().await;
}
