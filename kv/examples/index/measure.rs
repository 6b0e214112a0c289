//! The clock's part: lookups one by one, a reader beside a busy writer, and resident memory.

use crate::chance::Chance;
use crate::world::{GROUP, World};
use baton_kv::index::View;
use baton_proto::ids::SequenceHash;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Times are counted in steps of so many nanoseconds,
const STEP_NS: u128 = 5;
/// up to a millisecond; what takes longer counts as that.
const STEPS: usize = 200_000;

/// How often something took how long. Of a fixed size: memory is measured too.
#[derive(Clone, Debug)]
pub(super) struct Times {
    counts: Box<[u32]>,
    total: u64,
}

impl Default for Times {
    fn default() -> Self {
        Self { counts: vec![0; STEPS].into(), total: 0 }
    }
}

impl Times {
    pub(super) fn add(&mut self, took: Duration) {
        let step = (took.as_nanos() / STEP_NS).min(STEPS as u128 - 1);
        self.counts[step as usize] += 1;
        self.total += 1;
    }

    fn add_all(&mut self, more: &Self) {
        self.counts.iter_mut().zip(&more.counts).for_each(|(count, more)| *count += more);
        self.total += more.total;
    }

    /// What so many of a thousand did not exceed, in microseconds.
    pub(super) fn quantile_us(&self, permille: u64) -> f64 {
        let wanted = (self.total * permille).div_ceil(1000);
        let mut rest = wanted;
        let step = self.counts.iter().position(|count| {
            rest = rest.saturating_sub(u64::from(*count));
            rest == 0
        });
        (step.unwrap_or(STEPS - 1) + 1) as f64 * STEP_NS as f64 / 1e3
    }
}

/// Lookups, timed one by one; reading the clock is part of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Speed {
    pub(super) times: Times,
    pub(super) lookups: u64,
    /// Blocks of the chains looked up.
    pub(super) blocks: u64,
    /// Workers found.
    pub(super) found: u64,
    pub(super) spent: Duration,
}

impl Speed {
    pub(super) fn per_s(&self, count: u64) -> f64 {
        count as f64 / self.spent.as_secs_f64()
    }
}

#[expect(clippy::disallowed_methods, reason = "what is measured is real time")]
pub(super) fn now() -> Instant {
    Instant::now()
}

pub(super) fn timed<T>(body: impl FnOnce() -> T) -> (T, Duration) {
    let start = now();
    let result = body();
    (result, start.elapsed())
}

/// Looks random ones of `chains` up, and before each of them so many of `others`, which are not
/// timed.
pub(super) fn lookups(
    view: &View,
    chains: &[Vec<SequenceHash>],
    (others, between): (&[Vec<SequenceHash>], usize),
    times: u64,
    chance: &mut Chance,
) -> Speed {
    let any = |chains: &[Vec<_>], chance: &mut Chance| chance.below(chains.len() as u64) as usize;
    let mut speed = Speed::default();
    let mut reader = view.reader();
    for round in 0..times + times / 10 {
        for _ in 0..between {
            reader.find(&others[any(others, chance)], GROUP);
        }
        let chain = &chains[any(chains, chance)];
        let (found, took) = timed(|| reader.find(chain, GROUP));
        // The first ones warm up.
        if round >= times / 10 {
            speed.times.add(took);
            speed.spent += took;
            speed.lookups += 1;
            speed.blocks += chain.len() as u64;
            speed.found += found.len() as u64;
        }
    }
    speed
}

/// One reader looks chains up, again and again, while the writer lets conversations grow and
/// shrink. Returns what the reader did.
pub(super) fn beside_the_writer(
    world: &mut World,
    chains: &[Vec<SequenceHash>],
    how_long: Duration,
    seed: u64,
) -> Speed {
    let view = world.index.view().clone();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut chance = Chance(seed ^ 1);
            let mut all = Speed::default();
            while !done.load(Ordering::Relaxed) {
                let more = lookups(&view, chains, (&[], 0), 1_000, &mut chance);
                all.times.add_all(&more.times);
                all.lookups += more.lookups;
                all.spent += more.spent;
            }
            all
        });
        let mut chance = Chance(seed ^ 2);
        let start = now();
        while start.elapsed() < how_long {
            world.churn(&mut chance);
        }
        done.store(true, Ordering::Relaxed);
        reader.join().expect("the reader does not panic")
    })
}

/// Memory that the process has in use, in bytes, as the system counts it; 0 where it does not say.
pub(super) fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok());
    kib.unwrap_or(0.0) * 1024.0
}
