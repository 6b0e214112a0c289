//! Blocks over sockets: gathered from the owner's arena, scattered into the puller's.
//!
//! Payload passes through no buffer of this process on either side: the owner writes from
//! [`ReadGuard`](baton_arena::ReadGuard)s, the puller reads into
//! [`WriteGuard`](baton_arena::WriteGuard)s, several blocks ahead on each of a few connections.

mod fetch;
mod links;
mod server;

pub use server::Server;

use crate::flight::{Report, Work};
use crate::guards::Guards;
use crate::{BackOff, InFlight, Local, Op, Peer, Pull, TransferError, Transport, TransportKind};
use fetch::Fetcher;
use links::Links;
use std::sync::Arc;
use std::time::Duration;

/// Bounds of the pulling side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TcpOptions {
    /// Connections to one peer at once.
    pub connections_per_peer: usize,
    /// A pull takes another connection for every so many bytes.
    pub bytes_per_connection: u64,
    /// Requests that are on their way on one connection before the first is answered.
    pub window: usize,
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
            window: 16,
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
        Self::guarded(local, options, Guards::default())
    }

    pub(crate) fn guarded(local: Local, options: TcpOptions, guards: Guards) -> Self {
        let links = Arc::new(Links::new(local.token.clone(), options, guards));
        Self { local, links, options, guards }
    }
}

impl Transport for Tcp {
    fn kind(&self) -> TransportKind {
        TransportKind::Tcp
    }

    fn pull(&self, peer: &Peer, pulls: Vec<Pull>, deadline: Duration) -> InFlight {
        let work = Work::new(peer, pulls, deadline, &self.local, self.guards);
        let connections = work.bytes().div_ceil(self.options.bytes_per_connection.max(1));
        let most = self.options.connections_per_peer.max(1) as u64;
        let works = work.split(connections.clamp(1, most) as usize);
        let cancel = self.local.shutdown.child_token();
        let (flight, reports) = InFlight::new(works.len(), cancel.clone());
        for (work, report) in works.into_iter().zip(reports) {
            let fetcher = Fetcher {
                arena: self.local.arena.clone(),
                counters: self.local.counters.clone(),
                links: Arc::clone(&self.links),
                peer: peer.clone(),
                window: self.options.window.max(1),
                guards: self.guards,
            };
            let cancelled = cancel.clone().cancelled_owned();
            self.local.tasks.spawn(run(fetcher, work, report, cancelled));
        }
        flight
    }
}

/// Fetches until done, out of time or unwanted, then gives the leases back.
async fn run(
    fetcher: Fetcher,
    mut work: Work,
    report: Report,
    cancelled: impl Future<Output = ()>,
) {
    let deadline = work.deadline();
    // The future that writes is gone when this statement ends, whichever branch was taken.
    let error = tokio::select! {
        biased;
        () = cancelled => TransferError::Cancelled,
        outcome = fetcher.fetch(&mut work) => outcome.err().unwrap_or(TransferError::Cancelled),
        () = tokio::time::sleep_until(deadline) => TransferError::Deadline,
    };
    fetcher.counters.failed(TransportKind::Tcp, Op::Pull, work.failures());
    report.send(work.finish(&error));
}
