//! What a worker says to a transport, and what it hands over.

use crate::sim::NodeId;
use crate::{Counters, InFlight, TransferError};
use baton_arena::Arena;
use baton_kv::lease::WriteLease;
use baton_kv::pool::SharedPool;
use baton_proto::block::BlockDescriptor;
use baton_proto::ids::{Incarnation, WorkerId};
use baton_proto::internal;
use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use subtle::ConstantTimeEq;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Moves blocks from a peer's arena into slots of the own one.
pub trait Transport: Send + Sync {
    /// Which transport this is.
    fn kind(&self) -> TransportKind;

    /// Starts to pull blocks from one peer. Has to be called inside a tokio runtime.
    ///
    /// `deadline` is how long all of it may take from now on; what has not arrived by then fails,
    /// give or take a timer's millisecond. Without any time nothing is begun.
    ///
    /// A block whose lease has run out, by `lease_remaining_ms` from this call on, is not begun any
    /// more. One that was begun earlier arrives if it passes verification: what a lease promises
    /// is that the block stays, not that it does not. Over verbs the
    /// end of the owner's grant ends a pull as a deadline does.
    fn pull(&self, peer: &Peer, pulls: Vec<Pull>, deadline: Duration) -> InFlight;

    /// Whether a pull from this peer has a chance now. `false` while the link to it is being made
    /// anew after a failure: take another transport meanwhile.
    fn ready(&self, _peer: &Peer) -> bool {
        true
    }
}

/// The ways in which blocks move.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum TransportKind {
    /// A mapping of the owner's arena, on one host.
    Shm,
    /// Sockets.
    Tcp,
    /// RDMA over libibverbs.
    Verbs,
    /// A link in virtual time.
    Sim,
}

impl TransportKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Shm, Self::Tcp, Self::Verbs, Self::Sim];
}

/// A worker from which blocks can be pulled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Who it is.
    pub worker: WorkerId,
    /// Which run of it is meant. Another run at the same address is refused.
    pub incarnation: Incarnation,
    /// Where it can be reached.
    pub endpoints: Endpoints,
}

/// One block, or a part of it, and the slot it goes to.
#[derive(Debug)]
pub struct Pull {
    /// The block, as its owner announced it.
    pub from: BlockDescriptor,
    /// Which bytes of it. They go to the same place of the destination; the rest of the slot is
    /// not touched.
    pub span: Span,
    /// The right to write the destination.
    pub into: WriteLease,
}

impl Pull {
    /// All of a block.
    pub fn whole(from: BlockDescriptor, into: WriteLease) -> Self {
        Self { from, span: Span::whole(&from), into }
    }
}

/// Bytes of a block's payload that lie side by side: one descriptor on the wire. The layout puts
/// heads outermost, so what a peer with another tensor-parallel degree needs is one span.
///
/// A whole block is verified against its descriptor. Of a part, the owner says a checksum where it
/// takes part in the pull; docs/transfer.md has what that is worth on each transport.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Span {
    /// The first byte.
    pub offset: u32,
    /// How many; none only where the block has none.
    pub len: u32,
}

impl Span {
    /// All of a block.
    pub fn whole(block: &BlockDescriptor) -> Self {
        Self { offset: 0, len: block.len }
    }

    /// Whether it is all of a block.
    pub fn is_whole(self, block: &BlockDescriptor) -> bool {
        self == Self::whole(block)
    }

    /// Whether it lies in a block of so many bytes, and is not empty unless the block is.
    pub fn fits(self, block_len: u32) -> bool {
        let end = u64::from(self.offset) + u64::from(self.len);
        end <= u64::from(block_len) && (self.len > 0 || block_len == 0)
    }

    /// The same bytes as a range of indices.
    pub(crate) fn range(self) -> Range<usize> {
        let offset = self.offset as usize;
        offset..offset + self.len as usize
    }
}

/// What became of one pull. Nothing writes the slot any more.
#[derive(Debug)]
#[must_use = "dropping it quarantines the slot of its lease"]
pub enum Settled {
    /// The block lies in the slot, verified.
    Arrived {
        /// The block.
        block: BlockDescriptor,
        /// Its slot.
        lease: WriteLease,
    },
    /// It does not; what the slot holds means nothing.
    Failed {
        /// The block.
        block: BlockDescriptor,
        /// The slot that it did not reach.
        lease: WriteLease,
        /// Why.
        error: TransferError,
    },
}

impl Settled {
    /// The block that was pulled.
    pub fn block(&self) -> &BlockDescriptor {
        let (Self::Arrived { block, .. } | Self::Failed { block, .. }) = self;
        block
    }

    /// Gives the slot back to its pool: the outcome is of no interest any more.
    pub fn give_back(self) {
        let (Self::Arrived { lease, .. } | Self::Failed { lease, .. }) = self;
        drop(lease.settle());
    }
}

/// Where a worker's blocks can be pulled.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Endpoints {
    /// Address of the tcp data plane, if offered.
    pub tcp: Option<SocketAddr>,
    /// Path of the socket that hands out the arena, if offered.
    pub shm: Option<PathBuf>,
    /// Identifies the host: shm works only where it is the own one.
    pub host: String,
    /// URI of the gRPC service over which verbs connections are set up, if offered.
    pub verbs: Option<String>,
    /// Node of a simulated network, inside one process. Never announced.
    pub sim: Option<NodeId>,
}

/// An endpoint that a peer announced cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("tcp endpoint {tcp:?} is no IP address with a port")]
pub struct EndpointError {
    /// What was announced.
    pub tcp: String,
}

impl TryFrom<&internal::Endpoints> for Endpoints {
    type Error = EndpointError;

    fn try_from(said: &internal::Endpoints) -> Result<Self, EndpointError> {
        let tcp = match said.tcp.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|_| EndpointError { tcp: text.to_owned() })?),
        };
        let shm = (!said.shm.is_empty()).then(|| PathBuf::from(&said.shm));
        let verbs = (!said.verbs.is_empty()).then(|| said.verbs.clone());
        Ok(Self { tcp, shm, host: said.host.clone(), verbs, sim: None })
    }
}

impl From<&Endpoints> for internal::Endpoints {
    fn from(own: &Endpoints) -> Self {
        Self {
            tcp: own.tcp.map_or_else(String::new, |address| address.to_string()),
            shm: own.shm.as_ref().map_or_else(String::new, |path| path.display().to_string()),
            host: own.host.clone(),
            verbs: own.verbs.clone().unwrap_or_default(),
        }
    }
}

/// The own worker and its present run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The worker.
    pub worker: WorkerId,
    /// Its run.
    pub incarnation: Incarnation,
}

/// What members of one cluster share, as far as the data plane is concerned. Derive it from the
/// cluster secret for this purpose alone: on tcp it crosses the network in the clear.
#[derive(Clone)]
pub struct Token([u8; 32]);

impl Token {
    /// A token of these bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Compares in a time that does not depend on where the difference is.
    pub(crate) fn matches(&self, offered: &[u8; 32]) -> bool {
        self.0.ct_eq(offered).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Monotonic time since some moment of this process; the one that the pool's leases are kept in.
pub type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// The side that pulls: where blocks go, and what its tasks belong to.
#[derive(Clone, Debug)]
pub struct Local {
    /// The arena whose slots are written.
    pub arena: Arena,
    /// Shown to peers.
    pub token: Token,
    /// Counts what was moved.
    pub counters: Counters,
    /// All tasks are spawned here.
    pub tasks: TaskTracker,
    /// Ends whatever is in flight.
    pub shutdown: CancellationToken,
}

/// The side that is pulled from.
#[derive(Clone)]
pub struct ServeContext {
    /// The arena that is served.
    pub arena: Arena,
    /// Decides what of it may be served.
    pub pool: SharedPool,
    /// Who serves; callers who expect somebody else are refused.
    pub identity: Identity,
    /// Asked of callers.
    pub token: Token,
    /// Tells whether a lease still lives.
    pub clock: Clock,
    /// Counts what was moved.
    pub counters: Counters,
    /// All tasks are spawned here.
    pub tasks: TaskTracker,
    /// Ends accepting; connections end after the block that they are sending.
    pub shutdown: CancellationToken,
}

impl fmt::Debug for ServeContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServeContext").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl fmt::Display for TransportKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shm => "shm",
            Self::Tcp => "tcp",
            Self::Verbs => "verbs",
            Self::Sim => "sim",
        })
    }
}
