//! Metrics: a registry whose names start with `baton_`, and its text at `/metrics`.
//!
//! Two kinds. Metrics that somebody counts are registered ([`Metrics::register`]); figures that
//! somebody holds anyway - a pool's counts, a transport's counters - are sampled when they are
//! asked for ([`Metrics::sample`]), so that no hot path pays for them twice.

mod exposition;
mod process;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::header;
use axum::response::IntoResponse;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

pub use exposition::{Exposition, ExpositionError};
pub use prometheus_client;

/// Upper bounds in seconds for what users wait for: time to first token, queues, hand-over.
pub const WAIT_SECONDS: [f64; 16] =
    [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0];

/// Upper bounds in seconds for what happens once per token or step.
pub const STEP_SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 1.0];

/// What `/metrics` answers with.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A daemon's metrics. Clones share them.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
}

/// Whether a sampled figure only ever grows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// It only grows; its name gets `_total` at the end.
    Counter,
    /// It goes up and down.
    Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// A registry with the figures of the process itself.
    pub fn new() -> Self {
        let metrics = Self { registry: Arc::new(Mutex::new(Registry::with_prefix("baton"))) };
        process::register(&metrics);
        metrics
    }

    /// Registers a metric and hands it back. `name` without `baton_` and, for a counter, without
    /// `_total`.
    pub fn register<M: Metric + Clone>(&self, name: &str, help: &str, metric: M) -> M {
        self.with(|registry| registry.register(name, help, metric.clone()));
        metric
    }

    /// Registers a histogram with the bounds [`WAIT_SECONDS`], [`STEP_SECONDS`] or others.
    pub fn histogram(&self, name: &str, help: &str, bounds: &[f64]) -> Histogram {
        self.register(name, help, Histogram::new(bounds.iter().copied()))
    }

    /// Registers figures that are asked for at each scrape.
    ///
    /// `read` pushes one sample for each set of labels, always with the same label names.
    pub fn sample<F>(&self, name: &'static str, help: &'static str, kind: Kind, read: F)
    where
        F: Fn(&mut Samples) + Send + Sync + 'static,
    {
        let sampler = Box::new(Sampler { name, help, kind, read });
        self.with(|registry| registry.register_collector(sampler));
    }

    /// All metrics in the OpenMetrics text format.
    pub fn render(&self) -> String {
        let mut text = String::new();
        self.with(|registry| encode(&mut text, registry)).expect("a String takes all writes");
        text
    }

    /// All metrics as the answer to a request.
    pub fn respond(&self) -> impl IntoResponse + use<> {
        ([(header::CONTENT_TYPE, CONTENT_TYPE)], self.render())
    }

    fn with<R>(&self, act: impl FnOnce(&mut Registry) -> R) -> R {
        act(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// The samples of one figure at one moment.
#[derive(Debug, Default)]
pub struct Samples {
    list: Vec<(Vec<(&'static str, String)>, f64)>,
}

impl Samples {
    /// Adds one sample.
    pub fn push(&mut self, labels: &[(&'static str, &str)], value: f64) {
        let labels = labels.iter().map(|(name, value)| (*name, (*value).to_string())).collect();
        self.list.push((labels, value));
    }
}

struct Sampler<F> {
    name: &'static str,
    help: &'static str,
    kind: Kind,
    read: F,
}

impl<F> fmt::Debug for Sampler<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sampler").field(&self.name).finish()
    }
}

impl<F: Fn(&mut Samples) + Send + Sync + 'static> Collector for Sampler<F> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut samples = Samples::default();
        (self.read)(&mut samples);
        let kind = match self.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
        };
        let mut family = encoder.encode_descriptor(self.name, self.help, None, kind)?;
        // An empty set of labels would be written as `{}`.
        if let [(labels, value)] = &*samples.list
            && labels.is_empty()
        {
            return One { kind: self.kind, value: *value }.encode(family);
        }
        samples.list.iter().try_for_each(|(labels, value)| {
            One { kind: self.kind, value: *value }.encode(family.encode_family(labels)?)
        })
    }
}

/// Below this every whole number is a float of its own.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// One sample as the library wants it.
struct One {
    kind: Kind,
    value: f64,
}

impl EncodeMetric for One {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        // Counts are whole, and read better without a point.
        let whole = self.value.fract() == 0.0 && self.value.abs() < EXACT_MAX;
        match (self.kind, whole) {
            (Kind::Counter, true) => {
                encoder.encode_counter::<NoLabelSet, _, u64>(&(self.value as u64), None)
            }
            (Kind::Counter, false) => {
                encoder.encode_counter::<NoLabelSet, _, u64>(&self.value, None)
            }
            (Kind::Gauge, true) => encoder.encode_gauge(&(self.value as i64)),
            (Kind::Gauge, false) => encoder.encode_gauge(&self.value),
        }
    }

    fn metric_type(&self) -> MetricType {
        match self.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::family::Family;

    #[test]
    fn names_start_with_baton_and_counters_end_with_total() {
        let metrics = Metrics::new();
        let tokens: Family<Vec<(&'static str, &'static str)>, Counter> =
            metrics.register("tokens", "Tokens by stage and kind", Family::default());
        tokens.get_or_create(&vec![("stage", "decode"), ("kind", "cached")]).inc_by(3);
        metrics.histogram("ttft_seconds", "Time to first token", &WAIT_SECONDS).observe(0.03);
        let text = metrics.render();
        for line in [
            "baton_tokens_total{stage=\"decode\",kind=\"cached\"} 3",
            "baton_ttft_seconds_bucket{le=\"0.02\"} 0",
            "baton_ttft_seconds_bucket{le=\"0.05\"} 1",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn sampled_figures_are_read_at_each_scrape() {
        use std::sync::atomic::{AtomicU64, Ordering};
        let metrics = Metrics::new();
        let held = Arc::new(AtomicU64::new(1));
        let seen = Arc::clone(&held);
        metrics.sample("blocks", "Blocks by state", Kind::Gauge, move |samples| {
            let value = seen.load(Ordering::Relaxed) as f64;
            samples.push(&[("tier", "host"), ("state", "free")], value);
        });
        metrics.sample("evictions", "Evictions", Kind::Counter, |samples| samples.push(&[], 5.0));
        assert!(metrics.render().contains("baton_blocks{tier=\"host\",state=\"free\"} 1"));
        held.store(7, Ordering::Relaxed);
        let text = metrics.render();
        assert!(text.contains("baton_blocks{tier=\"host\",state=\"free\"} 7"), "{text}");
        assert!(text.contains("\nbaton_evictions_total 5"), "{text}");
    }

    #[test]
    fn the_process_reports_itself() {
        let text = Metrics::new().render();
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).expect(name);
            line.trim().parse::<f64>().expect("a number")
        };
        assert!(value("baton_process_resident_memory_bytes ") > 1e5);
        let (open, limit) = (value("baton_process_open_fds "), value("baton_process_max_fds "));
        assert!(open >= 3.0 && limit >= open, "{open} {limit}");
    }
}
