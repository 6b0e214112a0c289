//! Another process's arena, mapped for reading.

use crate::PeerArenaError;
use crate::layout::{HEADER_BYTES, Layout, RECORD_BYTES, Shape};
use crate::mapping::{Access, Mapping};
use rustix::fs::{FsWord, SealFlags};
use std::fmt;
use std::os::fd::BorrowedFd;

/// What `fstatfs` calls the file system of memfds; see statfs(2).
const TMPFS_MAGIC: FsWord = 0x0102_1994;

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
        let system = |step| {
            move |error: rustix::io::Errno| PeerArenaError::System { step, source: error.into() }
        };
        let layout = Layout::of(shape).ok_or(PeerArenaError::Header { shape })?;
        // A file that cannot be sealed answers with an error: it is no memfd.
        let seals = rustix::fs::fcntl_get_seals(fd).map_err(|_| PeerArenaError::NotSealed)?;
        if !seals.contains(SealFlags::SHRINK) {
            return Err(PeerArenaError::NotSealed);
        }
        // Other sealable files (huge pages) may lack memory for a page when it is read: SIGBUS.
        let kind = rustix::fs::fstatfs(fd).map_err(system("fstatfs"))?.f_type;
        if kind != TMPFS_MAGIC {
            return Err(PeerArenaError::NotShared);
        }
        let found = rustix::fs::fstat(fd).map_err(system("fstat"))?.st_size;
        let found = u64::try_from(found).unwrap_or(0);
        if found != layout.total {
            return Err(PeerArenaError::Size { expected: layout.total, found, shape });
        }
        let mapping = Mapping::new(fd, layout.total as usize, Access::ReadOnly)
            .map_err(|source| PeerArenaError::System { step: "mmap", source })?;
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
