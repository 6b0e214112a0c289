//! Memory that other processes can be handed, and whose size nobody can change.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};

use crate::ArenaError;
use crate::mapping::{Access, Mapping};

/// When the kernel finds memory for the pages of a file.
#[derive(Clone, Copy)]
pub(crate) enum Pages {
    /// At once: a shortage is an error here.
    Now,
    /// As they are touched: a shortage is a signal to whoever touches one.
    WhenTouched,
}

/// A file of zeros that lives in memory, mapped here for writing, with these seals and no others.
pub(crate) fn create(
    name: &str,
    bytes: u64,
    pages: Pages,
    seals: SealFlags,
) -> Result<(OwnedFd, Mapping), ArenaError> {
    let failed = |step| {
        move |source: rustix::io::Errno| ArenaError::System {
            step,
            wanted: bytes,
            source: source.into(),
        }
    };
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = rustix::fs::memfd_create(name, flags).map_err(failed("memfd_create"))?;
    match pages {
        Pages::Now => rustix::fs::fallocate(&fd, FallocateFlags::empty(), 0, bytes)
            .map_err(failed("fallocate"))?,
        Pages::WhenTouched => rustix::fs::ftruncate(&fd, bytes).map_err(failed("ftruncate"))?,
    }
    let mapping = Mapping::new(fd.as_fd(), bytes as usize, Access::ReadWrite)
        .map_err(|source| ArenaError::System { step: "mmap", wanted: bytes, source })?;
    rustix::fs::fcntl_add_seals(&fd, seals | SealFlags::SEAL).map_err(failed("sealing"))?;
    Ok((fd, mapping))
}
