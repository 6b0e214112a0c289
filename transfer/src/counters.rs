//! How much was moved, for metrics and for tests.

use crate::TransportKind;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// From which side a transfer is counted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Op {
    /// Blocks that came in.
    Pull,
    /// Blocks that were handed out. Not counted for shm, where the owner does not notice.
    Serve,
    /// Blocks that were mapped to be used in place, of another process's memory; shm only.
    Map,
}

impl Op {
    /// All of them.
    const ALL: [Self; 3] = [Self::Pull, Self::Serve, Self::Map];
}

/// Counters of one worker, for all transports. Clones count together.
#[derive(Clone, Default)]
pub struct Counters(Arc<[[Cell; Op::ALL.len()]; TransportKind::ALL.len()]>);

#[derive(Default)]
struct Cell {
    blocks: AtomicU64,
    bytes: AtomicU64,
    copied_bytes: AtomicU64,
    failed: AtomicU64,
    work_requests: AtomicU64,
    doorbells: AtomicU64,
}

/// The counters of one transport and side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sample {
    /// The transport.
    pub transport: TransportKind,
    /// The side.
    pub op: Op,
    /// Blocks that were moved whole; when pulled, also verified. Those that were mapped have not
    /// moved, and are verified.
    pub blocks: u64,
    /// Their payload.
    pub bytes: u64,
    /// Payload that this process copied from memory to memory on the way.
    pub copied_bytes: u64,
    /// Blocks that were not moved.
    pub failed: u64,
    /// Work requests that were posted, those of windows included; verbs only.
    pub work_requests: u64,
    /// Calls by which they were posted; verbs only.
    pub doorbells: u64,
}

impl Counters {
    /// All counters, in a fixed order.
    pub fn samples(&self) -> Vec<Sample> {
        TransportKind::ALL
            .into_iter()
            .flat_map(|transport| Op::ALL.map(|op| self.sample(transport, op)))
            .collect()
    }

    /// The counters of one transport and side.
    pub fn sample(&self, transport: TransportKind, op: Op) -> Sample {
        let cell = self.cell(transport, op);
        Sample {
            transport,
            op,
            blocks: cell.blocks.load(Ordering::Relaxed),
            bytes: cell.bytes.load(Ordering::Relaxed),
            copied_bytes: cell.copied_bytes.load(Ordering::Relaxed),
            failed: cell.failed.load(Ordering::Relaxed),
            work_requests: cell.work_requests.load(Ordering::Relaxed),
            doorbells: cell.doorbells.load(Ordering::Relaxed),
        }
    }

    /// A block of `bytes` was moved; `direct` of them went between arena and system without a
    /// copy in this process.
    pub(crate) fn moved(&self, transport: TransportKind, op: Op, bytes: u64, direct: u64) {
        let cell = self.cell(transport, op);
        cell.blocks.fetch_add(1, Ordering::Relaxed);
        cell.bytes.fetch_add(bytes, Ordering::Relaxed);
        cell.copied_bytes.fetch_add(bytes.saturating_sub(direct), Ordering::Relaxed);
    }

    pub(crate) fn failed(&self, transport: TransportKind, op: Op, blocks: u64) {
        self.cell(transport, op).failed.fetch_add(blocks, Ordering::Relaxed);
    }

    pub(crate) fn posted(
        &self,
        transport: TransportKind,
        op: Op,
        work_requests: u64,
        doorbells: u64,
    ) {
        let cell = self.cell(transport, op);
        cell.work_requests.fetch_add(work_requests, Ordering::Relaxed);
        cell.doorbells.fetch_add(doorbells, Ordering::Relaxed);
    }

    fn cell(&self, transport: TransportKind, op: Op) -> &Cell {
        &self.0[transport as usize][op as usize]
    }
}

impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.samples()).finish()
    }
}
