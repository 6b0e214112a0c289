//! Answers in the shapes of the OpenAI interface: whole, and in chunks.

use super::Dialect;
use super::common::Delivery;
use super::error::ErrorBody;
use super::extra;
use super::logprobs;
use super::writer::{self, AnswerWriter};
use crate::error::TurnError;
use crate::parse::Event;
use crate::turn::{AnswerToken, Delta, Summary, Turn, call_id};
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
    request: RequestId,
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
    reasoning: String,
    /// The calls of a whole answer.
    calls: Vec<Value>,
    /// How many calls have begun.
    begun: usize,
    /// A stop string ended it.
    stopped: bool,
    /// A call was cut off.
    cut: bool,
    /// Characters that its tokens have, for `text_offset`.
    chars: usize,
    tokens: Vec<AnswerToken>,
    finish: Option<FinishReason>,
}

impl Choice {
    /// Keeps what a piece says.
    fn keep(&mut self, delta: &Delta, prefix: &str, request: RequestId) {
        for event in delta.events.iter() {
            match event {
                Event::Text(text) => self.text.push_str(text),
                Event::Reasoning(text) => self.reasoning.push_str(text),
                Event::CallBegin { name } => {
                    let id = call_id(prefix, request, delta.choice, self.begun);
                    self.begun += 1;
                    let function = json!({"name": name, "arguments": ""});
                    self.calls.push(json!({"id": id, "type": "function", "function": function}));
                }
                Event::CallArguments(text) => {
                    let call = self.calls.last_mut();
                    if let Some(Value::String(arguments)) =
                        call.map(|call| &mut call["function"]["arguments"])
                    {
                        arguments.push_str(text);
                    }
                }
                Event::CallEnd { .. } | Event::Warning(_) => {}
            }
        }
    }

    fn note(&mut self, delta: &Delta) {
        self.finish = delta.finish.or(self.finish);
        self.stopped |= delta.stop_string.is_some();
        self.cut |= delta.events.has_cut_call();
    }

    fn message(&self) -> Value {
        let mut message = json!({"role": "assistant", "content": self.text, "refusal": null});
        if !self.reasoning.is_empty() {
            message["reasoning_content"] = json!(self.reasoning);
        }
        if !self.calls.is_empty() {
            message["tool_calls"] = json!(self.calls);
            if self.text.is_empty() {
                message["content"] = Value::Null;
            }
        }
        message
    }

    fn finish_name(&self) -> Option<&'static str> {
        match self.finish? {
            // Who is told of a call runs it, and what is there is not what the model meant.
            FinishReason::Stop if self.cut && !self.stopped => Some("length"),
            FinishReason::Stop if self.begun > 0 && !self.stopped => Some("tool_calls"),
            other => finish_name(Some(other)),
        }
    }
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
            request: request.id,
            model: request.model.clone(),
            created,
            logprobs: request.logprobs.is_some(),
            choices,
        }
    }

    fn full_choice(&self, index: usize, choice: &Choice) -> Value {
        let finish = choice.finish_name();
        let mut chars = 0;
        let logprobs = self.logprobs_of(&choice.tokens, &mut chars);
        match self.dialect {
            Dialect::Chat => json!({
                "index": index,
                "message": choice.message(),
                "logprobs": logprobs,
                "finish_reason": finish,
            }),
            _ => json!({
                "text": choice.text,
                "index": index,
                "logprobs": logprobs,
                "finish_reason": finish,
            }),
        }
    }

    /// The chunks of one piece; `last` comes with the piece that completes the answer.
    fn events(&mut self, delta: &Delta, last: Option<&Summary>) -> Vec<Value> {
        let index = usize::from(delta.choice);
        let mut chars = self.choices.get(index).map_or(0, |choice| choice.chars);
        let logprobs = self.logprobs_of(&delta.tokens, &mut chars);
        if let Some(choice) = self.choices.get_mut(index) {
            choice.chars = chars;
        }
        let mut events = Vec::new();
        if self.dialect == Dialect::Chat {
            let mut said = self.chat_deltas(delta);
            if said.is_empty() && logprobs_say_something(&logprobs) {
                said.push(json!({"content": ""}));
            }
            let mut logprobs = logprobs;
            for said in said {
                events.push(self.chunk(chat_choice(index, &said, &logprobs, None)));
                // Once is enough.
                if self.logprobs {
                    logprobs = json!({"content": [], "refusal": null});
                }
            }
            if delta.finish.is_some() {
                let finish = self.choices.get(index).and_then(Choice::finish_name);
                let end = chat_choice(index, &json!({}), &Value::Null, finish);
                events.push(self.chunk(end));
            }
        } else {
            let says_something = !delta.text.is_empty() || logprobs_say_something(&logprobs);
            if says_something || delta.finish.is_some() {
                events.push(self.chunk(json!({
                    "text": delta.text,
                    "index": index,
                    "logprobs": logprobs,
                    "finish_reason": finish_name(delta.finish),
                })));
            }
        }
        if let (Some(event), Some(summary)) = (events.last_mut(), last) {
            extra::attach(event, &self.delivery, self.created, summary);
        }
        events
    }

    /// What a piece of a chat says, in the order in which it does.
    fn chat_deltas(&mut self, delta: &Delta) -> Vec<Value> {
        let prefix = self.delivery.call_prefix.unwrap_or_default();
        let Some(choice) = self.choices.get_mut(usize::from(delta.choice)) else {
            return Vec::new();
        };
        choice.note(delta);
        let said = delta.events.iter().filter_map(|event| match event {
            Event::Text(text) => Some(json!({"content": text})),
            Event::Reasoning(text) => Some(json!({"reasoning_content": text})),
            Event::CallBegin { name } => {
                let index = choice.begun;
                choice.begun += 1;
                let id = call_id(prefix, self.request, delta.choice, index);
                let function = json!({"name": name, "arguments": ""});
                let call =
                    json!({"index": index, "id": id, "type": "function", "function": function});
                Some(json!({"tool_calls": [call]}))
            }
            Event::CallArguments(text) => {
                let function = json!({"arguments": text});
                let call = json!({"index": choice.begun.saturating_sub(1), "function": function});
                Some(json!({"tool_calls": [call]}))
            }
            Event::CallEnd { .. } | Event::Warning(_) => None,
        });
        said.collect()
    }

    fn chunk(&self, choice: Value) -> Value {
        let mut chunk = self.envelope(&[choice]);
        chunk["object"] = match self.dialect {
            Dialect::Chat => json!("chat.completion.chunk"),
            _ => json!("text_completion"),
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
                let content: Vec<_> =
                    tokens.map(|token| logprobs::entry(&self.text, token)).collect();
                json!({"content": content, "refusal": null})
            }
            _ => self.text_logprobs(tokens, chars),
        }
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
            logprobs.push(logprobs::finite(logprob.map_or(0.0, |logprob| logprob.logprob)));
            let mut alternatives = Map::new();
            for (id, logprob) in logprob.into_iter().flat_map(logprobs::top) {
                alternatives.insert(self.token(id), json!(logprobs::finite(logprob)));
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

impl AnswerWriter for Writer {
    fn keep(&mut self, delta: Delta) {
        let (told_apart, request) = (self.delivery.call_prefix, self.request);
        let Some(choice) = self.choices.get_mut(usize::from(delta.choice)) else { return };
        match told_apart {
            Some(prefix) => choice.keep(&delta, prefix, request),
            None => choice.text.push_str(&delta.text),
        }
        choice.note(&delta);
        if self.logprobs {
            choice.tokens.extend(delta.tokens);
        }
    }

    fn whole(&mut self, summary: &Summary) -> Value {
        let choices = std::mem::take(&mut self.choices);
        let choices = choices.into_iter().enumerate();
        let choices: Vec<_> =
            choices.map(|(index, choice)| self.full_choice(index, &choice)).collect();
        let mut body = self.envelope(&choices);
        body["object"] = match self.dialect {
            Dialect::Chat => json!("chat.completion"),
            _ => json!("text_completion"),
        };
        body["usage"] = usage(self.dialect, summary);
        extra::attach(&mut body, &self.delivery, self.created, summary);
        body
    }

    /// In a chat the roles, as soon as the turn is admitted.
    fn head(&mut self, out: &mut Vec<u8>) {
        if self.dialect != Dialect::Chat {
            return;
        }
        for index in 0..self.choices.len() {
            let delta = json!({"role": "assistant", "content": "", "refusal": null});
            writer::data(out, &self.chunk(chat_choice(index, &delta, &Value::Null, None)));
        }
    }

    fn piece(&mut self, delta: &Delta, summary: &Summary, last: bool, out: &mut Vec<u8>) {
        for event in self.events(delta, last.then_some(summary)) {
            writer::data(out, &event);
        }
    }

    /// The chunk with the usage, where it was asked for.
    fn end(&mut self, summary: &Summary, out: &mut Vec<u8>) {
        if self.delivery.include_usage {
            let mut chunk = self.chunk(Value::Null);
            chunk["choices"] = json!([]);
            chunk["usage"] = usage(self.dialect, summary);
            writer::data(out, &chunk);
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }

    fn fail(&mut self, error: &TurnError, out: &mut Vec<u8>) {
        writer::data(out, &ErrorBody::from(error));
    }
}

fn chat_choice(
    index: usize,
    delta: &Value,
    logprobs: &Value,
    finish: Option<&'static str>,
) -> Value {
    json!({
        "index": index,
        "delta": delta,
        "logprobs": logprobs,
        "finish_reason": finish,
    })
}

fn logprobs_say_something(logprobs: &Value) -> bool {
    let list = logprobs.get("content").or_else(|| logprobs.get("tokens"));
    list.and_then(Value::as_array).is_some_and(|list| !list.is_empty())
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
        _ => format!("cmpl-{id}"),
    }
}

fn usage(dialect: Dialect, summary: &Summary) -> Value {
    let mut usage = json!({
        "prompt_tokens": summary.prompt_tokens,
        "completion_tokens": summary.completion_tokens,
        "total_tokens": summary.prompt_tokens as u64 + summary.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": summary.cached_tokens},
    });
    // Of plain text nobody here knows which of it is reasoning.
    if dialect == Dialect::Chat {
        usage["completion_tokens_details"] = json!({"reasoning_tokens": summary.reasoning_tokens});
    }
    usage
}
