//! How a block is referred to across processes.

use crate::ids::{Generation, GroupId, Incarnation, LeaseId, SequenceHash, SlotId, WorkerId};

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
