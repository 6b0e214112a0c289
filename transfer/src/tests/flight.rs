//! Who has the leases when something ends that should not: a task, a runtime.

use super::*;
use crate::flight::Work;

on_all! {
    a_pull_that_is_dropped_when_it_is_done_gives_its_slots_back
    a_cancel_after_the_end_changes_nothing
}

async fn a_pull_that_is_dropped_when_it_is_done_gives_its_slots_back(kind: TransportKind) {
    let rig = Rig::new(kind).await;
    let blocks: Vec<_> = (1..=4).map(|tag| rig.owner.publish(tag, 4096)).collect();
    let flight = rig.puller.start(&rig.owner.peer, &blocks);
    rig.puller.over(&flight).await;
    assert_eq!(rig.puller.local.counters.sample(kind, Op::Pull).blocks, 4);
    assert_eq!(rig.puller.store.counts().draft, 4);
    drop(flight);
    rig.puller.store.assert_at_rest();
    rig.finish().await;
}

async fn a_cancel_after_the_end_changes_nothing(kind: TransportKind) {
    let rig = Rig::new(kind).await;
    let blocks: Vec<_> = (1..=4).map(|tag| rig.owner.publish(tag, 4096)).collect();
    let flight = rig.puller.start(&rig.owner.peer, &blocks);
    rig.puller.over(&flight).await;
    flight.cancel();
    assert_eq!(rig.puller.judge(flight.settle().await, &blocks), vec![Ok(()); 4]);
    rig.finish().await;
}

/// The runtime takes its tasks away in the middle of a pull. Whether a card, or the system, still
/// writes is then not known, so the slots stay out of use until the process ends.
fn a_runtime_that_ends_quarantines(kind: TransportKind) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().start_paused(kind == TransportKind::Sim);
    let runtime = builder.build().unwrap();
    let (flight, store, place) = runtime.block_on(async {
        let mut rig = Rig::new(kind).await;
        let block = rig.owner.publish(1, 4096);
        let _frozen;
        (rig.owner.peer.endpoints, _frozen) = rig.place.frozen();
        let flight = rig.puller.start(&rig.owner.peer, &[block, block, block]);
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        (flight, rig.puller.store.clone(), rig.place.clone())
    });
    assert_eq!(store.counts().draft, 3);
    drop(runtime);
    let outside = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert!(outside.block_on(flight.settle()).is_empty());
    let Counts { free, quarantined, draft, .. } = store.counts();
    assert_eq!((free, quarantined, draft), (61, 3, 0));
    drop(place);
    assert_eq!(store.arena.guards(), 0);
}

#[test]
fn a_runtime_that_ends_under_a_pull_quarantines_its_slots() {
    for kind in [TransportKind::Shm, TransportKind::Tcp, TransportKind::Sim] {
        a_runtime_that_ends_quarantines(kind);
    }
}

#[tokio::test]
async fn a_pull_of_more_than_one_task_settles_in_order_and_reports_those_that_are_left() {
    let rig = Rig::new(TransportKind::Tcp).await;
    let blocks: Vec<_> = (1..=3).map(|tag| rig.owner.publish(tag, 64)).collect();
    let pulls = rig.puller.pulls(&blocks);
    let work = Work::new(&rig.owner.peer, pulls, SOON, &rig.puller.local, Guards::default());
    let works = work.split(3);
    let (flight, reports) = InFlight::new(works.len(), CancellationToken::new());
    // The last part first, the middle one never.
    let mut parts: Vec<_> = works.into_iter().zip(reports).collect();
    let (last, report) = parts.pop().unwrap();
    report.send(last.finish(&TransferError::Deadline));
    drop(parts.pop());
    let (first, report) = parts.pop().unwrap();
    report.send(first.finish(&TransferError::Cancelled));
    let errors: Vec<_> = flight
        .settle()
        .await
        .into_iter()
        .map(|settled| match settled {
            Settled::Failed { block, lease, error } => {
                drop(lease.settle());
                (tag(&block), error)
            }
            Settled::Arrived { .. } => panic!("nothing was pulled"),
        })
        .collect();
    assert_eq!(errors, [(1, TransferError::Cancelled), (3, TransferError::Deadline)]);
    assert_eq!(rig.puller.store.counts().quarantined, 1);
    rig.owner.stop().await;
}

/// As every transport's tasks hold them. Nobody can say what a task that panicked has left behind, so nobody gets its slots.
#[tokio::test]
async fn a_task_that_panics_quarantines_its_slots() {
    let rig = Rig::new(TransportKind::Tcp).await;
    let block = rig.owner.publish(1, 4096);
    let pulls = rig.puller.pulls(&[block, block]);
    let work = Work::new(&rig.owner.peer, pulls, SOON, &rig.puller.local, Guards::default());
    let (flight, report) = InFlight::single(CancellationToken::new());
    rig.puller.local.tasks.spawn(async move {
        let held = (work, report);
        tokio::task::yield_now().await;
        assert!(held.0.open().is_empty(), "what a transport asserts does not hold");
    });
    assert!(flight.settle().await.is_empty());
    let Counts { free, quarantined, .. } = rig.puller.store.counts();
    assert_eq!((free, quarantined), (62, 2));
    rig.owner.stop().await;
    rig.place.finish().await;
}
