//! Anthropic's interface: `POST /v1/messages` and `POST /v1/messages/count_tokens`.
//!
//! [`request`] reads a body into the internal request, with the help of [`content`] for what is said,
//! [`tools`] for what may be called and [`cache`] for what shall be kept; [`write`] answers.

mod cache;
mod content;
mod context;
mod count;
mod error;
mod request;
#[cfg(test)]
mod tests;
mod tools;
mod usage;
mod write;

#[cfg(test)]
pub(super) use tests::both;

pub(super) use count::count_tokens;
pub(super) use error::{not_found, refusal, wrong_method};
#[cfg(test)]
pub(super) use request::counted;
pub(super) use request::parse;
pub(super) use write::Writer;

/// What the paths of this interface begin with.
pub(super) const PATH: &str = "/v1/messages";
