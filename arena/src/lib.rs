//! Memory that others may see: arenas of equal slots in a memfd, and their records.

/// A shared memory arena of equal slots.
#[derive(Clone, Debug)]
pub struct Arena;
