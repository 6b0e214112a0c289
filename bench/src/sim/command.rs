//! `baton bench sim`: storms in virtual time from the command line.

use super::{Report, Scenario, run};
use baton_node::clock::{Clock, Monotonic};
use baton_node::exit::{Exit, Failure};
use clap::{Args, ValueEnum};
use serde_json::json;
use std::time::Duration;

/// `baton bench sim`
#[derive(Debug, Args)]
pub(crate) struct SimArgs {
    /// The first seed
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// How many seeds, one after the other
    #[arg(long, value_name = "K", default_value_t = 100)]
    seeds: u64,
    /// What the cluster is like and what befalls it
    #[arg(long, value_name = "NAME", value_enum, default_value_t = Which::Storm)]
    scenario: Which,
    /// One JSON object on the last line of stdout
    #[arg(long)]
    json: bool,
}

/// A scenario by name.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Which {
    /// Nothing goes wrong
    Calm,
    /// Messages get lost, blocks come corrupted, workers are killed
    Storm,
    /// Memory for little more than one turn
    Tight,
    /// A small cluster drawn from each seed
    Drawn,
}

impl Which {
    fn scenario(self, seed: u64) -> Scenario {
        match self {
            Self::Calm => Scenario::calm(),
            Self::Storm => Scenario::storm(),
            Self::Tight => Scenario::tight(),
            Self::Drawn => Scenario::drawn(seed),
        }
    }
}

/// Runs the seeds; a failure names those that found something.
pub(crate) fn main(args: &SimArgs) -> Result<(), Failure> {
    let clock = Monotonic::process();
    let begun = clock.now();
    let mut reports = Vec::new();
    for seed in args.seed..args.seed.saturating_add(args.seeds) {
        let report = run(&args.scenario.scenario(seed), seed);
        for violation in &report.violations {
            println!("seed {seed}: {violation}");
        }
        reports.push(report);
    }
    let failed: Vec<u64> =
        reports.iter().filter(|r| !r.violations.is_empty()).map(|r| r.seed).collect();
    let wall = clock.now().saturating_sub(begun);
    if args.json {
        println!("{}", to_json(&reports, &failed, wall));
    } else {
        let answered: u64 = reports.iter().map(|report| report.answered).sum();
        println!("{} seeds, {answered} answers, all right: {}", reports.len(), failed.is_empty());
    }
    if let Some(seed) = failed.first() {
        let message = format!("{} of {} seeds found a violation", failed.len(), reports.len());
        let hint = format!("`--seed {seed} --seeds 1` repeats the first");
        return Err(Failure::new(Exit::Runtime, message).with_hint(hint));
    }
    Ok(())
}

fn to_json(reports: &[Report], failed: &[u64], wall: Duration) -> serde_json::Value {
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    json!({
        "seeds": reports.len(),
        "failed_seeds": failed,
        "answered": sum(|report| report.answered),
        "cancelled": sum(|report| report.cancelled),
        "lost": sum(|report| report.lost),
        "refused": sum(|report| report.refused),
        "late": sum(|report| report.late),
        "moved": sum(|report| report.moved),
        "broken_streams": sum(|report| report.broken_streams),
        "pulled_blocks": sum(|report| report.pulled_blocks),
        "failed_pulls": sum(|report| report.failed_pulls),
        "virtual_s": sum(|report| report.virtual_ms) as f64 / 1000.0,
        "wall_s": wall.as_secs_f64(),
        "digest": reports.iter().fold(0, |all: u64, r| all.rotate_left(5) ^ r.digest),
    })
}
