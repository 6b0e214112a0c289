//! Who is paired with whom over verbs, how often, and under which address.

use super::fabric;
use super::*;
use baton_proto::internal::{PairRequest, PortEnd, QueuePairEnd};
use std::process::Command;
use tokio::time::Instant;

/// What nobody answers to, as far as RDMA goes.
fn request(rig: &Rig, worker: u32, queue_pairs: usize) -> PairRequest {
    let end = QueuePairEnd { number: 17, psn: 1 };
    PairRequest {
        worker,
        incarnation: 1,
        peer_worker: OWNER.0,
        peer_incarnation: rig.owner.peer.incarnation.0,
        slot_bytes: SLOT_BYTES as u64,
        port: Some(PortEnd {
            gid: {
                let mut mapped = [0; 16];
                mapped[10..12].fill(0xff);
                mapped[12..].copy_from_slice(&[10, 9, 0, 1]);
                mapped.to_vec()
            },
            lid: 0,
            mtu: 3,
            responder_reads: 1,
            initiator_reads: 1,
        }),
        queue_pairs: vec![end; queue_pairs],
    }
}

#[test]
fn a_caller_gets_no_more_queue_pairs_than_there_are_for_it() {
    wires::run(TransportKind::Verbs, async {
        let rig = Rig::new(TransportKind::Verbs).await;
        let server = rig.place.verbs.server();
        let reply = server.pair(request(&rig, 77, 16_000_000)).await;
        assert_eq!(reply.status, 0);
        assert_eq!(reply.queue_pairs.len(), fabric::options().queue_pairs);
        rig.finish().await;
    });
}

#[test]
fn connections_of_one_caller_count_like_any() {
    wires::run(TransportKind::Verbs, async {
        let mut place = Place::new(TransportKind::Verbs);
        let limits = ServeLimits { connections: 2, ..ServeLimits::default() };
        let store = Store::new(64, SLOT_BYTES);
        let owner = Owner::limited(&mut place, store, 1, Guards::default(), limits).await;
        let puller = Puller::new(&place, Guards::default());
        let rig = Rig { place, owner, puller };
        let server = rig.place.verbs.server();
        let busy = u32::from(Refused::Busy.code());
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..16 {
            let (server, request) = (server.clone(), request(&rig, 77, 1));
            calls.spawn(async move { server.pair(request).await.status });
        }
        let mut accepted = 0;
        while let Some(status) = calls.join_next().await {
            assert!(server.handles().len() <= 2, "no more than have a place");
            let status = status.unwrap();
            // One that a later one replaces is gone before it was answered.
            let replaced = u32::from(Refused::Connection.code());
            assert!([0, busy, replaced].contains(&status), "{status}");
            accepted += u32::from(status == 0);
        }
        assert!(accepted > 0);
        // Only the last of them is left, so that another caller has a place.
        let second = async {
            while server.pair(request(&rig, 78, 1)).await.status != 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SOON, second).await.expect("replaced connections end");
        // Who has a connection may always have another for it.
        for worker in [77, 78, 77] {
            assert_eq!(server.pair(request(&rig, worker, 1)).await.status, 0);
        }
        assert_eq!(server.pair(request(&rig, 79, 1)).await.status, busy);
        rig.finish().await;
    });
}

/// A reference from before a worker was restarted, or to a run that never was.
#[test]
fn a_stale_reference_costs_the_live_connection_nothing() {
    wires::run(TransportKind::Verbs, async {
        let rig = Rig::new(TransportKind::Verbs).await;
        let block = rig.owner.publish(1, SLOT_BYTES);
        assert_eq!(rig.puller.pull_one(&rig.owner.peer, &block).await, Ok(()));
        assert_eq!(rig.place.verbs.pairings(), 1);
        let stale = Peer { incarnation: Incarnation(0), ..rig.owner.peer.clone() };
        let of_stale = BlockDescriptor { incarnation: stale.incarnation, ..block };
        let refused = Err(TransferError::Refused(Refused::Incarnation));
        assert_eq!(rig.puller.pull_one(&stale, &of_stale).await, refused);
        assert_eq!(rig.puller.pull_one(&rig.owner.peer, &block).await, Ok(()));
        assert_eq!(rig.place.verbs.pairings(), 2, "the first connection still serves");
        rig.finish().await;
    });
}

/// `ip addr`, on the interface below the device; whether it may.
fn set_address(action: &str, address: &str) -> bool {
    let device = fabric::device().unwrap();
    let net = format!("/sys/class/infiniband/{device}/ports/1/gid_attrs/ndevs/0");
    let interface = std::fs::read_to_string(net).unwrap();
    let args = ["addr", action, address, "dev", interface.trim()];
    Command::new("ip").args(args).status().is_ok_and(|status| status.success())
}

#[test]
fn a_device_whose_address_changes_is_paired_with_under_the_new_one() {
    const OLD: &str = "10.9.0.1/24";
    const NEW: &str = "10.9.77.1/24";
    wires::run(TransportKind::Verbs, async {
        let rig = Rig::new(TransportKind::Verbs).await;
        let block = rig.owner.publish(1, SLOT_BYTES);
        assert_eq!(rig.puller.pull_one(&rig.owner.peer, &block).await, Ok(()));
        if !set_address("add", NEW) {
            eprintln!("SKIPPED: only root can change the device's address");
            return rig.finish().await;
        }
        let changed = set_address("del", OLD);
        let until = Instant::now() + SOON;
        let mut outcome = Err(TransferError::Cancelled);
        while changed && outcome.is_err() && Instant::now() < until {
            outcome = rig.puller.pull_one(&rig.owner.peer, &block).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let pairings = rig.place.verbs.pairings();
        // The tests that follow want it as it was.
        assert!(set_address("add", OLD) && set_address("del", NEW));
        assert!(changed, "the old address goes");
        assert_eq!(outcome, Ok(()));
        assert!(pairings > 1, "under the new one");
        rig.finish().await;
    });
}
