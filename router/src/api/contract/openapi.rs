//! `GET /openapi.json`: every endpoint as an OpenAPI document, made from what the decoders check by.

use super::{
    Body, But, CHAT, COMPLETIONS, COUNT_TOKENS, DETOKENIZE, Fate, Field, Kind, MESSAGES, RESPONSES,
    TOKENIZE,
};
use crate::config::Limits;
use serde_json::{Map, Value, json};

/// What bodies and answers are made of.
const SCHEMAS: [&str; 4] = [
    include_str!("schemas/chat.json"),
    include_str!("schemas/messages.json"),
    include_str!("schemas/responses.json"),
    include_str!("schemas/answers.json"),
];
/// The vocabulary of hints, which says more than what is checked of them.
const INTENT: &str = include_str!("../../intent/intent.schema.json");

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";
const TEXT: &str = "text/plain; charset=utf-8";

/// An endpoint.
struct Operation {
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    body: Option<&'static Body>,
    /// The media type and the schema of a good answer.
    answer: (&'static str, &'static str),
    /// The schema of its server-sent events, where it may also come as some.
    events: Option<&'static str>,
    errors: &'static [Errors],
}

/// Which errors there may be, by whose shape.
struct Errors {
    schema: &'static str,
    statuses: &'static [u16],
}

/// No key, or a wrong one.
const KEY: Errors = Errors { schema: "Error", statuses: &[400, 401] };
const TURN: Errors =
    Errors { schema: "Error", statuses: &[400, 401, 404, 408, 413, 415, 429, 500, 503] };
const MESSAGE: Errors = Errors {
    schema: "MessagesError",
    statuses: &[400, 401, 403, 404, 408, 413, 415, 429, 500, 504, 529],
};

const fn posted(summary: &'static str, body: &'static Body, answer: &'static str) -> Operation {
    let answer = (JSON, answer);
    let errors = &[TURN];
    Operation {
        method: "post",
        path: body.path,
        summary,
        body: Some(body),
        answer,
        events: None,
        errors,
    }
}

const fn got(
    path: &'static str,
    summary: &'static str,
    answer: (&'static str, &'static str),
    errors: &'static [Errors],
) -> Operation {
    Operation { method: "get", path, summary, body: None, answer, events: None, errors }
}

const OPERATIONS: [Operation; 16] = [
    Operation {
        events: Some("Chunks"),
        ..posted("A turn of a conversation.", &CHAT, "ChatCompletion")
    },
    Operation {
        events: Some("Chunks"),
        ..posted("Text that goes on.", &COMPLETIONS, "Completion")
    },
    Operation {
        events: Some("ResponseEvents"),
        ..posted(
            "A turn of a conversation, in the words of the newer interface.",
            &RESPONSES,
            "Response",
        )
    },
    Operation {
        events: Some("MessageEvents"),
        errors: &[MESSAGE],
        ..posted("A turn of a conversation, in Anthropic's words.", &MESSAGES, "Message")
    },
    Operation {
        errors: &[MESSAGE],
        ..posted("The tokens that such a conversation has.", &COUNT_TOKENS, "CountedTokens")
    },
    posted("A prompt's token ids.", &TOKENIZE, "Tokenized"),
    posted("What token ids read.", &DETOKENIZE, "Detokenized"),
    got("/v1/models", "What is served.", (JSON, "ModelList"), &[KEY]),
    got(
        "/v1/models/{id}",
        "One model, by any of its names.",
        (JSON, "Model"),
        &[KEY, Errors { schema: "Error", statuses: &[404] }],
    ),
    got(
        "/v1/capabilities",
        "Which hints are served, and their bounds.",
        (JSON, "Capabilities"),
        &[KEY],
    ),
    got("/openapi.json", "This document.", (JSON, "OpenApi"), &[]),
    got("/", "Somebody is there.", (TEXT, "Text"), &[]),
    got("/live", "The process runs.", (TEXT, "Text"), &[]),
    got(
        "/ready",
        "It takes requests.",
        (TEXT, "Text"),
        &[Errors { schema: "Text", statuses: &[503] }],
    ),
    got(
        "/health",
        "Always ok while the process runs; `/ready` tells whether it takes requests.",
        (JSON, "Health"),
        &[],
    ),
    got("/metrics", "Figures for Prometheus.", (baton_node::metrics::CONTENT_TYPE, "Text"), &[]),
];

/// The document of a router with these limits.
pub(in crate::api) fn openapi(limits: &Limits) -> Value {
    let mut paths = Map::new();
    for operation in &OPERATIONS {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method] = operation.json(limits);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Baton",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Rules between fields, such as that one needs another, are not told here: what breaks them is a 400 that names the field.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
        // Where there are no tenants, there are no keys.
        "security": [{}, {"bearer": []}, {"key": []}],
    })
}

fn schemas() -> Map<String, Value> {
    let mut schemas = Map::new();
    for part in SCHEMAS {
        schemas.extend(serde_json::from_str::<Map<String, Value>>(part).unwrap_or_default());
    }
    let mut intent = serde_json::from_str(INTENT).unwrap_or_default();
    checked(&mut intent);
    schemas.insert("Intent".to_owned(), intent);
    schemas
}

/// Leaves of a vocabulary what is checked: the types. Values beyond are clamped or ignored, and null is
/// as good as nothing.
fn checked(schema: &mut Value) {
    for name in ["$schema", "minimum", "const", "enum"] {
        schema.as_object_mut().map(|schema| schema.remove(name));
    }
    let Some(fields) = schema.get_mut("properties").and_then(Value::as_object_mut) else { return };
    for field in fields.values_mut() {
        checked(field);
        nullable(field);
    }
}

/// Null counts as absent.
fn nullable(schema: &mut Value) {
    match schema.get_mut("type") {
        Some(Value::Array(types)) => types.push(json!("null")),
        Some(Value::String(name)) => schema["type"] = json!([name, "null"]),
        _ => {}
    }
}

impl Operation {
    fn json(&self, limits: &Limits) -> Value {
        let mut operation = json!({"summary": self.summary, "responses": self.responses()});
        if let Some(body) = self.body {
            let schema = object(body.fields(), limits);
            operation["requestBody"] =
                json!({"required": true, "content": {(JSON): {"schema": schema}}});
        }
        if self.path.contains("{id}") {
            let schema = json!({"type": "string", "minLength": 1});
            operation["parameters"] =
                json!([{"name": "id", "in": "path", "required": true, "schema": schema}]);
        }
        operation
    }

    fn responses(&self) -> Value {
        let (media, schema) = self.answer;
        let mut content = json!({(media): {"schema": reference(schema)}});
        if let Some(events) = self.events {
            content[EVENTS] = json!({"schema": reference(events)});
        }
        let mut responses = json!({"200": {"description": "The answer.", "content": content}});
        for errors in self.errors {
            let media = if errors.schema == "Text" { TEXT } else { JSON };
            for status in errors.statuses {
                responses[status.to_string()] = json!({
                    "description": reason(*status),
                    "content": {(media): {"schema": reference(errors.schema)}},
                });
            }
        }
        responses
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        529 => "Overloaded",
        _ => http::StatusCode::from_u16(status)
            .ok()
            .and_then(|status| status.canonical_reason())
            .unwrap_or_default(),
    }
}

fn reference(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

/// An object with these fields.
fn object<'a>(fields: impl Iterator<Item = &'a Field>, limits: &Limits) -> Value {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for field in fields {
        if field.required {
            required.push(field.name);
        }
        properties.insert(field.name.to_owned(), property(field, limits));
    }
    let mut object = json!({"type": "object", "properties": properties});
    if !required.is_empty() {
        object["required"] = json!(required);
    }
    object
}

fn property(field: &Field, limits: &Limits) -> Value {
    let fate = match field.fate {
        Fate::Supported => "supported",
        Fate::Ignored => "ignored",
        Fate::Refused(_) => "refused",
    };
    let mut schema = match field.fate {
        Fate::Refused(But::Never) => json!({"type": "null"}),
        Fate::Refused(But::Is(same)) => {
            json!({"enum": [serde_json::from_str::<Value>(same).unwrap_or_default()]})
        }
        _ => kind(field.kind, limits),
    };
    if !field.required {
        optional(&mut schema);
    }
    schema["description"] = json!(field.meaning);
    schema["x-baton"] = json!(fate);
    schema
}

/// A schema that takes null as well.
fn optional(schema: &mut Value) {
    if schema.get("$ref").is_some() {
        *schema = json!({"anyOf": [schema, {"type": "null"}]});
    } else if let Some(Value::Array(values)) = schema.get_mut("enum") {
        values.push(Value::Null);
    } else if schema["type"] != "null" {
        nullable(schema);
    }
}

fn kind(kind: Kind, limits: &Limits) -> Value {
    match kind {
        Kind::Boolean => json!({"type": "boolean"}),
        Kind::Text => json!({"type": "string"}),
        // What lies beyond 64 bits is as good as their end.
        Kind::Integer(i64::MIN, _) => json!({"type": "integer"}),
        Kind::Integer(min, most) => match most.of(limits) {
            i64::MAX => json!({"type": "integer", "minimum": min}),
            max => json!({"type": "integer", "minimum": min, "maximum": max}),
        },
        Kind::Number(min, max) => json!({"type": "number", "minimum": min, "maximum": max}),
        Kind::Above0(max) => json!({"type": "number", "exclusiveMinimum": 0, "maximum": max}),
        Kind::Words(words) => json!({"enum": words}),
        Kind::Object(fields) => object(fields.iter(), limits),
        Kind::Any => json!({}),
        Kind::Schema(name) => reference(name),
    }
}
