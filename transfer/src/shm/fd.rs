//! A file descriptor beside the bytes of a message: `SCM_RIGHTS`.

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

/// Sends a welcome with a descriptor. Both fit an empty socket's buffer, so they go at once.
pub(super) async fn send(
    stream: &UnixStream,
    welcome: &[u8; Welcome::BYTES],
    fd: BorrowedFd<'_>,
) -> io::Result<()> {
    let send_now = || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [fd];
        if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(io::Error::other("no room for a descriptor"));
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

/// Receives a welcome, and the descriptor that comes with it if it was accepted.
pub(super) async fn receive(
    stream: &UnixStream,
) -> io::Result<([u8; Welcome::BYTES], Option<OwnedFd>)> {
    let mut welcome = [0; Welcome::BYTES];
    let (mut filled, mut fd) = (0, None);
    while filled < Welcome::BYTES {
        stream.readable().await?;
        match stream.try_io(Interest::READABLE, || receive_now(stream, &mut welcome[filled..])) {
            Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((read, came)) => {
                filled += read;
                fd = fd.or(came);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok((welcome, fd))
}

/// One message with at most one descriptor; whatever comes is closed if it is not returned.
fn receive_now(stream: &UnixStream, into: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [IoSliceMut::new(into)];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let message = rustix::net::recvmsg(stream.as_fd(), &mut bytes, &mut control, flags)?;
    let fds = control.drain().filter_map(|part| match part {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    let mut fds: Vec<OwnedFd> = fds.flatten().collect();
    let one = fds.pop();
    // The buffer may have room for two, for alignment.
    if !fds.is_empty() || message.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "more descriptors than one"));
    }
    Ok((message.bytes, one))
}
