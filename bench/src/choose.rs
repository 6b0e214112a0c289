//! `baton bench choose`: how long the choice of a worker takes, in one process and on one thread.
//!
//! Clusters and turns are drawn from a seed. What is timed is [`Fleet::choose`]: who holds what of
//! the prompt is given, as the index says it, and the plan comes out. A router does this under a
//! lock, once for each turn.

use crate::sim::chance::Chance;
use crate::stats::Sample;
use baton_node::clock::{Clock, Monotonic};
use baton_node::exit::{Exit, Failure};
use baton_proto::ids::WorkerId;
use baton_router::choose::{Ask, Fleet, Load, PolicyName, Role};
use baton_router::config::{AssumedConfig, PlacementConfig};
use clap::Args;
use serde_json::json;
use std::hint::black_box;

/// Turns that are drawn for a case; they come again and again.
const TURNS: usize = 512;
const BLOCK_TOKENS: usize = 64;
/// Blocks of a prompt, at most: 110,000 tokens.
const BLOCKS_MAX: u64 = 1719;
const SLOTS: u32 = 100_000;

/// `baton bench choose`
#[derive(Debug, Args)]
pub(crate) struct ChooseArgs {
    /// Workers, of both roles together
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    workers: u32,
    /// Choices that are timed in each case
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..))]
    choices: u32,
    /// Decides the clusters and the turns
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// One JSON object on the last line of stdout
    #[arg(long)]
    json: bool,
}

/// A cluster, and turns for it.
struct Case {
    fleet: Fleet,
    turns: Vec<(Ask, Vec<(WorkerId, usize)>)>,
}

/// One line of the result.
struct Row {
    policy: PolicyName,
    decode: u32,
    prefill: u32,
    holders: u32,
    micros: Sample,
}

/// Times all policies on clusters of decode workers alone and of both roles.
pub(crate) fn main(args: &ChooseArgs) -> Result<(), Failure> {
    let half = args.workers / 2;
    let mut rows = Vec::new();
    println!(
        "{:<18}{:>8}{:>9}{:>9}{:>10}{:>10}",
        "policy", "decode", "prefill", "holders", "p50 us", "p99 us"
    );
    for (decode, prefill) in [(args.workers, 0), (args.workers - half, half)] {
        for holders in [0, 32.min(args.workers), args.workers] {
            for policy in PolicyName::ALL {
                let case = draw(args.seed, decode, prefill, holders);
                let micros = time(case, policy, args.choices);
                let row = Row { policy, decode, prefill, holders, micros };
                let at = |percent| row.micros.percentile(percent).unwrap_or(f64::NAN);
                println!(
                    "{policy:<18}{decode:>8}{prefill:>9}{holders:>9}{:>10.2}{:>10.2}",
                    at(50.0),
                    at(99.0)
                );
                rows.push(row);
            }
        }
    }
    if args.json {
        println!("{}", to_json(args, &rows));
    }
    if rows.iter().any(|row| row.micros.median().is_none()) {
        return Err(Failure::new(Exit::Runtime, "a case was not timed"));
    }
    Ok(())
}

fn to_json(args: &ChooseArgs, rows: &[Row]) -> serde_json::Value {
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            json!({
                "policy": row.policy.as_str(),
                "decode_workers": row.decode,
                "prefill_workers": row.prefill,
                "holders": row.holders,
                "p50_us": crate::stats::rounded(row.micros.percentile(50.0)),
                "p99_us": crate::stats::rounded(row.micros.percentile(99.0)),
            })
        })
        .collect();
    json!({"workers": args.workers, "choices": args.choices, "seed": args.seed, "rows": rows})
}

fn time(mut case: Case, policy: PolicyName, choices: u32) -> Sample {
    let clock = Monotonic::process();
    let rules = PlacementConfig::default().rules();
    let policy = policy.policy();
    let mut micros = Vec::with_capacity(choices as usize);
    let turns = case.turns.iter().cycle();
    // The first round is not counted: it brings the arrays to their size.
    for (at, (ask, held)) in turns.take(choices as usize + TURNS).enumerate() {
        let begun = clock.now();
        let plan = case.fleet.choose(policy, black_box(ask), &rules, held.iter().copied(), &[]);
        let took = clock.now().saturating_sub(begun);
        black_box(plan);
        if at >= TURNS {
            micros.push(took.as_nanos() as f64 / 1e3);
        }
    }
    micros.into_iter().collect()
}

/// Workers with all kinds of load, and prompts of which `holders` workers hold something.
fn draw(seed: u64, decode: u32, prefill: u32, holders: u32) -> Case {
    let mut chance = Chance::new(seed);
    let mut fleet = Fleet::new(AssumedConfig::default().lines());
    let mut workers = Vec::new();
    for (role, count) in [(Role::Decode, decode), (Role::Prefill, prefill)] {
        for _ in 0..count {
            let id = WorkerId(chance.below(u64::from(u32::MAX)) as u32);
            fleet.join(id, role, SLOTS);
            let free_blocks = chance.below(u64::from(SLOTS)) as u32;
            let load = Load {
                queued: chance.below(4) as u32,
                running: chance.below(64) as u32,
                free_blocks,
                evictable_blocks: SLOTS - free_blocks,
                pending_tokens: chance.below(20_000),
            };
            fleet.set_load(id, load);
            workers.push(id);
        }
    }
    let turns = (0..TURNS).map(|turn| {
        let blocks = chance.between(1, BLOCKS_MAX);
        let ask = Ask {
            prompt_tokens: blocks as usize * BLOCK_TOKENS + 1,
            answer_tokens: chance.between(1, 2000) as usize,
            choices: 1,
            block_tokens: BLOCK_TOKENS,
            spread: chance.below(u64::MAX),
            turn: turn as u64,
            session: Some(chance.below(1000)),
        };
        let first = chance.below(workers.len() as u64) as usize;
        let others = workers.iter().cycle().skip(first).take(holders as usize);
        let mut held: Vec<_> =
            others.map(|worker| (*worker, chance.between(1, blocks) as usize)).collect();
        held.sort_by_key(|(_, blocks)| std::cmp::Reverse(*blocks));
        (ask, held)
    });
    let turns = turns.collect();
    Case { fleet, turns }
}
