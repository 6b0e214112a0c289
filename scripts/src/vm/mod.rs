//! `cargo xtask vm`: a command in a small virtual machine that has an RDMA device, with this
//! machine's files as its root.

mod arguments;
mod guest;
mod image;
mod initrd;
mod machine;
mod report;

pub(crate) use arguments::{Arguments, USAGE};

use crate::failure::Stop;
use guest::{Guest, Scratch};
use image::Image;
use machine::Machine;
use report::Outcome;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// The exit status for a run that took longer than it may, as of `timeout`.
const TIMED_OUT: u8 = 124;
/// The exit status for a guest that did not boot, or that ended without being told to.
const NO_GUEST: u8 = 125;
/// A guest that has said how its command ended needs a moment to power off.
const OFF_MAX: Duration = Duration::from_secs(10);
/// How often to look whether a process has ended that can no longer say so.
const LOOK: Duration = Duration::from_millis(50);

/// What the machines and the terminal tell.
enum Event {
    /// The guest has its RDMA device.
    Ready(usize),
    /// The guest's command has ended with that status.
    Exited(usize, u8),
    /// This process was asked to end.
    Signal(i32),
}

/// Sees to it that guests can be booted: installs and builds what is missing.
pub(crate) fn prepare() -> Result<(), Stop> {
    Image::get().map(drop)
}

/// Boots one guest or two, runs their commands, and gives the exit status that stands for both.
#[expect(clippy::disallowed_methods, reason = "a real machine lives in real time")]
pub(crate) fn run(arguments: &Arguments) -> Result<u8, Stop> {
    let image = Image::get()?;
    let scratch = Scratch::new()?;
    let (tell, told) = sync_channel(16);
    watch_signals(tell.clone())?;
    let started = Instant::now();
    let mut guests = Vec::new();
    for node in 0..arguments.commands.len() {
        let machine = Machine::new(arguments, &image, scratch.path(), node);
        guests.push(Guest::start(&machine, arguments, tell.clone())?);
    }
    loop {
        let mut event = told.recv_timeout(LOOK).ok();
        while let Some(next) = event {
            match next {
                Event::Ready(node) => {
                    guests[node].ready();
                    if guests.iter().all(Guest::is_ready) {
                        guests.iter().for_each(Guest::go);
                    }
                }
                Event::Exited(node, status) => guests[node].exited(status, Instant::now()),
                Event::Signal(number) => return Ok(128 + u8::try_from(number).unwrap_or(0)),
            }
            event = told.try_recv().ok();
        }
        let now = Instant::now();
        for guest in &mut guests {
            guest.look(now, started, arguments)?;
        }
        if guests.iter().all(Guest::is_over) {
            break;
        }
    }
    let outcomes = guests.into_iter().map(Guest::finish);
    Ok(outcomes.map(|outcome| outcome.status(arguments)).max().unwrap_or(NO_GUEST))
}

/// The guests are in the terminal's process group and hear of Ctrl-C by themselves; this is so that
/// nothing is left behind in the file system, and for `kill`.
fn watch_signals(tell: SyncSender<Event>) -> Result<(), Stop> {
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
    thread::spawn(move || {
        for signal in signals.forever() {
            if tell.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    });
    Ok(())
}

impl Outcome {
    /// The exit status for this guest, after saying what went wrong.
    fn status(self, arguments: &Arguments) -> u8 {
        match self {
            Self::Exited(status) => status,
            Self::Died { node, .. } if arguments.may_die == Some(node) => {
                eprintln!("vm: guest {node} died, as it may");
                0
            }
            wrong => {
                eprintln!("vm: {wrong}");
                if matches!(wrong, Self::TimedOut { .. }) { TIMED_OUT } else { NO_GUEST }
            }
        }
    }
}

/// The path of this process's own folder, whose name ends in its id. Nothing is there: what
/// processes have left that were killed is removed, an earlier one of the same id included.
fn own_folder(parent: &Path, prefix: &str) -> std::path::PathBuf {
    let own = std::process::id();
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(prefix));
        let Some(pid) = pid.and_then(|pid| pid.parse::<u32>().ok()) else { continue };
        if pid == own || !Path::new(&format!("/proc/{pid}")).exists() {
            // Somebody else's, or already removed.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    parent.join(format!("{prefix}{own}"))
}

/// The folder in which built images are kept.
fn cache() -> std::path::PathBuf {
    let named = std::env::var_os("BATON_VM_CACHE").map(std::path::PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let shared = || std::env::var_os("XDG_CACHE_HOME").map(std::path::PathBuf::from);
    let under = || shared().or_else(home).unwrap_or_else(std::env::temp_dir).join("baton-vm");
    named.unwrap_or_else(under)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{create_dir, create_dir_all};

    #[test]
    fn folders_of_dead_processes_and_of_the_own_id_are_removed() -> std::io::Result<()> {
        let parent = tempfile::tempdir()?;
        let at = |name: &str| parent.path().join(name);
        let own = std::process::id();
        // No process has the largest number; every system has the first.
        for name in ["x.4294967295", "x.1", "x.notes", "y.4294967295", &format!("x.{own}")] {
            create_dir_all(at(name).join("inner"))?;
        }
        let folder = own_folder(parent.path(), "x.");
        assert_eq!(folder, at(&format!("x.{own}")));
        create_dir(folder)?;
        assert!(!at("x.4294967295").exists());
        for kept in ["x.1", "x.notes", "y.4294967295"] {
            assert!(at(kept).exists(), "{kept}");
        }
        Ok(())
    }
}
