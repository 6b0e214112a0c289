//! `POST /v1/chat/completions`: the body to the internal request.

use super::cache;
use super::common::{self, Call, Mint, OlderParts};
use super::contract::CHAT;
use super::fields::{self, Object};
use super::{effort, tool_choice};
use crate::config::Limits;
use crate::error::Invalid;
use baton_proto::ir::{
    Chat, Content, Image, JsonText, Message, Part, Prompt, Role, Tool, ToolCall, ToolChoice,
};
use serde_json::Value;

/// What the names of calls begin with in this interface.
const CALL_PREFIX: &str = "call_";

/// Parses a body. Fields that nobody here knows are ignored.
pub(crate) fn parse(body: &Value, mint: &Mint, limits: &Limits) -> Result<Call, Invalid> {
    let body = Object::body(body, &CHAT, limits)?;
    let mut chat = conversation(body, limits)?;
    cache::mark(body, &mut chat.messages)?;
    let (max_tokens, max_tokens_param) = max_tokens(body)?;
    let parts = OlderParts {
        prompt: Prompt::Chat(chat),
        max_tokens,
        max_tokens_param,
        logprobs: logprobs(body)?,
    };
    let mut call = common::older_call(body, parts, mint, limits)?;
    call.delivery.call_prefix = Some(CALL_PREFIX);
    Ok(call)
}

/// The conversation alone.
pub(super) fn conversation(body: Object<'_>, limits: &Limits) -> Result<Chat, Invalid> {
    let (thinking, template_args) = effort::read(body, body.string("reasoning_effort")?)?;
    Ok(Chat {
        messages: messages(body, limits)?,
        tools: tools(body, limits)?,
        tool_choice: chosen(body)?,
        serial_tool_calls: body.boolean("parallel_tool_calls")? == Some(false),
        thinking,
        edits: Vec::new(),
        add_generation_prompt: body.boolean("add_generation_prompt")?.unwrap_or(true),
        template_args,
    })
}

fn chosen(body: Object<'_>) -> Result<ToolChoice, Invalid> {
    tool_choice::read(body, |kind, choice| {
        if kind != "function" {
            return Ok(None);
        }
        let path = choice.path_of("function");
        let function = choice.get("function").ok_or_else(|| Invalid::missing(&path))?;
        Object::new(function, &path)?.required_string("name").map(|name| Some(name.to_owned()))
    })
}

/// The newer name wins where both are given.
fn max_tokens(body: Object<'_>) -> Result<(Option<u32>, &'static str), Invalid> {
    let old = body.integer("max_tokens")?.map(|tokens| tokens as u32);
    let new = body.integer("max_completion_tokens")?.map(|tokens| tokens as u32);
    Ok(match new {
        Some(tokens) => (Some(tokens), "max_completion_tokens"),
        None => (old, "max_tokens"),
    })
}

fn logprobs(body: Object<'_>) -> Result<Option<u8>, Invalid> {
    let wanted = body.boolean("logprobs")?.unwrap_or(false);
    let top = body.integer("top_logprobs")?;
    match (wanted, top) {
        (true, top) => Ok(Some(top.unwrap_or(0) as u8)),
        (false, Some(top)) if top > 0 => Err(Invalid::value(
            "top_logprobs",
            "'top_logprobs' is only allowed when 'logprobs' is true.",
        )),
        (false, _) => Ok(None),
    }
}

fn messages(body: Object<'_>, limits: &Limits) -> Result<Vec<Message>, Invalid> {
    let values = common::messages(body, limits)?;
    values.iter().enumerate().map(|(i, value)| message(value, &format!("messages[{i}]"))).collect()
}

fn message(value: &Value, path: &str) -> Result<Message, Invalid> {
    let object = Object::new(value, path)?;
    let role = role(object)?;
    let parts = match role {
        Role::System | Role::Developer | Role::User => text_parts(object, role)?,
        Role::Assistant => assistant_parts(object)?,
        Role::Tool => {
            let call_id = object.string("tool_call_id")?.map(str::to_owned);
            let mut text = String::new();
            for part in text_parts(object, role)? {
                match part.content {
                    Content::Text(more) => text.push_str(&more),
                    // Templates know results that are text.
                    Content::Image(image) => return Err(common::no_images(&image.path)),
                    _ => {}
                }
            }
            vec![Content::ToolResult { call_id, text, is_error: false }.into()]
        }
    };
    Ok(Message { role, parts, name: object.string("name")?.map(str::to_owned) })
}

fn role(object: Object<'_>) -> Result<Role, Invalid> {
    match object.required_string("role")? {
        "system" => Ok(Role::System),
        "developer" => Ok(Role::Developer),
        "user" => Ok(Role::User),
        "assistant" => Ok(Role::Assistant),
        "tool" => Ok(Role::Tool),
        other => {
            let path = object.path_of("role");
            let message = format!(
                "Invalid '{path}': `{}` is no role; expected one of system, developer, user, assistant, tool.",
                common::clip(other)
            );
            Err(Invalid::value(path, message))
        }
    }
}

/// The content as text parts: a string, or an array of text parts.
fn text_parts(object: Object<'_>, role: Role) -> Result<Vec<Part>, Invalid> {
    let path = object.path_of("content");
    match object.get("content") {
        None => Err(Invalid::missing(path)),
        Some(Value::String(text)) => Ok(vec![Part::text(text)]),
        Some(Value::Array(parts)) => parts
            .iter()
            .enumerate()
            .map(|(i, part)| text_part(part, &format!("{path}[{i}]"), role))
            .collect(),
        Some(other) => {
            Err(Invalid::kind(path, "a string or an array of parts", fields::kind(other)))
        }
    }
}

fn text_part(value: &Value, path: &str, role: Role) -> Result<Part, Invalid> {
    let object = Object::new(value, path)?;
    let text = match object.required_string("type")? {
        "text" => object.required_string("text")?,
        "refusal" if role == Role::Assistant => object.required_string("refusal")?,
        "image_url" if role == Role::User => {
            let path = object.path_of("image_url");
            let image = object.get("image_url").ok_or_else(|| Invalid::missing(&path))?;
            let source = Object::new(image, &path)?.required_string("url")?.to_owned();
            return Ok(Content::Image(Image { path: object.path().to_owned(), source }).into());
        }
        other => {
            let path = object.path_of("type");
            let message = format!(
                "'{path}': parts of type `{}` are not supported; only `text` is.",
                common::clip(other)
            );
            return Err(Invalid::unsupported(path, message));
        }
    };
    Ok(Part::text(text))
}

/// Reasoning, text and calls of an earlier answer; the content may be absent beside calls.
fn assistant_parts(object: Object<'_>) -> Result<Vec<Part>, Invalid> {
    let mut parts = Vec::new();
    let reasoning = match object.string("reasoning_content")? {
        Some(text) => Some(text),
        None => object.string("reasoning")?,
    };
    parts.extend(
        reasoning
            .filter(|text| !text.is_empty())
            .map(|text| Content::Reasoning(text.to_owned()).into()),
    );
    let calls = object.array("tool_calls")?.unwrap_or(&[]);
    if object.get("content").is_some() {
        parts.extend(text_parts(object, Role::Assistant)?);
    } else if calls.is_empty() && parts.is_empty() && object.get("refusal").is_none() {
        return Err(Invalid::missing(object.path_of("content")));
    }
    if let Some(refusal) = object.string("refusal")? {
        parts.push(Part::text(refusal));
    }
    let path = object.path_of("tool_calls");
    for (i, call) in calls.iter().enumerate() {
        parts.push(Content::ToolCall(tool_call(call, &format!("{path}[{i}]"))?).into());
    }
    Ok(parts)
}

fn tool_call(value: &Value, path: &str) -> Result<ToolCall, Invalid> {
    let call = Object::new(value, path)?;
    let inner = call.get("function").ok_or_else(|| Invalid::missing(call.path_of("function")))?;
    let inner_path = call.path_of("function");
    let function = Object::new(inner, &inner_path)?;
    let path = function.path_of("arguments");
    let arguments = match function.get("arguments") {
        None => JsonText("{}".to_owned()),
        Some(Value::String(text)) => common::arguments(text),
        Some(object @ Value::Object(_)) => fields::text(object),
        Some(other) => {
            return Err(Invalid::kind(path, "the JSON text of an object", fields::kind(other)));
        }
    };
    Ok(ToolCall {
        id: call.string("id")?.unwrap_or_default().to_owned(),
        name: function.required_string("name")?.to_owned(),
        arguments,
    })
}

fn tools(body: Object<'_>, limits: &Limits) -> Result<Vec<Tool>, Invalid> {
    let values = body.array("tools")?.unwrap_or(&[]);
    if values.len() > limits.tools_max {
        return Err(common::too_many("tools", "tools", limits.tools_max, values.len()));
    }
    let tool = |(i, value): (usize, &Value)| {
        let path = format!("tools[{i}]");
        let tool = Object::new(value, &path)?;
        if tool.required_string("type")? == "function" {
            let path = tool.path_of("function");
            let function = tool.get("function").ok_or_else(|| Invalid::missing(&path))?;
            Object::new(function, &path)?.required_string("name")?;
        }
        Ok(fields::text(value).into())
    };
    values.iter().enumerate().map(tool).collect()
}
