//! What every transport has to do when nothing is wrong, and when a peer comes and goes.

use super::*;
use tokio::time::Instant;

on_all! {
    blocks_of_all_lengths_arrive
    a_pull_of_nothing_settles_at_once
    pulls_side_by_side_all_arrive
    moved_bytes_are_counted
    a_restarted_peer_is_refused_at_the_same_address
    a_dead_peer_is_an_error_within_the_deadline
    a_frozen_peer_is_an_error_within_the_deadline
    a_peer_that_comes_back_is_found_again
    a_peer_without_an_endpoint_is_an_error
    a_full_peer_says_that_it_is_busy
    a_draining_owner_ends_its_connections
}

async fn blocks_of_all_lengths_arrive(kind: TransportKind) {
    let rig = Rig::new(kind).await;
    let lengths = [1, 7, 8, 63, 64, 65, 4096, 100_001, SLOT_BYTES - 1, SLOT_BYTES];
    let blocks: Vec<_> =
        lengths.iter().zip(1..).map(|(&len, tag)| rig.owner.publish(tag, len)).collect();
    for _ in 0..2 {
        let results = rig.puller.pull(&rig.owner.peer, &blocks).await;
        assert_eq!(results, vec![Ok(()); blocks.len()]);
    }
    rig.finish().await;
}

async fn a_pull_of_nothing_settles_at_once(kind: TransportKind) {
    let rig = Rig::new(kind).await;
    assert!(rig.puller.start(&rig.owner.peer, &[]).settle().await.is_empty());
    rig.finish().await;
}

async fn pulls_side_by_side_all_arrive(kind: TransportKind) {
    let rig = Rig::new(kind).await;
    let blocks: Vec<_> = (1..=40).map(|tag| rig.owner.publish(tag, SLOT_BYTES)).collect();
    // 40 slots of 256 KiB in runs of 10: several connections each, more pulls than connections.
    let pulls = blocks.chunks(10).map(|some| rig.puller.pull(&rig.owner.peer, some));
    for results in futures_util::future::join_all(pulls).await {
        assert_eq!(results, vec![Ok(()); 10]);
    }
    rig.finish().await;
}

async fn moved_bytes_are_counted(kind: TransportKind) {
    let rig = Rig::new(kind).await;
    let blocks: Vec<_> = (1..=8).map(|tag| rig.owner.publish(tag, 5000)).collect();
    rig.puller.pull(&rig.owner.peer, &blocks).await;
    let unknown = BlockDescriptor { hash: hash(99), ..blocks[0] };
    rig.puller.pull_one(&rig.owner.peer, &unknown).await.unwrap_err();

    let pulled = rig.puller.local.counters.sample(kind, Op::Pull);
    assert_eq!((pulled.blocks, pulled.bytes, pulled.failed), (8, 40_000, 1));
    let served = rig.owner.counters.sample(kind, Op::Serve);
    match kind {
        // One copy from arena to arena is what shared memory costs.
        TransportKind::Shm => assert_eq!((pulled.copied_bytes, served.bytes), (40_000, 0)),
        TransportKind::Tcp | TransportKind::Sim | TransportKind::Verbs => {
            assert_eq!((served.blocks, served.bytes, served.failed), (8, 40_000, 1));
            assert_eq!((pulled.copied_bytes, served.copied_bytes), (0, 0));
        }
    }
    rig.finish().await;
}

async fn a_restarted_peer_is_refused_at_the_same_address(kind: TransportKind) {
    let mut rig = Rig::new(kind).await;
    let old = rig.owner.publish(1, 4096);
    assert_eq!(rig.puller.pull_one(&rig.owner.peer, &old).await, Ok(()));
    rig.owner.stop().await;

    let again = Store::new(64, SLOT_BYTES);
    let owner = Owner::start(&mut rig.place, again, 2, Guards::default()).await;
    let new = owner.publish(2, 4096);
    let refused = Err(TransferError::Refused(Refused::Incarnation));
    assert_eq!(rig.puller.pull_one(&rig.owner.peer, &old).await, refused);
    assert_eq!(rig.puller.pull_one(&owner.peer, &new).await, Ok(()));
    // A descriptor of the old run is not even sent to the new one.
    let foreign = rig.puller.pull_one(&owner.peer, &old).await;
    assert!(matches!(foreign, Err(TransferError::Foreign { .. })), "{foreign:?}");
    owner.stop().await;
    rig.finish().await;
}

async fn a_dead_peer_is_an_error_within_the_deadline(kind: TransportKind) {
    let rig = Rig::new(kind).await;
    let blocks: Vec<_> = (1..=4).map(|tag| rig.owner.publish(tag, 4096)).collect();
    assert_eq!(rig.puller.pull(&rig.owner.peer, &blocks).await, vec![Ok(()); 4]);
    rig.owner.stop().await;
    let started = Instant::now();
    for result in rig.puller.pull(&rig.owner.peer, &blocks).await {
        let error = result.unwrap_err();
        assert!(matches!(error, TransferError::Unreachable { .. }), "{error}");
    }
    // And right afterwards it is not even tried.
    let error = rig.puller.pull_one(&rig.owner.peer, &blocks[0]).await.unwrap_err();
    assert!(matches!(error, TransferError::BackingOff { .. }), "{error}");
    assert!(started.elapsed() < SOON / 2);
    rig.finish().await;
}

async fn a_frozen_peer_is_an_error_within_the_deadline(kind: TransportKind) {
    let mut rig = Rig::new(kind).await;
    let block = rig.owner.publish(1, 4096);
    let _frozen;
    (rig.owner.peer.endpoints, _frozen) = rig.place.frozen();
    let puller = Puller::new(&rig.place, Guards::default());
    let started = Instant::now();
    let pulls = puller.pulls(&[block]);
    let deadline = Duration::from_millis(100);
    let settled = puller.transport.pull(&rig.owner.peer, pulls, deadline).settle().await;
    assert_eq!(puller.judge(settled, &[block]), [Err(TransferError::Deadline)]);
    assert!(started.elapsed() >= deadline && started.elapsed() < SOON / 2);
    puller.finish().await;
    rig.finish().await;
}

async fn a_peer_that_comes_back_is_found_again(kind: TransportKind) {
    let mut rig = Rig::new(kind).await;
    let block = rig.owner.publish(1, 4096);
    assert_eq!(rig.puller.pull_one(&rig.owner.peer, &block).await, Ok(()));
    // The data plane ends and begins again in the same run; kept connections are dead.
    rig.owner.stop().await;
    let store = rig.owner.store.clone();
    rig.owner = Owner::start(&mut rig.place, store, 1, Guards::default()).await;
    assert_eq!(rig.puller.pull_one(&rig.owner.peer, &block).await, Ok(()));

    rig.owner.stop().await;
    rig.puller.pull_one(&rig.owner.peer, &block).await.unwrap_err();
    let store = rig.owner.store.clone();
    rig.owner = Owner::start(&mut rig.place, store, 1, Guards::default()).await;
    let started = Instant::now();
    while let Err(error) = rig.puller.pull_one(&rig.owner.peer, &block).await {
        let TransferError::BackingOff { retry_in, .. } = error else { panic!("{error}") };
        assert!(retry_in <= Duration::from_millis(50));
        tokio::time::sleep(retry_in).await;
        assert!(started.elapsed() < SOON);
    }
    rig.finish().await;
}

async fn a_peer_without_an_endpoint_is_an_error(kind: TransportKind) {
    let rig = Rig::new(kind).await;
    let block = rig.owner.publish(1, 64);
    let peer = Peer { endpoints: Endpoints::default(), ..rig.owner.peer.clone() };
    let error = rig.puller.pull_one(&peer, &block).await;
    assert_eq!(error, Err(TransferError::NoEndpoint { worker: OWNER, kind }));
    rig.finish().await;
}

async fn a_full_peer_says_that_it_is_busy(kind: TransportKind) {
    let mut place = Place::new(kind);
    let limits = ServeLimits { connections: 1, ..ServeLimits::default() };
    let store = Store::new(4, SLOT_BYTES);
    let owner = Owner::limited(&mut place, store, 1, Guards::default(), limits).await;
    let block = owner.publish(1, 64);
    let (one, two) =
        (Puller::new(&place, Guards::default()), Puller::new(&place, Guards::default()));
    assert_eq!(one.pull_one(&owner.peer, &block).await, Ok(()));
    let busy = Err(TransferError::Refused(Refused::Busy));
    assert_eq!(two.pull_one(&owner.peer, &block).await, busy);
    one.finish().await;
    two.finish().await;
    owner.stop().await;
}

async fn a_draining_owner_ends_its_connections(kind: TransportKind) {
    let rig = Rig::new(kind).await;
    let block = rig.owner.publish(1, 64);
    assert_eq!(rig.puller.pull_one(&rig.owner.peer, &block).await, Ok(()));
    // The puller still holds its idle connection; `stop` waits for the owner's tasks.
    rig.owner.stop().await;
    assert!(!rig.place.shm.exists());
    rig.finish().await;
}
