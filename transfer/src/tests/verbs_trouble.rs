//! Queue pairs and ports that die under a connection over verbs: a typed error in time, another
//! transport meanwhile, and a new connection in the background.

use super::fabric::Exchange;
use super::*;
use crate::verbs::{Verbs, VerbsOptions};
use std::process::Command;
use tokio::time::Instant;

/// An owner and a puller over verbs, with the transport as its users know it.
struct Scene {
    rig: Rig,
    verbs: Verbs,
    block: BlockDescriptor,
}

impl Scene {
    /// With a connection that has been used.
    async fn new() -> Self {
        let mut rig = Rig::new(TransportKind::Verbs).await;
        let (local, guards) = (rig.puller.local.clone(), Guards::default());
        let verbs = rig.place.verbs.transport(local, guards, &fabric::options());
        rig.puller.transport = Box::new(verbs.clone());
        let block = rig.owner.publish(1, SLOT_BYTES);
        assert_eq!(rig.puller.pull_one(&rig.owner.peer, &block).await, Ok(()));
        assert!(verbs.ready(&rig.owner.peer));
        Self { rig, verbs, block }
    }

    async fn pull(&self) -> Result<(), TransferError> {
        let started = Instant::now();
        let result = self.rig.puller.pull_one(&self.rig.owner.peer, &self.block).await;
        assert!(started.elapsed() < SOON, "it did not wait for the deadline");
        self.rig.puller.store.assert_at_rest();
        result
    }

    fn ready(&self) -> bool {
        // As its users ask: by the trait, not knowing which transport it is.
        let transport: &dyn Transport = self.rig.puller.transport.as_ref();
        transport.ready(&self.rig.owner.peer)
    }

    /// Nobody pulls meanwhile: asking is enough.
    async fn recovered(&self) {
        let started = Instant::now();
        while !self.ready() {
            assert!(started.elapsed() < SOON, "it is paired again");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert_eq!(self.pull().await, Ok(()));
    }

    async fn finish(self) {
        drop(self.verbs);
        self.rig.finish().await;
    }
}

/// One end dies between the owner's answer and the first READ.
async fn dies_in_mid_pull(kill: fn(&Exchange, &Verbs), fault: LinkFault) {
    let scene = Scene::new().await;
    let (exchange, verbs) = (Arc::downgrade(&scene.rig.place.verbs), scene.verbs.clone());
    scene.rig.place.verbs.once_opened(move || kill(&exchange.upgrade().unwrap(), &verbs));
    assert_eq!(scene.pull().await, Err(TransferError::LinkFailed { fault }));
    assert!(!scene.ready(), "a transport that has just failed is not offered");
    scene.recovered().await;
    scene.finish().await;
}

#[test]
fn an_owner_whose_queue_pairs_die_under_a_pull_is_paired_with_again() {
    wires::run(TransportKind::Verbs, async {
        dies_in_mid_pull(|exchange, _| exchange.break_owner(), LinkFault::Unanswered).await;
    });
}

#[test]
fn own_queue_pairs_that_die_under_a_pull_are_replaced() {
    wires::run(TransportKind::Verbs, async {
        dies_in_mid_pull(|_, verbs| verbs.adapter().break_pairs(), LinkFault::Flushed).await;
    });
}

/// The attempts in the background may have been the first to find out.
fn is_of_a_dead_link(error: &TransferError) -> bool {
    matches!(error, TransferError::LinkFailed { .. } | TransferError::BackingOff { .. })
}

/// Nobody notices until the connection is used again.
#[test]
fn queue_pairs_that_die_while_nobody_uses_them_cost_one_pull_at_most() {
    wires::run(TransportKind::Verbs, async {
        for own in [false, true] {
            let scene = Scene::new().await;
            if own {
                scene.verbs.adapter().break_pairs();
            } else {
                scene.rig.place.verbs.break_owner();
            }
            // An owner that has to bind a window finds out by itself; then the pull starts anew.
            let first = scene.pull().await;
            assert!(first.as_ref().err().is_none_or(is_of_a_dead_link), "{first:?}");
            scene.recovered().await;
            scene.finish().await;
        }
    });
}

/// Both sides can set up queue pairs as often as they like: that is no connection.
#[test]
fn a_network_that_carries_calls_and_drops_rdma_is_not_offered() {
    wires::run(TransportKind::Verbs, async {
        let scene = Scene::new().await;
        let exchange = &scene.rig.place.verbs;
        exchange.set_deaf(true);
        exchange.break_owner();
        scene.verbs.adapter().break_pairs();
        let error = scene.pull().await.expect_err("nothing can come");
        assert!(is_of_a_dead_link(&error), "{error:?}");
        let until = Instant::now() + Duration::from_secs(2);
        while Instant::now() < until {
            assert!(!scene.ready(), "nothing has come back yet");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        exchange.set_deaf(false);
        scene.recovered().await;
        scene.finish().await;
    });
}

/// What was set up and carries nothing is tried again, though nobody asks for it meanwhile.
#[test]
fn a_first_connection_that_carries_nothing_is_tried_again_unasked() {
    wires::run(TransportKind::Verbs, async {
        let mut rig = Rig::new(TransportKind::Verbs).await;
        // Over before the device has asked the owner's often enough to say so itself.
        let options = VerbsOptions { connect: Duration::from_millis(300), ..fabric::options() };
        let local = rig.puller.local.clone();
        let verbs = rig.place.verbs.transport(local, Guards::default(), &options);
        rig.puller.transport = Box::new(verbs);
        let block = rig.owner.publish(1, 4096);
        rig.place.verbs.set_deaf(true);
        let error = rig.puller.pull_one(&rig.owner.peer, &block).await.expect_err("nothing comes");
        let fault = LinkFault::Unanswered;
        assert_eq!(error, TransferError::LinkFailed { fault });
        let (asked, started) = (rig.place.verbs.pairings(), Instant::now());
        while rig.place.verbs.pairings() == asked {
            assert!(started.elapsed() < SOON, "it is paired again");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        rig.place.verbs.set_deaf(false);
        rig.finish().await;
    });
}

/// `ip`, on the interface below the device; whether it may.
fn set_link(set: &str) -> bool {
    let device = fabric::device().unwrap();
    let net = format!("/sys/class/infiniband/{device}/ports/1/gid_attrs/ndevs/0");
    let interface = std::fs::read_to_string(net).unwrap();
    let args = ["link", "set", interface.trim(), set];
    Command::new("ip").args(args).status().is_ok_and(|status| status.success())
}

#[test]
fn a_port_that_is_down_is_an_error_and_comes_back() {
    wires::run(TransportKind::Verbs, async {
        let scene = Scene::new().await;
        if !set_link("down") {
            eprintln!("SKIPPED: only root can take the device's port down");
            return scene.finish().await;
        }
        let down = async {
            // The connection may end just before, and be paired again in vain.
            let error = scene.pull().await.expect_err("nothing can come");
            println!("with the port down: {error}");
            let typed = matches!(
                error,
                TransferError::LinkFailed { .. }
                    | TransferError::Device { .. }
                    | TransferError::Refused(Refused::Device)
                    | TransferError::Unreachable { .. }
                    | TransferError::BackingOff { .. }
            );
            assert!(typed, "{error:?}");
            // However often it is tried in the background: setting up alone is no connection.
            let until = Instant::now() + Duration::from_secs(2);
            while Instant::now() < until {
                assert!(!scene.ready(), "the port is down");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        // The port has to come up again for the tests that follow.
        let outcome =
            futures_util::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(down)).await;
        assert!(set_link("up"));
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        scene.recovered().await;
        scene.finish().await;
    });
}
