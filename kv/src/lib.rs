//! What a KV block is: its identity, its life in a pool of slots, who may read and write it, and
//! who is told about it. Pure: slot numbers, never memory; no clock, no entropy, no runtime.
//!
//! A block's life, each state a type of its own:
//!
//! ```text
//!             Pool::draft                Pool::seal           Pool::publish
//!   free slot ───────────▶ Draft ──────────────────▶ Sealed ───────────────▶ held, ReadPin
//!                          │   ▲                                               │
//!                     lend │   │ settle                       evicted: an unpinned leaf,
//!                          ▼   │                              least recently used first
//!                        WriteLease ── dropped ──▶ quarantined, never used again
//! ```
//!
//! [`hash`] computes identities, [`record`] is what lies beside a block in memory that others may
//! read, [`pool`] keeps the slots of one worker, [`events`] tells about them, and [`index`] is what
//! a router makes of the events of all workers.
#![deny(unsafe_code)]

mod block;
pub mod events;
mod guard;
pub mod hash;
pub mod index;
pub mod lease;
pub mod pool;
pub mod record;
pub mod retention;

pub use block::{BlockId, BlockKey, Tier};
