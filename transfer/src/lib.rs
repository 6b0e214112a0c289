//! How a block moves: shared memory, TCP, and the simulated link.
