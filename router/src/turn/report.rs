//! What a turn cost: usage, timing, and the metrics that follow from them.

use super::prepare::Prepared;
use crate::ahead::Bought;
use crate::cluster::Explained;
use crate::metrics::Metrics;
use crate::service::Service;
use baton_proto::ids::WorkerId;
use baton_proto::internal::TurnReport;
use std::sync::Arc;
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
    /// Of these, what was reasoning, where answers are told apart.
    pub(crate) reasoning_tokens: u64,
    /// What the worker said about the prompt.
    pub(crate) report: Option<TurnReport>,
    pub(crate) decode_worker: WorkerId,
    /// Since the request arrived.
    pub(crate) ttft: Option<Duration>,
    /// Since the request arrived.
    pub(crate) total: Duration,
    /// Why it was placed where it was, where that is wanted.
    pub(crate) why: Option<Arc<Explained>>,
    /// What was computed ahead for it.
    pub(crate) bought: Option<Bought>,
}

/// Takes the times of a turn.
pub(super) struct Meter {
    metrics: Arc<Metrics>,
    arrived: Instant,
    prompt_tokens: usize,
    /// When the last tokens of each choice came.
    last: Vec<Option<Instant>>,
    first: Option<Instant>,
    /// When the first choice's first tokens came, and how many of it came after them.
    paced_from: Option<Instant>,
    paced: u64,
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
            paced_from: None,
            paced: 0,
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
        if choice == 0 {
            match self.paced_from {
                None => self.paced_from = Some(now),
                Some(_) => self.paced += count as u64,
            }
        }
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

    /// What the worker has said about the prompt.
    pub(super) fn prompt_report(&self) -> Option<&TurnReport> {
        self.report.as_ref()
    }

    /// Tokens of the first choice after its first ones, and the mean time between them in seconds.
    pub(super) fn pace(&self) -> (u64, f64) {
        let last = self.last.first().copied().flatten();
        let span = self.paced_from.zip(last).map_or(Duration::ZERO, |(from, last)| last - from);
        (self.paced, span.as_secs_f64() / self.paced.max(1) as f64)
    }

    pub(super) fn summary(
        &self,
        decode_worker: WorkerId,
        completion_tokens: u64,
        why: Option<Arc<Explained>>,
    ) -> Summary {
        let cached = self.report.map_or(0, |report| report.cached_tokens as usize);
        Summary {
            prompt_tokens: self.prompt_tokens,
            cached_tokens: cached.min(self.prompt_tokens),
            completion_tokens,
            reasoning_tokens: 0,
            report: self.report,
            decode_worker,
            ttft: self.first.map(|first| first - self.arrived),
            total: self.arrived.elapsed(),
            why,
            bought: None,
        }
    }
}
