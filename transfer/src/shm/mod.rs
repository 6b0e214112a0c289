//! Blocks on one host: the owner hands out its arena once, and the puller copies from it.
//!
//! The owner takes no part in a pull. That makes it fast, and it is why the record is read after
//! the payload: if the slot was reused meanwhile, the record says so. The socket over which the
//! arena came stays open; its end tells that the owner is gone.

mod attach;
mod fd;
mod server;

pub use server::Server;

use crate::flight::{Report, Work};
use crate::guards::{Guard, Guards};
use crate::verify::check;
use crate::{
    BackOff, InFlight, Local, Op, Peer, Pull, Refused, TransferError, Transport, TransportKind,
};
use attach::{Attached, Attachments};
use baton_arena::{PeerArena, PeerArenaError};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Copied between two looks at clock and cancellation; also the stretch that is in the cache when
/// its checksum is computed.
const STRETCH: usize = 256 << 10;

/// Bounds of the pulling side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShmOptions {
    /// Peers whose arenas are mapped at once.
    pub peers: usize,
    /// How long connecting and saying hello may take.
    pub connect: Duration,
    /// How long to leave a peer alone that could not be reached.
    pub back_off: BackOff,
}

impl Default for ShmOptions {
    fn default() -> Self {
        Self { peers: 64, connect: Duration::from_secs(2), back_off: BackOff::default() }
    }
}

/// Pulls blocks from arenas of other processes of this host.
#[derive(Clone, Debug)]
pub struct Shm {
    local: Local,
    attachments: Arc<Attachments>,
    guards: Guards,
}

impl Shm {
    /// A transport that writes to `local`'s arena.
    pub fn new(local: Local, options: ShmOptions) -> Self {
        Self::guarded(local, options, Guards::default())
    }

    pub(crate) fn guarded(local: Local, options: ShmOptions, guards: Guards) -> Self {
        let attachments = Arc::new(Attachments::new(&local, options, guards));
        Self { local, attachments, guards }
    }
}

impl Transport for Shm {
    fn kind(&self) -> TransportKind {
        TransportKind::Shm
    }

    fn pull(&self, peer: &Peer, pulls: Vec<Pull>, deadline: Duration) -> InFlight {
        let work = Work::new(peer, pulls, deadline, &self.local, self.guards);
        let cancel = self.local.shutdown.child_token();
        let (flight, report) = InFlight::single(cancel.clone());
        self.local.tasks.spawn(run(self.clone(), peer.clone(), work, report, cancel));
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
            // Copying may take milliseconds: not on a thread that others wait for. It is never
            // abandoned, only told to stop; once it is joined, nothing writes any more.
            let copy = move || {
                let outcome = shm.copy_all(&attached, &mut work, &cancel);
                (work, outcome)
            };
            // If the runtime ends before the thread ran, the leases are gone with it.
            let Ok((copied, outcome)) = tasks.spawn_blocking(copy).await else { return };
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
    /// Copies what has no result yet. An error stands for all that still has none afterwards.
    fn copy_all(
        &self,
        attached: &Attached,
        work: &mut Work,
        cancel: &CancellationToken,
    ) -> Result<(), TransferError> {
        for piece in work.open() {
            attached.alive()?;
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
        let span = work.span(piece).range();
        let mut guard = self.local.arena.write(work.slot(piece));
        let mut source = Source {
            arena: &attached.arena,
            slot: from,
            offset: 0,
            crc: 0,
            cancel,
            deadline: work.deadline(),
        };
        // The owner takes no part, so the only checksum to compare with is that of the whole
        // block: what was not asked for is read as well.
        source.pass_over(span.start)?;
        source.copy(&mut guard[span.clone()])?;
        source.pass_over((block.len as usize).saturating_sub(span.end))?;
        let crc = source.crc;
        // After the payload: if the slot was reused while it was copied, this tells.
        let record = attached.arena.record(from).map_err(beyond)?;
        if let Err(mismatch) = check(block, crc, &record, self.guards) {
            return Ok(Err(mismatch.into()));
        }
        self.local.counters.moved(TransportKind::Shm, Op::Pull, span.len() as u64, 0);
        Ok(Ok(()))
    }
}

/// A peer's block that is read from front to back.
struct Source<'a> {
    arena: &'a PeerArena,
    slot: u32,
    /// How far it was read.
    offset: usize,
    /// The checksum of what was read.
    crc: u32,
    cancel: &'a CancellationToken,
    deadline: Instant,
}

impl Source<'_> {
    /// Copies what comes next.
    fn copy(&mut self, into: &mut [u8]) -> Result<(), TransferError> {
        for stretch in into.chunks_mut(STRETCH) {
            if self.cancel.is_cancelled() {
                return Err(TransferError::Cancelled);
            }
            if Instant::now() >= self.deadline {
                return Err(TransferError::Deadline);
            }
            self.arena.copy_out(self.slot, self.offset, stretch).map_err(beyond)?;
            self.crc = crc32c::crc32c_append(self.crc, stretch);
            self.offset += stretch.len();
        }
        Ok(())
    }

    /// Reads what comes next for its checksum only.
    fn pass_over(&mut self, bytes: usize) -> Result<(), TransferError> {
        let mut beside = vec![0; bytes.min(STRETCH)];
        let mut left = bytes;
        while left > 0 {
            let now = left.min(beside.len());
            self.copy(&mut beside[..now])?;
            left -= now;
        }
        Ok(())
    }
}

fn beyond(_: PeerArenaError) -> TransferError {
    TransferError::Protocol { what: "a block beyond the arena" }
}
