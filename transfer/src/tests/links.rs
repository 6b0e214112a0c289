//! Connections and attachments: bounds, patience, and what is announced.

use super::*;
use crate::caller::Health;
use baton_proto::internal;

on_all! {
    no_more_peers_than_allowed_are_kept
}

mod connected {
    use super::*;
    on_real! {
        an_earlier_run_of_a_peer_is_forgotten
    }
}

/// A peer that is not there.
fn nowhere(kind: TransportKind, worker: u32, run: u64) -> Peer {
    let endpoints = Place::nowhere(kind);
    Peer { worker: WorkerId(worker), incarnation: Incarnation(run), endpoints }
}

fn block_of(peer: &Peer, like: &BlockDescriptor) -> BlockDescriptor {
    BlockDescriptor { owner: peer.worker, incarnation: peer.incarnation, ..*like }
}

async fn no_more_peers_than_allowed_are_kept(kind: TransportKind) {
    let rig = Rig::new(kind).await;
    let block = rig.owner.publish(1, 64);
    // Far more than both transports keep: idle ones make room, so none is refused for its number.
    for worker in 100..1300 {
        let peer = nowhere(kind, worker, 1);
        let error = rig.puller.pull_one(&peer, &block_of(&peer, &block)).await.unwrap_err();
        assert!(matches!(error, TransferError::Unreachable { .. }), "{error}");
    }
    rig.finish().await;
}

async fn an_earlier_run_of_a_peer_is_forgotten(kind: TransportKind) {
    let mut rig = Rig::new(kind).await;
    let block = rig.owner.publish(1, 64);
    assert_eq!(rig.puller.pull_one(&rig.owner.peer, &block).await, Ok(()));
    // The same worker in another run, elsewhere: the connection to the first one is closed, which
    // its owner notices without being told to stop.
    let peer = nowhere(kind, OWNER.0, 2);
    rig.puller.pull_one(&peer, &block_of(&peer, &block)).await.unwrap_err();
    let alone = async {
        // The listener itself is the task that stays.
        while rig.owner.tasks.len() > 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, alone).await.expect("the kept connection is closed");
    rig.owner.stop().await;
    let store = rig.owner.store.clone();
    rig.owner = Owner::start(&mut rig.place, store, 1, Guards::default()).await;
    rig.finish().await;
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let place = Place::new(TransportKind::Shm);
    drop(std::os::unix::net::UnixListener::bind(&place.shm).unwrap());
    assert!(place.shm.exists());
    let owner = Owner::start(&mut place.clone(), Store::new(1, 64), 1, Guards::default()).await;
    let context = ServeContext {
        arena: owner.store.arena.clone(),
        pool: Arc::clone(&owner.store.pool),
        identity: Identity { worker: OWNER, incarnation: Incarnation(2) },
        token: token(),
        clock: Arc::new(Duration::default),
        counters: Counters::default(),
        tasks: TaskTracker::new(),
        shutdown: CancellationToken::new(),
    };
    let second = shm::Server::bind(&place.shm, context, ServeLimits::default()).await;
    assert_eq!(second.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    owner.stop().await;
    assert!(!place.shm.exists());
}

#[tokio::test]
async fn patience_grows_and_a_success_ends_it() {
    let back_off = BackOff { first: Duration::from_secs(1), last: Duration::from_secs(5) };
    let mut health = Health::default();
    let retry_in = |health: &Health| match health.may_try(&"there") {
        Err(TransferError::BackingOff { retry_in, .. }) => retry_in,
        other => panic!("{other:?}"),
    };
    assert_eq!(health.may_try(&"there"), Ok(()));
    health.failed(back_off);
    let first = retry_in(&health);
    assert!(first <= Duration::from_secs(1) && first > Duration::from_millis(500));
    // Side by side: counted once.
    health.failed(back_off);
    assert!(retry_in(&health) <= first);
    for (failures, seconds) in [(0, 1), (1, 2), (2, 4), (3, 5), (40, 5)] {
        assert_eq!(back_off.after(failures), Duration::from_secs(seconds));
    }
}

#[test]
fn endpoints_cross_the_wire_and_bad_ones_are_named() {
    let own = Endpoints {
        tcp: Some("127.0.0.1:7000".parse().unwrap()),
        shm: Some("/run/baton/a.sock".into()),
        host: "here".into(),
        verbs: Some("http://127.0.0.1:7001".into()),
        sim: None,
    };
    let said = internal::Endpoints::from(&own);
    assert_eq!(Endpoints::try_from(&said), Ok(own));
    let none = internal::Endpoints::default();
    assert_eq!(Endpoints::try_from(&none), Ok(Endpoints::default()));
    let bad = internal::Endpoints { tcp: "nonsense".into(), ..none };
    assert_eq!(Endpoints::try_from(&bad), Err(EndpointError { tcp: "nonsense".into() }));
}

#[test]
fn a_token_is_not_printed() {
    assert_eq!(format!("{:?}", Token::new([42; 32])), "Token(..)");
}
