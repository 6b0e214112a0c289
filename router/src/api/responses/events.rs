//! The events of a stream, each with its number.

use super::output::{Item, Kind};
use crate::api::writer::named;
use baton_proto::ids::RequestId;
use serde_json::{Value, json};

/// Writes events.
pub(super) struct Events {
    request: RequestId,
    /// The number of the next one.
    next: u64,
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
        let Some(name) = words(item) else { return };
        let mut data = self.place(item, index);
        data["delta"] = json!(text);
        if matches!(item.kind, Kind::Message) {
            data["logprobs"] = json!(logprobs);
        }
        self.write(&format!("{name}.delta"), data, out);
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
        let Some(name) = words(item) else {
            let name = "response.custom_tool_call_input";
            let mut data = place.clone();
            data["delta"] = json!(said);
            self.write(&format!("{name}.delta"), data, out);
            let mut data = place;
            data["input"] = json!(said);
            return self.write(&format!("{name}.done"), data, out);
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
        self.write(&format!("{name}.done"), data, out);
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
        data["sequence_number"] = json!(self.next);
        self.next += 1;
        named(out, name, &data);
    }
}

/// What the events about an item's text are called, where it comes piece by piece.
fn words(item: &Item) -> Option<&'static str> {
    match &item.kind {
        Kind::Reasoning { summary: true } => Some("response.reasoning_summary_text"),
        Kind::Reasoning { summary: false } => Some("response.reasoning_text"),
        Kind::Message => Some("response.output_text"),
        Kind::Call { name, .. } if name.is_custom => None,
        Kind::Call { .. } => Some("response.function_call_arguments"),
    }
}
