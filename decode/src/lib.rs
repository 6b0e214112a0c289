//! The decode daemon: blocks to tokens. Its schedule is a pure core; around it stand the shell
//! that talks to routers and prefill workers, and the main.
#![forbid(unsafe_code)]

mod batch;
pub mod event;
pub mod schedule;
pub mod turn;
