//! Computing ahead, with the model in the box and its template, which takes the reasoning out of a
//! history as soon as the next question comes.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod cluster;

use baton_bench::client::Client;
use cluster::{Cluster, DEMO, eventually, metric, quiescent};
use serde_json::{Value, json};

fn tools() -> Value {
    let properties = json!({"city": {"type": "string"}});
    let parameters = json!({"type": "object", "properties": properties, "required": ["city"]});
    let about = "Get the current weather in a city.";
    let function = json!({"name": "get_weather", "description": about, "parameters": parameters});
    json!([{"type": "function", "function": function}])
}

/// One turn of a conversation that thinks; its answer goes into the history as it came.
async fn turn(client: &Client, messages: &mut Vec<Value>, said: Value, tenant: &str) -> Value {
    messages.push(said);
    let request = json!({
        "model": DEMO, "messages": messages, "tools": tools(), "max_tokens": 160, "temperature": 0,
        "chat_template_kwargs": {"enable_thinking": true},
        "intent": {"speculative_prefill": true},
    });
    let headers = [("x-baton-tenant", tenant)];
    let answer = client.post_with("/v1/chat/completions", &request, &headers).await.unwrap();
    let message = &answer["choices"][0]["message"];
    assert!(message["reasoning_content"].is_string(), "{answer}");
    messages.push(message.clone());
    answer
}

async fn came(client: &Client, outcome: &str, count: f64) {
    let labels = format!("outcome=\"{outcome}\"");
    let name = "baton_speculations_total";
    eventually(outcome, async || metric(client, name, &labels).await >= count).await;
}

fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_template_writes_differently_is_there_when_the_next_turn_comes() {
    let cluster = Cluster::start(&["--block-tokens", "16"]);
    let client = cluster.client();
    let mut messages = Vec::new();
    let asked = user("What is the weather in Brevo?");
    let called = turn(&client, &mut messages, asked, "acme").await;
    let applied = json!([{"hint": "intent.speculative_prefill", "outcome": "used"}]);
    assert_eq!(called["nvext"], json!({"applied": applied}));
    // For a tool's result the reasoning stays: everything exists.
    came(&client, "needless", 1.0).await;

    let result = r#"{"temperature": 23, "sky": "light rain"}"#;
    let result = json!({"role": "tool", "tool_call_id": "1", "content": result});
    let answered = turn(&client, &mut messages, result, "acme").await;
    assert_eq!(answered["nvext"]["speculation"], Value::Null, "{answered}");
    // For a question it goes, from the first answer on.
    came(&client, "computed", 1.0).await;

    let before = messages.clone();
    let last = turn(&client, &mut messages, user("Hello!"), "acme").await;
    let bought = &last["nvext"]["speculation"];
    assert!(bought["hit_tokens"].as_u64() >= Some(16), "{last}");
    assert_eq!(bought["hit_tokens"].as_u64().unwrap() % 16, 0, "{last}");
    assert!(bought["lead_ms"].as_f64() > Some(0.0), "{last}");
    let cached = last["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64();
    assert!(cached > bought["hit_tokens"].as_u64(), "{last}");

    // Whoever shares nothing gets the same answer.
    let mut messages = before;
    let alone = turn(&client, &mut messages, user("Hello!"), "other").await;
    assert_eq!(alone["nvext"]["speculation"], Value::Null, "{alone}");
    assert_eq!(alone["usage"]["prompt_tokens_details"]["cached_tokens"], 0, "{alone}");
    assert_eq!(alone["choices"], last["choices"]);
    let hit = metric(&client, "baton_speculation_tokens_total", "outcome=\"hit\"").await;
    assert_eq!(Some(hit as u64), bought["hit_tokens"].as_u64());
    quiescent(&client).await;
}
