//! A checkpoint becomes tokens: weights, model graphs, the batch step, sampling, and the witness
//! engine.
#![forbid(unsafe_code)]

pub mod api;
pub mod checkpoint;
pub mod cpu;
mod models;
pub mod sampling;
pub mod scripted;
pub mod witness;
