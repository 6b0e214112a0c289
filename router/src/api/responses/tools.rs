//! What may be called: `tools`, also those of namespaces and those without a schema.
//!
//! Chat templates know functions with a name and a schema. A tool of a namespace gets both names, a
//! custom tool a schema with one text; what the model calls then is told in the client's words again.

use crate::api::common::{self, clip};
use crate::api::fields::{self, Object};
use crate::api::tool_choice;
use crate::config::Limits;
use crate::error::Invalid;
use baton_proto::ir::{Tool, ToolChoice};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Stands between a namespace and a name in it.
const WITHIN: &str = "__";
/// The one parameter of a custom tool.
const INPUT: &str = "input";

/// The client's words for the names that the model knows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Names(BTreeMap<String, Called>);

/// A tool in the client's words.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Called {
    pub(super) namespace: Option<String>,
    pub(super) name: String,
    /// Its input is a text, not arguments by a schema.
    pub(super) is_custom: bool,
}

impl Names {
    /// A name that the model has called; one that it has made up is the client's to refuse.
    pub(super) fn of(&self, called: &str) -> Called {
        let known = self.0.get(called).cloned();
        known.unwrap_or_else(|| Called { name: called.to_owned(), ..Called::default() })
    }
}

/// The name by which the model knows a tool.
pub(super) fn flat(namespace: Option<&str>, name: &str) -> String {
    namespace.map_or_else(|| name.to_owned(), |space| format!("{space}{WITHIN}{name}"))
}

/// A custom tool's input as the model writes it.
pub(super) fn wrapped(input: &str) -> Value {
    json!({INPUT: input})
}

/// A custom tool's input out of what the model has written; all of it, where it wrote something else.
pub(super) fn unwrapped(arguments: &str) -> String {
    let value: Option<Value> = serde_json::from_str(arguments).ok();
    let input = value.as_ref().and_then(|value| value.get(INPUT)?.as_str());
    input.unwrap_or(arguments).to_owned()
}

/// All tools of a request, wherever they stand.
pub(super) struct Catalogue<'a> {
    limits: &'a Limits,
    pub(super) tools: Vec<Tool>,
    pub(super) names: Names,
    /// What is not served here, to be named in a header.
    pub(super) ignored: Vec<String>,
}

impl<'a> Catalogue<'a> {
    pub(super) fn new(limits: &'a Limits) -> Self {
        Self { limits, tools: Vec::new(), names: Names::default(), ignored: Vec::new() }
    }

    /// The tools in this list. Those that OpenAI's own servers run are ignored: there is nobody here
    /// to run them.
    pub(super) fn read(&mut self, values: &[Value], path: &str) -> Result<(), Invalid> {
        for (i, value) in values.iter().enumerate() {
            let path = format!("{path}[{i}]");
            let tool = Object::new(value, &path)?;
            if tool.required_string("type")? != "namespace" {
                self.add(tool, None)?;
                continue;
            }
            let (space, place) = (tool.required_string("name")?, tool.path_of("tools"));
            for (i, value) in tool.array("tools")?.unwrap_or(&[]).iter().enumerate() {
                self.add(Object::new(value, &format!("{place}[{i}]"))?, Some(space))?;
            }
        }
        Ok(())
    }

    fn add(&mut self, tool: Object<'_>, namespace: Option<&str>) -> Result<(), Invalid> {
        let kind = tool.required_string("type")?;
        let parameters = match kind {
            "function" => tool.get("parameters").cloned().unwrap_or_else(|| json!({})),
            "custom" => {
                let schema = json!({"type": "string"});
                json!({"type": "object", "properties": {INPUT: schema}, "required": [INPUT]})
            }
            _ => {
                self.ignored.push(format!("{}({})", tool.path(), clip(kind)));
                return Ok(());
            }
        };
        if self.tools.len() == self.limits.tools_max {
            let max = self.limits.tools_max;
            return Err(common::too_many("tools", "tools", max, max + 1));
        }
        Object::new(&parameters, &tool.path_of("parameters"))?;
        let name = tool.required_string("name")?;
        let known = flat(namespace, name);
        let named = Called {
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
            is_custom: kind == "custom",
        };
        if self.names.0.insert(known.clone(), named).is_some() {
            let path = tool.path_of("name");
            let message = format!("Invalid '{path}': there are two tools `{}`.", clip(&known));
            return Err(Invalid::value(path, message));
        }
        let mut function = Map::new();
        function.insert("name".to_owned(), json!(known));
        if let Some(description) = tool.string("description")? {
            function.insert("description".to_owned(), json!(description));
        }
        function.insert("parameters".to_owned(), parameters);
        let definition = json!({"type": "function", "function": Value::Object(function)});
        self.tools.push(fields::text(&definition).into());
        Ok(())
    }
}

/// Whether a tool is called, as far as that can be kept.
pub(super) fn choice(body: Object<'_>) -> Result<ToolChoice, Invalid> {
    tool_choice::read(body, |kind, choice| match kind {
        "function" | "custom" => choice.required_string("name").map(|name| Some(name.to_owned())),
        _ => Ok(None),
    })
}
