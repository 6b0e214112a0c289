//! A worker's figures, read from the engine loop's status and the transports' counters at each
//! scrape, so that the paths that matter only count.

use crate::engine_loop::Status;
use crate::queue::Shadow;
use baton_kv::retention::Class;
use baton_node::metrics::{Kind, Metrics};
use baton_transfer::{Counters, Op, Sample};
use tokio::sync::watch;

/// Kind, name, help and value of a figure without labels.
type Figure = (Kind, (&'static str, &'static str), fn(&Status) -> u64);

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
    let figures: [Figure; 5] = [
        (Kind::Gauge, ("queued_requests", "Accepted, not begun"), |s| u64::from(s.load.queued)),
        (Kind::Gauge, ("running_requests", "Begun, not ended"), |s| u64::from(s.load.running)),
        (Kind::Gauge, ("leases", "Leases that have not ended"), |s| u64::from(s.counts.leases)),
        (Kind::Counter, ("engine_steps", "Steps computed"), |s| s.steps),
        (Kind::Counter, ("engine_tokens", "Positions computed"), |s| s.computed_tokens),
    ];
    for (kind, about, value) in figures {
        figure(metrics, status, kind, about, value);
    }
    let order = status.clone();
    let help = "What a feature in shadow would have done: the same as was done, or not";
    metrics.sample("shadow_decisions", help, Kind::Counter, move |samples| {
        let Shadow { same, other } = order.borrow().load.order;
        for (label, count) in [("true", same), ("false", other)] {
            samples.push(&[("feature", "queue"), ("same", label)], count as f64);
        }
    });
    let evicted = status.clone();
    metrics.sample(
        "evictions",
        "Blocks that made room for others",
        Kind::Counter,
        move |samples| {
            for (class, count) in Class::ALL.into_iter().zip(evicted.borrow().evictions) {
                let labels = [("tier", "host"), ("cause", "room"), ("class", class.as_str())];
                samples.push(&labels, count as f64);
            }
        },
    );
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
                Op::Map => "map",
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
            ("set_aside", counts.set_aside),
            ("quarantined", counts.quarantined),
        ];
        for (state, count) in states {
            samples.push(&[("tier", "host"), ("state", state)], f64::from(count));
        }
    });
}

fn figure(
    metrics: &Metrics,
    status: &watch::Receiver<Status>,
    kind: Kind,
    (name, help): (&'static str, &'static str),
    value: fn(&Status) -> u64,
) {
    let status = status.clone();
    metrics.sample(name, help, kind, move |samples| {
        samples.push(&[], value(&status.borrow()) as f64);
    });
}
