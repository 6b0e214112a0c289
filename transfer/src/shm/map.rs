//! Blocks used where they lie: no copy, and for a block that was verified before, no look at its
//! payload.

use super::attach::Attached;
use super::{INLINE_BYTES, STRETCH, Shm, beyond};
use crate::guards::{Guard, Guards};
use crate::verify::{check, check_record};
use crate::{Op, Peer, Refused, TransferError, TransportKind};
use baton_kv::record::{RECORD_BYTES, SlotRecord};
use baton_proto::block::BlockDescriptor;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

impl Shm {
    /// Maps blocks of one peer, all or none, to be used in place until the answer is dropped.
    ///
    /// The owner takes no part. It does not reuse a mapped slot, whether or not the lease of the
    /// block ends meanwhile; only when this process is dead, or maps more than
    /// [`ServeLimits::mapped_slots`](crate::ServeLimits::mapped_slots), does it look away. What is
    /// mapped for the first time since its slot was written is compared with its checksum, which
    /// takes as long as reading it and at most `deadline`; after that, mapping takes no longer for
    /// large blocks than for small ones.
    ///
    /// Dropping the future lets go of the blocks. Has to be called inside a tokio runtime.
    pub async fn map(
        &self,
        peer: &Peer,
        blocks: &[BlockDescriptor],
        deadline: Duration,
    ) -> Result<Mapped, TransferError> {
        let mapped = self.map_now(peer, blocks, deadline).await;
        let counters = &self.local.counters;
        if mapped.is_ok() {
            for block in blocks {
                let bytes = u64::from(block.len);
                counters.moved(TransportKind::Shm, Op::Map, bytes, bytes);
            }
        } else {
            counters.failed(TransportKind::Shm, Op::Map, blocks.len() as u64);
        }
        mapped
    }

    async fn map_now(
        &self,
        peer: &Peer,
        blocks: &[BlockDescriptor],
        deadline: Duration,
    ) -> Result<Mapped, TransferError> {
        let end = Instant::now() + deadline.min(Duration::from_hours(365 * 24));
        self.check_descriptors(peer, blocks)?;
        let attached = match self.attachments.at_hand(peer) {
            Some(attached) => attached,
            None => tokio::time::timeout_at(end, self.attachments.of(peer))
                .await
                .unwrap_or(Err(TransferError::Deadline))?,
        };
        let slots = attached.arena.shape().slots;
        if blocks.iter().any(|block| block.slot.0 >= slots) {
            return Err(Refused::Slot.into());
        }
        attached.pins.pin(blocks)?;
        // From here on the pins go with it, whatever happens.
        let mapped = Mapped { attached, blocks: blocks.into() };
        // The records are read after the pins are set; see `baton_arena::PeerBoard::pin`.
        let unknown = mapped.unknown(self.guards)?;
        if unknown.is_empty() {
            return Ok(mapped);
        }
        let bytes: u64 = unknown.iter().map(|&i| u64::from(blocks[i].len)).sum();
        let (guards, shutdown) = (self.guards, self.local.shutdown.clone());
        let verify = move || {
            for i in unknown {
                mapped.verify(i, guards, || {
                    if shutdown.is_cancelled() {
                        return Err(TransferError::Cancelled);
                    }
                    if Instant::now() >= end { Err(TransferError::Deadline) } else { Ok(()) }
                })?;
            }
            Ok(mapped)
        };
        if bytes <= INLINE_BYTES {
            return verify();
        }
        // A runtime that ends takes the thread with it.
        let verified = self.local.tasks.spawn_blocking(verify).await;
        verified.unwrap_or(Err(TransferError::Cancelled))
    }

    /// What can be said of descriptors before the peer's memory is looked at.
    fn check_descriptors(
        &self,
        peer: &Peer,
        blocks: &[BlockDescriptor],
    ) -> Result<(), TransferError> {
        let slot_bytes = self.local.arena.slot_bytes();
        for block in blocks {
            if block.owner != peer.worker || block.incarnation != peer.incarnation {
                let (worker, incarnation) = (block.owner, block.incarnation);
                return Err(TransferError::Foreign { worker, incarnation });
            }
            if block.len as usize > slot_bytes {
                return Err(TransferError::TooLong { len: block.len, slot_bytes });
            }
            if self.guards.on(Guard::Lease) && block.lease_remaining_ms == 0 {
                return Err(TransferError::LeaseExpired);
            }
        }
        Ok(())
    }
}

/// Blocks of a peer that this process uses in place. The owner leaves them where and as they are
/// until this is dropped.
///
/// That holds for an owner that keeps the rules. One that does not may change the bytes at any
/// time, so no reference to them is handed out: reading them may then give anything, but is never
/// undefined behaviour nor a signal. The mapping belongs to this process alone: a child that is
/// forked off has no pins of its own.
#[must_use = "dropping it lets go of the blocks"]
pub struct Mapped {
    attached: Arc<Attached>,
    blocks: Box<[BlockDescriptor]>,
}

/// Where a mapped block lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RawBlock {
    /// Its first byte, at a cache line. Valid for reads while the [`Mapped`] lives. Another process
    /// may write there: make no reference, and load every byte at most once for each decision.
    pub ptr: *const u8,
    /// Bytes of its payload.
    pub len: usize,
}

impl Mapped {
    /// The blocks, in the order in which they were given.
    pub fn blocks(&self) -> &[BlockDescriptor] {
        &self.blocks
    }

    /// Where a block lies, for a kernel.
    ///
    /// # Panics
    /// If there are not so many blocks.
    pub fn raw(&self, block: usize) -> RawBlock {
        let block = &self.blocks[block];
        let len = block.len as usize;
        let ptr = self.attached.arena.as_ptr(block.slot.0, len);
        RawBlock { ptr: ptr.expect("slot and length were checked when it was mapped"), len }
    }

    /// Copies a part of a block. An error if the part does not lie in the block.
    ///
    /// # Panics
    /// If there are not so many blocks.
    pub fn copy_out(
        &self,
        block: usize,
        offset: usize,
        into: &mut [u8],
    ) -> Result<(), TransferError> {
        let block = &self.blocks[block];
        let len = into.len();
        if offset.checked_add(len).is_none_or(|end| end > block.len as usize) {
            let [offset, len] = [offset, len].map(|n| u32::try_from(n).unwrap_or(u32::MAX));
            return Err(TransferError::Span { offset, len, block_len: block.len });
        }
        self.attached.arena.copy_out(block.slot.0, offset, into).map_err(beyond)
    }

    /// Whether the owner is there and still honours this mapping. If it says so after the bytes
    /// were read, they were the block's, as far as the owner keeps the rules.
    pub fn held(&self) -> Result<(), TransferError> {
        self.attached.alive()?;
        self.attached.pins.honoured()
    }

    /// Compares every record with its descriptor; which payloads were not verified under it yet.
    fn unknown(&self, guards: Guards) -> Result<Vec<usize>, TransferError> {
        let verified = self.attached.pins.verified(&self.blocks);
        let mut unknown = Vec::new();
        for (i, (block, verified)) in self.blocks.iter().zip(verified).enumerate() {
            let bytes = self.attached.arena.record(block.slot.0).map_err(beyond)?;
            if verified != [0; 8] && verified == SlotRecord::check_bytes(&bytes) {
                let record = SlotRecord::from_known_bytes(&bytes).map_err(crate::Mismatch::from)?;
                check_record(block, &record, guards)?;
            } else {
                // Its checksum is compared later; until then it counts as right.
                check(block, block.crc, &bytes, guards)?;
                unknown.push(i);
            }
        }
        Ok(unknown)
    }

    /// Compares a payload with its checksum, and remembers that it fits.
    fn verify(
        &self,
        i: usize,
        guards: Guards,
        look_up: impl Fn() -> Result<(), TransferError>,
    ) -> Result<(), TransferError> {
        let block = &self.blocks[i];
        let arena = &self.attached.arena;
        let (mut crc, mut at) = (0, 0);
        while at < block.len as usize {
            look_up()?;
            let len = STRETCH.min(block.len as usize - at);
            crc = arena.crc(block.slot.0, at, len, crc).map_err(beyond)?;
            at += len;
        }
        let record: [u8; RECORD_BYTES] = arena.record(block.slot.0).map_err(beyond)?;
        check(block, crc, &record, guards)?;
        self.attached.pins.remember(block, SlotRecord::check_bytes(&record));
        Ok(())
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        self.attached.pins.unpin(&self.blocks);
    }
}

impl fmt::Debug for Mapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapped").field("blocks", &self.blocks.len()).finish_non_exhaustive()
    }
}
