//! What the model itself thought: log-probabilities at temperature 1 and raw logits, taken before
//! any parameter of the request has touched them.

use super::{by_rank, candidates, math};
use crate::api::{Drawn, Sample};
use baton_proto::ids::TokenId;

/// The model's opinion, kept until the token is known.
pub(super) struct Report {
    /// The logits, as they were.
    raw: Vec<f32>,
    /// Log of the sum of their exponentials.
    log_total: f32,
    logprobs: usize,
    raw_top: usize,
}

impl Report {
    pub(super) fn take(logits: &[f32], sample: &Sample<'_>) -> Self {
        let max = math::largest(logits);
        let log_total = if max == f32::NEG_INFINITY {
            0.0
        } else {
            let shares: Vec<f32> = logits.iter().map(|logit| math::exp(logit - max)).collect();
            let total = math::sum(&shares);
            (f64::from(max) + math::ln(total)) as f32
        };
        Self {
            raw: logits.to_vec(),
            log_total,
            logprobs: sample.logprobs.map_or(0, usize::from),
            raw_top: usize::from(sample.raw_top),
        }
    }

    /// The report on a drawn token.
    pub(super) fn drawn(self, token: TokenId) -> Drawn {
        let best = self.best(self.logprobs.max(self.raw_top));
        Drawn {
            token,
            logprob: self.logprob(self.raw.get(token as usize).copied()),
            top: best
                .iter()
                .take(self.logprobs)
                .map(|(token, logit)| (*token, self.logprob(Some(*logit))))
                .collect(),
            raw_top: best.iter().take(self.raw_top).copied().collect(),
        }
    }

    fn logprob(&self, logit: Option<f32>) -> f32 {
        // Rounding must not make a probability larger than 1.
        logit.map_or(f32::NEG_INFINITY, |logit| (logit - self.log_total).min(0.0))
    }

    /// The `count` largest logits, the best first.
    fn best(&self, count: usize) -> Vec<(TokenId, f32)> {
        if count == 0 {
            return Vec::new();
        }
        let mut ranked = candidates(&self.raw, |_| true);
        if count < ranked.len() {
            ranked.select_nth_unstable_by(count - 1, by_rank);
            ranked.truncate(count);
        }
        ranked.sort_unstable_by(by_rank);
        ranked
    }
}
