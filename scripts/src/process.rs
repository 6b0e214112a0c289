//! Child processes that end in time, together with everything they started. They stay in the
//! terminal's own process group, so that Ctrl-C reaches all of them; what has to be killed is found
//! in /proc.

use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

/// Of a child's output so much is read, from the beginning.
const OUTPUT_BYTES_MAX: u64 = 4 << 20;

/// What a child process came to.
pub(crate) struct Ended {
    /// None if it had to be killed.
    pub(crate) status: Option<ExitStatus>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn success(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }
}

/// Runs a command to its end, or until it is killed with its descendants after `max`. Its output
/// goes through files in `folder`: a pipe that a descendant holds open would have to be waited for.
pub(crate) fn output(command: &mut Command, folder: &Path, max: Duration) -> io::Result<Ended> {
    let (out, err) = (folder.join("stdout.txt"), folder.join("stderr.txt"));
    command.stdin(Stdio::null()).stdout(File::create(&out)?).stderr(File::create(&err)?);
    let mut running = Running::new(command.spawn()?);
    let status = running.wait(max)?;
    drop(running);
    Ok(Ended { status, stdout: text(&out)?, stderr: text(&err)? })
}

fn text(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A child process. Dropping it while it runs kills it with all its descendants.
pub(crate) struct Running {
    pid: u32,
    ended: Receiver<io::Result<ExitStatus>>,
    over: bool,
}

impl Running {
    pub(crate) fn new(mut child: Child) -> Self {
        let (end, ended) = sync_channel(1);
        let pid = child.id();
        thread::spawn(move || end.send(child.wait()));
        Self { pid, ended, over: false }
    }

    /// How the child ended, or nothing if it runs on after that time.
    pub(crate) fn wait(&mut self, max: Duration) -> io::Result<Option<ExitStatus>> {
        let Ok(status) = self.ended.recv_timeout(max) else { return Ok(None) };
        self.over = true;
        status.map(Some)
    }

    /// Asks the child to end, as a service manager does.
    pub(crate) fn terminate(&self) {
        send(self.pid, Signal::TERM);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.over {
            kill_all(self.pid);
            // The thread that waits for it always answers.
            let _ = self.ended.recv();
        }
    }
}

fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // One that has ended by itself is what we want.
        let _ = kill_process(pid, signal);
    }
}

/// Kills a process and all its descendants.
fn kill_all(pid: u32) {
    let mut doomed = vec![pid];
    let parents = parents();
    let mut at = 0;
    while at < doomed.len() {
        let parent_at = doomed[at];
        let children = parents.iter().filter(|(_, parent)| *parent == parent_at);
        doomed.extend(children.map(|(child, _)| *child));
        at += 1;
    }
    for pid in doomed {
        send(pid, Signal::KILL);
    }
}

/// Every process with its parent.
fn parents() -> Vec<(u32, u32)> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| {
            let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            Some((pid, parent_of(&stat)?))
        })
        .collect()
}

/// The fourth field; the second is a name in parentheses that may hold anything.
fn parent_of(stat: &str) -> Option<u32> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};

    #[test]
    fn a_name_with_parentheses_does_not_confuse() {
        assert_eq!(parent_of("12 (a) b ) S 7 12 12"), Some(7));
        assert_eq!(parent_of("garbage"), None);
    }

    #[test]
    fn output_comes_with_how_it_ended() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let max = Duration::from_mins(1);
        let script = "echo said; echo wrong >&2; exit 3";
        let ended = output(Command::new("sh").args(["-c", script]), folder.path(), max)?;
        assert_eq!(ended.status.and_then(|status| status.code()), Some(3));
        assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("said\n", "wrong\n"));
        let late = output(Command::new("sleep").arg("100"), folder.path(), Duration::ZERO)?;
        assert!(late.status.is_none() && !late.success());
        Ok(())
    }

    #[test]
    fn grandchildren_die_too() -> Result<(), Box<dyn std::error::Error>> {
        let script = "sleep 100 & echo $!; wait";
        let mut child = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn()?;
        let mut out = BufReader::new(child.stdout.take().ok_or("no stdout")?);
        let mut line = String::new();
        out.read_line(&mut line)?;
        let grandchild: u32 = line.trim().parse()?;
        assert!(parents().contains(&(grandchild, child.id())));
        drop(Running::new(child));
        // The pipe ends only when the grandchild, which holds it too, is gone.
        line.clear();
        assert_eq!(out.read_line(&mut line)?, 0);
        Ok(())
    }
}
