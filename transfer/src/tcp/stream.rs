//! A connection, encrypted or not: gathered writes and scattered reads.

use super::tls::TlsIdentity;
use super::tune;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWriteExt, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

/// A reader is woken when so many bytes are there: a good part of what is then read at once.
const WAKE_BYTES: usize = 128 << 10;

/// The first byte of every TLS connection, which no hello begins with; RFC 8446, section 5.1.
const TLS_HANDSHAKE: u8 = 22;

/// A connection.
#[derive(Debug)]
pub(super) enum Stream {
    /// The system reads and writes the memory that it is given.
    Plain(Plain),
    /// Everything passes through buffers, where it is encrypted and decrypted.
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection that is not encrypted.
#[derive(Debug)]
pub(super) struct Plain {
    socket: TcpStream,
    /// How many bytes wake the reader.
    wakes_at: usize,
}

/// Whether more will be written at once, so that the last bytes may wait for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum More {
    Follows,
    No,
}

impl Plain {
    /// Reads what there is. `certain`: so many bytes will come, so that it is of no use to be woken
    /// for a few of them.
    async fn read(&mut self, into: &mut [IoSliceMut<'_>], certain: usize) -> io::Result<usize> {
        loop {
            match self.socket.try_read_vectored(into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
            let wake_at = certain.clamp(1, WAKE_BYTES);
            if self.wakes_at != wake_at && tune::wake_at(&self.socket, wake_at) {
                self.wakes_at = wake_at;
            }
            self.socket.readable().await?;
        }
    }
}

impl Stream {
    /// Whether the system moves bytes from and to memory by itself.
    pub(super) fn is_direct(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    /// Whether nothing was said. A connection that is idle says nothing; one that does, or has
    /// ended, is of no use.
    pub(super) fn is_quiet(&self) -> bool {
        let stream = match self {
            Self::Plain(stream) => &stream.socket,
            Self::Tls(stream) => stream.get_ref().0,
        };
        let waiting = stream.try_read(&mut [0; 1]);
        matches!(waiting, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// A connection to `address`, encrypted if there is an identity.
    pub(super) async fn calling(
        socket: TcpStream,
        address: IpAddr,
        tls: Option<&TlsIdentity>,
    ) -> io::Result<Self> {
        match tls {
            Some(tls) => Ok(Self::Tls(Box::new(tls.connect(address, socket).await?))),
            None => Ok(Self::plain(socket)),
        }
    }

    /// A connection from somebody, encrypted if there is an identity and the caller begins so. One
    /// who does not gets to hear why that is not enough.
    pub(super) async fn called(socket: TcpStream, tls: Option<&TlsIdentity>) -> io::Result<Self> {
        tune::unpace(&socket);
        if let Some(tls) = tls {
            let mut first = [0];
            if socket.peek(&mut first).await? == 1 && first[0] == TLS_HANDSHAKE {
                return Ok(Self::Tls(Box::new(tls.accept(socket).await?)));
            }
        }
        Ok(Self::plain(socket))
    }

    fn plain(socket: TcpStream) -> Self {
        Self::Plain(Plain { socket, wakes_at: 1 })
    }

    /// Reads what there is, at least one byte, into the buffers from the first one on. They must
    /// have room. `certain` bytes will come, or the connection ends.
    pub(super) async fn read(
        &mut self,
        into: &mut [IoSliceMut<'_>],
        certain: usize,
    ) -> io::Result<usize> {
        let read = match self {
            Self::Plain(stream) => stream.read(into, certain).await?,
            Self::Tls(stream) => std::future::poll_fn(|cx| scatter(stream, into, cx)).await?,
        };
        if read == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(read) }
    }

    /// The same, of what is there already; `None` if that is nothing.
    pub(super) fn read_now(&mut self, into: &mut [u8]) -> io::Result<Option<usize>> {
        let read = match self {
            Self::Plain(stream) => stream.socket.try_read(into),
            // What has been decrypted is known to the reader only; it will be asked.
            Self::Tls(_) => return Ok(None),
        };
        match read {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => Ok(Some(read)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads until the buffer is full.
    pub(super) async fn read_exact(&mut self, mut into: &mut [u8]) -> io::Result<()> {
        while !into.is_empty() {
            let certain = into.len();
            let read = self.read(&mut [IoSliceMut::new(into)], certain).await?;
            into = &mut into[read..];
        }
        Ok(())
    }

    /// Writes all of the buffers, in order: bytes of a later one are read from memory only after
    /// all of the earlier ones have been.
    pub(super) async fn write(
        &mut self,
        mut parts: &mut [IoSlice<'_>],
        more: More,
    ) -> io::Result<()> {
        // Skips empty parts at the front, so that an empty list means that all is written.
        IoSlice::advance_slices(&mut parts, 0);
        while !parts.is_empty() {
            let written = match self {
                Self::Plain(stream) => {
                    let socket = &stream.socket;
                    socket.async_io(Interest::WRITABLE, || gather(socket, parts, more)).await?
                }
                Self::Tls(stream) => stream.write_vectored(parts).await?,
            };
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            IoSlice::advance_slices(&mut parts, written);
        }
        match self {
            Self::Tls(stream) if more == More::No => stream.flush().await,
            _ => Ok(()),
        }
    }

    /// The same for a single buffer.
    pub(super) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write(&mut [IoSlice::new(bytes)], More::No).await
    }
}

fn gather(stream: &TcpStream, parts: &[IoSlice<'_>], more: More) -> io::Result<usize> {
    let hint = if more == More::Follows { SendFlags::MORE } else { SendFlags::empty() };
    let mut control = SendAncillaryBuffer::default();
    Ok(sendmsg(stream, parts, &mut control, hint | SendFlags::NOSIGNAL)?)
}

/// Decrypts what there is into one buffer after the other.
fn scatter(
    stream: &mut TlsStream<TcpStream>,
    into: &mut [IoSliceMut<'_>],
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let mut total = 0;
    for slice in into {
        let mut buffer = ReadBuf::new(slice);
        while buffer.remaining() > 0 {
            let before = buffer.filled().len();
            let polled = Pin::new(&mut *stream).poll_read(cx, &mut buffer);
            // What came before an error, or an end, counts; the next read will hear of it again.
            if total + before > 0 && !matches!(polled, Poll::Ready(Ok(()))) {
                return Poll::Ready(Ok(total + before));
            }
            ready!(polled)?;
            if buffer.filled().len() == before {
                return Poll::Ready(Ok(total + before));
            }
        }
        total += buffer.filled().len();
    }
    Poll::Ready(Ok(total))
}
