//! Chat templates render as Jinja renders them. What is expected was written by
//! `fixtures/make.py`, with Jinja set up as transformers sets it up.

mod common;

use baton_proto::ir::{Chat, Content, JsonText, Message, Part, Role, ToolCall};
use baton_text::{Limits, LoadError, RenderError, TextModel};
use common::directory;
use serde_json::{Value as Json, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

fn tests() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests")
}

fn fixture(name: &str) -> Json {
    let text = std::fs::read(tests().join("fixtures").join(name)).expect("the fixture is there");
    serde_json::from_slice(&text).expect("the fixture is JSON")
}

fn load(dir: &Path) -> Result<TextModel, LoadError> {
    let now = Duration::from_secs(1_721_996_645);
    Ok(TextModel::load(dir)?.with_clock(Arc::new(move || now)))
}

fn model(template: &str) -> Result<TextModel, LoadError> {
    let config = r#"{"bos_token": {"content": "<s>"}, "eos_token": "</s>", "pad_token": null}"#;
    load(directory(&[("tokenizer_config.json", config), ("chat_template.jinja", template)]).path())
}

fn render(template: &str, chat: &Chat) -> Result<String, RenderError> {
    model(template).expect("the template compiles").render(chat)
}

fn arguments(args: &Json) -> Vec<(String, JsonText)> {
    let pairs = args.as_object().into_iter().flatten();
    pairs.map(|(name, value)| (name.clone(), JsonText(value.to_string()))).collect()
}

/// The conversation that an OpenAI request describes.
fn chat(request: &Json) -> Chat {
    let text = |json: &Json| json.as_str().map(str::to_owned);
    let message = |m: &Json| {
        let role = match m["role"].as_str().expect("role") {
            "system" => Role::System,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            _ => Role::Tool,
        };
        let content = text(&m["content"]).expect("content");
        let call = |call: &Json| -> Part {
            let arguments = &call["function"]["arguments"];
            Content::ToolCall(ToolCall {
                id: text(&call["id"]).expect("id"),
                name: text(&call["function"]["name"]).expect("name"),
                arguments: JsonText(text(arguments).unwrap_or_else(|| arguments.to_string())),
            })
            .into()
        };
        let reasoning = text(&m["reasoning_content"]).map(Content::Reasoning);
        let mut parts: Vec<Part> = reasoning.into_iter().map(Part::from).collect();
        parts.push(match role {
            Role::Tool => {
                let call_id = text(&m["tool_call_id"]);
                Content::ToolResult { call_id, text: content, is_error: false }.into()
            }
            _ => Part::text(content),
        });
        parts.extend(m["tool_calls"].as_array().into_iter().flatten().map(call));
        Message { role, parts, name: text(&m["name"]) }
    };
    let list = |key: &str| request[key].as_array().into_iter().flatten();
    Chat {
        messages: list("messages").map(message).collect(),
        tools: list("tools").map(|tool| JsonText(tool.to_string()).into()).collect(),
        add_generation_prompt: true,
        template_args: arguments(&request["args"]),
        ..Chat::default()
    }
}

fn user(text: &str) -> Chat {
    chat(&json!({"messages": [{"role": "user", "content": text}]}))
}

#[test]
fn conversations_render_as_jinja_renders_them() {
    let conversations = fixture("conversations.json");
    let cases = fixture("renderings.json");
    let mut wrong = Vec::new();
    for case in cases.as_array().expect("cases") {
        let name = case["template"].as_str().expect("template");
        let path = tests().join("fixtures/templates").join(format!("{name}.jinja"));
        let template = std::fs::read_to_string(path).expect("the template is there");
        let conversation = case["conversation"].as_str().expect("conversation");
        let mut chat = chat(&conversations[conversation]);
        chat.add_generation_prompt = case["add_generation_prompt"] == true;
        let rendered = match render(&template, &chat) {
            Ok(text) => json!({ "text": text }),
            Err(RenderError::Refused { message }) => json!({ "refused": message }),
            Err(e) => json!({ "error": e.to_string() }),
        };
        if rendered != case["expected"] {
            wrong.push(format!("{name}, {conversation}:\n{rendered}\n{}", case["expected"]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn expressions_have_the_values_that_jinja_gives_them() {
    let fixture = fixture("expressions.json");
    let chat = Chat { template_args: arguments(&fixture["variables"]), ..Chat::default() };
    let mut wrong = Vec::new();
    for case in fixture["cases"].as_array().expect("cases") {
        let source = case[0].as_str().expect("source");
        let rendered = model(source).map(|model| model.render(&chat));
        let text = rendered.as_ref().ok().and_then(|r| r.as_ref().ok()).map(String::as_str);
        if text != case[1].as_str() {
            wrong.push(format!("{source}\n  here  {rendered:?}\n  Jinja {}", case[1]));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn tojson_writes_what_python_writes() {
    let cases = fixture("tojson.json");
    for case in cases.as_array().expect("cases") {
        let options: Vec<String> = case[1]
            .as_object()
            .expect("arguments")
            .iter()
            .map(|(name, value)| format!("{name}={}", value.to_string().replace("null", "none")))
            .collect();
        let template = format!("{{{{ x | tojson({}) }}}}", options.join(", "));
        let text = case[0].as_str().expect("text").to_owned();
        let chat =
            Chat { template_args: vec![("x".to_owned(), JsonText(text))], ..Chat::default() };
        let rendered = render(&template, &chat).expect("the value is JSON");
        assert_eq!(rendered, case[2].as_str().expect("expected"), "{case}");
    }
}

#[test]
fn a_template_that_does_not_compile_is_named_with_its_line() {
    let error = model("line\n{% if %}").expect_err("the template is wrong").to_string();
    assert!(error.contains("chat_template.jinja") && error.contains("line 2"), "{error}");
}

#[test]
fn a_template_that_fails_says_where() {
    let error = render("line\n{{ nothing.at.all }}", &user("")).expect_err("undefined");
    assert!(matches!(error, RenderError::Failed { line: 2, .. }), "{error:?}");
}

#[test]
fn a_template_cannot_run_for_ever() {
    let endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
    let error = render(endless, &user("")).expect_err("the template does not end");
    assert!(matches!(error, RenderError::OutOfFuel { .. }), "{error:?}");
    let recursive = "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}";
    render(recursive, &user("")).expect_err("the recursion does not end");
    let deep = "{% set ns = namespace(x=[]) %}{% for i in range(300) %}{% set ns.x = [ns.x] %}\
                {% endfor %}{{ ns.x | tojson }}";
    let error = render(deep, &user("")).expect_err("the value is too deep");
    assert!(error.to_string().contains("too deep"), "{error}");
}

#[test]
fn output_and_input_are_bounded() {
    let dir = directory(&[("chat_template.jinja", "{{ messages[0].content * 10 }}")]);
    let limits = Limits { text_bytes: 99, ..Limits::default() };
    let model = TextModel::load_with(dir.path(), limits).expect("the model loads");
    assert_eq!(model.render(&user("123456789")).map(|text| text.len()), Ok(90));
    let too_long = Err(RenderError::TooLong { limit: 99 });
    assert_eq!(model.render(&user("1234567890")), too_long);
    assert_eq!(model.render(&user(&"1".repeat(100))), too_long);
    assert!(model.encode(&"a".repeat(100), true).is_err());
}

#[test]
fn json_of_the_client_is_checked_and_named() {
    let hostile = "[".repeat(1_000_000);
    for text in [
        "{",
        "[1,]",
        "{\"a\" 1}",
        "01",
        "1.",
        "\"\\ud800\"",
        "\"\u{1}\"",
        "nul",
        "1 2",
        "",
        &hostile,
    ] {
        let tools = ["{}", text].map(|text| JsonText(text.to_owned()).into()).to_vec();
        let error = render("{{ tools }}", &Chat { tools, ..user("") }).expect_err(text);
        assert!(matches!(&error, RenderError::Argument { field, .. } if field == "tools[1]"));
    }
    let template_args = vec![("messages".to_owned(), JsonText("[]".to_owned()))];
    let error = render("", &Chat { template_args, ..user("") }).expect_err("the name is taken");
    assert!(error.to_string().contains("\"messages\""), "{error}");
}

#[test]
fn developers_speak_as_the_system_unless_the_template_knows_them() {
    let mut chat = user("x");
    chat.messages[0].role = Role::Developer;
    assert_eq!(render("{{ messages[0].role }}", &chat).as_deref(), Ok("system"));
    let knowing = "{# developer #}{{ messages[0].role }}";
    assert_eq!(render(knowing, &chat).as_deref(), Ok("developer"));
}

#[test]
fn tool_results_become_messages_of_their_own() {
    let result = |id: &str, text: &str| -> Part {
        let (call_id, text) = (Some(id.to_owned()), text.to_owned());
        Content::ToolResult { call_id, text, is_error: false }.into()
    };
    let mut chat = user("before ");
    let parts = &mut chat.messages[0].parts;
    parts.extend([Part::text("still"), result("1", "a"), result("2", "b")]);
    parts.push(Part::text("after"));
    let template =
        "{% for m in messages %}{{ m.role }}:{{ m.tool_call_id }}:{{ m.content }};{% endfor %}";
    assert_eq!(
        render(template, &chat).as_deref(),
        Ok("user::before still;tool:1:a;tool:2:b;user::after;")
    );
}

#[test]
fn templates_are_found_wherever_publishers_put_them() {
    let named = r#"{"chat_template": [{"name": "default", "template": "plain"},
                                      {"name": "tool_use", "template": "with tools"}]}"#;
    let string = r#"{"chat_template": "from the config", "bos_token": {"content": "<b>"}}"#;
    let render = |files: &[(&str, &str)], chat: &Chat| {
        load(directory(files).path()).expect("the model loads").render(chat)
    };
    let with_tools = Chat { tools: vec![JsonText("{}".to_owned()).into()], ..user("") };
    let config = "tokenizer_config.json";
    assert_eq!(render(&[(config, named)], &user("")).as_deref(), Ok("plain"));
    assert_eq!(render(&[(config, named)], &with_tools).as_deref(), Ok("with tools"));
    assert_eq!(render(&[(config, string)], &user("")).as_deref(), Ok("from the config"));
    let both = [(config, string), ("chat_template.jinja", "{{ bos_token }} from the file\n")];
    assert_eq!(render(&both, &user("")).as_deref(), Ok("<b> from the file"));
    let map = [
        ("special_tokens_map.json", r#"{"bos_token": "<m>"}"#),
        ("chat_template.jinja", "{{ bos_token }}"),
    ];
    assert_eq!(render(&map, &user("")).as_deref(), Ok("<m>"));
    assert!(matches!(render(&[], &user("")), Err(RenderError::NoTemplate { .. })));
    let other = r#"{"chat_template": [{"name": "rag", "template": ""}]}"#;
    let error = render(&[(config, other)], &user("")).expect_err("there is no default");
    assert!(error.to_string().contains("rag"), "{error}");
}

#[test]
fn a_model_without_a_checkpoint_renders_too() {
    let calls = json!([{"id": "1", "function": {"name": "ls", "arguments": {"path": "/"}}}]);
    let chat = chat(&json!({
        "messages": [{"role": "user", "content": "hi"},
                     {"role": "assistant", "content": "ok", "tool_calls": calls},
                     {"role": "tool", "content": "a"}],
        "tools": [{"type": "function"}],
    }));
    let rendered = TextModel::synthetic(300).render(&chat).expect("rendering");
    let expected = [
        r#"tool {"type": "function"}"#,
        "user: hi",
        "assistant: ok",
        r#" call {"name": "ls", "arguments": {"path": "/"}}"#,
        "tool: a",
        "assistant:",
    ];
    assert_eq!(rendered, expected.join("\n"));
}

/// Templates that describe schemas do it with recursive macros.
#[test]
fn macros_may_follow_deep_schemas() {
    let template = "{% macro m(x) %}{% if x is mapping %}<{{ m(x.a) }}>{% else %}{{ x }}{% endif %}\
                    {% endmacro %}{{ m(tools[0]) }}";
    let tool = r#"{"a":"#.repeat(60) + "1" + &"}".repeat(60);
    let rendered = render(template, &Chat { tools: vec![JsonText(tool).into()], ..user("") });
    assert_eq!(rendered, Ok("<".repeat(60) + "1" + &">".repeat(60)));
}

#[test]
fn arguments_of_calls_are_mappings_where_they_can_be() {
    let rendered = |arguments: &str| {
        let mut chat = user("");
        chat.messages[0].role = Role::Assistant;
        chat.messages[0].parts = vec![Part::from(Content::ToolCall(ToolCall {
            id: "7".to_owned(),
            name: "f".to_owned(),
            arguments: JsonText(arguments.to_owned()),
        }))];
        render("{{ messages[0].tool_calls | tojson }}", &chat).expect("rendering")
    };
    let expected = |arguments: &str| {
        let function = format!(r#"{{"name": "f", "arguments": {arguments}}}"#);
        format!(r#"[{{"id": "7", "type": "function", "function": {function}}}]"#)
    };
    assert_eq!(rendered(r#"{"b":1.0,"a":[]}"#), expected(r#"{"b": 1.0, "a": []}"#));
    assert_eq!(rendered(" "), expected("{}"));
    assert_eq!(rendered("[1]"), expected(r#""[1]""#));
    assert_eq!(rendered(r#"{"a""#), expected(r#""{\"a\"""#));
}
