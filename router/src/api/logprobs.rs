//! Log-probabilities of tokens as OpenAI's interfaces write them.

use crate::turn::AnswerToken;
use baton_proto::ids::TokenId;
use baton_proto::internal::Logprob;
use baton_text::TextModel;
use serde_json::{Value, json};

/// A token with its log-probability and those of the likeliest in its place.
pub(super) fn entry(text: &TextModel, token: &AnswerToken) -> Value {
    let entry = |id, logprob: f32| {
        let bytes = text.token_bytes(id).unwrap_or_default();
        let word = text.token_text(id).unwrap_or_default();
        json!({"token": word, "logprob": finite(logprob), "bytes": bytes})
    };
    let logprob = token.logprob.as_ref();
    let mut shown = entry(token.id, logprob.map_or(0.0, |logprob| logprob.logprob));
    let likeliest = logprob.into_iter().flat_map(top);
    let likeliest: Vec<_> = likeliest.map(|(id, logprob)| entry(id, logprob)).collect();
    shown["top_logprobs"] = json!(likeliest);
    shown
}

/// The likeliest tokens in the place of one.
pub(super) fn top(logprob: &Logprob) -> impl Iterator<Item = (TokenId, f32)> {
    logprob.top_ids.iter().copied().zip(logprob.top_logprobs.iter().copied())
}

/// JSON has no infinity; this is what the interface uses for "impossible".
pub(super) fn finite(logprob: f32) -> f32 {
    const IMPOSSIBLE: f32 = -9999.0;
    if logprob.is_finite() { logprob } else { IMPOSSIBLE }
}
