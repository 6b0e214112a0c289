//! What the driver of a connection needs of queue pairs and completion queues.

use super::{Chain, Completion, CompletionQueue, DeviceError, Failed, PostError, QueuePair, Ready};
use std::future::Future;

/// A connected queue pair, as far as it is posted to.
pub(crate) trait Sending: Send + Sized + 'static {
    /// What is left of it after it has failed.
    type Failed: Draining;

    /// See [`QueuePair::number`].
    fn number(&self) -> u32;

    /// See [`QueuePair::post`].
    fn post(&mut self, chain: &mut Chain) -> Result<(), PostError>;

    /// See [`QueuePair::post_receives`].
    fn post_receives(&mut self, count: u32) -> Result<(), PostError>;

    /// See [`QueuePair::fail`].
    fn fail(self) -> Result<Self::Failed, DeviceError>;
}

/// A failed queue pair, whose outstanding work completes as flushed.
pub(crate) trait Draining: Send + 'static {
    /// See [`QueuePair::mark`].
    fn mark(&mut self, id: u64) -> Result<(), PostError>;
}

/// A completion queue.
pub(crate) trait Completing: Send + 'static {
    /// See [`CompletionQueue::poll`].
    fn poll(&mut self, into: &mut [Completion]) -> Result<usize, DeviceError>;

    /// See [`CompletionQueue::arm`].
    fn arm(&mut self) -> Result<(), DeviceError>;

    /// See [`CompletionQueue::readable`].
    fn readable(&mut self) -> impl Future<Output = Result<(), DeviceError>> + Send;
}

impl Sending for QueuePair<Ready> {
    type Failed = QueuePair<Failed>;

    fn number(&self) -> u32 {
        self.number()
    }

    fn post(&mut self, chain: &mut Chain) -> Result<(), PostError> {
        self.post(chain)
    }

    fn post_receives(&mut self, count: u32) -> Result<(), PostError> {
        self.post_receives(count)
    }

    fn fail(self) -> Result<QueuePair<Failed>, DeviceError> {
        self.fail()
    }
}

impl Draining for QueuePair<Failed> {
    fn mark(&mut self, id: u64) -> Result<(), PostError> {
        self.mark(id)
    }
}

impl Completing for CompletionQueue {
    fn poll(&mut self, into: &mut [Completion]) -> Result<usize, DeviceError> {
        self.poll(into)
    }

    fn arm(&mut self) -> Result<(), DeviceError> {
        self.arm()
    }

    fn readable(&mut self) -> impl Future<Output = Result<(), DeviceError>> + Send {
        self.readable()
    }
}
