//! Bodies to the internal request, and bad bodies to the exact complaint.

use super::request::parse;
use crate::api::chat;
use crate::api::common::Call;
use crate::api::responses;
use crate::api::tests::{chat_of, merged, mint, refusal, spelled};
use crate::config::Limits;
use crate::error::Invalid;
use crate::seeded_tests::{Draws, rounds};
use baton_proto::ir::{CacheTtl, Chat, Content, Edit, Message, Role, ToolChoice, ToolSet, Trigger};
use baton_text::TextModel;
use serde_json::{Value, json};
use std::path::Path;

fn read(body: &Value) -> Result<Call, Invalid> {
    parse(body, &mint(), &Limits::default())
}

/// A message with these fields besides the required ones.
fn with(fields: &Value) -> Value {
    let user = json!([{"role": "user", "content": "hi"}]);
    merged(json!({"model": "tiny", "max_tokens": 9, "messages": user}), fields)
}

fn chat(fields: &Value) -> Chat {
    chat_of(read(&with(fields)).expect("a call"))
}

/// Roles, words and directives, one message a line.
fn told(messages: &[Message]) -> String {
    let line = |message: &Message| {
        let marks = message.parts.iter().map(|part| match part.cache {
            None => "",
            Some(CacheTtl::Minutes5) => " 5m",
            Some(CacheTtl::Hour1) => " 1h",
        });
        let marks: String = marks.collect();
        format!("{}: {}{marks}", message.role.as_str(), spelled(&message.parts))
    };
    messages.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_conversation_stays_as_it_was_told() {
    let hour = json!({"type": "ephemeral", "ttl": "1h"});
    let minutes = json!({"type": "ephemeral"});
    let chat = chat(&json!({
        "system": [
            {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.197.476; cch=1;"},
            {"type": "text", "text": "You are kind.", "cache_control": hour},
        ],
        "messages": [
            {"role": "user", "content": [
                {"type": "text", "text": "remember"},
                {"type": "text", "text": "what is here?", "cache_control": minutes},
            ]},
            {"role": "system", "content": "Agents: none."},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "redacted_thinking", "data": "x"},
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "toolu_1", "name": "ls", "input": {"z": 1, "a": [2.50]}},
                {"type": "tool_use", "id": "toolu_2", "name": "cat", "input": {}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": [
                    {"type": "text", "text": "a"}, {"type": "text", "text": "b"},
                ]},
                {"type": "text", "text": "quick"},
                {"type": "tool_result", "tool_use_id": "toolu_2", "is_error": true,
                 "cache_control": minutes},
            ]},
        ],
    }));
    let expected = "\
system: text `You are kind.` 1h
user: text `remember`, text `what is here?` 5m
system: text `Agents: none.`
assistant: reasoning `hm`, text `I look.`, call toolu_1 ls({\"z\":1,\"a\":[2.5]}), call toolu_2 cat({})
tool: result of toolu_1 `ab`
user: text `quick`
tool: result of toolu_2 `` 5m";
    assert_eq!(told(&chat.messages), expected);
    let failed = |part: &Content| matches!(part, Content::ToolResult { is_error: true, .. });
    assert!(failed(&chat.messages[6].parts[0].content));
    assert!(chat.add_generation_prompt);
}

#[test]
fn a_billing_line_is_nowhere_in_the_prompt() {
    let line = "x-anthropic-billing-header: cc_version=2.1.197.e9c;";
    for system in [
        json!(line),
        json!(format!("{line}\n")),
        json!([{"type": "text", "text": line}]),
        Value::Null,
    ] {
        assert_eq!(told(&chat(&json!({"system": system})).messages), "user: text `hi`");
    }
    let system = json!(format!("{line}\nBe kind."));
    let expected = "system: text `Be kind.`\nuser: text `hi`";
    assert_eq!(told(&chat(&json!({"system": system})).messages), expected);
}

#[test]
fn tools_take_the_form_that_templates_know() {
    let schema = json!({"type": "object", "properties": {"z": {}, "a": {}}});
    let hour = json!({"type": "ephemeral", "ttl": "1h"});
    let call = read(&with(&json!({"tools": [
        {"name": "ls", "description": "lists", "input_schema": schema},
        {"type": "custom", "name": "cat", "input_schema": {}},
        {"type": "web_search_20250305", "name": "web_search", "cache_control": hour},
    ], "tool_choice": {"type": "none", "disable_parallel_tool_use": true}, "betas": ["x"]})));
    let call = call.expect("a call");
    assert_eq!(
        call.delivery.warning.as_deref(),
        Some("ignored: betas, tools[2](web_search_20250305)")
    );
    let chat = chat_of(call);
    let tools: Vec<_> = chat.tools.iter().map(|tool| tool.definition.0.as_str()).collect();
    let ls = r#"{"type":"function","function":{"name":"ls","description":"lists","parameters":{"type":"object","properties":{"z":{},"a":{}}}}}"#;
    let cat = r#"{"type":"function","function":{"name":"cat","parameters":{}}}"#;
    assert_eq!(tools, [ls, cat]);
    assert_eq!((chat.tools[0].cache, chat.tools[1].cache), (None, Some(CacheTtl::Hour1)));
    assert_eq!((chat.tool_choice, chat.serial_tool_calls), (ToolChoice::None, true));
}

#[test]
fn every_field_arrives() {
    let user = json!({"device_id": "d", "session_id": "s1"}).to_string();
    let call = read(&with(&json!({
        "temperature": 0.5, "top_p": 0.25, "top_k": 40, "stop_sequences": ["x", "yz"],
        "stream": true, "metadata": {"user_id": user}, "nvext": {"agent_hints": {"priority": 3}},
        "output_config": {"effort": "high"}, "service_tier": "auto",
    })));
    let Call { request, delivery } = call.expect("a call");
    assert_eq!((request.sampling.temperature, request.sampling.top_p), (0.5, 0.25));
    assert_eq!((request.sampling.top_k, request.stop.max_tokens), (40, 9));
    assert_eq!(request.stop.strings, ["x", "yz"]);
    assert_eq!((request.hints.session.as_deref(), request.hints.priority), (Some("s1"), 3));
    assert!(delivery.stream && delivery.applied.is_some() && delivery.warning.is_none());
    let older = "user_1_account_2_session_s2";
    for (user, session) in [(older, Some("s2")), ("somebody", None), ("", None)] {
        let call = read(&with(&json!({"metadata": {"user_id": user}}))).expect("a call");
        assert_eq!(call.request.hints.session.as_deref(), session);
    }
}

#[test]
fn who_thinks_says_so() {
    let thinking =
        |thinking: Value| chat(&json!({"thinking": thinking, "max_tokens": 2000})).thinking;
    assert_eq!(thinking(Value::Null), Some(false));
    assert_eq!(thinking(json!({"type": "disabled"})), Some(false));
    assert_eq!(thinking(json!({"type": "adaptive"})), Some(true));
    assert_eq!(thinking(json!({"type": "enabled", "budget_tokens": 1024})), Some(true));
}

#[test]
fn edits_are_read_with_the_interfaces_defaults() {
    let edits = |edits: Value| chat(&json!({"context_management": {"edits": edits}})).edits;
    let thinking = |keep: Value| json!([{"type": "clear_thinking_20251015", "keep": keep}]);
    assert_eq!(edits(thinking(json!("all"))), []);
    assert_eq!(edits(thinking(Value::Null)), [Edit::ClearThinking { keep: 1 }]);
    let kept = json!({"type": "thinking_turns", "value": 4});
    assert_eq!(edits(thinking(kept)), [Edit::ClearThinking { keep: 4 }]);
    let uses = |trigger, keep, clear_at_least, exclude: &[&str], inputs| {
        let exclude = exclude.iter().map(|name| (*name).to_owned()).collect();
        Edit::ClearToolUses { trigger, keep, clear_at_least, exclude, inputs }
    };
    let read = edits(json!([{"type": "clear_tool_uses_20250919"}, {"type": "compact_2099"}]));
    assert_eq!(read, [uses(Trigger::PromptTokens(100_000), 3, 0, &[], ToolSet::None)]);
    let read = edits(json!([{
        "type": "clear_tool_uses_20250919", "trigger": {"type": "tool_uses", "value": 7},
        "keep": {"type": "tool_uses", "value": 2}, "exclude_tools": ["ls"],
        "clear_at_least": {"type": "input_tokens", "value": 50}, "clear_tool_inputs": ["cat"],
    }]));
    let named = ToolSet::Named(vec!["cat".to_owned()]);
    assert_eq!(read, [uses(Trigger::ToolUses(7), 2, 50, &["ls"], named)]);
}

#[test]
fn a_directive_of_the_request_marks_its_last_block() {
    let minutes = json!({"type": "ephemeral"});
    let chat = chat(&json!({"cache_control": minutes}));
    assert_eq!(told(&chat.messages), "user: text `hi` 5m");
    // Said twice, it counts once: four others have room.
    let block = |text: &str| json!({"type": "text", "text": text, "cache_control": minutes});
    let four: Vec<_> = ["a", "b", "c", "d"].into_iter().map(block).collect();
    let messages = json!([{"role": "user", "content": four}]);
    read(&with(&json!({"messages": messages, "cache_control": minutes}))).expect("a call");
}

#[test]
fn a_wish_in_a_vendors_words_marks_the_last_block_in_every_dialect() {
    let marked = |ttl: &str| json!({"type": "ephemeral", "ttl": ttl});
    let wish = json!({"cache_control": marked("2h")});
    let last = |chat: &Chat| chat.messages.last().and_then(|last| last.parts.last()?.cache);
    let mut one = json!({"model": "tiny", "messages": [{"role": "user", "content": "hi"}]});
    one["nvext"] = wish.clone();
    let (mint, limits) = (mint(), Limits::default());
    let asked = chat_of(chat::parse(&one, &mint, &limits).expect("a chat"));
    assert_eq!(last(&asked), Some(CacheTtl::Hour1));
    one["input"] = json!("hi");
    let asked = chat_of(responses::parse(&one, &mint, &limits).expect("a response"));
    assert_eq!(last(&asked), Some(CacheTtl::Hour1));
    assert_eq!(last(&chat(&json!({"nvext": wish}))), Some(CacheTtl::Hour1));
    // It gives way to what the interface itself has been told.
    let block = json!({"type": "text", "text": "x", "cache_control": marked("5m")});
    let own = json!([{"role": "user", "content": [block, {"type": "text", "text": "y"}]}]);
    for (fields, expected) in [
        (json!({"nvext": wish, "cache_control": marked("5m")}), Some(CacheTtl::Minutes5)),
        (json!({"nvext": wish, "messages": own}), None),
    ] {
        assert_eq!(last(&chat(&fields)), expected, "{fields}");
    }
}

#[test]
fn bad_messages_are_refused_with_the_field_named() {
    let said = |block: Value| json!({"messages": [{"role": "user", "content": [block]}]});
    let answered = |block: Value| {
        json!({"messages": [{"role": "assistant", "content": [block]},
                            {"role": "user", "content": "x"}]})
    };
    let marked = |ttls: &[&str]| {
        let block = |ttl: &&str| {
            json!({"type": "text", "text": "x",
            "cache_control": {"type": "ephemeral", "ttl": ttl}})
        };
        json!({"system": ttls.iter().map(block).collect::<Vec<_>>()})
    };
    let result = |content: Value| {
        said(json!({"type": "tool_result", "tool_use_id": "1", "content": content}))
    };
    let cases = [
        json!({"model": null}),
        json!({"max_tokens": null}),
        json!({"max_tokens": 0}),
        json!({"max_tokens": 2_147_483_648_u64}),
        json!({"messages": null}),
        json!({"messages": []}),
        json!({"messages": "hi"}),
        json!({"messages": [{"role": "user"}]}),
        json!({"messages": [{"role": "robot", "content": "x"}]}),
        json!({"messages": [{"role": "user", "content": 5}]}),
        json!({"messages": [{"role": "user", "content": ["x"]}]}),
        json!({"messages": [{"role": "assistant", "content": "I begin"}]}),
        said(json!({"type": "text"})),
        said(json!({"type": "document", "source": {}})),
        said(json!({"type": "image"})),
        said(json!({"type": "tool_use", "id": "1", "name": "ls", "input": {}})),
        said(json!({"type": "tool_result"})),
        result(json!([{"type": "image", "source": {}}])),
        result(json!(5)),
        answered(json!({"type": "tool_use", "id": "1", "name": "ls", "input": "{}"})),
        answered(json!({"type": "tool_use", "name": "ls", "input": {}})),
        answered(json!({"type": "server_tool_use"})),
        json!({"system": 5}),
        json!({"system": [{"type": "image"}]}),
        json!({"tools": [{"name": "ls"}]}),
        json!({"tools": [{"input_schema": {}}]}),
        json!({"tools": [{"name": "ls", "input_schema": []}]}),
        json!({"tool_choice": "auto"}),
        json!({"tool_choice": {"type": "any"}}),
        json!({"tool_choice": {"type": "tool", "name": "ls"}}),
        json!({"tool_choice": {"type": "some"}}),
        json!({"thinking": {"type": "enabled"}}),
        json!({"thinking": {"type": "enabled", "budget_tokens": 1023}}),
        json!({"thinking": {"type": "enabled", "budget_tokens": 1024}}),
        json!({"thinking": {"type": "deep"}}),
        json!({"temperature": 1.1}),
        json!({"stop_sequences": [""]}),
        json!({"stop_sequences": vec!["x"; 17]}),
        json!({"output_config": {"format": {"type": "json_schema"}}}),
        json!({"metadata": {"user_id": 5}}),
        said(json!({"type": "text", "text": "", "cache_control": {"type": "ephemeral"}})),
        said(json!({"type": "text", "text": "x", "cache_control": {"type": "lasting"}})),
        marked(&["2h"]),
        marked(&["5m", "1h"]),
        marked(&["5m"; 5]),
    ];
    let shown: Vec<_> = cases.iter().map(|case| refusal(read(&with(case)))).collect();
    insta::assert_snapshot!(shown.join("\n"));
}

#[test]
fn bad_edits_are_refused_with_the_field_named() {
    let edits = |edits: Value| json!({"context_management": {"edits": edits}});
    let uses = |name: &str, value: Value| {
        edits(json!([{"type": "clear_tool_uses_20250919", (name): value}]))
    };
    let cases = [
        edits(json!([{"type": "clear_thinking_20251015", "keep": 1}])),
        edits(json!([5])),
        edits(json!(vec![json!({"type": "x"}); 9])),
        uses("trigger", json!({"type": "thinking_turns", "value": 1})),
        uses("keep", json!({"type": "tool_uses"})),
        uses("keep", json!({"type": "tool_uses", "value": 4_294_967_296_u64})),
        uses("exclude_tools", json!([5])),
        uses("clear_tool_inputs", json!(5)),
    ];
    let shown: Vec<_> = cases.iter().map(|case| refusal(read(&with(case)))).collect();
    insta::assert_snapshot!(shown.join("\n"));
}

/// A conversation that both dialects can tell, told by each.
pub(in crate::api) fn both(draws: &mut Draws) -> (Value, Value) {
    const WORDS: [&str; 6] =
        ["", "hi", " a b\n", "gr\u{fc}\u{df} \u{1f600}", "{\"x\":1}", "</think>"];
    let word = |draws: &mut Draws| WORDS[draws.place(WORDS.len())].to_owned();
    let (mut one, mut other): (Vec<Value>, Vec<Value>) = (Vec::new(), Vec::new());
    let mut calls = 0;
    for _ in 0..=draws.below(5) {
        if draws.below(4) == 0 {
            // A message of the system without words is none in one dialect.
            let text = format!("s{}", word(draws));
            one.push(json!({"role": "system", "content": text}));
            other.push(json!({"role": "system", "content": [{"type": "text", "text": text}]}));
        }
        let texts: Vec<_> = (0..=draws.below(2)).map(|_| word(draws)).collect();
        let blocks: Vec<_> =
            texts.iter().map(|text| json!({"type": "text", "text": text})).collect();
        one.push(json!({"role": "user", "content": blocks}));
        other.push(json!({"role": "user", "content": blocks}));
        let (thought, text) = (format!("t{}", word(draws)), word(draws));
        let (mut said, mut used, mut results) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..draws.below(3) {
            let (id, input) = (format!("c{calls}"), json!({"z": word(draws), "a": [1.5, null]}));
            calls += 1;
            let function = json!({"name": "ls", "arguments": input.to_string()});
            said.push(json!({"id": id, "type": "function", "function": function}));
            used.push(json!({"type": "tool_use", "id": id, "name": "ls", "input": input}));
            results.push((id, word(draws)));
        }
        let mut blocks = vec![json!({"type": "thinking", "thinking": thought, "signature": "x"})];
        blocks.push(json!({"type": "text", "text": text}));
        blocks.extend(used);
        one.push(json!({"role": "assistant", "content": text, "reasoning_content": thought,
                        "tool_calls": said}));
        other.push(json!({"role": "assistant", "content": blocks}));
        if results.is_empty() {
            continue;
        }
        let block = |(id, text): &(String, String)| json!({"type": "tool_result", "tool_use_id": id, "content": text});
        other.push(
            json!({"role": "user", "content": results.iter().map(block).collect::<Vec<_>>()}),
        );
        for (id, text) in results {
            one.push(json!({"role": "tool", "tool_call_id": id, "content": text}));
        }
    }
    one.push(json!({"role": "user", "content": "go on"}));
    other.push(json!({"role": "user", "content": "go on"}));
    let schema = json!({"type": "object", "properties": {"z": {"type": "string"}, "a": {}}});
    let tools = draws.below(2) == 0;
    let function = json!({"name": "ls", "description": "lists", "parameters": schema});
    let named = json!({"name": "ls", "description": "lists", "input_schema": schema});
    (
        json!({"model": "tiny", "messages": one, "tools": if tools {
            json!([{"type": "function", "function": function}])
        } else { Value::Null }}),
        json!({"model": "tiny", "max_tokens": 9, "messages": other,
               "tools": if tools { json!([named]) } else { Value::Null }}),
    )
}

#[test]
fn one_conversation_is_the_same_request_in_both_dialects() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = |dir: &str| TextModel::load(&models.join(dir)).expect("a model");
    let texts = [text("models/demo"), text("tests/models/tiny-llama")];
    let mut draws = Draws::announced();
    for _ in 0..rounds(200) {
        let (one, other) = both(&mut draws);
        let one = chat_of(chat::parse(&one, &mint(), &Limits::default()).expect("a chat"));
        let other = chat_of(read(&other).expect("a message"));
        assert_eq!(told(&one.messages), told(&other.messages));
        assert_eq!((&one.messages, &one.tools), (&other.messages, &other.tools));
        for text in &texts {
            assert_eq!(text.render(&one), text.render(&other));
        }
    }
}

#[test]
fn a_message_in_the_middle_has_the_role_it_was_given() {
    let chat = chat(&json!({"messages": [
        {"role": "user", "content": "a"},
        {"role": "system", "content": [{"type": "text", "text": "b"}]},
        {"role": "user", "content": "c"},
    ]}));
    let roles: Vec<_> = chat.messages.iter().map(|message| message.role).collect();
    assert_eq!(roles, [Role::User, Role::System, Role::User]);
}
