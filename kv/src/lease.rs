//! Handles on slots: who may write, who may read. The pool mints them, and none can be copied into
//! a second right to write.
//!
//! A handle that is dropped reports to a *return bin*, which the pool empties at its next call.
//! So handles can be dropped anywhere, also while the pool is locked by somebody else.

use crate::block::BlockId;
use crate::record::{RecordState, SlotRecord};
use baton_proto::ids::{Generation, GroupId, SequenceHash, SlotId};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// A writable slot with one owner and no writer at work. Dropping it gives the slot back.
#[derive(Debug)]
#[must_use = "a dropped draft gives its slot back"]
pub struct Draft {
    claim: Claim,
}

/// The right to write a slot, taken by value by whatever may still write it: a kernel, a NIC, a
/// copy. The writer gives it back by [`settle`](Self::settle) once it is quiet.
///
/// Dropping it *quarantines* the slot: nobody said that the writer is quiet, so the slot is never
/// used again. It is counted, and it is visible.
#[derive(Debug)]
#[must_use = "a dropped lease quarantines its slot"]
pub struct WriteLease {
    claim: Claim,
}

/// An immutable block that is not in the index yet. Dropping it gives the slot back.
#[derive(Debug)]
#[must_use = "a dropped sealed block gives its slot back"]
pub struct Sealed {
    claim: Claim,
    content: Content,
}

/// A reader's pin on a published block: while one lives, the block stays where it is. Clones share
/// the pin.
#[derive(Clone, Debug)]
#[must_use = "a dropped pin lets the block be evicted"]
pub struct ReadPin(pub(crate) Arc<Pinned>);

impl Draft {
    /// The slot.
    pub fn slot(&self) -> SlotId {
        self.claim.slot
    }

    /// The slot's generation while this draft lives.
    pub fn generation(&self) -> Generation {
        self.claim.generation
    }

    /// Hands the right to write to a writer.
    pub fn lend(mut self) -> WriteLease {
        self.claim.fate = Fate::Quarantine;
        WriteLease { claim: self.claim }
    }

    pub(crate) fn new(claim: Claim) -> Self {
        Self { claim }
    }

    pub(crate) fn claim(&self) -> &Claim {
        &self.claim
    }

    pub(crate) fn into_sealed(self, content: Content) -> Sealed {
        Sealed { claim: self.claim, content }
    }
}

impl WriteLease {
    /// The slot.
    pub fn slot(&self) -> SlotId {
        self.claim.slot
    }

    /// The slot's generation while this lease lives.
    pub fn generation(&self) -> Generation {
        self.claim.generation
    }

    /// Says that the writer is quiet: nothing will write the slot any more under this lease.
    pub fn settle(mut self) -> Draft {
        self.claim.fate = Fate::GiveBack;
        Draft { claim: self.claim }
    }
}

impl Sealed {
    /// The slot.
    pub fn slot(&self) -> SlotId {
        self.claim.slot
    }

    /// The slot's generation.
    pub fn generation(&self) -> Generation {
        self.claim.generation
    }

    /// The block's identity.
    pub fn hash(&self) -> SequenceHash {
        self.content.id.hash
    }

    /// The block's name and what it continues.
    pub fn id(&self) -> BlockId {
        self.content.id
    }

    /// What has to stand beside the slot before the block is published.
    pub fn record(&self) -> SlotRecord {
        self.content.record(self.claim.generation)
    }

    pub(crate) fn claim(&self) -> &Claim {
        &self.claim
    }

    /// Ends the handle without a report; the caller accounts for the slot.
    pub(crate) fn spend(mut self) -> Content {
        self.claim.fate = Fate::Spent;
        self.content
    }
}

impl ReadPin {
    /// The slot.
    pub fn slot(&self) -> SlotId {
        self.0.claim.slot
    }

    /// The slot's generation.
    pub fn generation(&self) -> Generation {
        self.0.claim.generation
    }

    /// The block's identity.
    pub fn hash(&self) -> SequenceHash {
        self.0.content.id.hash
    }

    /// The block's group.
    pub fn group(&self) -> GroupId {
        self.0.content.id.group
    }

    /// The block's name and what it continues.
    pub fn id(&self) -> BlockId {
        self.0.content.id
    }

    /// Payload length in bytes.
    pub fn len_bytes(&self) -> u32 {
        self.0.content.len
    }

    /// CRC32C of the payload.
    pub fn crc(&self) -> u32 {
        self.0.content.crc
    }

    /// What stands beside the slot.
    pub fn record(&self) -> SlotRecord {
        self.0.content.record(self.generation())
    }
}

/// What was sealed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Content {
    pub(crate) id: BlockId,
    pub(crate) len: u32,
    pub(crate) crc: u32,
}

impl Content {
    pub(crate) fn record(&self, generation: Generation) -> SlotRecord {
        SlotRecord {
            state: RecordState::Sealed,
            group: self.id.group,
            generation,
            hash: self.id.hash,
            len: self.len,
            crc: self.crc,
        }
    }
}

/// What all clones of a pin share.
#[derive(Debug)]
pub(crate) struct Pinned {
    claim: Claim,
    content: Content,
}

impl Pinned {
    pub(crate) fn new(claim: Claim, content: Content) -> Self {
        Self { claim, content }
    }

    pub(crate) fn claim(&self) -> &Claim {
        &self.claim
    }
}

/// What a handle claims of a slot, and what becomes of the slot when the handle is dropped.
pub(crate) struct Claim {
    slot: SlotId,
    generation: Generation,
    fate: Fate,
    bin: Arc<ReturnBin>,
}

/// What a dropped handle means for its slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// Nobody writes or reads it: it can be used again.
    GiveBack,
    /// Somebody may still write it: it must not be used again.
    Quarantine,
    /// One pin less.
    Unpin,
    /// The pool has already accounted for it.
    Spent,
}

impl Claim {
    pub(crate) fn new(
        slot: SlotId,
        generation: Generation,
        fate: Fate,
        bin: &Arc<ReturnBin>,
    ) -> Self {
        Self { slot, generation, fate, bin: Arc::clone(bin) }
    }

    pub(crate) fn belongs_to(&self, bin: &Arc<ReturnBin>) -> bool {
        Arc::ptr_eq(&self.bin, bin)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.fate != Fate::Spent {
            let Self { slot, generation, fate, .. } = *self;
            self.bin.put(Return { slot, generation, fate });
        }
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot {} generation {}", self.slot, self.generation)
    }
}

/// The report of a dropped handle.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Return {
    pub(crate) slot: SlotId,
    pub(crate) generation: Generation,
    pub(crate) fate: Fate,
}

/// Where dropped handles report. At most one report per slot and live handle lies here, since every
/// call of the pool empties it: so it is bounded by the pool's slots.
#[derive(Debug, Default)]
pub(crate) struct ReturnBin(Mutex<Vec<Return>>);

impl ReturnBin {
    fn put(&self, back: Return) {
        // A poisoned bin still holds whole reports, and drops must not panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(back);
    }

    /// Swaps the reports, in the order of the drops, with `empty`.
    pub(crate) fn take(&self, empty: &mut Vec<Return>) {
        assert!(empty.is_empty(), "reports would be lost");
        std::mem::swap(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), empty);
    }
}
