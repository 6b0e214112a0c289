//! Request bodies with an end: in bytes and in time.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::BoxError;
use axum::body::Body as AxumBody;
use bytes::Bytes;
use http_body_util::{LengthLimitError, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Sleep, sleep};

use super::ServeConfig;
use super::activity::InFlight;
use crate::config::ByteSize;

/// Why a request body could not be read, when the fault is the peer's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyFault {
    /// Larger than `body_bytes_max`: status 413.
    TooLarge,
    /// Not complete within `body_timeout`: status 408.
    TooSlow,
}

impl BodyFault {
    /// Recognises the fault in an error that came from reading a body, however it was wrapped.
    pub fn find(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if error.is::<LengthLimitError>() {
                return Some(Self::TooLarge);
            }
            if error.is::<TooSlow>() {
                return Some(Self::TooSlow);
            }
            cause = error.source();
        }
        None
    }
}

/// The error inside a body that took too long.
#[derive(Debug, thiserror::Error)]
#[error("the request body did not arrive in time")]
struct TooSlow;

/// A request body under the limits of the configuration.
pub(super) struct Bounded {
    body: Limited<Incoming>,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Bounded {
    pub(super) fn new(body: Incoming, config: &ServeConfig) -> Self {
        let bytes_max = config.body_bytes_max.at().map_or(usize::MAX, ByteSize::bytes);
        let timeout = config.body_timeout.at().filter(|_| !body.is_end_stream());
        Self {
            body: Limited::new(body, bytes_max),
            deadline: timeout.map(|timeout| Box::pin(sleep(timeout.0))),
        }
    }
}

impl Body for Bounded {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if frame.is_pending()
            && let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Some(Err(Box::new(TooSlow))));
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A response body that keeps its request in flight until its last byte is handed over.
pub(super) struct Counted {
    body: AxumBody,
    _in_flight: InFlight,
}

impl Counted {
    pub(super) fn new(body: AxumBody, in_flight: InFlight) -> Self {
        Self { body, _in_flight: in_flight }
    }
}

impl Body for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
