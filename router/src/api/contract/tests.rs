//! Every field of every endpoint through the decoder: what is said of it here is what becomes of it.

use super::{
    Body, But, CHAT, COMPLETIONS, COUNT_TOKENS, DETOKENIZE, Fate, Field, Kind, MESSAGES, RESPONSES,
    TOKENIZE, is, openapi,
};
use crate::api::common::Call;
use crate::api::fields::read;
use crate::api::tests::{mint, spelled};
use crate::api::{Dialect, messages, tokens};
use crate::config::Limits;
use crate::error::Invalid;
use crate::seeded_tests::Draws;
use baton_proto::ir::{Chat, Prompt};
use serde_json::{Value, json};

/// An endpoint: what it takes, the least that it takes, and all that the decoder makes of a body.
pub(super) struct Tried {
    pub(super) body: Body,
    least: Value,
    decode: fn(&Value) -> Result<String, Invalid>,
}

pub(super) fn endpoints() -> [Tried; 7] {
    let said = json!([{"role": "user", "content": "hi"}]);
    [
        Tried {
            body: CHAT,
            least: json!({"model": "m", "messages": said}),
            decode: |body| turn(Dialect::Chat, body),
        },
        Tried {
            body: COMPLETIONS,
            least: json!({"model": "m", "prompt": "a"}),
            decode: |body| turn(Dialect::Completions, body),
        },
        Tried {
            body: MESSAGES,
            least: json!({"model": "m", "max_tokens": 2000, "messages": said}),
            decode: |body| turn(Dialect::Messages, body),
        },
        Tried {
            body: RESPONSES,
            least: json!({"model": "m", "input": "hi"}),
            decode: |body| turn(Dialect::Responses, body),
        },
        Tried {
            body: COUNT_TOKENS,
            least: json!({"model": "m", "messages": said}),
            decode: |body| {
                let (model, chat) = messages::counted(body, &Limits::default())?;
                Ok(format!("{model} {}", told(&Prompt::Chat(chat))))
            },
        },
        Tried {
            body: TOKENIZE,
            least: json!({"model": "m", "messages": said}),
            decode: |body| {
                let mut body = body.clone();
                // The one stands instead of the other.
                if !body["prompt"].is_null() {
                    body.as_object_mut().expect("an object").remove("messages");
                }
                let (model, prompt, words) = tokens::asked(&body, &Limits::default())?;
                Ok(format!("{model} {} {words}", told(&prompt)))
            },
        },
        Tried {
            body: DETOKENIZE,
            least: json!({"model": "m", "tokens": [1]}),
            decode: |body| Ok(format!("{:?}", tokens::listed(body, &Limits::default())?)),
        },
    ]
}

/// All that a turn's body has led to, but for what a response tells again.
fn turn(dialect: Dialect, body: &Value) -> Result<String, Invalid> {
    let Call { request, mut delivery } = dialect.parse(body, &mint(), &Limits::default())?;
    let summary = delivery.echo.take().map(|echo| echo.summary);
    let prompt = told(&request.prompt);
    Ok(format!("{request:?} {delivery:?} {summary:?} {prompt}"))
}

/// A prompt with its words, which its own debug output keeps to itself.
fn told(prompt: &Prompt) -> String {
    match prompt {
        Prompt::Text(text) => text.clone(),
        Prompt::Tokens(ids) => format!("{ids:?}"),
        Prompt::Chat(chat) => {
            let Chat { messages, tools, template_args, .. } = chat;
            let messages = messages.iter().map(|message| {
                let cache: Vec<_> = message.parts.iter().map(|part| part.cache).collect();
                format!("{:?} {} {cache:?}", message.role, spelled(&message.parts))
            });
            let tools = tools.iter().map(|tool| format!("{} {:?}", tool.definition.0, tool.cache));
            let args = template_args.iter().map(|(name, value)| format!("{name}={}", value.0));
            let all: Vec<String> = messages.chain(tools).chain(args).collect();
            format!("{chat:?} {}", all.join("\n"))
        }
    }
}

/// Values that a field takes; each may lead to something else, and one of them must.
fn good(kind: Kind) -> Vec<Value> {
    match kind {
        Kind::Boolean => vec![json!(true), json!(false)],
        Kind::Text => vec![json!("x"), json!("user_1_session_2")],
        Kind::Integer(min, most) => vec![json!(min), json!(most.of(&Limits::default()))],
        Kind::Number(min, max) => vec![json!(min), json!(max)],
        Kind::Above0(max) => vec![json!(0.01), json!(max)],
        Kind::Words(words) => words.iter().map(|word| json!(word)).collect(),
        // What is in it decides.
        Kind::Object(_) => vec![],
        Kind::Any => vec![json!(true), json!(5), json!("x"), json!({"a": 1}), json!([1])],
        Kind::Schema(name) => vec![example(name)],
    }
}

/// What stands for each schema.
fn example(schema: &str) -> Value {
    let tool = json!({"name": "ls", "description": "lists", "input_schema": {"type": "object"}});
    match schema {
        "LogitBias" => json!({"17": -1.5}),
        "Stop" => json!(["x"]),
        "StopTokenIds" | "TokenIds" => json!([3, 4]),
        "Intent" => json!({"priority": 3}),
        "Nvext" => json!({"extra_fields": ["timing"]}),
        "CountedNvext" => json!({"cache_control": {"type": "ephemeral"}}),
        "TemplateArguments" => json!({"a": 1}),
        "ChatMessages" | "Messages" => json!([{"role": "user", "content": "other"}]),
        "ChatTools" => json!([{"type": "function", "function": {"name": "ls"}}]),
        "ResponseTools" => json!([{"type": "function", "name": "ls"}]),
        "Tools" => json!([tool]),
        "ChatToolChoice" | "ResponseToolChoice" => json!("none"),
        "ToolChoice" | "CountedToolChoice" => json!({"type": "none"}),
        "ResponseInclude" => json!(["message.output_text.logprobs"]),
        "Prompt" | "ResponseInput" | "System" => json!("other"),
        "CacheControl" => json!({"type": "ephemeral"}),
        "ContextManagement" => json!({"edits": [{"type": "clear_thinking_20251015"}]}),
        other => panic!("no example of {other}"),
    }
}

/// Values that a field does not take.
fn bad(kind: Kind) -> Vec<Value> {
    match kind {
        Kind::Boolean | Kind::Text | Kind::Object(_) | Kind::Schema(_) => vec![json!(5)],
        Kind::Integer(min, most) => {
            let beyond = [i128::from(min) - 1, i128::from(most.of(&Limits::default())) + 1];
            let fits = beyond.into_iter().filter_map(|value| i64::try_from(value).ok());
            let values = fits.map(Value::from);
            values.chain([json!("x"), json!(1.5), json!([])]).collect()
        }
        Kind::Number(min, max) => vec![json!(min - 0.5), json!(max + 0.5), json!("x")],
        Kind::Above0(max) => vec![json!(0), json!(max + 0.5), json!("x")],
        Kind::Words(_) => vec![json!("no such word"), json!(5)],
        Kind::Any => vec![],
    }
}

/// What a field needs beside it.
fn company(path: &str) -> Value {
    match path {
        "top_logprobs" => json!({"logprobs": true}),
        path if path.starts_with("stream_options") => json!({"stream": true}),
        path if path.starts_with("thinking.") => {
            json!({"thinking": {"type": "enabled", "budget_tokens": 1500}, "max_tokens": i32::MAX})
        }
        "min_tokens" => json!({"max_tokens": i32::MAX}),
        _ => json!({}),
    }
}

/// One field of one endpoint.
struct Trial<'a> {
    tried: &'a Tried,
    path: String,
    /// The body without it.
    without: Value,
}

impl Trial<'_> {
    fn with(&self, value: &Value) -> Value {
        let mut body = self.without.clone();
        let mut at = &mut body;
        for name in self.path.split('.') {
            at = &mut at[name];
        }
        *at = value.clone();
        body
    }

    /// What the decoder makes of the body with that.
    fn led_to(&self, value: &Value) -> Result<String, Invalid> {
        (self.tried.decode)(&self.with(value))
    }

    fn taken(&self, value: &Value) -> String {
        self.led_to(value).unwrap_or_else(|error| panic!("{} {value}: {error:?}", self.name()))
    }

    fn refused(&self, value: &Value) -> Invalid {
        let Err(error) = self.led_to(value) else { panic!("{} {value}: taken", self.name()) };
        let param = error.param.as_deref().unwrap_or_default();
        assert!(param.starts_with(&self.path), "{} {value}: {error:?}", self.name());
        error
    }

    fn name(&self) -> String {
        format!("{} {}", self.tried.body.path, self.path)
    }
}

fn try_field(tried: &Tried, field: &Field, parent: Option<&str>) {
    let path = parent.map_or(field.name.to_owned(), |parent| format!("{parent}.{}", field.name));
    let mut without = tried.least.clone();
    for (name, value) in company(&path).as_object().expect("an object") {
        without[name] = value.clone();
    }
    let trial = Trial { tried, path: path.clone(), without };
    let otherwise = (tried.decode)(&trial.without).expect("the least is taken");
    for value in bad(field.kind) {
        trial.refused(&value);
    }
    match field.fate {
        Fate::Supported => try_supported(&trial, field, &otherwise),
        Fate::Ignored => {
            for value in good(field.kind) {
                assert_eq!(trial.taken(&value), otherwise, "{}", trial.name());
            }
        }
        Fate::Refused(but) => try_refused(&trial, field, but),
    }
    if field.required {
        assert_eq!(trial.refused(&Value::Null).code, "missing_required_parameter");
    } else if parent.is_none() {
        assert_eq!(trial.led_to(&Value::Null), (tried.decode)(&bare(&trial)), "{}", trial.name());
    }
    if let Kind::Object(fields) = field.kind {
        for inner in fields {
            try_field(tried, inner, Some(&path));
        }
    }
}

/// The body of a trial without the field at all.
fn bare(trial: &Trial<'_>) -> Value {
    let mut body = trial.without.clone();
    body.as_object_mut().expect("an object").remove(&trial.path);
    body
}

fn try_supported(trial: &Trial<'_>, field: &Field, otherwise: &str) {
    let good = good(field.kind);
    let differs = good.iter().filter(|value| trial.taken(value) != otherwise).count();
    assert!(differs > 0 || good.is_empty(), "{} does nothing", trial.name());
}

fn try_refused(trial: &Trial<'_>, field: &Field, but: But) {
    let is_allowed = |value: &Value| match but {
        But::Never => false,
        But::Is(same) => is(value, same),
        But::Equals(_) => *value == json!(1),
    };
    let bare = (trial.tried.decode)(&bare(trial)).expect("the least is taken");
    let mut others = good(field.kind);
    if let But::Is(same) = but {
        let same = serde_json::from_str(same).expect("JSON");
        assert_eq!(trial.taken(&same), bare, "{}", trial.name());
    }
    others.retain(|value| !is_allowed(value));
    assert!(!others.is_empty());
    for value in others {
        assert_eq!(trial.refused(&value).code, "unsupported_value", "{}", trial.name());
    }
}

#[test]
fn every_field_does_what_is_said_of_it() {
    for tried in &endpoints() {
        for field in tried.body.fields() {
            try_field(tried, field, None);
        }
    }
}

#[test]
fn a_field_that_must_equal_another_may() {
    let [_, completions, ..] = &endpoints();
    let body = |n: i64| json!({"model": "m", "prompt": "a", "n": n, "best_of": 3});
    assert!((completions.decode)(&body(3)).is_ok());
    assert!((completions.decode)(&body(2)).is_err());
}

#[test]
fn nothing_else_is_read() {
    for tried in &endpoints() {
        drop(read::take());
        for field in tried.body.fields() {
            try_field(tried, field, None);
        }
        for path in read::take() {
            assert!(is_known(&path, tried.body.fields()), "{} reads {path}", tried.body.path);
        }
    }
}

/// Whether a path is a field, or leads into what a schema describes.
fn is_known<'a>(path: &str, mut fields: impl Iterator<Item = &'a Field>) -> bool {
    let (name, rest) = path.split_once('.').unwrap_or((path, ""));
    let name = name.split('[').next().unwrap_or(name);
    let Some(field) = fields.find(|field| field.name == name) else { return false };
    match field.kind {
        Kind::Object(inner) if !rest.is_empty() => is_known(rest, inner.iter()),
        Kind::Schema(_) => true,
        _ => rest.is_empty(),
    }
}

/// Whether the document describes what stands at a path.
fn describes(document: &Value, schema: &Value, path: &[&str]) -> bool {
    if let Some(place) = schema["$ref"].as_str() {
        let place = place.strip_prefix('#').expect("a place in the document");
        let schema = document.pointer(place).unwrap_or_else(|| panic!("no schema {place}"));
        return describes(document, schema, path);
    }
    let [name, rest @ ..] = path else { return true };
    let inner = if *name == "[]" { &schema["items"] } else { &schema["properties"][*name] };
    let choices = schema["anyOf"].as_array().into_iter().flatten();
    (!inner.is_null() && describes(document, inner, rest))
        || choices.into_iter().any(|choice| describes(document, choice, path))
}

/// Conversations in which there is everything that can be said.
fn conversations() -> [(Body, Value, Value); 3] {
    let tool = json!({"name": "ls", "input_schema": {}, "cache_control": null});
    let number = |unit: &str| json!({"type": unit, "value": 3});
    let edits = json!([
        {"type": "clear_thinking_20251015", "keep": number("thinking_turns")},
        {"type": "clear_tool_uses_20250919", "trigger": number("tool_uses"), "clear_tool_inputs": ["a"]},
    ]);
    let mut draws = Draws::announced();
    let (chat, message) = messages::both(&mut draws);
    let function = json!({"type": "function", "name": "ls"});
    let input = json!([
        {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
        {"type": "reasoning", "content": [], "summary": [{"type": "summary_text", "text": "t"}]},
        {"type": "function_call", "call_id": "1", "name": "ls", "arguments": "{}"},
        {"type": "custom_tool_call", "call_id": "2", "name": "sh", "input": "x"},
        {"type": "function_call_output", "call_id": "1", "output": "r"},
        {"type": "additional_tools", "tools": [{"type": "custom", "name": "sh"}]},
    ]);
    let space = json!({"type": "namespace", "name": "n", "tools": [function]});
    [
        (
            CHAT,
            chat,
            json!({"nvext": {"agent_hints": {"priority": 1}, "cache_control": {"type": "ephemeral"}}}),
        ),
        (MESSAGES, message, json!({"tools": [tool], "context_management": {"edits": edits}})),
        (RESPONSES, json!({"model": "m", "input": input}), json!({"tools": [function, space]})),
    ]
}

#[test]
fn what_is_read_of_a_conversation_is_in_the_document() {
    let document = openapi(&Limits::default());
    for (body, mut conversation, more) in conversations() {
        for (name, value) in more.as_object().expect("fields") {
            conversation[name] = value.clone();
        }
        let tried = endpoints().into_iter().find(|tried| tried.body.path == body.path);
        drop(read::take());
        (tried.expect("the endpoint").decode)(&conversation).expect("taken");
        let place = &document["paths"][body.path]["post"]["requestBody"]["content"];
        let schema = &place["application/json"]["schema"];
        let paths = read::take();
        assert!(paths.len() > 30, "{paths:?}");
        for path in paths {
            let path = path.replace('[', ".[");
            let path: Vec<_> = path
                .split('.')
                .map(|name| if name.starts_with('[') { "[]" } else { name })
                .collect();
            assert!(describes(&document, schema, &path), "{} reads {path:?}", body.path);
        }
    }
}

#[test]
fn the_document_has_every_route_and_every_schema_that_it_names() {
    let document = openapi(&Limits::default());
    let routes = include_str!("../http.rs").split(".route(\"").skip(1);
    let routes = routes.map(|rest| rest.split('"').next().expect("a path"));
    let elsewhere = ["/live", "/ready", "/metrics"];
    let mut routes: Vec<_> =
        routes.chain(elsewhere).map(|path| path.replace("{*id}", "{id}")).collect();
    routes.sort_unstable();
    let paths = document["paths"].as_object().expect("paths");
    let mut described: Vec<_> = paths.keys().cloned().collect();
    described.sort_unstable();
    assert_eq!(described, routes);
    let text = document.to_string();
    let named = text.split("\"#").skip(1).map(|rest| rest.split('"').next().expect("a place"));
    for place in named {
        assert!(document.pointer(place).is_some(), "{place}");
    }
}

#[test]
fn what_nobody_knows_changes_nothing_and_is_named_where_that_is_said() {
    for tried in &endpoints() {
        let mut body = tried.least.clone();
        let least = (tried.decode)(&body).expect("taken");
        body["no_such_field"] = json!(1);
        let led_to = (tried.decode)(&body).expect("taken");
        assert_eq!(led_to.contains("no_such_field"), tried.body.names_unknown);
        assert_eq!(led_to == least, !tried.body.names_unknown, "{}", tried.body.path);
    }
}

#[test]
fn no_field_is_described_twice() {
    for tried in &endpoints() {
        let mut names: Vec<_> = tried.body.fields().map(|field| field.name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count, "{}", tried.body.path);
    }
}
