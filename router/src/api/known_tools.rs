//! What parsers of answers are told about a request's tools.

use crate::parse::{Tools, Types};
use baton_proto::ir::Tool;
use serde_json::Value;

/// The names of these tools, and the types of their parameters as far as their schemas say them.
pub(crate) fn known_tools(tools: &[Tool]) -> Tools {
    let mut known = Tools::new();
    for tool in tools {
        // What is not JSON has been refused already, or will be by the template.
        let Ok(tool) = serde_json::from_str::<Value>(&tool.definition.0) else { continue };
        let function = tool.get("function").unwrap_or(&tool);
        let Some(name) = function.get("name").and_then(Value::as_str) else { continue };
        let properties = function.pointer("/parameters/properties").and_then(Value::as_object);
        let types = properties
            .into_iter()
            .flatten()
            .filter_map(|(name, schema)| Some((name.clone(), types(schema)?)));
        known.add(name, types);
    }
    known
}

/// The types that a schema allows, where it says so in one of the simple ways.
fn types(schema: &Value) -> Option<Types> {
    if let Some(types) = schema.get("type") {
        return match types {
            Value::String(name) => Types::named(name),
            Value::Array(names) => any(names.iter().map(|name| Types::named(name.as_str()?))),
            _ => None,
        };
    }
    let choices = ["anyOf", "oneOf"].into_iter().find_map(|name| schema.get(name)?.as_array())?;
    any(choices.iter().map(types))
}

/// All of them together; nothing is known where one is not known.
fn any(types: impl Iterator<Item = Option<Types>>) -> Option<Types> {
    types.reduce(|one, other| Some(one? | other?)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_proto::ir::JsonText;
    use serde_json::json;

    #[test]
    fn types_are_read_where_schemas_say_them_simply() {
        let properties = json!({
            "n": {"type": "integer"}, "s": {"type": ["string", "null"]}, "x": {},
            "c": {"anyOf": [{"type": "boolean"}, {"type": "array"}]},
            "o": {"oneOf": [{"type": "object"}, {"$ref": "#/x"}]},
        });
        let parameters = json!({"type": "object", "properties": properties});
        let function = json!({"name": "f", "parameters": parameters});
        let tool = json!({"type": "function", "function": function}).to_string();
        let known = known_tools(&[JsonText(tool).into(), JsonText("{".to_owned()).into()]);
        assert!(known.has("f") && !known.has("g"));
        assert_eq!(known.types("f", "n"), Types::NUMBER);
        assert_eq!(known.types("f", "s"), Types::STRING | Types::NULL);
        assert_eq!(known.types("f", "c"), Types::BOOLEAN | Types::ARRAY);
        for unknown in ["x", "o", "z"] {
            assert_eq!(known.types("f", unknown), Types::STRING);
        }
    }
}
