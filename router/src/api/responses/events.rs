//! The events of a stream, each with its number.

use super::output::{Item, ItemId, Kind};
use crate::api::writer::named;
use baton_proto::ids::RequestId;
use serde::Serialize;
use serde_json::{Value, json};

/// Writes events.
pub(super) struct Events {
    request: RequestId,
    /// The number of the next one.
    next: u64,
}

/// More of an item's text, written straight into the stream: a token costs no allocation.
#[derive(Serialize)]
struct More<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    sequence_number: u64,
    item_id: ItemId,
    output_index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    summary_index: Option<usize>,
    delta: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<&'a [Value]>,
}

impl Events {
    pub(super) fn new(request: RequestId) -> Self {
        Self { request, next: 0 }
    }

    /// An event about the whole response.
    pub(super) fn response(&mut self, name: &str, response: &Value, out: &mut Vec<u8>) {
        self.write(name, json!({"response": response}), out);
    }

    /// An item begins, and its part if it has one.
    pub(super) fn begin(&mut self, item: &Item, index: usize, out: &mut Vec<u8>) {
        let added = item.json(self.request, index);
        self.write(
            "response.output_item.added",
            json!({"output_index": index, "item": added}),
            out,
        );
        if let Some(part) = item.part("") {
            let name = match item.kind {
                Kind::Reasoning { summary: true } => "response.reasoning_summary_part.added",
                _ => "response.content_part.added",
            };
            let mut data = self.place(item, index);
            data["part"] = part;
            self.write(name, data, out);
        }
    }

    /// More of an item's text. A custom tool's input is told at its end: it comes wrapped.
    pub(super) fn more(
        &mut self,
        item: &Item,
        index: usize,
        (text, logprobs): (&str, &[Value]),
        out: &mut Vec<u8>,
    ) {
        let Some((name, _)) = words(item) else { return };
        let (content_index, summary_index) = match item.kind {
            Kind::Reasoning { summary: true } => (None, Some(0)),
            Kind::Reasoning { summary: false } | Kind::Message => (Some(0), None),
            Kind::Call { .. } => (None, None),
        };
        let sequence_number = self.number();
        let more = More {
            kind: name,
            sequence_number,
            item_id: item.id(self.request, index),
            output_index: index,
            content_index,
            summary_index,
            delta: text,
            logprobs: matches!(item.kind, Kind::Message).then_some(logprobs),
        };
        named(out, name, &more);
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// An item is complete, or cut off.
    pub(super) fn end(&mut self, item: &Item, index: usize, out: &mut Vec<u8>) {
        self.end_text(item, index, out);
        if let Some(part) = item.part(&item.text) {
            let name = match item.kind {
                Kind::Reasoning { summary: true } => "response.reasoning_summary_part.done",
                _ => "response.content_part.done",
            };
            let mut data = self.place(item, index);
            data["part"] = part;
            self.write(name, data, out);
        }
        let done = item.json(self.request, index);
        self.write("response.output_item.done", json!({"output_index": index, "item": done}), out);
    }

    fn end_text(&mut self, item: &Item, index: usize, out: &mut Vec<u8>) {
        let (place, said) = (self.place(item, index), item.said());
        let Some((_, name)) = words(item) else {
            let mut data = place.clone();
            data["delta"] = json!(said);
            self.write("response.custom_tool_call_input.delta", data, out);
            let mut data = place;
            data["input"] = json!(said);
            return self.write("response.custom_tool_call_input.done", data, out);
        };
        let mut data = place;
        match &item.kind {
            Kind::Call { name, .. } => {
                data["name"] = json!(name.name);
                data["arguments"] = json!(said);
            }
            Kind::Message => {
                data["text"] = json!(said);
                data["logprobs"] = json!(item.logprobs);
            }
            Kind::Reasoning { .. } => data["text"] = json!(said),
        }
        self.write(name, data, out);
    }

    /// Where an event belongs.
    fn place(&self, item: &Item, index: usize) -> Value {
        let mut place = json!({"item_id": item.id(self.request, index), "output_index": index});
        match item.kind {
            Kind::Reasoning { summary: true } => place["summary_index"] = json!(0),
            Kind::Reasoning { summary: false } | Kind::Message => place["content_index"] = json!(0),
            Kind::Call { .. } => {}
        }
        place
    }

    fn write(&mut self, name: &str, mut data: Value, out: &mut Vec<u8>) {
        data["type"] = json!(name);
        data["sequence_number"] = json!(self.number());
        named(out, name, &data);
    }
}

/// What the events about an item's text are called, more of it and its end, where it comes piece by
/// piece.
fn words(item: &Item) -> Option<(&'static str, &'static str)> {
    Some(match &item.kind {
        Kind::Reasoning { summary: true } => {
            ("response.reasoning_summary_text.delta", "response.reasoning_summary_text.done")
        }
        Kind::Reasoning { summary: false } => {
            ("response.reasoning_text.delta", "response.reasoning_text.done")
        }
        Kind::Message => ("response.output_text.delta", "response.output_text.done"),
        Kind::Call { name, .. } if name.is_custom => return None,
        Kind::Call { .. } => {
            ("response.function_call_arguments.delta", "response.function_call_arguments.done")
        }
    })
}
