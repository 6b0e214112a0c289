//! What prefill and decode share: the engine loop, block events, fetch, seal and publish.
//!
//! From the inside out: [`blocks`] are slots with their records; a [`sequence`] is tokens over
//! blocks; a [`fill`] brings a sequence's blocks together, with [`claims`] so that equal work is
//! done once; a [`queue`] says who comes first; a schedule (see [`plan`]) decides, and the
//! [`engine_loop`] drives it. Around that stand the [`grounds`] of a daemon, the [`tenancy`] that
//! lets turns in, the [`service`] that tells others, and the [`daemon`].
#![forbid(unsafe_code)]

pub mod blocks;
pub mod claims;
pub mod config;
pub mod daemon;
mod data_plane;
pub mod device;
pub mod engine_loop;
pub mod fabric;
pub mod fill;
pub mod grounds;
pub mod links;
mod metrics;
pub mod model;
pub mod peers;
pub mod plan;
pub mod queue;
pub mod sequence;
pub mod service;
pub mod tenancy;
pub mod wire;
