//! Answers as clients see them: whole, and event by event.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use baton_node::config::Span;
use baton_proto::internal::finished::Reason;
use baton_proto::internal::{Logprob, Tokens, sequence_update::Update};
use baton_proto::packed;
use common::client::steady;
use common::worker::{EOS, FakeWorker, admitted, finished, first_tokens, tokens};
use common::{House, within};
use serde_json::json;

#[tokio::test]
async fn a_completion_has_text_usage_and_the_interfaces_shape() {
    let worker = FakeWorker::start("d1").await;
    let house = House::open(&[&worker]).await;
    let body = json!({"model": "tiny", "prompt": [1, 2, 3], "max_tokens": 8, "temperature": 0});
    let (answer, submit) =
        tokio::join!(house.post("/v1/completions", &body), worker.play(&[4, 5, EOS], Reason::Stop));
    assert_eq!(packed::unpack(&submit.token_ids), Some(vec![1, 2, 3]));
    assert_eq!(submit.stop.unwrap().max_tokens, 8);
    insta::assert_snapshot!(steady(&answer.body.to_string()), @r#"{"id":"cmpl-0","object":"text_completion","created":0,"model":"tiny","system_fingerprint":null,"choices":[{"text":" t4 t5","index":0,"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":3,"total_tokens":6,"prompt_tokens_details":{"cached_tokens":2}}}"#);
    assert!(worker.heard_nothing(), "a complete answer needs no cancellation");
}

#[tokio::test]
async fn a_chat_answer_has_the_interfaces_shape_and_what_nvext_asks_for() {
    let worker = FakeWorker::start("d1").await;
    let house = House::open(&[&worker]).await;
    let body = json!({
        "model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2,
        "nvext": {"extra_fields": ["timing", "worker_id", "something_later"]},
    });
    let (answer, _) = tokio::join!(
        house.post("/v1/chat/completions", &body),
        worker.play(&[4, 5], Reason::Length)
    );
    let mut body = answer.body;
    let nvext = body.as_object_mut().unwrap().remove("nvext").unwrap();
    assert_eq!(
        nvext["worker_id"],
        json!({"prefill_worker_id": null, "decode_worker_id": worker.id()})
    );
    assert_eq!(nvext["timing"]["prefill_wait_time_ms"], json!(1.5));
    assert!(nvext["timing"]["ttft_ms"].as_f64().unwrap() > 0.0);
    body.as_object_mut().unwrap().remove("usage");
    insta::assert_snapshot!(steady(&body.to_string()), @r#"{"id":"chatcmpl-0","object":"chat.completion","created":0,"model":"tiny","system_fingerprint":null,"choices":[{"index":0,"message":{"role":"assistant","content":" t4 t5","refusal":null},"logprobs":null,"finish_reason":"length"}]}"#);
}

#[tokio::test]
async fn a_chat_stream_is_golden() {
    let worker = FakeWorker::start("d1").await;
    let house = House::open(&[&worker]).await;
    let body = json!({
        "model": "tiny", "messages": [{"role": "user", "content": "hi"}], "stream": true,
        "stream_options": {"include_usage": true},
    });
    let play = async {
        let submit = worker.submitted().await;
        worker.say(&submit, 0, [admitted()]).await;
        submit
    };
    let (mut stream, submit) = tokio::join!(house.stream("/v1/chat/completions", &body), play);
    let mut seen = vec![steady(&stream.raw().await.unwrap())];
    worker.say(&submit, 0, [first_tokens(&[4])]).await;
    seen.push(steady(&stream.raw().await.unwrap()));
    worker.say(&submit, 0, [tokens(&[5, EOS]), finished(Reason::Stop)]).await;
    seen.push(stream.rest().await);
    insta::assert_snapshot!(seen.join("\n"));
}

#[tokio::test]
async fn a_completion_stream_with_logprobs_is_golden() {
    let worker = FakeWorker::start("d1").await;
    let house = House::open(&[&worker]).await;
    let body = json!({
        "model": "tiny", "prompt": "ab", "stream": true, "logprobs": 2, "max_tokens": 3,
        "nvext": {"extra_fields": ["worker_id"]},
    });
    let logprob = |top: u32| Logprob {
        logprob: -0.5,
        top_ids: vec![top, 9],
        top_logprobs: vec![-0.5, f32::NEG_INFINITY],
    };
    let play = async {
        let submit = worker.submitted().await;
        assert_eq!(submit.logprobs, Some(2));
        let ids =
            Tokens { ids: vec![4, 11], logprobs: vec![logprob(4), logprob(11)], report: None };
        worker.say(&submit, 0, [admitted(), Update::Tokens(ids)]).await;
        submit
    };
    let (mut stream, submit) = tokio::join!(house.stream("/v1/completions", &body), play);
    let mut seen = vec![steady(&stream.raw().await.unwrap())];
    let ids = Tokens { ids: vec![7], logprobs: vec![logprob(7)], report: None };
    worker.say(&submit, 0, [Update::Tokens(ids), finished(Reason::Length)]).await;
    seen.push(stream.rest().await.replace(&worker.id().to_string(), "ID"));
    insta::assert_snapshot!(seen.join("\n"));
}

#[tokio::test]
async fn chat_logprobs_name_tokens_and_bytes_but_no_end_token() {
    let worker = FakeWorker::start("d1").await;
    let house = House::open(&[&worker]).await;
    let body = json!({
        "model": "tiny", "messages": [{"role": "user", "content": "hi"}],
        "logprobs": true, "top_logprobs": 1,
    });
    let logprob = || Logprob { logprob: -0.25, top_ids: vec![4], top_logprobs: vec![-0.25] };
    let play = async {
        let submit = worker.submitted().await;
        let ids = Tokens { ids: vec![4, EOS], logprobs: vec![logprob(), logprob()], report: None };
        worker.say(&submit, 0, [admitted(), Update::Tokens(ids), finished(Reason::Stop)]).await;
    };
    let (answer, ()) = tokio::join!(house.post("/v1/chat/completions", &body), play);
    let bytes = [32, 116, 52];
    let entry = json!({"token": " t4", "logprob": -0.25, "bytes": bytes});
    let mut shown = entry.clone();
    shown["top_logprobs"] = json!([entry]);
    let expected = json!({"content": [shown], "refusal": null});
    assert_eq!(answer.body["choices"][0]["logprobs"], expected);
    assert_eq!(answer.body["usage"]["completion_tokens"], 2);
}

#[tokio::test]
async fn a_stop_string_ends_the_answer_and_the_work() {
    let worker = FakeWorker::start("d1").await;
    let house = House::open(&[&worker]).await;
    let body = json!({"model": "tiny", "prompt": [1, 2, 3], "max_tokens": 100, "stop": " t6 t7"});
    let play = async {
        let submit = worker.submitted().await;
        worker.say(&submit, 0, [admitted(), first_tokens(&[5, 6])]).await;
        worker.say(&submit, 0, [tokens(&[7, 8, 9])]).await;
        assert_eq!(worker.cancelled().await.choice, None);
    };
    let (answer, ()) = tokio::join!(house.post("/v1/completions", &body), play);
    assert_eq!(answer.body["choices"][0]["text"], " t5");
    assert_eq!(answer.body["choices"][0]["finish_reason"], "stop");
    assert_eq!(answer.body["usage"]["completion_tokens"], 1, "ids after the hit are not billed");
    assert_eq!(answer.body["usage"]["prompt_tokens_details"]["cached_tokens"], 2);
}

#[tokio::test]
async fn a_stop_string_in_one_choice_leaves_the_others_alone() {
    let worker = FakeWorker::start("d1").await;
    let house = House::open(&[&worker]).await;
    let body = json!({"model": "tiny", "prompt": [1], "n": 2, "stop": [" t6"], "max_tokens": 9});
    let play = async {
        let submit = worker.submitted().await;
        assert_eq!(submit.choices, 2);
        worker.say(&submit, 0, [admitted(), first_tokens(&[5])]).await;
        worker.say(&submit, 1, [first_tokens(&[6])]).await;
        assert_eq!(worker.cancelled().await.choice, Some(1));
        worker.say(&submit, 0, [tokens(&[8]), finished(Reason::Length)]).await;
    };
    let (answer, ()) = tokio::join!(house.post("/v1/completions", &body), play);
    let choices = &answer.body["choices"];
    assert_eq!(
        (&choices[0]["text"], &choices[0]["finish_reason"]),
        (&json!(" t5 t8"), &json!("length"))
    );
    assert_eq!((&choices[1]["text"], &choices[1]["finish_reason"]), (&json!(""), &json!("stop")));
    assert!(worker.heard_nothing());
}

#[tokio::test]
async fn a_stream_with_nothing_to_say_says_so() {
    let worker = FakeWorker::start("d1").await;
    let house =
        House::open_with(&[&worker], |config| config.timeouts.keep_alive = Span::millis(20)).await;
    let body = json!({"model": "tiny", "prompt": [1], "stream": true});
    let play = async {
        let submit = worker.submitted().await;
        worker.say(&submit, 0, [admitted()]).await;
        submit
    };
    let (mut stream, submit) = tokio::join!(house.stream("/v1/completions", &body), play);
    assert_eq!(stream.raw().await.unwrap(), ": keep-alive");
    worker.say(&submit, 0, [first_tokens(&[4]), finished(Reason::Length)]).await;
    assert!(within(stream.rest()).await.ends_with("data: [DONE]"));
}

#[tokio::test]
async fn a_stream_whose_worker_is_slow_is_not_taken_for_one_that_nobody_reads() {
    let worker = FakeWorker::start("d1").await;
    let house = House::open_with(&[&worker], |config| {
        config.timeouts.keep_alive = Span::millis(150);
        config.timeouts.slow_reader = Span::millis(40);
    })
    .await;
    let body = json!({"model": "tiny", "prompt": [1], "stream": true});
    let play = async {
        let submit = worker.submitted().await;
        worker.say(&submit, 0, [admitted(), first_tokens(&[4])]).await;
        submit
    };
    let (mut stream, submit) = tokio::join!(house.stream("/v1/completions", &body), play);
    assert!(stream.raw().await.unwrap().contains("t4"));
    // Each time several times as long as a reader may be slow.
    for _ in 0..2 {
        assert_eq!(stream.raw().await.unwrap(), ": keep-alive");
    }
    worker.say(&submit, 0, [tokens(&[5]), finished(Reason::Length)]).await;
    let rest = within(stream.rest()).await;
    assert!(rest.contains("t5") && rest.ends_with("data: [DONE]"), "{rest}");
    assert!(worker.heard_nothing());
}
