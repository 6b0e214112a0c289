//! One shared mapping of a file descriptor: the only place that maps and unmaps, and the
//! word-wise access that stays defined while another process writes.

use crate::copy::{Kernel, native};
use crate::{RECORD_BYTES, protocol};
use rustix::mm::{MapFlags, ProtFlags};
use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering, fence};

const WORDS: usize = RECORD_BYTES / 8;
/// How often a record that changes while it is read is read again before it is reported as empty.
const RECORD_ATTEMPTS: usize = 64;

/// Bytes shared with other processes, unmapped on drop.
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
    kernel: Kernel,
}

// SAFETY: the mapping is plain memory that no thread owns; every access below is either atomic or
// made by a guard that has excluded conflicting ones.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

/// Whether the mapping may be written through.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    ReadOnly,
    ReadWrite,
}

impl Mapping {
    /// Maps the first `len` bytes of `fd`, shared.
    pub(crate) fn new(fd: BorrowedFd<'_>, len: usize, access: Access) -> io::Result<Self> {
        let protection = match access {
            Access::ReadOnly => ProtFlags::READ,
            Access::ReadWrite => ProtFlags::READ | ProtFlags::WRITE,
        };
        // SAFETY: no address is prescribed, so no existing mapping is replaced.
        let base = unsafe {
            rustix::mm::mmap(std::ptr::null_mut(), len, protection, MapFlags::SHARED, fd, 0)?
        };
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mapped at zero"))?;
        Ok(Self { base, len, kernel: Kernel::best() })
    }

    /// A pointer to `len` bytes at `offset`, both checked.
    pub(crate) fn at(&self, offset: usize, len: usize) -> NonNull<u8> {
        assert!(
            offset.checked_add(len).is_some_and(|end| end <= self.len),
            "{len} bytes at {offset} of a mapping of {} bytes",
            self.len
        );
        // SAFETY: the offset lies inside the mapping, or one past its end for no bytes.
        unsafe { self.base.add(offset) }
    }

    /// Eight bytes at an 8-byte boundary.
    pub(crate) fn word(&self, offset: usize) -> &AtomicU64 {
        let word = self.at(offset, 8).cast::<AtomicU64>();
        assert!(word.is_aligned());
        // SAFETY: inside the mapping, aligned, and only ever accessed by atomics: records through
        // this function, foreign payload as `copy_out` does. A relaxed load is defined on
        // read-only memory too.
        unsafe { word.as_ref() }
    }

    /// Copies bytes that somebody else may be writing at the same time; see [`crate::copy`].
    pub(crate) fn copy_out(&self, offset: usize, into: &mut [u8]) {
        let source = self.at(offset, into.len());
        // SAFETY: `at` has checked the range; this process writes foreign mappings by atomics only.
        unsafe { self.kernel.copy(source.as_ptr(), into) };
        // Whatever is read after this call is read after the bytes above.
        fence(Ordering::Acquire);
    }

    /// The same, continuing the CRC32C `crc` over the bytes that were copied.
    pub(crate) fn copy_out_crc(&self, offset: usize, into: &mut [u8], crc: u32) -> u32 {
        let source = self.at(offset, into.len());
        // SAFETY: as in `copy_out`.
        let crc = unsafe { self.kernel.copy_crc(source.as_ptr(), into, crc) };
        fence(Ordering::Acquire);
        crc
    }

    /// Continues the CRC32C `crc` over bytes where they lie.
    pub(crate) fn crc(&self, offset: usize, len: usize, crc: u32) -> u32 {
        let source = self.at(offset, len);
        // SAFETY: as in `copy_out`.
        let crc = unsafe { self.kernel.crc(source.as_ptr(), len, crc) };
        fence(Ordering::Acquire);
        crc
    }

    /// One byte.
    pub(crate) fn byte(&self, offset: usize) -> &AtomicU8 {
        let byte = self.at(offset, 1).cast::<AtomicU8>();
        // SAFETY: inside the mapping, and only ever accessed by atomics: the pins of a board.
        unsafe { byte.as_ref() }
    }

    /// A record, whole; see [`protocol::load_record`]. All zeros, which is no valid record, if somebody
    /// rewrites it all the time.
    pub(crate) fn load_record(&self, offset: usize) -> [u8; RECORD_BYTES] {
        let record = protocol::load_record(self.record(offset), RECORD_ATTEMPTS);
        record.map_or([0; RECORD_BYTES], |words| to_bytes(&words))
    }

    /// Replaces a record; see [`protocol::store_record`].
    pub(crate) fn store_record(&self, offset: usize, record: &[u8; RECORD_BYTES]) {
        protocol::store_record(self.record(offset), &to_words(record));
    }

    fn record(&self, offset: usize) -> [&AtomicU64; WORDS] {
        std::array::from_fn(|i| self.word(offset + i * 8))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length; guards keep the mapping alive by an Arc, so
        // nothing refers to it any more.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

fn to_bytes(words: &[u64; WORDS]) -> [u8; RECORD_BYTES] {
    let mut bytes = [0; RECORD_BYTES];
    for (chunk, word) in bytes.chunks_exact_mut(8).zip(words) {
        chunk.copy_from_slice(&native(*word));
    }
    bytes
}

#[allow(clippy::host_endian_bytes, reason = "bytes go to memory in the order they are given in")]
fn to_words(bytes: &[u8; RECORD_BYTES]) -> [u64; WORDS] {
    std::array::from_fn(|i| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[i * 8..i * 8 + 8]);
        u64::from_ne_bytes(word)
    })
}
