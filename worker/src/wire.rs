//! Between the messages of `proto::internal` and this crate's types. What peers send is checked
//! here: bad bytes become a typed error, never a panic.

use baton_kv::events::{BlockEvent, EventKind};
use baton_proto::block::{BadDescriptor, BlockDescriptor};
use baton_proto::internal as pb;
use thiserror::Error;

/// A message of a peer that cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("`{field}` {problem}")]
pub struct BadMessage {
    /// Where it is.
    pub field: &'static str,
    /// What is wrong.
    pub problem: &'static str,
}

impl BadMessage {
    /// A complaint about one field.
    pub fn new(field: &'static str, problem: &'static str) -> Self {
        Self { field, problem }
    }
}

impl From<BadMessage> for tonic::Status {
    fn from(bad: BadMessage) -> Self {
        Self::invalid_argument(bad.to_string())
    }
}

/// A descriptor as it travels.
pub fn descriptor_to_wire(block: &BlockDescriptor) -> pb::Descriptor {
    block.into()
}

/// A descriptor that came over the wire.
pub fn descriptor_from_wire(wire: &pb::Descriptor) -> Result<BlockDescriptor, BadMessage> {
    wire.try_into().map_err(|BadDescriptor { field, problem }| BadMessage::new(field, problem))
}

/// All descriptors of a message; bounded by gRPC's message size.
pub fn descriptors_from_wire(wire: &[pb::Descriptor]) -> Result<Vec<BlockDescriptor>, BadMessage> {
    wire.iter().map(descriptor_from_wire).collect()
}

/// A block event as it travels.
pub fn event_to_wire(event: &BlockEvent) -> pb::BlockEvent {
    let kind = match event.kind {
        EventKind::Published => pb::block_event::Kind::Published,
        EventKind::Removed => pb::block_event::Kind::Removed,
    };
    pb::BlockEvent {
        kind: kind as i32,
        hash: event.hash.0.to_vec(),
        group: u32::from(event.group.0),
        parent: event.parent.map_or_else(Vec::new, |parent| parent.0.to_vec()),
        tier: event.tier.bits(),
    }
}
