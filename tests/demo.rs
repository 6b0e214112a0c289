//! The model in the binary: what a newcomer meets answers in sentences and uses tools.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod cluster;

use baton_bench::client::Client;
use cluster::{Cluster, DEMO, quiescent};
use serde_json::{Value, json};

fn tool(name: &str, about: &str, parameter: &str) -> Value {
    let properties = json!({parameter: {"type": "string"}});
    let parameters = json!({"type": "object", "properties": properties, "required": [parameter]});
    let function = json!({"name": name, "description": about, "parameters": parameters});
    json!({"type": "function", "function": function})
}

/// What the model says, without a word about how to draw.
async fn answer(client: &Client, messages: &[Value], tools: &[Value], finish: &str) -> Value {
    let request = json!({"model": DEMO, "messages": messages, "tools": tools, "max_tokens": 160});
    let answer = client.post("/v1/chat/completions", &request).await.unwrap();
    assert_eq!(answer["choices"][0]["finish_reason"], finish, "{answer}");
    answer["choices"][0]["message"].clone()
}

/// The same, where it says no more than words.
async fn say(client: &Client, messages: &[Value], tools: &[Value]) -> String {
    answer(client, messages, tools, "stop").await["content"].as_str().unwrap().to_owned()
}

fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

#[tokio::test]
async fn the_model_in_the_box_greets_calls_a_tool_and_answers_from_its_result() {
    let cluster = Cluster::start(&["--disaggregate-min-blocks", "0"]);
    let client = cluster.client();
    let greeting = say(&client, &[user("Hello!")], &[]).await;
    assert!(greeting.contains("Hello"), "{greeting}");

    let tools = [
        tool("get_weather", "Get the current weather in a city.", "city"),
        tool("read_file", "Read a file and return its text.", "path"),
    ];
    let question = user("What is the weather in Brevo?");
    let called = answer(&client, std::slice::from_ref(&question), &tools, "tool_calls").await;
    let function = json!({"name": "get_weather", "arguments": "{\"city\": \"Brevo\"}"});
    assert_eq!(called["tool_calls"][0]["function"], function);

    let id = called["tool_calls"][0]["id"].clone();
    let result = r#"{"temperature": 23, "sky": "light rain"}"#;
    let result = json!({"role": "tool", "tool_call_id": id, "content": result});
    let messages = [question, called, result];
    let answer = say(&client, &messages, &tools).await;
    assert!(answer.contains("23") && answer.contains("light rain"), "{answer}");

    let refusal = say(&client, &[user("What is the weather in Brevo?")], &tools[1..]).await;
    assert!(refusal.contains("cannot"), "{refusal}");
    quiescent(&client).await;
}
