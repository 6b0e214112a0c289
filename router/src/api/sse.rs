//! Answers as server-sent events.
//!
//! A task per stream carries what becomes certain into a short queue that the connection reads.
//! It ends the turn when the client is gone, and cuts a client that does not read.

use super::error::{ErrorBody, status};
use super::write::Writer;
use crate::error::TurnError;
use crate::metrics::RequestCount;
use crate::service::Service;
use crate::turn::Turn;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderValue, header};
use serde::Serialize;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

const KEEP_ALIVE: &[u8] = b": keep-alive\n\n";
const DONE: &[u8] = b"data: [DONE]\n\n";

/// The head of a stream, whose body goes on by itself.
pub(super) fn respond(
    service: &Arc<Service>,
    turn: Turn,
    writer: Writer,
    mut count: RequestCount,
) -> Response {
    let (pieces, body) = mpsc::channel(service.config().limits.stream_pieces_max);
    let timeouts = &service.config().timeouts;
    let stream = Stream {
        turn,
        writer,
        pieces,
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
        return TurnError::Overloaded("too many streams are open".to_owned()).into_response();
    }
    let body = Body::from_stream(ReceiverStream::new(body).map(Ok::<Bytes, Infallible>));
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Proxies that buffer would turn a stream into one late piece.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
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
    writer: Writer,
    pieces: mpsc::Sender<Bytes>,
    keep_alive: Duration,
    slow_reader: Duration,
}

impl Stream {
    /// Carries the answer until it is complete, fails, or nobody reads it. What still runs for the
    /// turn is cancelled when this returns.
    async fn carry(mut self) -> Result<(), Cut> {
        let head: Vec<_> = self.writer.head().iter().map(event).collect();
        self.send(head.concat().into()).await?;
        loop {
            let delta = tokio::select! {
                delta = self.turn.next() => delta,
                () = self.pieces.closed() => return Err(Cut::Gone),
                () = tokio::time::sleep(self.keep_alive) => {
                    self.send(Bytes::from_static(KEEP_ALIVE)).await?;
                    continue;
                }
            };
            match delta {
                Some(Ok(delta)) => {
                    let last = self.turn.is_complete().then(|| self.turn.summary());
                    let events = self.writer.events(&delta, last.as_ref());
                    let piece: Vec<_> = events.iter().map(event).collect();
                    if !piece.is_empty() {
                        self.send(piece.concat().into()).await?;
                    }
                }
                Some(Err(error)) => {
                    self.send(event(&ErrorBody::from(&error)).into()).await?;
                    return Err(Cut::Failed(error));
                }
                None => break,
            }
        }
        let usage = self.writer.usage(&self.turn.summary());
        let mut end = usage.map_or_else(Vec::new, |usage| event(&usage));
        end.extend_from_slice(DONE);
        self.send(end.into()).await
    }

    async fn send(&self, piece: Bytes) -> Result<(), Cut> {
        match tokio::time::timeout(self.slow_reader, self.pieces.send(piece)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Cut::Gone),
            Err(_) => Err(Cut::Failed(TurnError::SlowReader)),
        }
    }
}

fn event(data: &impl Serialize) -> Vec<u8> {
    let mut event = b"data: ".to_vec();
    // Values made here always serialise; one that did not would be an empty event.
    let _ = serde_json::to_writer(&mut event, data);
    event.extend_from_slice(b"\n\n");
    event
}
