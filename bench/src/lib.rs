//! Load, simulation and microbenchmarks.
