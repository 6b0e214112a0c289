//! The figures, for people and for programs.

use super::args::{Contestant, Shape, XferArgs};
use super::lane::Moved;
use crate::stats::{Sample as Spread, rounded};
use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::time::Duration;

const GIB: f64 = (1u64 << 30) as f64;

/// One turn.
pub(super) struct Sample {
    pub(super) moved: Moved,
    pub(super) took: Duration,
    /// Processor time of both sides.
    pub(super) cpu_s: f64,
}

/// What was measured of one contestant and one size.
pub(super) struct Row {
    pub(super) contestant: Contestant,
    /// While other threads kept the cores busy.
    pub(super) load: bool,
    shape: Shape,
    /// Bytes per nanosecond, of each round: 10^9 bytes per second.
    gb_per_s: Vec<f64>,
    all: Moved,
    took: Duration,
    cpu_s: f64,
}

/// All rows, and how they were measured.
pub(super) struct Report {
    pub(super) rows: Vec<Row>,
    /// Blocks whose every byte was compared.
    pub(super) checked_blocks: u64,
    check: bool,
    about: Map<String, Value>,
}

impl Row {
    pub(super) fn new(contestant: Contestant, shape: Shape, load: bool) -> Self {
        Self {
            contestant,
            load,
            shape,
            gb_per_s: Vec::new(),
            all: Moved::none(),
            took: Duration::ZERO,
            cpu_s: 0.0,
        }
    }

    /// Adds a round.
    pub(super) fn add(&mut self, sample: &Sample) {
        let bytes = (sample.moved.blocks * self.shape.block_bytes) as f64;
        self.gb_per_s.push(bytes / sample.took.as_nanos() as f64);
        self.all.add(&sample.moved);
        self.took += sample.took;
        self.cpu_s += sample.cpu_s;
    }

    /// Nothing where nothing moves.
    fn speed(&self) -> Spread {
        let moves = self.contestant.moves();
        self.gb_per_s.iter().copied().filter(|_| moves).collect()
    }

    fn us_per_descriptor(&self) -> Option<f64> {
        let counted = !self.contestant.moves() && self.all.blocks > 0;
        counted.then(|| self.took.as_nanos() as f64 / 1e3 / self.all.blocks as f64)
    }

    fn descriptors_per_s(&self) -> Option<f64> {
        let per_s = self.all.blocks as f64 / self.took.as_secs_f64();
        // A plain stream has none.
        (self.contestant != Contestant::RawTcp).then_some(per_s)
    }

    /// `None` where the processor time of others is in it.
    fn cpu_s_per_gib(&self) -> Option<f64> {
        let bytes = (self.all.blocks * self.shape.block_bytes) as f64;
        let moves = self.contestant.moves();
        (!self.load && moves && bytes > 0.0).then(|| self.cpu_s / (bytes / GIB))
    }

    fn latency_us(&self, quantile: f64) -> Option<f64> {
        let measured = !self.all.latency_ns.is_empty();
        measured.then(|| self.all.latency_ns.value_at_quantile(quantile) as f64 / 1e3)
    }

    fn name(&self) -> String {
        let busy = if self.load { ", busy" } else { "" };
        format!("{}{busy}", self.contestant.name())
    }

    /// Round by round, how fast this was compared with its limit.
    fn ratios(&self, all: &[Self]) -> Option<Spread> {
        let limit = self.contestant.limit()?;
        let same = |row: &&Self| row.contestant == limit && row.shape == self.shape && !row.load;
        let limit = all.iter().find(same)?;
        Some(self.gb_per_s.iter().zip(&limit.gb_per_s).map(|(own, limit)| own / limit).collect())
    }

    /// How much longer the 99th percentile is than without a load.
    fn busy_p99_ratio(&self, all: &[Self]) -> Option<f64> {
        let same =
            |row: &&Self| row.contestant == self.contestant && row.shape == self.shape && !row.load;
        let quiet = all.iter().find(same).filter(|_| self.load)?;
        Some(self.latency_us(0.99)? / quiet.latency_us(0.99)?)
    }

    fn to_json(&self, all: &[Self]) -> Value {
        let mut row = Map::new();
        let (transport, op) = match self.contestant {
            Contestant::Pull(kind, op) => (kind.to_string(), json!(op.as_str())),
            Contestant::Memcpy => ("memcpy".to_owned(), Value::Null),
            Contestant::RawTcp => ("raw_tcp".to_owned(), Value::Null),
            Contestant::Posting => ("posting".to_owned(), Value::Null),
        };
        row.insert("transport".to_owned(), json!(transport));
        row.insert("op".to_owned(), op);
        row.insert("load".to_owned(), json!(self.load));
        row.insert("block_bytes".to_owned(), json!(self.shape.block_bytes));
        row.insert("batch".to_owned(), json!(self.shape.batch));
        let speed = self.speed();
        row.insert("gb_per_s".to_owned(), rounded(speed.median()));
        row.insert("gb_per_s_min".to_owned(), rounded(speed.min()));
        row.insert("gb_per_s_max".to_owned(), rounded(speed.max()));
        row.insert("descriptors_per_s".to_owned(), rounded(self.descriptors_per_s()));
        for (key, quantile) in [("p50_us", 0.5), ("p99_us", 0.99), ("p999_us", 0.999)] {
            row.insert(key.to_owned(), rounded(self.latency_us(quantile)));
        }
        row.insert("cpu_s_per_gib".to_owned(), rounded(self.cpu_s_per_gib()));
        let ratios = self.ratios(all);
        let ratio = |of: fn(&Spread) -> Option<f64>| rounded(ratios.as_ref().and_then(of));
        row.insert("of_limit".to_owned(), ratio(Spread::median));
        row.insert("of_limit_min".to_owned(), ratio(Spread::min));
        row.insert("of_limit_max".to_owned(), ratio(Spread::max));
        row.insert("busy_p99_ratio".to_owned(), rounded(self.busy_p99_ratio(all)));
        row.insert("us_per_descriptor".to_owned(), rounded(self.us_per_descriptor()));
        let posted = self.all.requests > 0;
        row.insert("work_requests".to_owned(), json!(posted.then_some(self.all.requests)));
        row.insert("doorbells".to_owned(), json!(posted.then_some(self.all.doorbells)));
        row.insert("pulls".to_owned(), json!(self.all.latency_ns.len()));
        row.insert("bytes".to_owned(), json!(self.all.blocks * self.shape.block_bytes));
        Value::Object(row)
    }
}

impl Report {
    pub(super) fn new(args: &XferArgs, rows: usize) -> Self {
        let about = json!({
            "threads": args.threads,
            "streams": args.streams,
            "placement": args.placement.as_str(),
            "rounds": args.rounds,
            "load_threads": args.load,
        });
        let Value::Object(about) = about else { unreachable!("written as an object") };
        let rows = Vec::with_capacity(rows);
        Self { rows, checked_blocks: 0, check: args.check, about }
    }

    /// One object.
    pub(super) fn to_json(&self) -> Value {
        let mut object = self.about.clone();
        let checked = self.check.then_some(self.checked_blocks);
        object.insert("checked_blocks".to_owned(), json!(checked));
        let rows: Vec<_> = self.rows.iter().map(|row| row.to_json(&self.rows)).collect();
        object.insert("rows".to_owned(), Value::Array(rows));
        Value::Object(object)
    }

    /// Aligned lines.
    pub(super) fn to_table(&self) -> String {
        let mut text = String::new();
        let mut line = |cells: [&str; 11]| {
            let [what, block, batch, speed, spread, blocks, p50, p99, p999, cpu, ratio] = cells;
            let line = format!(
                "{what:<16}{block:>8}{batch:>6}{speed:>8} {spread:<14}{blocks:>10}\
                 {p50:>10}{p99:>10}{p999:>10}{cpu:>11}  {ratio}"
            );
            writeln!(text, "{}", line.trim_end()).expect("a String takes all writes");
        };
        line([
            "",
            "block",
            "batch",
            "GB/s",
            "(min..max)",
            "blocks/s",
            "p50 us",
            "p99 us",
            "p99.9 us",
            "CPU s/GiB",
            "",
        ]);
        for row in &self.rows {
            let speed = row.speed();
            let spread = match (speed.min(), speed.max()) {
                (Some(min), Some(max)) => format!("({min:.2}..{max:.2})"),
                _ => String::new(),
            };
            let figure = |value: Option<f64>, digits: usize| {
                value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
            };
            let ratio = row.ratios(&self.rows).and_then(|ratios| ratios.median());
            let limit = row.contestant.limit().map(Contestant::name).unwrap_or_default();
            let mut remark = ratio.map(|r| format!("{r:.2} x {limit}")).unwrap_or_default();
            if let Some(ratio) = row.busy_p99_ratio(&self.rows) {
                remark = format!("p99 {ratio:.1} x quiet");
            }
            if row.all.requests > 0 {
                let per_doorbell = row.all.requests as f64 / row.all.doorbells.max(1) as f64;
                remark = format!("{remark} {per_doorbell:.1} requests per doorbell");
            }
            if let Some(us) = row.us_per_descriptor() {
                remark = format!("{us:.3} us per descriptor,{remark}");
            }
            line([
                &row.name(),
                &size(row.shape.block_bytes),
                &row.shape.batch.to_string(),
                &figure(speed.median(), 2),
                &spread,
                &figure(row.descriptors_per_s(), 0),
                &figure(row.latency_us(0.5), 0),
                &figure(row.latency_us(0.99), 0),
                &figure(row.latency_us(0.999), 0),
                &figure(row.cpu_s_per_gib(), 3),
                &remark,
            ]);
        }
        if self.check {
            let blocks = self.checked_blocks;
            writeln!(text, "{blocks} blocks compared byte by byte with what was published")
                .expect("a String takes all writes");
        }
        text
    }
}

/// A size as its flag takes it.
fn size(bytes: u64) -> String {
    [(30, 'G'), (20, 'M'), (10, 'K')]
        .into_iter()
        .find(|(shift, _)| bytes.is_multiple_of(1 << shift))
        .map_or_else(|| bytes.to_string(), |(shift, unit)| format!("{}{unit}", bytes >> shift))
}
