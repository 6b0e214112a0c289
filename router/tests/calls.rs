//! Answers that think and call tools, through the text side of the model in the box: each dialect's
//! words for them, whole and event by event.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use baton_proto::internal::finished::Reason;
use common::client::steady;
use common::stage::{CHAT, MESSAGES, Stage, with};
use common::within;
use serde_json::{Value, json};

/// What the model draws; its template has opened the reasoning.
const THOUGHT: &str = "I look.\n</think>\n\n";
const WORDS: &str = "On it.\n";
const CALL: &str =
    "<tool_call>\n{\"name\": \"ls\", \"arguments\": {\"path\": \"/tmp\", \"n\": 2}}\n</tool_call>";

fn chat(fields: &Value) -> Value {
    let parameters = json!({"type": "object", "properties": {"path": {"type": "string"}}});
    let function = json!({"name": "ls", "description": "lists", "parameters": parameters});
    with(
        json!({
            "model": "tiny", "messages": [{"role": "user", "content": "what is in /tmp?"}],
            "tools": [{"type": "function", "function": function}],
            "chat_template_kwargs": {"enable_thinking": true},
        }),
        fields,
    )
}

fn messages(fields: &Value) -> Value {
    let schema = json!({"type": "object", "properties": {"path": {"type": "string"}}});
    with(
        json!({
            "model": "tiny", "messages": [{"role": "user", "content": "what is in /tmp?"}],
            "tools": [{"name": "ls", "description": "lists", "input_schema": schema}],
            "thinking": {"type": "adaptive"}, "max_tokens": 100,
        }),
        fields,
    )
}

fn whole_answer() -> String {
    [THOUGHT, WORDS, CALL].concat()
}

#[tokio::test]
async fn whole_answers_are_golden() {
    let stage = Stage::open().await;
    let said = stage.whole(CHAT, &chat(&json!({})), &whole_answer(), Reason::Stop).await;
    let also = stage.whole(MESSAGES, &messages(&json!({})), &whole_answer(), Reason::Stop).await;
    insta::assert_snapshot!([said, also].map(|body| steady(&body.to_string())).join("\n"));
}

#[tokio::test]
async fn streams_are_golden() {
    let stage = Stage::open().await;
    let (start, end) = CALL.split_at(CALL.find("/tmp").unwrap());
    let pieces = [THOUGHT, WORDS, start, end];
    let stream = json!({"stream": true});
    let said = stage.streamed(CHAT, &chat(&stream), &pieces).await;
    let also = stage.streamed(MESSAGES, &messages(&stream), &pieces).await;
    insta::assert_snapshot!(format!("{said}\n\n{also}"));
}

#[tokio::test]
async fn a_streams_events_together_are_the_whole_answer() {
    let stage = Stage::open().await;
    let stream = json!({"stream": true});
    let whole = stage.whole(MESSAGES, &messages(&json!({})), &whole_answer(), Reason::Stop).await;
    let events = stage.token_by_token(MESSAGES, &messages(&stream), &whole_answer()).await;
    let mut blocks: Vec<Value> = Vec::new();
    let mut input = String::new();
    for data in events.lines().filter_map(|line| line.strip_prefix("data: ")) {
        let event: Value = serde_json::from_str(data).unwrap();
        let delta = &event["delta"];
        let mut put = |field: &str, text: &str| {
            let block = blocks.last_mut().unwrap();
            block[field] = json!(format!("{}{text}", block[field].as_str().unwrap()));
        };
        match (event["type"].as_str().unwrap(), delta["type"].as_str()) {
            ("content_block_start", _) => blocks.push(event["content_block"].clone()),
            (_, Some("text_delta")) => put("text", delta["text"].as_str().unwrap()),
            (_, Some("thinking_delta")) => put("thinking", delta["thinking"].as_str().unwrap()),
            (_, Some("signature_delta")) => put("signature", delta["signature"].as_str().unwrap()),
            (_, Some("input_json_delta")) => {
                input.push_str(delta["partial_json"].as_str().unwrap());
            }
            _ => {}
        }
    }
    blocks.last_mut().unwrap()["input"] = serde_json::from_str(&input).unwrap();
    let whole: Value = serde_json::from_str(&steady(&whole.to_string())).unwrap();
    assert_eq!(json!(blocks), whole["content"]);
}

#[tokio::test]
async fn what_may_not_be_a_call_is_text() {
    let stage = Stage::open().await;
    let none = chat(&json!({"tool_choice": "none"}));
    let said = stage.whole(CHAT, &none, &whole_answer(), Reason::Stop).await;
    let message = &said["choices"][0]["message"];
    assert_eq!(message["content"], json!([WORDS, CALL].concat()));
    assert_eq!(
        (&message["tool_calls"], &message["reasoning_content"]),
        (&Value::Null, &json!("I look."))
    );
    assert_eq!(said["choices"][0]["finish_reason"], "stop");
    let none = messages(&json!({"tool_choice": {"type": "none"}}));
    let said = stage.whole(MESSAGES, &none, CALL, Reason::Stop).await;
    assert_eq!(said["stop_reason"], "end_turn");
}

#[tokio::test]
async fn one_call_at_most_ends_the_answer() {
    let stage = Stage::open().await;
    let twice = format!("{THOUGHT}{CALL}\n{CALL}");
    // What closes a call says nothing any more.
    let once = format!("{THOUGHT}{}", CALL.trim_end_matches("\n</tool_call>"));
    let once = stage.ids(&once).len();
    let said = stage.whole(CHAT, &chat(&json!({})), &twice, Reason::Stop).await;
    let calls = said["choices"][0]["message"]["tool_calls"].as_array().unwrap();
    assert_eq!(calls.len(), 2);
    assert_ne!(calls[0]["id"], calls[1]["id"]);
    let serial = chat(&json!({"parallel_tool_calls": false}));
    let said = stage.cut(CHAT, &serial, &twice).await;
    let choice = &said["choices"][0];
    assert_eq!(choice["message"]["tool_calls"].as_array().unwrap().len(), 1);
    assert_eq!(choice["finish_reason"], "tool_calls");
    assert_eq!(said["usage"]["completion_tokens"], once);
    let choice = json!({"type": "auto", "disable_parallel_tool_use": true});
    let serial = messages(&json!({"tool_choice": choice}));
    let said = stage.cut(MESSAGES, &serial, &twice).await;
    assert_eq!(said["content"].as_array().unwrap().len(), 2, "{said}");
    assert_eq!(
        (&said["stop_reason"], &said["usage"]["output_tokens"]),
        (&json!("tool_use"), &json!(once))
    );
}

#[tokio::test]
async fn a_call_that_is_cut_off_says_why() {
    let stage = Stage::open().await;
    let cut = &CALL[..CALL.find("mp\"").unwrap()];
    let said =
        stage.whole(CHAT, &chat(&json!({})), &format!("{THOUGHT}{cut}"), Reason::Length).await;
    let choice = &said["choices"][0];
    assert_eq!(choice["finish_reason"], "length");
    assert_eq!(choice["message"]["tool_calls"][0]["function"]["arguments"], "{\"path\": \"/t");
    let said = stage
        .whole(MESSAGES, &messages(&json!({})), &format!("{THOUGHT}{cut}"), Reason::Length)
        .await;
    assert_eq!(said["stop_reason"], "max_tokens");
    assert_eq!(said["content"][1]["input"], json!({"path": "/t"}));
    let line = "baton_answer_warnings_total{kind=\"unfinished\"} 2";
    within(async { while !stage.house.shows(line).await {} }).await;
}

#[tokio::test]
async fn nobody_is_asked_to_run_a_call_that_broke_off() {
    let stage = Stage::open().await;
    for broken in ["{\"path\": \"/srv/me", "{\"path\": \"/tmp\", \"n\": nope}"] {
        let says = format!("{THOUGHT}<tool_call>\n{{\"name\": \"ls\", \"arguments\": {broken}");
        let said = stage.whole(CHAT, &chat(&json!({})), &says, Reason::Stop).await;
        assert_eq!(said["choices"][0]["finish_reason"], "length", "{said}");
        let said = stage.whole(MESSAGES, &messages(&json!({})), &says, Reason::Stop).await;
        assert_eq!(said["stop_reason"], "max_tokens", "{said}");
    }
}

#[tokio::test]
async fn a_stop_string_within_a_marker_ends_the_answer_there() {
    let stage = Stage::open().await;
    for (stop, content) in [("_call>", "On it.\n<tool"), ("<tool_call>", "On it.\n"), ("it", "On ")]
    {
        let body = chat(&json!({"stop": stop}));
        let said = stage.cut(CHAT, &body, &whole_answer()).await;
        let choice = &said["choices"][0];
        assert_eq!(choice["message"]["content"], content, "{stop}");
        assert_eq!(choice["message"]["reasoning_content"], "I look.");
        assert_eq!(choice["finish_reason"], "stop");
    }
}

#[tokio::test]
async fn completions_stay_as_they_came() {
    let stage = Stage::open().await;
    let body = json!({"model": "tiny", "prompt": "a", "max_tokens": 100});
    let said = stage.whole("/v1/completions", &body, &whole_answer(), Reason::Stop).await;
    assert_eq!(said["choices"][0]["text"], json!(whole_answer()));
}
