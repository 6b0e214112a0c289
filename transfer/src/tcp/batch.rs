//! Requests that were sent together, and the answers to them as they come in.
//!
//! The owner answers with all heads, then the payloads of what it accepted, then their records.
//! After the heads it is known where every byte goes, so that one read fills many slots.

use super::job::{Arrived, Job, Unit};
use crate::wire::{BlockHead, Fetch};
use crate::{Refused, TransferError};
use baton_arena::{RECORD_BYTES, crc32c};
use std::io::IoSliceMut;

/// Bytes of a read: what has come is still in the cache when its checksum is computed.
const READ_BYTES: usize = 256 << 10;

/// Requests on their way, and what has come for them.
pub(super) struct Batch {
    units: Vec<Unit>,
    /// Number of the first request; the others follow.
    first: u32,
    heads: Filling,
    /// What the heads said, once they are read.
    answers: Vec<Answer>,
    /// The payload that comes now, and how much of it is there.
    payload: usize,
    filled: usize,
    records: Filling,
    state: Progress,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Heads,
    Payloads,
}

/// A buffer and how much of it is filled.
struct Filling {
    bytes: Vec<u8>,
    filled: usize,
}

enum Answer {
    Refused(Refused),
    Accepted { said: u32, found: u32 },
}

impl Filling {
    fn new(len: usize) -> Self {
        Self { bytes: vec![0; len], filled: 0 }
    }

    fn is_full(&self) -> bool {
        self.filled == self.bytes.len()
    }

    fn offer<'a>(&'a mut self, slices: &mut Vec<IoSliceMut<'a>>) {
        if !self.is_full() {
            slices.push(IoSliceMut::new(&mut self.bytes[self.filled..]));
        }
    }

    /// Counts what has been filled in; what is left of `count`.
    fn advance(&mut self, count: usize) -> usize {
        let new = count.min(self.bytes.len() - self.filled);
        self.filled += new;
        count - new
    }
}

impl Batch {
    /// Writes the requests for `units`, which are not none, behind `requests`.
    pub(super) fn ask(units: Vec<Unit>, first: u32, requests: &mut Vec<u8>) -> Self {
        for (i, unit) in units.iter().enumerate() {
            let fetch = Fetch {
                number: first.wrapping_add(i as u32),
                block: unit.block,
                span: unit.span,
                last: i + 1 == units.len(),
                summed: unit.summed(),
            };
            requests.extend_from_slice(&fetch.to_bytes());
        }
        let heads = Filling::new(units.len() * BlockHead::BYTES);
        Self {
            units,
            first,
            heads,
            answers: Vec::new(),
            payload: 0,
            filled: 0,
            records: Filling::new(0),
            state: Progress::Heads,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.units.iter().map(Unit::bytes).sum()
    }

    pub(super) fn units(&self) -> usize {
        self.units.len()
    }

    /// Gives the units back, unanswered.
    pub(super) fn into_units(self) -> Vec<Unit> {
        self.units
    }

    /// Understands what is complete. True if everything is.
    pub(super) fn digest(&mut self) -> Result<bool, TransferError> {
        if self.state == Progress::Heads {
            if !self.heads.is_full() {
                return Ok(false);
            }
            self.read_heads()?;
            self.state = Progress::Payloads;
        }
        self.skip_done();
        Ok(self.payload == self.units.len() && self.records.is_full())
    }

    fn read_heads(&mut self) -> Result<(), TransferError> {
        let (heads, _) = self.heads.bytes.as_chunks::<{ BlockHead::BYTES }>();
        for (i, (head, unit)) in heads.iter().zip(&self.units).enumerate() {
            let head = BlockHead::from_bytes(head)
                .map_err(|garbled| TransferError::Protocol { what: garbled.0 })?;
            if head.number != self.first.wrapping_add(i as u32) {
                return Err(TransferError::Protocol { what: "an answer to another request" });
            }
            self.answers.push(match head.result {
                Ok(extent) if extent.len as usize == unit.bytes() => {
                    Answer::Accepted { said: extent.crc, found: 0 }
                }
                Ok(_) => {
                    return Err(TransferError::Protocol { what: "an answer of another length" });
                }
                Err(refused) => Answer::Refused(refused),
            });
        }
        let accepted = |answer: &&Answer| matches!(answer, Answer::Accepted { .. });
        self.records = Filling::new(self.answers.iter().filter(accepted).count() * RECORD_BYTES);
        Ok(())
    }

    /// Where the next bytes go, in order, up to about what a read should bring. True if all that
    /// this batch still waits for is among them.
    pub(super) fn offer<'a>(&'a mut self, slices: &mut Vec<IoSliceMut<'a>>) -> bool {
        if self.state == Progress::Heads {
            self.heads.offer(slices);
            return false;
        }
        let (mut room, mut skip) = (READ_BYTES, self.filled);
        for (unit, answer) in self.units.iter_mut().zip(&self.answers).skip(self.payload) {
            if matches!(answer, Answer::Refused(_)) {
                continue;
            }
            let rest = &mut unit.into[std::mem::take(&mut skip)..];
            if rest.len() > room {
                slices.push(IoSliceMut::new(&mut rest[..room]));
                return false;
            }
            room -= rest.len();
            slices.push(IoSliceMut::new(rest));
        }
        self.records.offer(slices);
        true
    }

    /// Where the heads go that come behind the batch before.
    pub(super) fn offer_heads<'a>(&'a mut self, slices: &mut Vec<IoSliceMut<'a>>) {
        self.heads.offer(slices);
    }

    /// Counts bytes that were read to where [`offer`](Self::offer) said; what is left of them
    /// belongs to the batch behind.
    pub(super) fn advance(&mut self, mut count: usize) -> usize {
        if self.state == Progress::Heads {
            return self.heads.advance(count);
        }
        while count > 0 && self.payload < self.units.len() {
            let payload = &self.units[self.payload].into;
            if let Answer::Accepted { found, .. } = &mut self.answers[self.payload] {
                let new = count.min(payload.len() - self.filled);
                *found = crc32c(*found, &payload[self.filled..self.filled + new]);
                self.filled += new;
                count -= new;
                if self.filled < payload.len() {
                    return 0;
                }
            }
            (self.payload, self.filled) = (self.payload + 1, 0);
        }
        self.records.advance(count)
    }

    /// Counts heads that came behind the batch before.
    pub(super) fn advance_heads(&mut self, count: usize) {
        self.heads.advance(count);
    }

    /// Steps over refused and empty payloads.
    fn skip_done(&mut self) {
        while let (Some(unit), Some(answer)) =
            (self.units.get(self.payload), self.answers.get(self.payload))
        {
            let comes = matches!(answer, Answer::Accepted { .. }) && unit.bytes() > self.filled;
            if comes {
                return;
            }
            (self.payload, self.filled) = (self.payload + 1, 0);
        }
    }

    /// Hands over what has come, all of it. `direct`: no byte was copied by this process.
    pub(super) fn settle(self, job: &Job, direct: bool) {
        let (records, _) = self.records.bytes.as_chunks::<RECORD_BYTES>();
        let mut records = records.iter();
        for (unit, answer) in self.units.into_iter().zip(self.answers) {
            let result = match answer {
                Answer::Refused(refused) => Err(refused.into()),
                Answer::Accepted { said, found } => {
                    let record = *records.next().expect("a record for every accepted request");
                    let direct = if direct { unit.bytes() as u64 } else { 0 };
                    Ok(Arrived { said, found, record, direct })
                }
            };
            job.done(unit, result);
        }
    }
}
