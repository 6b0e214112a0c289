//! What is said: `system` and `messages` to messages of the internal request.
//!
//! Every block stays where it stands. A user's message that has results of tools in it becomes one
//! message for each result and one for what the user says before, between and behind them, as in
//! other dialects.

use super::cache::Marks;
use super::request::neither_text_nor_blocks;
use crate::api::common::{self, clip};
use crate::api::fields::{self, Object};
use crate::config::Limits;
use crate::error::Invalid;
use baton_proto::ir::{Content, Image, Message, Part, Role, ToolCall};
use serde_json::Value;

/// What Claude Code's first system block begins with. It differs from version to version and from
/// one first question to another, says nothing to the model, and would give every conversation
/// another beginning.
const BILLING_HEADER: &str = "x-anthropic-billing-header:";

/// The message that `system` is, if there is one.
pub(super) fn system(body: Object<'_>, marks: &mut Marks) -> Result<Option<Message>, Invalid> {
    let Some(value) = body.get("system") else { return Ok(None) };
    let parts = system_parts(value, "system", marks)?;
    Ok((!parts.is_empty()).then(|| message(Role::System, parts)))
}

/// Texts of the system, without lines that are about billing.
fn system_parts(value: &Value, path: &str, marks: &mut Marks) -> Result<Vec<Part>, Invalid> {
    let mut parts = texts(value, path, marks)?;
    for part in &mut parts {
        if let Content::Text(text) = &mut part.content
            && text.starts_with(BILLING_HEADER)
        {
            let line = text.find('\n').map_or(text.len(), |end| end + 1);
            text.drain(..line);
        }
    }
    parts.retain(|part| !matches!(&part.content, Content::Text(text) if text.is_empty()));
    Ok(parts)
}

/// All messages.
pub(super) fn messages(
    body: Object<'_>,
    limits: &Limits,
    marks: &mut Marks,
) -> Result<Vec<Message>, Invalid> {
    let values = common::messages(body, limits)?;
    let mut messages = Vec::with_capacity(values.len() + 1);
    for (i, value) in values.iter().enumerate() {
        append(value, &format!("messages[{i}]"), marks, &mut messages)?;
    }
    Ok(messages)
}

/// A turn cannot go on with a message that has begun.
pub(super) fn refuse_begun(messages: &[Message]) -> Result<(), Invalid> {
    if messages.last().is_some_and(|last| last.role == Role::Assistant) {
        let message = "Invalid 'messages': the last message is the assistant's, and this server \
                       does not go on with a message that has begun. End with a user's message.";
        return Err(Invalid::unsupported("messages", message));
    }
    Ok(())
}

fn append(
    value: &Value,
    path: &str,
    marks: &mut Marks,
    messages: &mut Vec<Message>,
) -> Result<(), Invalid> {
    let object = Object::new(value, path)?;
    let (role, place) = (object.required_string("role")?, object.path_of("content"));
    let content = object.get("content").ok_or_else(|| Invalid::missing(&place))?;
    match role {
        "user" => user(content, &place, marks, messages)?,
        "assistant" => {
            let parts = blocks(content, &place, |block| said_by_assistant(block, marks))?;
            messages.push(message(Role::Assistant, parts));
        }
        "system" => {
            messages.push(message(Role::System, system_parts(content, &place, marks)?));
        }
        other => {
            let path = object.path_of("role");
            let message = format!(
                "Invalid '{path}': `{}` is no role; expected one of user, assistant, system.",
                clip(other)
            );
            return Err(Invalid::value(path, message));
        }
    }
    Ok(())
}

fn message(role: Role, parts: Vec<Part>) -> Message {
    Message { role, parts, name: None }
}

/// A user's words, and what tools have said in between.
fn user(
    content: &Value,
    path: &str,
    marks: &mut Marks,
    messages: &mut Vec<Message>,
) -> Result<(), Invalid> {
    let parts = blocks(content, path, |block| said_by_user(block, marks))?;
    let mut words: Vec<Part> = Vec::new();
    let before = messages.len();
    for part in parts {
        if matches!(part.content, Content::ToolResult { .. }) {
            if !words.is_empty() {
                messages.push(message(Role::User, std::mem::take(&mut words)));
            }
            messages.push(message(Role::Tool, vec![part]));
        } else {
            words.push(part);
        }
    }
    if !words.is_empty() || messages.len() == before {
        messages.push(message(Role::User, words));
    }
    Ok(())
}

/// A string, or blocks that `read` takes one by one; it says nothing of blocks to be left out.
fn blocks(
    content: &Value,
    path: &str,
    mut read: impl FnMut(Object<'_>) -> Result<Option<Part>, Invalid>,
) -> Result<Vec<Part>, Invalid> {
    let values = match content {
        Value::String(text) => return Ok(vec![Part::text(text)]),
        Value::Array(values) => values,
        other => return Err(neither_text_nor_blocks(path, other)),
    };
    let mut parts = Vec::with_capacity(values.len());
    for (i, value) in values.iter().enumerate() {
        parts.extend(read(Object::new(value, &format!("{path}[{i}]"))?)?);
    }
    Ok(parts)
}

fn texts(content: &Value, path: &str, marks: &mut Marks) -> Result<Vec<Part>, Invalid> {
    blocks(content, path, |block| match block.required_string("type")? {
        "text" => text(block, marks).map(Some),
        other => Err(no_such_block(block, other)),
    })
}

fn said_by_user(block: Object<'_>, marks: &mut Marks) -> Result<Option<Part>, Invalid> {
    match block.required_string("type")? {
        "text" => text(block, marks).map(Some),
        "tool_result" => tool_result(block, marks).map(Some),
        "image" => image(block, marks).map(Some),
        other => Err(no_such_block(block, other)),
    }
}

fn said_by_assistant(block: Object<'_>, marks: &mut Marks) -> Result<Option<Part>, Invalid> {
    match block.required_string("type")? {
        "text" => text(block, marks).map(Some),
        "thinking" => {
            let thought = block.required_string("thinking")?;
            let part = Content::Reasoning(thought.to_owned()).into();
            Ok((!thought.is_empty()).then_some(part))
        }
        // What it held back is not known here.
        "redacted_thinking" => Ok(None),
        "tool_use" => tool_use(block, marks).map(Some),
        other => Err(no_such_block(block, other)),
    }
}

fn text(block: Object<'_>, marks: &mut Marks) -> Result<Part, Invalid> {
    let text = block.required_string("text")?;
    Ok(Part { cache: marks.read_text(block, text)?, ..Part::text(text) })
}

fn tool_use(block: Object<'_>, marks: &mut Marks) -> Result<Part, Invalid> {
    let path = block.path_of("input");
    let input = block.get("input").ok_or_else(|| Invalid::missing(&path))?;
    Object::new(input, &path)?;
    let call = ToolCall {
        id: block.required_string("id")?.to_owned(),
        name: block.required_string("name")?.to_owned(),
        arguments: fields::text(input),
    };
    Ok(Part { cache: marks.read(block)?, ..Content::ToolCall(call).into() })
}

/// The result's text; of several blocks the texts one after the other.
fn tool_result(block: Object<'_>, marks: &mut Marks) -> Result<Part, Invalid> {
    let call_id = Some(block.required_string("tool_use_id")?.to_owned());
    let is_error = block.boolean("is_error")?.unwrap_or(false);
    let (mut text, mut inner) = (String::new(), None);
    if let Some(content) = block.get("content") {
        for part in texts_of_result(content, &block.path_of("content"), marks)? {
            inner = part.cache.or(inner);
            if let Content::Text(more) = part.content {
                text.push_str(&more);
            }
        }
    }
    let cache = marks.read(block)?.or(inner);
    Ok(Part { cache, ..Content::ToolResult { call_id, text, is_error }.into() })
}

fn texts_of_result(content: &Value, path: &str, marks: &mut Marks) -> Result<Vec<Part>, Invalid> {
    blocks(content, path, |block| match block.required_string("type")? {
        "text" => text(block, marks).map(Some),
        "image" => Err(common::no_images(block.path())),
        other => Err(no_such_block(block, other)),
    })
}

/// A picture; whether the model can see is not decided here.
fn image(block: Object<'_>, marks: &mut Marks) -> Result<Part, Invalid> {
    let path = block.path_of("source");
    let source = block.get("source").ok_or_else(|| Invalid::missing(&path))?;
    let source = Object::new(source, &path)?;
    let source = match source.required_string("type")? {
        "base64" => {
            let (kind, data) =
                (source.required_string("media_type")?, source.required_string("data")?);
            format!("data:{kind};base64,{data}")
        }
        "url" => source.required_string("url")?.to_owned(),
        other => return Err(no_such_block(source, other)),
    };
    let image = Image { path: block.path().to_owned(), source };
    Ok(Part { cache: marks.read(block)?, ..Content::Image(image).into() })
}

fn no_such_block(block: Object<'_>, kind: &str) -> Invalid {
    let path = block.path_of("type");
    let message = format!("'{path}': blocks of type `{}` are not supported here.", clip(kind));
    Invalid::unsupported(path, message)
}
