//! What the block index does, alone in one process: how long a lookup takes, how fast events are
//! taken up, what a block costs, and whether memory stays what it was. Fails where a lookup is not
//! exact.
//!
//! ```text
//! cargo run --release -p baton-kv --example index -- --json
//! ```
#![forbid(unsafe_code)]

mod chance;
mod limits;
mod measure;
mod replay;
mod report;
mod trace;
mod world;

use chance::Chance;
use measure::{Speed, Times, beside_the_writer, lookups, resident};
use replay::Replay;
use report::Report;
use std::process::ExitCode;
use std::time::Duration;
use world::{BATCH_EVENTS, Chain, DEPTHS, GROUP, LONG_BLOCKS, World};

const USAGE: &str = "options, each with a number, and what it is without them:
  --workers 1024            workers
  --conversations 2500      conversations of 20,000 to 128,000 tokens, each held by two workers
  --lookups 200000          lookups of each kind
  --churn-events 10000000   random events, after which memory should be what it was
  --beside-s 3              how long a reader looks things up beside a busy writer
  --seed 1                  what chance follows
  --operations FILE         play these instead, of another index's benchmark: by themselves,
  --window-ms 0             or, if this is not 0, at their deadlines within so many milliseconds,
  --lanes 2                 looked up by so many threads
  --json                    (without a number) one JSON object on the last line of stdout";

/// Conversations whose lookups are repeated: more than a core's cache has room for.
const ASKED: usize = 256;
/// Lookups that are compared with the truth before anything is timed, and in the end.
const CHECKED: u64 = 64;
/// Lookups of conversations between two of the one chain, where its memory is to be cold.
const BETWEEN: usize = 8;
/// At so many points of the churn memory is looked at.
const CHURN_PARTS: u64 = 5;
/// So often in a part of the churn a worker restarts.
const RESTARTS: u64 = 4;

#[derive(Clone, Debug)]
struct Options {
    workers: u64,
    conversations: u64,
    lookups: u64,
    churn_events: u64,
    beside_s: u64,
    seed: u64,
    json: bool,
    operations: Option<String>,
    window_ms: u64,
    lanes: u64,
}

fn options(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options {
        workers: 1024,
        conversations: 2500,
        lookups: 200_000,
        churn_events: 10_000_000,
        beside_s: 3,
        seed: 1,
        json: false,
        operations: None,
        window_ms: 0,
        lanes: 2,
    };
    while let Some(word) = words.next() {
        let (field, range) = match word.as_str() {
            "--json" => {
                options.json = true;
                continue;
            }
            "--operations" => {
                options.operations = Some(words.next().ok_or("`--operations` wants a file")?);
                continue;
            }
            "--window-ms" => (&mut options.window_ms, 0..=600_000),
            "--lanes" => (&mut options.lanes, 1..=64),
            "--workers" => (&mut options.workers, 16..=65_536),
            "--conversations" => (&mut options.conversations, 16..=100_000),
            "--lookups" => (&mut options.lookups, 10..=100_000_000),
            "--churn-events" => (&mut options.churn_events, 1..=1_000_000_000),
            "--beside-s" => (&mut options.beside_s, 1..=600),
            "--seed" => (&mut options.seed, 0..=u64::MAX),
            _ => return Err(format!("`{word}` is not known; {USAGE}")),
        };
        let number = words.next().and_then(|number| number.parse::<u64>().ok());
        *field = number
            .filter(|number| range.contains(number))
            .ok_or_else(|| format!("`{word}` wants a number in {range:?}"))?;
    }
    Ok(options)
}

fn main() -> ExitCode {
    let result = options(std::env::args().skip(1)).and_then(|options| {
        let report = match &options.operations {
            None => run(&options)?,
            Some(path) => {
                let (path, window_ms) = (path.clone(), options.window_ms);
                replay::run(&Replay { path, window_ms, lanes: options.lanes as usize })?
            }
        };
        print!("{}", report.to_text());
        if options.json {
            println!("{}", report.to_json());
        }
        Ok(())
    });
    let Err(why) = result else { return ExitCode::SUCCESS };
    eprintln!("{why}");
    ExitCode::FAILURE
}

fn run(options: &Options) -> Result<Report, String> {
    let mut chance = Chance(options.seed);
    let mut report = Report::default();
    // Small lists are asked for and given back once, so that what the allocator takes for them is
    // not counted as the index's.
    World::new(options.workers, 16).fill();
    let before = resident();
    let mut world = World::new(options.workers, options.conversations);
    world.fill();
    let blocks = world.index.blocks() as f64;
    let bytes_per_block = (resident() - before) / blocks;
    report.add("distinct_blocks", "distinct blocks", blocks, "");
    events(&mut report, &mut world, &PUBLISH);

    let (deep, depths) = world.fill_deep(&mut chance);
    check(&world, &mut chance)?;
    let mut found = world.index.matches(&deep.asked(), GROUP);
    found.sort_by_key(|found| found.worker);
    if found != depths {
        return Err("a lookup of the long chain was not exact".to_owned());
    }
    let view = world.index.view().clone();
    let long: Vec<_> = (0..ASKED).map(|_| Chain::long(world.chains, &mut chance).asked()).collect();
    let any: Vec<_> = (0..ASKED).map(|_| Chain(chance.below(world.chains)).asked()).collect();
    let speed = lookups(&view, &long, (&[], 0), options.lookups, &mut chance);
    looked_up(&mut report, &speed, &LONG);
    report.at_most(1.0);
    let speed = lookups(&view, &any, (&[], 0), options.lookups, &mut chance);
    looked_up(&mut report, &speed, &ANY);
    report.at_most(1.0);
    let one = [deep.asked()];
    let name = format!("{LONG_BLOCKS} blocks held to {DEPTHS} depths by all workers");
    let speed = lookups(&view, &one, (&[], 0), options.lookups, &mut chance);
    report.add("deep_p50_us", &format!("{name}, p50"), speed.times.quantile_us(500), "us");
    report.at_most(2.0);
    report.add("deep_p99_us", "  p99", speed.times.quantile_us(990), "us");
    let speed = lookups(&view, &one, (&any, BETWEEN), options.lookups / 10, &mut chance);
    let name = "  after lookups of other chains";
    report.add("deep_cold_p50_us", &format!("{name}, p50"), speed.times.quantile_us(500), "us");
    report.add("deep_cold_p99_us", &format!("{name}, p99"), speed.times.quantile_us(990), "us");

    let how_long = Duration::from_secs(options.beside_s);
    forget_times(&mut world);
    let speed = beside_the_writer(&mut world, &any, how_long, options.seed);
    let name = "lookup of a conversation beside the writer";
    report.add("beside_p50_us", &format!("{name}, p50"), speed.times.quantile_us(500), "us");
    report.add("beside_p99_us", "  p99", speed.times.quantile_us(990), "us");
    events(&mut report, &mut world, &BESIDE);
    report.add("bytes_per_block", "resident bytes per distinct block", bytes_per_block, "");
    report.at_most(64.0);
    churn(options, &mut world, &mut chance, &mut report);
    check(&world, &mut chance)?;
    Ok(report)
}

fn check(world: &World, chance: &mut Chance) -> Result<(), String> {
    let mut chains = (0..CHECKED).map(|_| Chain(chance.below(world.chains)));
    match chains.find(|chain| !world.is_exact(*chain)) {
        None => Ok(()),
        Some(Chain(number)) => Err(format!("a lookup of conversation {number} was not exact")),
    }
}

/// Keys and names of figures that belong together.
type Names<const N: usize> = [(&'static str, &'static str); N];

const LONG: Names<5> = [
    ("long_p50_us", "lookup of a prompt of 110,000 tokens, 700 of them new, p50"),
    ("long_found", "  workers found, mean"),
    ("long_m_lookups_per_s", "  lookups of one reader"),
    ("long_m_blocks_per_s", "  blocks of the prompts looked up"),
    ("long_p99_us", "  p99"),
];
const ANY: Names<5> = [
    ("lookup_p50_us", "lookup of a prompt of 20,000 to 128,000 tokens, p50"),
    ("lookup_found", "  workers found, mean"),
    ("m_lookups_per_s", "  lookups of one reader"),
    ("m_blocks_per_s", "  blocks of the prompts looked up"),
    ("lookup_p99_us", "  p99"),
];

/// The 99th percentile comes last.
fn looked_up(report: &mut Report, speed: &Speed, names: &Names<5>) {
    let values = [
        (speed.times.quantile_us(500), "us"),
        (speed.found as f64 / speed.lookups as f64, ""),
        (speed.per_s(speed.lookups) / 1e6, "M/s"),
        (speed.per_s(speed.blocks) / 1e6, "M/s"),
        (speed.times.quantile_us(990), "us"),
    ];
    for ((key, name), (value, unit)) in names.iter().zip(values) {
        report.add(key, name, value, unit);
    }
}

const PUBLISH: Names<3> = [
    ("publish_batch_p50_us", "32 events of new blocks applied, p50"),
    ("publish_batch_p99_us", "  p99"),
    ("publish_m_events_per_s", "  events applied"),
];
const BESIDE: Names<3> = [
    ("beside_batch_p50_us", "  32 events applied meanwhile, p50"),
    ("beside_batch_p99_us", "  p99"),
    ("beside_m_events_per_s", "  events applied"),
];
const CHURN: Names<3> = [
    ("churn_batch_p50_us", "32 events of conversations that grow and shrink, p50"),
    ("churn_batch_p99_us", "  p99"),
    ("churn_m_events_per_s", "  events applied"),
];
const _: () = assert!(BATCH_EVENTS == 32);

/// What the writer did since its times were forgotten.
fn events(report: &mut Report, world: &mut World, names: &Names<3>) {
    let per_s = world.events as f64 / world.spent.as_secs_f64();
    let batches = &world.batches;
    let values =
        [(batches.quantile_us(500), "us"), (batches.quantile_us(990), "us"), (per_s / 1e6, "M/s")];
    for ((key, name), (value, unit)) in names.iter().zip(values) {
        report.add(key, name, value, unit);
    }
    forget_times(world);
}

fn forget_times(world: &mut World) {
    world.batches = Times::default();
    world.spent = Duration::ZERO;
    world.events = 0;
}

/// Grows and shrinks random conversations; now and then a worker restarts.
fn churn(options: &Options, world: &mut World, chance: &mut Chance, report: &mut Report) {
    let mut mib = Vec::new();
    for part in 1..=CHURN_PARTS {
        for restart in 1..=RESTARTS {
            let share = (part - 1) * RESTARTS + restart;
            let end = options.churn_events * share / (CHURN_PARTS * RESTARTS);
            while world.events < end {
                world.churn(chance);
            }
            let chain = Chain(chance.below(world.chains));
            world.restart(world.worker(chain, 0));
        }
        mib.push(resident() / f64::from(1 << 20));
    }
    events(report, world, &CHURN);
    let most = mib.iter().skip(1).copied().fold(mib[0], f64::max);
    report.add("churn_mib", "resident memory after the first fifth of that", mib[0], "MiB");
    let growth = (most / mib[0] - 1.0) * 100.0;
    report.add("churn_growth_percent", "  growth until the end", growth, "%");
    report.at_most(2.0);
}
