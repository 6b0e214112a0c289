//! Pulls on their way: who holds the leases, and when they come back.
//!
//! A pull belongs to tasks of its own from the start, so whoever asked may lose interest at any
//! moment. The leases lie in [`Work`], outside the futures that write; those are gone, or joined,
//! before `Work::finish` is reached. So a lease that comes back has no writer.

use crate::guards::{Guard, Guards};
use crate::{Local, Peer, Pull, Settled, Span, TransferError};
use baton_kv::lease::WriteLease;
use baton_proto::block::BlockDescriptor;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Blocks on their way.
///
/// Dropping it cancels what has not arrived. The slots go back to their pool by themselves, as
/// soon as nothing can write them.
#[derive(Debug)]
#[must_use = "dropping it cancels the pulls"]
pub struct InFlight {
    parts: VecDeque<oneshot::Receiver<Vec<Settled>>>,
    settled: Vec<Settled>,
    cancel: CancellationToken,
}

impl InFlight {
    /// A handle, and one sender for each of the tasks that share the work.
    pub(crate) fn new(parts: usize, cancel: CancellationToken) -> (Self, Vec<Report>) {
        let (senders, parts) = (0..parts)
            .map(|_| oneshot::channel())
            .map(|(sender, part)| (Report(sender), part))
            .unzip();
        (Self { parts, settled: Vec::new(), cancel }, senders)
    }

    /// The same for a single task.
    pub(crate) fn single(cancel: CancellationToken) -> (Self, Report) {
        let (sender, part) = oneshot::channel();
        (Self { parts: [part].into(), settled: Vec::new(), cancel }, Report(sender))
    }

    /// A handle on what has ended already, for transports that are made of others.
    pub fn ended(settled: Vec<Settled>) -> Self {
        Self { parts: VecDeque::new(), settled, cancel: CancellationToken::new() }
    }

    /// Waits until every block has arrived or failed, in the order in which they were given.
    ///
    /// Blocks are missing from the answer where nobody knows whether their slots are still written:
    /// an RDMA device does not give back what was posted for them, the runtime was shut down under
    /// the pull, or a task of it panicked. Their slots are quarantined. Whoever asked has to count
    /// such a block as one that failed.
    #[must_use = "dropping the outcomes quarantines the slots"]
    pub async fn settle(mut self) -> Vec<Settled> {
        // What has been received stays in `self`, so that it is not lost if this future is dropped.
        while let Some(part) = self.parts.front_mut() {
            if let Ok(settled) = part.await {
                self.settled.extend(settled);
            }
            self.parts.pop_front();
        }
        std::mem::take(&mut self.settled)
    }

    /// Whether all tasks have said what became of their parts.
    #[cfg(test)]
    pub(crate) fn is_reported(&self) -> bool {
        self.parts.iter().all(|part| !part.is_empty() || part.is_terminated())
    }

    /// Asks to stop: what has not arrived fails soon. The leases still come back by
    /// [`settle`](Self::settle).
    pub fn cancel(&self) {
        self.cancel.cancel();
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.cancel.cancel();
        self.settled.drain(..).for_each(Settled::give_back);
        for part in &mut self.parts {
            // After closing, a report either is here already or fails to be sent; see `Report`.
            part.close();
            if let Ok(settled) = part.try_recv() {
                settled.into_iter().for_each(Settled::give_back);
            }
        }
    }
}

/// Where a task says what became of its part.
pub(crate) struct Report(oneshot::Sender<Vec<Settled>>);

impl Report {
    /// Reports; if nobody listens any more, the slots go back to their pool.
    pub(crate) fn send(self, settled: Vec<Settled>) {
        if let Err(unheard) = self.0.send(settled) {
            unheard.into_iter().for_each(Settled::give_back);
        }
    }
}

/// A part of a pull: its leases, and what has become of each so far.
pub(crate) struct Work {
    pieces: Vec<Piece>,
    started: Instant,
    deadline: Instant,
}

struct Piece {
    block: BlockDescriptor,
    span: Span,
    lease: WriteLease,
    result: Option<Result<(), TransferError>>,
}

impl Work {
    /// Takes over the leases. What cannot succeed fails here, before a peer hears of it.
    pub(crate) fn new(
        peer: &Peer,
        pulls: Vec<Pull>,
        deadline: Duration,
        local: &Local,
        guards: Guards,
    ) -> Self {
        let slot_bytes = local.arena.slot_bytes();
        let piece = |Pull { from: block, span, into: lease }| {
            let foreign = block.owner != peer.worker || block.incarnation != peer.incarnation;
            let result = if foreign {
                let (worker, incarnation) = (block.owner, block.incarnation);
                Some(Err(TransferError::Foreign { worker, incarnation }))
            } else if block.len as usize > slot_bytes {
                Some(Err(TransferError::TooLong { len: block.len, slot_bytes }))
            } else if guards.on(Guard::Span) && !span.fits(block.len) {
                let Span { offset, len } = span;
                Some(Err(TransferError::Span { offset, len, block_len: block.len }))
            } else if deadline.is_zero() {
                // A timer may be a millisecond late, and a pull over by then.
                Some(Err(TransferError::Deadline))
            } else {
                None
            };
            Piece { block, span, lease, result }
        };
        let started = Instant::now();
        // A deadline beyond what the clock can count is none; a year is none either.
        let deadline = started + deadline.min(Duration::from_hours(365 * 24));
        Self { pieces: pulls.into_iter().map(piece).collect(), started, deadline }
    }

    /// Splits into at most `parts` runs of about equal length, in order.
    pub(crate) fn split(mut self, parts: usize) -> Vec<Self> {
        let each = self.pieces.len().div_ceil(parts.max(1)).max(1);
        let mut rest = std::mem::take(&mut self.pieces);
        let mut works = Vec::new();
        while !rest.is_empty() {
            let tail = rest.split_off(each.min(rest.len()));
            works.push(Self { pieces: std::mem::replace(&mut rest, tail), ..self });
        }
        works
    }

    /// Bytes that all pieces ask for.
    pub(crate) fn bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| u64::from(piece.span.len)).sum()
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Pieces without a result yet.
    pub(crate) fn open(&self) -> Vec<usize> {
        (0..self.pieces.len()).filter(|&i| self.pieces[i].result.is_none()).collect()
    }

    pub(crate) fn block(&self, piece: usize) -> &BlockDescriptor {
        &self.pieces[piece].block
    }

    /// Which bytes of the block a piece asks for. They lie in the block, and the block in a slot.
    pub(crate) fn span(&self, piece: usize) -> Span {
        self.pieces[piece].span
    }

    /// Whether a piece has no result yet.
    pub(crate) fn is_open(&self, piece: usize) -> bool {
        self.pieces[piece].result.is_none()
    }

    /// The slot that a piece goes to.
    pub(crate) fn slot(&self, piece: usize) -> u32 {
        self.pieces[piece].lease.slot().0
    }

    /// Whether the time that the owner promised is over, by this process's clock.
    pub(crate) fn lease_over(&self, piece: usize) -> bool {
        let remaining = u64::from(self.pieces[piece].block.lease_remaining_ms);
        self.started.elapsed() >= Duration::from_millis(remaining)
    }

    pub(crate) fn set(&mut self, piece: usize, result: Result<(), TransferError>) {
        self.pieces[piece].result = Some(result);
    }

    /// Pieces that have not arrived.
    pub(crate) fn failures(&self) -> u64 {
        self.pieces.iter().filter(|piece| !matches!(piece.result, Some(Ok(())))).count() as u64
    }

    /// Ends the work; what has no result failed with `error`. Nothing may write any more.
    pub(crate) fn finish(self, error: &TransferError) -> Vec<Settled> {
        let settle = |Piece { block, lease, result, .. }| match result
            .unwrap_or_else(|| Err(error.clone()))
        {
            Ok(()) => Settled::Arrived { block, lease },
            Err(error) => Settled::Failed { block, lease, error },
        };
        self.pieces.into_iter().map(settle).collect()
    }
}
