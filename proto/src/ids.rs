//! Identities: one newtype per thing that has a name, so that none is passed for another.
//!
//! All of them are plain values. Whoever mints one is named in its documentation.

use std::fmt;
use std::sync::Arc;

/// A token of the model's vocabulary.
pub type TokenId = u32;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// A worker daemon of the cluster, for as long as its name stands in a configuration: the
    /// first 32 bits of BLAKE3 of that name, little-endian (see `node::identity`).
    WorkerId(u32)
}
id! {
    /// One run of a daemon: drawn at random at start. Whatever was said by an earlier run of the
    /// same worker is void.
    Incarnation(u64)
}
id! {
    /// A promise of a block's owner to keep it in place for a stated time. Minted by the owner.
    LeaseId(u64)
}
id! {
    /// How often a slot has been handed out for writing. A reference to an older generation is
    /// stale, whatever the bytes say.
    Generation(u64)
}
id! {
    /// Position in one worker's stream of block events; the first event is number 1.
    EventSeq(u64)
}
id! {
    /// Index of a slot in an arena, `0..slots`.
    SlotId(u32)
}
id! {
    /// A group of components of a block that is stored and found together; everything that names
    /// stored KV names (sequence hash, group). Models with one kind of cache have group 0 alone.
    GroupId(u16)
}
id! {
    /// A sequence inside one worker; minted by that worker's scheduler, never reused in a run.
    SeqKey(u64)
}

/// A request, unique in the cluster: minted by the router that accepted it, 128 random bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RequestId(pub u128);

impl RequestId {
    /// Little-endian bytes, as on the wire.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_le_bytes()
    }

    /// From the bytes on the wire; `None` unless there are 16.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        Some(Self(u128::from_le_bytes(bytes.try_into().ok()?)))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestId({self})")
    }
}

/// A block's identity: 128 bits that cover its tokens, every token before them, and everything
/// else that decides the bytes. Equal hash means interchangeable. Computed in `kv::hash` only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SequenceHash(pub [u8; 16]);

impl SequenceHash {
    /// From the bytes on the wire; `None` unless there are 16.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        Some(Self(bytes.try_into().ok()?))
    }
}

impl fmt::Display for SequenceHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SequenceHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SequenceHash({self})")
    }
}

/// Who is asking: blocks that are not declared public are never shared between tenants.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TenantId(pub Arc<str>);

impl TenantId {
    /// The tenant of requests that name none.
    pub fn anonymous() -> Self {
        Self(Arc::from("anonymous"))
    }
}
