//! From logits to a token.
//!
//! The steps, in the order that users of vLLM and Hugging Face's transformers expect:
//!
//! 1. the model's own log-probabilities and largest logits, for the report;
//! 2. `logit_bias`, repetition penalty over prompt and answer, frequency and presence penalties
//!    over the answer, and suppressed tokens out;
//! 3. greedy, where the temperature is 0: the largest logit, the lowest id among equals;
//! 4. temperature, top-k, min-p, top-p;
//! 5. the draw: a number in `[0, 1)` named by (seed, choice, position), compared with the running
//!    sum of the remaining weights in the order of ids.
//!
//! Of a token that is forced there is only the first step: what the model would have said of it.
//!
//! A neutral parameter changes no bit of the result. Every sum has a fixed order and exponentials
//! are [our own](math), so that equal logits give equal tokens on every machine.
//!
//! A logit that is not a number counts as minus infinity, plus infinity as the largest number.
//! Where nothing at all is possible the lowest id that is not suppressed is drawn: a broken model
//! gives nonsense, not a dead worker.

mod math;
mod philox;
mod report;
#[cfg(test)]
mod tests;

use crate::api::{Drawn, Sample};
use baton_proto::ids::TokenId;
use baton_proto::ir::Sampling;
use std::cmp::Ordering;

/// Draws the token at `position` from the model's raw logits, one per token id.
///
/// `history` holds the tokens before it, prompt and answer; ids beyond the vocabulary are
/// ignored. The logits are overwritten.
pub fn draw(logits: &mut [f32], history: &[TokenId], position: u32, sample: &Sample<'_>) -> Drawn {
    for logit in logits.iter_mut() {
        *logit = ordered(*logit);
    }
    let report = report::Report::take(logits, sample);
    if let Some(token) = sample.forced {
        return report.drawn(token);
    }
    process(logits, history, sample);
    let sampling = sample.sampling;
    // Written so that a temperature that is not a number is greedy.
    let token = if sampling.temperature > 0.0 {
        let chance = philox::uniform(sampling.seed, sample.choice, position);
        pick(logits, sampling, chance)
    } else {
        greedy(logits)
    };
    report.drawn(token.unwrap_or_else(|| first_allowed(logits.len(), &sample.suppressed)))
}

/// Without values that have no place in an order: every result compares with every other, and
/// differences of finite ones are numbers.
fn ordered(logit: f32) -> f32 {
    if logit.is_nan() { f32::NEG_INFINITY } else { logit.min(f32::MAX) }
}

/// The better candidate first: the larger logit, the lower id among equals.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "sorting and selecting want this shape")]
fn by_rank(a: &(TokenId, f32), b: &(TokenId, f32)) -> Ordering {
    b.1.partial_cmp(&a.1).unwrap_or(Ordering::Equal).then(a.0.cmp(&b.0))
}

/// Step 2: what the request wants changed in the model's opinion.
fn process(logits: &mut [f32], history: &[TokenId], sample: &Sample<'_>) {
    let sampling = sample.sampling;
    for (token, bias) in &sampling.logit_bias {
        change(logits, *token, |logit| logit + bias);
    }
    if (sampling.repetition_penalty - 1.0).abs() > 0.0 {
        repetition(logits, history, sampling.repetition_penalty);
    }
    if sampling.presence_penalty != 0.0 || sampling.frequency_penalty != 0.0 {
        let answer = history.get(sample.prompt_len as usize..).unwrap_or(&[]);
        occurrence(logits, answer, sampling);
    }
    // Last, so that no bias brings back what must not be drawn.
    for token in &*sample.suppressed {
        change(logits, *token, |_| f32::NEG_INFINITY);
    }
}

fn change(logits: &mut [f32], token: TokenId, f: impl Fn(f32) -> f32) {
    if let Some(logit) = logits.get_mut(token as usize) {
        *logit = ordered(f(*logit));
    }
}

/// Divides positive and multiplies negative logits of the tokens seen, each once.
fn repetition(logits: &mut [f32], history: &[TokenId], penalty: f32) {
    let mut seen = vec![0_u64; logits.len().div_ceil(64)];
    for token in history {
        let (word, bit) = (*token as usize / 64, 1_u64 << (token % 64));
        match seen.get_mut(word) {
            Some(word) if *word & bit == 0 => *word |= bit,
            _ => continue,
        }
        change(logits, *token, |x| if x > 0.0 { x / penalty } else { x * penalty });
    }
}

fn occurrence(logits: &mut [f32], answer: &[TokenId], sampling: &Sampling) {
    let mut sorted = answer.to_vec();
    sorted.sort_unstable();
    for run in sorted.chunk_by(|a, b| a == b) {
        let penalty = sampling.frequency_penalty * run.len() as f32 + sampling.presence_penalty;
        change(logits, run[0], |logit| logit - penalty);
    }
}

/// The largest logit, the lowest id among equals; `None` if nothing is possible.
fn greedy(logits: &[f32]) -> Option<TokenId> {
    let mut best = (None, f32::NEG_INFINITY);
    for (token, logit) in logits.iter().enumerate() {
        if *logit > best.1 {
            best = (Some(token as TokenId), *logit);
        }
    }
    best.0
}

fn first_allowed(vocab: usize, suppressed: &[TokenId]) -> TokenId {
    (0..vocab as TokenId).find(|token| !suppressed.contains(token)).unwrap_or(0)
}

/// Steps 4 and 5; `None` if nothing is possible.
fn pick(logits: &mut [f32], sampling: &Sampling, chance: f64) -> Option<TokenId> {
    let max = math::largest(logits);
    if max == f32::NEG_INFINITY {
        return None;
    }
    if sampling.top_k > 0 && (sampling.top_k as usize) < logits.len() {
        keep_largest(logits, sampling.top_k as usize);
    }
    let temperature = sampling.temperature;
    let weight = |logit: &f32| math::exp((logit - max) / temperature);
    let mut weights: Vec<f32> = logits.iter().map(weight).collect();
    if sampling.min_p > 0.0 {
        for weight in &mut weights {
            // The likeliest tokens have weight 1 and stay, whatever min_p is.
            if *weight < sampling.min_p.min(1.0) {
                *weight = 0.0;
            }
        }
    }
    if sampling.top_p < 1.0 {
        keep_nucleus(&mut weights, logits, f64::from(sampling.top_p));
    }
    inverse(&weights, chance)
}

/// Top-k: exactly `k` tokens stay, the lowest ids among equals.
fn keep_largest(logits: &mut [f32], k: usize) {
    let mut ranked = candidates(logits, |_| true);
    let (_, last, _) = ranked.select_nth_unstable_by(k - 1, by_rank);
    let last = *last;
    for (token, logit) in logits.iter_mut().enumerate() {
        if by_rank(&(token as TokenId, *logit), &last) == Ordering::Greater {
            *logit = f32::NEG_INFINITY;
        }
    }
}

/// Top-p: the likeliest tokens stay, as few as have together at least the share `p`.
fn keep_nucleus(weights: &mut [f32], logits: &[f32], p: f64) {
    let total = math::sum(weights);
    // Tokens below this weight have together less than half of what may be cut, so that sorting
    // those above it is enough: a few hundred instead of a vocabulary.
    let negligible = ((1.0 - p) * total / weights.len() as f64 / 2.0).min(1.0) as f32;
    // By logit: different ones may have equal weights.
    let mut ranked = candidates(logits, |token| weights[token] >= negligible);
    ranked.sort_unstable_by(by_rank);
    let mut mass = 0.0;
    let kept = ranked.iter().take_while(|(token, _)| {
        let more = mass < p * total;
        mass += f64::from(weights[*token as usize]);
        more
    });
    let kept = kept.count().max(1);
    let nucleus: Vec<(TokenId, f32)> =
        ranked[..kept].iter().map(|(token, _)| (*token, weights[*token as usize])).collect();
    weights.fill(0.0);
    for (token, weight) in nucleus {
        weights[token as usize] = weight;
    }
}

fn candidates(logits: &[f32], keep: impl Fn(usize) -> bool) -> Vec<(TokenId, f32)> {
    let all = logits.iter().enumerate().filter(|(token, _)| keep(*token));
    all.map(|(token, logit)| (token as TokenId, *logit)).collect()
}

/// The first token at which the running sum of the weights exceeds the share `chance` of all.
fn inverse(weights: &[f32], chance: f64) -> Option<TokenId> {
    let target = chance * math::sum(weights);
    let (mut running, mut last) = (0.0, None);
    for (token, weight) in weights.iter().enumerate() {
        if *weight > 0.0 {
            running += f64::from(*weight);
            last = Some(token as TokenId);
            if running > target {
                break;
            }
        }
    }
    last
}
