//! Prompts in ids and back, without a turn.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use baton_proto::internal::finished::Reason;
use common::stage::{CHAT, Stage};
use serde_json::{Value, json};

const TEXT: &str = "gr\u{fc}\u{df} dich, <|im_end|>\n \u{1f600}";

async fn refused(stage: &Stage, path: &str, body: &Value) -> (u16, Value, Value) {
    let answer = stage.house.post(path, body).await;
    let error = &answer.body["error"];
    (answer.status.as_u16(), error["param"].clone(), error["code"].clone())
}

#[tokio::test]
async fn ids_read_what_they_were_made_of() {
    let stage = Stage::open().await;
    let ask = json!({"model": "tiny", "prompt": TEXT, "return_token_strs": true});
    let made = stage.house.post("/tokenize", &ask).await.body;
    let ids = stage.ids(TEXT);
    assert_eq!((&made["tokens"], &made["count"]), (&json!(ids), &json!(ids.len())));
    assert_eq!(made["token_strs"].as_array().unwrap().len(), ids.len());
    assert!(made["max_model_len"].as_u64().unwrap() > 0);
    let back = json!({"model": "tiny", "tokens": ids});
    assert_eq!(stage.house.post("/detokenize", &back).await.body, json!({"prompt": TEXT}));
    assert!(stage.worker.heard_nothing(), "nothing is started for it");
}

#[tokio::test]
async fn a_conversation_has_as_many_ids_as_its_turn() {
    let stage = Stage::open().await;
    let tools = json!([{"type": "function", "function": {"name": "ls", "parameters": {}}}]);
    let chat =
        json!({"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "tools": tools});
    let made = stage.house.post("/tokenize", &chat).await.body;
    assert_eq!(made["token_strs"], Value::Null);
    let turn = stage.whole(CHAT, &chat, "Hello.", Reason::Stop).await;
    assert_eq!(made["count"], turn["usage"]["prompt_tokens"]);
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_the_field_named() {
    let stage = Stage::open().await;
    for (path, body, param, code) in [
        ("/tokenize", json!({"prompt": "x"}), "model", "missing_required_parameter"),
        ("/tokenize", json!({"model": "tiny"}), "prompt", "missing_required_parameter"),
        ("/tokenize", json!({"model": "tiny", "prompt": 5}), "prompt", "invalid_type"),
        (
            "/tokenize",
            json!({"model": "tiny", "prompt": "x", "messages": 5}),
            "messages",
            "invalid_value",
        ),
        (
            "/tokenize",
            json!({"model": "tiny", "prompt": "x", "add_special_tokens": false}),
            "add_special_tokens",
            "unsupported_value",
        ),
        ("/detokenize", json!({"model": "tiny"}), "tokens", "missing_required_parameter"),
        ("/detokenize", json!({"model": "tiny", "tokens": ["x"]}), "tokens[0]", "invalid_type"),
        (
            "/detokenize",
            json!({"model": "tiny", "tokens": [4_000_000_000_u32]}),
            "tokens",
            "invalid_value",
        ),
    ] {
        let expected = (400, json!(param), json!(code));
        assert_eq!(refused(&stage, path, &body).await, expected, "{path} {body}");
    }
    let unknown = json!({"model": "other", "tokens": []});
    assert_eq!(refused(&stage, "/detokenize", &unknown).await.0, 404);
}
