//! The HTTP interfaces of the OpenAI kind. The only place in this crate that knows JSON.
//!
//! A request is taken in by [`http`], read by [`chat`] or [`completions`] into the internal
//! request, and answered by [`write`], at once or as server-sent events ([`sse`]).

mod audit;
mod capabilities;
mod chat;
mod common;
mod completions;
mod error;
mod explain;
mod fields;
mod hints;
mod http;
mod models;
mod sse;
mod write;

pub(crate) use audit::audit_line;
pub(crate) use common::{Call, Delivery, Mint};
pub(crate) use error::status;
pub(crate) use explain::decision_line;
pub(crate) use http::{parse, routes};

/// Which interface a request came through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Dialect {
    /// `POST /v1/chat/completions`
    Chat,
    /// `POST /v1/completions`
    Completions,
}

impl Dialect {
    /// The name in metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat_completions",
            Self::Completions => "completions",
        }
    }
}

#[cfg(test)]
mod tests;
