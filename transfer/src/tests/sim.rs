//! The simulated link.
