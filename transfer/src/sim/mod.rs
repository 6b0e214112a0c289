//! Blocks over a network that does what a seed says, in virtual time.
//!
//! [`Sim`] is the network alone: it says who gets a message, when and how damaged. The cluster
//! simulator uses it as it is. [`Fabric`] puts network cards and owners on it, so that
//! [`SimTransport`] is a [`Transport`](crate::Transport) like the others, under the same contract
//! and with the same checks, whose faults can be asked for: delay, bandwidth, loss, reordering,
//! duplication, damage, stalls, and writes that come late.
//!
//! A card here writes a destination by itself, as an RDMA card does: from the moment a request is
//! posted until the card reports it complete, whatever the puller has decided meanwhile. So the
//! guard of the destination goes to the card with the request and comes back with the completion.
//!
//! Time is that of tokio, so under a paused clock hours take no time at all. The order of events
//! does not depend on the resolution of timers: each is handled at its own moment. On a runtime of
//! one thread equal seeds and equal calls give equal runs; [`Fabric::fingerprint`] tells.

mod chance;
mod fabric;
mod net;
mod nic;
mod owner;
mod transport;

pub use fabric::{Fabric, Faults};
pub use net::{Delivery, Link, NodeId, Sim};
pub use owner::Server;
pub use transport::{SimOptions, SimTransport};
