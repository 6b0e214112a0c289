//! The record of decisions: for each turn its candidates, their features and probabilities, and
//! what came of it, as one JSON object a line. It has sizes and times, and nothing of what was
//! said. Policies can be compared afterwards from it.
//!
//! A thread of its own writes. The queue to it is bounded, and so is what lies on disk: a full file
//! becomes `FILE.1`, in place of the one before. What the disk does not take is counted and lost;
//! no turn waits for it.

use crate::api;
use crate::config::DecisionsConfig;
use crate::metrics::Metrics;
use crate::turn::Summary;
use baton_node::Tasks;
use baton_node::clock::unix_time;
use baton_proto::ids::RequestId;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Decisions that may wait for the disk.
const QUEUED_MAX: usize = 1024;

/// What came of a decision.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) request: RequestId,
    /// The session, and the one that it works for.
    pub(crate) session: Option<u64>,
    pub(crate) parent: Option<u64>,
    pub(crate) ending: Ending,
    /// With the reasons in it.
    pub(crate) summary: Summary,
}

/// How a turn ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ending {
    /// Every choice is complete.
    Answered,
    /// With an error.
    Failed,
    /// Nobody wanted it any more.
    Cancelled,
}

impl Ending {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Takes outcomes to the file. The thread ends when the log is closed.
pub(crate) struct DecisionLog {
    queue: Mutex<Option<flume::Sender<(Duration, Outcome)>>>,
    metrics: Metrics,
}

impl DecisionLog {
    /// Opens the configured file; `None` where there is none.
    pub(crate) fn start(
        config: &DecisionsConfig,
        tasks: &Tasks,
        metrics: &Metrics,
    ) -> io::Result<Option<Self>> {
        let Some(path) = &config.file else { return Ok(None) };
        let bounded = BoundedFile::open(path, config.bytes_max.0).map_err(|error| {
            let message = format!("cannot open `decisions.file` {}: {error}", path.display());
            io::Error::new(error.kind(), message)
        })?;
        let (queue, outcomes) = flume::bounded(QUEUED_MAX);
        let counted = metrics.clone();
        tasks.spawn_thread("decisions", move || write(bounded, &outcomes, &counted))?;
        Ok(Some(Self { queue: Mutex::new(Some(queue)), metrics: metrics.clone() }))
    }

    /// Records an outcome, if there is room for it.
    pub(crate) fn record(&self, outcome: Outcome) {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let sent =
            queue.as_ref().is_some_and(|queue| queue.try_send((unix_time(), outcome)).is_ok());
        if !sent {
            self.metrics.decisions_dropped.inc();
        }
    }

    /// Ends the thread after what waits.
    pub(crate) fn close(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

fn write(
    mut file: BoundedFile,
    outcomes: &flume::Receiver<(Duration, Outcome)>,
    metrics: &Metrics,
) {
    let mut failing = false;
    while let Ok((at, outcome)) = outcomes.recv() {
        let line = api::decision_line(at, &outcome);
        // What waits may go to the disk together with what follows.
        let written = file.append(&line, outcomes.is_empty());
        if let Err(error) = &written {
            metrics.decisions_dropped.inc();
            if !failing {
                tracing::warn!(%error, "decisions cannot be recorded");
            }
        }
        failing = written.is_err();
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
