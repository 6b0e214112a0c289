//! What prefill and decode share: the engine loop, block events, fetch, seal and publish.
#![forbid(unsafe_code)]

pub mod blocks;
pub mod claims;
pub mod fill;
pub mod plan;
pub mod sequence;
