//! A worker's figures, read from the engine loop's status and the transports' counters at each
//! scrape, so that the paths that matter only count.

use crate::engine_loop::Status;
use baton_node::metrics::{Kind, Metrics};
use baton_transfer::{Counters, Op, Sample};
use tokio::sync::watch;

/// Registers everything that a worker shows.
pub(crate) fn register(metrics: &Metrics, counters: &Counters, status: &watch::Receiver<Status>) {
    transfer(metrics, counters, "transfer_blocks", "Blocks moved", |sample| sample.blocks);
    transfer(metrics, counters, "transfer_bytes", "Bytes moved", |sample| sample.bytes);
    transfer(
        metrics,
        counters,
        "transfer_copied_bytes",
        "Bytes that a processor copied on the way",
        |sample| sample.copied_bytes,
    );
    blocks(metrics, status.clone());
    gauge(metrics, status, "queued_requests", "Accepted, not begun", |status| {
        u64::from(status.load.queued)
    });
    gauge(metrics, status, "running_requests", "Begun, not ended", |status| {
        u64::from(status.load.running)
    });
    gauge(metrics, status, "leases", "Leases that have not ended", |status| {
        u64::from(status.counts.leases)
    });
    let evicted = status.clone();
    metrics.sample(
        "evictions",
        "Blocks that made room for others",
        Kind::Counter,
        move |samples| {
            let count = evicted.borrow().evictions;
            samples.push(&[("tier", "host"), ("cause", "room")], count as f64);
        },
    );
    counter(metrics, status, "engine_steps", "Steps computed", |status| status.steps);
    counter(metrics, status, "engine_tokens", "Positions computed", |status| {
        status.computed_tokens
    });
}

fn transfer(
    metrics: &Metrics,
    counters: &Counters,
    name: &'static str,
    help: &'static str,
    value: fn(&Sample) -> u64,
) {
    let counters = counters.clone();
    metrics.sample(name, help, Kind::Counter, move |samples| {
        for sample in counters.samples() {
            let op = match sample.op {
                Op::Pull => "pull",
                Op::Serve => "serve",
            };
            let transport = sample.transport.to_string();
            let labels = [("transport", transport.as_str()), ("op", op)];
            samples.push(&labels, value(&sample) as f64);
        }
    });
}

fn blocks(metrics: &Metrics, status: watch::Receiver<Status>) {
    metrics.sample("blocks", "Slots by what they hold", Kind::Gauge, move |samples| {
        let counts = status.borrow().counts;
        let states = [
            ("free", counts.free),
            ("draft", counts.draft),
            ("sealed", counts.sealed),
            ("cached", counts.cached),
            ("pinned", counts.pinned),
            ("quarantined", counts.quarantined),
        ];
        for (state, count) in states {
            samples.push(&[("tier", "host"), ("state", state)], f64::from(count));
        }
    });
}

fn gauge(
    metrics: &Metrics,
    status: &watch::Receiver<Status>,
    name: &'static str,
    help: &'static str,
    value: fn(&Status) -> u64,
) {
    let status = status.clone();
    metrics.sample(name, help, Kind::Gauge, move |samples| {
        samples.push(&[], value(&status.borrow()) as f64);
    });
}

fn counter(
    metrics: &Metrics,
    status: &watch::Receiver<Status>,
    name: &'static str,
    help: &'static str,
    value: fn(&Status) -> u64,
) {
    let status = status.clone();
    metrics.sample(name, help, Kind::Counter, move |samples| {
        samples.push(&[], value(&status.borrow()) as f64);
    });
}
