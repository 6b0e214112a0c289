//! What the router counts and times. Names and labels are relied on by dashboards.

use crate::cluster::Cluster;
use baton_node::metrics::prometheus_client::metrics::counter::Counter;
use baton_node::metrics::prometheus_client::metrics::family::Family;
use baton_node::metrics::prometheus_client::metrics::histogram::Histogram;
use baton_node::metrics::{Kind, Metrics as Registry, STEP_SECONDS, WAIT_SECONDS};
use baton_proto::internal::TurnReport;
use std::sync::Arc;
use std::time::Duration;

/// A counter for each set of labels.
type ByLabels = Family<Vec<(&'static str, &'static str)>, Counter>;

/// The router's own metrics. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    requests: Family<Vec<(&'static str, String)>, Counter>,
    tokens: ByLabels,
    /// Of these, the tokens of answers: to look them up for each would allocate.
    decoded: Counter,
    prompt_tokens: ByLabels,
    pub(crate) ttft: Histogram,
    pub(crate) itl: Histogram,
    queue: Histogram,
    handover: Histogram,
    pub(crate) moved_turns: Counter,
    pub(crate) decisions_dropped: Counter,
    policy_calls: ByLabels,
    policy_time: Histogram,
    pub(crate) audit_dropped: Counter,
    speculations: ByLabels,
    speculation_tokens: ByLabels,
    misreadings: ByLabels,
    shadow: ByLabels,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry, cluster: &Arc<Cluster>) -> Self {
        let workers = cluster.clone();
        let help = "Workers that can be given work";
        registry.sample("workers", help, Kind::Gauge, move |samples| {
            let (decode, prefill) = workers.counts();
            samples.push(&[("role", "decode")], decode as f64);
            samples.push(&[("role", "prefill")], prefill as f64);
        });
        let index = cluster.clone();
        registry.sample("index_blocks", "Blocks known by worker", Kind::Gauge, move |samples| {
            for (worker, blocks) in index.known_blocks() {
                samples.push(&[("worker", &worker)], blocks as f64);
            }
        });
        let count = |name, help| registry.register(name, help, Counter::default());
        let (tokens, decoded) = tokens(registry);
        let wait = |name, help| registry.histogram(name, help, &WAIT_SECONDS);
        Self {
            requests: requests(registry),
            decoded,
            tokens,
            prompt_tokens: registry.register(
                "prompt_tokens",
                "Tokens of prompts by where their ids came from: reused, or encoded anew",
                Family::default(),
            ),
            ttft: wait("ttft_seconds", "From a request's arrival to its first token"),
            itl: registry.histogram("itl_seconds", "Between tokens of an answer", &STEP_SECONDS),
            queue: wait("queue_seconds", "In a worker's queue, before anything was computed"),
            handover: wait("handover_seconds", "From the last block's announcement to decoding"),
            moved_turns: count(
                "moved_turns",
                "Turns placed again on another decode worker before their first token",
            ),
            decisions_dropped: count(
                "decisions_dropped",
                "Decisions that were not recorded because the disk was slow or refused them",
            ),
            policy_calls: registry.register(
                "policy_calls",
                "Choices that an external policy was to make, by what came of it",
                Family::default(),
            ),
            policy_time: registry.histogram(
                "policy_seconds",
                "From asking an external policy to its answer, or to giving up",
                &STEP_SECONDS,
            ),
            audit_dropped: count(
                "audit_dropped",
                "Lines of the audit that were not written because the disk was slow or refused them",
            ),
            speculations: registry.register(
                "speculations",
                "Turns whose next prompt was to be prepared for, by what came of it",
                Family::default(),
            ),
            speculation_tokens: registry.register(
                "speculation_tokens",
                "Tokens that were computed ahead: asked for later (hit), or not (wasted)",
                Family::default(),
            ),
            misreadings: misreadings(registry),
            shadow: registry.register(
                "shadow_decisions",
                "What a feature in shadow would have done: the same as was done, or not",
                Family::default(),
            ),
        }
    }

    /// A request has ended; `code` is its HTTP status, or what it would have been.
    pub(crate) fn request(&self, api: &'static str, code: u16) {
        let labels = vec![("api", api.to_owned()), ("code", code.to_string())];
        self.requests.get_or_create(&labels).inc();
    }

    /// So many tokens of an answer have arrived.
    pub(crate) fn decoded(&self, count: usize) {
        self.decoded.inc_by(count as u64);
    }

    /// A prompt of so many tokens was prepared, and so many of their ids were known.
    pub(crate) fn prepared(&self, tokens: usize, reused: usize) {
        for (kind, count) in [("reused", reused), ("encoded", tokens - reused)] {
            self.prompt_tokens.get_or_create(&vec![("kind", kind)]).inc_by(count as u64);
        }
    }

    /// A worker has said what a prompt of so many tokens cost.
    pub(crate) fn prompt(&self, tokens: usize, report: &TurnReport) {
        let cached = u64::from(report.cached_tokens).min(tokens as u64);
        self.count("prefill", "cached", cached);
        self.count("prefill", "computed", tokens as u64 - cached);
        self.queue.observe(seconds(report.queue_us));
        if report.pulled_blocks > 0 {
            self.handover.observe(seconds(report.handover_us));
        }
    }

    /// What came of a choice that an external policy was to make, and how long it was waited for.
    pub(crate) fn policy_call(&self, outcome: &'static str, took: Option<Duration>) {
        self.policy_calls.get_or_create(&vec![("outcome", outcome)]).inc();
        if let Some(took) = took {
            self.policy_time.observe(took.as_secs_f64());
        }
    }

    /// What came of preparing for a next prompt.
    pub(crate) fn speculation(&self, outcome: &'static str) {
        self.speculations.get_or_create(&vec![("outcome", outcome)]).inc();
    }

    /// What became of tokens that were computed ahead.
    pub(crate) fn speculated(&self, outcome: &'static str, tokens: u64) {
        self.speculation_tokens.get_or_create(&vec![("outcome", outcome)]).inc_by(tokens);
    }

    /// Something in an answer is not as its format has it.
    pub(crate) fn misread(&self, warning: &'static str) {
        self.misreadings.get_or_create(&vec![("kind", warning)]).inc();
    }

    /// A feature in shadow has decided; whether that is what was done.
    pub(crate) fn shadowed(&self, feature: &'static str, same: bool) {
        let same = if same { "true" } else { "false" };
        self.shadow.get_or_create(&vec![("feature", feature), ("same", same)]).inc();
    }

    fn count(&self, stage: &'static str, kind: &'static str, count: u64) {
        self.tokens.get_or_create(&vec![("stage", stage), ("kind", kind)]).inc_by(count);
    }
}

fn requests(registry: &Registry) -> Family<Vec<(&'static str, String)>, Counter> {
    registry.register("requests", "Requests by interface and status", Family::default())
}

/// All tokens, and those of answers among them.
fn tokens(registry: &Registry) -> (ByLabels, Counter) {
    let all: Family<_, Counter> =
        registry.register("tokens", "Tokens by stage and kind", Family::default());
    let decoded = all.get_or_create_owned(&vec![("stage", "decode"), ("kind", "computed")]);
    (all, decoded)
}

fn misreadings(registry: &Registry) -> ByLabels {
    let help = "What in answers was not as the model's format of calls and reasoning has it";
    registry.register("answer_warnings", help, Family::default())
}

fn seconds(micros: u32) -> f64 {
    f64::from(micros) / 1e6
}

/// Counts a request once, however it ends: one that nobody waits for any more ends with 499.
pub(crate) struct RequestCount {
    metrics: Arc<Metrics>,
    api: &'static str,
    code: u16,
}

impl RequestCount {
    pub(crate) fn new(metrics: &Arc<Metrics>, api: &'static str) -> Self {
        const CLIENT_CLOSED_REQUEST: u16 = 499;
        Self { metrics: metrics.clone(), api, code: CLIENT_CLOSED_REQUEST }
    }

    /// How the request ended; the last word counts.
    pub(crate) fn set(&mut self, code: u16) {
        self.code = code;
    }
}

impl Drop for RequestCount {
    fn drop(&mut self) {
        self.metrics.request(self.api, self.code);
    }
}
