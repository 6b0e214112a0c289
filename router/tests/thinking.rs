//! A bound on reasoning, from what each dialect says to what the worker is told.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use baton_proto::internal::ThinkingBudget;
use baton_proto::internal::finished::Reason;
use baton_proto::v1::inference_client::InferenceClient;
use baton_proto::v1::{GenerateRequest, SamplingParams, generate_request};
use baton_router::config::Config;
use common::stage::{CHAT, MESSAGES, RESPONSES, Stage, with};
use common::worker::FakeWorker;
use common::{House, within};
use serde_json::{Value, json};
use tonic::transport::Endpoint;

const COMPLETIONS: &str = "/v1/completions";

/// What the worker is told for a body.
async fn told(stage: &Stage, path: &str, body: &Value) -> Option<ThinkingBudget> {
    let play = stage.worker.play(&[20], Reason::Stop);
    let (answer, submit) = tokio::join!(stage.house.post(path, body), play);
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(!answer.headers.contains_key("x-baton-warning"), "{:?}", answer.headers);
    submit.thinking
}

fn chat(fields: &Value) -> Value {
    with(json!({"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}), fields)
}

fn message(fields: &Value) -> Value {
    let body = json!({"max_tokens": 3000, "thinking": {"type": "enabled", "budget_tokens": 2000}});
    with(with(chat(&json!({})), &body), fields)
}

/// In the ids of the model in the box, whose template has opened the reasoning.
fn budget(stage: &Stage, tokens_max: u32) -> ThinkingBudget {
    let id = |marker| stage.text.token_id(marker).unwrap();
    let newline = stage.ids("\n");
    ThinkingBudget {
        tokens_max,
        is_open: true,
        open_ids: vec![id("<think>")],
        close_ids: vec![id("</think>")],
        end_ids: [&newline[..], &[id("</think>")]].concat(),
        opens_anywhere: false,
        blank_ids: newline,
    }
}

#[tokio::test]
async fn every_dialect_bounds_reasoning_in_the_ids_of_the_model() {
    let stage = Stage::open().await;
    let seven = json!({"thinking_token_budget": 7});
    let thinking = json!({"enable_thinking": true});
    let on = json!({"chat_template_kwargs": thinking, "thinking_token_budget": 7});
    let input = json!({"model": "tiny", "input": "hi"});
    let prompt = json!({"model": "tiny", "prompt": "<|im_start|>assistant\n<think>\n"});
    for (path, body, most) in [
        (CHAT, chat(&on), 7),
        (RESPONSES, with(input, &on), 7),
        (COMPLETIONS, with(prompt, &seven), 7),
        (MESSAGES, message(&json!({})), 2000),
        (MESSAGES, message(&seven), 7),
        (MESSAGES, message(&json!({"thinking_token_budget": 2500})), 2000),
    ] {
        assert_eq!(told(&stage, path, &body).await, Some(budget(&stage, most)), "{path} {body}");
    }
    // The model may still open it by itself.
    let closed = ThinkingBudget { is_open: false, ..budget(&stage, 7) };
    assert_eq!(told(&stage, CHAT, &chat(&seven)).await, Some(closed));
}

#[tokio::test]
async fn a_call_ends_reasoning_where_calls_are_looked_for() {
    let stage = Stage::open().await;
    let tools = json!({"tools": [{"name": "ls", "input_schema": {"type": "object"}}]});
    let call = stage.text.token_id("<tool_call>").unwrap();
    let mut expected = budget(&stage, 2000);
    let none = json!({"tool_choice": {"type": "none"}});
    let without = told(&stage, MESSAGES, &with(message(&tools), &none)).await;
    assert_eq!(without.as_ref(), Some(&expected));
    expected.close_ids.push(call);
    assert_eq!(told(&stage, MESSAGES, &message(&tools)).await, Some(expected));
}

#[tokio::test]
async fn who_sets_no_budget_has_none() {
    let stage = Stage::open().await;
    for thinking in [
        json!({"type": "disabled"}),
        json!({"type": "adaptive"}),
        json!({"type": "adaptive", "budget_tokens": 2000}),
        Value::Null,
    ] {
        let body = message(&json!({"thinking": thinking}));
        assert_eq!(told(&stage, MESSAGES, &body).await, None, "{body}");
    }
    assert_eq!(told(&stage, CHAT, &chat(&json!({}))).await, None);
}

#[tokio::test]
async fn over_grpc_it_is_one_of_the_sampling_parameters() {
    let stage = Stage::open().await;
    let endpoint = Endpoint::from_shared(format!("http://{}", stage.house.address)).unwrap();
    let mut client = InferenceClient::new(within(endpoint.connect()).await.unwrap());
    let sampling = SamplingParams { thinking_token_budget: Some(0), ..SamplingParams::default() };
    let prompt = Some(generate_request::Prompt::Text("<think>".to_owned()));
    let request =
        GenerateRequest { prompt, sampling: Some(sampling), ..GenerateRequest::default() };
    let play = stage.worker.play(&[20], Reason::Stop);
    let (_, submit) = tokio::join!(client.generate(request), play);
    assert_eq!(submit.thinking, Some(budget(&stage, 0)));
}

#[tokio::test]
async fn where_marks_are_no_tokens_a_header_says_that_nothing_is_bounded() {
    let worker = FakeWorker::start("d1").await;
    let seven = json!({"model": "tiny", "prompt": "a", "thinking_token_budget": 7});
    for (reasoning, warns) in [("think", true), ("none", false)] {
        let name = |config: &mut Config| config.model.reasoning_format = Some(reasoning.to_owned());
        let house = House::open_with(&[&worker], name).await;
        let play = worker.play(&[4], Reason::Stop);
        let (answer, submit) = tokio::join!(house.post(COMPLETIONS, &seven), play);
        assert_eq!((answer.status.as_u16(), submit.thinking), (200, None));
        let warning = answer.headers.get("x-baton-warning");
        assert_eq!(warning.is_some(), warns, "{warning:?}");
        let told = warning.is_none_or(|warning| warning.to_str().unwrap().contains("not enforced"));
        assert!(told, "{warning:?}");
    }
}
