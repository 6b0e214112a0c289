//! Load, simulation and microbenchmarks.
#![forbid(unsafe_code)]

mod args;
pub mod client;
pub mod sim;
mod smoke;

pub use args::{BenchArgs, main};
