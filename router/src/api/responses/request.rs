//! The body of a response to the internal request.

use super::tools::{self, Catalogue};
use super::write::Echo;
use super::{items, tools::Names};
use crate::api::cache;
use crate::api::common::{self, Call, Mint, Parts};
use crate::api::contract::RESPONSES;
use crate::api::effort;
use crate::api::fields::{self, Object};
use crate::config::Limits;
use crate::error::Invalid;
use baton_proto::ir::{Chat, Prompt, Stop};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// What the names of calls begin with in this interface.
const CALL_PREFIX: &str = "call_";
/// The field that bounds the answer.
const MAX_TOKENS: &str = "max_output_tokens";

/// What a request includes to be told log-probabilities.
const LOGPROBS: &str = "message.output_text.logprobs";

/// Fields that are told again in the answer, and what they are where they were not said.
const TOLD: [(&str, &str); 14] = [
    ("instructions", "null"),
    ("max_output_tokens", "null"),
    ("max_tool_calls", "null"),
    ("metadata", "{}"),
    ("parallel_tool_calls", "true"),
    ("prompt_cache_key", "null"),
    ("reasoning", "{\"effort\":null,\"summary\":null}"),
    ("safety_identifier", "null"),
    ("service_tier", "\"default\""),
    ("text", "{\"format\":{\"type\":\"text\"}}"),
    ("tool_choice", "\"auto\""),
    ("tools", "[]"),
    ("top_logprobs", "0"),
    ("truncation", "\"disabled\""),
];

/// Parses a body. Fields that nobody here knows are ignored.
pub(in crate::api) fn parse(body: &Value, mint: &Mint, limits: &Limits) -> Result<Call, Invalid> {
    let body = Object::body(body, &RESPONSES, limits)?;
    let mut tools = Catalogue::new(limits);
    tools.read(body.array("tools")?.unwrap_or(&[]), "tools")?;
    let mut messages = items::messages(body, limits, &mut tools)?;
    cache::mark(body, &mut messages)?;
    let reasoning = Reasoning::read(body)?;
    let Catalogue { tools, names, ignored, .. } = tools;
    let (thinking, template_args) = effort::read(body, reasoning.effort)?;
    let chat = Chat {
        messages,
        tools,
        tool_choice: tools::choice(body)?,
        serial_tool_calls: body.boolean("parallel_tool_calls")? == Some(false),
        thinking,
        add_generation_prompt: true,
        template_args,
        ..Chat::default()
    };
    let max_tokens = body.integer(MAX_TOKENS)?.map_or(u32::MAX, |tokens| tokens as u32);
    let parts = Parts {
        prompt: Prompt::Chat(chat),
        stop: Stop::after(max_tokens),
        max_tokens_param: MAX_TOKENS,
        choices: 1,
        logprobs: logprobs(body)?,
        thinking_budget: None,
        session: common::cache_key(body)?,
    };
    let Call { request, mut delivery } = common::call(body, parts, mint, limits)?;
    delivery.call_prefix = Some(CALL_PREFIX);
    delivery.warning = common::with_ignored(&ignored, delivery.warning);
    let mut echo = echo(body, names, reasoning.summary);
    // Where the client does not say, the checkpoint does.
    echo.told.insert("temperature".to_owned(), plain(request.sampling.temperature));
    echo.told.insert("top_p".to_owned(), plain(request.sampling.top_p));
    delivery.echo = Some(Arc::new(echo));
    Ok(Call { request, delivery })
}

/// How many of the likeliest tokens come with each of a message, if any are told. Who names a number
/// wants them; what else may be included is nothing that is kept here.
fn logprobs(body: Object<'_>) -> Result<Option<u8>, Invalid> {
    let top = body.integer("top_logprobs")?;
    let mut wanted = top.is_some_and(|top| top > 0);
    for (i, name) in body.array("include")?.unwrap_or(&[]).iter().enumerate() {
        wanted |= fields::string(name, &format!("include[{i}]"))? == LOGPROBS;
    }
    Ok(wanted.then(|| top.unwrap_or(0) as u8))
}

/// How the model shall think, and whether its thoughts come as a summary.
#[derive(Default)]
struct Reasoning<'a> {
    effort: Option<&'a str>,
    summary: bool,
}

impl<'a> Reasoning<'a> {
    fn read(body: Object<'a>) -> Result<Self, Invalid> {
        let Some(value) = body.get("reasoning") else { return Ok(Self::default()) };
        let reasoning = Object::new(value, "reasoning")?;
        let effort = reasoning.string("effort")?;
        let summary = reasoning.string("summary")?.or(reasoning.string("generate_summary")?);
        Ok(Self { effort, summary: summary.is_some() })
    }
}

/// As it was written, of which 32 bits are the nearest.
fn plain(value: f32) -> Value {
    json!((f64::from(value) * 1e6).round() / 1e6)
}

fn echo(body: Object<'_>, names: Names, summary: bool) -> Echo {
    let mut told = Map::new();
    for (name, otherwise) in TOLD {
        let value = body.get(name).cloned();
        let value = value.or_else(|| serde_json::from_str(otherwise).ok());
        told.insert(name.to_owned(), value.unwrap_or_default());
    }
    Echo { told, names, summary }
}
