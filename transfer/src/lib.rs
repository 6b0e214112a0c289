//! How a block moves: shared memory, TCP, RDMA, and the simulated link.
//!
//! The side that needs a block *pulls* it from the side that holds it. [`Transport::pull`] takes
//! descriptors together with the [`WriteLease`](baton_kv::lease::WriteLease)s of the slots they go
//! to, by value; [`InFlight::settle`] gives the leases back, and only when nothing can write to
//! those slots any more. Nothing that arrives is believed before [`verify`] has compared payload,
//! slot record and descriptor. Whatever goes wrong costs time: it is a [`TransferError`] for one
//! block, never a wrong byte.
//!
//! * [`tcp`] scatters and gathers between sockets and arenas, without a buffer in between.
//! * [`shm`] maps the owner's arena and copies each block once, or has it used in place.
//! * [`verbs`] has RDMA devices move blocks by themselves.
//! * [`sim`] is a link in virtual time for the cluster simulator.
//!
//! The frames are drawn in docs/wire.md.
// The one exception is `verbs::rdma`, module by module.
#![deny(unsafe_code)]

mod api;
mod caller;
mod counters;
mod error;
mod flight;
mod guards;
mod serve;
pub mod shm;
pub mod sim;
pub mod tcp;
pub mod verbs;
mod verify;
mod wire;

#[cfg(test)]
mod tests;

pub use api::{
    Clock, EndpointError, Endpoints, Identity, Local, Peer, Pull, ServeContext, Settled, Span,
    Token, Transport, TransportKind,
};
pub use caller::BackOff;
pub use counters::{Counters, Op, Sample};
pub use error::{LinkFault, Mismatch, Refused, TransferError};
pub use flight::InFlight;
pub use serve::ServeLimits;
pub use verify::verify;
