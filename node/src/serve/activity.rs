//! What a connection is doing, and until when it may go on like that.
//!
//! hyper has a timer for request heads, but it does not cover the bytes by which HTTP/1 and
//! HTTP/2 are told apart, and it also cuts idle connections. So the limits are kept here, from
//! what is seen from outside: bytes that come, bytes that do not leave, requests that begin and
//! end.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::ServeConfig;

/// The bytes with which an HTTP/2 client begins.
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The limit that a connection reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Limit {
    /// It never said anything.
    FirstByte,
    /// It did not finish the head of a request.
    Header,
    /// It had no request for long.
    Idle,
    /// It did not take our bytes.
    Stall,
}

/// Shared between a connection's socket, its requests and its watch.
#[derive(Debug)]
pub(super) struct Activity {
    state: Mutex<State>,
    /// Wakes the watch when a request ends on another task.
    watch: AtomicWaker,
}

#[derive(Debug)]
struct State {
    protocol: Protocol,
    in_flight: u32,
    /// Whether there has been a request.
    used: bool,
    /// Since when there has been no request in flight.
    quiet_since: Instant,
    /// When the first byte came after that.
    byte_at: Option<Instant>,
    /// Since when the socket has taken no bytes.
    blocked_since: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Protocol {
    /// So many bytes of the HTTP/2 preface have come.
    Unknown(usize),
    H1,
    H2,
}

impl Activity {
    /// A connection that was accepted now.
    pub(super) fn new() -> Arc<Self> {
        let state = State {
            protocol: Protocol::Unknown(0),
            in_flight: 0,
            used: false,
            quiet_since: Instant::now(),
            byte_at: None,
            blocked_since: None,
        };
        Arc::new(Self { state: Mutex::new(state), watch: AtomicWaker::new() })
    }

    /// Counts a request until the guard falls.
    pub(super) fn request(self: &Arc<Self>) -> InFlight {
        let mut state = self.lock();
        state.in_flight += 1;
        state.used = true;
        state.byte_at = None;
        drop(state);
        InFlight(Arc::clone(self))
    }

    /// Until when the connection may go on as it does, if there is a limit to that now.
    pub(super) fn deadline(&self, config: &ServeConfig) -> Option<(Instant, Limit)> {
        let state = self.lock();
        let stall = state.blocked_since.map(|since| (since + config.stall_timeout.0, Limit::Stall));
        let quiet = (state.in_flight == 0).then(|| match (state.protocol, state.byte_at) {
            // Between requests HTTP/2 has frames of its own, so their bytes mean nothing.
            (Protocol::H2, _) => (state.quiet_since + config.idle_timeout.0, Limit::Idle),
            (_, Some(at)) => (at + config.header_timeout.0, Limit::Header),
            (_, None) if state.used => (state.quiet_since + config.idle_timeout.0, Limit::Idle),
            (_, None) => (state.quiet_since + config.first_byte_timeout.0, Limit::FirstByte),
        });
        [stall, quiet].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// Whether the peer has not said anything yet.
    pub(super) fn is_untouched(&self) -> bool {
        let state = self.lock();
        !state.used && state.byte_at.is_none()
    }

    /// Has the task that calls this woken when a request ends.
    pub(super) fn register(&self, cx: &Context<'_>) {
        self.watch.register(cx.waker());
    }

    fn protocol(&self) -> Protocol {
        self.lock().protocol
    }

    fn read(&self, bytes: &[u8]) {
        let mut state = self.lock();
        if let Protocol::Unknown(seen) = state.protocol {
            let expected = &H2_PREFACE[seen..];
            let compared = expected.len().min(bytes.len());
            state.protocol = if bytes[..compared] != expected[..compared] {
                Protocol::H1
            } else if compared == expected.len() {
                Protocol::H2
            } else {
                Protocol::Unknown(seen + compared)
            };
        }
        if state.in_flight == 0 && state.byte_at.is_none() {
            state.byte_at = Some(Instant::now());
        }
    }

    fn wrote(&self, done: bool) {
        let mut state = self.lock();
        if done {
            state.blocked_since = None;
        } else {
            state.blocked_since.get_or_insert_with(Instant::now);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that has not been answered to its end.
#[derive(Debug)]
pub(super) struct InFlight(Arc<Activity>);

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.in_flight -= 1;
        if state.in_flight == 0 {
            state.quiet_since = Instant::now();
            state.byte_at = None;
        }
        drop(state);
        self.0.watch.wake();
    }
}

/// A socket whose traffic is noted.
#[derive(Debug)]
pub(super) struct Observed<S> {
    socket: S,
    activity: Arc<Activity>,
    /// What was read to tell the protocols apart, and how much of it.
    begun: [u8; H2_PREFACE.len()],
    begun_bytes: usize,
}

impl<S> Observed<S> {
    pub(super) fn new(socket: S, activity: &Arc<Activity>) -> Self {
        let activity = Arc::clone(activity);
        Self { socket, activity, begun: [0; H2_PREFACE.len()], begun_bytes: 0 }
    }
}

impl<S: AsyncRead + Unpin> Observed<S> {
    /// Reads until it is certain whether the peer speaks HTTP/2. Whoever reads afterwards gets all
    /// that there is, from the first byte on.
    pub(super) fn poll_is_h2(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        loop {
            match self.activity.protocol() {
                Protocol::H1 => return Poll::Ready(Ok(false)),
                Protocol::H2 => return Poll::Ready(Ok(true)),
                Protocol::Unknown(_) => {}
            }
            let mut buf = ReadBuf::new(&mut self.begun[self.begun_bytes..]);
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buf))?;
            let new = buf.filled();
            if new.is_empty() {
                // Whatever it was, it is not that preface.
                return Poll::Ready(Ok(false));
            }
            self.activity.read(new);
            self.begun_bytes += new.len();
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Observed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let begun = this.begun_bytes.min(buf.remaining());
        buf.put_slice(&this.begun[..begun]);
        this.begun.copy_within(begun..this.begun_bytes, 0);
        this.begun_bytes -= begun;
        let before = buf.filled().len();
        let read = Pin::new(&mut this.socket).poll_read(cx, buf);
        let new = &buf.filled()[before..];
        if !new.is_empty() {
            this.activity.read(new);
        }
        // What has begun goes with what follows it: a reader that gets a few bytes first makes room for
        // the rest twice. An error or the end is found again by the next read.
        if begun > 0 { Poll::Ready(Ok(())) } else { read }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Observed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.activity.wrote(written.is_ready());
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, slices);
        self.activity.wrote(written.is_ready());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
