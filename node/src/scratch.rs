//! A directory of our own among the system's temporary ones.

use crate::exit::{Exit, Failure};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Attempts at a name that nobody has taken.
const ATTEMPTS: usize = 8;

/// A directory that only this user can enter, under a name that nobody could foresee; removed at
/// the end.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes one; `purpose` is part of its name.
    pub fn new(purpose: &str) -> Result<Self, Failure> {
        let parent = std::env::temp_dir();
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let random = getrandom::u64()
                .map_err(|error| Failure::new(Exit::Unavailable, format!("no entropy: {error}")))?;
            let path = parent.join(format!("baton-{purpose}-{random:016x}"));
            // Fails where the name exists, be it as a link to somewhere else.
            match std::fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self { path }),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                    last = Some(error);
                }
                Err(error) => return Err(refused(&path, &error)),
            }
        }
        let error = last.unwrap_or_else(|| std::io::ErrorKind::AlreadyExists.into());
        Err(refused(&parent, &error))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn refused(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Unavailable, format!("cannot create {}: {error}", path.display()))
        .with_hint("set TMPDIR to a writable directory")
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is in the system's directory for temporary files.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
