//! What a KV block is: its identity, its life in a pool of slots, who may read and write it, and
//! who is told about it. Pure: slot numbers, never memory; no clock, no runtime.
#![forbid(unsafe_code)]

pub mod lease;
