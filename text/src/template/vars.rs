//! A conversation as the variables that chat templates read.

use super::json;
use crate::RenderError;
use baton_proto::ir::{Chat, JsonText, Message, Part, Role, ToolCall};
use minijinja::Value;
use minijinja::value::ValueKind;

/// Names that arguments of the client may not take.
const RESERVED: [&str; 4] = ["messages", "tools", "add_generation_prompt", "strftime_now"];

type Vars = Vec<(String, Value)>;

/// The bytes of text in a conversation; its rendering is rarely shorter.
pub(super) fn size(chat: &Chat) -> usize {
    let part = |part: &Part| match part {
        Part::Text(text) | Part::Reasoning(text) | Part::ToolResult { text, .. } => text.len(),
        Part::ToolCall(call) => call.name.len() + call.arguments.0.len(),
    };
    let messages = chat.messages.iter().flat_map(|message| &message.parts).map(part);
    let tools = chat.tools.iter().map(|tool| tool.0.len());
    let args = chat.template_args.iter().map(|(name, value)| name.len() + value.0.len());
    messages.chain(tools).chain(args).sum()
}

/// All variables of a rendering; later ones hide earlier ones of the same name.
pub(super) fn of(
    chat: &Chat,
    knows_developer: bool,
    special: &[(String, String)],
) -> Result<Vars, RenderError> {
    let mut vars: Vars =
        special.iter().map(|(name, token)| (name.clone(), Value::from(token.as_str()))).collect();
    vars.push(("documents".to_owned(), Value::from(())));
    for (name, value) in &chat.template_args {
        let field = format!("template argument {name:?}");
        if RESERVED.contains(&name.as_str()) {
            let reason = "the name is taken by the conversation itself".to_owned();
            return Err(RenderError::Argument { field, reason });
        }
        vars.push((name.clone(), parse(value, || field)?));
    }
    let mut messages = Vec::with_capacity(chat.messages.len());
    for message in &chat.messages {
        append(message, knows_developer, &mut messages);
    }
    let mut tools = Vec::with_capacity(chat.tools.len());
    for (i, tool) in chat.tools.iter().enumerate() {
        tools.push(parse(tool, || format!("tools[{i}]"))?);
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
fn append(message: &Message, knows_developer: bool, messages: &mut Vec<Value>) {
    let role = match message.role {
        Role::Developer if !knows_developer => Role::System,
        role => role,
    };
    let before = messages.len();
    let mut open = Open::default();
    for part in &message.parts {
        match part {
            Part::Text(text) => open.content.push_str(text),
            Part::Reasoning(text) => open.reasoning.get_or_insert_default().push_str(text),
            Part::ToolCall(call) => open.calls.push(tool_call(call)),
            Part::ToolResult { call_id, text } => {
                if !open.is_empty() {
                    messages.push(std::mem::take(&mut open).close(role, message, None));
                }
                let result = Open { content: text.clone(), ..Open::default() };
                messages.push(result.close(Role::Tool, message, call_id.as_deref()));
            }
        }
    }
    if !open.is_empty() || messages.len() == before {
        messages.push(open.close(role, message, None));
    }
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

/// The OpenAI form, with the arguments as a mapping where they are one. Clients write no
/// arguments as an empty text, too.
fn tool_call(call: &ToolCall) -> Value {
    let arguments = match json::parse(&call.arguments.0) {
        _ if call.arguments.0.trim().is_empty() => Value::from_pairs::<_, &str, Value>([]),
        Ok(value) if value.kind() == ValueKind::Map => value,
        _ => Value::from(call.arguments.0.as_str()),
    };
    let name = Value::from(call.name.as_str());
    let function = Value::from_pairs([("name", name), ("arguments", arguments)]);
    let mut pairs = Vec::with_capacity(3);
    if !call.id.is_empty() {
        pairs.push(("id", Value::from(call.id.as_str())));
    }
    pairs.push(("type", Value::from("function")));
    pairs.push(("function", function));
    Value::from_pairs(pairs)
}
