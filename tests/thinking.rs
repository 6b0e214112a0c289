//! A model that would think longer is made to answer: real processes, in the words of each interface.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod cluster;

use cluster::{Cluster, DEMO, quiescent};
use serde_json::{Value, json};
use std::path::Path;

const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";

fn question(fields: &Value) -> Value {
    let mut body = json!({
        "model": DEMO,
        "messages": [{"role": "user", "content": "What is Baton?"}],
        "chat_template_kwargs": {"enable_thinking": true},
        "max_tokens": 100,
        "temperature": 0,
        "logprobs": true,
    });
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

/// The tokens of a choice, as they were drawn.
fn tokens(choice: &Value) -> Vec<String> {
    let tokens = choice["logprobs"]["content"].as_array().unwrap();
    tokens.iter().map(|token| token["token"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn the_model_in_the_box_answers_when_its_thoughts_are_cut() {
    let cluster = Cluster::start(&["--disaggregate-min-blocks", "0"]);
    let client = cluster.client();
    let ask = async |fields: Value| client.post(CHAT, &question(&fields)).await.unwrap();
    let free = ask(json!({})).await;
    let free = tokens(&free["choices"][0]);
    let thoughts = free.iter().position(|token| token == "</think>").unwrap();
    assert!(thoughts > 6, "{free:?}");
    for budget in [0, 1, 4] {
        let body = ask(json!({"thinking_token_budget": budget, "n": 2})).await;
        for choice in body["choices"].as_array().unwrap() {
            let tokens = tokens(choice);
            assert_eq!(tokens[..budget], free[..budget], "it thinks as it would");
            assert_eq!(tokens[budget..budget + 2], ["\n", "</think>"]);
            let message = &choice["message"];
            let words = free[..budget].concat();
            let told = message["reasoning_content"].as_str().unwrap_or_default();
            assert_eq!(told, words.trim_end_matches('\n'));
            let answer = message["content"].as_str().unwrap();
            assert!(answer.starts_with("Baton serves large language models"), "{answer}");
            assert_eq!(choice["finish_reason"], "stop");
        }
    }
    // What is not used up changes nothing, drawn by chance or not.
    for fields in [json!({}), json!({"temperature": 1.5, "seed": 4})] {
        let mut wide = fields.clone();
        wide["thinking_token_budget"] = json!(90);
        let [mut free, mut wide] = [ask(fields).await, ask(wide).await];
        assert_eq!(wide["choices"].take(), free["choices"].take());
    }
    quiescent(&client).await;
}

#[tokio::test]
async fn a_message_has_as_many_tokens_of_thinking_as_its_budget() {
    const BUDGET: usize = 1024;
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("script.jsonl");
    // It thinks for 1500 tokens and never ends by itself.
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo");
    let text = baton_text::TextModel::load(&model).unwrap();
    let word = text.token_id("a").unwrap();
    std::fs::write(&script, json!({"say": vec![word; 1500]}).to_string()).unwrap();
    let (model, script) = (model.to_str().unwrap(), script.to_str().unwrap());
    let cluster = Cluster::start(&["--engine", "scripted", "--script", script, "--model", model]);
    let client = cluster.client();
    let body = |stream: bool| {
        json!({
            "model": "demo", "max_tokens": 2000, "stream": stream,
            "thinking": {"type": "enabled", "budget_tokens": BUDGET},
            "messages": [{"role": "user", "content": "Think!"}],
        })
    };
    // The two tokens of the end stand in the place of the script's.
    let (thinking, text) = ("a".repeat(BUDGET), "a".repeat(1500 - BUDGET - 2));
    let whole = client.post(MESSAGES, &body(false)).await.unwrap();
    assert_eq!(whole["content"][0]["thinking"], thinking, "{whole}");
    assert_eq!(whole["content"][1]["text"], text);
    assert_eq!(whole["usage"]["output_tokens"], 1501, "the script, and the end of the answer");
    let mut events = client.stream(MESSAGES, &body(true)).await.unwrap();
    let (mut thought, mut said) = (String::new(), String::new());
    while let Some(event) = events.next().await.unwrap() {
        let event: Value = serde_json::from_str(&event).unwrap();
        thought.push_str(event["delta"]["thinking"].as_str().unwrap_or_default());
        said.push_str(event["delta"]["text"].as_str().unwrap_or_default());
    }
    assert_eq!((thought, said), (thinking, text));
    quiescent(&client).await;
}
