//! What the device reports by itself, told to the connections that it concerns.

use super::driver::Breaker;
use super::rdma::{AsyncEvent, DeviceError};
use crate::LinkFault;
use futures_util::{Stream, StreamExt};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::sync::CancellationToken;

/// Events that a connection may be behind.
const EVENTS: usize = 64;

/// Where connections hear what the device says.
#[derive(Clone)]
pub(super) struct Reports {
    events: broadcast::Sender<AsyncEvent>,
    /// Set when it says nothing any more.
    over: CancellationToken,
}

/// What the device has said since this was made, for one connection.
pub(super) struct Hearing {
    events: broadcast::Receiver<AsyncEvent>,
    over: CancellationToken,
}

impl Default for Reports {
    fn default() -> Self {
        Self { events: broadcast::Sender::new(EVENTS), over: CancellationToken::new() }
    }
}

impl Reports {
    /// Tells all connections what the device says, until it says nothing any more: then no
    /// connection may rely on hearing of its end.
    pub(super) async fn listen(
        self,
        events: impl Stream<Item = Result<AsyncEvent, DeviceError>> + Send,
    ) {
        let _over = self.over.clone().drop_guard();
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    tracing::debug!(?event, "the RDMA device says");
                    // Nobody listens while there is no connection.
                    let _ = self.events.send(event);
                }
                Err(error) => {
                    tracing::error!(%error, "events of the RDMA device are not heard any more; its connections end");
                    return;
                }
            }
        }
    }

    /// Whether the device says nothing any more.
    pub(super) fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }

    /// From now on.
    pub(super) fn subscribe(&self) -> Hearing {
        Hearing { events: self.events.subscribe(), over: self.over.clone() }
    }
}

impl Hearing {
    /// Runs a connection, and gives it up when the device says something that concerns it, or
    /// nothing any more.
    pub(super) async fn watch(
        mut self,
        running: impl Future<Output = LinkFault>,
        concerns: impl Fn(AsyncEvent) -> bool,
        breaker: &Breaker,
    ) -> LinkFault {
        let mut running = std::pin::pin!(running);
        let trouble = async {
            loop {
                tokio::select! {
                    () = self.over.cancelled() => return,
                    event = self.events.recv() => match event {
                        Ok(event) if !concerns(event) => {}
                        // Whoever missed events does not know whether its own was among them.
                        Ok(_) | Err(RecvError::Lagged(_) | RecvError::Closed) => return,
                    },
                }
            }
        };
        tokio::select! {
            fault = &mut running => return fault,
            () = trouble => breaker.fail(LinkFault::Device),
        }
        running.await
    }
}
