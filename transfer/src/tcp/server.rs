//! The owner's side: a bounded number of connections, each answering one block after the other.

use crate::guards::{Guard, Guards};
use crate::serve::{Seat, Seats, ServeLimits, judge, resolve};
use crate::wire::{BlockHead, Extent, Fetch, Hello, Welcome};
use crate::{Op, Refused, ServeContext, TransportKind};
use baton_arena::RECORD_BYTES;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Requests that are taken from a socket at once. More wait there.
const REQUESTS: usize = 32;
/// How long to wait when no connection can be accepted, for want of descriptors usually.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A listening data plane. It serves until its context's `shutdown`.
#[derive(Clone, Copy, Debug)]
pub struct Server {
    address: SocketAddr,
}

impl Server {
    /// Starts to serve an arena at an address; port 0 picks one.
    pub async fn bind(
        address: SocketAddr,
        context: ServeContext,
        limits: ServeLimits,
    ) -> io::Result<Self> {
        Self::guarded(address, context, limits, Guards::default()).await
    }

    pub(crate) async fn guarded(
        address: SocketAddr,
        context: ServeContext,
        limits: ServeLimits,
        guards: Guards,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let host = Arc::new(Host { context, limits, guards });
        host.context.tasks.spawn(accept(listener, Arc::clone(&host)));
        Ok(Self { address })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

struct Host {
    context: ServeContext,
    limits: ServeLimits,
    guards: Guards,
}

async fn accept(listener: TcpListener, host: Arc<Host>) {
    let seats = Seats::new(&host.limits);
    loop {
        let accepted = tokio::select! {
            () = host.context.shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        if let Some(seat) = seats.take() {
            host.context.tasks.spawn(connection(stream, Arc::clone(&host), seat));
        }
    }
}

async fn connection(mut stream: TcpStream, host: Arc<Host>, seat: Seat) {
    let outcome = async {
        stream.set_nodelay(true)?;
        timeout(host.limits.hello, greet(&mut stream, &seat, &host)).await??;
        serve(&mut stream, &host).await
    };
    if let Err(error) = outcome.await {
        tracing::debug!(%error, "a tcp peer left");
    }
}

/// Hears the hello and answers it.
async fn greet(stream: &mut TcpStream, seat: &Seat, host: &Host) -> io::Result<()> {
    let mut hello = [0; Hello::BYTES];
    stream.read_exact(&mut hello).await?;
    match judge(&hello, seat, &host.context, host.guards) {
        Ok(welcome) => stream.write_all(&welcome.to_bytes()).await,
        Err(refused) => {
            stream.write_all(&Welcome::Declined(refused).to_bytes()).await?;
            Err(io::Error::new(io::ErrorKind::PermissionDenied, refused))
        }
    }
}

/// Answers requests until the peer leaves, is silent for too long, or this process shuts down.
/// Requests that were read by then are still answered.
async fn serve(stream: &mut TcpStream, host: &Host) -> io::Result<()> {
    let mut buffer = [0; REQUESTS * Fetch::BYTES];
    let mut filled = 0;
    loop {
        let (frames, rest) = buffer[..filled].as_chunks::<{ Fetch::BYTES }>();
        let (whole, partial) = (frames.len() * Fetch::BYTES, rest.len());
        // The record of a block is read after its payload was sent. It goes out together with the
        // next block, or alone behind the last one.
        let mut record = None;
        for frame in frames {
            record = answer(stream, host, frame, record).await?;
        }
        if let Some(record) = record {
            send(stream, host, &[&record]).await?;
        }
        buffer.copy_within(whole..whole + partial, 0);
        filled = partial;
        let read = tokio::select! {
            biased;
            () = host.context.shutdown.cancelled() => return Ok(()),
            read = timeout(host.limits.idle, stream.read(&mut buffer[filled..])) => read??,
        };
        if read == 0 {
            return Ok(());
        }
        filled += read;
    }
}

type Record = [u8; RECORD_BYTES];

/// Sends what is left of the answer before, and the answer to one request up to its record.
async fn answer(
    stream: &TcpStream,
    host: &Host,
    frame: &[u8; Fetch::BYTES],
    before: Option<Record>,
) -> io::Result<Option<Record>> {
    let context = &host.context;
    let before: &[u8] = before.as_ref().map_or(&[], |record| record);
    let Fetch { number, block, span } = Fetch::from_bytes(frame, context.identity.worker)
        .map_err(|garbled| io::Error::new(io::ErrorKind::InvalidData, garbled.0))?;
    let head = |result| BlockHead { number, result }.to_bytes();
    let framing = (before.len() + BlockHead::BYTES) as u64;
    // The pin keeps the block in place until its bytes are with the system.
    let pin = resolve(&block, context, host.guards).and_then(|pin| {
        let fits = !host.guards.on(Guard::Span) || span.fits(pin.len_bytes());
        fits.then_some(pin).ok_or(Refused::Span)
    });
    let pin = match pin {
        Ok(pin) => pin,
        Err(refused) => {
            context.counters.failed(TransportKind::Tcp, Op::Serve, 1);
            send(stream, host, &[before, &head(Err(refused))]).await?;
            return Ok(None);
        }
    };
    let guard = context.arena.read(pin.slot().0);
    let payload = &guard[span.range()];
    let crc = if span.is_whole(&block) { pin.crc() } else { crc32c::crc32c(payload) };
    let extent = Extent { len: span.len, crc };
    let sent = send(stream, host, &[before, &head(Ok(extent)), payload]).await?;
    let record = context.arena.record(pin.slot().0);
    context.counters.moved(TransportKind::Tcp, Op::Serve, u64::from(span.len), sent - framing);
    Ok(Some(record))
}

/// Gathers all of `parts` into the socket, within the time that a peer has for a block.
async fn send<const N: usize>(
    stream: &TcpStream,
    host: &Host,
    parts: &[&[u8]; N],
) -> io::Result<u64> {
    timeout(host.limits.send, send_all(stream, parts)).await?
}

/// The bytes that the system took straight from `parts`.
async fn send_all<const N: usize>(stream: &TcpStream, parts: &[&[u8]; N]) -> io::Result<u64> {
    let mut direct = 0;
    let mut slices = parts.map(IoSlice::new);
    let mut left = &mut slices[..];
    // Skips empty parts at the front, so that an empty list means that all is sent.
    IoSlice::advance_slices(&mut left, 0);
    while !left.is_empty() {
        stream.writable().await?;
        match stream.try_write_vectored(left) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(sent) => {
                direct += sent as u64;
                IoSlice::advance_slices(&mut left, sent);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(direct)
}
