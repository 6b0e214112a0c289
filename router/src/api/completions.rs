//! `POST /v1/completions`: the body to the internal request.

use super::cache;
use super::common::{self, Call, Mint, OlderParts};
use super::contract::COMPLETIONS;
use super::fields::{self, Object};
use crate::config::Limits;
use crate::error::Invalid;
use baton_proto::ids::TokenId;
use baton_proto::ir::Prompt;
use serde_json::Value;

/// The limit that the interface defines for requests that name none.
const MAX_TOKENS_DEFAULT: u32 = 16;

/// Parses a body. Fields that nobody here knows are ignored.
pub(crate) fn parse(body: &Value, mint: &Mint, limits: &Limits) -> Result<Call, Invalid> {
    let body = Object::body(body, &COMPLETIONS, limits)?;
    // A text has no parts that could be marked.
    cache::wanted(body)?;
    let prompt = prompt(body.get("prompt").ok_or_else(|| Invalid::missing("prompt"))?)?;
    let max_tokens = body.integer("max_tokens")?.map(|tokens| tokens as u32);
    let logprobs = body.integer("logprobs")?.map(|top| top as u8);
    let parts = OlderParts {
        prompt,
        max_tokens: Some(max_tokens.unwrap_or(MAX_TOKENS_DEFAULT)),
        max_tokens_param: "max_tokens",
        logprobs,
    };
    common::older_call(body, parts, mint, limits)
}

/// One prompt: a text, token ids, or an array that holds exactly one of either.
pub(super) fn prompt(value: &Value) -> Result<Prompt, Invalid> {
    const EXPECTED: &str = "a string or an array of token ids";
    let values = match value {
        Value::String(text) => return Ok(Prompt::Text(text.clone())),
        Value::Array(values) => values,
        other => return Err(Invalid::kind("prompt", EXPECTED, fields::kind(other))),
    };
    match values.as_slice() {
        [] => Err(common::empty("prompt", "element")),
        [Value::String(text)] => Ok(Prompt::Text(text.clone())),
        [Value::Array(ids)] if ids.is_empty() => Err(common::empty("prompt[0]", "element")),
        [Value::Array(ids)] => token_ids(ids, "prompt[0]").map(Prompt::Tokens),
        [Value::String(_) | Value::Array(_), ..] => {
            let message = format!(
                "Invalid 'prompt': one prompt per request is supported, but got {}.",
                values.len()
            );
            Err(Invalid::unsupported("prompt", message))
        }
        ids => token_ids(ids, "prompt").map(Prompt::Tokens),
    }
}

/// Token ids.
pub(super) fn token_ids(values: &[Value], path: &str) -> Result<Vec<TokenId>, Invalid> {
    let id = |(i, value): (usize, &Value)| match value.as_u64().map(TokenId::try_from) {
        Some(Ok(id)) => Ok(id),
        // The path is only spelled out for the message: prompts are long.
        _ => Err(fields::integer(value, &format!("{path}[{i}]"), 0, i64::from(TokenId::MAX))
            .err()
            .unwrap_or_else(|| {
                Invalid::kind(format!("{path}[{i}]"), "a token id", fields::kind(value))
            })),
    };
    values.iter().enumerate().map(id).collect()
}
