//! Bodies to the internal request, and bad bodies to the exact complaint.

use super::request::parse;
use crate::api::chat;
use crate::api::common::Call;
use crate::api::messages::both;
use crate::api::tests::{chat_of, merged, mint, refusal, spelled};
use crate::config::Limits;
use crate::error::Invalid;
use crate::seeded_tests::{Draws, rounds};
use baton_proto::ir::{Message, ToolChoice};
use serde_json::{Value, json};

fn read(body: &Value) -> Result<Call, Invalid> {
    parse(body, &mint(), &Limits::default())
}

/// A response with these fields besides the required ones.
fn with(fields: &Value) -> Value {
    merged(json!({"model": "tiny", "input": "hi"}), fields)
}

fn told(messages: &[Message]) -> String {
    let line =
        |message: &Message| format!("{}: {}", message.role.as_str(), spelled(&message.parts));
    messages.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn items_of_one_answer_become_one_message_again() {
    let text = |kind: &str, text: &str| json!([{"type": kind, "text": text}]);
    let call = json!({"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "ls",
        "namespace": "fs", "arguments": "{\"z\":1,\"a\":[2.50]}", "status": "completed"});
    let chat = chat_of(read(&with(&json!({
        "instructions": "Be kind.",
        "input": [
            {"type": "message", "role": "developer", "content": text("input_text", "d1")},
            {"role": "developer", "content": "d2"},
            {"role": "user", "content": text("input_text", "look")},
            {"type": "reasoning", "id": "rs_1", "content": null, "encrypted_content": null,
             "summary": text("summary_text", "hm")},
            {"type": "message", "role": "assistant", "id": "msg_1", "content": text("output_text", "On it.")},
            call,
            {"type": "custom_tool_call", "call_id": "c2", "name": "patch", "input": "*** \"x\"\n"},
            {"type": "web_search_call", "id": "ws_1", "status": "completed"},
            {"type": "function_call_output", "call_id": "c1", "output": "a\nb"},
            {"type": "custom_tool_call_output", "call_id": "c2", "output": text("input_text", "done")},
            {"type": "reasoning", "id": "rs_2", "summary": [], "content": text("reasoning_text", "so")},
            {"role": "assistant", "content": "Two files."},
            {"role": "user", "content": "thanks"},
        ],
    })))
    .expect("a response"));
    insta::assert_snapshot!(told(&chat.messages));
}

#[test]
fn tools_are_functions_wherever_they_stand_and_hosted_ones_are_named() {
    let function = json!({"type": "function", "name": "ls", "description": "lists", "strict": false,
        "parameters": {"type": "object", "properties": {"z": {}, "a": {}}}});
    let call = read(&with(&json!({
        "tools": [
            function,
            {"type": "namespace", "name": "agents", "description": "x", "tools": [
                {"type": "function", "name": "ls", "parameters": {}}, {"type": "custom", "name": "say"},
            ]},
            {"type": "custom", "name": "patch", "description": "patches", "format": {"type": "grammar"}},
            {"type": "web_search", "external_web_access": false},
        ],
        "input": [
            {"type": "additional_tools", "role": "developer", "tools": [{"type": "function", "name": "more"}]},
            {"role": "user", "content": "hi"},
        ],
        "parallel_tool_calls": false,
    })))
    .expect("a response");
    assert_eq!(call.delivery.warning.as_deref(), Some("ignored: tools[3](web_search)"));
    let echo = call.delivery.echo.clone().expect("an echo");
    let name = echo.names.of("agents__say");
    assert_eq!(
        (name.namespace.as_deref(), &*name.name, name.is_custom),
        (Some("agents"), "say", true)
    );
    assert_eq!(echo.names.of("made up").name, "made up");
    let chat = chat_of(call);
    assert!(chat.serial_tool_calls && chat.tool_choice == ToolChoice::Auto);
    let definitions: Vec<_> = chat.tools.iter().map(|tool| tool.definition.0.as_str()).collect();
    insta::assert_snapshot!(definitions.join("\n"));
}

#[test]
fn what_a_model_wrote_that_is_no_object_goes_back_as_it_is() {
    for arguments in ["{\"a\": ", "[1]", "{\"a\": 1e400}"] {
        let call =
            json!({"type": "function_call", "call_id": "c", "name": "f", "arguments": arguments});
        let chat = chat_of(read(&with(&json!({"input": [call]}))).expect("a response"));
        assert_eq!(told(&chat.messages), format!("assistant: call c f({arguments})"));
    }
}

#[test]
fn effort_is_thinking_and_a_variable_of_the_template() {
    let chat = |effort: &str| {
        chat_of(read(&with(&json!({"reasoning": {"effort": effort}}))).expect("one"))
    };
    assert_eq!((chat("none").thinking, chat("low").thinking), (Some(false), Some(true)));
    let args = chat("high").template_args;
    assert_eq!((args[0].0.as_str(), args[0].1.0.as_str()), ("reasoning_effort", "\"high\""));
    assert_eq!(chat_of(read(&with(&json!({}))).expect("one")).thinking, None);
}

#[test]
fn bad_responses_are_refused_with_the_field_named() {
    let item = |item: Value| json!({"input": [item]});
    let said = |part: Value| item(json!({"role": "user", "content": [part]}));
    let call = |arguments: Value| {
        item(json!({"type": "function_call", "call_id": "1", "name": "ls", "arguments": arguments}))
    };
    let function = json!({"type": "function", "name": "ls"});
    let cases = [
        json!({"model": null}),
        json!({"input": null}),
        json!({"input": []}),
        json!({"input": 5}),
        json!({"instructions": 5}),
        item(json!({"type": "web_search_call"})),
        item(json!("x")),
        item(json!({"content": "x"})),
        item(json!({"role": "robot", "content": "x"})),
        item(json!({"role": "user"})),
        item(json!({"role": "user", "content": 5})),
        item(json!({"type": "item_reference", "id": "msg_1"})),
        item(json!({"type": "dream"})),
        item(json!({"type": "function_call", "call_id": "1", "name": "ls"})),
        call(json!({})),
        item(json!({"type": "function_call_output", "output": "x"})),
        item(json!({"type": "function_call_output", "call_id": "1",
                    "output": [{"type": "input_image", "image_url": "data:"}]})),
        said(json!({"type": "input_text"})),
        said(json!({"type": "input_file", "file_id": "1"})),
        json!({"tools": [{"name": "ls"}]}),
        json!({"tools": [{"type": "function"}]}),
        json!({"tools": [{"type": "function", "name": "ls", "parameters": []}]}),
        json!({"tools": [function, function]}),
        json!({"tools": vec![json!({"type": "namespace", "name": "n", "tools": []}); 3]}),
        json!({"tool_choice": "required"}),
        json!({"tool_choice": {"type": "function", "name": "ls"}}),
        json!({"tool_choice": {"type": "allowed_tools"}}),
        json!({"store": true}),
        json!({"background": true}),
        json!({"previous_response_id": "resp_1"}),
        json!({"conversation": "conv_1"}),
        json!({"prompt": {"id": "p"}}),
        json!({"text": {"format": {"type": "json_schema"}}}),
        json!({"reasoning": {"effort": "much"}}),
        json!({"reasoning": {"effort": 5}}),
        json!({"max_output_tokens": 0}),
        json!({"max_output_tokens": 2_147_483_648_u64}),
        json!({"temperature": 2.1}),
        json!({"top_logprobs": 21}),
        json!({"include": "message.output_text.logprobs"}),
        json!({"include": [5]}),
    ];
    let shown = cases.iter().map(|case| match read(&with(case)) {
        Ok(_) if case.pointer("/tools/0/type") == Some(&json!("namespace")) => "taken".to_owned(),
        result => refusal(result),
    });
    insta::assert_snapshot!(shown.collect::<Vec<_>>().join("\n"));
}

/// A chat in the words of this interface.
fn reworded(chat: &Value) -> Value {
    let text = |kind: &str, text: &Value| json!([{"type": kind, "text": text}]);
    let mut input = Vec::new();
    for message in chat["messages"].as_array().expect("messages") {
        let (role, content) = (message["role"].as_str().expect("a role"), &message["content"]);
        match role {
            "assistant" => {
                let thought = text("reasoning_text", &message["reasoning_content"]);
                input.push(json!({"type": "reasoning", "summary": [], "content": thought}));
                input.push(json!({"role": role, "content": text("output_text", content)}));
                for call in message["tool_calls"].as_array().expect("calls") {
                    let function = &call["function"];
                    input.push(json!({"type": "function_call", "call_id": call["id"],
                        "name": function["name"], "arguments": function["arguments"]}));
                }
            }
            "tool" => input.push(json!({"type": "function_call_output",
                "call_id": message["tool_call_id"], "output": content})),
            _ => {
                let content = match content {
                    Value::Array(parts) => parts
                        .iter()
                        .map(|part| text("input_text", &part["text"])[0].clone())
                        .collect(),
                    other => other.clone(),
                };
                input.push(json!({"role": role, "content": content}));
            }
        }
    }
    let mut tools = chat["tools"].clone();
    for tool in tools.as_array_mut().into_iter().flatten() {
        *tool = tool["function"].clone();
        tool["type"] = json!("function");
    }
    json!({"model": chat["model"], "input": input, "tools": tools})
}

#[test]
fn one_conversation_is_the_same_request_as_a_chat() {
    let mut draws = Draws::announced();
    for _ in 0..rounds(200) {
        let (chat, _) = both(&mut draws);
        let other = chat_of(read(&reworded(&chat)).expect("a response"));
        let chat = chat_of(chat::parse(&chat, &mint(), &Limits::default()).expect("a chat"));
        assert_eq!(told(&chat.messages), told(&other.messages));
        assert_eq!((&chat.messages, &chat.tools), (&other.messages, &other.tools));
    }
}
