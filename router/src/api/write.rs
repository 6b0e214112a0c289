//! Answers in the shapes of the OpenAI interface: whole, and in chunks.

use super::Dialect;
use super::common::Delivery;
use super::explain;
use crate::intent::Applied;
use crate::turn::{AnswerToken, Delta, Summary, Turn};
use baton_proto::ids::{RequestId, TokenId};
use baton_proto::ir::FinishReason;
use baton_text::TextModel;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Writes the answer of one request.
pub(super) struct Writer {
    dialect: Dialect,
    delivery: Delivery,
    text: Arc<TextModel>,
    id: String,
    model: String,
    /// When the request came, since 1970.
    created: Duration,
    logprobs: bool,
    choices: Vec<Choice>,
}

/// What has been written of a choice.
#[derive(Default)]
struct Choice {
    text: String,
    /// Characters that its tokens have, for `text_offset`.
    chars: usize,
    tokens: Vec<AnswerToken>,
    finish: Option<FinishReason>,
}

impl Writer {
    pub(super) fn new(
        dialect: Dialect,
        turn: &Turn,
        delivery: Delivery,
        text: &Arc<TextModel>,
        created: Duration,
    ) -> Self {
        let request = &turn.prepared().request;
        let choices = (0..request.choices).map(|_| Choice::default()).collect();
        Self {
            dialect,
            delivery,
            text: text.clone(),
            id: response_id(dialect, request.id),
            model: request.model.clone(),
            created,
            logprobs: request.logprobs.is_some(),
            choices,
        }
    }

    /// Keeps a piece for [`full`](Self::full).
    pub(super) fn keep(&mut self, delta: Delta) {
        let Some(choice) = self.choices.get_mut(usize::from(delta.choice)) else { return };
        choice.text.push_str(&delta.text);
        if self.logprobs {
            choice.tokens.extend(delta.tokens);
        }
        choice.finish = delta.finish.or(choice.finish);
    }

    /// The whole answer.
    pub(super) fn full(mut self, summary: &Summary) -> Value {
        let choices = std::mem::take(&mut self.choices);
        let choices = choices.into_iter().enumerate();
        let choices: Vec<_> =
            choices.map(|(index, choice)| self.full_choice(index, &choice)).collect();
        let mut body = self.envelope(&choices);
        body["object"] = match self.dialect {
            Dialect::Chat => json!("chat.completion"),
            Dialect::Completions => json!("text_completion"),
        };
        body["usage"] = usage(summary);
        self.attach_extra(&mut body, summary);
        body
    }

    fn full_choice(&self, index: usize, choice: &Choice) -> Value {
        let finish = finish_name(choice.finish);
        let mut chars = 0;
        let logprobs = self.logprobs_of(&choice.tokens, &mut chars);
        match self.dialect {
            Dialect::Chat => json!({
                "index": index,
                "message": {"role": "assistant", "content": choice.text, "refusal": null},
                "logprobs": logprobs,
                "finish_reason": finish,
            }),
            Dialect::Completions => json!({
                "text": choice.text,
                "index": index,
                "logprobs": logprobs,
                "finish_reason": finish,
            }),
        }
    }

    /// What a stream begins with: in a chat the roles, as soon as the turn is admitted.
    pub(super) fn head(&self) -> Vec<Value> {
        if self.dialect == Dialect::Completions {
            return Vec::new();
        }
        let role = |index| {
            let delta = json!({"role": "assistant", "content": "", "refusal": null});
            self.chunk(chat_choice(index, &delta, &Value::Null, None))
        };
        (0..self.choices.len()).map(role).collect()
    }

    /// The chunks of one piece; `last` comes with the piece that completes the answer.
    pub(super) fn events(&mut self, delta: &Delta, last: Option<&Summary>) -> Vec<Value> {
        let index = usize::from(delta.choice);
        let mut chars = self.choices.get(index).map_or(0, |choice| choice.chars);
        let logprobs = self.logprobs_of(&delta.tokens, &mut chars);
        if let Some(choice) = self.choices.get_mut(index) {
            choice.chars = chars;
        }
        let says_something = !delta.text.is_empty() || logprobs_say_something(&logprobs);
        let mut events = Vec::new();
        match self.dialect {
            Dialect::Chat => {
                if says_something {
                    let content = json!({"content": delta.text});
                    events.push(self.chunk(chat_choice(index, &content, &logprobs, None)));
                }
                if delta.finish.is_some() {
                    let end = chat_choice(index, &json!({}), &Value::Null, delta.finish);
                    events.push(self.chunk(end));
                }
            }
            Dialect::Completions => {
                if says_something || delta.finish.is_some() {
                    events.push(self.chunk(json!({
                        "text": delta.text,
                        "index": index,
                        "logprobs": logprobs,
                        "finish_reason": finish_name(delta.finish),
                    })));
                }
            }
        }
        if let (Some(event), Some(summary)) = (events.last_mut(), last) {
            self.attach_extra(event, summary);
        }
        events
    }

    /// The chunk with the usage, where it was asked for.
    pub(super) fn usage(&self, summary: &Summary) -> Option<Value> {
        if !self.delivery.include_usage {
            return None;
        }
        let mut chunk = self.chunk(Value::Null);
        chunk["choices"] = json!([]);
        chunk["usage"] = usage(summary);
        Some(chunk)
    }

    fn chunk(&self, choice: Value) -> Value {
        let mut chunk = self.envelope(&[choice]);
        chunk["object"] = match self.dialect {
            Dialect::Chat => json!("chat.completion.chunk"),
            Dialect::Completions => json!("text_completion"),
        };
        if self.delivery.include_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }

    fn envelope(&self, choices: &[Value]) -> Value {
        json!({
            "id": self.id,
            "object": null,
            "created": self.created.as_secs(),
            "model": self.model,
            "system_fingerprint": null,
            "choices": choices,
        })
    }

    fn attach_extra(&self, body: &mut Value, summary: &Summary) {
        let mut extra = Map::new();
        if self.delivery.timing {
            extra.insert("timing".to_owned(), timing(self.created, summary));
        }
        if self.delivery.worker_id {
            let prefill = summary.report.map(|report| report.prefill_worker).filter(|id| *id != 0);
            let ids =
                json!({"prefill_worker_id": prefill, "decode_worker_id": summary.decode_worker.0});
            extra.insert("worker_id".to_owned(), ids);
        }
        if let Some(applied) = &self.delivery.applied {
            extra.insert("applied".to_owned(), applied.iter().map(told).collect());
        }
        if let Some(bought) = &summary.bought {
            extra.insert(
                "speculation".to_owned(),
                json!({
                    "hit_tokens": bought.hit_tokens,
                    "wasted_tokens": bought.wasted_tokens,
                    "lead_ms": millis(bought.lead),
                }),
            );
        }
        if let Some(why) = &summary.why {
            extra.insert("explain".to_owned(), explain::decision(why));
        }
        if !extra.is_empty() {
            body["nvext"] = Value::Object(extra);
        }
    }

    /// The log-probabilities of these tokens in the dialect's own form. `chars` counts the
    /// characters of the answer up to here.
    fn logprobs_of(&self, tokens: &[AnswerToken], chars: &mut usize) -> Value {
        if !self.logprobs {
            return Value::Null;
        }
        // An end token is no part of the answer.
        let tokens = tokens.iter().filter(|token| !token.is_end);
        match self.dialect {
            Dialect::Chat => {
                let content: Vec<_> = tokens.map(|token| self.chat_logprob(token)).collect();
                json!({"content": content, "refusal": null})
            }
            Dialect::Completions => self.text_logprobs(tokens, chars),
        }
    }

    fn chat_logprob(&self, token: &AnswerToken) -> Value {
        let entry = |id, logprob: f32| {
            let bytes = self.text.token_bytes(id).unwrap_or_default();
            json!({"token": self.token(id), "logprob": finite(logprob), "bytes": bytes})
        };
        let logprob = token.logprob.as_ref();
        let mut shown = entry(token.id, logprob.map_or(0.0, |logprob| logprob.logprob));
        let top: Vec<_> = logprob.map_or_else(Vec::new, |logprob| {
            top(logprob).map(|(id, logprob)| entry(id, logprob)).collect()
        });
        shown["top_logprobs"] = json!(top);
        shown
    }

    fn text_logprobs<'a>(
        &self,
        tokens: impl Iterator<Item = &'a AnswerToken>,
        chars: &mut usize,
    ) -> Value {
        let (mut texts, mut logprobs, mut tops, mut offsets) = (vec![], vec![], vec![], vec![]);
        for token in tokens {
            let text = self.token(token.id);
            offsets.push(*chars);
            *chars += text.chars().count();
            let logprob = token.logprob.as_ref();
            logprobs.push(finite(logprob.map_or(0.0, |logprob| logprob.logprob)));
            let mut alternatives = Map::new();
            for (id, logprob) in logprob.into_iter().flat_map(top) {
                alternatives.insert(self.token(id), json!(finite(logprob)));
            }
            tops.push(Value::Object(alternatives));
            texts.push(text);
        }
        json!({
            "tokens": texts,
            "token_logprobs": logprobs,
            "top_logprobs": tops,
            "text_offset": offsets,
        })
    }

    /// What a token reads by itself; U+FFFD where it is not whole characters.
    fn token(&self, id: TokenId) -> String {
        self.text.token_text(id).unwrap_or_default()
    }
}

/// What came of a hint.
fn told(applied: &Applied) -> Value {
    let mut told = json!({"hint": applied.hint, "outcome": applied.outcome.as_str()});
    if let Some(value) = applied.value {
        told["value"] = json!(value);
    }
    if let Some(why) = &applied.why {
        told["why"] = json!(why);
    }
    told
}

fn chat_choice(
    index: usize,
    delta: &Value,
    logprobs: &Value,
    finish: Option<FinishReason>,
) -> Value {
    json!({
        "index": index,
        "delta": delta,
        "logprobs": logprobs,
        "finish_reason": finish_name(finish),
    })
}

fn logprobs_say_something(logprobs: &Value) -> bool {
    let list = logprobs.get("content").or_else(|| logprobs.get("tokens"));
    list.and_then(Value::as_array).is_some_and(|list| !list.is_empty())
}

fn top(logprob: &baton_proto::internal::Logprob) -> impl Iterator<Item = (TokenId, f32)> {
    logprob.top_ids.iter().copied().zip(logprob.top_logprobs.iter().copied())
}

/// JSON has no infinity; this is what the interface uses for "impossible".
fn finite(logprob: f32) -> f32 {
    const IMPOSSIBLE: f32 = -9999.0;
    if logprob.is_finite() { logprob } else { IMPOSSIBLE }
}

fn finish_name(finish: Option<FinishReason>) -> Option<&'static str> {
    finish.map(|reason| match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    })
}

fn response_id(dialect: Dialect, id: RequestId) -> String {
    match dialect {
        Dialect::Chat => format!("chatcmpl-{id}"),
        Dialect::Completions => format!("cmpl-{id}"),
    }
}

fn usage(summary: &Summary) -> Value {
    json!({
        "prompt_tokens": summary.prompt_tokens,
        "completion_tokens": summary.completion_tokens,
        "total_tokens": summary.prompt_tokens as u64 + summary.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": summary.cached_tokens},
    })
}

/// Times in milliseconds, as far as they are known.
fn timing(created: Duration, summary: &Summary) -> Value {
    let ms = |micros: u32| f64::from(micros) / 1e3;
    let report = summary.report;
    json!({
        "request_received_ms": created.as_millis() as u64,
        "prefill_wait_time_ms": report.map(|report| ms(report.queue_us)),
        "prefill_time_ms": report.map(|report| ms(report.prefill_us)),
        "handover_ms": report.filter(|report| report.pulled_blocks > 0).map(|report| ms(report.handover_us)),
        "ttft_ms": summary.ttft.map(millis),
        "total_time_ms": millis(summary.total),
        "kv_hit_rate": summary.cached_tokens as f64 / summary.prompt_tokens.max(1) as f64,
        "pulled_blocks": report.map(|report| report.pulled_blocks),
        "pulled_bytes": report.map(|report| report.pulled_bytes),
    })
}

fn millis(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e3
}
