//! `baton bench policies`: the router's policies on a recorded trace, side by side.
//!
//! The choice is the router's own; the workers are a model of queues, caches and speeds. It says
//! how policies compare under that model, not how fast a cluster is.

mod cluster;
mod trace;

use crate::stats::{Sample, rounded};
use baton_node::exit::{Exit, Failure};
use baton_router::choose::PolicyName;
use baton_router::config::{AssumedConfig, PlacementConfig};
use clap::Args;
use cluster::{Outcome, Setting, play};
use serde_json::{Value, json};
use std::path::PathBuf;

/// `baton bench policies`
#[derive(Debug, Args)]
pub(crate) struct PoliciesArgs {
    /// The trace: a JSON object a line, with `timestamp` in milliseconds, `input_length`,
    /// `output_length`, `hash_ids` and, if known, `session`, a number
    #[arg(value_name = "FILE.jsonl")]
    trace: PathBuf,
    /// A policy; may be given several times [default: all]
    #[arg(long, value_name = "NAME")]
    policy: Vec<PolicyName>,
    /// Decode workers
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    decode: u32,
    /// Prefill workers
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    prefill: u32,
    /// Blocks that a worker has room for
    #[arg(long, value_name = "N", default_value_t = 4000, value_parser = clap::value_parser!(u32).range(1..))]
    slots: u32,
    /// Tokens that one of the trace's hashes stands for
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    block_tokens: u32,
    /// How many times as fast as recorded turns come
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = speed)]
    speed: f64,
    /// One JSON object on the last line of stdout
    #[arg(long)]
    json: bool,
}

fn speed(text: &str) -> Result<f64, String> {
    let speed = text.parse().ok().filter(|speed| (1e-3..=1e6).contains(speed));
    speed.ok_or_else(|| "expected a number, 0.001 to 1000000".to_owned())
}

/// Tries the policies one after the other.
pub(crate) fn main(args: &PoliciesArgs) -> Result<(), Failure> {
    let block_tokens = args.block_tokens as usize;
    let turns = trace::read(&args.trace, block_tokens)?;
    let placement = PlacementConfig::default();
    let mut speeds = AssumedConfig::default().lines();
    // What is assumed of a block is about one of the usual size.
    speeds.fetch.slope_s *= block_tokens as f64 / 64.0;
    let setting = Setting {
        decode: args.decode,
        prefill: args.prefill,
        slots: args.slots,
        block_tokens,
        speed: args.speed,
        rules: placement.rules(),
        speeds,
    };
    if args.policy.contains(&PolicyName::External) {
        return Err(Failure::new(Exit::Config, "--policy external: only a router can ask one"));
    }
    let all = args.policy.is_empty();
    let policies = if all { &PolicyName::ALL[..] } else { &args.policy };
    println!("{} turns, {} decode and {} prefill workers", turns.len(), args.decode, args.prefill);
    println!(
        "{:<18}{:>12}{:>12}{:>12}{:>12}{:>10}{:>10}",
        "policy", "TTFT p50 s", "p99 s", "turn p50 s", "p99 s", "found", "prefill"
    );
    let mut rows = Vec::new();
    for policy in policies {
        let outcome = play(&turns, *policy, &setting);
        rows.push(row(*policy, outcome));
        println!("{}", line(&rows[rows.len() - 1]));
    }
    if rows.iter().any(|row| row["ttft_p50_s"].is_null()) {
        return Err(Failure::new(Exit::Runtime, "a policy has answered nothing"));
    }
    if args.json {
        let workers = (args.decode, args.prefill);
        println!(
            "{}",
            json!({"turns": turns.len(), "decode_workers": workers.0, "prefill_workers": workers.1,
                   "slots": args.slots, "speed": args.speed, "rows": rows})
        );
    }
    Ok(())
}

fn row(policy: PolicyName, outcome: Outcome) -> Value {
    let turns = outcome.ttft_s.len().max(1) as f64;
    let prompts = outcome.prompt_tokens.max(1) as f64;
    let ttft: Sample = outcome.ttft_s.into_iter().collect();
    let total: Sample = outcome.total_s.into_iter().collect();
    json!({
        "policy": policy.as_str(),
        "ttft_p50_s": rounded(ttft.percentile(50.0)),
        "ttft_p99_s": rounded(ttft.percentile(99.0)),
        "turn_p50_s": rounded(total.percentile(50.0)),
        "turn_p99_s": rounded(total.percentile(99.0)),
        "found_share": rounded(Some(1.0 - outcome.computed_tokens as f64 / prompts)),
        "prefill_share": rounded(Some(outcome.prefilled as f64 / turns)),
    })
}

fn line(row: &Value) -> String {
    let figure = |key: &str| row[key].as_f64().unwrap_or(f64::NAN);
    format!(
        "{:<18}{:>12.2}{:>12.2}{:>12.2}{:>12.2}{:>9.1}%{:>9.1}%",
        row["policy"].as_str().unwrap_or_default(),
        figure("ttft_p50_s"),
        figure("ttft_p99_s"),
        figure("turn_p50_s"),
        figure("turn_p99_s"),
        figure("found_share") * 100.0,
        figure("prefill_share") * 100.0,
    )
}
