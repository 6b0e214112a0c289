//! What the machine allows: an index that finds each block by its name looks at one place of a large
//! array for each block of an event, and at a few for each lookup, one after the other.

use crate::measure::{Times, timed};
use crate::report::Report;
use crate::trace::{Trace, What};
use baton_kv::events::EventKind;
use baton_proto::ids::SequenceHash;
use std::hint::black_box;

/// Blocks whose places are read together.
const TOGETHER: usize = 16;
/// Marks of names in a cache line, and lines: 8 MiB, about what the index has of the trace.
const LINE: usize = 8;
const LINES: usize = 1 << 17;
/// Distances from the end of a chain that a lookup begins with, besides its ends.
const CLOSER: [usize; 3] = [64, 16, 4];

/// Adds what an index would do that knew of each block that it exists, and no more.
pub(super) fn add(trace: &Trace, report: &mut Report) {
    let mut lines = vec![[0_u64; LINE]; LINES];
    let ((), events) = timed(|| {
        for operation in &trace.operations {
            let What::Events(batch) = &operation.what else { continue };
            for events in batch.events.chunks(TOGETHER) {
                let first = |hash| lines[line(hash)][0];
                black_box(
                    events.iter().map(|event| first(&event.hash)).fold(0, |all, one| all ^ one),
                );
                for event in events {
                    mark(&mut lines[line(&event.hash)], &event.hash, event.kind);
                }
            }
        }
    });
    let mut times = Times::default();
    for chain in trace.chains() {
        let ((), took) = timed(|| look(&lines, chain));
        times.add(took);
    }
    let per_s = trace.event_blocks as f64 / events.as_secs_f64();
    report.add("limit_event_blocks_per_s", "limit: marks of names alone", per_s, "/s");
    report.add(
        "limit_lookup_p50_us",
        "limit: one round of probes, p50",
        times.quantile_us(500),
        "us",
    );
    report.add("limit_lookup_p99_us", "  p99", times.quantile_us(990), "us");
}

fn low(hash: &SequenceHash) -> u64 {
    u64::from_le_bytes(*hash.0.first_chunk().expect("a hash has sixteen bytes"))
}

fn line(hash: &SequenceHash) -> usize {
    low(hash) as usize % LINES
}

/// What does not find a place any more is left out: that costs no less.
fn mark(line: &mut [u64; LINE], hash: &SequenceHash, kind: EventKind) {
    let name = low(hash) | 1;
    let known = line.iter().position(|mark| *mark == name);
    match (kind, known) {
        (EventKind::Published, None) => {
            if let Some(free) = line.iter_mut().find(|mark| **mark == 0) {
                *free = name;
            }
        }
        (EventKind::Removed, Some(at)) => line[at] = 0,
        _ => {}
    }
}

/// Reads a few of the chain's names, a place for each, and what lies where that says.
fn look(lines: &[[u64; LINE]], chain: &[SequenceHash]) {
    let last = chain.len() - 1;
    let near = CLOSER.iter().filter_map(|distance| last.checked_sub(*distance));
    let mut marks = [0; 2 + CLOSER.len()];
    for (mark, at) in marks.iter_mut().zip([0, last].into_iter().chain(near)) {
        *mark = lines[line(&chain[at])][0] ^ low(&chain[at]) >> 20;
    }
    black_box(marks.map(|mark| lines[mark as usize % LINES][1]));
}
