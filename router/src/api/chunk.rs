//! The pieces of a streamed answer in the shapes of the OpenAI interface. They borrow what they say
//! and are written straight into the stream: a token costs no allocation.

use serde::Serialize;
use serde_json::Value;

/// One event.
#[derive(Serialize)]
pub(super) struct Chunk<'a> {
    pub(super) id: &'a str,
    pub(super) object: &'static str,
    /// Seconds since 1970.
    pub(super) created: u64,
    pub(super) model: &'a str,
    pub(super) system_fingerprint: (),
    pub(super) choices: [Choice<'a>; 1],
    /// Null where the usage comes with the last chunk, absent where it was not asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) usage: Option<()>,
}

/// What became certain about a choice.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Choice<'a> {
    /// Of a chat.
    Chat {
        index: usize,
        delta: Said<'a>,
        logprobs: Option<&'a Value>,
        finish_reason: Option<&'static str>,
    },
    /// Of a plain completion.
    Text {
        text: &'a str,
        index: usize,
        logprobs: Option<&'a Value>,
        finish_reason: Option<&'static str>,
    },
}

/// What a piece of a chat says.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Said<'a> {
    Begin { role: &'static str, content: &'static str, refusal: () },
    Text { content: &'a str },
    Reasoning { reasoning_content: &'a str },
    Call { tool_calls: [Call<'a>; 1] },
    Nothing {},
}

/// A call that begins, or more of its arguments.
#[derive(Serialize)]
pub(super) struct Call<'a> {
    pub(super) index: usize,
    #[serde(flatten)]
    pub(super) begin: Option<Begin>,
    pub(super) function: Function<'a>,
}

/// What is told of a call once.
#[derive(Serialize)]
pub(super) struct Begin {
    pub(super) id: String,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
}

#[derive(Serialize)]
pub(super) struct Function<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<&'a str>,
    pub(super) arguments: &'a str,
}
