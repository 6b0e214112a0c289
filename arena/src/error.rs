//! What can go wrong when an arena is made, or another's is opened.

use crate::Shape;
use std::io;

/// An arena could not be created.
#[derive(Debug, thiserror::Error)]
pub enum ArenaError {
    /// No slots, empty slots, or more bytes than an address can count.
    #[error(
        "an arena of {slots} slots of {slot_bytes} bytes cannot be laid out: both have to be at least 1, and their product has to fit the address space"
    )]
    Shape {
        /// Slots asked for.
        slots: u32,
        /// Bytes per slot asked for.
        slot_bytes: usize,
    },
    /// The machine, or this process's share of it, is smaller than the arena.
    #[error(
        "an arena of {wanted} bytes ({slots} slots of {slot_bytes} bytes) does not fit the {available} bytes of memory that are available: configure fewer slots or smaller blocks"
    )]
    TooLarge {
        /// Bytes of the whole arena.
        wanted: u64,
        /// Bytes that this process could still get.
        available: u64,
        /// Slots asked for.
        slots: u32,
        /// Bytes per slot asked for.
        slot_bytes: usize,
    },
    /// The system refused a step of the allocation.
    #[error("{step} for an arena of {wanted} bytes: {source}")]
    System {
        /// The system call.
        step: &'static str,
        /// Bytes of the whole arena.
        wanted: u64,
        /// What the system said.
        source: io::Error,
    },
}

/// Another process's arena could not be opened, or does not reach as far as was asked.
#[derive(Debug, thiserror::Error)]
pub enum PeerArenaError {
    /// Its owner could still shrink it, which would turn a read into SIGBUS; or, of an arena, punch
    /// holes into it, or have others write it.
    #[error("the peer's memory is not sealed against shrinking, or, if an arena, further writers")]
    NotSealed,
    /// It is no plain shared memory, so that reading it could fail with SIGBUS.
    #[error("the peer's arena is not a memfd of ordinary pages")]
    NotShared,
    /// The file is not as long as an arena of the expected shape, or its board.
    #[error(
        "the peer's memory has {found} bytes, {expected} were expected: another model or block size"
    )]
    Size {
        /// Bytes of an arena of that shape, or of a board for it.
        expected: u64,
        /// Bytes of the file.
        found: u64,
    },
    /// The header is not the one that an arena of the expected shape has.
    #[error("the header of the peer's arena does not describe {} slots of {} bytes: another version, model or block size", .shape.slots, .shape.slot_bytes)]
    Header {
        /// The shape that was expected.
        shape: Shape,
    },
    /// It is no pin board for so many slots.
    #[error("what the peer handed over is no pin board for {slots} slots")]
    Board {
        /// The number of slots that was expected.
        slots: u32,
    },
    /// No such slot, or bytes beyond its end.
    #[error("slot {slot}, bytes {offset} to {end}: the peer's arena has {} slots of {} bytes", .shape.slots, .shape.slot_bytes)]
    OutOfRange {
        /// The slot asked for.
        slot: u32,
        /// First byte.
        offset: usize,
        /// One past the last byte.
        end: usize,
        /// The shape that there is.
        shape: Shape,
    },
    /// The system refused a step.
    #[error("{step} on the peer's arena: {source}")]
    System {
        /// The system call.
        step: &'static str,
        /// What the system said.
        source: io::Error,
    },
}
