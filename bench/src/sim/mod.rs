//! The whole cluster in virtual time, on one thread, from a seed.
//!
//! The pure cores are the real ones: both schedules, pools, arenas, the index fed by the pools'
//! event logs, the router's choice, the checks of the transports, and the witness engine. Around
//! them stand a queue of what happens next, links that delay, lose, double, reorder and corrupt,
//! and faults that kill workers and bring them back.
//!
//! A run is judged when all has ended: every answer is the one that [`expected`] computes from
//! prompt and seed (of an answer that broke off: its beginning), every request ended once and in
//! time, every slot of every live worker is free or cached, nothing is leased, claimed or promised,
//! and every router's index equals the truth. Equal scenarios and seeds give equal runs.
//!
//! [`expected`]: baton_engine::witness::expected
//!
//! ```
//! use baton_bench::sim::{Scenario, run};
//!
//! let report = run(&Scenario::storm(), 1);
//! assert!(report.violations.is_empty(), "{:?}", report.violations);
//! ```

pub(crate) mod chance;
mod cluster;
pub(crate) mod command;
mod judge;
mod load;
mod messages;
mod net;
mod pulls;
mod report;
mod router;
mod scenario;
#[cfg(test)]
mod tests;
mod turns;
mod worker;

pub use report::Report;
pub use scenario::{Fault, Load, Scenario};

/// Runs a scenario from a seed.
pub fn run(scenario: &Scenario, seed: u64) -> Report {
    cluster::Cluster::new(scenario, seed).run()
}
