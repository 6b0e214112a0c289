//! Which transport brings a peer's blocks, and what is tried when it cannot.

use crate::config::Preferred;
use baton_node::task::Tasks;
use baton_proto::block::BlockDescriptor;
use baton_proto::ids::SequenceHash;
use baton_transfer::{InFlight, Peer, Pull, Settled, Transport};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The transports of a worker.
#[derive(Clone)]
pub struct Links {
    /// Works with every peer, so that it also stands in for the others.
    pub tcp: Arc<dyn Transport>,
    /// Works with peers on this host that offer it.
    pub shm: Option<Arc<dyn Transport>>,
    /// Works with peers that offer it, where this machine has a device.
    pub verbs: Option<Arc<dyn Transport>>,
    /// Which one is tried first.
    pub prefer: Preferred,
    /// This host, as peers name theirs.
    pub host: String,
}

/// What became of pulls.
#[derive(Debug)]
pub enum Ended {
    /// These have arrived or failed.
    Settled(Vec<Settled>),
    /// These have failed, and their slots are quarantined: nobody knows whether a device still
    /// writes there.
    Lost(Vec<BlockDescriptor>),
}

impl Links {
    /// Starts pulls from a peer as a task. When they have ended, `event` makes what is sent of the
    /// results, and, if need be, a second time of the blocks that are missing among those: each
    /// block is in one of the two. No block may be asked for twice.
    ///
    /// Blocks that a link failed to bring are asked for once more over tcp, within the same time.
    pub fn start<E: Send + 'static>(
        &self,
        (tasks, events): (&Tasks, &flume::Sender<E>),
        (peer, pulls): (&Peer, Vec<Pull>),
        timeout: Duration,
        event: impl Fn(Ended) -> E + Send + 'static,
    ) {
        let mut missing: BTreeMap<SequenceHash, BlockDescriptor> =
            pulls.iter().map(|pull| (pull.from.hash, pull.from)).collect();
        let (first, second) = self.routes(peer);
        let pull = first.pull(peer, pulls, timeout);
        let (events, peer, started) = (events.clone(), peer.clone(), Instant::now());
        tasks.spawn("pull", async move {
            let mut results = pull.settle().await;
            if let Some(second) = second {
                let passed = started.elapsed();
                results = again(second.as_ref(), &peer, results, passed, timeout).await;
            }
            for result in &results {
                missing.remove(&result.block().hash);
            }
            // Nobody listens only at the end of the daemon, when no slot matters any more.
            let _ = events.send_async(event(Ended::Settled(results))).await;
            if !missing.is_empty() {
                let lost: Vec<_> = missing.into_values().collect();
                tracing::error!(blocks = lost.len(), peer = %peer.worker, "slots were lost to a pull");
                let _ = events.send_async(event(Ended::Lost(lost))).await;
            }
        });
    }

    /// The transport for a peer, and the one that stands in for it.
    fn routes(&self, peer: &Peer) -> (&Arc<dyn Transport>, Option<Arc<dyn Transport>>) {
        let near = peer.endpoints.host == self.host && peer.endpoints.shm.is_some();
        let shm = self.shm.as_ref().filter(|_| near);
        let verbs = self.verbs.as_ref().filter(|_| peer.endpoints.verbs.is_some());
        let order = match self.prefer {
            Preferred::Shm => [shm, verbs],
            Preferred::Verbs => [verbs, shm],
            Preferred::Tcp => [None, None],
        };
        let first = order.into_iter().flatten().find(|transport| transport.ready(peer));
        match first {
            Some(first) => (first, Some(Arc::clone(&self.tcp))),
            None => (&self.tcp, None),
        }
    }
}

/// Asks once more for what a link has failed to bring.
async fn again(
    transport: &dyn Transport,
    peer: &Peer,
    results: Vec<Settled>,
    passed: Duration,
    timeout: Duration,
) -> Vec<Settled> {
    let (mut settled, mut pulls) = (Vec::with_capacity(results.len()), Vec::new());
    for result in results {
        match result {
            Settled::Failed { mut block, lease, error } if error.is_of_the_link() => {
                // What is left of the lease is told from now on, no longer from the first attempt.
                let passed_ms = u32::try_from(passed.as_millis()).unwrap_or(u32::MAX);
                block.lease_remaining_ms = block.lease_remaining_ms.saturating_sub(passed_ms);
                pulls.push(Pull::whole(block, lease));
            }
            other => settled.push(other),
        }
    }
    if !pulls.is_empty() {
        let flight: InFlight = transport.pull(peer, pulls, timeout.saturating_sub(passed));
        settled.extend(flight.settle().await);
    }
    settled
}

#[cfg(test)]
#[path = "links_tests.rs"]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
