//! The body of a message to the internal request.

use super::cache::Marks;
use super::{content, context, tools};
use crate::api::common::{self, Call, Mint, Parts};
use crate::api::contract::{COUNT_TOKENS, MESSAGES};
use crate::api::fields::{self, Object};
use crate::api::tool_choice;
use crate::config::Limits;
use crate::error::Invalid;
use baton_proto::ir::{Chat, Prompt, Stop};
use serde_json::Value;

/// What the names of calls begin with in this interface.
const CALL_PREFIX: &str = "toolu_";

/// Parses a body. Fields that nobody here knows are ignored, and named in a header.
pub(in crate::api) fn parse(body: &Value, mint: &Mint, limits: &Limits) -> Result<Call, Invalid> {
    let body = Object::body(body, &MESSAGES, limits)?;
    let max_tokens = body.integer("max_tokens")?;
    let max_tokens = max_tokens.ok_or_else(|| Invalid::missing("max_tokens"))?;
    let thinking = Thinking::read(body, Some(max_tokens))?;
    let (mut chat, ignored) = conversation(body, &thinking, limits)?;
    content::refuse_begun(&chat.messages)?;
    chat.tool_choice = tool_choice::enforceable(chat.tool_choice, "tool_choice.type")?;
    let edits_told = body.get("context_management").is_some();
    let session = session(body)?;
    let strings = common::stop_strings(body, "stop_sequences", limits)?;
    let parts = Parts {
        prompt: Prompt::Chat(chat),
        stop: Stop { strings, ..Stop::after(max_tokens as u32) },
        max_tokens_param: "max_tokens",
        choices: 1,
        logprobs: None,
        thinking_budget: thinking.budget,
        session: session.as_deref().map(|name| ("metadata.user_id", name)),
    };
    let mut call = common::call(body, parts, mint, limits)?;
    let delivery = &mut call.delivery;
    delivery.call_prefix = Some(CALL_PREFIX);
    delivery.edits_told = edits_told;
    delivery.warning = common::with_ignored(&ignored, delivery.warning.take());
    Ok(call)
}

/// The model's name and the conversation alone, of a request to count its tokens; also of one that
/// could not be answered. Where its marks are makes no difference to that.
pub(in crate::api) fn counted(body: &Value, limits: &Limits) -> Result<(String, Chat), Invalid> {
    let body = Object::body(body, &COUNT_TOKENS, limits)?;
    let (mut chat, _) = conversation(body, &Thinking::read(body, None)?, limits)?;
    let parts = chat.messages.iter_mut().flat_map(|message| &mut message.parts);
    parts.for_each(|part| part.cache = None);
    chat.tools.iter_mut().for_each(|tool| tool.cache = None);
    Ok((body.required_string("model")?.to_owned(), chat))
}

/// The conversation, and what of the body is ignored.
fn conversation(
    body: Object<'_>,
    thinking: &Thinking,
    limits: &Limits,
) -> Result<(Chat, Vec<String>), Invalid> {
    let mut ignored = MESSAGES.unknown(body);
    let edits = context::read(body, &mut ignored)?;
    let mut marks = Marks::default();
    // In the order in which a prompt has them, which is that of the marks.
    let tools = tools::read(body, limits, &mut marks, &mut ignored)?;
    let (tool_choice, serial_tool_calls) = tools::choice(body)?;
    let mut messages: Vec<_> = content::system(body, &mut marks)?.into_iter().collect();
    messages.extend(content::messages(body, limits, &mut marks)?);
    marks.finish(body, &mut messages)?;
    let chat = Chat {
        messages,
        tools,
        tool_choice,
        serial_tool_calls,
        thinking: Some(thinking.is_wanted),
        edits,
        add_generation_prompt: true,
        template_args: common::template_args(body)?,
    };
    Ok((chat, ignored))
}

/// Whether the model shall think, and how long it may.
struct Thinking {
    is_wanted: bool,
    /// Tokens of it at most.
    budget: Option<u32>,
}

impl Thinking {
    /// Who does not ask for it expects an answer that begins at once. `most` tokens has the answer.
    fn read(body: Object<'_>, most: Option<i64>) -> Result<Self, Invalid> {
        let unbounded = |is_wanted| Ok(Self { is_wanted, budget: None });
        let Some(thinking) = body.get("thinking") else { return unbounded(false) };
        let thinking = Object::new(thinking, "thinking")?;
        match thinking.required_string("type")? {
            "disabled" => unbounded(false),
            "enabled" => {
                let name = "budget_tokens";
                let budget = thinking.integer(name)?;
                let path = thinking.path_of(name);
                let budget = budget.ok_or_else(|| Invalid::missing(&path))?;
                if most.is_some_and(|most| budget >= most) {
                    let message = format!("'{path}': {budget} is not less than 'max_tokens'.");
                    return Err(Invalid::value(path, message));
                }
                Ok(Self { is_wanted: true, budget: Some(budget as u32) })
            }
            _ => unbounded(true),
        }
    }
}

/// The session that a harness writes into the user's name: Claude Code as a field of JSON, older
/// versions of it as a part of one word.
fn session(body: Object<'_>) -> Result<Option<String>, Invalid> {
    let Some(metadata) = body.get("metadata") else { return Ok(None) };
    let Some(user) = Object::new(metadata, "metadata")?.string("user_id")? else {
        return Ok(None);
    };
    let told: Option<Value> = serde_json::from_str(user).ok();
    let session = told.as_ref().and_then(|told| told.get("session_id")?.as_str());
    let session = session.or_else(|| user.split_once("_session_").map(|(_, session)| session));
    Ok(session.filter(|session| !session.is_empty()).map(str::to_owned))
}

/// What a value of the body must be that is a text or blocks.
pub(super) fn neither_text_nor_blocks(path: &str, value: &Value) -> Invalid {
    Invalid::kind(path, "a string or an array of blocks", fields::kind(value))
}
