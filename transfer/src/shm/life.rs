//! Whether the process at the other end of a socket lives: a pidfd.
//!
//! The end of a connection is not the end of a process. One that has closed its socket, or lost it,
//! may still be reading what it has mapped.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags};
use std::os::fd::OwnedFd;
use tokio::net::UnixStream;

/// A process, until it ends. Its number may be given to another one then; this is not misled.
#[derive(Debug)]
pub(super) struct Life(OwnedFd);

/// The process that connected. Ask while it is known to be there. `None` where the system does not
/// tell: an old kernel, or a process that this one cannot see.
pub(super) fn of_peer(stream: &UnixStream) -> Option<Life> {
    let pid = Pid::from_raw(stream.peer_cred().ok()?.pid()?)?;
    rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok().map(Life)
}

impl Life {
    /// Whether the process has ended, and its memory is gone. Does not wait.
    pub(super) fn has_ended(&self) -> bool {
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        matches!(poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(1..))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_process_lives_until_it_ends() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pid = Pid::from_child(&child);
        let life = Life(rustix::process::pidfd_open(pid, PidfdFlags::empty()).unwrap());
        assert!(!life.has_ended());
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(life.has_ended());
    }
}
