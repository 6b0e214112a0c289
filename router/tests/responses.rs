//! Answers that think and call tools in the words of `/v1/responses`, whole and event by event.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use baton_node::config::Span;
use baton_proto::internal::finished::Reason;
use baton_proto::internal::sequence_update::Update;
use baton_proto::internal::{Logprob, Tokens};
use common::client::steady;
use common::stage::{RESPONSES, Stage, with};
use common::within;
use common::worker::{admitted, finished, first_tokens, tokens};
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
    // Up to the marker that ends it, and not the newlines behind that.
    let thought = stage.ids(THOUGHT.trim_end()).len();
    assert_eq!(whole["usage"]["output_tokens_details"]["reasoning_tokens"], thought);
}

/// The events where each token comes with its log-probability, so many tokens in a frame.
async fn with_logprobs(stage: &Stage, body: &Value, says: &str, each: usize) -> Vec<Value> {
    let logprob =
        |id: &u32| Logprob { logprob: -0.5, top_ids: vec![*id], top_logprobs: vec![-0.5] };
    let play = async {
        let submit = stage.worker.submitted().await;
        assert_eq!(submit.logprobs, Some(1));
        stage.worker.say(&submit, 0, [admitted()]).await;
        for ids in stage.ids(says).chunks(each) {
            let logprobs = ids.iter().map(logprob).collect();
            let update = Update::Tokens(Tokens { ids: ids.to_vec(), logprobs, report: None });
            stage.worker.say(&submit, 0, [update]).await;
        }
        stage.worker.say(&submit, 0, [finished(Reason::Stop)]).await;
    };
    let (stream, ()) = tokio::join!(stage.house.stream(RESPONSES, body), play);
    data(&stream.rest().await)
}

#[tokio::test]
async fn log_probabilities_are_those_of_the_words_alone() {
    let stage = Stage::open().await;
    let fields = json!({"stream": true, "top_logprobs": 1,
        "include": ["reasoning.encrypted_content", "message.output_text.logprobs"]});
    let body = body(&fields);
    let tokens = |logprobs: &Value| -> Vec<String> {
        let all = logprobs.as_array().unwrap().iter();
        all.map(|entry| entry["token"].as_str().unwrap().to_owned()).collect()
    };
    for each in [1, 3, 1000] {
        let events = with_logprobs(&stage, &body, &answer(), each).await;
        let last = events.last().unwrap();
        let message = &last["response"]["output"][1];
        let part = &message["content"][0];
        assert_eq!(part["text"], "On it.");
        assert_eq!(tokens(&part["logprobs"]).concat(), "On it.");
        let entry = &part["logprobs"][0];
        assert_eq!(
            (&entry["logprob"], &entry["bytes"], &entry["top_logprobs"][0]["token"]),
            (&json!(-0.5), &json!("On".as_bytes()), &json!("On"))
        );
        assert_eq!(last["response"]["top_logprobs"], 1);
        // Also in pieces, and where the text ends.
        let of = |kind: &str| -> Vec<Value> {
            let events = events.iter().filter(|event| event["type"] == kind);
            events.map(|event| event["logprobs"].clone()).collect()
        };
        let pieces: Vec<_> = of("response.output_text.delta").iter().flat_map(tokens).collect();
        assert_eq!(pieces, tokens(&part["logprobs"]));
        assert_eq!(of("response.output_text.done"), [part["logprobs"].clone()]);
    }
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

/// The input of a custom tool is told at its end. Until then the model speaks and nothing is sent.
#[tokio::test]
async fn a_stream_is_kept_alive_while_what_comes_is_not_told_yet() {
    let stage = Stage::open_with(|config| config.timeouts.keep_alive = Span::millis(20)).await;
    let begin = async {
        let submit = stage.worker.submitted().await;
        let call = PATCH.split_at(PATCH.find("input").unwrap()).0;
        let begun = first_tokens(&stage.ids(&[THOUGHT, call].concat()));
        stage.worker.say(&submit, 0, [admitted(), begun]).await;
        submit
    };
    let asked = body(&json!({"stream": true}));
    let (mut stream, submit) = tokio::join!(stage.house.stream(RESPONSES, &asked), begin);
    let more = [tokens(&stage.ids("input\": \"")), tokens(&stage.ids("word "))];
    stage.worker.say(&submit, 0, [more[0].clone()]).await;
    let speak = async {
        for _ in 0..1000 {
            stage.worker.say(&submit, 0, [more[1].clone()]).await;
            // Far less than the time after which a silent stream is kept alive.
            assert_eq!(stage.house.get("/live").await.status, 200);
        }
        panic!("nothing was sent while much was said");
    };
    let hear = async { while stream.raw().await.unwrap() != ": keep-alive" {} };
    tokio::select! {
        () = within(hear) => {}
        never = speak => never,
    }
}
