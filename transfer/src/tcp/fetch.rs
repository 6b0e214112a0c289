//! The pulling side of one connection: requests ahead, answers straight into the arena.

use super::links::{Link, Links};
use crate::flight::Work;
use crate::guards::{Guard, Guards};
use crate::verify::check_sums;
use crate::wire::{BlockHead, Fetch};
use crate::{Counters, Op, Peer, TransferError, TransportKind};
use baton_arena::{Arena, RECORD_BYTES};
use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Fetches one part of a pull over one connection.
pub(super) struct Fetcher {
    pub(super) arena: Arena,
    pub(super) counters: Counters,
    pub(super) links: Arc<Links>,
    pub(super) peer: Peer,
    pub(super) window: usize,
    pub(super) guards: Guards,
}

impl Fetcher {
    /// Fetches what has no result yet. An error stands for all that still has none afterwards.
    pub(super) async fn fetch(&self, work: &mut Work) -> Result<(), TransferError> {
        let open = work.open().len();
        if open == 0 {
            return Ok(());
        }
        let slot_bytes = self.arena.slot_bytes();
        let mut link = self.links.open(&self.peer, slot_bytes, false).await?;
        let mut outcome = self.pipeline(&mut link, work).await;
        // A kept connection may have ended since; that is no reason to fail, if it said nothing.
        let silent = link.reused && work.open().len() == open;
        if silent && matches!(outcome, Err(TransferError::Lost { .. })) {
            drop(link);
            link = self.links.open(&self.peer, slot_bytes, true).await?;
            outcome = self.pipeline(&mut link, work).await;
        }
        // Only after the last answer is it known that nothing more will come.
        if outcome.is_ok() {
            link.keep();
        }
        outcome
    }

    /// Keeps up to `window` requests on their way, and takes the answers in order.
    async fn pipeline(&self, link: &mut Link, work: &mut Work) -> Result<(), TransferError> {
        let mut to_ask: VecDeque<usize> = work.open().into();
        let mut asked = VecDeque::new();
        let mut requests = Vec::with_capacity(self.window * Fetch::BYTES);
        loop {
            requests.clear();
            while asked.len() < self.window {
                let Some(piece) = to_ask.pop_front() else { break };
                if self.guards.on(Guard::Lease) && work.lease_over(piece) {
                    work.set(piece, Err(TransferError::LeaseExpired));
                    continue;
                }
                let fetch = Fetch {
                    number: piece as u32,
                    block: *work.block(piece),
                    span: work.span(piece),
                };
                requests.extend_from_slice(&fetch.to_bytes());
                asked.push_back(piece);
            }
            // At most a window of small frames: they fit the socket's buffers, so that this cannot
            // wait for an owner who in turn waits for the answers to be read.
            link.stream.write_all(&requests).await.map_err(|error| TransferError::lost(&error))?;
            let Some(piece) = asked.pop_front() else { return Ok(()) };
            let result = self.answer(&mut link.stream, work, piece).await?;
            work.set(piece, result);
        }
    }

    /// Takes one answer. The outer error ends the connection, the inner one is the block's own.
    async fn answer(
        &self,
        stream: &mut TcpStream,
        work: &Work,
        piece: usize,
    ) -> Result<Result<(), TransferError>, TransferError> {
        let (block, span) = (work.block(piece), work.span(piece));
        let mut head = [0; BlockHead::BYTES];
        stream.read_exact(&mut head).await.map_err(|error| TransferError::lost(&error))?;
        let head = BlockHead::from_bytes(&head)
            .map_err(|garbled| TransferError::Protocol { what: garbled.0 })?;
        if head.number != piece as u32 {
            return Err(TransferError::Protocol { what: "an answer to another request" });
        }
        let said = match head.result {
            Ok(extent) if extent.len == span.len => extent.crc,
            Ok(_) => return Err(TransferError::Protocol { what: "an answer of another length" }),
            Err(refused) => return Ok(Err(refused.into())),
        };
        // Of a whole block the descriptor knows better than whoever answers.
        let expected = if span.is_whole(block) { block.crc } else { said };
        let mut guard = self.arena.write(work.slot(piece));
        let payload = &mut guard[span.range()];
        let arrived =
            receive(stream, payload).await.map_err(|error| TransferError::lost(&error))?;
        if let Err(mismatch) =
            check_sums(block, (expected, arrived.crc), &arrived.record, self.guards)
        {
            return Ok(Err(mismatch.into()));
        }
        let len = u64::from(span.len);
        self.counters.moved(TransportKind::Tcp, Op::Pull, len, arrived.direct);
        Ok(Ok(()))
    }
}

/// What came with a payload.
struct Arrived {
    record: [u8; RECORD_BYTES],
    crc: u32,
    /// Bytes that the system wrote to the arena itself.
    direct: u64,
}

/// Reads a payload to where it belongs, and the record behind it. The checksum is computed over
/// each stretch while it is still in the cache.
async fn receive(stream: &TcpStream, payload: &mut [u8]) -> io::Result<Arrived> {
    let mut record = [0; RECORD_BYTES];
    let (mut filled, mut crc, mut direct) = (0, 0, 0);
    let total = payload.len() + RECORD_BYTES;
    while filled < total {
        stream.readable().await?;
        let in_payload = filled.min(payload.len());
        let mut buffers = [
            IoSliceMut::new(&mut payload[in_payload..]),
            IoSliceMut::new(&mut record[filled - in_payload..]),
        ];
        let read = match stream.try_read_vectored(&mut buffers) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        filled += read;
        let new = in_payload..filled.min(payload.len()).max(in_payload);
        direct += new.len() as u64;
        crc = crc32c::crc32c_append(crc, &payload[new]);
    }
    Ok(Arrived { record, crc, direct })
}
