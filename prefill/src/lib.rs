//! The prefill daemon: prompts to sealed blocks. Its schedule is a pure core; around it stand the
//! shell that serves decode workers, and the main.
#![forbid(unsafe_code)]

pub mod config;
pub mod daemon;
pub mod job;
pub mod schedule;
pub mod service;
pub mod shell;
