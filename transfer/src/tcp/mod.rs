//! Blocks over sockets: gathered from the owner's arena, scattered into the puller's.
//!
//! Payload passes through no buffer of this process on either side: the owner writes from
//! [`ReadGuard`](baton_arena::ReadGuard)s, the puller reads into
//! [`WritePart`](baton_arena::WritePart)s, a window of bytes ahead on each of a few connections.
//! With TLS it passes through the buffers in which it is encrypted.

mod answer;
mod batch;
mod fetch;
mod job;
mod links;
mod server;
mod stream;
mod tls;
mod tune;

pub use server::Server;
pub(crate) use tls::explain;
pub use tls::{TlsError, TlsFile, TlsFiles, TlsIdentity};

use crate::flight::{Report, Work};
use crate::guards::Guards;
use crate::{BackOff, InFlight, Local, Peer, Pull, TransferError, Transport, TransportKind};
use fetch::Fetcher;
use job::Job;
use links::Links;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A task that always has something to read or write lets others have their turn after so many
/// bytes: well below a millisecond's worth.
const YIELD_BYTES: usize = 2 << 20;

/// Bounds of the pulling side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TcpOptions {
    /// Connections to one peer at once.
    pub connections_per_peer: usize,
    /// A pull takes another connection for every so many bytes.
    pub bytes_per_connection: u64,
    /// Bytes that are asked for on one connection and have not come yet. It should exceed what the
    /// link carries in a round trip, divided by the connections; more fills memory and caches.
    pub window_bytes: usize,
    /// Blocks longer than this are asked for in parts, which share the connections.
    pub part_bytes: usize,
    /// Peers at once.
    pub peers: usize,
    /// How long connecting and saying hello may take.
    pub connect: Duration,
    /// How long to leave a peer alone that could not be reached.
    pub back_off: BackOff,
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self {
            connections_per_peer: 4,
            bytes_per_connection: 4 << 20,
            window_bytes: 2 << 20,
            part_bytes: 1 << 20,
            peers: 1024,
            connect: Duration::from_secs(2),
            back_off: BackOff::default(),
        }
    }
}

/// Pulls blocks over sockets.
#[derive(Clone, Debug)]
pub struct Tcp {
    local: Local,
    links: Arc<Links>,
    options: TcpOptions,
    guards: Guards,
}

impl Tcp {
    /// A transport that writes to `local`'s arena.
    pub fn new(local: Local, options: TcpOptions) -> Self {
        Self::with_tls(local, options, None)
    }

    /// The same, over encrypted connections if there is an identity. Only owners that have one too
    /// can be reached then.
    pub fn with_tls(local: Local, options: TcpOptions, tls: Option<TlsIdentity>) -> Self {
        Self::guarded(local, options, tls, Guards::default())
    }

    pub(crate) fn guarded(
        local: Local,
        options: TcpOptions,
        tls: Option<TlsIdentity>,
        guards: Guards,
    ) -> Self {
        let links = Arc::new(Links::new(local.token.clone(), options, tls, guards));
        Self { local, links, options, guards }
    }
}

#[cfg(test)]
impl Tcp {
    /// Has one fetcher wait while others use all connections, and ask for everything of its job.
    pub(crate) async fn outrun(
        &self,
        peer: &Peer,
        pulls: Vec<Pull>,
    ) -> (Result<(), TransferError>, Vec<crate::Settled>) {
        let mut turns = Vec::new();
        for _ in 0..self.options.connections_per_peer {
            turns.push(self.links.turn(peer).await);
        }
        let Local { arena, counters, .. } = &self.local;
        let work = Work::new(peer, pulls, Duration::from_hours(1), &self.local, self.guards);
        let each = self.options.part_bytes;
        let job = Arc::new(Job::new(work, arena, each, counters.clone(), self.guards));
        let fetcher = Fetcher {
            job: Arc::clone(&job),
            links: Arc::clone(&self.links),
            peer: peer.clone(),
            slot_bytes: arena.slot_bytes(),
            window_bytes: self.options.window_bytes,
        };
        let others = async { drop(job.take(usize::MAX)) };
        let (outcome, ()) = futures_util::future::join(fetcher.fetch(), others).await;
        drop(fetcher);
        let job = Arc::into_inner(job).expect("whoever shared the job has ended");
        (outcome, job.finish(&TransferError::Cancelled))
    }
}

impl Transport for Tcp {
    fn kind(&self) -> TransportKind {
        TransportKind::Tcp
    }

    fn pull(&self, peer: &Peer, pulls: Vec<Pull>, deadline: Duration) -> InFlight {
        let Local { arena, counters, tasks, shutdown, .. } = &self.local;
        let TcpOptions { bytes_per_connection, connections_per_peer, .. } = self.options;
        let work = Work::new(peer, pulls, deadline, &self.local, self.guards);
        let connections = work.bytes().div_ceil(bytes_per_connection.max(1));
        let connections = connections.clamp(1, connections_per_peer.max(1) as u64);
        let deadline = work.deadline();
        let counters = counters.clone();
        let job = Job::new(work, arena, self.options.part_bytes, counters, self.guards);
        let fetcher = Fetcher {
            job: Arc::new(job),
            links: Arc::clone(&self.links),
            peer: peer.clone(),
            slot_bytes: arena.slot_bytes(),
            window_bytes: self.options.window_bytes,
        };
        let cancel = shutdown.child_token();
        let (flight, report) = InFlight::single(cancel.clone());
        tasks.spawn(run(fetcher, connections, deadline, report, cancel));
        flight
    }
}

/// Fetches until done, out of time or unwanted, then gives the leases back.
async fn run(
    fetcher: Fetcher,
    connections: u64,
    deadline: Instant,
    report: Report,
    cancel: CancellationToken,
) {
    let job = Arc::clone(&fetcher.job);
    let fetcher = Arc::new(fetcher);
    let mut others = JoinSet::new();
    for _ in 1..connections {
        let fetcher = Arc::clone(&fetcher);
        others.spawn(async move { fetcher.fetch().await });
    }
    let error = tokio::select! {
        biased;
        () = cancel.cancelled() => TransferError::Cancelled,
        error = all(&fetcher, &mut others) => error,
        () = tokio::time::sleep_until(deadline) => TransferError::Deadline,
    };
    // The futures that write are gone, or joined here, whichever branch was taken.
    others.shutdown().await;
    drop(fetcher);
    let job = Arc::into_inner(job).expect("whoever shared the job has ended");
    report.send(job.finish(&error));
}

/// Fetches over all connections. An error of one stands for what has no result at the end: what
/// was on its way there, and everything if all have failed.
async fn all(fetcher: &Fetcher, others: &mut JoinSet<Result<(), TransferError>>) -> TransferError {
    let mut error = fetcher.fetch().await.err();
    while let Some(joined) = others.join_next().await {
        match joined {
            Ok(outcome) => error = error.or(outcome.err()),
            Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
            // The runtime is being shut down.
            Err(_) => {}
        }
    }
    error.unwrap_or(TransferError::Cancelled)
}
