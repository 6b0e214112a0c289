//! A router in this process, and decode workers whose every word the test speaks.

#![allow(dead_code, clippy::unwrap_used, reason = "each test file uses its part of this harness")]
#![allow(unreachable_pub, missing_docs, reason = "a module of tests, not an interface")]

pub mod client;
pub mod raw;
pub mod stage;
pub mod worker;

use baton_node::auth::ClusterSecret;
use baton_node::config::{Span, Threshold};
use baton_node::drain::Cause;
use baton_node::{Drain, Tasks};
use baton_router::Router;
use baton_router::config::{Config, Peer};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use worker::FakeWorker;

/// Nothing in these tests takes that long, on any machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Tokens of a block in these tests.
pub const BLOCK_TOKENS: u32 = 16;

/// A cluster of one router and some workers.
pub struct House {
    pub address: SocketAddr,
    pub tasks: Tasks,
    pub router: Router,
}

impl House {
    /// A router in front of these workers, ready to serve.
    pub async fn open(workers: &[&FakeWorker]) -> Self {
        Self::open_with(workers, |_| {}).await
    }

    /// The same, configured further.
    pub async fn open_with(workers: &[&FakeWorker], adjust: impl FnOnce(&mut Config)) -> Self {
        let house = Self::start(workers, adjust);
        within(house.router.ready()).await;
        for worker in workers {
            within(worker.attached()).await;
        }
        house
    }

    /// The same, not ready yet.
    pub fn start(workers: &[&FakeWorker], adjust: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.serve.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        config.model.name = Some("tiny".to_owned());
        config.model.synthetic_vocab = Some(worker::VOCAB);
        config.decode = workers.iter().map(|worker| Peer { uri: worker.uri() }).collect();
        config.placement.disaggregate_min_blocks = Threshold::Never;
        config.timeouts.reconnect_max = Span::millis(100);
        adjust(&mut config);
        let tasks = Tasks::new(&Drain::new(Duration::from_secs(5)), 1000);
        let router = Router::start(config, &secret(), &tasks).expect("the router starts");
        Self { address: router.local_addr(), tasks, router }
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.tasks.drain().trigger(Cause::Requested);
        self.tasks.drain().force();
    }
}

/// The cluster's secret in these tests.
pub fn secret() -> ClusterSecret {
    ClusterSecret::from_hex(&"5a".repeat(32), "the test").unwrap()
}

/// Fails the test instead of hanging it.
pub async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("it happens in time")
}
