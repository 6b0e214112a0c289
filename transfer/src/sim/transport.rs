//! The pulling side: a hello, a window of requests, and patience with the card.

use super::fabric::{Body, Fabric};
use super::net::NodeId;
use super::nic::{Completion, Post};
use crate::caller::{Health, accept, lock};
use crate::flight::{Report, Work};
use crate::guards::{Guard, Guards};
use crate::verify::check_sums;
use crate::wire::{Fetch, Hello};
use crate::{
    BackOff, Identity, InFlight, Local, Op, Peer, Pull, TransferError, Transport, TransportKind,
};
use baton_proto::ids::{Incarnation, WorkerId};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Bounds of the pulling side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SimOptions {
    /// Requests of one pull that are posted at once.
    pub window: usize,
    /// Without progress for so long, a request or hello is sent again.
    pub retry: Duration,
    /// So often; then it has failed.
    pub retries: u32,
    /// How long saying hello may take.
    pub connect: Duration,
    /// How long to leave a peer alone that could not be reached.
    pub back_off: BackOff,
    /// Peers whose failures are remembered.
    pub peers: usize,
}

impl Default for SimOptions {
    fn default() -> Self {
        Self {
            window: 16,
            retry: Duration::from_millis(200),
            retries: 7,
            connect: Duration::from_secs(2),
            back_off: BackOff::default(),
            peers: 1024,
        }
    }
}

type PeerKey = (WorkerId, Incarnation, NodeId);

/// Pulls blocks over a simulated network.
#[derive(Clone, Debug)]
pub struct SimTransport {
    local: Local,
    station: Arc<Station>,
    options: SimOptions,
    guards: Guards,
    health: Arc<Mutex<BTreeMap<PeerKey, Health>>>,
}

/// The puller's place on the network, until the last handle is dropped.
#[derive(Debug)]
struct Station {
    fabric: Fabric,
    node: NodeId,
}

impl Drop for Station {
    fn drop(&mut self) {
        self.fabric.with(|state, _| state.owners.forget(self.node));
    }
}

impl SimTransport {
    /// A transport at a node, that writes to `local`'s arena.
    pub fn new(local: Local, fabric: &Fabric, node: NodeId, options: SimOptions) -> Self {
        Self::guarded(local, fabric, node, options, Guards::default())
    }

    pub(crate) fn guarded(
        local: Local,
        fabric: &Fabric,
        node: NodeId,
        options: SimOptions,
        guards: Guards,
    ) -> Self {
        let station = Arc::new(Station { fabric: fabric.clone(), node });
        Self { local, station, options, guards, health: Arc::default() }
    }
}

impl Transport for SimTransport {
    fn kind(&self) -> TransportKind {
        TransportKind::Sim
    }

    fn pull(&self, peer: &Peer, pulls: Vec<Pull>, deadline: Duration) -> InFlight {
        let work = Work::new(peer, pulls, deadline, &self.local, self.guards);
        let cancel = self.local.shutdown.child_token();
        let (flight, report) = InFlight::single(cancel.clone());
        self.local.tasks.spawn(run(self.clone(), peer.clone(), work, report, cancel));
        flight
    }
}

/// Requests of one pull that the card still has.
struct Posted {
    requests: BTreeMap<usize, u64>,
    done: mpsc::Sender<Completion>,
    completions: mpsc::Receiver<Completion>,
}

/// Fetches until done, out of time or unwanted; waits until the card is quiet; only then gives the
/// leases back.
async fn run(
    sim: SimTransport,
    peer: Peer,
    mut work: Work,
    report: Report,
    cancel: CancellationToken,
) {
    let deadline = work.deadline();
    let (done, completions) = mpsc::channel(sim.options.window.max(1));
    let mut posted = Posted { requests: BTreeMap::new(), done, completions };
    let error = tokio::select! {
        biased;
        () = cancel.cancelled() => TransferError::Cancelled,
        outcome = sim.fetch(&peer, &mut work, &mut posted) => {
            outcome.err().unwrap_or(TransferError::Cancelled)
        }
        () = tokio::time::sleep_until(deadline) => TransferError::Deadline,
    };
    if sim.guards.on(Guard::Quiet) {
        let requests: Vec<u64> = posted.requests.values().copied().collect();
        sim.station.fabric.with(|state, now| state.nic.abort(&mut state.timeline, now, &requests));
        while !posted.requests.is_empty() {
            let completion = posted.completions.recv().await.expect("`posted` holds a sender");
            posted.requests.remove(&completion.piece);
        }
    }
    sim.local.counters.failed(TransportKind::Sim, Op::Pull, work.failures());
    report.send(work.finish(&error));
}

impl SimTransport {
    /// Fetches what has no result yet. An error stands for all that still has none afterwards.
    async fn fetch(
        &self,
        peer: &Peer,
        work: &mut Work,
        posted: &mut Posted,
    ) -> Result<(), TransferError> {
        let mut to_ask: VecDeque<usize> = work.open().into();
        if to_ask.is_empty() {
            return Ok(());
        }
        let node = self.reach(peer).await?;
        loop {
            while posted.requests.len() < self.options.window.max(1) {
                let Some(piece) = to_ask.pop_front() else { break };
                if self.guards.on(Guard::Lease) && work.lease_over(piece) {
                    work.set(piece, Err(TransferError::LeaseExpired));
                    continue;
                }
                self.post(node, work, piece, posted);
            }
            if posted.requests.is_empty() {
                return Ok(());
            }
            let completion = posted.completions.recv().await.expect("`posted` holds a sender");
            posted.requests.remove(&completion.piece);
            let piece = completion.piece;
            let result = self.judge(work, completion);
            work.set(piece, result);
        }
    }

    fn post(&self, node: NodeId, work: &Work, piece: usize, posted: &mut Posted) {
        let fetch = Fetch::alone(piece as u32, *work.block(piece), work.span(piece));
        let post = Post {
            ends: (self.station.node, node),
            fetch,
            guard: self.local.arena.write(work.slot(piece)),
            patience: (self.options.retry, self.options.retries),
            done: posted.done.clone(),
        };
        let fabric = &self.station.fabric;
        let id = fabric.with(|state, now| state.nic.post(&mut state.timeline, now, post));
        posted.requests.insert(piece, id);
    }

    /// Whether what arrived is what was asked for.
    fn judge(&self, work: &Work, completion: Completion) -> Result<(), TransferError> {
        let Completion { piece, guard, result } = completion;
        let (extent, record) = result?;
        let (block, span) = (work.block(piece), work.span(piece));
        let expected = if span.is_whole(block) { block.crc } else { extent.crc };
        let found = crc32c::crc32c(&guard[span.range()]);
        check_sums(block, (expected, found), &record, self.guards)?;
        let bytes = u64::from(span.len);
        self.local.counters.moved(TransportKind::Sim, Op::Pull, bytes, bytes);
        Ok(())
    }

    /// Says hello, until it is answered.
    async fn reach(&self, peer: &Peer) -> Result<NodeId, TransferError> {
        let Peer { worker, incarnation, endpoints } = peer;
        let missing = TransferError::NoEndpoint { worker: *worker, kind: TransportKind::Sim };
        let node = endpoints.sim.ok_or(missing)?;
        let address = format!("sim:{node}");
        let key = (*worker, *incarnation, node);
        if let Some(health) = lock(&self.health).get(&key) {
            health.may_try(&address)?;
        }
        let expected = Identity { worker: *worker, incarnation: *incarnation };
        let late = |_| {
            let kind = io::ErrorKind::TimedOut;
            Err(TransferError::Unreachable { address, kind })
        };
        let dialling = tokio::time::timeout(self.options.connect, self.dial(node, expected));
        let reached = dialling.await.unwrap_or_else(late);
        let mut health = lock(&self.health);
        if reached.is_ok() {
            health.remove(&key);
        } else {
            // To forget a failure costs one more attempt.
            while health.len() >= self.options.peers.max(1) && !health.contains_key(&key) {
                health.pop_first();
            }
            health.entry(key).or_default().failed(self.options.back_off);
        }
        reached.map(|()| node)
    }

    async fn dial(&self, node: NodeId, expected: Identity) -> Result<(), TransferError> {
        let slot_bytes = self.local.arena.slot_bytes();
        let token = self.local.token.clone();
        let hello = Hello { peer: expected, slot_bytes: slot_bytes as u64, token }.to_bytes();
        loop {
            let ends = (self.station.node, node);
            let answer = self.station.fabric.with(|state, now| {
                state.nic.dial(&mut state.timeline, now, ends, Body::Hello(hello))
            });
            match tokio::time::timeout(self.options.retry, answer).await {
                Ok(Ok(welcome)) => {
                    return accept(&welcome, expected, slot_bytes, self.guards).map(drop);
                }
                Ok(Err(_)) => return Err(TransferError::Lost { kind: io::ErrorKind::NetworkDown }),
                Err(_) => {}
            }
        }
    }
}
