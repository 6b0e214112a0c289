//! Pulls under way: batches of blocks that come from one owner and settle together.

use super::net::{PullId, Served};
use baton_arena::Arena;
use baton_decode::turn::TurnId;
use baton_kv::lease::WriteLease;
use baton_prefill::job::JobId;
use baton_proto::block::BlockDescriptor;
use baton_transfer::sim::NodeId;
use baton_transfer::{Peer, Pull, Settled, TransferError, verify};
use std::collections::BTreeMap;

/// For whom blocks are pulled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum For {
    Turn(TurnId),
    Job(JobId),
}

/// Pulls that settle together.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) node: NodeId,
    pub(super) owner: For,
    open: BTreeMap<usize, (BlockDescriptor, WriteLease)>,
    settled: Vec<Settled>,
}

/// All pulls under way.
#[derive(Debug)]
pub(super) struct Pulls {
    verify: bool,
    batches: BTreeMap<u64, Batch>,
    next: u64,
    pub(super) arrived: u64,
    pub(super) failed: u64,
}

impl Pulls {
    /// No pulls yet; `verify`: whether what arrives is checked.
    pub(super) fn new(verify: bool) -> Self {
        Self { verify, batches: BTreeMap::new(), next: 0, arrived: 0, failed: 0 }
    }

    /// Takes a batch on; says under which number, and what has to be asked of the owner.
    pub(super) fn start(
        &mut self,
        node: NodeId,
        owner: For,
        peer: &Peer,
        pulls: Vec<Pull>,
    ) -> (u64, Vec<(PullId, BlockDescriptor)>) {
        self.next += 1;
        let id = self.next;
        let mut batch = Batch { node, owner, open: BTreeMap::new(), settled: Vec::new() };
        let mut asks = Vec::new();
        for (place, Pull { from, into, .. }) in pulls.into_iter().enumerate() {
            if (from.owner, from.incarnation) == (peer.worker, peer.incarnation) {
                asks.push(((id, place), from));
                batch.open.insert(place, (from, into));
            } else {
                let error =
                    TransferError::Foreign { worker: from.owner, incarnation: from.incarnation };
                batch.settled.push(Settled::Failed { block: from, lease: into, error });
            }
        }
        self.failed += batch.settled.len() as u64;
        self.batches.insert(id, batch);
        (id, asks)
    }

    /// The block that a pull waits for, and who waits.
    pub(super) fn waiting(&self, (batch, place): PullId) -> Option<(NodeId, BlockDescriptor)> {
        let batch = self.batches.get(&batch)?;
        batch.open.get(&place).map(|(block, _)| (batch.node, *block))
    }

    /// Something came for a pull, perhaps too late. What passes the transports' check is written
    /// to the slot.
    pub(super) fn arrive(
        &mut self,
        (batch, place): PullId,
        result: Result<&Served, TransferError>,
        arena: &Arena,
    ) {
        let Some(batch) = self.batches.get_mut(&batch) else { return };
        let Some((block, lease)) = batch.open.remove(&place) else { return };
        let checked = result.and_then(|served| {
            if self.verify {
                verify(&block, &served.payload, &served.record)?;
            }
            arena.write(lease.slot().0).copy_from_slice(&served.payload);
            Ok(())
        });
        batch.settled.push(match checked {
            Ok(()) => {
                self.arrived += 1;
                Settled::Arrived { block, lease }
            }
            Err(error) => {
                self.failed += 1;
                Settled::Failed { block, lease, error }
            }
        });
    }

    /// The batch, where nothing of it is open any more.
    pub(super) fn take_settled(&mut self, id: u64) -> Option<(NodeId, For, Vec<Settled>)> {
        if !self.batches.get(&id)?.open.is_empty() {
            return None;
        }
        let batch = self.batches.remove(&id)?;
        Some((batch.node, batch.owner, batch.settled))
    }

    /// The time for a batch is over.
    pub(super) fn give_up(&mut self, id: u64) {
        let Some(batch) = self.batches.get_mut(&id) else { return };
        for (_, (block, lease)) in std::mem::take(&mut batch.open) {
            self.failed += 1;
            let error = TransferError::Deadline;
            batch.settled.push(Settled::Failed { block, lease, error });
        }
    }

    /// A node is gone, and with it its memory.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.batches.retain(|_, batch| batch.node != node);
    }

    pub(super) fn len(&self) -> usize {
        self.batches.len()
    }
}
