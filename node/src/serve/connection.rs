//! One connection from its first byte to its last.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::http::{Request, Response, StatusCode};
use axum::response::IntoResponse;
use axum::{BoxError, Router};
use futures_util::FutureExt;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until};
use tower::ServiceExt;

use super::ServeConfig;
use super::activity::{Activity, Limit, Observed};
use super::body::{Bounded, Counted};
use crate::Tasks;
use crate::config::ByteSize;

/// The head of a request, all its headers together.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Headers of a request.
const HEADERS_MAX: usize = 100;
/// Requests at a time on one HTTP/2 connection.
const STREAMS_MAX: u32 = 256;
/// Streams that a peer may open and reset before we have looked at them.
const PENDING_RESETS_MAX: usize = 32;
/// Streams that we may have to reset because a peer broke the protocol.
const ERROR_RESETS_MAX: usize = 128;
/// What a peer may send on one stream, and on all of a connection, before we read it.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// What we keep of one stream's answer while the peer's window is closed.
const SEND_BUFFER: usize = 64 << 10;
/// An HTTP/2 peer that is alive answers a ping within this time; it is asked as often.
const PING: Duration = Duration::from_secs(20);

/// What one connection can make us hold, roughly: a closed window on the way in, as much on the
/// way out, and its heads. Handlers account for their own.
pub(super) const BYTES_MAX: ByteSize =
    ByteSize(2 * CONNECTION_WINDOW as u64 + 4 * HEAD_BYTES_MAX as u64);

/// Serves one connection to its end.
pub(super) async fn serve<S>(
    socket: S,
    peer: SocketAddr,
    router: Router,
    tasks: &Tasks,
    config: &ServeConfig,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let activity = Activity::new();
    let answerer = Answerer {
        peer,
        router,
        tasks: tasks.clone(),
        config: *config,
        activity: Arc::clone(&activity),
    };
    let parts = (Observed::new(socket, &activity), answerer);
    let mut connection = Connection::Undecided(Box::new(parts));
    let mut draining = pin!(tasks.drain().draining().fuse());
    let mut alarm = pin!(sleep_until(Instant::now()));
    let mut leave_by = None;

    let cut = poll_fn(|cx| {
        if draining.as_mut().poll(cx).is_ready() {
            if activity.is_untouched() {
                return Poll::Ready(None);
            }
            connection.graceful_shutdown();
        }
        loop {
            if let Poll::Ready(ended) = connection.poll(cx) {
                if let Err(error) = ended {
                    tracing::debug!(%peer, error, "the connection broke");
                }
                return Poll::Ready(None);
            }
            activity.register(cx);
            let Some((deadline, limit)) = activity.deadline(config) else {
                return Poll::Pending;
            };
            let deadline = leave_by.map_or(deadline, |by| deadline.max(by));
            if alarm.deadline() != deadline {
                alarm.as_mut().reset(deadline);
            }
            if alarm.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if limit != Limit::Idle || leave_by.is_some() {
                return Poll::Ready(Some(limit));
            }
            // An idle peer is told that we leave, and has a moment to agree.
            leave_by = Some(Instant::now() + config.header_timeout.0);
            connection.graceful_shutdown();
        }
    })
    .await;
    if let Some(limit) = cut {
        tracing::debug!(%peer, ?limit, "cut a connection");
    }
}

/// A connection in the protocol that its peer has chosen.
enum Connection<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> {
    /// Nobody knows yet.
    Undecided(Box<(Observed<S>, Answerer)>),
    H1(Pin<Box<H1<S>>>),
    H2(Pin<Box<H2<S>>>),
    Over,
}

type H1<S> = http1::Connection<TokioIo<Observed<S>>, Answerer>;
type H2<S> = http2::Connection<TokioIo<Observed<S>>, Answerer, Streams>;

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Connection<S> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        loop {
            let is_h2 = match self {
                Self::Undecided(parts) => ready!(parts.0.poll_is_h2(cx))?,
                Self::H1(connection) => return connection.as_mut().poll(cx).map_err(Into::into),
                Self::H2(connection) => return connection.as_mut().poll(cx).map_err(Into::into),
                Self::Over => return Poll::Ready(Ok(())),
            };
            let Self::Undecided(parts) = std::mem::replace(self, Self::Over) else {
                continue;
            };
            let (socket, answerer) = *parts;
            let (io, streams) = (TokioIo::new(socket), Streams(answerer.tasks.clone()));
            *self = if is_h2 {
                Self::H2(Box::pin(h2_builder(streams).serve_connection(io, answerer)))
            } else {
                Self::H1(Box::pin(h1_builder().serve_connection(io, answerer)))
            };
        }
    }

    /// Ends it once what has been asked is answered.
    fn graceful_shutdown(&mut self) {
        match self {
            Self::Undecided(..) => *self = Self::Over,
            Self::H1(connection) => connection.as_mut().graceful_shutdown(),
            Self::H2(connection) => connection.as_mut().graceful_shutdown(),
            Self::Over => {}
        }
    }
}

/// The protocol's own limits. Every one is written out: a default may change under us.
fn h1_builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // Kept by `Activity`: hyper's timer would cut idle connections as well.
        .header_read_timeout(None)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .keep_alive(true)
        // To copy an event costs less than to keep account of its parts.
        .writev(false)
        // A client that closes has gone, and its request with it.
        .half_close(false);
    builder
}

/// The same for HTTP/2.
fn h2_builder(streams: Streams) -> http2::Builder<Streams> {
    let mut builder = http2::Builder::new(streams);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(ERROR_RESETS_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    builder
}

/// Answers the requests of one connection.
#[derive(Clone)]
struct Answerer {
    peer: SocketAddr,
    router: Router,
    tasks: Tasks,
    config: ServeConfig,
    activity: Arc<Activity>,
}

impl Service<Request<Incoming>> for Answerer {
    type Response = Response<Counted>;
    type Error = Infallible;
    /// On the heap, so that its memory is free while the body of its answer is streamed.
    type Future = Pin<Box<dyn Future<Output = Result<Response<Counted>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        Box::pin(self.clone().answer(request))
    }
}

impl Answerer {
    /// Answers one request. A panic in a handler costs that request alone.
    async fn answer(self, request: Request<Incoming>) -> Result<Response<Counted>, Infallible> {
        let in_flight = self.activity.request();
        let mut request = request.map(|body| Bounded::new(body, &self.config));
        request.extensions_mut().insert(ConnectInfo(self.peer));
        let answer = AssertUnwindSafe(self.router.oneshot(request)).catch_unwind();
        let response = match answer.await {
            Ok(Ok(response)) => response,
            Ok(Err(never)) => match never {},
            Err(panic) => {
                self.tasks.note_panic("request", panic.as_ref());
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
        };
        Ok(response.map(|body| Counted::new(body, in_flight)))
    }
}

/// Runs the streams of HTTP/2 connections as tracked tasks. Their number is bounded by
/// connections and [`STREAMS_MAX`].
#[derive(Clone)]
struct Streams(Tasks);

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.0.spawn("stream", stream);
    }
}
