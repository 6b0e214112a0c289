//! One stage: run a command, show what it says, count the tests it reports, kill it when it has
//! taken twice its budget.

use super::Length;
use super::counts::Counts;
use crate::failure::Failure;
use crate::process::Running;
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// The exit code by which a stage says that this machine lacks what it needs.
pub(crate) const SKIPPED: u8 = 77;

/// How long output may be held open by processes that outlive the stage.
const OUTPUT_GRACE: Duration = Duration::from_secs(2);

/// What to run.
pub(super) struct Job<'a> {
    /// Words between spaces.
    pub(super) command: &'a str,
    /// This program's own file, which a build may replace while it runs.
    pub(super) xtask: &'a Path,
    pub(super) budget: Duration,
    pub(super) length: Length,
}

/// How a stage ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Passed,
    Skipped,
    Failed,
    Killed,
}

/// What became of a job.
pub(super) struct Done {
    pub(super) ended: Ended,
    pub(super) took: Duration,
    pub(super) counts: Counts,
}

impl Job<'_> {
    #[expect(clippy::disallowed_methods, reason = "a stage is measured in real time")]
    pub(super) fn run(&self, root: &Path) -> Result<Done, Failure> {
        let started = Instant::now();
        let mut child = self
            .command(root)
            .spawn()
            .map_err(|error| Failure::new(format!("cannot run `{}`: {error}", self.command)))?;
        let (counted, counts) = sync_channel(64);
        tee(child.stdout.take(), std::io::stdout(), counted.clone());
        tee(child.stderr.take(), std::io::stderr(), counted);
        let mut running = Running::new(child);
        let status = running.wait(2 * self.budget)?;
        drop(running);
        let took = started.elapsed();
        let ended = match status {
            None => {
                println!("killed after {} s, twice the stage's budget", took.as_secs());
                Ended::Killed
            }
            Some(status) if status.success() => Ended::Passed,
            Some(status) if status.code() == Some(i32::from(SKIPPED)) => Ended::Skipped,
            Some(_) => Ended::Failed,
        };
        Ok(Done { ended, took, counts: sum(&counts) })
    }

    fn command(&self, root: &Path) -> Command {
        // Going through cargo again would only wait for its lock.
        let (program, words) = if let Some(words) = self.command.strip_prefix("cargo xtask ") {
            (self.xtask, words)
        } else {
            let (program, words) = self.command.split_once(' ').unwrap_or((self.command, ""));
            (Path::new(program), words)
        };
        let mut command = Command::new(program);
        command.args(words.split_whitespace());
        command.current_dir(root).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        if self.length == Length::Gate {
            command.env("BATON_LONG", "1");
        }
        if std::io::stdout().is_terminal() {
            command.env("CARGO_TERM_COLOR", "always");
        }
        command
    }
}

/// Passes on what a child says, line by line, and the test counts that its lines report.
fn tee<R>(from: Option<R>, mut to: impl Write + Send + 'static, counted: SyncSender<Counts>)
where
    R: Read + Send + 'static,
{
    let Some(from) = from else { return };
    thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            // A reader that went away must not stop the stage.
            let _ = to.write_all(&line).and_then(|()| to.flush());
            if let Some(counts) = Counts::of_line(&String::from_utf8_lossy(&line))
                && counted.send(counts).is_err()
            {
                return;
            }
            line.clear();
        }
    });
}

fn sum(counts: &Receiver<Counts>) -> Counts {
    let mut sum = Counts::default();
    loop {
        match counts.recv_timeout(OUTPUT_GRACE) {
            Ok(more) => sum += more,
            Err(RecvTimeoutError::Disconnected) => return sum,
            Err(RecvTimeoutError::Timeout) => {
                println!("warning: a process outlived the stage and holds its output open");
                return sum;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(command: &str, budget: Duration) -> Result<Done, Failure> {
        Job { command, xtask: Path::new("false"), budget, length: Length::Ci }.run(Path::new("."))
    }

    #[test]
    fn exit_codes_become_results() -> Result<(), Failure> {
        let long = Duration::from_mins(1);
        assert_eq!(run("true", long)?.ended, Ended::Passed);
        assert_eq!(run("false", long)?.ended, Ended::Failed);
        assert_eq!(run("cargo xtask tidy", long)?.ended, Ended::Failed);
        assert!(run("no-such-command-anywhere", long).is_err());
        Ok(())
    }

    #[test]
    fn a_stage_is_killed_at_twice_its_budget_and_not_before() -> Result<(), Failure> {
        let done = run("sleep 100", Duration::from_millis(100))?;
        assert_eq!(done.ended, Ended::Killed);
        assert!(done.took >= Duration::from_millis(200) && done.took < Duration::from_mins(1));
        Ok(())
    }

    #[test]
    fn reported_tests_are_counted_across_both_outputs() {
        let (counted, counts) = sync_channel(64);
        let out = "noise\ntest result: ok. 3 passed; 1 failed;\nnoise";
        let err = "     Summary [   0.1s] 2 tests run: 2 passed, 0 skipped";
        tee(Some(out.as_bytes()), std::io::sink(), counted.clone());
        tee(Some(err.as_bytes()), std::io::sink(), counted);
        assert_eq!(sum(&counts), Counts { passed: 5, failed: 1 });
    }
}
