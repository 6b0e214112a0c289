//! An answer as the message that the client will send back.

use crate::parse::Event;
use crate::turn::{Delta, Prepared, call_id};
use baton_proto::ids::RequestId;
use baton_proto::ir::{Content, JsonText, Message, Role, ToolCall};

/// What an answer has in it that calls a tool, in the formats of the models that are served.
const CALL_MARKS: [&str; 4] = ["<tool_call>", "[TOOL_CALLS]", "<|python_tag|>", "<function="];

/// An answer of one choice, as it comes.
pub(super) struct Said {
    request: RequestId,
    /// What names of calls begin with, where answers are told apart.
    call_prefix: Option<&'static str>,
    parts: Vec<Content>,
    calls: usize,
}

impl Said {
    pub(super) fn new(prepared: &Prepared) -> Self {
        let call_prefix = prepared.voice.as_ref().map(|voice| voice.call_prefix);
        Self { request: prepared.request.id, call_prefix, parts: Vec::new(), calls: 0 }
    }

    /// Plain text, as answers are that are not told apart.
    #[cfg(test)]
    pub(super) fn plain(text: &str) -> Self {
        let parts = vec![Content::Text(text.to_owned())];
        Self { request: RequestId(0), call_prefix: None, parts, calls: 0 }
    }

    /// Reasoning, and then a call.
    #[cfg(test)]
    pub(super) fn called(thought: &str, name: &str) -> Self {
        let mut said = Self { parts: Vec::new(), call_prefix: Some("call_"), ..Self::plain("") };
        said.event("call_", Event::Reasoning(thought));
        said.event("call_", Event::CallBegin { name });
        said.event("call_", Event::CallArguments("{}"));
        said.event("call_", Event::CallEnd { missing: "" });
        said
    }

    pub(super) fn push(&mut self, delta: &Delta) {
        match self.call_prefix {
            None => self.text(&delta.text),
            Some(prefix) => delta.events.iter().for_each(|event| self.event(prefix, event)),
        }
    }

    fn event(&mut self, call_prefix: &str, event: Event<'_>) {
        match event {
            Event::Text(text) => self.text(text),
            Event::Reasoning(text) => match self.parts.last_mut() {
                Some(Content::Reasoning(said)) => said.push_str(text),
                _ => self.parts.push(Content::Reasoning(text.to_owned())),
            },
            Event::CallBegin { name } => {
                let id = call_id(call_prefix, self.request, 0, self.calls);
                self.calls += 1;
                let (name, arguments) = (name.to_owned(), JsonText(String::new()));
                self.parts.push(Content::ToolCall(ToolCall { id, name, arguments }));
            }
            Event::CallArguments(text) | Event::CallEnd { missing: text } => {
                if let Some(Content::ToolCall(call)) = self.parts.last_mut() {
                    call.arguments.0.push_str(text);
                }
            }
            Event::Warning(_) => {}
        }
    }

    fn text(&mut self, text: &str) {
        match self.parts.last_mut() {
            Some(Content::Text(said)) => said.push_str(text),
            _ => self.parts.push(Content::Text(text.to_owned())),
        }
    }

    /// Whether a tool's result follows.
    pub(super) fn calls(&self) -> bool {
        self.parts.iter().any(|part| match part {
            Content::ToolCall(_) => true,
            Content::Text(text) if self.call_prefix.is_none() => {
                CALL_MARKS.iter().any(|mark| text.contains(mark))
            }
            _ => false,
        })
    }

    /// The name of its first call, whose result comes first; templates write it.
    pub(super) fn first_call(&self) -> Option<&str> {
        self.parts.iter().find_map(|part| match part {
            Content::ToolCall(call) => Some(call.id.as_str()),
            _ => None,
        })
    }

    /// The message of the history.
    pub(super) fn message(self) -> Message {
        let parts = self.parts.into_iter().map(Into::into).collect();
        Message { role: Role::Assistant, parts, name: None }
    }
}
