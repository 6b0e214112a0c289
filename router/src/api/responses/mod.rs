//! OpenAI's newer interface: `POST /v1/responses`, without anything kept between requests.
//!
//! [`request`] reads a body into the internal request, with the help of [`items`] for what was said
//! and [`tools`] for what may be called; [`write`] answers, whole or by [`events`].

mod error;
mod events;
mod items;
mod logprobs;
mod output;
mod request;
#[cfg(test)]
mod tests;
mod tools;
mod write;

pub(super) use error::refusal;
pub(super) use request::parse;
pub(crate) use write::Echo;
pub(super) use write::Writer;
