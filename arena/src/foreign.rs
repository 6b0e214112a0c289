//! Mapping what another process handed over, so that no access to it can be a signal.

use crate::PeerArenaError;
use crate::mapping::{Access, Mapping};
use rustix::fs::{FsWord, SealFlags};
use std::os::fd::BorrowedFd;

/// What `fstatfs` calls the file system of memfds; see statfs(2).
const TMPFS_MAGIC: FsWord = 0x0102_1994;

/// Maps `fd`, if it is a memfd of ordinary pages, of `expected` bytes, that cannot shrink. What is
/// mapped for reading only is sealed against further writers too, and thereby against holes.
///
/// So no access is a signal for want of a page. A page that was never written is allocated when it
/// is first looked at, though, at the expense of whoever looks.
pub(crate) fn map(
    fd: BorrowedFd<'_>,
    expected: u64,
    access: Access,
) -> Result<Mapping, PeerArenaError> {
    let system = |step| {
        move |error: rustix::io::Errno| PeerArenaError::System { step, source: error.into() }
    };
    // A file that cannot be sealed answers with an error: it is no memfd.
    let seals = rustix::fs::fcntl_get_seals(fd).map_err(|_| PeerArenaError::NotSealed)?;
    let needed = match access {
        // A hole takes written pages away, so that the next look allocates them again.
        Access::ReadOnly => SealFlags::SHRINK | SealFlags::FUTURE_WRITE,
        // Both sides map a board for writing.
        Access::ReadWrite => SealFlags::SHRINK,
    };
    if !seals.contains(needed) {
        return Err(PeerArenaError::NotSealed);
    }
    // Other sealable files (huge pages) may lack memory for a page when it is read: SIGBUS.
    let kind = rustix::fs::fstatfs(fd).map_err(system("fstatfs"))?.f_type;
    if kind != TMPFS_MAGIC {
        return Err(PeerArenaError::NotShared);
    }
    let found = rustix::fs::fstat(fd).map_err(system("fstat"))?.st_size;
    let found = u64::try_from(found).unwrap_or(0);
    if found != expected {
        return Err(PeerArenaError::Size { expected, found });
    }
    Mapping::new(fd, expected as usize, access)
        .map_err(|source| PeerArenaError::System { step: "mmap", source })
}
