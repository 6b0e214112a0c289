//! Checkpoint files in memory.

use std::fs::File;
use std::io;
use std::ops::Deref;

/// A file mapped for reading. Several processes that map one file share its memory.
pub struct MappedFile(memmap2::Mmap);

/// Maps a file.
///
/// The file must not be changed or truncated while it is mapped: its pages are read in place, so a
/// change would change the model under running requests, and a truncation ends the process with
/// SIGBUS. Replace a checkpoint by writing a new file and renaming it over the old one.
pub fn map_file(file: &File) -> io::Result<MappedFile> {
    // SAFETY: nobody in this process writes the file; that others leave it alone is the operator's
    // duty, stated above. The bytes are only read as plain numbers, which any bits are.
    let map = unsafe { memmap2::Mmap::map(file)? };
    Ok(MappedFile(map))
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
