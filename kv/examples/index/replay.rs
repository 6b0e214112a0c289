//! Plays a trace upon the index: by itself, as fast as it goes, or at its deadlines, with threads
//! that issue, look up and take events up side by side. All events count until the last of them has
//! been taken up, and every lookup is exact afterwards.

use crate::limits;
use crate::measure::{Times, now, timed};
use crate::report::Report;
use crate::trace::{Operation, Trace, What};
use crate::world::{GROUP, RUN};
use baton_kv::events::Batch;
use baton_kv::index::{Depths, Index, IndexConfig, Match, View};
use baton_proto::ids::{SequenceHash, WorkerId};
use std::collections::HashSet;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// Before a deadline an issuer sleeps, but the last so many nanoseconds.
const SPIN_NS: u64 = 75_000;
/// Between the start of all threads and the first deadline.
const HEAD_START_NS: u64 = 20_000_000;

/// How a trace is played.
#[derive(Clone, Debug)]
pub(super) struct Replay {
    pub(super) path: String,
    /// The time that all deadlines lie in; 0 to play lookups and events by themselves.
    pub(super) window_ms: u64,
    /// Threads that look up.
    pub(super) lanes: usize,
}

/// When something was issued, begun and done, in nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Served {
    accepted: u64,
    started: u64,
    finished: u64,
}

#[derive(Clone, Copy, Debug)]
struct Clock {
    epoch: Instant,
}

impl Clock {
    fn now(self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    #[expect(clippy::disallowed_methods, reason = "what is measured is real time")]
    fn wait_until(self, target: u64) {
        let left = target.saturating_sub(SPIN_NS).saturating_sub(self.now());
        if left > 0 {
            std::thread::sleep(Duration::from_nanos(left));
        }
        while self.now() < target {
            std::hint::spin_loop();
        }
    }
}

pub(super) fn run(replay: &Replay) -> Result<Report, String> {
    let trace = Trace::read(&replay.path)?;
    let mut index = Index::new(IndexConfig {
        workers_max: trace.workers as usize,
        blocks_per_worker_max: 1 << 24,
        blocks_max: 1 << 28,
        pending_max: 0,
    });
    for worker in 0..trace.workers {
        index.join(WorkerId(worker), RUN).map_err(|error| error.to_string())?;
    }
    let mut report = Report::default();
    report.add("lookups", "lookups", trace.lookups as f64, "");
    report.add("lookup_blocks", "  of so many blocks", trace.lookup_blocks as f64, "");
    let events = trace.operations.len() as u64 - trace.lookups;
    report.add("events", "events", events as f64, "");
    report.add("event_blocks", "  of so many blocks", trace.event_blocks as f64, "");
    if replay.window_ms == 0 {
        alone(&mut index, &trace, &mut report);
        limits::add(&trace, &mut report);
    } else {
        load(&mut index, &trace, replay, &mut report);
    }
    let truth = trace.truth();
    if index.blocks() < truth.blocks() {
        return Err("blocks are missing".to_owned());
    }
    let chains: HashSet<_> = trace.chains().collect();
    for chain in chains {
        let mut found = index.matches(chain, GROUP);
        found.sort_by_key(|found| found.worker);
        if found != truth.matches(chain) {
            return Err(format!("a lookup of {} blocks was not exact", chain.len()));
        }
    }
    Ok(report)
}

/// Each worker with its depth, spelt out.
fn spell(depths: &Depths<'_>, found: &mut Vec<Match>) {
    found.clear();
    found.extend(depths.iter());
    black_box(found);
}

/// All events on this thread, and then all lookups.
fn alone(index: &mut Index, trace: &Trace, report: &mut Report) {
    let batches: Vec<_> = trace.operations.iter().filter_map(batch).collect();
    let ((), events) = timed(|| {
        for (worker, batch) in batches {
            index.apply(worker, RUN, batch).expect("there is no gap");
        }
    });
    let (mut reader, mut found, mut times) = (index.view().reader(), Vec::new(), Times::default());
    let ((), lookups) = timed(|| {
        for chain in trace.chains() {
            let ((), took) = timed(|| spell(&reader.find(chain, GROUP), &mut found));
            times.add(took);
        }
    });
    let (events, lookups) = (events.as_secs_f64(), lookups.as_secs_f64());
    let per_s = trace.lookups as f64 / lookups;
    report.add("lookups_per_s", "lookups per second", per_s, "/s");
    let per_s = trace.event_blocks as f64 / events;
    report.add("event_blocks_per_s", "blocks of events per second", per_s, "/s");
    let per_s = (trace.lookup_blocks + trace.event_blocks) as f64 / (events + lookups);
    report.add("block_ops_per_s", "blocks of both per second", per_s, "/s");
    report.add("lookup_p50_us", "a lookup, p50", times.quantile_us(500), "us");
    report.add("lookup_p99_us", "  p99", times.quantile_us(990), "us");
    report.at_most(1.0);
}

fn batch(operation: &Operation) -> Option<(WorkerId, &Batch)> {
    match &operation.what {
        What::Events(batch) => Some((operation.worker, batch)),
        What::Lookup(_) => None,
    }
}

/// What the threads of a load share.
struct Stage<'a> {
    clock: Clock,
    start: u64,
    trace: &'a Trace,
    /// Deadlines are multiplied by this and divided by the trace's window.
    window_ns: u64,
    /// The deadline of the first lookup that has not been issued.
    next_lookup: AtomicU64,
}

impl<'a> Stage<'a> {
    fn deadline(&self, operation: &Operation) -> u64 {
        let scaled = u128::from(operation.deadline_ns) * u128::from(self.window_ns)
            / u128::from(self.trace.window_ns);
        self.start + scaled as u64
    }

    fn issue_lookups(&self, lanes: &[SyncSender<Asked<'a>>]) {
        for operation in &self.trace.operations {
            let What::Lookup(chain) = &operation.what else { continue };
            let deadline = self.deadline(operation);
            self.next_lookup.store(deadline, Ordering::Release);
            self.clock.wait_until(deadline);
            let lane = &lanes[operation.worker.0 as usize % lanes.len()];
            lane.send((self.clock.now(), chain)).expect("lanes listen until all is said");
        }
        self.next_lookup.store(u64::MAX, Ordering::Release);
    }

    /// At the same deadline lookups come before events.
    fn issue_events(&self, batches: Vec<(WorkerId, Batch, u64)>, sink: &SyncSender<Event>) -> u64 {
        for (worker, batch, deadline) in batches {
            self.clock.wait_until(deadline);
            while self.next_lookup.load(Ordering::Acquire) <= deadline {
                std::hint::spin_loop();
            }
            sink.send((self.clock.now(), worker, batch))
                .expect("the writer listens until all is said");
        }
        self.clock.now()
    }

    fn look_up(&self, view: &View, asked: &Receiver<Asked<'a>>) -> Vec<Served> {
        let (mut reader, mut found) = (view.reader(), Vec::new());
        let mut served = Vec::with_capacity(self.trace.lookups as usize);
        for (accepted, chain) in asked {
            let started = self.clock.now();
            spell(&reader.find(chain, GROUP), &mut found);
            served.push(Served { accepted, started, finished: self.clock.now() });
        }
        served
    }

    /// An event is begun when it is there and the one before it is done.
    fn take_up(&self, index: &mut Index, told: &Receiver<Event>) -> Vec<Served> {
        let mut served: Vec<Served> = Vec::with_capacity(self.trace.operations.len());
        for (accepted, worker, batch) in told {
            index.apply(worker, RUN, &batch).expect("there is no gap");
            let finished = self.clock.now();
            let started = served.last().map_or(accepted, |last| last.finished.max(accepted));
            served.push(Served { accepted, started, finished });
        }
        served
    }
}

/// A chain on its way to a lane, and since when.
type Asked<'a> = (u64, &'a [SequenceHash]);
/// Events on their way to the writer, and since when.
type Event = (u64, WorkerId, Batch);

/// Lookups and events side by side, each at its deadline.
fn load(index: &mut Index, trace: &Trace, replay: &Replay, report: &mut Report) {
    let clock = Clock { epoch: now() };
    let start = clock.now() + HEAD_START_NS;
    let (window_ns, next_lookup) = (replay.window_ms * 1_000_000, AtomicU64::new(0));
    let mut stage = Stage { clock, start, trace, window_ns, next_lookup };
    let owned = |operation| {
        batch(operation).map(|(worker, batch)| (worker, batch.clone(), stage.deadline(operation)))
    };
    let mut batches: Vec<_> = trace.operations.iter().filter_map(owned).collect();
    // Cloning them took time.
    let late = clock.now() + HEAD_START_NS - start;
    for (_, _, deadline) in &mut batches {
        *deadline += late;
    }
    stage.start += late;
    let stage = &stage;
    let view = &index.view().clone();
    // Whoever issues never waits.
    let all = trace.operations.len();
    let (stop, lookups, events) = std::thread::scope(|scope| {
        let (lanes, asked): (Vec<_>, Vec<_>) = (0..replay.lanes).map(|_| sync_channel(all)).unzip();
        let (sink, told) = sync_channel(all);
        let readers: Vec<_> = asked
            .into_iter()
            .map(|asked| scope.spawn(move || stage.look_up(view, &asked)))
            .collect();
        let writer = scope.spawn(move || stage.take_up(index, &told));
        let issuer = scope.spawn(move || stage.issue_lookups(&lanes));
        let events = scope.spawn(move || stage.issue_events(batches, &sink));
        issuer.join().expect("no thread panics");
        let stop = events.join().expect("no thread panics");
        let lookups: Vec<_> = readers
            .into_iter()
            .flat_map(|reader| reader.join().expect("no thread panics"))
            .collect();
        (stop, lookups, writer.join().expect("no thread panics"))
    });
    judge(stage, stop, &lookups, &events, report);
}

fn judge(stage: &Stage<'_>, stop: u64, lookups: &[Served], events: &[Served], report: &mut Report) {
    let all = || lookups.iter().chain(events);
    let issued = all().map(|served| served.accepted).max().unwrap_or(stage.start) - stage.start;
    let end = all().map(|served| served.finished).max().unwrap_or(stage.start);
    let elapsed = end - stage.start;
    let window = stage.window_ns;
    let ops = (stage.trace.lookup_blocks + stage.trace.event_blocks) as f64;
    let per_s = |ns: u64| ops / (ns.max(1) as f64 / 1e9);
    report.add("offered_block_ops_per_s", "blocks of both offered", per_s(window), "/s");
    report.add("achieved_block_ops_per_s", "  and achieved, all taken up", per_s(elapsed), "/s");
    let valid = issued <= window / 100 * 101;
    let kept_up = valid && elapsed <= window / 100 * 110;
    report.add("generator_valid", "all was issued in time", f64::from(u8::from(valid)), "");
    report.add("kept_up", "the index kept up", f64::from(u8::from(kept_up)), "");
    report.add(
        "drain_ms",
        "time from the last issue to the end",
        end.saturating_sub(stop) as f64 / 1e6,
        "ms",
    );
    let service = |served: &Served| Duration::from_nanos(served.finished - served.started);
    let mut times = Times::default();
    for served in lookups {
        times.add(service(served));
    }
    let mean = |all: &[Served]| {
        all.iter().map(service).sum::<Duration>().as_secs_f64() * 1e6 / all.len().max(1) as f64
    };
    report.add("lookup_mean_us", "a lookup, mean", mean(lookups), "us");
    report.add("lookup_p50_us", "  p50", times.quantile_us(500), "us");
    report.add("lookup_p99_us", "  p99", times.quantile_us(990), "us");
    report.at_most(1.0);
    report.add("batch_mean_us", "an event's blocks taken up, mean", mean(events), "us");
}
