//! Pin boards: where a reader in another process says which slots it uses in place.
//!
//! A board belongs to one reader. The owner of the arena makes it and hands it over; both map it
//! for writing. See [`crate::protocol`] for the order in which boards and records are used, and
//! docs/wire.md for the bytes.

use crate::foreign;
use crate::mapping::{Access, Mapping};
use crate::memfd::{self, Pages};
use crate::protocol::{is_pinned, pin, unpin};
use crate::{ArenaError, PeerArenaError};
use rustix::fs::SealFlags;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{Ordering, fence};

const MAGIC: [u8; 8] = *b"BATBOARD";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 64;
/// The word by which the owner says that it looks at the board no longer.
const CLOSED: usize = 64;
/// Where the pins start, one byte per slot.
const PINS: usize = 128;
const PAGE: u64 = 4096;
/// How often a board is walked before its reader is said to pin too much.
const WALKS: usize = 16;

/// Bytes of the whole mapping.
fn total(slots: u32) -> u64 {
    (PINS as u64 + u64::from(slots)).next_multiple_of(PAGE)
}

fn header(slots: u32, limit: u32) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[0..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..16].copy_from_slice(&slots.to_le_bytes());
    bytes[16..20].copy_from_slice(&limit.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// A reader's board, as the owner of the arena sees it. Its reader may write anything at any time.
pub struct Board {
    mapping: Mapping,
    fd: OwnedFd,
    slots: u32,
    limit: u32,
}

impl Board {
    /// Makes the board of one reader of an arena of so many slots, which may pin `limit` of them at
    /// a time.
    pub fn create(slots: u32, limit: u32) -> Result<Self, ArenaError> {
        // All of its memory now: later, running out would be a signal, in either process.
        let seals = SealFlags::SHRINK | SealFlags::GROW;
        let (fd, mapping) = memfd::create("baton-board", total(slots), Pages::Now, seals)?;
        mapping.store_record(0, &header(slots, limit));
        Ok(Self { mapping, fd, slots, limit })
    }

    /// The memfd, to be handed to the reader and to nobody else.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Whether the reader has pinned a slot. Means that it may *not* begin to use the slot only if
    /// the slot's record has been voided before; see [`Arena::void_record`](crate::Arena::void_record).
    pub fn holds(&self, slot: u32) -> bool {
        assert!(slot < self.slots, "slot {slot} on a board of {} slots", self.slots);
        is_pinned(self.mapping.byte(PINS + slot as usize))
    }

    /// How many slots the reader has pinned, one after the other: no snapshot. A reader that lets go
    /// of one slot and pins another meanwhile may be counted with both. On a board that is
    /// [closed](Self::close) nothing is pinned any more, so the number is never too large, but for
    /// what a thread of the reader was about to pin and takes back.
    pub fn pinned(&self) -> u32 {
        (0..self.slots).filter(|slot| self.holds(*slot)).count() as u32
    }

    /// Whether the reader pins more than its limit, as far as can be seen from here: in each of
    /// several walks over the board it has pinned the same slots, and those are too many. One walk
    /// would not do, see [`pinned`](Self::pinned); what an honest reader turns over, one of the
    /// walks finds unpinned. A large answer of one walk costs the others; a small one ends it.
    pub fn exceeds_limit(&self) -> bool {
        if self.pinned() <= self.limit {
            return false;
        }
        let mut standing: Vec<u32> = (0..self.slots).filter(|slot| self.holds(*slot)).collect();
        for _ in 2..WALKS {
            if standing.len() <= self.limit as usize {
                break;
            }
            standing.retain(|slot| self.holds(*slot));
        }
        standing.len() > self.limit as usize
    }

    /// How many slots the reader may pin at a time.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// Tells the reader that pins are not looked at any more, once those that it has now are gone:
    /// what it pins from now on it may not use. If [`pinned`](Self::pinned) is 0 afterwards, nobody
    /// reads under this board.
    pub fn close(&self) {
        self.mapping.word(CLOSED).store(1, Ordering::Relaxed);
        // As between a void record and the look at the pins: whoever pins later sees the word.
        fence(Ordering::SeqCst);
    }
}

/// A board that the owner of a peer's arena made for this process.
pub struct PeerBoard {
    mapping: Mapping,
    slots: u32,
    limit: u32,
}

impl PeerBoard {
    /// Maps a descriptor that a peer handed over, if it is a board for an arena of so many slots
    /// whose size can no longer change. The descriptor is not needed afterwards.
    pub fn open(fd: BorrowedFd<'_>, slots: u32) -> Result<Self, PeerArenaError> {
        let mapping = foreign::map(fd, total(slots), Access::ReadWrite)?;
        let mut found = [0; HEADER_BYTES];
        mapping.copy_out(0, &mut found);
        let mut limit = [0; 4];
        limit.copy_from_slice(&found[16..20]);
        let limit = u32::from_le_bytes(limit);
        if found != header(slots, limit) {
            return Err(PeerArenaError::Board { slots });
        }
        Ok(Self { mapping, slots, limit })
    }

    /// How many slots may be pinned at a time; the owner cuts off whoever pins more.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// Pins slots. Each may be used from now until it is unpinned if, now, its record is that of
    /// the block that is wanted, and the board is not closed.
    pub fn pin(&self, slots: impl IntoIterator<Item = u32>) {
        pin(slots.into_iter().map(|slot| self.mapping.byte(self.at(slot))));
    }

    /// Takes a pin away. What was read of the slot was read before.
    pub fn unpin(&self, slot: u32) {
        unpin(self.mapping.byte(self.at(slot)));
    }

    /// Whether the owner has ceased to look at this board.
    pub fn is_closed(&self) -> bool {
        self.mapping.word(CLOSED).load(Ordering::Acquire) != 0
    }

    fn at(&self, slot: u32) -> usize {
        assert!(slot < self.slots, "slot {slot} on a board of {} slots", self.slots);
        PINS + slot as usize
    }
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Board({} slots, at most {} pinned)", self.slots, self.limit)
    }
}

impl fmt::Debug for PeerBoard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerBoard({} slots, at most {} pinned)", self.slots, self.limit)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::atomic::AtomicBool;

    /// A reader that turns over all that it may pin, from one end of a large board to the other, as
    /// fast as it can.
    #[test]
    fn a_reader_that_turns_over_at_its_limit_does_not_exceed_it() {
        const SLOTS: u32 = 1 << 18;
        const LIMIT: u32 = 4;
        let board = Board::create(SLOTS, LIMIT).unwrap();
        let reader = PeerBoard::open(board.fd(), SLOTS).unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let ends = [0..LIMIT, SLOTS - LIMIT..SLOTS];
                for end in ends.iter().cycle() {
                    reader.pin(end.clone());
                    end.clone().for_each(|slot| reader.unpin(slot));
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                }
            });
            // Without a pin that was counted twice, looking says nothing. On a busy machine the reader
            // may not run for long.
            let (mut looks, mut counted_twice) = (0, false);
            while looks < 300 || (!counted_twice && looks < 30_000) {
                counted_twice |= board.pinned() > LIMIT;
                let exceeds = board.exceeds_limit();
                // The reader has to end, also if this test fails.
                over.fetch_or(exceeds, Ordering::Relaxed);
                assert!(!exceeds, "an honest reader");
                looks += 1;
            }
            over.store(true, Ordering::Relaxed);
            assert!(counted_twice);
        });
        reader.pin(0..LIMIT);
        assert!(!board.exceeds_limit());
        reader.pin([LIMIT]);
        assert!(board.exceeds_limit());
    }

    /// The bytes that docs/wire.md draws. They may change only together with the version.
    #[test]
    fn the_header_is_pinned() {
        let header = header(3, 2);
        assert_eq!(header[..8], *b"BATBOARD");
        assert_eq!(header[8..20], [1, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0]);
        assert!(header[20..60].iter().all(|&byte| byte == 0));
        assert_eq!(header[60..], crc32c::crc32c(&header[..60]).to_le_bytes());
        assert_eq!((total(1), total(4096 - 128), total(4096 - 127)), (4096, 4096, 8192));
    }
}
