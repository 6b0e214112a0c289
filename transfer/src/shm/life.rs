//! Whether the process at the other end of a socket lives: a pidfd.
//!
//! The end of a connection is not the end of a process. One that has closed its socket, or lost it,
//! may still be reading what it has mapped.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};
use std::io;
use std::os::fd::OwnedFd;
use tokio::net::UnixStream;

/// A process, until it ends. Its number may be given to another one then; this is not misled.
#[derive(Debug)]
pub(super) struct Life(OwnedFd);

/// The process that connected. Ask while it is known to be there. `None` where the system does not
/// tell: an old kernel, or a process that this one cannot see. An error where it would tell at
/// another time, for want of descriptors or memory usually.
pub(super) fn of_peer(stream: &UnixStream) -> io::Result<Option<Life>> {
    // 0 stands for a process of another namespace.
    let Some(pid) = stream.peer_cred()?.pid().and_then(Pid::from_raw) else { return Ok(None) };
    told(rustix::process::pidfd_open(pid, PidfdFlags::empty()))
}

/// What the answer of `pidfd_open` means.
fn told(answer: Result<OwnedFd, Errno>) -> io::Result<Option<Life>> {
    match answer {
        Ok(fd) => Ok(Some(Life(fd))),
        Err(Errno::NOSYS | Errno::SRCH) => Ok(None),
        Err(error) => Err(error.into()),
    }
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

    /// A reader without a life is taken for dead when its connection ends, so a moment's want must
    /// not take its life.
    #[test]
    fn only_a_system_that_cannot_tell_says_nothing() {
        for error in [Errno::NOSYS, Errno::SRCH] {
            assert!(told(Err(error)).unwrap().is_none());
        }
        for error in [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::INVAL, Errno::NODEV] {
            assert_eq!(told(Err(error)).unwrap_err().raw_os_error(), Some(error.raw_os_error()));
        }
    }

    #[tokio::test]
    async fn the_caller_is_who_connected() {
        let (one, _other) = UnixStream::pair().unwrap();
        assert!(!of_peer(&one).unwrap().unwrap().has_ended());
    }

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
