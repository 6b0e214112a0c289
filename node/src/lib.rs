//! What every daemon is, before it is a router, a prefill or a decode worker.
//!
//! A daemon's main reads from these modules as a story: [`telemetry`] is set up, [`config`] is
//! loaded without binding anything, [`limits`] are raised and checked, an [`identity`] is taken,
//! [`serve`] binds and answers, [`task`] runs what has to run, and [`drain`] ends it. Whatever
//! goes wrong on the way becomes one line and an [`exit`] code.
//!
//! [`tenants`] is the one file that all of them share: who may ask for what; [`reload`] reads it
//! again while they run.
//!
//! Absent on purpose: anything about models, blocks or requests. This crate knows processes.
#![forbid(unsafe_code)]

pub mod admin;
pub mod auth;
pub mod clock;
pub mod config;
pub mod drain;
pub mod exit;
pub mod identity;
pub mod limits;
pub mod metrics;
pub mod redacted;
pub mod reload;
pub mod scratch;
pub mod serve;
pub mod switch;
pub mod task;
pub mod telemetry;
pub mod tenants;

pub use drain::Drain;
pub use exit::{Exit, Failure, Hint};
pub use redacted::Redacted;
pub use task::Tasks;
