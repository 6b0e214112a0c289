//! A conversation as the variables that chat templates read.

use super::{Named, call_id, json};
use crate::RenderError;
use baton_proto::ir::{Chat, Content, Image, JsonText, Message, Part, Role, ToolCall};
use minijinja::Value;
use minijinja::value::ValueKind;
use std::borrow::Cow;

/// Names that arguments of the client may not take.
const RESERVED: [&str; 4] = ["messages", "tools", "add_generation_prompt", "strftime_now"];

type Vars = Vec<(String, Value)>;

/// The bytes of text in a conversation; its rendering is rarely shorter.
pub(super) fn size(chat: &Chat) -> usize {
    let part = |part: &Part| match &part.content {
        Content::Text(text) | Content::Reasoning(text) | Content::ToolResult { text, .. } => {
            text.len()
        }
        Content::ToolCall(call) => call.name.len() + call.arguments.0.len(),
        Content::Image(image) => image.source.len(),
    };
    let messages = chat.messages.iter().flat_map(|message| &message.parts).map(part);
    let tools = chat.tools.iter().map(|tool| tool.definition.0.len());
    let args = chat.template_args.iter().map(|(name, value)| name.len() + value.0.len());
    messages.chain(tools).chain(args).sum()
}

/// All variables of a rendering; later ones hide earlier ones of the same name.
pub(super) fn of(
    chat: &Chat,
    named: &Named,
    special: &[(String, String)],
) -> Result<Vars, RenderError> {
    let mut vars: Vars =
        special.iter().map(|(name, token)| (name.clone(), Value::from(token.as_str()))).collect();
    vars.push(("documents".to_owned(), Value::from(())));
    if let (Some(thinking), Some(name)) = (chat.thinking, named.thinking_variable) {
        vars.push((name.to_owned(), Value::from(thinking)));
    }
    for (name, value) in &chat.template_args {
        let field = format!("template argument {name:?}");
        if RESERVED.contains(&name.as_str()) {
            let reason = "the name is taken by the conversation itself".to_owned();
            return Err(RenderError::Argument { field, reason });
        }
        vars.push((name.clone(), parse(value, || field)?));
    }
    let said = named.later_system.settle(&chat.messages, named.knows_developer);
    let mut messages = Vec::with_capacity(said.len());
    for message in said.iter() {
        append(message, named, &mut messages)?;
    }
    let mut tools = Vec::with_capacity(chat.tools.len());
    for (i, tool) in chat.tools.iter().enumerate() {
        tools.push(parse(&tool.definition, || format!("tools[{i}]"))?);
    }
    let tools = if tools.is_empty() { Value::from(()) } else { Value::from(tools) };
    vars.push(("messages".to_owned(), Value::from(messages)));
    vars.push(("tools".to_owned(), tools));
    vars.push(("add_generation_prompt".to_owned(), Value::from(chat.add_generation_prompt)));
    Ok(vars)
}

fn parse(text: &JsonText, field: impl FnOnce() -> String) -> Result<Value, RenderError> {
    json::parse(&text.0).map_err(|reason| RenderError::Argument { field: field(), reason })
}

/// Templates know one result per message, of the role `tool`: results inside another message
/// become messages of their own, in their places.
fn append(message: &Message, named: &Named, messages: &mut Vec<Value>) -> Result<(), RenderError> {
    let role = match message.role {
        Role::Developer if !named.knows_developer => Role::System,
        role => role,
    };
    let before = messages.len();
    let mut open = Open::default();
    for part in &message.parts {
        match &part.content {
            Content::Text(text) => open.content.push_str(text),
            Content::Reasoning(text) => open.reasoning.get_or_insert_default().push_str(text),
            Content::ToolCall(call) => open.calls.push(tool_call(call, named)),
            Content::ToolResult { call_id, text, is_error } => {
                if !open.is_empty() {
                    messages.push(std::mem::take(&mut open).close(role, message, None));
                }
                // Templates cannot tell a failure; a tool that fails mostly says so.
                let silent = *is_error && text.is_empty();
                let text = if silent { "error" } else { text };
                let result = Open { content: text.to_owned(), ..Open::default() };
                let id = call_id.as_deref().map(|id| name_of(id, named));
                messages.push(result.close(Role::Tool, message, id.as_deref()));
            }
            Content::Image(Image { path, .. }) => {
                return Err(RenderError::Image { field: path.clone() });
            }
        }
    }
    if !open.is_empty() || messages.len() == before {
        messages.push(open.close(role, message, None));
    }
    Ok(())
}

/// A message for the template while its parts are collected.
#[derive(Default)]
struct Open {
    content: String,
    reasoning: Option<String>,
    calls: Vec<Value>,
}

impl Open {
    fn is_empty(&self) -> bool {
        self.content.is_empty() && self.reasoning.is_none() && self.calls.is_empty()
    }

    fn close(self, role: Role, message: &Message, call_id: Option<&str>) -> Value {
        let mut pairs = vec![("role", Value::from(role.as_str()))];
        pairs.push(("content", Value::from(self.content)));
        if let Some(reasoning) = self.reasoning {
            pairs.push(("reasoning_content", Value::from(reasoning)));
        }
        if let Some(name) = &message.name {
            pairs.push(("name", Value::from(name.as_str())));
        }
        if !self.calls.is_empty() {
            pairs.push(("tool_calls", Value::from(self.calls)));
        }
        if let Some(id) = call_id {
            pairs.push(("tool_call_id", Value::from(id)));
        }
        Value::from_pairs(pairs)
    }
}

/// A call's name as the template takes it.
fn name_of<'i>(id: &'i str, named: &Named) -> Cow<'i, str> {
    if named.short_call_ids { call_id::short(id) } else { Cow::Borrowed(id) }
}

/// The OpenAI form, with the arguments as a mapping where they are one. Clients write no
/// arguments as an empty text, too.
fn tool_call(call: &ToolCall, named: &Named) -> Value {
    let arguments = match json::parse(&call.arguments.0) {
        _ if call.arguments.0.trim().is_empty() => Value::from_pairs::<_, &str, Value>([]),
        Ok(value) if value.kind() == ValueKind::Map => value,
        _ => Value::from(call.arguments.0.as_str()),
    };
    let name = Value::from(call.name.as_str());
    let function = Value::from_pairs([("name", name), ("arguments", arguments)]);
    let mut pairs = Vec::with_capacity(3);
    if !call.id.is_empty() {
        pairs.push(("id", Value::from(&*name_of(&call.id, named))));
    }
    pairs.push(("type", Value::from("function")));
    pairs.push(("function", function));
    Value::from_pairs(pairs)
}
