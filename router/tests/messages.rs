//! Anthropic's interface as its clients see it: whole answers, every event, every refusal.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use baton_node::config::{ByteSize, Span, Threshold};
use baton_node::scratch::Scratch;
use baton_node::tenants::KeyDigest;
use baton_proto::internal::failed as failure;
use baton_proto::internal::finished::Reason;
use baton_proto::packed;
use common::client::{Answer, steady};
use common::worker::{EOS, FakeWorker, admitted, failed, finished, first_tokens, tokens};
use common::{House, within};
use http::Method;
use serde_json::{Value, json};

const PATH: &str = "/v1/messages?beta=true";
const COUNT: &str = "/v1/messages/count_tokens";

fn hi() -> Value {
    json!({"model": "tiny", "max_tokens": 8, "messages": [{"role": "user", "content": "hi"}]})
}

fn with(mut body: Value, fields: &Value) -> Value {
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

/// Status, type and message of a refusal, which has the interface's shape.
fn refused(answer: &Answer) -> (u16, String, String) {
    let Answer { status, headers, body } = answer;
    assert_eq!(body["type"], "error", "{body}");
    if let Some(id) = headers.get("request-id") {
        assert_eq!(body["request_id"].as_str().unwrap(), id.to_str().unwrap());
    }
    let text = |name: &str| body["error"][name].as_str().unwrap().to_owned();
    (status.as_u16(), text("type"), text("message"))
}

#[tokio::test]
async fn a_whole_answer_has_the_interfaces_shape() {
    let worker = FakeWorker::start("d1").await;
    let house = House::open(&[&worker]).await;
    let body = hi();
    let (answer, submit) =
        tokio::join!(house.post(PATH, &body), worker.play(&[4, 5, EOS], Reason::Stop));
    assert_eq!(submit.stop.unwrap().max_tokens, 8);
    let id = answer.headers["request-id"].to_str().unwrap();
    assert_eq!(answer.body["id"].as_str().unwrap().strip_prefix("msg_"), id.strip_prefix("req_"));
    insta::assert_snapshot!(steady(&answer.body.to_string()), @r#"{"id":"msg_0","type":"message","role":"assistant","model":"tiny","content":[{"type":"text","text":" t4 t5"}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":17,"cache_creation_input_tokens":0,"cache_read_input_tokens":2,"cache_creation":{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":0},"output_tokens":3}}"#);
    assert!(worker.heard_nothing(), "a complete answer needs no cancellation");
}

#[tokio::test]
async fn an_answer_says_why_it_ended() {
    let worker = FakeWorker::start("d1").await;
    let house = House::open(&[&worker]).await;
    let body = hi();
    let (answer, _) = tokio::join!(house.post(PATH, &body), worker.play(&[4], Reason::Length));
    assert_eq!(answer.body["stop_reason"], "max_tokens");
    let body = with(hi(), &json!({"stop_sequences": ["x", " t7 "]}));
    let (answer, _) =
        tokio::join!(house.post(PATH, &body), worker.play(&[4, 7, 8, 9], Reason::Length));
    assert_eq!(answer.body["content"], json!([{"type": "text", "text": " t4"}]));
    assert_eq!(answer.body["stop_reason"], "stop_sequence");
    assert_eq!(answer.body["stop_sequence"], " t7 ");
    assert_eq!(answer.body["usage"]["output_tokens"], 1);
}

#[tokio::test]
async fn a_stream_is_golden() {
    let worker = FakeWorker::start("d1").await;
    let house = House::open(&[&worker]).await;
    let body = with(hi(), &json!({"stream": true, "nvext": {"extra_fields": ["worker_id"]}}));
    let play = async {
        let submit = worker.submitted().await;
        worker.say(&submit, 0, [admitted()]).await;
        submit
    };
    // The head is there once the turn is admitted, before anything is generated.
    let (mut stream, submit) = tokio::join!(house.stream(PATH, &body), play);
    worker.say(&submit, 0, [first_tokens(&[4])]).await;
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(steady(&stream.raw().await.unwrap()));
    }
    worker.say(&submit, 0, [tokens(&[5, EOS]), finished(Reason::Stop)]).await;
    seen.push(stream.rest().await.replace(&worker.id().to_string(), "ID"));
    insta::assert_snapshot!(seen.join("\n"));
}

#[tokio::test]
async fn a_stream_that_fails_says_so_in_its_last_event() {
    let worker = FakeWorker::start("d1").await;
    let house = House::open(&[&worker]).await;
    let body = with(hi(), &json!({"stream": true}));
    let play = async {
        let submit = worker.submitted().await;
        worker.say(&submit, 0, [admitted(), first_tokens(&[4])]).await;
        submit
    };
    let (stream, submit) = tokio::join!(house.stream(PATH, &body), play);
    worker.say(&submit, 0, [failed(failure::Kind::Internal)]).await;
    let seen = stream.rest().await;
    let last = seen.split("event: error\n").last().unwrap();
    insta::assert_snapshot!(last, @r#"data: {"type":"error","error":{"type":"api_error","message":"Internal error: as the test says."},"request_id":"req_0"}"#);
}

#[tokio::test]
async fn a_quiet_stream_is_kept_alive_in_words_that_fit() {
    let worker = FakeWorker::start("d1").await;
    let house =
        House::open_with(&[&worker], |config| config.timeouts.keep_alive = Span::millis(1)).await;
    let body = with(hi(), &json!({"stream": true}));
    let play = async {
        let submit = worker.submitted().await;
        worker.say(&submit, 0, [admitted()]).await;
        submit
    };
    let (mut stream, submit) = tokio::join!(house.stream(PATH, &body), play);
    // Clients take no event before the first one.
    assert_eq!(stream.raw().await.unwrap(), ": keep-alive");
    worker.say(&submit, 0, [first_tokens(&[4])]).await;
    let mut begun = false;
    within(async {
        let (mut pings, mut texts) = (0, 0);
        // One ping comes with the beginning, further ones from waiting.
        while pings < 3 || texts == 0 {
            let event = stream.raw().await.unwrap();
            begun |= event.starts_with("event: message_start");
            pings += usize::from(event == "event: ping\ndata: {\"type\":\"ping\"}");
            texts += usize::from(event.starts_with("event: content_block_delta"));
            assert!(!(begun && event == ": keep-alive"), "{event}");
        }
    })
    .await;
    worker.say(&submit, 0, [finished(Reason::Stop)]).await;
    assert!(stream.rest().await.ends_with("data: {\"type\":\"message_stop\"}"));
}

#[tokio::test]
async fn usage_is_split_at_the_directives() {
    let worker = FakeWorker::start("d1").await;
    let house = House::open(&[&worker]).await;
    let (hour, minutes) = (json!({"type": "ephemeral", "ttl": "1h"}), json!({"type": "ephemeral"}));
    let body = with(
        hi(),
        &json!({
            "system": [{"type": "text", "text": "Be kind.", "cache_control": hour}],
            "messages": [{"role": "user", "content": [
                {"type": "text", "text": "remember this. ", "cache_control": minutes},
                {"type": "text", "text": "what?"},
            ]}],
        }),
    );
    let (answer, submit) = tokio::join!(house.post(PATH, &body), worker.play(&[4], Reason::Length));
    // Each byte of the rendering is a token here, and two of them were cached.
    let system = "system: Be kind.\n".len();
    let user = "user: remember this. ".len();
    let rest = "what?\nassistant:".len();
    assert_eq!(packed::unpack(&submit.token_ids).unwrap().len(), system + user + rest);
    let usage = json!({
        "input_tokens": rest,
        "cache_creation_input_tokens": system + user - 2,
        "cache_read_input_tokens": 2,
        "cache_creation": {
            "ephemeral_5m_input_tokens": user,
            "ephemeral_1h_input_tokens": system - 2,
        },
        "output_tokens": 1,
    });
    assert_eq!(answer.body["usage"], usage);
}

#[tokio::test]
async fn tokens_are_counted_exactly_and_nothing_is_started() {
    let worker = FakeWorker::start("d1").await;
    let house = House::open(&[&worker]).await;
    let tool = json!({"name": "ls", "input_schema": {"type": "object"}});
    let body = with(hi(), &json!({"system": "Be kind.", "tools": [tool]}));
    let mut asked = body.clone();
    asked.as_object_mut().unwrap().remove("max_tokens");
    let counted = house.post(COUNT, &asked).await;
    assert_eq!(counted.status, 200, "{}", counted.body);
    assert!(worker.heard_nothing());
    let (_, submit) = tokio::join!(house.post(PATH, &body), worker.play(&[4], Reason::Length));
    assert_eq!(
        counted.body,
        json!({"input_tokens": packed::unpack(&submit.token_ids).unwrap().len()})
    );
    let answer = house.post(COUNT, &json!({"model": "tiny"})).await;
    assert_eq!(refused(&answer).0, 400);
    // What could not be answered, or is marked, can be counted all the same.
    let marked =
        json!([{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}]);
    let any =
        json!({"system": marked, "tool_choice": {"type": "any"}, "output_config": {"format": {}}});
    let answer = house.post(COUNT, &with(asked.clone(), &any)).await;
    assert_eq!((answer.body, answer.headers.contains_key("request-id")), (counted.body, true));
    let begun = json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]});
    assert_eq!(house.post(COUNT, &with(asked, &begun)).await.status, 200);
}

#[tokio::test]
async fn a_history_is_edited_before_it_is_rendered_and_that_is_told() {
    let worker = FakeWorker::start("d1").await;
    let house = House::open(&[&worker]).await;
    let long = "x".repeat(500);
    let turn = |id: &str| {
        let call = json!({"type": "tool_use", "id": id, "name": "ls", "input": {}});
        let result = json!({"type": "tool_result", "tool_use_id": id, "content": long});
        [
            json!({"role": "assistant", "content": [call]}),
            json!({"role": "user", "content": [result]}),
        ]
    };
    let messages = [turn("1"), turn("2")].concat();
    let ask = |at_least: u64| {
        let edit = json!({
            "type": "clear_tool_uses_20250919", "keep": {"type": "tool_uses", "value": 1},
            "trigger": {"type": "input_tokens", "value": 1000},
            "clear_at_least": {"type": "input_tokens", "value": at_least},
        });
        with(hi(), &json!({"messages": messages, "context_management": {"edits": [edit]}}))
    };
    let plain = house.post(COUNT, &with(hi(), &json!({"messages": messages}))).await;
    let tokens = plain.body["input_tokens"].as_u64().unwrap();
    let cleared = long.len() as u64 - "[cleared to save context]".len() as u64;
    let counted = house.post(COUNT, &ask(cleared)).await.body;
    let original = json!({"original_input_tokens": tokens});
    assert_eq!(counted, json!({"input_tokens": tokens - cleared, "context_management": original}));
    let asked = ask(cleared);
    let (answer, submit) =
        tokio::join!(house.post(PATH, &asked), worker.play(&[4], Reason::Length));
    assert_eq!(packed::unpack(&submit.token_ids).unwrap().len() as u64, tokens - cleared);
    let edit = json!({
        "type": "clear_tool_uses_20250919", "cleared_tool_uses": 1,
        "cleared_input_tokens": cleared,
    });
    assert_eq!(answer.body["context_management"], json!({"applied_edits": [edit]}));
    // Too little would be won.
    let asked = ask(cleared + 1);
    let (answer, submit) =
        tokio::join!(house.post(PATH, &asked), worker.play(&[4], Reason::Length));
    assert_eq!(packed::unpack(&submit.token_ids).unwrap().len() as u64, tokens);
    assert_eq!(answer.body["context_management"], json!({"applied_edits": []}));
}

#[tokio::test]
async fn every_refusal_has_the_interfaces_words() {
    let worker = FakeWorker::start("d1").await;
    let house = House::open_with(&[&worker], |config| {
        config.serve.body_bytes_max = Threshold::At(ByteSize::mib(1));
    })
    .await;
    let long = json!([{"role": "user", "content": "a".repeat(5000)}]);
    let longer = json!([{"role": "user", "content": "a".repeat(4096 * 64)}]);
    let ask = async |fields: Value| refused(&house.post(PATH, &with(hi(), &fields)).await);
    let (status, kind, message) = ask(json!({"max_tokens": null})).await;
    assert_eq!((status, &*kind), (400, "invalid_request_error"));
    assert!(message.contains("'max_tokens'"), "{message}");
    let (status, kind, message) = ask(json!({"model": "claude"})).await;
    assert_eq!((status, &*kind), (404, "not_found_error"));
    assert!(message.contains("`claude`"), "{message}");
    let tokens = "user: \nassistant:".len() + 5000;
    let (status, kind, message) = ask(json!({"messages": long})).await;
    assert_eq!((status, &*kind), (400, "invalid_request_error"));
    assert_eq!(message, format!("prompt is too long: {tokens} tokens > 4096 maximum"));
    let (_, _, message) = ask(json!({"messages": longer})).await;
    assert_eq!(message, "prompt is too long: 4097 tokens > 4096 maximum");
    let source = json!({"type": "url", "url": "https://example.com/x.png"});
    let seen = json!([{"role": "user", "content": [{"type": "image", "source": source}]}]);
    let (status, _, message) = ask(json!({"messages": seen})).await;
    assert_eq!(status, 400);
    assert_eq!(message, "Invalid 'messages[0].content[0]': the model takes no images.");
    let huge = json!([{"role": "user", "content": "a".repeat(2 << 20)}]);
    let (status, kind, _) = ask(json!({"messages": huge})).await;
    assert_eq!((status, &*kind), (413, "request_too_large"));
    let answer = house.ask(Method::POST, PATH, "{".to_owned()).await;
    assert_eq!(refused(&answer).1, "invalid_request_error");
    let answer = house.ask(Method::GET, PATH, String::new()).await;
    assert_eq!((refused(&answer).0, refused(&answer).1), (405, "invalid_request_error".to_owned()));
    let answer = house.ask(Method::POST, "/v1/messages/batches", String::new()).await;
    assert_eq!((refused(&answer).0, refused(&answer).1), (404, "not_found_error".to_owned()));
    assert!(worker.heard_nothing(), "nothing was started for any of them");
}

#[tokio::test]
async fn an_overload_is_a_status_even_where_a_stream_was_asked_for() {
    let worker = FakeWorker::start("d1").await;
    let house = House::open(&[&worker]).await;
    let body = with(hi(), &json!({"stream": true}));
    let play = async {
        let submit = worker.submitted().await;
        worker.say(&submit, 0, [failed(failure::Kind::Overloaded)]).await;
    };
    let (answer, ()) = tokio::join!(house.post(PATH, &body), play);
    assert_eq!((refused(&answer).0, &*refused(&answer).1), (529, "overloaded_error"));
    assert_eq!(answer.headers["retry-after"], "1");
    let nobody = House::start(&[], |_| {});
    let answer = nobody.post(PATH, &body).await;
    assert_eq!((refused(&answer).0, &*refused(&answer).1), (529, "overloaded_error"));
}

#[tokio::test]
async fn keys_count_wherever_this_interfaces_clients_put_them() {
    let folder = Scratch::new("messages").unwrap();
    let file = folder.path().join("tenants.toml");
    let key = KeyDigest::of(b"canary");
    let quota = "quota.prompt_tokens_per_minute = 40";
    std::fs::write(&file, format!("[tenants.acme]\nkeys = [\"{key}\"]\n{quota}\n")).unwrap();
    let worker = FakeWorker::start("d1").await;
    let house = House::open_with(&[&worker], |config| {
        config.tenants.file = Some(file.clone());
    })
    .await;
    let body = hi();
    for headers in [[("x-api-key", "canary")], [("authorization", "Bearer canary")]] {
        let (answer, _) =
            tokio::join!(house.post_said(PATH, &body, &headers), worker.play(&[4], Reason::Length));
        assert_eq!(answer.status, 200, "{}", answer.body);
        let counted = house.post_said(COUNT, &body, &headers).await;
        assert_eq!(counted.status, 200, "{}", counted.body);
    }
    // Two prompts of 20 tokens were all that a minute has; counting took nothing.
    let answer = house.post_said(PATH, &body, &[("x-api-key", "canary")]).await;
    assert_eq!((refused(&answer).0, &*refused(&answer).1), (429, "rate_limit_error"));
    assert!(answer.headers.contains_key("retry-after"));
    for path in [PATH, COUNT] {
        let answer = house.post_said(path, &body, &[("x-api-key", "guess")]).await;
        assert_eq!((refused(&answer).0, &*refused(&answer).1), (401, "authentication_error"));
        assert!(!answer.body.to_string().contains("guess"));
    }
}

#[tokio::test]
async fn who_looks_first_finds_somebody_and_requests_are_named() {
    let house = House::start(&[], |_| {});
    let answer = house.ask(Method::HEAD, "/", String::new()).await;
    assert_eq!(answer.status, 200);
    let chat = json!({"model": "tiny", "messages": [{"role": "user", "content": "hi"}]});
    let answer = house.post("/v1/chat/completions", &chat).await;
    assert!(answer.headers["x-request-id"].to_str().unwrap().starts_with("req_"));
    let headers = [("anthropic-beta", "something-2099-01-01"), ("anthropic-version", "2023-06-01")];
    let ignored = with(hi(), &json!({"something": 1}));
    let answer = house.post_said(PATH, &ignored, &headers).await;
    assert_eq!(refused(&answer).1, "overloaded_error", "nothing but the worker is missing");
}
