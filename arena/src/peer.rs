//! Another process's arena, mapped for reading.

use crate::layout::{HEADER_BYTES, Layout, RECORD_BYTES, Shape};
use crate::mapping::{Access, Mapping};
use crate::{PeerArenaError, foreign};
use std::fmt;
use std::os::fd::BorrowedFd;

/// A read-only view of an arena that somebody else writes.
///
/// Its owner may change any byte at any time, by mistake or on purpose. So bytes are copied out,
/// and believed only after they have been checked.
pub struct PeerArena {
    mapping: Mapping,
    layout: Layout,
}

impl PeerArena {
    /// Maps a descriptor that a peer handed over, if it is an arena of the expected shape whose
    /// size can no longer change. The descriptor is not needed afterwards.
    pub fn open(fd: BorrowedFd<'_>, shape: Shape) -> Result<Self, PeerArenaError> {
        let layout = Layout::of(shape).ok_or(PeerArenaError::Header { shape })?;
        let mapping = foreign::map(fd, layout.total, Access::ReadOnly)?;
        let mut header = [0; HEADER_BYTES];
        mapping.copy_out(0, &mut header);
        if header != layout.header() {
            return Err(PeerArenaError::Header { shape });
        }
        Ok(Self { mapping, layout })
    }

    /// Copies bytes of a slot. They may be torn; a record that is read afterwards tells.
    pub fn copy_out(
        &self,
        slot: u32,
        offset: usize,
        into: &mut [u8],
    ) -> Result<(), PeerArenaError> {
        self.check(slot, offset, into.len())?;
        self.mapping.copy_out(self.layout.slot_offset(slot) + offset, into);
        Ok(())
    }

    /// The same, continuing the CRC32C `crc` over the bytes that were copied; 0 begins one. What it
    /// says holds for `into`, whatever the slot turns into meanwhile.
    pub fn copy_out_crc(
        &self,
        slot: u32,
        offset: usize,
        into: &mut [u8],
        crc: u32,
    ) -> Result<u32, PeerArenaError> {
        self.check(slot, offset, into.len())?;
        Ok(self.mapping.copy_out_crc(self.layout.slot_offset(slot) + offset, into, crc))
    }

    /// Continues the CRC32C `crc` over bytes of a slot where they lie; 0 begins one.
    pub fn crc(
        &self,
        slot: u32,
        offset: usize,
        len: usize,
        crc: u32,
    ) -> Result<u32, PeerArenaError> {
        self.check(slot, offset, len)?;
        Ok(self.mapping.crc(self.layout.slot_offset(slot) + offset, len, crc))
    }

    /// A slot's record, read after every byte that was copied before.
    pub fn record(&self, slot: u32) -> Result<[u8; RECORD_BYTES], PeerArenaError> {
        self.check(slot, 0, 0)?;
        Ok(self.mapping.load_record(self.layout.record_offset(slot)))
    }

    /// Where `len` bytes of a slot lie, for a kernel that reads them in place.
    ///
    /// The pointer is valid for reads while this mapping lives. The bytes are another process's: no
    /// reference to them may be made, and they are read either by one load each that the compiler
    /// cannot repeat, or by hardware. They stay what they are only under a pin; see [`PeerBoard`](crate::PeerBoard).
    pub fn as_ptr(&self, slot: u32, len: usize) -> Result<*const u8, PeerArenaError> {
        self.check(slot, 0, len)?;
        Ok(self.mapping.at(self.layout.slot_offset(slot), len).as_ptr())
    }

    /// Slots and bytes per slot.
    pub fn shape(&self) -> Shape {
        self.layout.shape
    }

    fn check(&self, slot: u32, offset: usize, len: usize) -> Result<(), PeerArenaError> {
        let shape = self.layout.shape;
        let end = offset.saturating_add(len);
        if slot >= shape.slots || end > shape.slot_bytes {
            return Err(PeerArenaError::OutOfRange { slot, offset, end, shape });
        }
        Ok(())
    }
}

impl fmt::Debug for PeerArena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerArena").field("shape", &self.shape()).finish_non_exhaustive()
    }
}
