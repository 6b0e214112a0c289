//! Bodies to the internal request, and bad bodies to the exact complaint.

use super::common::{Call, Delivery, Mint};
use super::{chat, completions};
use crate::config::{Limits, Switch};
use crate::error::Invalid;
use crate::intent::{Bounds, Outcome, Said};
use baton_proto::ids::{RequestId, TenantId};
use baton_proto::ir::{Chat, Content, Hints, JsonText, Part, Prompt, Role, Sampling, Stop};
use baton_text::SamplingDefaults;
use serde_json::{Value, json};
use std::time::Duration;

fn bounds() -> Bounds {
    Bounds {
        priority_max: 100,
        strict_priority_max: 7,
        request: Duration::from_mins(1),
        hints: Switch::On,
        speculation: Switch::On,
        tenant: None,
    }
}

pub(super) fn mint() -> Mint {
    Mint {
        id: RequestId(7),
        tenant: TenantId::anonymous(),
        scope: TenantId::anonymous(),
        deadline: Duration::from_mins(1),
        seed: 42,
        sampling: SamplingDefaults::default(),
        said: Said::default(),
        bounds: bounds(),
    }
}

fn parse_text(body: &Value) -> Result<Call, Invalid> {
    completions::parse(body, &mint(), &Limits::default())
}

fn parse_chat(body: &Value) -> Result<Call, Invalid> {
    chat::parse(body, &mint(), &Limits::default())
}

/// A completion with these fields besides the required ones.
fn text_with(fields: &Value) -> Value {
    merged(json!({"model": "tiny", "prompt": "a"}), fields)
}

/// A chat with these fields besides the required ones.
fn chat_with(fields: &Value) -> Value {
    merged(json!({"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}), fields)
}

/// A body with these fields set.
pub(super) fn merged(mut body: Value, fields: &Value) -> Value {
    for (name, value) in fields.as_object().expect("fields") {
        body[name] = value.clone();
    }
    body
}

/// The conversation that a call is about.
pub(super) fn chat_of(call: Call) -> Chat {
    match call.request.prompt {
        Prompt::Chat(chat) => chat,
        other => panic!("not a chat: {other:?}"),
    }
}

/// The only message of a chat, parsed.
fn parts_of(message: &Value) -> Result<Vec<Part>, Invalid> {
    let call = parse_chat(&json!({"model": "tiny", "messages": [message]}))?;
    let Prompt::Chat(mut chat) = call.request.prompt else { panic!("not a chat") };
    Ok(chat.messages.remove(0).parts)
}

/// What the parts say: their own debug output keeps clients' text to itself.
pub(super) fn spelled(parts: &[Part]) -> String {
    let spell = |part: &Part| match &part.content {
        Content::Text(text) => format!("text `{text}`"),
        Content::Reasoning(text) => format!("reasoning `{text}`"),
        Content::ToolCall(call) => format!("call {} {}({})", call.id, call.name, call.arguments.0),
        Content::Image(image) => format!("image `{}`", image.source),
        Content::ToolResult { call_id, text, .. } => {
            format!("result of {} `{text}`", call_id.as_deref().unwrap_or("none"))
        }
    };
    parts.iter().map(spell).collect::<Vec<_>>().join(", ")
}

#[test]
fn the_checkpoint_says_how_to_draw_where_the_body_does_not() {
    let sampling = SamplingDefaults {
        temperature: 0.6,
        top_k: 20,
        top_p: 0.95,
        ..SamplingDefaults::default()
    };
    let mint = Mint { sampling, ..mint() };
    let drawn = |fields: Value| {
        let call = chat::parse(&chat_with(&fields), &mint, &Limits::default()).expect("a call");
        let Sampling { temperature, top_k, top_p, .. } = call.request.sampling;
        (temperature, top_k, top_p)
    };
    assert_eq!(drawn(json!({})), (0.6, 20, 0.95));
    assert_eq!(drawn(json!({"temperature": null})), (0.6, 20, 0.95));
    assert_eq!(drawn(json!({"temperature": 1, "top_k": -1})), (1.0, 0, 0.95));
    assert_eq!(drawn(json!({"top_k": 0, "top_p": 1})), (0.6, 0, 1.0));
}

#[test]
fn defaults_are_the_interfaces_own() {
    let call = parse_text(&text_with(&json!({}))).expect("a call");
    let neutral = Sampling { temperature: 1.0, seed: 42, ..Sampling::greedy() };
    assert_eq!(call.request.sampling, neutral);
    let stop =
        Stop { max_tokens: 16, min_tokens: 0, strings: vec![], ids: vec![], ignore_eos: false };
    assert_eq!(call.request.stop, stop);
    assert_eq!((call.request.choices, call.request.logprobs), (1, None));
    assert_eq!((call.delivery, call.request.hints), (Delivery::default(), Hints::default()));

    let call = parse_chat(&chat_with(&json!({}))).expect("a call");
    assert_eq!(call.request.stop.max_tokens, u32::MAX, "a chat is bounded by the context alone");
}

#[test]
fn every_field_arrives() {
    let body = text_with(&json!({
        "temperature": 0.5, "top_p": 0.25, "top_k": 40, "min_p": 0.125, "seed": -1, "n": 3,
        "presence_penalty": 1, "frequency_penalty": -0.5, "repetition_penalty": 1.5,
        "logit_bias": {"17": -100, "3": 2.5}, "stop": ["x", "yz"], "stop_token_ids": [5, 6],
        "max_tokens": 9, "min_tokens": 2, "ignore_eos": true, "logprobs": 4, "stream": true,
        "stream_options": {"include_usage": true}, "prompt_cache_key": "s1",
        "nvext": {
            "extra_fields": ["timing", "worker_id"],
            "agent_hints": {"priority": -3, "osl": 200, "speculative_prefill": true},
        },
        "user": "u", "metadata": {"a": 1}, "best_of": 3, "echo": false, "suffix": null,
    }));
    let call = parse_text(&body).expect("a call");
    let sampling = Sampling {
        temperature: 0.5,
        top_k: 40,
        top_p: 0.25,
        min_p: 0.125,
        repetition_penalty: 1.5,
        presence_penalty: 1.0,
        frequency_penalty: -0.5,
        logit_bias: vec![(17, -100.0), (3, 2.5)],
        seed: u64::MAX,
    };
    assert_eq!(call.request.sampling, sampling);
    let strings = vec!["x".to_owned(), "yz".to_owned()];
    let stop = Stop { max_tokens: 9, min_tokens: 2, strings, ids: vec![5, 6], ignore_eos: true };
    assert_eq!(call.request.stop, stop);
    assert_eq!((call.request.choices, call.request.logprobs), (3, Some(4)));
    let Delivery {
        stream,
        include_usage,
        timing,
        worker_id,
        applied,
        warning,
        call_prefix,
        edits_told,
        echo,
    } = call.delivery;
    assert_eq!((call_prefix, echo), (None, None), "a completion is plain text");
    assert!(!edits_told);
    assert!(stream && include_usage && timing && worker_id && warning.is_none());
    assert_eq!(applied.map(|applied| applied.len()), Some(4), "three hints and the session");
    let session = Some("s1".to_owned());
    let hints = Hints { priority: -3, osl: Some(200), session, ..Hints::default() };
    assert_eq!(call.request.hints, hints);
}

#[test]
fn intent_is_read_and_every_hint_is_answered() {
    let body = text_with(&json!({
        "intent": {
            "version": 1, "priority": 1e30, "strict_priority": 2, "deadline_ms": 0, "osl": null,
            "tool_eta_ms": 5000, "speculative_prefill": true, "mood": "good",
            "retain": {"ttl": "5m", "class": "history"},
            "session": {"id": "s", "parent": "p", "final": true},
        },
        "nvext": {"agent_hints": {"priority": 4, "osl": 9, "latency_sensitivity": 0.5}},
        "prompt_cache_key": "k",
    }));
    let call = parse_text(&body).expect("a call");
    let hints = Hints {
        strict_priority: 2,
        priority: 100,
        osl: Some(9),
        wanted_within: Some(Duration::ZERO),
        speculative_prefill: false,
        session: Some("s".to_owned()),
        parent: Some("p".to_owned()),
        limited: Vec::new(),
    };
    assert_eq!(call.request.hints, hints);
    assert_eq!(call.delivery.warning.as_deref(), Some("ignored unknown fields: intent.mood"));
    let applied = call.delivery.applied.expect("hints are answered");
    let with = |outcome: Outcome| -> Vec<&str> {
        let with = applied.iter().filter(|applied| applied.outcome == outcome);
        with.map(|applied| applied.hint.as_str()).collect()
    };
    assert_eq!(with(Outcome::Clamped), ["intent.priority"]);
    let used = [
        "intent.deadline_ms",
        "intent.session.id",
        "intent.session.parent",
        "intent.strict_priority",
        "nvext.agent_hints.osl",
    ];
    let mut said = with(Outcome::Used);
    said.sort_unstable();
    assert_eq!(said, used);
    assert_eq!(with(Outcome::Ignored).len(), 6, "{applied:?}");
    assert_eq!(with(Outcome::Unknown), ["intent.mood"]);
}

#[test]
fn what_nobody_hinted_is_not_answered() {
    let call = parse_text(&text_with(&json!({"prompt_cache_key": "k"}))).expect("a call");
    assert_eq!(call.request.hints.session.as_deref(), Some("k"));
    assert_eq!(call.delivery, Delivery::default());
}

#[test]
fn null_is_absent() {
    let fields = json!({
        "temperature": null, "stop": null, "n": null, "stream": null, "stream_options": null,
        "logit_bias": null, "logprobs": null, "nvext": null, "seed": null, "max_tokens": null,
    });
    assert!(parse_text(&text_with(&fields)).is_ok());
    assert!(parse_chat(&chat_with(&fields)).is_ok());
}

#[test]
fn a_prompt_is_a_text_or_ids_or_one_of_them_in_an_array() {
    for (prompt, expected) in [
        (json!("ab"), Prompt::Text("ab".to_owned())),
        (json!(["ab"]), Prompt::Text("ab".to_owned())),
        (json!([1, 2]), Prompt::Tokens(vec![1, 2])),
        (json!([[1, 2]]), Prompt::Tokens(vec![1, 2])),
        (json!([7]), Prompt::Tokens(vec![7])),
    ] {
        let call = parse_text(&json!({"model": "tiny", "prompt": prompt})).expect("a call");
        let same = match (&call.request.prompt, &expected) {
            (Prompt::Text(found), Prompt::Text(text)) => found == text,
            (Prompt::Tokens(found), Prompt::Tokens(ids)) => found == ids,
            _ => false,
        };
        assert!(same, "{:?} is not {expected:?}", call.request.prompt);
    }
}

#[test]
fn the_newer_name_of_max_tokens_wins() {
    let body = chat_with(&json!({"max_tokens": 5, "max_completion_tokens": 7}));
    assert_eq!(parse_chat(&body).expect("a call").request.stop.max_tokens, 7);
    let body = chat_with(&json!({"max_tokens": 5}));
    assert_eq!(parse_chat(&body).expect("a call").request.stop.max_tokens, 5);
}

#[test]
fn messages_keep_their_parts_and_order() {
    let call = json!({
        "role": "assistant", "content": null, "reasoning_content": "hm",
        "tool_calls": [{"id": "c1", "type": "function",
                        "function": {"name": "f", "arguments": "{\"b\": 1, \"a\": [2]}"}}],
    });
    let result = json!({"role": "tool", "tool_call_id": "c1",
                        "content": [{"type": "text", "text": "x"}, {"type": "text", "text": "y"}]});
    let shown = |message| spelled(&parts_of(&message).expect("parts"));
    insta::assert_snapshot!(shown(call), @r#"reasoning `hm`, call c1 f({"b":1,"a":[2]})"#);
    insta::assert_snapshot!(shown(result), @"result of c1 `xy`");
    let parts = json!({"role": "user", "content": [{"type": "text", "text": "x"},
                                                   {"type": "text", "text": "y"}]});
    insta::assert_snapshot!(shown(parts), @"text `x`, text `y`");
    let empty = json!({"role": "assistant", "content": "", "tool_calls": [
        {"id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}]});
    insta::assert_snapshot!(shown(empty), @"text ``, call c f({})");

    let roles = json!({"model": "tiny", "messages": [
        {"role": "system", "content": "s"}, {"role": "developer", "content": "d", "name": "app"},
        {"role": "user", "content": "u"}, {"role": "system", "content": "later"},
    ]});
    let Prompt::Chat(chat) = parse_chat(&roles).expect("a call").request.prompt else {
        panic!("not a chat")
    };
    let roles: Vec<_> = chat.messages.iter().map(|message| message.role).collect();
    assert_eq!(roles, [Role::System, Role::Developer, Role::User, Role::System]);
    assert_eq!(chat.messages[1].name.as_deref(), Some("app"));
}

#[test]
fn tools_and_template_arguments_keep_the_clients_key_order() {
    let body = chat_with(&json!({
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"z": 1, "a": 2}}}],
        "tool_choice": "auto", "chat_template_kwargs": {"enable_thinking": false},
    }));
    let Prompt::Chat(chat) = parse_chat(&body).expect("a call").request.prompt else {
        panic!("not a chat")
    };
    let tool = r#"{"type":"function","function":{"name":"f","parameters":{"z":1,"a":2}}}"#;
    assert_eq!(chat.tools, vec![JsonText(tool.to_owned()).into()]);
    let argument = ("enable_thinking".to_owned(), JsonText("false".to_owned()));
    assert_eq!(chat.template_args, vec![argument]);
    assert!(chat.add_generation_prompt);
}

#[test]
fn effort_is_thinking_and_a_variable_of_the_template_that_the_client_may_set_itself() {
    let chat = |fields: Value| match parse_chat(&chat_with(&fields)).expect("a call").request.prompt
    {
        Prompt::Chat(chat) => (chat.thinking, chat.template_args),
        other => panic!("{other:?}"),
    };
    let effort = |word: &str| ("reasoning_effort".to_owned(), JsonText(json!(word).to_string()));
    assert_eq!(chat(json!({"reasoning_effort": "none"})), (Some(false), vec![effort("none")]));
    assert_eq!(chat(json!({"reasoning_effort": "high"})), (Some(true), vec![effort("high")]));
    let own =
        json!({"reasoning_effort": "low", "chat_template_kwargs": {"reasoning_effort": "max"}});
    assert_eq!(chat(own), (Some(true), vec![effort("max")]));
    assert_eq!(chat(json!({})), (None, vec![]));
}

/// Parses, expects a refusal, and shows it on one line.
pub(super) fn refusal(result: Result<Call, Invalid>) -> String {
    match result {
        Ok(call) => panic!("accepted: {call:?}"),
        Err(Invalid { param, code, message }) => {
            format!("{} | {code} | {message}", param.unwrap_or_default())
        }
    }
}

#[test]
fn bad_completions_are_refused_with_the_field_named() {
    let mut bias = serde_json::Map::new();
    bias.extend((0..1025).map(|id| (id.to_string(), json!(1))));
    let cases = [
        json!({"model": null}),
        json!({"model": 5}),
        json!({"prompt": null}),
        json!({"prompt": 5}),
        json!({"prompt": []}),
        json!({"prompt": [[]]}),
        json!({"prompt": ["a", "b"]}),
        json!({"prompt": [[1], [2]]}),
        json!({"prompt": [1, "a"]}),
        json!({"prompt": [1, -2]}),
        json!({"prompt": [1, 4_294_967_296_u64]}),
        json!({"prompt": [1, 2.5]}),
        json!({"temperature": "hot"}),
        json!({"temperature": -0.1}),
        json!({"temperature": 2.1}),
        json!({"top_p": 0}),
        json!({"top_p": 1.5}),
        json!({"top_k": -2}),
        json!({"min_p": 2}),
        json!({"repetition_penalty": 0}),
        json!({"presence_penalty": 3}),
        json!({"frequency_penalty": -3}),
        json!({"n": 0}),
        json!({"n": 1_000_000_000_000_u64}),
        json!({"n": 1.5}),
        json!({"max_tokens": 0}),
        json!({"max_tokens": "many"}),
        json!({"max_tokens": 3, "min_tokens": 4}),
        json!({"seed": 1.5}),
        json!({"stop": 5}),
        json!({"stop": ["a", 5]}),
        json!({"stop": ""}),
        json!({"stop": vec!["x"; 17]}),
        json!({"stop": "x".repeat(1025)}),
        json!({"stop_token_ids": [1, "a"]}),
        json!({"stop_token_ids": vec![1; 129]}),
        json!({"logit_bias": [1]}),
        json!({"logit_bias": {"a": 1}}),
        json!({"logit_bias": {"1": 101}}),
        json!({"logit_bias": bias}),
        json!({"logprobs": 21}),
        json!({"logprobs": true}),
        json!({"stream": "yes"}),
        json!({"stream_options": {"include_usage": true}}),
        json!({"stream": true, "stream_options": {"include_usage": 1}}),
        json!({"echo": true}),
        json!({"suffix": "end"}),
        json!({"best_of": 2}),
        json!({"response_format": {"type": "json_object"}}),
        json!({"guided_regex": "a*"}),
        json!({"nvext": []}),
        json!({"nvext": {"extra_fields": "timing"}}),
        json!({"ignore_eos": 1}),
    ];
    let refusals = cases.iter().map(|fields| refusal(parse_text(&text_with(fields))));
    insta::assert_snapshot!(refusals.collect::<Vec<_>>().join("\n"));
}

#[test]
fn hints_of_the_wrong_type_are_refused_with_the_field_named() {
    let cases = [
        json!({"nvext": {"agent_hints": {"priority": "high"}}}),
        json!({"nvext": {"agent_hints": {"latency_sensitivity": "much"}}}),
        json!({"intent": 1}),
        json!({"intent": {"priority": 0.5}}),
        json!({"intent": {"deadline_ms": "soon"}}),
        json!({"intent": {"speculative_prefill": 1}}),
        json!({"intent": {"tool_eta_ms": []}}),
        json!({"intent": {"retain": {"ttl": {}}}}),
        json!({"intent": {"retain": {"class": 5}}}),
        json!({"intent": {"session": "s"}}),
        json!({"intent": {"session": {"id": 7}}}),
        json!({"intent": {"session": {"final": "yes"}}}),
    ];
    let refusals = cases.iter().map(|fields| refusal(parse_text(&text_with(fields))));
    insta::assert_snapshot!(refusals.collect::<Vec<_>>().join("\n"));
}

#[test]
fn bad_chats_are_refused_with_the_field_named() {
    let user = json!({"role": "user", "content": "hi"});
    let call = |function: Value| json!({"messages": [user, {"role": "assistant", "tool_calls": [{"function": function}]}]});
    let cases = [
        json!({"messages": null}),
        json!({"messages": "hi"}),
        json!({"messages": []}),
        json!({"messages": vec![&user; 16_385]}),
        json!({"messages": ["hi"]}),
        json!({"messages": [{"content": "hi"}]}),
        json!({"messages": [user, {"role": "robot", "content": "hi"}]}),
        json!({"messages": [{"role": "user"}]}),
        json!({"messages": [{"role": "user", "content": null}]}),
        json!({"messages": [{"role": "user", "content": 5}]}),
        json!({"messages": [{"role": "user", "content": ["hi"]}]}),
        json!({"messages": [{"role": "user", "content": [{"type": "text"}]}]}),
        json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}),
        json!({"messages": [{"role": "assistant"}]}),
        json!({"messages": [{"role": "tool", "content": {}}]}),
        call(Value::Null),
        call(json!({"arguments": "{}"})),
        call(json!({"name": "f", "arguments": 5})),
        json!({"tools": {}}),
        json!({"tools": [5]}),
        json!({"tools": [{"type": "function"}]}),
        json!({"tools": [{"type": "function", "function": {}}]}),
        json!({"tool_choice": "required"}),
        json!({"tool_choice": {"type": "function", "function": {"name": "f"}}}),
        json!({"functions": []}),
        json!({"logprobs": 1}),
        json!({"top_logprobs": 3}),
        json!({"logprobs": true, "top_logprobs": 21}),
        json!({"max_completion_tokens": 0}),
        json!({"max_completion_tokens": 3, "min_tokens": 4}),
        json!({"chat_template_kwargs": [1]}),
        json!({"continue_final_message": true}),
    ];
    let refusals = cases.iter().map(|fields| refusal(parse_chat(&chat_with(fields))));
    insta::assert_snapshot!(refusals.collect::<Vec<_>>().join("\n"));
}
