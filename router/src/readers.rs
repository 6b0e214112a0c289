//! Readers who take nothing.
//!
//! A stream is carried by the task of its connection, which does not come back for more while the
//! client takes nothing: nothing that the stream does by itself would notice. So one task looks at
//! all streams now and then, and takes the turn away from those that nobody reads.

use crate::error::TurnError;
use crate::metrics::RequestCount;
use crate::turn::Turn;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How many times within the patience with a reader is looked, and how often at least and at most.
const LOOKS: u32 = 4;
const PERIOD: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// A turn whose answer is streamed.
pub(crate) struct Running {
    pub(crate) turn: Box<Turn>,
    pub(crate) count: RequestCount,
}

/// Where a stream has its turn; a lock that only the watch ever contends for.
pub(crate) struct Lent(Mutex<Loan>);

pub(crate) struct Loan {
    /// `None` once the stream is over, or was cut.
    pub(crate) running: Option<Running>,
    /// When the connection got a piece, or the stream itself, if it has not asked for another since.
    pub(crate) handed: Option<Instant>,
}

impl Lent {
    fn new(running: Running) -> Self {
        Self(Mutex::new(Loan { running: Some(running), handed: Some(Instant::now()) }))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Loan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the turn if its reader has taken nothing since then.
    fn cut(&self, since: Instant, status: fn(&TurnError) -> u16) {
        let mut loan = self.lock();
        if loan.handed.is_none_or(|handed| handed > since) {
            return;
        }
        let running = loan.running.take();
        drop(loan);
        if let Some(mut running) = running {
            running.count.set(status(&TurnError::SlowReader));
        }
    }
}

/// All streams of a router.
#[derive(Default)]
pub(crate) struct Readers {
    streams: Mutex<Streams>,
    closed: CancellationToken,
}

#[derive(Default)]
struct Streams {
    next: u64,
    /// As many as there are requests in the house.
    lent: HashMap<u64, Arc<Lent>>,
}

impl Readers {
    /// Watches over a stream until the result falls.
    pub(crate) fn watch(self: &Arc<Self>, running: Running) -> Watched {
        let lent = Arc::new(Lent::new(running));
        let mut streams = self.lock();
        streams.next += 1;
        let key = streams.next;
        streams.lent.insert(key, lent.clone());
        drop(streams);
        Watched { readers: self.clone(), key, lent }
    }

    /// Cuts streams whose readers take nothing for `patience`, until [`close`](Self::close).
    /// `status` is what an error counts as.
    pub(crate) async fn keep_watch(&self, patience: Duration, status: fn(&TurnError) -> u16) {
        let period = (patience / LOOKS).clamp(PERIOD.0, PERIOD.1);
        let closed = self.closed.cancelled();
        tokio::pin!(closed);
        while tokio::time::timeout(period, &mut closed).await.is_err() {
            let Some(since) = Instant::now().checked_sub(patience) else { continue };
            let lent: Vec<_> = self.lock().lent.values().cloned().collect();
            for stream in lent {
                stream.cut(since, status);
            }
        }
    }

    /// Ends the watch.
    pub(crate) fn close(&self) {
        self.closed.cancel();
    }

    fn lock(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream under watch.
pub(crate) struct Watched {
    readers: Arc<Readers>,
    key: u64,
    lent: Arc<Lent>,
}

impl Watched {
    /// Its turn, while nobody looks.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Loan> {
        self.lent.lock()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.readers.lock().lent.remove(&self.key);
    }
}
