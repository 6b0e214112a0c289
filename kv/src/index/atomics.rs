//! What the shared parts of the index are built on, in one place: the model checker runs the same
//! sources on its own atomics, and on tables as small as possible.

pub(super) use std::hint::spin_loop;
pub(super) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// Buckets of an empty table, each with a version of its own; a power of two.
pub(super) const STRIPES: usize = 256;
/// Rows of the first segments of an array that grows; a power of two.
pub(super) const FIRST_ROWS: usize = 64;
/// Buckets for each entry: most are empty, and whoever looks there for what is not known is done.
pub(super) const BUCKETS: usize = 2;
