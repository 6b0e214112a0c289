//! What of a client's wish for tool calls can be kept.

use super::common::clip;
use super::fields::Object;
use crate::error::Invalid;
use baton_proto::ir::ToolChoice;
use serde_json::Value;

/// Nothing here decides what is drawn, so that a call cannot be enforced.
pub(super) fn enforceable(choice: ToolChoice, param: &str) -> Result<ToolChoice, Invalid> {
    let wish = match &choice {
        ToolChoice::Auto | ToolChoice::None => return Ok(choice),
        ToolChoice::Required => "a call".to_owned(),
        ToolChoice::Named(name) => format!("a call of `{}`", clip(name)),
    };
    let message = format!("'{param}': {wish} cannot be enforced; use \"auto\" or \"none\".");
    Err(Invalid::unsupported(param, message))
}

/// The choice as OpenAI's interfaces have it: a word, or an object that names a tool, of which `named`
/// tells the name by its type; `None` where that is no type of the dialect.
pub(super) fn read(
    body: Object<'_>,
    named: impl FnOnce(&str, Object<'_>) -> Result<Option<String>, Invalid>,
) -> Result<ToolChoice, Invalid> {
    let name = "tool_choice";
    let choice = match body.get(name) {
        None => ToolChoice::Auto,
        Some(Value::String(choice)) => match choice.as_str() {
            "auto" => ToolChoice::Auto,
            "none" => ToolChoice::None,
            "required" => ToolChoice::Required,
            other => return Err(unknown(name, other)),
        },
        Some(value) => {
            let choice = Object::new(value, name)?;
            let kind = choice.required_string("type")?;
            let named = named(kind, choice)?.ok_or_else(|| unknown("tool_choice.type", kind))?;
            ToolChoice::Named(named)
        }
    };
    enforceable(choice, name)
}

/// No choice of the dialect.
pub(super) fn unknown(param: &str, got: &str) -> Invalid {
    let message = format!("'{param}': `{}` is not supported; use \"auto\" or \"none\".", clip(got));
    Invalid::unsupported(param, message)
}
