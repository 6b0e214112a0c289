//! Each field of each JSON dialect at its limit, one beyond, and at 2^31: what is within is taken, what
//! is not is refused with the field named, and nothing is a defect.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::House;
use common::stage::{CHAT, MESSAGES, RESPONSES, with};
use serde_json::{Map, Value, json};

const TEXT: &str = "/v1/completions";
const TOKENIZE: &str = "/tokenize";
const INT_MAX: u64 = 2_147_483_647;

/// A field, values at its limits, and values beyond them.
type Edge = (&'static str, Vec<Value>, Vec<Value>);

fn integer(field: &'static str, min: i64, max: u64) -> Edge {
    (
        field,
        vec![json!(min), json!(max), json!(min as f64)],
        vec![json!(min - 1), json!(max + 1), json!(0.5), json!("1")],
    )
}

fn number(field: &'static str, min: f64, max: f64) -> Edge {
    let near = 0.0001;
    (field, vec![json!(min), json!(max)], vec![json!(min - near), json!(max + near), json!("1")])
}

/// A list of so many at most.
fn list(field: &'static str, entry: &Value, max: usize) -> Edge {
    let of = |count| json!(vec![entry.clone(); count]);
    (field, vec![of(max)], vec![of(max + 1), json!(5)])
}

/// What all dialects have.
fn drawing(temperature_max: f64) -> Vec<Edge> {
    vec![
        number("temperature", 0.0, temperature_max),
        ("top_p", vec![json!(0.0001), json!(1)], vec![json!(0), json!(1.001), json!(true)]),
        integer("top_k", -1, INT_MAX),
        number("min_p", 0.0, 1.0),
        ("repetition_penalty", vec![json!(0.0001), json!(10)], vec![json!(0), json!(10.001)]),
        number("presence_penalty", -2.0, 2.0),
        number("frequency_penalty", -2.0, 2.0),
        (
            "seed",
            vec![json!(i64::MIN), json!(u64::MAX), json!(1e300)],
            vec![json!(0.5), json!("1")],
        ),
        ("logit_bias", biases(1024), biases(1025)),
        (
            "logit_bias.7",
            vec![json!({"7": -100}), json!({"7": 100})],
            vec![json!({"7": 100.1}), json!({"7": -100.1}), json!({"7": "1"})],
        ),
    ]
}

fn biases(count: usize) -> Vec<Value> {
    let all: Map<_, _> = (0..count).map(|id| (id.to_string(), json!(1))).collect();
    vec![Value::Object(all)]
}

fn stops(field: &'static str) -> Vec<Edge> {
    let long = |bytes: usize| json!("é".repeat(bytes / 2) + &"x".repeat(bytes % 2));
    vec![
        list(field, &json!("x"), 16),
        (
            field,
            vec![long(1024), json!([long(1024)])],
            vec![long(1025), json!([long(1025)]), json!("")],
        ),
    ]
}

fn openai() -> Vec<Edge> {
    let ids = |id: u64, count: usize| json!(vec![id; count]);
    let mut edges = drawing(2.0);
    edges.extend(stops("stop"));
    edges.extend([
        integer("n", 1, 16),
        integer("max_tokens", 1, INT_MAX),
        (
            "stop_token_ids",
            vec![ids(0, 128), ids(u64::from(u32::MAX), 1)],
            vec![ids(0, 129), ids(1 << 32, 1)],
        ),
    ]);
    edges
}

/// A dialect's path, its least body, and its fields.
fn dialects() -> Vec<(&'static str, Value, Vec<Edge>)> {
    let user = json!({"role": "user", "content": "hi"});
    let function = json!({"name": "f", "parameters": {}});
    let tool = json!({"type": "function", "function": function});
    let mut chat = openai();
    chat.extend([
        integer("max_completion_tokens", 1, INT_MAX),
        ("min_tokens", vec![json!(0), json!(INT_MAX)], vec![json!(-1), json!(INT_MAX + 1)]),
        integer("top_logprobs", 0, 20),
        list("messages", &user, 16_384),
        list("tools", &tool, 1024),
    ]);
    let mut text = openai();
    text.extend([
        ("min_tokens", vec![json!(0), json!(16)], vec![json!(-1), json!(17), json!(INT_MAX + 1)]),
        integer("logprobs", 0, 20),
        (
            "prompt",
            vec![json!([0, u32::MAX])],
            vec![json!([u64::from(u32::MAX) + 1]), json!([-1]), json!(["a", "b"])],
        ),
    ]);
    let mut messages = drawing(1.0);
    messages.extend(stops("stop_sequences"));
    let budget = |tokens: i64| json!({"type": "enabled", "budget_tokens": tokens});
    messages.extend([
        integer("max_tokens", 1, INT_MAX),
        (
            "thinking.budget_tokens",
            vec![budget(1024), budget(2047)],
            vec![budget(1023), budget(2048), budget(1 << 31)],
        ),
        list("messages", &user, 16_384),
        list("tools", &json!({"name": "f", "input_schema": {}}), 1024),
    ]);
    let mut responses = drawing(2.0);
    let tools = |count: usize| {
        let tool = |i| json!({"type": "function", "name": format!("f{i}")});
        json!((0..count).map(tool).collect::<Vec<_>>())
    };
    responses.extend([
        integer("max_output_tokens", 1, INT_MAX),
        integer("top_logprobs", 0, 20),
        list("input", &user, 16_384),
        ("tools", vec![tools(1024)], vec![tools(1025), tools(2000)]),
    ]);
    let tokenize = vec![
        ("prompt", vec![json!([0, u32::MAX])], vec![json!([u64::from(u32::MAX) + 1]), json!(5)]),
        ("add_special_tokens", vec![json!(true)], vec![json!(false), json!(1)]),
    ];
    let least = json!({"model": "tiny", "messages": [user]});
    let prompt = json!({"model": "tiny", "prompt": "hi"});
    vec![
        (CHAT, with(least.clone(), &json!({"logprobs": true})), chat),
        (TEXT, prompt.clone(), text),
        (MESSAGES, with(least, &json!({"max_tokens": 2048})), messages),
        (RESPONSES, json!({"model": "tiny", "input": "hi"}), responses),
        (TOKENIZE, prompt, tokenize),
    ]
}

/// The field that was refused; none, if the body was taken, where nobody computes.
async fn refused(house: &House, path: &str, body: &Value) -> Option<String> {
    let answer = house.post(path, body).await;
    let error = &answer.body["error"];
    match answer.status.as_u16() {
        400 if path == MESSAGES => {
            assert_eq!(error["type"], "invalid_request_error", "{error}");
            let message = error["message"].as_str().unwrap();
            Some(message.split('\'').nth(1).unwrap_or_else(|| panic!("{message}")).to_owned())
        }
        400 => Some(error["param"].as_str().unwrap_or_else(|| panic!("{error}")).to_owned()),
        503 if error["code"] == "no_worker" => None,
        529 => None,
        other => panic!("{path}: {other} {}", answer.body),
    }
}

/// The body with this value: in the field, or where the field stands deeper, in the one that it is in.
fn set(body: &Value, field: &str, value: &Value) -> Value {
    let mut body = body.clone();
    body[field.split('.').next().unwrap()] = value.clone();
    body
}

#[tokio::test]
async fn every_field_is_taken_up_to_its_limit_and_refused_by_name_beyond() {
    let house = House::start(&[], |_| {});
    for (path, least, edges) in dialects() {
        assert_eq!(refused(&house, path, &least).await, None, "{path}");
        for (field, within, beyond) in edges {
            let named = |found: &Option<String>| {
                found.as_ref().is_some_and(|found| found.starts_with(field))
            };
            for value in within {
                let body = set(&least, field, &value);
                let found = refused(&house, path, &body).await;
                assert_eq!(found, None, "{path} {field} {value:.80}");
            }
            for value in beyond {
                let body = set(&least, field, &value);
                let found = refused(&house, path, &body).await;
                assert!(named(&found), "{path} {field} {value:.80}: {found:?}");
            }
            // Whatever the field means: such a number is taken, or it is refused by name.
            for huge in [json!(1_u64 << 31), json!(-(1_i64 << 31)), json!(u64::MAX), json!(-1e308)]
            {
                let found = refused(&house, path, &set(&least, field, &huge)).await;
                let outer = field.split('.').next().unwrap();
                let fits = found
                    .as_ref()
                    .is_none_or(|found| found.starts_with(outer) || outer.starts_with(&**found));
                assert!(fits, "{path} {field} {huge}: {found:?}");
            }
        }
    }
}
