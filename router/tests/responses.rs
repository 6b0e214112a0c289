//! Answers that think and call tools in the words of `/v1/responses`, whole and event by event.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use baton_proto::internal::finished::Reason;
use common::client::steady;
use common::stage::{RESPONSES, Stage, with};
use serde_json::{Value, json};

/// What the model draws; its template has opened the reasoning.
const THOUGHT: &str = "I look.\n</think>\n\n";
const WORDS: &str = "On it.\n";
const CALL: &str = "<tool_call>\n{\"name\": \"fs__ls\", \"arguments\": {\"path\": \"/tmp\", \"n\": 2}}\n</tool_call>";
const PATCH: &str = "<tool_call>\n{\"name\": \"patch\", \"arguments\": {\"input\": \"+ \\\"x\\\"\\n\"}}\n</tool_call>";

fn body(fields: &Value) -> Value {
    let parameters = json!({"type": "object", "properties": {"path": {"type": "string"}}});
    let ls =
        json!({"type": "function", "name": "ls", "description": "lists", "parameters": parameters});
    with(
        json!({
            "model": "tiny", "input": "what is in /tmp?", "reasoning": {"effort": "high"},
            "tools": [
                {"type": "namespace", "name": "fs", "tools": [ls]}, {"type": "custom", "name": "patch"},
            ],
        }),
        fields,
    )
}

fn answer() -> String {
    [THOUGHT, WORDS, CALL, "\n", PATCH].concat()
}

fn data(events: &str) -> Vec<Value> {
    let data = events.lines().filter_map(|line| line.strip_prefix("data: "));
    data.map(|data| serde_json::from_str(data).unwrap()).collect()
}

#[tokio::test]
async fn a_whole_answer_is_golden() {
    let stage = Stage::open().await;
    let said = stage.whole(RESPONSES, &body(&json!({})), &answer(), Reason::Stop).await;
    let summary = body(&json!({"reasoning": {"effort": "high", "summary": "auto"}}));
    let also = stage.whole(RESPONSES, &summary, THOUGHT, Reason::Length).await;
    let lines = [said, also].map(|body| steady(&body.to_string()));
    insta::assert_snapshot!(lines.join("\n"));
}

#[tokio::test]
async fn a_stream_is_golden() {
    let stage = Stage::open().await;
    let (start, end) = CALL.split_at(CALL.find("/tmp").unwrap());
    let pieces = [THOUGHT, WORDS, start, end, PATCH];
    let stream = body(&json!({"stream": true}));
    let said = stage.streamed(RESPONSES, &stream, &pieces).await;
    insta::assert_snapshot!(said);
}

#[tokio::test]
async fn a_summary_is_streamed_as_one() {
    let stage = Stage::open().await;
    let fields = json!({"stream": true, "reasoning": {"effort": "high", "summary": "auto"}});
    let said = stage.streamed(RESPONSES, &body(&fields), &[THOUGHT, WORDS]).await;
    let types: Vec<_> =
        data(&said).iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect();
    insta::assert_snapshot!(types.join("\n"));
}

#[tokio::test]
async fn a_streams_events_together_are_the_whole_answer() {
    let stage = Stage::open().await;
    let whole = stage.whole(RESPONSES, &body(&json!({})), &answer(), Reason::Stop).await;
    let stream = body(&json!({"stream": true}));
    let events = data(&stage.token_by_token(RESPONSES, &stream, &answer()).await);
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], json!(number));
    }
    // Each item three times over: as it ended, as its pieces, and in the last event.
    let last = events.last().unwrap();
    assert_eq!(last["type"], "response.completed");
    let done: Vec<_> = events
        .iter()
        .filter(|event| event["type"] == "response.output_item.done")
        .map(|event| event["item"].clone())
        .collect();
    assert_eq!(json!(done), last["response"]["output"]);
    for (index, item) in done.iter().enumerate() {
        let pieces: String = events
            .iter()
            .filter(|event| event["output_index"] == json!(index))
            .filter_map(|event| event["delta"].as_str())
            .collect();
        let text = item["content"][0]["text"].as_str();
        let said = text.or(item["arguments"].as_str()).or(item["input"].as_str());
        assert_eq!(Some(&*pieces), said);
    }
    let output = |answer: &Value| -> Value {
        serde_json::from_str(&steady(&answer["output"].to_string())).unwrap()
    };
    assert_eq!(output(&last["response"]), output(&whole));
    assert_eq!(last["response"]["usage"]["output_tokens"], whole["usage"]["output_tokens"]);
    // Up to the words that follow.
    let thought = stage.ids(THOUGHT).len();
    assert_eq!(whole["usage"]["output_tokens_details"]["reasoning_tokens"], thought);
}

#[tokio::test]
async fn what_is_cut_off_is_incomplete() {
    let stage = Stage::open().await;
    let cut = &CALL[..CALL.find("mp\"").unwrap()];
    let said = format!("{THOUGHT}{cut}");
    let whole = stage.whole(RESPONSES, &body(&json!({})), &said, Reason::Length).await;
    assert_eq!(
        (&whole["status"], &whole["incomplete_details"]["reason"]),
        (&json!("incomplete"), &json!("max_output_tokens"))
    );
    let call = &whole["output"][1];
    assert_eq!(
        (&call["status"], &call["name"], &call["namespace"]),
        (&json!("incomplete"), &json!("ls"), &json!("fs"))
    );
    assert_eq!(whole["output"][0]["content"][0]["text"], "I look.");
    // Also where the model itself ended there; and all events say the same of it.
    let whole = stage.whole(RESPONSES, &body(&json!({})), &said, Reason::Stop).await;
    assert_eq!(
        (&whole["status"], &whole["output"][1]["status"]),
        (&json!("incomplete"), &json!("incomplete"))
    );
    let stream = body(&json!({"stream": true}));
    let events = data(&stage.token_by_token(RESPONSES, &stream, &said).await);
    let done = events.iter().rfind(|event| event["type"] == "response.output_item.done").unwrap();
    let last = events.last().unwrap();
    assert_eq!(last["type"], "response.incomplete");
    assert_eq!(done["item"], last["response"]["output"][1]);
}
