//! What may be called: `tools` and `tool_choice`.

use super::cache::Marks;
use crate::api::common::{self, clip};
use crate::api::fields::{self, Object};
use crate::api::tool_choice;
use crate::config::Limits;
use crate::error::Invalid;
use baton_proto::ir::{JsonText, Tool, ToolChoice};
use serde_json::{Map, Value, json};

/// The client's tools in the form that chat templates know. Tools that Anthropic's own servers run or
/// define are ignored: the model could not call them here.
pub(super) fn read(
    body: Object<'_>,
    limits: &Limits,
    marks: &mut Marks,
    ignored: &mut Vec<String>,
) -> Result<Vec<Tool>, Invalid> {
    let values = body.array("tools")?.unwrap_or(&[]);
    if values.len() > limits.tools_max {
        return Err(common::too_many("tools", "tools", limits.tools_max, values.len()));
    }
    let mut tools: Vec<Tool> = Vec::with_capacity(values.len());
    for (i, value) in values.iter().enumerate() {
        let path = format!("tools[{i}]");
        let tool = Object::new(value, &path)?;
        let cache = marks.read(tool)?;
        let kind = tool.string("type")?.unwrap_or("custom");
        if kind == "custom" {
            tools.push(Tool { definition: definition(tool)?, cache });
            continue;
        }
        ignored.push(format!("{path}({})", clip(kind)));
        // What is kept ends where it would end without this one.
        if let Some(last) = tools.last_mut() {
            last.cache = cache.or(last.cache);
        }
    }
    Ok(tools)
}

fn definition(tool: Object<'_>) -> Result<JsonText, Invalid> {
    let mut function = Map::new();
    function.insert("name".to_owned(), json!(tool.required_string("name")?));
    if let Some(description) = tool.string("description")? {
        function.insert("description".to_owned(), json!(description));
    }
    let path = tool.path_of("input_schema");
    let schema = tool.get("input_schema").ok_or_else(|| Invalid::missing(&path))?;
    Object::new(schema, &path)?;
    function.insert("parameters".to_owned(), schema.clone());
    Ok(fields::text(&json!({"type": "function", "function": Value::Object(function)})))
}

/// Whether a tool shall be called, and whether one at most.
pub(super) fn choice(body: Object<'_>) -> Result<(ToolChoice, bool), Invalid> {
    let name = "tool_choice";
    let Some(value) = body.get(name) else { return Ok((ToolChoice::Auto, false)) };
    let choice = Object::new(value, name)?;
    let kind = match choice.required_string("type")? {
        "auto" => ToolChoice::Auto,
        "none" => ToolChoice::None,
        "any" => ToolChoice::Required,
        "tool" => ToolChoice::Named(choice.required_string("name")?.to_owned()),
        other => return Err(tool_choice::unknown("tool_choice.type", other)),
    };
    let serial = choice.boolean("disable_parallel_tool_use")?.unwrap_or(false);
    Ok((kind, serial))
}
