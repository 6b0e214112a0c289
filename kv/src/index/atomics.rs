//! What the shared parts of the index are built on, in one place: the model checker runs the same
//! sources on its own atomics, and on tables as small as possible.

pub(super) use std::hint::spin_loop;
pub(super) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// Buckets of an empty table; a power of two.
pub(super) const FIRST_BUCKETS: usize = 256;
/// Rows of the first segments of an array that grows; a power of two.
pub(super) const FIRST_ROWS: usize = 64;
/// Entries that have places in their bucket.
pub(super) const PLACES: usize = 6;
/// The table grows when two buckets have so many entries on average. One that waits to be split then
/// has up to five; where it has more than places, some are linked.
pub(super) const FULL: usize = 6;
