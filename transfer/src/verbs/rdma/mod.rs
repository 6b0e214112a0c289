//! libibverbs behind safe handles: the only `unsafe` of this crate.
//!
//! A [`Device`] is opened by choice or by rule. Memory is registered in a [`ProtectionDomain`]
//! ([`ArenaRegion`] for this process's own requests, [`MemoryWindow`] or [`RemoteRegion`] for a
//! peer's), requests are put into a [`Chain`] and posted to a [`QueuePair`], and what became of
//! them is read from a [`CompletionQueue`]. Handles hold what they depend on, so that nothing is
//! freed while something uses it, in whatever order they are dropped.
//!
//! Who drives connections sees queue pairs and completion queues through [`Sending`] and
//! [`Completing`]; behind these there can also be the [`null`] provider, which moves nothing.

#[allow(unsafe_code)]
mod chain;
#[allow(unsafe_code)]
mod completion;
#[allow(unsafe_code)]
mod device;
mod error;
#[allow(unsafe_code)]
mod event;
mod gid;
#[allow(unsafe_code)]
mod library;
#[allow(unsafe_code)]
mod memory;
pub(crate) mod null;
#[allow(unsafe_code)]
mod pair;
mod provider;
mod sys;
#[allow(unsafe_code)]
mod window;

#[cfg(test)]
mod tests;

pub use device::{Device, DeviceChoice, Limits, Port};
pub use error::DeviceError;
pub use gid::{Gid, GidProblem, LinkLayer};

pub(crate) use chain::{Chain, Posted, Work};
pub(crate) use completion::{Completion, CompletionQueue, Status};
pub(crate) use error::PostError;
pub(crate) use event::AsyncEvent;
pub(crate) use memory::{
    ArenaMap, ArenaRegion, Bindable, Local, ProtectionDomain, Remote, RemoteKey, RemoteRegion,
    Rights, Scratch, ScratchMap,
};
#[cfg(test)]
pub(crate) use pair::Fuse;
pub(crate) use pair::{Failed, PairOptions, QueuePair, RECEIVE, Ready, RemoteEnd, Reset};
pub(crate) use provider::{Completing, Draining, Sending};
pub(crate) use window::MemoryWindow;
