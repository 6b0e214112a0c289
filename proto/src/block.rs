//! How a block is referred to across processes.

use crate::ids::{Generation, GroupId, Incarnation, LeaseId, SequenceHash, SlotId, WorkerId};
use crate::internal;

/// A reference to a sealed block in its owner's arena, good for one lease.
///
/// The transport refuses it unless the owner, its incarnation, the slot's generation and the
/// identity all still fit: a stale reference costs time, never a wrong token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockDescriptor {
    /// The worker whose arena holds the block.
    pub owner: WorkerId,
    /// The owner's run in which the slot numbers below mean anything.
    pub incarnation: Incarnation,
    /// The lease under which the owner keeps the block in place.
    pub lease: LeaseId,
    /// What was left of the lease when the descriptor was made; re-anchor to the own clock.
    pub lease_remaining_ms: u32,
    /// Where the block lies.
    pub slot: SlotId,
    /// The slot's generation when the block was sealed.
    pub generation: Generation,
    /// The block's identity.
    pub hash: SequenceHash,
    /// The block's group.
    pub group: GroupId,
    /// Payload length in bytes.
    pub len: u32,
    /// CRC32C of the payload.
    pub crc: u32,
}

/// A descriptor that came over the wire is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadDescriptor {
    /// Which field.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl std::fmt::Display for BadDescriptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` {}", self.field, self.problem)
    }
}

impl std::error::Error for BadDescriptor {}

impl From<&BlockDescriptor> for internal::Descriptor {
    fn from(block: &BlockDescriptor) -> Self {
        Self {
            owner: block.owner.0,
            incarnation: block.incarnation.0,
            lease: block.lease.0,
            lease_remaining_ms: block.lease_remaining_ms,
            slot: block.slot.0,
            generation: block.generation.0,
            hash: block.hash.0.to_vec(),
            group: u32::from(block.group.0),
            len: block.len,
            crc: block.crc,
        }
    }
}

impl TryFrom<&internal::Descriptor> for BlockDescriptor {
    type Error = BadDescriptor;

    fn try_from(wire: &internal::Descriptor) -> Result<Self, BadDescriptor> {
        let bad = |field, problem| BadDescriptor { field, problem };
        let hash = SequenceHash::from_slice(&wire.hash)
            .ok_or(bad("descriptor.hash", "is not 16 bytes"))?;
        let group =
            u16::try_from(wire.group).map_err(|_| bad("descriptor.group", "exceeds 65535"))?;
        Ok(Self {
            owner: WorkerId(wire.owner),
            incarnation: Incarnation(wire.incarnation),
            lease: LeaseId(wire.lease),
            lease_remaining_ms: wire.lease_remaining_ms,
            slot: SlotId(wire.slot),
            generation: Generation(wire.generation),
            hash,
            group: GroupId(group),
            len: wire.len,
            crc: wire.crc,
        })
    }
}
