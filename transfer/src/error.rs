//! Why a block did not arrive.

use crate::{TransportKind, tcp};
use baton_kv::record::RecordError;
use baton_proto::ids::{Generation, Incarnation, WorkerId};
use std::io;
use std::time::Duration;

/// Why a pull failed. All of them cost time only: take another holder, or compute.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TransferError {
    /// The peer announced no address for this transport.
    #[error("worker {worker} offers no {kind}: choose another transport")]
    NoEndpoint {
        /// The peer.
        worker: WorkerId,
        /// The transport.
        kind: TransportKind,
    },
    /// The descriptor belongs to another worker or to another run than the peer that was named.
    #[error("the block is held by worker {worker}, run {incarnation}, which is not the peer asked")]
    Foreign {
        /// The owner according to the descriptor.
        worker: WorkerId,
        /// Its run according to the descriptor.
        incarnation: Incarnation,
    },
    /// The lease under which the owner keeps the block ran out before the block was there.
    #[error("the lease ran out before the block was there: ask its owner for another")]
    LeaseExpired,
    /// The block does not fit a slot.
    #[error(
        "a block of {len} bytes does not fit slots of {slot_bytes}: another model or block size"
    )]
    TooLong {
        /// Bytes of the block.
        len: u32,
        /// Bytes of a slot.
        slot_bytes: usize,
    },
    /// The bytes asked for are none of the block's.
    #[error("a block of {block_len} bytes has no {len} bytes from byte {offset} on")]
    Span {
        /// First byte asked for.
        offset: u32,
        /// How many were asked for.
        len: u32,
        /// Bytes of the block.
        block_len: u32,
    },
    /// Nobody answers at the peer's address.
    #[error("{address} cannot be reached: {kind}")]
    Unreachable {
        /// Where it was looked for.
        address: String,
        /// What the system said.
        kind: io::ErrorKind,
    },
    /// The last attempts failed, and the next one has to wait.
    #[error("{address} was unreachable; the next attempt is due in {} ms", .retry_in.as_millis())]
    BackingOff {
        /// Where it was looked for.
        address: String,
        /// How long until it is tried again.
        retry_in: Duration,
    },
    /// More peers at once than connections are kept for.
    #[error("blocks are being pulled from {limit} peers already")]
    TooManyPeers {
        /// The bound.
        limit: usize,
    },
    /// More slots at once than the owner lets this process use in place.
    #[error(
        "{limit} slots of the owner are mapped already, which is all it allows: pull the block, or let go of some"
    )]
    TooManyMapped {
        /// The bound.
        limit: u32,
    },
    /// The owner declined.
    #[error("the owner refused: {0}")]
    Refused(#[from] Refused),
    /// The connection ended on the way.
    #[error("the connection to the owner was lost: {kind}")]
    Lost {
        /// What the system said.
        kind: io::ErrorKind,
    },
    /// No encrypted connection came to be, or it broke.
    #[error("TLS with the peer failed: {why}")]
    Tls {
        /// What is wrong, and what to do.
        why: String,
    },
    /// The RDMA connection to the peer failed.
    #[error("the RDMA connection failed: {fault}")]
    LinkFailed {
        /// How.
        fault: LinkFault,
    },
    /// The RDMA device did not do what was asked of it.
    #[error("the RDMA device failed: {problem}")]
    Device {
        /// What it said.
        problem: String,
    },
    /// The peer says things that no Baton of this version says.
    #[error("the peer broke the protocol: {what}")]
    Protocol {
        /// Which rule.
        what: &'static str,
    },
    /// What arrived is not the block that was asked for.
    #[error("what arrived is not the block that was asked for: {0}")]
    Mismatch(#[from] Mismatch),
    /// The time for the pull is over.
    #[error("the deadline of the pull passed")]
    Deadline,
    /// Whoever asked lost interest, or this process shuts down.
    #[error("the pull was cancelled")]
    Cancelled,
}

/// How an RDMA connection failed. It is paired anew; until then blocks can come another way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LinkFault {
    /// The peer's device refused an access: the window is closed, or does not reach so far.
    #[error("the peer's device refused an access: the grant had ended")]
    RemoteAccess,
    /// The peer's device did not answer, however often it was asked.
    #[error(
        "the peer's device did not answer: it is gone, or the network drops RoCE (compare MTU, priority flow control and routes of both GIDs)"
    )]
    Unanswered,
    /// The peer had no receive posted.
    #[error("the peer was not ready to receive")]
    NotReady,
    /// A work request was flushed because the queue pair had failed before.
    #[error("the queue pair had failed before")]
    Flushed,
    /// The own memory is not registered for what was asked of it.
    #[error("the own memory is not registered for the work request")]
    LocalProtection,
    /// A memory window could not be bound.
    #[error("a memory window could not be bound")]
    Bind,
    /// The peer's device objected to the request as such.
    #[error("the peer's device refused the request")]
    RemoteRefused,
    /// Any other status of a completion.
    #[error("completion status {status} (vendor code {vendor:#x})")]
    Status {
        /// The code of `ibv_wc_status`.
        status: u32,
        /// The vendor's own code.
        vendor: u32,
    },
    /// A work request could not be posted.
    #[error("a work request could not be posted")]
    Post,
    /// Completions could not be read.
    #[error("the completion queue failed")]
    Completions,
    /// A completion came that belongs to nothing that was posted.
    #[error("a completion belongs to nothing that was posted")]
    Stray,
    /// Work requests were still under way when the deadline of a transfer had passed.
    #[error("work requests were under way when their time was over")]
    Overdue,
    /// The device reported that the queue pair, its port or itself failed, or that its address
    /// changed.
    #[error("the device reported a failure or a changed address: look at its port")]
    Device,
    /// The queue pair does not give back what was posted. The slots stay out of use.
    #[error("the device does not give back what was posted")]
    Stuck,
    /// The peer said that it ended the connection, or did not know it any more.
    #[error("the peer ended the connection")]
    Peer,
    /// It was not needed, or this process shuts down.
    #[error("the connection was closed")]
    Closed,
}

impl LinkFault {
    /// Whether it was ended on purpose, here or by a peer that answers: no reason for patience.
    pub(crate) fn is_harmless(self) -> bool {
        matches!(self, Self::Closed | Self::Overdue | Self::Peer)
    }
}

/// Why an owner declines, as it says on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// It speaks another version.
    #[error("it speaks another version of the protocol: run one release everywhere")]
    Version,
    /// The token is not the cluster's.
    #[error("the token is not that of its cluster: compare the cluster secrets")]
    Token,
    /// Another worker has this address now.
    #[error("another worker is at this address")]
    Worker,
    /// It was restarted; what it held before is gone.
    #[error("it was restarted: descriptors of its earlier run are void")]
    Incarnation,
    /// It has as many connections as it allows.
    #[error("it has as many connections as it allows")]
    Busy,
    /// Its slots have another size.
    #[error("its slots have another size: another model or block size")]
    SlotBytes,
    /// A frame was not understood.
    #[error("it did not understand a frame")]
    Malformed,
    /// It accepts encrypted connections only.
    #[error("it accepts encrypted connections only: give this side a certificate too")]
    Tls,
    /// It does not know the connection, or not any more.
    #[error("it does not know the connection any more: pair again")]
    Connection,
    /// Its RDMA device did not do what was asked of it.
    #[error("its RDMA device did not do what was asked of it: its log says what")]
    Device,
    /// The lease is unknown, released or over.
    #[error("the lease is unknown, released or over")]
    Lease,
    /// The lease does not cover the slot, or there is no such slot.
    #[error("the lease does not cover the slot")]
    Slot,
    /// The slot was reused since.
    #[error("the slot was reused since")]
    Generation,
    /// The slot holds another block.
    #[error("the slot holds another block")]
    Hash,
    /// Length or checksum are not those of the block.
    #[error("length or checksum are not those of the block")]
    Content,
    /// The bytes asked for are none of the block's.
    #[error("the block does not have the bytes that were asked for")]
    Span,
}

impl Refused {
    const CODES: [(Self, u16); 16] = [
        (Self::Version, 1),
        (Self::Token, 2),
        (Self::Worker, 3),
        (Self::Incarnation, 4),
        (Self::Busy, 5),
        (Self::SlotBytes, 6),
        (Self::Malformed, 7),
        (Self::Tls, 8),
        (Self::Connection, 9),
        (Self::Device, 10),
        (Self::Lease, 16),
        (Self::Slot, 17),
        (Self::Generation, 18),
        (Self::Hash, 19),
        (Self::Content, 20),
        (Self::Span, 21),
    ];

    /// The status on the wire.
    pub(crate) fn code(self) -> u16 {
        Self::CODES.iter().find(|(refused, _)| *refused == self).map_or(0, |(_, code)| *code)
    }

    /// Whether it says something about the way, and nothing about owner or block.
    fn is_of_the_link(self) -> bool {
        match self {
            Self::Busy | Self::Tls | Self::Malformed | Self::Connection | Self::Device => true,
            Self::Version
            | Self::Token
            | Self::Worker
            | Self::Incarnation
            | Self::SlotBytes
            | Self::Lease
            | Self::Slot
            | Self::Generation
            | Self::Hash
            | Self::Content
            | Self::Span => false,
        }
    }

    /// What a status other than 0 means, if it is known.
    pub(crate) fn from_code(code: u16) -> Option<Self> {
        Self::CODES.iter().find(|(_, known)| *known == code).map(|(refused, _)| *refused)
    }
}

/// What does not fit together: descriptor, slot record or payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Mismatch {
    /// The record cannot be read: torn, damaged or void.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The slot holds no sealed block any more.
    #[error("the slot holds no sealed block")]
    NotSealed,
    /// The slot was reused since the block was announced.
    #[error("the slot is at generation {found}, the block was announced at {expected}")]
    Generation {
        /// The generation of the descriptor.
        expected: Generation,
        /// The generation of the record.
        found: Generation,
    },
    /// The slot holds another block.
    #[error("the slot holds another block")]
    Identity,
    /// Record and descriptor name different lengths or checksums.
    #[error("record and descriptor differ in length or checksum")]
    Content,
    /// The payload does not have the checksum that was announced.
    #[error("the payload's checksum is {found:08x}, announced was {expected:08x}")]
    Checksum {
        /// The checksum of the descriptor.
        expected: u32,
        /// The checksum of what arrived.
        found: u32,
    },
}

impl TransferError {
    /// Whether the way failed and not the block: another transport may still bring it.
    ///
    /// Every fault of an RDMA connection counts, `Closed` too: a pull under the own shutdown fails as
    /// `Cancelled`, so one that finds its connection closed lost a race against an idle time or
    /// against the bound on connections, and another way is as good as ever.
    pub fn is_of_the_link(&self) -> bool {
        match self {
            Self::NoEndpoint { .. }
            | Self::Unreachable { .. }
            | Self::BackingOff { .. }
            | Self::TooManyPeers { .. }
            | Self::Lost { .. }
            | Self::Protocol { .. }
            | Self::Tls { .. }
            | Self::LinkFailed { .. }
            | Self::Device { .. } => true,
            Self::Refused(refused) => refused.is_of_the_link(),
            Self::Foreign { .. }
            | Self::LeaseExpired
            | Self::TooLong { .. }
            | Self::Span { .. }
            | Self::TooManyMapped { .. }
            | Self::Mismatch(_)
            | Self::Deadline
            | Self::Cancelled => false,
        }
    }

    pub(crate) fn lost(error: &io::Error) -> Self {
        match tcp::explain(error) {
            Some(why) => Self::Tls { why },
            None => Self::Lost { kind: error.kind() },
        }
    }
}
