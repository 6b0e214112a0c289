//! Handles on slots: who may write, who may read. (Skeleton of the types; the pool mints them.)

use baton_proto::ids::{Generation, SlotId};

/// The right to write a slot, taken by value by whatever may still write it.
#[derive(Debug)]
#[must_use = "a dropped lease quarantines its slot"]
pub struct WriteLease {
    slot: SlotId,
    generation: Generation,
}

impl WriteLease {
    /// The slot.
    pub fn slot(&self) -> SlotId {
        self.slot
    }

    /// The slot's generation while this lease lives.
    pub fn generation(&self) -> Generation {
        self.generation
    }
}
