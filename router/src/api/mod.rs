//! The HTTP interfaces: those of the OpenAI kind, and Anthropic's. The only place in this crate that
//! knows JSON.
//!
//! A request is taken in by [`http`], read by [`chat`], [`completions`], [`messages`] or [`responses`]
//! into the internal request, and answered by the dialect's [`writer`], at once or as server-sent events
//! ([`sse`]).

mod audit;
mod body;
mod cache;
mod capabilities;
mod chat;
mod chunk;
mod common;
mod completions;
mod contract;
mod decode;
mod effort;
mod error;
mod explain;
mod extra;
mod fields;
mod hints;
mod http;
mod known_tools;
mod logprobs;
mod messages;
mod models;
mod responses;
mod sse;
mod tokens;
mod tool_choice;
mod write;
mod writer;

pub(crate) use audit::audit_line;
pub(crate) use common::{Call, Delivery, Mint};
pub use decode::{Decoded, Decoder, Refused, decode};
pub(crate) use error::status;
pub(crate) use explain::decision_line;
pub(crate) use http::{parse, routes};
pub(crate) use known_tools::known_tools;

use crate::config::Limits;
use crate::error::{Invalid, TurnError};
use crate::turn::Turn;
use ::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use baton_proto::ids::RequestId;
use baton_text::TextModel;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use writer::AnswerWriter;

/// Which interface a request came through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Dialect {
    /// `POST /v1/chat/completions`
    Chat,
    /// `POST /v1/completions`
    Completions,
    /// `POST /v1/messages`
    Messages,
    /// `POST /v1/responses`
    Responses,
}

impl Dialect {
    /// The name in metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat_completions",
            Self::Completions => "completions",
            Self::Messages => "messages",
            Self::Responses => "responses",
        }
    }

    /// A body to what it asks for.
    fn parse(self, body: &Value, mint: &Mint, limits: &Limits) -> Result<Call, Invalid> {
        match self {
            Self::Chat => chat::parse(body, mint, limits),
            Self::Completions => completions::parse(body, mint, limits),
            Self::Messages => messages::parse(body, mint, limits),
            Self::Responses => responses::parse(body, mint, limits),
        }
    }

    /// Writes the answer of a turn; `created` is when the request came, since 1970.
    fn writer(
        self,
        turn: &Turn,
        delivery: Delivery,
        text: &Arc<TextModel>,
        created: Duration,
    ) -> Box<dyn AnswerWriter> {
        match self {
            Self::Messages => Box::new(messages::Writer::new(turn, delivery, created)),
            Self::Responses => Box::new(responses::Writer::new(turn, delivery, text, created)),
            _ => Box::new(write::Writer::new(self, turn, delivery, text, created)),
        }
    }

    /// The answer to a request that is refused.
    fn refusal(self, error: &TurnError, id: RequestId) -> Response {
        match self {
            Self::Messages => messages::refusal(error, Some(id)),
            Self::Responses => responses::refusal(error),
            _ => error.into_response(),
        }
    }

    /// Names the request in a header, as the dialect's clients read it.
    fn signed(self, mut response: Response, id: RequestId) -> Response {
        let name = match self {
            Self::Messages => HeaderName::from_static("request-id"),
            _ => HeaderName::from_static("x-request-id"),
        };
        if let Ok(value) = HeaderValue::try_from(format!("req_{id}")) {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

#[cfg(test)]
mod steady;
#[cfg(test)]
mod tests;
