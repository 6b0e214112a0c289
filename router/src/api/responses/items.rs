//! What was said: `instructions` and `input` to messages of the internal request.
//!
//! What the model has said in one turn comes as items of their own: thoughts, words, calls. Those that
//! follow each other become one message again, as the model's template knows it.

use super::tools::{self, Catalogue};
use crate::api::common::{self, clip};
use crate::api::fields::{self, Object};
use crate::config::Limits;
use crate::error::Invalid;
use baton_proto::ir::{Content, Image, JsonText, Message, Part, Role, ToolCall};
use serde_json::Value;

/// What hosted tools leave in a history: nothing that this model has said or could read.
const HOSTED: [&str; 9] = [
    "web_search_call",
    "file_search_call",
    "computer_call",
    "computer_call_output",
    "image_generation_call",
    "code_interpreter_call",
    "mcp_list_tools",
    "mcp_call",
    "tool_search_call",
];

/// All messages. Catalogue that stand in the input are added to `tools`.
pub(super) fn messages(
    body: Object<'_>,
    limits: &Limits,
    tools: &mut Catalogue<'_>,
) -> Result<Vec<Message>, Invalid> {
    let mut all = Conversation::default();
    if let Some(instructions) = body.string("instructions")? {
        all.say(Role::System, vec![Part::text(instructions)]);
    }
    match body.get("input") {
        None => return Err(Invalid::missing("input")),
        Some(Value::String(text)) => all.say(Role::User, vec![Part::text(text)]),
        Some(Value::Array(items)) => {
            let items = common::entries(items, "input", ("item", "items"), limits.messages_max)?;
            for (i, item) in items.iter().enumerate() {
                all.take(Object::new(item, &format!("input[{i}]"))?, tools)?;
            }
        }
        Some(other) => {
            return Err(Invalid::kind(
                "input",
                "a string or an array of items",
                fields::kind(other),
            ));
        }
    }
    if all.messages.is_empty() {
        let message = "Invalid 'input': none of its items says anything to the model.";
        return Err(Invalid::value("input", message));
    }
    Ok(all.messages)
}

#[derive(Default)]
struct Conversation {
    messages: Vec<Message>,
}

impl Conversation {
    fn say(&mut self, role: Role, parts: Vec<Part>) {
        match self.messages.last_mut() {
            Some(last) if role == Role::Assistant && last.role == role => last.parts.extend(parts),
            _ => self.messages.push(Message { role, parts, name: None }),
        }
    }

    fn take(&mut self, item: Object<'_>, tools: &mut Catalogue<'_>) -> Result<(), Invalid> {
        match item.string("type")?.unwrap_or("message") {
            "message" => {
                let role = role(item)?;
                let parts = parts(item, "content")?;
                self.say(role, parts);
            }
            "reasoning" => {
                let thought = thought(item)?;
                if !thought.is_empty() {
                    self.say(Role::Assistant, vec![Content::Reasoning(thought).into()]);
                }
            }
            "function_call" => {
                let arguments = item.required_string("arguments")?;
                self.call(item, common::arguments(arguments))?;
            }
            "custom_tool_call" => {
                let input = item.required_string("input")?;
                self.call(item, fields::text(&tools::wrapped(input)))?;
            }
            "function_call_output" | "custom_tool_call_output" => {
                let call_id = Some(item.required_string("call_id")?.to_owned());
                let text =
                    parts(item, "output")?.into_iter().map(words).collect::<Result<_, _>>()?;
                let result = Content::ToolResult { call_id, text, is_error: false };
                self.say(Role::Tool, vec![result.into()]);
            }
            "additional_tools" => {
                let values = item.array("tools")?.unwrap_or(&[]);
                tools.read(values, &item.path_of("tools"))?;
            }
            hosted if HOSTED.contains(&hosted) => {
                tools.ignored.push(format!("{}({hosted})", item.path()));
            }
            other => return Err(no_such_item(item, other)),
        }
        Ok(())
    }

    fn call(&mut self, item: Object<'_>, arguments: JsonText) -> Result<(), Invalid> {
        let call = ToolCall {
            id: item.required_string("call_id")?.to_owned(),
            name: tools::flat(item.string("namespace")?, item.required_string("name")?),
            arguments,
        };
        self.say(Role::Assistant, vec![Content::ToolCall(call).into()]);
        Ok(())
    }
}

fn no_such_item(item: Object<'_>, kind: &str) -> Invalid {
    let path = item.path_of("type");
    let message = match kind {
        "item_reference" => {
            format!(
                "'{path}': nothing is stored here that could be referred to; send the item itself."
            )
        }
        other => format!("'{path}': items of type `{}` are not supported.", clip(other)),
    };
    Invalid::unsupported(path, message)
}

fn role(item: Object<'_>) -> Result<Role, Invalid> {
    match item.required_string("role")? {
        "system" => Ok(Role::System),
        "developer" => Ok(Role::Developer),
        "user" => Ok(Role::User),
        "assistant" => Ok(Role::Assistant),
        other => {
            let path = item.path_of("role");
            let message = format!(
                "Invalid '{path}': `{}` is no role; expected one of system, developer, user, assistant.",
                clip(other)
            );
            Err(Invalid::value(path, message))
        }
    }
}

/// A string, or parts.
fn parts(item: Object<'_>, field: &str) -> Result<Vec<Part>, Invalid> {
    let path = item.path_of(field);
    match item.get(field) {
        None => Err(Invalid::missing(path)),
        Some(Value::String(text)) => Ok(vec![Part::text(text)]),
        Some(Value::Array(parts)) => {
            let part = |(i, part)| self::part(Object::new(part, &format!("{path}[{i}]"))?);
            parts.iter().enumerate().map(part).collect()
        }
        Some(other) => {
            Err(Invalid::kind(path, "a string or an array of parts", fields::kind(other)))
        }
    }
}

fn part(part: Object<'_>) -> Result<Part, Invalid> {
    match part.required_string("type")? {
        "input_text" | "output_text" | "text" => Ok(Part::text(part.required_string("text")?)),
        "refusal" => Ok(Part::text(part.required_string("refusal")?)),
        "input_image" => {
            let source = part.string("image_url")?.unwrap_or_default().to_owned();
            Ok(Content::Image(Image { path: part.path().to_owned(), source }).into())
        }
        other => {
            let path = part.path_of("type");
            let message = format!("'{path}': parts of type `{}` are not supported.", clip(other));
            Err(Invalid::unsupported(path, message))
        }
    }
}

fn words(part: Part) -> Result<String, Invalid> {
    match part.content {
        Content::Text(text) => Ok(text),
        Content::Image(image) => Err(common::no_images(&image.path)),
        _ => Ok(String::new()),
    }
}

/// A thought as it was said: its own text, or the summary, which is the same here.
fn thought(item: Object<'_>) -> Result<String, Invalid> {
    for (field, kind) in [("content", "reasoning_text"), ("summary", "summary_text")] {
        let (values, place) = (item.array(field)?.unwrap_or(&[]), item.path_of(field));
        let mut thought = String::new();
        for (i, value) in values.iter().enumerate() {
            let path = format!("{place}[{i}]");
            let part = Object::new(value, &path)?;
            if part.required_string("type")? == kind {
                thought.push_str(part.required_string("text")?);
            }
        }
        if !thought.is_empty() {
            return Ok(thought);
        }
    }
    Ok(String::new())
}
