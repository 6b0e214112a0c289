//! What is to be taken out of the history: `context_management`.

use crate::api::common::{clip, too_many};
use crate::api::fields::{self, Object};
use crate::error::Invalid;
use crate::turn::{EditKind, Edited};
use baton_proto::ir::{Edit, ToolSet, Trigger};
use serde_json::{Value, json};

const CLEAR_THINKING: &str = "clear_thinking_20251015";
const CLEAR_TOOL_USES: &str = "clear_tool_uses_20250919";
/// Each that applies costs a rendering.
const EDITS_MAX: usize = 8;
/// What the interface does where a request does not say it.
const TRIGGER_TOKENS: usize = 100_000;
const TOOL_USES_KEPT: usize = 3;
const THINKING_KEPT: usize = 1;

/// The edits; those that nobody here knows are ignored.
pub(super) fn read(body: Object<'_>, ignored: &mut Vec<String>) -> Result<Vec<Edit>, Invalid> {
    let name = "context_management";
    let Some(value) = body.get(name) else { return Ok(Vec::new()) };
    let values = Object::new(value, name)?.array("edits")?.unwrap_or(&[]);
    if values.len() > EDITS_MAX {
        let path = format!("{name}.edits");
        return Err(too_many(&path, "edits", EDITS_MAX, values.len()));
    }
    let mut edits = Vec::with_capacity(values.len());
    for (i, value) in values.iter().enumerate() {
        let path = format!("{name}.edits[{i}]");
        let edit = Object::new(value, &path)?;
        match edit.required_string("type")? {
            CLEAR_THINKING => {
                let everything = edit.get("keep").and_then(Value::as_str) == Some("all");
                let keep =
                    if everything { None } else { number(edit, "keep", &["thinking_turns"])? };
                let keep = keep.map_or(THINKING_KEPT, |(_, keep)| keep);
                edits.extend((!everything).then_some(Edit::ClearThinking { keep }));
            }
            CLEAR_TOOL_USES => edits.push(clear_tool_uses(edit)?),
            other => ignored.push(format!("{path}({})", clip(other))),
        }
    }
    Ok(edits)
}

fn clear_tool_uses(edit: Object<'_>) -> Result<Edit, Invalid> {
    let trigger = number(edit, "trigger", &["input_tokens", "tool_uses"])?;
    let keep = number(edit, "keep", &["tool_uses"])?;
    let clear_at_least = number(edit, "clear_at_least", &["input_tokens"])?;
    let inputs = match edit.get("clear_tool_inputs") {
        None | Some(Value::Bool(false)) => ToolSet::None,
        Some(Value::Bool(true)) => ToolSet::All,
        Some(_) => ToolSet::Named(names(edit, "clear_tool_inputs")?),
    };
    Ok(Edit::ClearToolUses {
        trigger: match trigger {
            None => Trigger::PromptTokens(TRIGGER_TOKENS),
            Some((0, tokens)) => Trigger::PromptTokens(tokens),
            Some((_, uses)) => Trigger::ToolUses(uses),
        },
        keep: keep.map_or(TOOL_USES_KEPT, |(_, keep)| keep),
        clear_at_least: clear_at_least.map_or(0, |(_, tokens)| tokens),
        exclude: names(edit, "exclude_tools")?,
        inputs,
    })
}

/// A number with its unit, `{"type":"tool_uses","value":3}`: which of the units, and the value.
fn number(edit: Object<'_>, name: &str, units: &[&str]) -> Result<Option<(usize, usize)>, Invalid> {
    let Some(value) = edit.get(name) else { return Ok(None) };
    let path = edit.path_of(name);
    let number = Object::new(value, &path)?;
    let said = number.required_string("type")?;
    let Some(unit) = units.iter().position(|unit| *unit == said) else {
        let path = number.path_of("type");
        let message = format!("Invalid '{path}': expected {}.", units.join(" or "));
        return Err(Invalid::value(path, message));
    };
    let path = number.path_of("value");
    let value = number.get("value").ok_or_else(|| Invalid::missing(&path))?;
    let value = fields::integer(value, &path, 0, i64::from(u32::MAX))?;
    Ok(Some((unit, value as usize)))
}

fn names(edit: Object<'_>, name: &str) -> Result<Vec<String>, Invalid> {
    let values = edit.array(name)?.unwrap_or(&[]).iter().enumerate();
    let path = edit.path_of(name);
    values
        .map(|(i, value)| Ok(fields::string(value, &format!("{path}[{i}]"))?.to_owned()))
        .collect()
}

/// What came of the edits, as an answer tells it.
pub(super) fn told(edited: &[Edited]) -> Value {
    let edits = edited.iter().map(|edited| match edited.kind {
        EditKind::Thinking => json!({
            "type": CLEAR_THINKING,
            "cleared_thinking_turns": edited.count,
            "cleared_input_tokens": edited.cleared_tokens,
        }),
        EditKind::ToolUses => json!({
            "type": CLEAR_TOOL_USES,
            "cleared_tool_uses": edited.count,
            "cleared_input_tokens": edited.cleared_tokens,
        }),
    });
    json!({"applied_edits": edits.collect::<Vec<_>>()})
}
