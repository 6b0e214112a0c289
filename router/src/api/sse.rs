//! Answers as server-sent events.
//!
//! A stream has no task of its own: the connection's task asks for the next piece whenever it can
//! write one, and what has become certain by then is written in one go. So a token wakes one task,
//! and a client that is gone takes the turn with it. Whoever does not read is noticed by
//! [`crate::readers`].

use super::error::status;
use super::writer::AnswerWriter;
use crate::error::TurnError;
use crate::metrics::RequestCount;
use crate::readers::{Running, Watched};
use crate::service::Service;
use crate::turn::{Alarm, Turn};
use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::{HeaderValue, header};
use std::cell::Cell;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Instant;

/// The events of one token, some times over; more than that is handed over by itself.
const SMALL_BYTES: usize = 1024;
/// Small pieces are cut out of so much at a time. A piece that HTTP/2 holds back for a slow reader holds
/// all of it, so it is not much.
const BUFFER_BYTES: usize = 2 << 10;
/// With so much of it a piece goes out, whatever else is certain.
const PIECE_BYTES: usize = 16 << 10;

thread_local! {
    /// Where pieces are written. All streams of a thread share it: what a stream had for itself would have
    /// left the caches by its next token.
    static DESK: Cell<Desk> = Cell::default();
}

#[derive(Default)]
struct Desk {
    /// What is being written.
    out: Vec<u8>,
    /// Where small pieces are cut out of. Its memory is used again once connections have written what
    /// was in it.
    buffer: BytesMut,
}

impl Desk {
    /// What was written, to be handed over.
    fn piece(&mut self) -> Bytes {
        if self.out.len() > SMALL_BYTES {
            // By itself: what is kept stays small.
            return std::mem::take(&mut self.out).into();
        }
        if self.buffer.capacity() < self.out.len() {
            self.buffer.reserve(BUFFER_BYTES);
        }
        self.buffer.extend_from_slice(&self.out);
        self.out.clear();
        self.buffer.split().freeze()
    }
}

/// The head of a stream, whose body goes on by itself.
pub(super) fn respond(
    service: &Arc<Service>,
    turn: Box<Turn>,
    mut writer: Box<dyn AnswerWriter>,
    count: RequestCount,
) -> Response {
    let mut head = Vec::new();
    writer.head(&mut head);
    let (now, limit) = (Instant::now(), service.config().timeouts.keep_alive.0);
    let mut events = Events {
        running: service.readers().watch(Running { turn, count }),
        writer,
        head: head.into(),
        silence: Silence { since: now, limit, alarm: Alarm::at(now + limit) },
        over: false,
    };
    let pieces = stream::poll_fn(move |cx| {
        events.poll_next(cx).map(|piece| piece.map(Ok::<Bytes, Infallible>))
    });
    let mut response = Response::new(Body::from_stream(pieces));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Proxies that buffer would turn a stream into one late piece.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// The body of a stream. What still runs for its turn is cancelled when it falls.
struct Events {
    running: Watched,
    writer: Box<dyn AnswerWriter>,
    /// The first events, until they are handed over.
    head: Bytes,
    silence: Silence,
    over: bool,
}

/// For how long nothing has been said.
struct Silence {
    /// When something was handed over last.
    since: Instant,
    /// How long it may last.
    limit: Duration,
    alarm: Alarm,
}

impl Silence {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.alarm.poll(cx));
            let end = self.since + self.limit;
            if end <= Instant::now() {
                return Poll::Ready(());
            }
            // Set anew only when it has gone off: to do so for each piece would cost more than the piece.
            self.alarm.reset(end);
        }
    }
}

impl Events {
    /// The next events, as many as there are; `None` after the last.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if !self.head.is_empty() {
            return Poll::Ready(Some(std::mem::take(&mut self.head)));
        }
        if self.over {
            return Poll::Ready(None);
        }
        let mut desk = DESK.take();
        let written = self.write(cx, &mut desk.out).map(|()| Some(desk.piece()));
        DESK.set(desk);
        written
    }

    /// Waits for something to say, and writes it.
    fn write(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<()> {
        let writer = &mut *self.writer;
        let mut loan = self.running.lock();
        loan.handed = None;
        let ended = match &mut loan.running {
            Some(running) => write(&mut running.turn, writer, out, cx),
            None => Some(failed(&TurnError::SlowReader, writer, out)),
        };
        if let Some(code) = ended {
            self.over = true;
            let running = loan.running.take();
            drop(loan);
            if let Some(mut running) = running {
                running.count.set(code);
            }
            return Poll::Ready(());
        }
        // A piece may say nothing yet; what is not sent keeps no connection alive.
        if out.is_empty() {
            ready!(self.silence.poll(cx));
            out.extend_from_slice(writer.keep_alive());
        }
        self.silence.since = Instant::now();
        loan.handed = Some(self.silence.since);
        Poll::Ready(())
    }
}

/// Writes what is certain by now; the status of a turn that has ended.
fn write(
    turn: &mut Turn,
    writer: &mut dyn AnswerWriter,
    out: &mut Vec<u8>,
    cx: &mut Context<'_>,
) -> Option<u16> {
    while out.len() < PIECE_BYTES {
        match turn.poll_next(cx) {
            Poll::Pending => return None,
            Poll::Ready(Some(Ok(delta))) => {
                writer.piece(&delta, &|| turn.summary(), turn.is_complete(), out);
                delta.reuse();
            }
            Poll::Ready(Some(Err(error))) => return Some(failed(&error, writer, out)),
            Poll::Ready(None) => {
                writer.end(&turn.summary(), out);
                return Some(200);
            }
        }
    }
    None
}

/// Writes that a stream ends early; its status.
fn failed(error: &TurnError, writer: &mut dyn AnswerWriter, out: &mut Vec<u8>) -> u16 {
    writer.fail(error, out);
    status(error)
}
