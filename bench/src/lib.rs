//! Load, simulation and microbenchmarks.
#![forbid(unsafe_code)]

mod args;
mod choose;
pub mod client;
mod load;
mod parse;
mod policies;
mod signals;
pub mod sim;
mod smoke;
mod stats;
mod xfer;

pub use args::{BenchArgs, main};
pub use xfer::{XferArgs, main as xfer};
