//! Answers in the shapes of this interface: whole, and as events.

use super::context;
use super::error;
use super::usage::usage;
use crate::api::common::Delivery;
use crate::api::extra;
use crate::api::writer::{AnswerWriter, COMMENT, named};
use crate::error::TurnError;
use crate::parse::Event;
use crate::turn::{Breakpoint, Delta, Edited, Summary, Turn, call_id};
use baton_proto::ids::RequestId;
use baton_proto::ir::FinishReason;
use serde::Serialize;
use serde_json::{Value, json};
use std::time::Duration;

/// Keeps a stream alive, as this interface's clients know it.
const PING: &[u8] = b"event: ping\ndata: {\"type\":\"ping\"}\n\n";

/// Writes the answer of one request.
pub(in crate::api) struct Writer {
    id: RequestId,
    model: String,
    delivery: Delivery,
    /// When the request came, since 1970.
    created: Duration,
    stop_strings: Vec<String>,
    breakpoints: Vec<Breakpoint>,
    edited: Vec<Edited>,
    ending: Ending,
    /// The blocks of a whole answer.
    content: Vec<Value>,
    /// The arguments of its last call.
    arguments: String,
    /// How many calls have begun.
    calls: usize,
    /// What has been said of a stream.
    stream: Stream,
}

/// How the answer ended.
#[derive(Default)]
struct Ending {
    finish: Option<FinishReason>,
    stop_string: Option<usize>,
    /// A call was cut off.
    cut: bool,
}

/// What a block is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Thinking,
    Call,
}

/// More of a block, written straight into the stream: a token costs no allocation.
#[derive(Serialize)]
struct BlockDelta<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    index: usize,
    delta: More<'a>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[expect(clippy::enum_variant_names, reason = "the interface's names")]
enum More<'a> {
    TextDelta { text: &'a str },
    ThinkingDelta { thinking: &'a str },
    InputJsonDelta { partial_json: &'a str },
    SignatureDelta { signature: &'a str },
}

/// Where a stream is.
#[derive(Default)]
struct Stream {
    begun: bool,
    /// The block that is open.
    open: Option<Kind>,
    /// What the open block thinks.
    thought: blake3::Hasher,
    /// The index of the block that is open, or that comes next.
    index: usize,
}

impl Writer {
    /// `created` is when the request came, since 1970.
    pub(in crate::api) fn new(turn: &Turn, delivery: Delivery, created: Duration) -> Self {
        let prepared = turn.prepared();
        Self {
            id: prepared.request.id,
            model: prepared.request.model.clone(),
            delivery,
            created,
            stop_strings: prepared.request.stop.strings.clone(),
            breakpoints: prepared.breakpoints.clone(),
            edited: prepared.edited.clone(),
            ending: Ending::default(),
            content: Vec::new(),
            arguments: String::new(),
            calls: 0,
            stream: Stream::default(),
        }
    }

    fn message(&self, content: &[Value], usage: &Value) -> Value {
        json!({
            "id": format!("msg_{}", self.id),
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": null,
            "stop_sequence": null,
            "usage": usage,
        })
    }

    /// What was taken out of the history, where that was asked for.
    fn tell_edits(&self, body: &mut Value) {
        if self.delivery.edits_told {
            body["context_management"] = context::told(&self.edited);
        }
    }

    fn stop_reason(&self) -> Option<&'static str> {
        Some(match (self.ending.finish?, self.ending.stop_string) {
            (_, Some(_)) => "stop_sequence",
            // Who is told of a call runs it, and what is there is not what the model meant.
            (FinishReason::Stop, None) if self.ending.cut => "max_tokens",
            (FinishReason::Stop, None) if self.calls > 0 => "tool_use",
            (FinishReason::Stop, None) => "end_turn",
            (FinishReason::Length, None) => "max_tokens",
        })
    }

    fn stop_sequence(&self) -> Option<&str> {
        self.stop_strings.get(self.ending.stop_string?).map(String::as_str)
    }

    fn note(&mut self, delta: &Delta) {
        self.ending.finish = delta.finish.or(self.ending.finish);
        self.ending.stop_string = delta.stop_string.or(self.ending.stop_string);
        self.ending.cut |= delta.events.has_cut_call();
    }

    /// The first event: what the prompt cost is known by now.
    fn begin(&mut self, summary: impl FnOnce() -> Summary, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.stream.begun, true) {
            return;
        }
        let mut usage = usage(&summary(), &self.breakpoints);
        // Of the answer nothing has been said yet.
        usage["output_tokens"] = json!(0);
        let message = self.message(&[], &usage);
        named(out, "message_start", &json!({"type": "message_start", "message": message}));
        out.extend_from_slice(PING);
    }

    /// An event of a block of that kind, which is opened first where it is not open.
    fn say(&mut self, kind: Kind, text: &str, out: &mut Vec<u8>) {
        if self.stream.open != Some(kind) {
            let block = match kind {
                Kind::Text => json!({"type": "text", "text": ""}),
                Kind::Thinking => json!({"type": "thinking", "thinking": "", "signature": ""}),
                // Opened by its name.
                Kind::Call => return,
            };
            self.open(kind, &block, out);
        }
        let delta = match kind {
            Kind::Text => More::TextDelta { text },
            Kind::Thinking => {
                self.stream.thought.update(text.as_bytes());
                More::ThinkingDelta { thinking: text }
            }
            Kind::Call => More::InputJsonDelta { partial_json: text },
        };
        self.delta(delta, out);
    }

    fn open(&mut self, kind: Kind, block: &Value, out: &mut Vec<u8>) {
        self.close(out);
        self.stream.open = Some(kind);
        let index = self.stream.index;
        let data = json!({"type": "content_block_start", "index": index, "content_block": block});
        named(out, "content_block_start", &data);
    }

    fn delta(&self, delta: More<'_>, out: &mut Vec<u8>) {
        let kind = "content_block_delta";
        named(out, kind, &BlockDelta { kind, index: self.stream.index, delta });
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        let Some(kind) = self.stream.open.take() else { return };
        if kind == Kind::Thinking {
            let signature = signature(&std::mem::take(&mut self.stream.thought));
            self.delta(More::SignatureDelta { signature: &signature }, out);
        }
        let data = json!({"type": "content_block_stop", "index": self.stream.index});
        named(out, "content_block_stop", &data);
        self.stream.index += 1;
    }

    fn tool_use(&mut self, name: &str) -> Value {
        let id = call_id(self.delivery.call_prefix.unwrap_or_default(), self.id, 0, self.calls);
        self.calls += 1;
        json!({"type": "tool_use", "id": id, "name": name, "input": {}})
    }

    /// The field of the last block of a whole answer, where that is of its kind; else of a new one.
    fn block(&mut self, kind: &'static str, field: &str) -> &mut Value {
        let last = self.content.last();
        if last.is_none_or(|last| last["type"] != kind) {
            self.content.push(json!({"type": kind, (field): ""}));
        }
        let last = self.content.len() - 1;
        &mut self.content[last][field]
    }

    fn keep_event(&mut self, event: Event<'_>) {
        match event {
            Event::Text(text) => append(self.block("text", "text"), text),
            Event::Reasoning(text) => append(self.block("thinking", "thinking"), text),
            Event::CallBegin { name } => {
                let block = self.tool_use(name);
                self.content.push(block);
                self.arguments.clear();
            }
            Event::CallArguments(text) => self.arguments.push_str(text),
            Event::CallEnd { missing } => {
                self.arguments.push_str(missing);
                // Of a call that was cut off, what there is of it.
                if let Some(block) = self.content.last_mut()
                    && let Ok(input @ Value::Object(_)) = serde_json::from_str(&self.arguments)
                {
                    block["input"] = input;
                }
            }
            Event::Warning(_) => {}
        }
    }
}

fn append(field: &mut Value, text: &str) {
    if let Value::String(said) = field {
        said.push_str(text);
    }
}

/// What a client sends back with a thought; nothing is read out of it here.
fn signature(thought: &blake3::Hasher) -> String {
    thought.finalize().to_hex().to_string()
}

impl AnswerWriter for Writer {
    fn keep(&mut self, delta: Delta) {
        self.note(&delta);
        delta.events.iter().for_each(|event| self.keep_event(event));
    }

    fn whole(&mut self, summary: &Summary) -> Value {
        let mut content = std::mem::take(&mut self.content);
        for block in &mut content {
            let thought = block["thinking"].as_str().map(|thought| {
                let mut hasher = blake3::Hasher::new();
                hasher.update(thought.as_bytes());
                signature(&hasher)
            });
            if let Some(thought) = thought {
                block["signature"] = json!(thought);
            }
        }
        let mut body = self.message(&content, &usage(summary, &self.breakpoints));
        body["stop_reason"] = json!(self.stop_reason());
        body["stop_sequence"] = json!(self.stop_sequence());
        self.tell_edits(&mut body);
        extra::attach(&mut body, &self.delivery, self.created, summary);
        body
    }

    /// Nothing: the first event says what the prompt cost, and that is not known yet.
    fn head(&mut self, _out: &mut Vec<u8>) {}

    fn piece(
        &mut self,
        delta: &Delta,
        summary: &dyn Fn() -> Summary,
        _last: bool,
        out: &mut Vec<u8>,
    ) {
        self.begin(summary, out);
        self.note(delta);
        for event in delta.events.iter() {
            match event {
                Event::Text(text) => self.say(Kind::Text, text, out),
                Event::Reasoning(text) => self.say(Kind::Thinking, text, out),
                Event::CallBegin { name } => {
                    let block = self.tool_use(name);
                    self.open(Kind::Call, &block, out);
                }
                Event::CallArguments(text) => self.say(Kind::Call, text, out),
                Event::CallEnd { .. } => self.close(out),
                Event::Warning(_) => {}
            }
        }
    }

    fn end(&mut self, summary: &Summary, out: &mut Vec<u8>) {
        self.begin(|| summary.clone(), out);
        self.close(out);
        let delta =
            json!({"stop_reason": self.stop_reason(), "stop_sequence": self.stop_sequence()});
        let usage = usage(summary, &self.breakpoints);
        let mut data = json!({"type": "message_delta", "delta": delta, "usage": usage});
        self.tell_edits(&mut data);
        extra::attach(&mut data, &self.delivery, self.created, summary);
        named(out, "message_delta", &data);
        named(out, "message_stop", &json!({"type": "message_stop"}));
    }

    fn fail(&mut self, error: &TurnError, out: &mut Vec<u8>) {
        named(out, "error", &error::body(error, Some(self.id)));
    }

    /// Before the first event a client expects no ping.
    fn keep_alive(&self) -> &'static [u8] {
        if self.stream.begun { PING } else { COMMENT }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::steady;

    #[test]
    fn a_piece_of_a_message_costs_no_allocation() {
        let mut writer = Writer {
            id: RequestId(1),
            model: "m".to_owned(),
            delivery: Delivery::default(),
            created: Duration::ZERO,
            stop_strings: Vec::new(),
            breakpoints: Vec::new(),
            edited: Vec::new(),
            ending: Ending::default(),
            content: Vec::new(),
            arguments: String::new(),
            calls: 0,
            stream: Stream::default(),
        };
        steady::assert_none_per_piece(&mut writer);
    }
}
