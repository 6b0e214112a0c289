//! This process's arena.

use crate::guard::{ReadGuard, SlotStates, WriteGuard};
use crate::layout::{Layout, RECORD_BYTES, Shape};
use crate::mapping::Mapping;
use crate::memfd::{self, Pages};
use crate::{ArenaError, memory};
use rustix::fs::SealFlags;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

/// What to create.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ArenaOptions {
    /// Number of slots.
    pub slots: u32,
    /// Bytes of each slot.
    pub slot_bytes: usize,
    /// Shown as `/memfd:NAME` in the process's maps.
    pub name: &'static str,
}

/// A shared memory arena of equal slots. Clones are handles on the same memory.
#[derive(Clone)]
pub struct Arena(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) mapping: Mapping,
    pub(crate) layout: Layout,
    pub(crate) states: SlotStates,
    fd: OwnedFd,
}

impl Arena {
    /// Allocates an arena whose pages are zero and cost nothing until they are touched.
    ///
    /// Fails early if it is larger than the memory that is available now: later, running out would
    /// be a signal, not an error.
    pub fn create(options: ArenaOptions) -> Result<Self, ArenaError> {
        let ArenaOptions { slots, slot_bytes, name } = options;
        let layout = Layout::of(Shape { slots, slot_bytes })
            .ok_or(ArenaError::Shape { slots, slot_bytes })?;
        let wanted = layout.total;
        if let Some(available) = memory::available().filter(|&available| available < wanted) {
            return Err(ArenaError::TooLarge { wanted, available, slots, slot_bytes });
        }
        // Whoever gets the descriptor can only map it for reading: the mapping that is made here
        // stays the only one that writes.
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE;
        let (fd, mapping) = memfd::create(name, wanted, Pages::WhenTouched, seals)?;
        mapping.store_record(0, &layout.header());
        let states = SlotStates::new(slots);
        Ok(Self(Arc::new(Inner { mapping, layout, states, fd })))
    }

    /// Shares a slot with other readers.
    ///
    /// # Panics
    /// If the slot is being written, or does not exist: a broken invariant, not a condition to
    /// wait for.
    pub fn read(&self, slot: u32) -> ReadGuard {
        self.try_read(slot).unwrap_or_else(|| panic!("slot {slot} is read while it is written"))
    }

    /// Shares a slot with other readers; `None` while somebody writes it.
    pub fn try_read(&self, slot: u32) -> Option<ReadGuard> {
        ReadGuard::new(&self.0, slot)
    }

    /// Takes a slot for writing.
    ///
    /// # Panics
    /// If anybody else reads or writes the slot, or it does not exist: a broken invariant.
    pub fn write(&self, slot: u32) -> WriteGuard {
        self.try_write(slot)
            .unwrap_or_else(|| panic!("slot {slot} is written while somebody else uses it"))
    }

    /// Takes a slot for writing; `None` while anybody else uses it.
    pub fn try_write(&self, slot: u32) -> Option<WriteGuard> {
        WriteGuard::new(&self.0, slot)
    }

    /// The slot's record. What was read of the payload before was read before it.
    pub fn record(&self, slot: u32) -> [u8; RECORD_BYTES] {
        self.0.mapping.load_record(self.0.layout.record_offset(slot))
    }

    /// Replaces the slot's record. What was written of the payload before is visible before it;
    /// what is written afterwards is visible only after it. One thread at a time per slot: its
    /// writer.
    pub fn set_record(&self, slot: u32, record: &[u8; RECORD_BYTES]) {
        self.0.mapping.store_record(self.0.layout.record_offset(slot), record);
    }

    /// Makes the slot's record void. A reader in another process who pins the slot and reads the
    /// record afterwards does not find it valid; one who pinned it earlier is found by whoever looks
    /// at its [`Board`](crate::Board) now.
    pub fn void_record(&self, slot: u32) {
        self.set_record(slot, &[0; RECORD_BYTES]);
    }

    /// Number of slots.
    pub fn slots(&self) -> u32 {
        self.0.layout.shape.slots
    }

    /// Bytes of each slot.
    pub fn slot_bytes(&self) -> usize {
        self.0.layout.shape.slot_bytes
    }

    /// Slots and bytes per slot together.
    pub fn shape(&self) -> Shape {
        self.0.layout.shape
    }

    /// Where everything lies in [`memory`](Self::memory).
    pub fn layout(&self) -> Layout {
        self.0.layout
    }

    /// The whole mapping, for a device that reads and writes it by itself. It stays mapped as long
    /// as a handle on the arena is held.
    ///
    /// What such a device writes, it writes without a guard: whoever tells it to holds the slot's
    /// [`WriteGuard`] until it is known to be done.
    pub fn memory(&self) -> NonNull<[u8]> {
        let bytes = self.0.layout.total as usize;
        NonNull::slice_from_raw_parts(self.0.mapping.at(0, bytes), bytes)
    }

    /// The memfd, to be handed to processes that may read everything in it.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }

    /// Slots that are being read or written now. Zero when everything is at rest.
    pub fn guards(&self) -> u32 {
        self.0.states.in_use()
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena").field("shape", &self.shape()).finish_non_exhaustive()
    }
}
