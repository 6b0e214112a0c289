//! A checkpoint becomes tokens: weights, model graphs, the batch step, sampling, and the witness
//! engine.

pub mod api;
pub mod sampling;
pub mod witness;
