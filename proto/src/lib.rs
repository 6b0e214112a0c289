//! What processes say to each other: protobuf messages and services, identities, and the internal
//! request that every client dialect is translated to. No I/O, no clock, no runtime.

#![forbid(unsafe_code)]

pub mod block;
pub mod ids;
pub mod ir;
pub mod packed;

/// The public gRPC interface, package `baton.v1`.
#[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]
pub mod v1 {
    include!("gen/baton.v1.rs");
}

/// What daemons of one cluster say to each other, package `baton.internal.v1`.
#[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]
pub mod internal {
    include!("gen/baton.internal.v1.rs");
}

/// What a placement policy outside of the router is asked, package `baton.policy.v1`.
#[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]
pub mod policy {
    include!("gen/baton.policy.v1.rs");
}

/// Without the remote key, which is a capability.
impl std::fmt::Debug for internal::Window {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Window")
            .field("queue_pair", &self.queue_pair)
            .field("bytes", &self.bytes)
            .field("first_slot", &self.first_slot)
            .field("slots", &self.slots)
            .finish_non_exhaustive()
    }
}

/// The encoded `FileDescriptorSet` of the public interface, for gRPC reflection.
pub const PUBLIC_DESCRIPTORS: &[u8] = include_bytes!("gen/baton.v1.fds");
