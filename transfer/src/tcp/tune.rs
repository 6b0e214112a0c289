//! Socket options that matter for speed. None is needed, so that a system without one works too.
#![allow(unsafe_code)]

use std::os::fd::AsRawFd;
use tokio::net::TcpStream;

/// Sets how many bytes have to be there before a reader is woken: fewer wake-ups for the same
/// bytes. Only bytes that are certain to come may be waited for; the end of the connection wakes a
/// reader all the same.
pub(super) fn wake_at(stream: &TcpStream, bytes: usize) -> bool {
    let value = i32::try_from(bytes).unwrap_or(i32::MAX).max(1);
    let size = size_of_val(&value) as libc::socklen_t;
    let (level, option) = (libc::SOL_SOCKET, libc::SO_RCVLOWAT);
    // SAFETY: the descriptor is open while `stream` is borrowed; the option takes an int, and the
    // system only reads it.
    let done = unsafe {
        libc::setsockopt(stream.as_raw_fd(), level, option, (&raw const value).cast(), size)
    };
    done == 0
}

/// Chooses how a sender is slowed down. On a link inside this host nothing can be congested, and an
/// algorithm that paces by timers (BBR) costs a quarter of the time of both processors; for all
/// other links the system's choice stands.
pub(super) fn unpace(stream: &TcpStream) {
    if stream.peer_addr().is_ok_and(|peer| peer.ip().to_canonical().is_loopback()) {
        // Built into every kernel and free for everybody.
        let _ = rustix::net::sockopt::set_tcp_congestion(stream, "reno");
    }
}
