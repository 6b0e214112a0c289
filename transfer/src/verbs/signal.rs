//! What two workers say to each other before blocks move: who asks, and how it may go wrong.
//!
//! The messages are those of `baton.internal.v1.Fabric`. This crate carries them nowhere: a worker
//! implements [`Signalling`] over the channels that it has to its peers, which are authenticated.

use super::rdma::{Gid, Limits, Port, QueuePair, RemoteEnd};
use crate::{Refused, TransferError};
use baton_proto::internal::{
    CloseReply, CloseRequest, OpenReply, OpenRequest, PairReply, PairRequest, PortEnd, PushReply,
    PushRequest, QueuePairEnd,
};
use futures_util::future::BoxFuture;
use std::io;

/// Calls the `Fabric` service of a peer.
///
/// `uri` is what the peer announced as its endpoint for verbs. A call that is not answered needs no
/// timeout of its own: whoever calls gives up in time and drops the future.
pub trait Signalling: Send + Sync {
    /// Pairs queue pairs.
    fn pair(&self, uri: &str, request: PairRequest) -> Call<PairReply>;
    /// Opens windows on blocks.
    fn open(&self, uri: &str, request: OpenRequest) -> Call<OpenReply>;
    /// Has blocks written to windows of the caller.
    fn push(&self, uri: &str, request: PushRequest) -> Call<PushReply>;
    /// Ends a grant or a connection.
    fn close(&self, uri: &str, request: CloseRequest) -> Call<CloseReply>;
}

/// A call under way.
pub type Call<T> = BoxFuture<'static, Result<T, SignalError>>;

/// Why a call brought no answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SignalError {
    /// Nobody answers there.
    #[error("{address} cannot be reached: {kind}")]
    Unreachable {
        /// Where.
        address: String,
        /// What the system said, or what comes closest.
        kind: io::ErrorKind,
    },
    /// The peer declined before it looked at the message.
    #[error("the peer refused the call: {0}")]
    Refused(Refused),
    /// The peer does not offer the service, or an answer was none.
    #[error("the peer broke the protocol: {what}")]
    Protocol {
        /// Which rule.
        what: &'static str,
    },
}

impl From<SignalError> for TransferError {
    fn from(error: SignalError) -> Self {
        match error {
            SignalError::Unreachable { address, kind } => Self::Unreachable { address, kind },
            SignalError::Refused(refused) => Self::Refused(refused),
            SignalError::Protocol { what } => Self::Protocol { what },
        }
    }
}

/// What a status in an answer says.
pub(crate) fn judged(status: u32) -> Result<(), TransferError> {
    if status == 0 {
        return Ok(());
    }
    let refused = u16::try_from(status).ok().and_then(Refused::from_code);
    Err(refused.map_or(TransferError::Protocol { what: "an unknown status" }, Into::into))
}

/// A result as a status.
pub(crate) fn status<T>(result: &Result<T, Refused>) -> u32 {
    result.as_ref().err().map_or(0, |refused| u32::from(refused.code()))
}

/// A port as it travels.
pub(crate) fn port_to_wire(port: &Port, limits: Limits) -> PortEnd {
    PortEnd {
        gid: port.gid.0.to_vec(),
        lid: u32::from(port.lid),
        mtu: u32::from(port.mtu),
        responder_reads: u32::from(limits.responder_reads),
        initiator_reads: u32::from(limits.initiator_reads),
    }
}

/// One end of a queue pair as it travels.
pub(crate) fn end_to_wire<State>(pair: &QueuePair<State>) -> QueuePairEnd {
    QueuePairEnd { number: pair.number(), psn: pair.psn() }
}

/// The other end of a queue pair, from what came over the wire.
pub(crate) fn remote_end(port: &PortEnd, pair: QueuePairEnd) -> Option<RemoteEnd> {
    let reads = |count: u32| u8::try_from(count.min(255)).ok();
    Some(RemoteEnd {
        number: pair.number,
        psn: pair.psn,
        gid: Gid(port.gid.as_slice().try_into().ok()?),
        lid: u16::try_from(port.lid).ok()?,
        mtu: u8::try_from(port.mtu).ok()?,
        responder_reads: reads(port.responder_reads)?,
        initiator_reads: reads(port.initiator_reads)?,
    })
}
