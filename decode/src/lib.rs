//! The decode daemon: blocks to tokens. Its schedule is a pure core; around it stand the shell
//! that talks to routers and prefill workers, and the main.
#![forbid(unsafe_code)]

mod batch;
pub mod config;
pub mod daemon;
pub mod event;
mod join;
pub mod prefill_call;
pub mod schedule;
pub mod service;
pub mod shell;
pub mod thinking;
pub mod turn;
pub mod wire;
