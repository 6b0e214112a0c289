//! Answers in the shapes of the OpenAI interface: whole, and in chunks.

use super::Dialect;
use super::chunk::{self, Chunk, Said};
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

    /// Writes the chunks of one piece; `last` comes with the piece that completes the answer, and
    /// goes into the last of its chunks.
    fn chunks(&mut self, delta: &Delta, last: Option<&Summary>, out: &mut Vec<u8>) {
        let index = usize::from(delta.choice);
        let mut chars = self.choices.get(index).map_or(0, |choice| choice.chars);
        let logprobs = self.logprobs.then(|| self.logprobs_of(&delta.tokens, &mut chars));
        if let Some(choice) = self.choices.get_mut(index) {
            choice.chars = chars;
            choice.note(delta);
        }
        let logprobs = logprobs.as_ref();
        if self.dialect == Dialect::Chat {
            return self.chat_chunks(delta, logprobs, last, out);
        }
        let finish_reason = finish_name(delta.finish);
        if !delta.text.is_empty() || logprobs_say_something(logprobs) || finish_reason.is_some() {
            let text = &delta.text;
            self.write(chunk::Choice::Text { text, index, logprobs, finish_reason }, last, out);
        }
    }

    fn chat_chunks(
        &mut self,
        delta: &Delta,
        logprobs: Option<&Value>,
        last: Option<&Summary>,
        out: &mut Vec<u8>,
    ) {
        let index = usize::from(delta.choice);
        let no_more = logprobs.map(|_| json!({"content": [], "refusal": null}));
        let mut shown = logprobs;
        let is_said =
            |event: &Event<'_>| !matches!(event, Event::CallEnd { .. } | Event::Warning(_));
        let mut left = delta.events.iter().filter(is_said).count();
        let silent = left == 0 && logprobs_say_something(logprobs);
        let ends = delta.finish.is_some();
        let chat = |delta, logprobs, finish_reason| chunk::Choice::Chat {
            index,
            delta,
            logprobs,
            finish_reason,
        };
        if silent {
            let nothing = chat(Said::Text { content: "" }, logprobs, None);
            self.write(nothing, last.filter(|_| !ends), out);
        }
        for event in delta.events.iter() {
            let Some(said) = self.said(delta.choice, event) else { continue };
            left -= 1;
            self.write(chat(said, shown, None), last.filter(|_| left == 0 && !ends), out);
            // Once is enough.
            shown = no_more.as_ref();
        }
        if ends {
            let finish = self.choices.get(index).and_then(Choice::finish_name);
            self.write(chat(Said::Nothing {}, None, finish), last, out);
        }
    }

    /// An event in the words of a chat.
    fn said<'a>(&mut self, choice: u16, event: Event<'a>) -> Option<Said<'a>> {
        let prefix = self.delivery.call_prefix.unwrap_or_default();
        let begun = &mut self.choices.get_mut(usize::from(choice))?.begun;
        Some(match event {
            Event::Text(content) => Said::Text { content },
            Event::Reasoning(reasoning_content) => Said::Reasoning { reasoning_content },
            Event::CallBegin { name } => {
                let index = *begun;
                *begun += 1;
                let id = call_id(prefix, self.request, choice, index);
                let begin = Some(chunk::Begin { id, kind: "function" });
                let function = chunk::Function { name: Some(name), arguments: "" };
                Said::Call { tool_calls: [chunk::Call { index, begin, function }] }
            }
            Event::CallArguments(arguments) => {
                let index = begun.saturating_sub(1);
                let function = chunk::Function { name: None, arguments };
                Said::Call { tool_calls: [chunk::Call { index, begin: None, function }] }
            }
            Event::CallEnd { .. } | Event::Warning(_) => return None,
        })
    }

    /// Writes a chunk, with what belongs to the end of the answer where there is any.
    fn write(&self, choice: chunk::Choice<'_>, last: Option<&Summary>, out: &mut Vec<u8>) {
        let chunk = Chunk {
            id: &self.id,
            object: chunk_name(self.dialect),
            created: self.created.as_secs(),
            model: &self.model,
            system_fingerprint: (),
            choices: [choice],
            usage: self.delivery.include_usage.then_some(()),
        };
        let Some(summary) = last else { return writer::data(out, &chunk) };
        // What was made here always serialises.
        let mut chunk = serde_json::to_value(chunk).unwrap_or_default();
        extra::attach(&mut chunk, &self.delivery, self.created, summary);
        writer::data(out, &chunk);
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
            let delta = Said::Begin { role: "assistant", content: "", refusal: () };
            let begin = chunk::Choice::Chat { index, delta, logprobs: None, finish_reason: None };
            self.write(begin, None, out);
        }
    }

    fn piece(
        &mut self,
        delta: &Delta,
        summary: &dyn Fn() -> Summary,
        last: bool,
        out: &mut Vec<u8>,
    ) {
        self.chunks(delta, last.then(summary).as_ref(), out);
    }

    /// The chunk with the usage, where it was asked for.
    fn end(&mut self, summary: &Summary, out: &mut Vec<u8>) {
        if self.delivery.include_usage {
            let mut chunk = self.envelope(&[]);
            chunk["object"] = json!(chunk_name(self.dialect));
            chunk["usage"] = usage(self.dialect, summary);
            writer::data(out, &chunk);
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }

    fn fail(&mut self, error: &TurnError, out: &mut Vec<u8>) {
        writer::data(out, &ErrorBody::from(error));
    }
}

fn logprobs_say_something(logprobs: Option<&Value>) -> bool {
    let list = logprobs.and_then(|said| said.get("content").or_else(|| said.get("tokens")));
    list.and_then(Value::as_array).is_some_and(|list| !list.is_empty())
}

fn finish_name(finish: Option<FinishReason>) -> Option<&'static str> {
    finish.map(|reason| match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    })
}

/// What a piece of a stream calls itself.
fn chunk_name(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Chat => "chat.completion.chunk",
        _ => "text_completion",
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::steady;

    #[test]
    fn a_piece_of_a_chat_costs_no_allocation() {
        let mut writer = Writer {
            dialect: Dialect::Chat,
            delivery: Delivery { call_prefix: Some("call_"), ..Delivery::default() },
            text: Arc::new(TextModel::synthetic(1000)),
            id: "chatcmpl-1".to_owned(),
            request: RequestId(1),
            model: "m".to_owned(),
            created: Duration::ZERO,
            logprobs: false,
            choices: vec![Choice::default()],
        };
        steady::assert_none_per_piece(&mut writer);
    }
}
