//! Answers as server-sent events.
//!
//! A task per stream carries what becomes certain into a short queue that the connection reads.
//! It ends the turn when the client is gone, and cuts a client that does not read.

use super::error::status;
use super::writer::AnswerWriter;
use crate::error::TurnError;
use crate::metrics::RequestCount;
use crate::service::Service;
use crate::turn::Turn;
use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use http::{HeaderValue, header};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

/// A few events of one token.
const BUFFER_BYTES: usize = 2048;

/// The head of a stream, whose body goes on by itself.
pub(super) fn respond(
    service: &Arc<Service>,
    turn: Turn,
    writer: Box<dyn AnswerWriter>,
    mut count: RequestCount,
) -> Result<Response, TurnError> {
    let (pieces, body) = mpsc::channel(service.config().limits.stream_pieces_max);
    let timeouts = &service.config().timeouts;
    let stream = Stream {
        turn,
        writer,
        pieces,
        buffer: BytesMut::with_capacity(BUFFER_BYTES),
        keep_alive: timeouts.keep_alive.0,
        slow_reader: timeouts.slow_reader.0,
    };
    let carry = async move {
        let code = match stream.carry().await {
            Ok(()) => 200,
            Err(Cut::Failed(error)) => status(&error),
            // What the count assumes unless it is told otherwise.
            Err(Cut::Gone) => return,
        };
        count.set(code);
    };
    if service.tasks().try_spawn("stream", carry).is_err() {
        return Err(TurnError::Overloaded("too many streams are open".to_owned()));
    }
    let body = Body::from_stream(ReceiverStream::new(body).map(Ok::<Bytes, Infallible>));
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Proxies that buffer would turn a stream into one late piece.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// Why a stream did not come to its end.
enum Cut {
    /// The client is gone.
    Gone,
    /// The turn failed, or the client did not read.
    Failed(TurnError),
}

struct Stream {
    turn: Turn,
    writer: Box<dyn AnswerWriter>,
    pieces: mpsc::Sender<Bytes>,
    buffer: BytesMut,
    keep_alive: Duration,
    slow_reader: Duration,
}

impl Stream {
    /// Carries the answer until it is complete, fails, or nobody reads it. What still runs for the
    /// turn is cancelled when this returns.
    async fn carry(mut self) -> Result<(), Cut> {
        let mut out = Vec::new();
        self.writer.head(&mut out);
        if !out.is_empty() {
            // By itself: it may be as large as the request, and the buffer keeps its size.
            self.send(std::mem::take(&mut out).into()).await?;
        }
        // Set anew only when it has gone off: a timer for each piece would cost more than the piece.
        let mut silence = Box::pin(tokio::time::sleep(self.keep_alive));
        let mut said = Instant::now();
        loop {
            let delta = tokio::select! {
                delta = self.turn.next() => delta,
                () = self.pieces.closed() => return Err(Cut::Gone),
                () = &mut silence => {
                    if said + self.keep_alive <= Instant::now() {
                        self.send(Bytes::from_static(self.writer.keep_alive())).await?;
                        said = Instant::now();
                    }
                    silence.as_mut().reset(said + self.keep_alive);
                    continue;
                }
            };
            match delta {
                Some(Ok(delta)) => {
                    let (summary, last) = (self.turn.summary(), self.turn.is_complete());
                    self.writer.piece(&delta, &summary, last, &mut out);
                    self.turn.reuse(delta);
                    // A piece may say nothing yet; what is not sent keeps no connection alive.
                    if !out.is_empty() {
                        said = Instant::now();
                        self.flush(&mut out).await?;
                    }
                }
                Some(Err(error)) => {
                    self.writer.fail(&error, &mut out);
                    self.flush(&mut out).await?;
                    return Err(Cut::Failed(error));
                }
                None => break,
            }
        }
        self.writer.end(&self.turn.summary(), &mut out);
        self.flush(&mut out).await
    }

    /// Sends what was written, if anything was. Pieces are cut out of one buffer, whose memory is
    /// used again once the connection has written what was in it.
    async fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), Cut> {
        if out.is_empty() {
            return Ok(());
        }
        self.buffer.extend_from_slice(out);
        out.clear();
        let piece = self.buffer.split().freeze();
        self.send(piece).await
    }

    async fn send(&mut self, piece: Bytes) -> Result<(), Cut> {
        let piece = match self.pieces.try_send(piece) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Closed(_)) => return Err(Cut::Gone),
            Err(TrySendError::Full(piece)) => piece,
        };
        match tokio::time::timeout(self.slow_reader, self.pieces.send(piece)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Cut::Gone),
            Err(_) => Err(Cut::Failed(TurnError::SlowReader)),
        }
    }
}
