//! File descriptors beside the bytes of a message: `SCM_RIGHTS`.

use crate::wire::Welcome;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// Descriptors that come with an accepted welcome: the arena, and the caller's pin board.
pub(super) const FDS: usize = 2;

/// Sends a welcome with its descriptors. All of it fits an empty socket's buffer, so it goes at once.
pub(super) async fn send(
    stream: &UnixStream,
    welcome: &[u8; Welcome::BYTES],
    fds: [BorrowedFd<'_>; FDS],
) -> io::Result<()> {
    let send_now = || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(io::Error::other("no room for descriptors"));
        }
        let bytes = [IoSlice::new(welcome)];
        Ok(rustix::net::sendmsg(stream.as_fd(), &bytes, &mut control, SendFlags::NOSIGNAL)?)
    };
    loop {
        stream.writable().await?;
        match stream.try_io(Interest::WRITABLE, send_now) {
            Ok(Welcome::BYTES) => return Ok(()),
            Ok(_) => return Err(io::ErrorKind::WriteZero.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// Receives a welcome, and the descriptors that come with it if it was accepted.
pub(super) async fn receive(
    stream: &UnixStream,
) -> io::Result<([u8; Welcome::BYTES], Option<[OwnedFd; FDS]>)> {
    let mut welcome = [0; Welcome::BYTES];
    let (mut filled, mut fds) = (0, None);
    while filled < Welcome::BYTES {
        stream.readable().await?;
        match stream.try_io(Interest::READABLE, || receive_now(stream, &mut welcome[filled..])) {
            Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((read, came)) => {
                filled += read;
                fds = fds.or(came);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok((welcome, fds))
}

/// One message, with all descriptors or none; whatever comes is closed if it is not returned.
fn receive_now(
    stream: &UnixStream,
    into: &mut [u8],
) -> io::Result<(usize, Option<[OwnedFd; FDS]>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [IoSliceMut::new(into)];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let message = rustix::net::recvmsg(stream.as_fd(), &mut bytes, &mut control, flags)?;
    let fds = control.drain().filter_map(|part| match part {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    let fds: Vec<OwnedFd> = fds.flatten().collect();
    if message.flags.contains(ReturnFlags::CTRUNC) || !(fds.is_empty() || fds.len() == FDS) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "another number of descriptors"));
    }
    Ok((message.bytes, fds.try_into().ok()))
}
