//! A pull as its connections share it: what is still to be asked for, and what became of the rest.

use crate::caller::lock;
use crate::flight::Work;
use crate::guards::{Guard, Guards};
use crate::verify::check_sums;
use crate::wire::BATCH_REQUESTS;
use crate::{Counters, Op, Settled, Span, TransferError, TransportKind};
use baton_arena::{Arena, RECORD_BYTES, WritePart};
use baton_proto::block::BlockDescriptor;
use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use tokio::sync::Notify;

/// What one request asks for, and where it goes.
#[derive(Debug)]
pub(super) struct Unit {
    piece: usize,
    /// Which part of its piece it is, if the piece was cut.
    cut: Option<usize>,
    pub(super) block: BlockDescriptor,
    pub(super) span: Span,
    pub(super) into: WritePart,
}

/// What came for a unit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrived {
    /// The checksum that the owner said, if it was asked to.
    pub(super) said: u32,
    /// The checksum of what came.
    pub(super) found: u32,
    pub(super) record: [u8; RECORD_BYTES],
    /// Bytes that the system wrote to the arena itself.
    pub(super) direct: u64,
}

/// A pull. The leases lie in it, and the units that write to their slots.
pub(super) struct Job {
    state: Mutex<State>,
    /// Wakes who waits for a connection when nothing is left to ask for.
    asked: Notify,
    counters: Counters,
    guards: Guards,
}

struct State {
    work: Work,
    queue: VecDeque<Unit>,
    cuts: HashMap<usize, Cut>,
}

/// What is known of a piece that was cut: it travels over several connections.
struct Cut {
    span: Span,
    sums: Vec<Option<(u32, u32)>>,
    direct: u64,
    failed: bool,
}

impl Unit {
    /// The owner has to say a checksum only of a part that is all that is wanted of its block.
    pub(super) fn summed(&self) -> bool {
        self.cut.is_none()
    }

    pub(super) fn bytes(&self) -> usize {
        self.into.len()
    }
}

impl Job {
    /// Takes the slots for writing, and cuts what is longer than `each`.
    pub(super) fn new(
        work: Work,
        arena: &Arena,
        each: usize,
        counters: Counters,
        guards: Guards,
    ) -> Self {
        let (mut queue, mut cuts) = (VecDeque::new(), HashMap::new());
        for piece in work.open() {
            let (block, span) = (*work.block(piece), work.span(piece));
            // Parts of a part would each need a checksum of their own: it travels as one.
            let whole = span.is_whole(&block);
            let each = if whole { each.max(1) } else { usize::MAX };
            let parts = span.range().len().div_ceil(each);
            if parts > 1 {
                let sums = vec![None; parts];
                cuts.insert(piece, Cut { span, sums, direct: 0, failed: false });
            }
            let mut offset = span.offset;
            for (i, into) in arena.write(work.slot(piece)).cut(span.range(), each).enumerate() {
                let part = Span { offset, len: into.len() as u32 };
                offset += part.len;
                let cut = (parts > 1).then_some(i);
                queue.push_back(Unit { piece, cut, block, span: part, into });
            }
        }
        let state = Mutex::new(State { work, queue, cuts });
        Self { state, asked: Notify::new(), counters, guards }
    }

    /// Whether everything has been asked for.
    pub(super) fn is_asked(&self) -> bool {
        lock(&self.state).queue.is_empty()
    }

    /// Waits until everything has been asked for. What is put back later is asked for by whoever
    /// puts it back.
    pub(super) async fn all_asked(&self) {
        loop {
            let mut notified = std::pin::pin!(self.asked.notified());
            // From here on no wake-up is missed.
            notified.as_mut().enable();
            if self.is_asked() {
                return;
            }
            notified.await;
        }
    }

    /// Takes up to `bytes` to be asked for, but one unit at least if any is left.
    pub(super) fn take(&self, bytes: usize) -> Vec<Unit> {
        let mut state = lock(&self.state);
        let (mut units, mut taken) = (Vec::new(), 0);
        while units.len() < BATCH_REQUESTS
            && let Some(unit) =
                state.queue.pop_front_if(|unit| taken == 0 || taken + unit.bytes() <= bytes)
        {
            if state.cuts.get(&unit.piece).is_some_and(|cut| cut.failed) {
                continue;
            }
            if self.guards.on(Guard::Lease) && state.work.lease_over(unit.piece) {
                state.fail(unit.piece, TransferError::LeaseExpired);
                continue;
            }
            taken += unit.bytes();
            units.push(unit);
        }
        if state.queue.is_empty() {
            self.asked.notify_waiters();
        }
        units
    }

    /// Takes back what an owner that has left was asked for in vain.
    pub(super) fn put_back(&self, units: impl DoubleEndedIterator<Item = Unit>) {
        let mut state = lock(&self.state);
        units.rev().for_each(|unit| state.queue.push_front(unit));
    }

    /// Notes what became of a unit; nothing writes to its part of the slot any more.
    pub(super) fn done(&self, unit: Unit, result: Result<Arrived, TransferError>) {
        let Unit { piece, cut, block, span, into } = unit;
        drop(into);
        let mut state = lock(&self.state);
        let moved = result.and_then(|arrived| match cut {
            None => self.whole(&block, span, &arrived).map(Some),
            Some(part) => state.part(piece, part, &block, span.len, &arrived, self.guards),
        });
        match moved {
            Ok(Some((bytes, direct))) => {
                self.counters.moved(TransportKind::Tcp, Op::Pull, bytes, direct);
                state.work.set(piece, Ok(()));
            }
            Ok(None) => {}
            Err(error) => state.fail(piece, error),
        }
    }

    fn whole(
        &self,
        block: &BlockDescriptor,
        span: Span,
        arrived: &Arrived,
    ) -> Result<(u64, u64), TransferError> {
        // Of a whole block the descriptor knows better than whoever answers.
        let expected = if span.is_whole(block) { block.crc } else { arrived.said };
        check_sums(block, (expected, arrived.found), &arrived.record, self.guards)?;
        Ok((u64::from(span.len), arrived.direct))
    }

    /// Ends the pull: what has no result failed with `error`. Nobody else has the job any more, so
    /// that nothing writes.
    pub(super) fn finish(self, error: &TransferError) -> Vec<Settled> {
        let State { work, queue, .. } =
            self.state.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        drop(queue);
        self.counters.failed(TransportKind::Tcp, Op::Pull, work.failures());
        work.finish(error)
    }
}

impl State {
    /// The first error of a piece is its result; its other parts are of no use then.
    fn fail(&mut self, piece: usize, error: TransferError) {
        match self.cuts.get_mut(&piece) {
            Some(cut) if cut.failed => return,
            Some(cut) => cut.failed = true,
            None => {}
        }
        self.work.set(piece, Err(error));
    }

    /// Notes a part; with the last one of a block, its bytes and how many of them came directly.
    fn part(
        &mut self,
        piece: usize,
        part: usize,
        block: &BlockDescriptor,
        len: u32,
        arrived: &Arrived,
        guards: Guards,
    ) -> Result<Option<(u64, u64)>, TransferError> {
        let Some(cut) = self.cuts.get_mut(&piece).filter(|cut| !cut.failed) else {
            return Ok(None);
        };
        cut.sums[part] = Some((arrived.found, len));
        cut.direct += arrived.direct;
        let combine = |sum: Option<u32>, next: &Option<(u32, u32)>| {
            let (crc, len) = (*next)?;
            sum.map(|sum| crc32c::crc32c_combine(sum, crc, len as usize))
        };
        let found = cut.sums.iter().fold(Some(0), combine);
        // The record of every part has to fit; only the last one makes the checksum known.
        let sums = (block.crc, found.unwrap_or(block.crc));
        check_sums(block, sums, &arrived.record, guards)?;
        Ok(found.map(|_| (u64::from(cut.span.len), cut.direct)))
    }
}
