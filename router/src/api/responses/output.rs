//! The items of an answer.

use super::tools::{Called, unwrapped};
use baton_proto::ids::RequestId;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

/// Something that the model has said, or is saying.
pub(super) struct Item {
    pub(super) kind: Kind,
    /// The words, or the arguments of a call.
    pub(super) text: String,
    /// Those of a message's tokens, where they were asked for.
    pub(super) logprobs: Vec<Value>,
    pub(super) status: Status,
}

pub(super) enum Kind {
    /// What it thinks; as a summary, if that was asked for.
    Reasoning { summary: bool },
    /// What it says.
    Message,
    /// What it calls.
    Call { id: String, name: Called },
}

/// How far an item is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Begun,
    Complete,
    /// The answer ended within it.
    CutOff,
}

/// The name of an item.
#[derive(Clone, Copy)]
pub(super) struct ItemId {
    prefix: &'static str,
    request: RequestId,
    index: usize,
}

impl Serialize for ItemId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { prefix, request, index } = self;
        serializer.collect_str(&format_args!("{prefix}_{request}{index:04x}"))
    }
}

impl Status {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Begun => "in_progress",
            Self::Complete => "completed",
            Self::CutOff => "incomplete",
        }
    }
}

impl Item {
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, text: String::new(), logprobs: Vec::new(), status: Status::Begun }
    }

    /// The item's own name, the same whenever it is asked for.
    pub(super) fn id(&self, request: RequestId, index: usize) -> ItemId {
        let prefix = match &self.kind {
            Kind::Reasoning { .. } => "rs",
            Kind::Message => "msg",
            Kind::Call { name, .. } if name.is_custom => "ctc",
            Kind::Call { .. } => "fc",
        };
        ItemId { prefix, request, index }
    }

    /// The item as the interface writes it; one that has just begun has no part yet.
    pub(super) fn json(&self, request: RequestId, index: usize) -> Value {
        let status = self.status;
        let id = self.id(request, index);
        let part = self.part(&self.text);
        let parts: Vec<_> = if status == Status::Begun { None } else { part }.into_iter().collect();
        match &self.kind {
            Kind::Reasoning { summary: true } => {
                json!({"id": id, "type": "reasoning", "summary": parts})
            }
            Kind::Reasoning { summary: false } => {
                json!({"id": id, "type": "reasoning", "summary": [], "content": parts})
            }
            Kind::Message => json!({
                "id": id, "type": "message", "status": status.as_str(), "role": "assistant", "content": parts,
            }),
            Kind::Call { id: call_id, name } => {
                let (kind, field) = self.call_words();
                let said = if status == Status::Begun { String::new() } else { self.said() };
                let mut item = json!({
                    "id": id, "type": kind, "status": status.as_str(), "call_id": call_id,
                    "name": name.name, (field): said,
                });
                if let Some(namespace) = &name.namespace {
                    item["namespace"] = json!(namespace);
                }
                item
            }
        }
    }

    /// The one part of an item that has parts, with this text.
    pub(super) fn part(&self, text: &str) -> Option<Value> {
        match self.kind {
            Kind::Reasoning { summary: true } => {
                Some(json!({"type": "summary_text", "text": text}))
            }
            Kind::Reasoning { summary: false } => {
                Some(json!({"type": "reasoning_text", "text": text}))
            }
            Kind::Message => Some(json!({
                "type": "output_text", "text": text, "annotations": [], "logprobs": self.logprobs,
            })),
            Kind::Call { .. } => None,
        }
    }

    /// What a call is called here, and its field.
    pub(super) fn call_words(&self) -> (&'static str, &'static str) {
        match &self.kind {
            Kind::Call { name, .. } if name.is_custom => ("custom_tool_call", "input"),
            _ => ("function_call", "arguments"),
        }
    }

    /// What it says in the client's words.
    pub(super) fn said(&self) -> String {
        match &self.kind {
            Kind::Call { name, .. } if name.is_custom => unwrapped(&self.text),
            _ => self.text.clone(),
        }
    }
}
