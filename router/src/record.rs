//! Records on disk: what happens, as one JSON object a line.
//!
//! A thread of its own writes. The queue to it is bounded, and so is what lies on disk: a full file
//! becomes `FILE.1`, in place of the one before. What the disk does not take is counted and lost;
//! no request waits for it.

use crate::config::RecordConfig;
use baton_node::Tasks;
use baton_node::clock::unix_time;
use baton_node::metrics::prometheus_client::metrics::counter::Counter;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Lines that may wait for the disk.
const QUEUED_MAX: usize = 1024;

/// Takes entries to a file. The thread ends when the record is closed.
pub(crate) struct Record<T> {
    queue: Mutex<Option<flume::Sender<(Duration, T)>>>,
    dropped: Counter,
}

impl<T: Send + 'static> Record<T> {
    /// Opens the file of the section `name`; `None` where there is none. `line` is what an entry of
    /// that time becomes; `dropped` counts those that are lost.
    pub(crate) fn start(
        (name, config): (&'static str, &RecordConfig),
        tasks: &Tasks,
        dropped: &Counter,
        line: fn(Duration, &T) -> String,
    ) -> io::Result<Option<Self>> {
        let Some(path) = &config.file else { return Ok(None) };
        let mut file = BoundedFile::open(path, config.bytes_max.0).map_err(|error| {
            let message = format!("cannot open `{name}.file` {}: {error}", path.display());
            io::Error::new(error.kind(), message)
        })?;
        let (queue, entries) = flume::bounded::<(Duration, T)>(QUEUED_MAX);
        let counted = dropped.clone();
        tasks.spawn_thread(name, move || {
            let mut failing = false;
            while let Ok((at, entry)) = entries.recv() {
                // What waits may go to the disk together with what follows.
                let written = file.append(&line(at, &entry), entries.is_empty());
                if let Err(error) = &written {
                    counted.inc();
                    if !failing {
                        tracing::warn!(%error, "nothing can be written to `{name}.file`");
                    }
                }
                failing = written.is_err();
            }
        })?;
        Ok(Some(Self { queue: Mutex::new(Some(queue)), dropped: dropped.clone() }))
    }

    /// Records an entry, if there is room for it.
    pub(crate) fn write(&self, entry: T) {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = queue.as_ref().is_some_and(|queue| queue.try_send((unix_time(), entry)).is_ok());
        if !sent {
            self.dropped.inc();
        }
    }

    /// Ends the thread after what waits.
    pub(crate) fn close(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// A file that never takes more than its half of what both may take.
struct BoundedFile {
    path: PathBuf,
    file: BufWriter<File>,
    bytes: u64,
    bytes_max: u64,
}

impl BoundedFile {
    fn open(path: &Path, both_bytes_max: u64) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let bytes = file.metadata()?.len();
        let file = BufWriter::new(file);
        Ok(Self { path: path.to_owned(), file, bytes, bytes_max: both_bytes_max / 2 })
    }

    fn append(&mut self, line: &str, flush: bool) -> io::Result<()> {
        let length = line.len() as u64 + 1;
        if length > self.bytes_max {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "a line larger than the file"));
        }
        if self.bytes + length > self.bytes_max {
            self.file.flush()?;
            let mut older = OsString::from(&self.path);
            older.push(".1");
            match std::fs::rename(&self.path, older) {
                // Somebody else has taken it away.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                renamed => renamed?,
            }
            *self = Self::open(&self.path.clone(), self.bytes_max * 2)?;
        }
        self.bytes += length;
        self.file.write_all(line.as_bytes())?;
        self.file.write_all(b"\n")?;
        if flush { self.file.flush() } else { Ok(()) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use baton_node::scratch::Scratch;

    #[test]
    fn two_files_hold_the_latest_lines_and_never_more_than_they_may() {
        let folder = Scratch::new("decisions").unwrap();
        let path = folder.path().join("decisions.jsonl");
        let both = || {
            let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
            read(&path.with_extension("jsonl.1")) + &read(&path)
        };
        let mut file = BoundedFile::open(&path, 200).unwrap();
        for number in 0..1000 {
            file.append(&format!("line {number}"), true).unwrap();
            assert!(both().len() <= 200, "{}", both());
            // As after a restart.
            if number % 7 == 0 {
                file = BoundedFile::open(&path, 200).unwrap();
            }
        }
        let lines = both();
        let lines: Vec<_> = lines.lines().collect();
        let last = 1000 - lines.len();
        assert!(lines.len() >= 10, "{lines:?}");
        let expected: Vec<_> = (last..1000).map(|number| format!("line {number}")).collect();
        assert_eq!(lines, expected, "in order, and none is lost between the two");
        assert!(file.append(&"x".repeat(100), true).is_err());
        // A file that somebody has taken away comes back.
        std::fs::remove_file(&path).unwrap();
        (0..20).for_each(|_| file.append("a line again", true).unwrap());
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("a line again\n"));
    }
}
