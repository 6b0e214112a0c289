//! Blocks on one host: the owner hands out its arena once, and the puller copies from it, or uses
//! the blocks where they lie.
//!
//! The owner takes no part in either. For a *copy* ([`Transport::pull`]) the record is read before
//! the payload, which saves reading what is not the block, and after it: if the slot was reused
//! meanwhile, the record says so. For a *mapping* ([`Shm::map`])
//! the reader pins the slot on a board that owner and reader share, and reads the record after
//! that: the owner looks at the boards before it reuses a slot. The socket over which arena and
//! board came stays open; its end tells the reader that the owner is gone, and the owner to look
//! whether the reader is.

mod attach;
mod boards;
mod fd;
mod life;
mod map;
mod pins;
mod server;

pub use map::{Mapped, RawBlock};
pub use server::Server;

use crate::flight::{Report, Work};
use crate::guards::{Guard, Guards};
use crate::verify::check;
use crate::{
    BackOff, InFlight, Local, Op, Peer, Pull, Refused, TransferError, Transport, TransportKind,
};
use attach::{Attached, Attachments};
use baton_arena::{PeerArena, PeerArenaError};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Copied between two looks at clock and cancellation: some 100 us.
const STRETCH: usize = 1 << 20;
/// Pulls of no more bytes are copied where they are; it takes less time than another thread does to
/// wake up.
const INLINE_BYTES: u64 = 256 << 10;

/// Which payloads are compared with their checksum. Slot records always are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verify {
    /// All of them.
    Always,
    /// One in so many, for owners that are trusted not to damage what they hold, and for measuring
    /// what the checksum costs.
    Sampled {
        /// 1 is all of them.
        one_in: NonZeroU32,
    },
}

/// Bounds of the pulling side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShmOptions {
    /// Peers whose arenas are mapped at once.
    pub peers: usize,
    /// Slots that a peer's arena may have. A table of 12 bytes for each is kept here, and a pin
    /// board of one byte, so without a bound a peer could have this process take any amount of
    /// memory. An arena with more is not mapped; its blocks come another way.
    pub peer_slots: u32,
    /// How long connecting and saying hello may take.
    pub connect: Duration,
    /// How long to leave a peer alone that could not be reached.
    pub back_off: BackOff,
    /// Which payloads are compared with their checksum.
    pub verify: Verify,
    /// Threads that copy for one pull, at least 1. Each takes a core from whoever computes; a second
    /// one pays where one core cannot fill the memory's bandwidth.
    pub threads: usize,
    /// A pull takes another thread for every so many bytes.
    pub bytes_per_thread: u64,
}

impl Default for ShmOptions {
    fn default() -> Self {
        Self {
            peers: 64,
            peer_slots: 1 << 22,
            connect: Duration::from_secs(2),
            back_off: BackOff::default(),
            verify: Verify::Always,
            threads: 1,
            bytes_per_thread: 8 << 20,
        }
    }
}

/// Pulls blocks from arenas of other processes of this host.
#[derive(Clone, Debug)]
pub struct Shm {
    local: Local,
    attachments: Arc<Attachments>,
    options: ShmOptions,
    /// Payloads so far, for [`Verify::Sampled`].
    payloads: Arc<AtomicU32>,
    guards: Guards,
}

impl Shm {
    /// A transport that writes to `local`'s arena.
    pub fn new(local: Local, options: ShmOptions) -> Self {
        Self::guarded(local, options, Guards::default())
    }

    pub(crate) fn guarded(local: Local, options: ShmOptions, guards: Guards) -> Self {
        let attachments = Arc::new(Attachments::new(&local, options, guards));
        Self { local, attachments, options, payloads: Arc::default(), guards }
    }
}

impl Transport for Shm {
    fn kind(&self) -> TransportKind {
        TransportKind::Shm
    }

    fn pull(&self, peer: &Peer, pulls: Vec<Pull>, deadline: Duration) -> InFlight {
        let work = Work::new(peer, pulls, deadline, &self.local, self.guards);
        if to_read(&work) <= INLINE_BYTES
            && let Some(attached) = self.attachments.at_hand(peer)
        {
            return self.pull_now(&attached, work);
        }
        let threads = to_read(&work).div_ceil(self.options.bytes_per_thread.max(1));
        let works = work.split(threads.clamp(1, self.options.threads.max(1) as u64) as usize);
        let cancel = self.local.shutdown.child_token();
        let (flight, reports) = InFlight::new(works.len(), cancel.clone());
        for (work, report) in works.into_iter().zip(reports) {
            let run = run(self.clone(), peer.clone(), work, report, cancel.clone());
            self.local.tasks.spawn(run);
        }
        flight
    }
}

/// Attaches to the peer, copies, and gives the leases back once the copying thread is done.
async fn run(shm: Shm, peer: Peer, mut work: Work, report: Report, cancel: CancellationToken) {
    let (counters, tasks) = (shm.local.counters.clone(), shm.local.tasks.clone());
    let deadline = work.deadline();
    let attached = tokio::select! {
        biased;
        () = cancel.cancelled() => Err(TransferError::Cancelled),
        attached = shm.attachments.of(&peer) => attached,
        () = tokio::time::sleep_until(deadline) => Err(TransferError::Deadline),
    };
    let mut error = TransferError::Cancelled;
    match attached {
        Err(failure) => error = failure,
        Ok(attached) => {
            let small = to_read(&work) <= INLINE_BYTES;
            let copy = move || {
                let outcome = shm.copy_all(&attached, &mut work, &cancel);
                (work, outcome)
            };
            // Copying may take milliseconds: then not on a thread that others wait for. It is never
            // abandoned, only told to stop; once it is joined, nothing writes any more.
            let copied = if small { Ok(copy()) } else { tasks.spawn_blocking(copy).await };
            // If the runtime ends before the thread ran, the leases are gone with it.
            let Ok((copied, outcome)) = copied else { return };
            work = copied;
            if let Err(failure) = outcome {
                error = failure;
            }
        }
    }
    counters.failed(TransportKind::Shm, Op::Pull, work.failures());
    report.send(work.finish(&error));
}

impl Shm {
    /// Pulls before it returns: for little, a task of its own would cost more than the copy.
    fn pull_now(&self, attached: &Attached, mut work: Work) -> InFlight {
        let cancel = self.local.shutdown.child_token();
        let outcome = self.copy_all(attached, &mut work, &cancel);
        let (flight, report) = InFlight::single(cancel);
        self.local.counters.failed(TransportKind::Shm, Op::Pull, work.failures());
        report.send(work.finish(&outcome.err().unwrap_or(TransferError::Cancelled)));
        flight
    }

    /// Copies what has no result yet. An error stands for all that still has none afterwards.
    fn copy_all(
        &self,
        attached: &Attached,
        work: &mut Work,
        cancel: &CancellationToken,
    ) -> Result<(), TransferError> {
        // Whoever hands over `attached` has just asked. It costs a system call, so not for every
        // block where they are small.
        let mut unasked = 0;
        for piece in work.open() {
            if unasked >= STRETCH {
                attached.alive()?;
                unasked = 0;
            }
            unasked += work.block(piece).len as usize;
            let result = if self.guards.on(Guard::Lease) && work.lease_over(piece) {
                Err(TransferError::LeaseExpired)
            } else {
                self.copy(attached, work, piece, cancel)?
            };
            work.set(piece, result);
        }
        Ok(())
    }

    /// Copies one block. The outer error ends the pull, the inner one is the block's own.
    fn copy(
        &self,
        attached: &Attached,
        work: &Work,
        piece: usize,
        cancel: &CancellationToken,
    ) -> Result<Result<(), TransferError>, TransferError> {
        let block = work.block(piece);
        let from = block.slot.0;
        if from >= attached.arena.shape().slots {
            return Ok(Err(Refused::Slot.into()));
        }
        // Before the payload too: a slot that was never written has no memory yet, and a look at it
        // would take some. Its payload counts as right until it is read.
        let record = attached.arena.record(from).map_err(beyond)?;
        if let Err(mismatch) = check(block, block.crc, &record, self.guards) {
            return Ok(Err(mismatch.into()));
        }
        let span = work.span(piece).range();
        let mut guard = self.local.arena.write(work.slot(piece));
        let mut source = Source {
            arena: &attached.arena,
            slot: from,
            offset: 0,
            crc: self.checks_this().then_some(0),
            cancel,
            deadline: work.deadline(),
        };
        // The owner takes no part, so the only checksum to compare with is that of the whole
        // block: what was not asked for is read as well.
        source.pass_over(span.start)?;
        source.copy(&mut guard[span.clone()])?;
        source.pass_over((block.len as usize).saturating_sub(span.end))?;
        let crc = source.crc.unwrap_or(block.crc);
        // After the payload: if the slot was reused while it was copied, this tells.
        let record = attached.arena.record(from).map_err(beyond)?;
        if let Err(mismatch) = check(block, crc, &record, self.guards) {
            return Ok(Err(mismatch.into()));
        }
        self.local.counters.moved(TransportKind::Shm, Op::Pull, span.len() as u64, 0);
        Ok(Ok(()))
    }

    /// Whether the next payload is one of those that are compared with their checksum.
    fn checks_this(&self) -> bool {
        match self.options.verify {
            Verify::Always => true,
            Verify::Sampled { one_in } => {
                self.payloads.fetch_add(1, Ordering::Relaxed).is_multiple_of(one_in.get())
            }
        }
    }
}

/// A peer's block that is read from front to back.
struct Source<'a> {
    arena: &'a PeerArena,
    slot: u32,
    /// How far it was read.
    offset: usize,
    /// The checksum of what was read, if that is compared.
    crc: Option<u32>,
    cancel: &'a CancellationToken,
    deadline: Instant,
}

impl Source<'_> {
    /// Copies what comes next.
    fn copy(&mut self, into: &mut [u8]) -> Result<(), TransferError> {
        for stretch in into.chunks_mut(STRETCH) {
            self.look_up()?;
            let (arena, slot, at) = (self.arena, self.slot, self.offset);
            match &mut self.crc {
                Some(crc) => *crc = arena.copy_out_crc(slot, at, stretch, *crc).map_err(beyond)?,
                None => arena.copy_out(slot, at, stretch).map_err(beyond)?,
            }
            self.offset += stretch.len();
        }
        Ok(())
    }

    /// Reads what comes next for its checksum only, if that is compared.
    fn pass_over(&mut self, bytes: usize) -> Result<(), TransferError> {
        let end = self.offset + bytes;
        while let Some(crc) = self.crc.filter(|_| self.offset < end) {
            self.look_up()?;
            let len = STRETCH.min(end - self.offset);
            let crc = self.arena.crc(self.slot, self.offset, len, crc).map_err(beyond)?;
            self.crc = Some(crc);
            self.offset += len;
        }
        self.offset = end;
        Ok(())
    }

    /// Whether to go on.
    fn look_up(&self) -> Result<(), TransferError> {
        if self.cancel.is_cancelled() {
            return Err(TransferError::Cancelled);
        }
        if Instant::now() >= self.deadline {
            return Err(TransferError::Deadline);
        }
        Ok(())
    }
}

/// Bytes that are read for a pull: of every block all, whatever part of it was asked for.
fn to_read(work: &Work) -> u64 {
    work.open().into_iter().map(|piece| u64::from(work.block(piece).len)).sum()
}

fn beyond(_: PeerArenaError) -> TransferError {
    TransferError::Protocol { what: "a block beyond the arena" }
}
