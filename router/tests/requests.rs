//! Requests that are refused as they stand, and what else can be asked: exact answers.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use baton_node::config::{ByteSize, Threshold};
use common::House;
use common::worker::FakeWorker;
use http::Method;
use serde_json::{Value, json};

/// The error's status, parameter and code.
async fn refusal(house: &House, path: &str, body: &Value) -> (u16, Value, Value) {
    let answer = house.post(path, body).await;
    let error = &answer.body["error"];
    assert!(error["message"].as_str().is_some_and(|text| text.len() > 10), "{}", answer.body);
    assert!(error["type"].is_string(), "{}", answer.body);
    (answer.status.as_u16(), error["param"].clone(), error["code"].clone())
}

#[tokio::test]
async fn the_description_of_the_interface_is_json_with_this_routers_bounds() {
    let house = House::start(&[], |config| config.limits.choices_max = 3);
    for _ in 0..2 {
        let answer = house.get("/openapi.json").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.headers["content-type"], "application/json");
        let chat = &answer.body["paths"]["/v1/chat/completions"]["post"]["requestBody"];
        let fields = &chat["content"]["application/json"]["schema"]["properties"];
        assert_eq!(fields["n"]["maximum"], 3, "{fields}");
    }
}

#[tokio::test]
async fn what_the_model_cannot_take_is_refused_with_the_field_named() {
    let worker = FakeWorker::start("d1").await;
    let house = House::open(&[&worker]).await;
    let text = "/v1/completions";
    let chat = "/v1/chat/completions";
    let user = json!([{"role": "user", "content": "hi"}]);
    let long = vec![1; 4096];
    for (path, body, status, param, code) in [
        (
            text,
            json!({"model": "tiny", "prompt": [1, 1000]}),
            400,
            json!("prompt"),
            "invalid_value",
        ),
        (
            text,
            json!({"model": "tiny", "prompt": [1], "stop_token_ids": [1000]}),
            400,
            json!("stop_token_ids"),
            "invalid_value",
        ),
        (
            text,
            json!({"model": "tiny", "prompt": [1], "logit_bias": {"1000": 1}}),
            400,
            json!("logit_bias"),
            "invalid_value",
        ),
        (text, json!({"model": "tiny", "prompt": ""}), 400, json!("prompt"), "invalid_value"),
        (
            text,
            json!({"model": "tiny", "prompt": long}),
            400,
            json!("prompt"),
            "context_length_exceeded",
        ),
        (text, json!({"model": "big", "prompt": "a"}), 404, json!("model"), "model_not_found"),
        (chat, json!({"model": "big", "messages": user}), 404, json!("model"), "model_not_found"),
        (text, json!([1]), 400, Value::Null, "invalid_type"),
    ] {
        let refused = refusal(&house, path, &body).await;
        assert_eq!(refused, (status, param, json!(code)), "{path} {body:.200}");
    }
    assert!(worker.heard_nothing(), "nothing was started for any of them");
}

#[tokio::test]
async fn a_tenant_that_cannot_be_taken_as_it_stands_is_not_taken_for_nobodys() {
    let house = House::start(&[], |_| {});
    let body = json!({"model": "tiny", "prompt": "a"});
    let long = "x".repeat(129).into_bytes();
    for values in
        [vec![&b"caf\xc3\xa9"[..]], vec![b"a b"], vec![b""], vec![&long], vec![b"a", b"a"]]
    {
        let answer = house.post_with("/v1/completions", &body, "x-baton-tenant", &values).await;
        let error = &answer.body["error"];
        assert_eq!((answer.status.as_u16(), &error["param"]), (400, &json!("x-baton-tenant")));
        assert!(error["message"].as_str().unwrap().contains("x-baton-tenant"), "{error}");
    }
    let answer = house.post_with("/v1/completions", &body, "x-baton-tenant", &[&long[1..]]).await;
    assert_eq!(answer.body["error"]["code"], "no_worker", "the longest name is taken");
}

#[tokio::test]
async fn an_unknown_models_long_name_is_not_said_back_whole() {
    let house = House::start(&[], |_| {});
    let name = "x".repeat(10_000);
    let answer = house.post("/v1/completions", &json!({"model": name, "prompt": "a"})).await;
    assert_eq!(answer.status, 404);
    assert!(answer.body["error"]["message"].as_str().unwrap().len() < 300, "{}", answer.body);
    let answer = house.get(&format!("/v1/models/{name}")).await;
    assert_eq!(answer.status, 404);
    assert!(answer.body["error"]["message"].as_str().unwrap().len() < 300, "{}", answer.body);
}

#[tokio::test]
async fn text_beyond_any_context_is_refused_by_its_bytes() {
    let worker = FakeWorker::start("d1").await;
    let house = House::open(&[&worker]).await;
    let text = "a".repeat(4096 * 64 + 1);
    let body = json!({"model": "tiny", "prompt": text});
    let expected = (400, json!("prompt"), json!("context_length_exceeded"));
    assert_eq!(refusal(&house, "/v1/completions", &body).await, expected);
    let body = json!({"model": "tiny", "messages": [{"role": "user", "content": text}]});
    let expected = (400, json!("messages"), json!("context_length_exceeded"));
    assert_eq!(refusal(&house, "/v1/chat/completions", &body).await, expected);
    assert!(worker.heard_nothing());
}

#[tokio::test]
async fn workers_are_told_how_long_an_answer_will_probably_be() {
    let worker = FakeWorker::start("d1").await;
    let house =
        House::open_with(&[&worker], |config| config.placement.answer_tokens_assumed = 50).await;
    for (max_tokens, hint, told) in [
        (1000, Value::Null, 50),
        (20, Value::Null, 20),
        (1000, json!(300), 300),
        (200, json!(300), 200),
    ] {
        let body = json!({"model": "tiny", "prompt": [1], "max_tokens": max_tokens,
                          "nvext": {"agent_hints": {"osl": hint}}});
        let (answer, submit) = tokio::join!(
            house.post("/v1/completions", &body),
            worker.play(&[4], baton_proto::internal::finished::Reason::Length)
        );
        assert_eq!((answer.status.as_u16(), submit.osl), (200, told), "{body}");
    }
}

#[tokio::test]
async fn intent_reaches_the_worker_and_the_answer_says_what_came_of_it() {
    let worker = FakeWorker::start("d1").await;
    let house = House::open(&[&worker]).await;
    let body = json!({"model": "tiny", "prompt": [1], "max_tokens": 9, "intent": {
        "strict_priority": 3, "priority": -7, "deadline_ms": 5000, "tool_eta_ms": 1, "new": 1,
    }});
    let (answer, submit) = tokio::join!(
        house.post("/v1/completions", &body),
        worker.play(&[4], baton_proto::internal::finished::Reason::Length)
    );
    assert_eq!((submit.strict_priority, submit.priority), (3, -7));
    assert!(submit.wanted_ms.is_some_and(|ms| ms <= 5000), "{submit:?}");
    let warning = answer.headers.get("x-baton-warning").map(|value| value.to_str().unwrap());
    assert_eq!(warning, Some("ignored unknown fields: intent.new"));
    let ignored = json!({"hint": "intent.tool_eta_ms", "outcome": "ignored",
                         "why": "this router does not plan for the time after a tool call"});
    let applied = answer.body["nvext"]["applied"].as_array().unwrap();
    assert!(applied.contains(&ignored), "{}", answer.body);
    assert!(applied.contains(&json!({"hint": "intent.priority", "outcome": "used", "value": -7})));

    let known = house.ask(Method::GET, "/v1/capabilities", String::new()).await.body;
    let hints = known["intent"]["hints"].as_array().unwrap();
    let priority = json!({"hint": "priority", "served": true, "minimum": -100, "maximum": 100});
    assert!(hints.contains(&priority), "{known}");
}

#[tokio::test]
async fn strange_hints_cost_a_request_nothing_and_never_its_answer() {
    let worker = FakeWorker::start("d1").await;
    let house = House::open(&[&worker]).await;
    let long = "s".repeat(1 << 20);
    let strange = [
        json!({"session": {"id": long, "parent": long}}),
        json!({"priority": i64::MIN, "strict_priority": -1, "osl": -5, "deadline_ms": -1}),
        json!({"priority": i64::MAX, "strict_priority": i64::MAX, "osl": i64::MAX}),
        json!({"deadline_ms": 0, "session": {"id": ""}}),
    ];
    for intent in strange {
        let hints = json!({"priority": 3, "osl": 1, "strict_priority": 9});
        let body = json!({"model": "tiny", "prompt": [1], "max_tokens": 9, "intent": intent,
                          "nvext": {"agent_hints": hints}});
        let (answer, submit) = tokio::join!(
            house.post("/v1/completions", &body),
            worker.play(&[4], baton_proto::internal::finished::Reason::Length)
        );
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert!(submit.priority.abs() <= 100 && submit.strict_priority <= 7, "{submit:?}");
        assert!(submit.deadline_ms > 0 && submit.osl <= 9, "{submit:?}");
        assert!(answer.body.to_string().len() < 4096, "a long name is not said back");
    }
    for (field, value) in [("priority", json!("high")), ("osl", json!(1.5)), ("session", json!(7))]
    {
        let intent = json!({field: value});
        let body = json!({"model": "tiny", "prompt": [1], "intent": intent});
        let answer = house.post("/v1/completions", &body).await;
        let error = &answer.body["error"];
        assert_eq!(answer.status, 400, "{}", answer.body);
        assert_eq!(error["param"], format!("intent.{field}"), "{error}");
    }
    assert!(worker.heard_nothing());
}

#[tokio::test]
async fn broken_json_says_where() {
    let house = House::start(&[], |_| {});
    let answer = house.ask(Method::POST, "/v1/completions", "{\"model\": }".to_owned()).await;
    assert_eq!(answer.status, 400);
    let expected = json!({"error": {
        "message": "The request body is not valid JSON: expected value at line 1 column 11.",
        "type": "invalid_request_error", "param": null, "code": "invalid_json",
    }});
    assert_eq!(answer.body, expected);
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_a_413() {
    let house = House::start(&[], |config| {
        config.serve.body_bytes_max = Threshold::At(ByteSize(1000));
    });
    let body = json!({"model": "tiny", "prompt": "a".repeat(1000)});
    let refused = refusal(&house, "/v1/completions", &body).await;
    assert_eq!(refused, (413, Value::Null, json!("body_too_large")));
}

#[tokio::test]
async fn bodies_share_a_budget_and_are_told_to_come_back() {
    let house = House::start(&[], |config| {
        config.limits.bodies_bytes_max = ByteSize(8 << 10);
        config.serve.body_bytes_max = Threshold::At(ByteSize(8 << 10));
    });
    let body = json!({"model": "tiny", "prompt": [1], "user": "x".repeat(7 << 10)});
    // A body that never ends holds most of the budget.
    let mut slow = tokio::net::TcpStream::connect(house.address).await.unwrap();
    let head = "POST /v1/completions HTTP/1.1\r\nhost: h\r\ncontent-length: 8000\r\n\r\n";
    let begun = format!("{head}{}", "x".repeat(7 << 10));
    tokio::io::AsyncWriteExt::write_all(&mut slow, begun.as_bytes()).await.unwrap();
    // Until it has arrived, others still get as far as to learn that nobody can serve them.
    let refused = async {
        loop {
            let answer = house.post("/v1/completions", &body).await;
            if answer.status != 503 {
                return answer;
            }
        }
    };
    let answer = common::within(refused).await;
    assert_eq!(answer.status, 429);
    assert_eq!(answer.body["error"]["code"], "overloaded");
    assert!(answer.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn deeply_nested_json_is_an_error_not_a_crash() {
    let house = House::start(&[], |_| {});
    let body = "[".repeat(100_000);
    let answer = house.ask(Method::POST, "/v1/chat/completions", body).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.body["error"]["code"]),
        (400, &json!("invalid_json"))
    );
}

#[tokio::test]
async fn more_requests_than_places_are_told_to_come_back() {
    let worker = FakeWorker::start("d1").await;
    let house = House::open_with(&[&worker], |config| config.limits.requests_max = 1).await;
    let body = json!({"model": "tiny", "prompt": [1]});
    let play = async {
        worker.submitted().await;
        let answer = house.post("/v1/completions", &body).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.body["error"]["code"]),
            (429, &json!("overloaded"))
        );
        worker.die();
    };
    let (first, ()) = tokio::join!(house.post("/v1/completions", &body), play);
    assert_eq!(first.status, 503);
}

#[tokio::test]
async fn readiness_waits_for_a_decode_worker() {
    let house = House::start(&[], |_| {});
    assert_eq!(house.get("/health").await.status, 200);
    assert_eq!(house.get("/live").await.status, 200);
    assert_eq!(house.get("/ready").await.status, 503);
    let body = json!({"model": "tiny", "prompt": "a"});
    let refused = refusal(&house, "/v1/completions", &body).await;
    assert_eq!(refused, (503, Value::Null, json!("no_worker")));

    let worker = FakeWorker::start("d1").await;
    let house = House::open(&[&worker]).await;
    assert_eq!(house.get("/ready").await.status, 200);
}

#[tokio::test]
async fn models_are_listed_under_all_their_names() {
    let worker = FakeWorker::start("d1").await;
    let house = House::open_with(&[&worker], |config| {
        config.model.aliases = vec!["org/tiny-1".to_owned(), "*".to_owned()];
    })
    .await;
    let list = house.get("/v1/models").await.body;
    let names: Vec<_> = list["data"].as_array().unwrap().iter().map(|model| &model["id"]).collect();
    assert_eq!(names, ["tiny", "org/tiny-1"]);
    assert_eq!(list["data"][0]["max_model_len"], 4096);
    assert_eq!(house.get("/v1/models/org/tiny-1").await.body["id"], "org/tiny-1");

    let strict = House::start(&[], |_| {});
    let answer = strict.get("/v1/models/other").await;
    assert_eq!(
        (answer.status.as_u16(), &answer.body["error"]["code"]),
        (404, &json!("model_not_found"))
    );
}

#[tokio::test]
async fn unknown_paths_and_methods_are_typed() {
    let house = House::start(&[], |_| {});
    let answer = house.get("/v2/models").await;
    assert_eq!(
        (answer.status.as_u16(), &answer.body["error"]["code"]),
        (404, &json!("unknown_url"))
    );
    let answer = house.get("/v1/completions").await;
    let code = &answer.body["error"]["code"];
    assert_eq!((answer.status.as_u16(), code), (405, &json!("method_not_supported")));
}

#[tokio::test]
async fn requests_are_counted_by_interface_and_status() {
    let house = House::start(&[], |_| {});
    house.post("/v1/completions", &json!({})).await;
    house.post("/v1/chat/completions", &json!({})).await;
    house.get("/v2/models").await;
    house.get("/v1/messages").await;
    let text = house.get("/metrics").await.body;
    for line in [
        "baton_requests_total{api=\"completions\",code=\"400\"} 1",
        "baton_requests_total{api=\"chat_completions\",code=\"400\"} 1",
        "baton_requests_total{api=\"none\",code=\"404\"} 1",
        "baton_requests_total{api=\"none\",code=\"405\"} 1",
    ] {
        assert!(
            text.as_str().unwrap().lines().any(|found| found == line),
            "{line} is not in\n{text}"
        );
    }
}
