//! A directory of our own among the system's temporary ones.

use crate::exit::{Exit, Failure};
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Attempts at a name that nobody has taken.
const ATTEMPTS: usize = 8;
/// The file that is locked for as long as the directory is used.
const LOCK: &str = "lock";
/// Directories that one start looks at, to remove what killed processes have left.
const LEFTOVERS_MAX: usize = 64;

/// A directory that only this user can enter, under a name that nobody could foresee; removed at
/// the end, or, if this process is killed, by the next one of its kind.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    /// Locked while this process lives. Nobody can forget to unlock it: the system does.
    _lock: File,
}

impl Scratch {
    /// Makes one; `purpose` is part of its name.
    pub fn new(purpose: &str) -> Result<Self, Failure> {
        Self::within(&std::env::temp_dir(), purpose)
    }

    fn within(parent: &Path, purpose: &str) -> Result<Self, Failure> {
        let prefix = format!("baton-{purpose}-");
        sweep(parent, &prefix);
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let random = getrandom::u64()
                .map_err(|error| Failure::new(Exit::Unavailable, format!("no entropy: {error}")))?;
            let path = parent.join(format!("{prefix}{random:016x}"));
            match make(&path) {
                Ok(lock) => return Ok(Self { path, _lock: lock }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = Some(error),
                Err(error) => return Err(refused(&path, &error)),
            }
        }
        let error = last.unwrap_or_else(|| io::ErrorKind::AlreadyExists.into());
        Err(refused(parent, &error))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Makes the directory and locks it.
fn make(path: &Path) -> io::Result<File> {
    // Fails where the name exists, be it as a link to somewhere else.
    DirBuilder::new().mode(0o700).create(path)?;
    let taken = || io::Error::from(io::ErrorKind::AlreadyExists);
    let lock = File::create_new(path.join(LOCK))?;
    // Somebody who sweeps may have been between the two.
    lock.try_lock().map_err(|_| taken())?;
    if lock.metadata()?.nlink() == 0 {
        return Err(taken());
    }
    Ok(lock)
}

/// Removes directories of this user whose process is gone. One without a lock is just being made.
fn sweep(parent: &Path, prefix: &str) {
    let Ok(entries) = std::fs::read_dir(parent) else { return };
    let ours = |name: &str| {
        let random = name.strip_prefix(prefix);
        random.is_some_and(|text| text.len() == 16 && u64::from_str_radix(text, 16).is_ok())
    };
    let kin = entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(ours));
    for entry in kin.take(LEFTOVERS_MAX) {
        let path = entry.path();
        if is_own_directory(&path)
            && let Ok(lock) = File::open(path.join(LOCK))
            && lock.try_lock().is_ok()
        {
            // Whatever of it cannot be removed is tried again by the next process.
            let _ = remove(&path);
        }
    }
}

/// Whether it is a directory of this user, and no link to one.
fn is_own_directory(path: &Path) -> bool {
    let user = rustix::process::geteuid().as_raw();
    std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir() && meta.uid() == user)
}

/// Removes the directory, its lock last: one that is left halfway is found again.
fn remove(path: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_name() == LOCK {
            continue;
        }
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        } else {
            std::fs::remove_file(entry.path())?;
        }
    }
    std::fs::remove_dir_all(path)
}

fn refused(path: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::Unavailable, format!("cannot create {}: {error}", path.display()))
        .with_hint("set TMPDIR to a writable directory")
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is tried again by the next process.
        let _ = remove(&self.path);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn names(parent: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(parent).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// What a killed process leaves: everything but its lock.
    fn abandoned(parent: &Path, purpose: &str) -> PathBuf {
        let scratch = Scratch::within(parent, purpose).unwrap();
        let path = scratch.path().to_owned();
        std::fs::write(path.join("secret"), "01").unwrap();
        std::fs::create_dir(path.join("model")).unwrap();
        std::fs::write(path.join("model/weights"), "02").unwrap();
        let Scratch { path: kept, _lock: lock } = &*std::mem::ManuallyDrop::new(scratch);
        // The system unlocks when a process ends.
        lock.unlock().unwrap();
        kept.clone()
    }

    #[test]
    fn only_this_user_enters_and_the_end_removes_it() {
        let parent = tempfile::tempdir().unwrap();
        let scratch = Scratch::within(parent.path(), "up").unwrap();
        let mode = std::fs::metadata(scratch.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        std::fs::write(scratch.path().join("secret"), "01").unwrap();
        drop(scratch);
        assert!(names(parent.path()).is_empty());
    }

    #[test]
    fn the_next_process_of_a_kind_removes_what_a_killed_one_left_and_nothing_else() {
        let parent = tempfile::tempdir().unwrap();
        let living = Scratch::within(parent.path(), "up").unwrap();
        let other = abandoned(parent.path(), "run");
        let strange = parent.path().join("baton-up-notes");
        std::fs::create_dir(&strange).unwrap();
        std::fs::write(strange.join(LOCK), "").unwrap();
        let young = parent.path().join("baton-up-0123456789abcdef");
        std::fs::create_dir(&young).unwrap();
        let linked = parent.path().join("baton-up-fedcba9876543210");
        std::os::unix::fs::symlink(&strange, &linked).unwrap();
        let dead = abandoned(parent.path(), "up");

        let next = Scratch::within(parent.path(), "up").unwrap();
        assert!(!dead.exists(), "a killed process's");
        for kept in [living.path(), next.path(), &other, &strange, &young, &linked] {
            assert!(kept.exists(), "{}", kept.display());
        }
        assert!(strange.join(LOCK).exists());
    }

    #[test]
    fn one_start_removes_a_bounded_number() {
        let parent = tempfile::tempdir().unwrap();
        for index in 0..LEFTOVERS_MAX + 3 {
            let path = parent.path().join(format!("baton-up-{index:016x}"));
            std::fs::create_dir(&path).unwrap();
            std::fs::write(path.join(LOCK), "").unwrap();
        }
        let first = Scratch::within(parent.path(), "up").unwrap();
        assert_eq!(names(parent.path()).len(), 3 + 1);
        let _second = Scratch::within(parent.path(), "up").unwrap();
        assert_eq!(names(parent.path()).len(), 2);
        drop(first);
    }
}
