//! RDMA: the device of the side that wants a block fetches it, without a thread of the other side.
//!
//! Workers set up connections over the channels that they have anyway ([`Signalling`]). For each
//! pull the owner pins the blocks and opens windows on them, and the puller READs: payloads first,
//! then the slot records, which tell whether the slots were still what they had been. Or the puller
//! opens windows on its own slots, and the owner WRITEs, in the same order. What a window opens it closes for certain before the pins go. See docs/transfer.md.

mod adapter;
#[cfg(test)]
mod driven;
mod driver;
mod lanes;
mod links;
mod opening;
mod plan;
mod posting;
mod pull;
mod push;
#[cfg(test)]
pub(crate) mod raw;
mod rdma;
mod reports;
mod requests;
mod route;
mod server;
mod signal;
mod stages;

pub use adapter::Adapter;
pub use posting::{Posting, Round};
pub use rdma::{Device, DeviceChoice, DeviceError, Gid, GidProblem, Limits, LinkLayer, Port};
pub use server::Server;
pub use signal::{Call, SignalError, Signalling};

use crate::flight::Work;
use crate::guards::Guards;
use crate::{BackOff, Identity, InFlight, Local, Peer, Pull, Transport, TransportKind};
use links::{BLOCKS, Links};
use pull::Way;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What an owner writes is looked at when the windows are closed, so a large pull is written in
/// parts: while one is looked at, others are on their way.
const PUSH_BYTES: u64 = 4 << 20;
/// Not in more parts than this; each takes windows and a message of its own.
const PUSHES: u64 = 8;

/// What to use, and bounds of both sides.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerbsOptions {
    /// Which device, port and address.
    pub device: DeviceChoice,
    /// Queue pairs of one connection.
    pub queue_pairs: usize,
    /// Work requests outstanding on one queue pair.
    pub depth: u32,
    /// Work requests that are posted with one doorbell.
    pub chain: usize,
    /// Bytes of one work request at most; larger stretches take several.
    pub message_bytes: u32,
    /// How long completions are waited for with a core, before the task sleeps until it is woken.
    pub spin: Duration,
    /// Connections to owners at once.
    pub peers: usize,
    /// How long pairing may take, or telling a peer that something is over.
    pub connect: Duration,
    /// How long an owner may take to open windows.
    pub answer: Duration,
    /// How long to leave a peer alone that could not be reached.
    pub back_off: BackOff,
    /// How long after its deadline a pull's posted work requests may take to complete before the
    /// connection is given up to get them back.
    pub linger: Duration,
    /// A connection that failed is paired again in the background if it was wanted within this.
    pub wanted: Duration,
    /// A connection that nobody wanted for so long is closed.
    pub idle: Duration,
    /// Served blocks are pinned, and their windows open, for so long at most.
    pub grant: Duration,
    /// Grants of one connection at once.
    pub grants: usize,
    /// Open memory by registrations instead of windows even where the device has these: slower,
    /// and a key then works for all queue pairs of its connection.
    pub registrations_only: bool,
}

impl Default for VerbsOptions {
    fn default() -> Self {
        Self {
            device: DeviceChoice::default(),
            queue_pairs: 2,
            depth: 256,
            chain: 16,
            message_bytes: 1 << 20,
            spin: Duration::from_micros(20),
            peers: 256,
            connect: Duration::from_secs(2),
            answer: Duration::from_secs(5),
            back_off: BackOff::default(),
            linger: Duration::from_millis(20),
            wanted: Duration::from_mins(1),
            idle: Duration::from_mins(5),
            grant: Duration::from_secs(30),
            grants: 256,
            registrations_only: false,
        }
    }
}

/// Pulls blocks by RDMA.
#[derive(Clone)]
pub struct Verbs {
    links: Arc<Links>,
}

impl Verbs {
    /// A transport that writes to `local`'s arena, which has to be the one of the adapter.
    /// `identity` is who pulls.
    pub fn new(
        local: Local,
        identity: Identity,
        adapter: Adapter,
        signalling: Arc<dyn Signalling>,
    ) -> Self {
        Self::guarded(local, identity, adapter, signalling, Guards::default())
    }

    pub(crate) fn guarded(
        local: Local,
        identity: Identity,
        adapter: Adapter,
        signalling: Arc<dyn Signalling>,
        guards: Guards,
    ) -> Self {
        let links = Links::new(local, identity, adapter, signalling, guards);
        Self { links: Arc::new(links) }
    }

    #[cfg(test)]
    pub(crate) fn adapter(&self) -> &Adapter {
        &self.links.adapter
    }

    /// As [`Transport::pull`], but the owner writes the blocks: this side opens windows on the
    /// slots that they go to, and closes them before it looks at what has arrived. Takes one round
    /// trip of messages less than a pull by READ, and the owner's time instead.
    pub fn pull_by_write(&self, peer: &Peer, pulls: Vec<Pull>, deadline: Duration) -> InFlight {
        self.start(Way::Write, peer, pulls, deadline)
    }

    fn start(&self, way: Way, peer: &Peer, pulls: Vec<Pull>, deadline: Duration) -> InFlight {
        let Links { local, guards, .. } = &*self.links;
        let blocks = pulls.len();
        let work = Work::new(peer, pulls, deadline, local, *guards);
        let parts = match way {
            Way::Read => 1,
            Way::Write => work.bytes().div_ceil(PUSH_BYTES).min(PUSHES) as usize,
        };
        let works = work.split(parts.max(blocks.div_ceil(BLOCKS)));
        let cancel = local.shutdown.child_token();
        let (flight, reports) = InFlight::new(works.len(), cancel.clone());
        for (work, report) in works.into_iter().zip(reports) {
            let links = Arc::clone(&self.links);
            let run = pull::run(links, way, peer.clone(), work, report, cancel.clone());
            local.tasks.spawn(run);
        }
        flight
    }
}

impl Transport for Verbs {
    fn kind(&self) -> TransportKind {
        TransportKind::Verbs
    }

    fn pull(&self, peer: &Peer, pulls: Vec<Pull>, deadline: Duration) -> InFlight {
        self.start(Way::Read, peer, pulls, deadline)
    }

    /// Whether there is a connection, or one may be expected at the first attempt. If not, asking is
    /// enough for the connection to be tried again in the background.
    fn ready(&self, peer: &Peer) -> bool {
        self.links.ready(peer)
    }
}

impl fmt::Debug for Verbs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verbs").field("adapter", &self.links.adapter).finish_non_exhaustive()
    }
}
