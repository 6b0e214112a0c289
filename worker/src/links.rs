//! Which transport brings a peer's blocks.

use crate::config::Preferred;
use baton_node::task::Tasks;
use baton_transfer::{InFlight, Peer, Pull, Settled, Transport};
use std::sync::Arc;
use std::time::Duration;

/// The transports of a worker.
#[derive(Clone)]
pub struct Links {
    /// Works with every peer.
    pub tcp: Arc<dyn Transport>,
    /// Works with peers on this host that offer it.
    pub shm: Option<Arc<dyn Transport>>,
    /// Which one is tried first.
    pub prefer: Preferred,
    /// This host, as peers name theirs.
    pub host: String,
}

impl Links {
    /// Starts pulls from a peer as a task; when they have ended, `event` is sent with the results.
    pub fn start<E: Send + 'static>(
        &self,
        (tasks, events): (&Tasks, &flume::Sender<E>),
        (peer, pulls): (&Peer, Vec<Pull>),
        timeout: Duration,
        event: impl FnOnce(Vec<Settled>) -> E + Send + 'static,
    ) {
        let pull = self.pull(peer, pulls, timeout);
        let events = events.clone();
        tasks.spawn("pull", async move {
            let results = pull.settle().await;
            // Nobody listens only at the end of the daemon, when no slot matters any more.
            let _ = events.send_async(event(results)).await;
        });
    }

    /// Starts pulls from a peer; `timeout` from now.
    pub fn pull(&self, peer: &Peer, pulls: Vec<Pull>, timeout: Duration) -> InFlight {
        let near = peer.endpoints.host == self.host && peer.endpoints.shm.is_some();
        match &self.shm {
            Some(shm) if near && self.prefer == Preferred::Shm => shm.pull(peer, pulls, timeout),
            _ => self.tcp.pull(peer, pulls, timeout),
        }
    }
}
