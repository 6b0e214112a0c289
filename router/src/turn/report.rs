//! What a turn cost: usage, timing, and the metrics that follow from them.

use super::prepare::Prepared;
use crate::metrics::Metrics;
use crate::service::Service;
use baton_proto::ids::WorkerId;
use baton_proto::internal::TurnReport;
use std::time::Duration;
use tokio::time::Instant;

/// What a turn has cost up to now.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Summary {
    pub(crate) prompt_tokens: usize,
    /// Prompt tokens that were found in a cache.
    pub(crate) cached_tokens: usize,
    /// Over all choices; after a stop string nothing is counted.
    pub(crate) completion_tokens: u64,
    /// What the worker said about the prompt.
    pub(crate) report: Option<TurnReport>,
    pub(crate) decode_worker: WorkerId,
    /// Since the request arrived.
    pub(crate) ttft: Option<Duration>,
    /// Since the request arrived.
    pub(crate) total: Duration,
}

/// Takes the times of a turn.
pub(super) struct Meter {
    metrics: Metrics,
    arrived: Instant,
    prompt_tokens: usize,
    /// When the last tokens of each choice came.
    last: Vec<Option<Instant>>,
    first: Option<Instant>,
    report: Option<TurnReport>,
}

impl Meter {
    pub(super) fn new(service: &Service, prepared: &Prepared) -> Self {
        Self {
            metrics: service.metrics().clone(),
            arrived: prepared.arrived,
            prompt_tokens: prepared.ids.len(),
            last: vec![None; usize::from(prepared.request.choices)],
            first: None,
            report: None,
        }
    }

    /// So many tokens of a choice have arrived.
    pub(super) fn tokens(&mut self, choice: u16, count: usize) {
        if count == 0 {
            return;
        }
        let now = Instant::now();
        if self.first.is_none() {
            self.first = Some(now);
            self.metrics.ttft.observe((now - self.arrived).as_secs_f64());
        }
        self.metrics.decoded(count);
        let last = self.last.get_mut(usize::from(choice)).and_then(|last| last.replace(now));
        if let Some(last) = last {
            // Tokens that came together share the time since those before them.
            self.metrics.itl.observe((now - last).as_secs_f64() / count as f64);
        }
    }

    /// The worker has said what the prompt cost; the first choice's word counts.
    pub(super) fn report(&mut self, choice: u16, report: &TurnReport) {
        if choice != 0 && self.report.is_some() {
            return;
        }
        if self.report.is_none() {
            self.metrics.prompt(self.prompt_tokens, report);
        }
        self.report = Some(*report);
    }

    pub(super) fn summary(&self, decode_worker: WorkerId, completion_tokens: u64) -> Summary {
        let cached = self.report.map_or(0, |report| report.cached_tokens as usize);
        Summary {
            prompt_tokens: self.prompt_tokens,
            cached_tokens: cached.min(self.prompt_tokens),
            completion_tokens,
            report: self.report,
            decode_worker,
            ttft: self.first.map(|first| first - self.arrived),
            total: self.arrived.elapsed(),
        }
    }
}
