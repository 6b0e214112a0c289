//! The gRPC interface on the port that also speaks HTTP.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use baton_proto::internal::failed::Kind;
use baton_proto::internal::finished::Reason;
use baton_proto::v1::inference_client::InferenceClient;
use baton_proto::v1::{
    ChatMessage, Conversation, GenerateRequest, ListModelsRequest, Model, SamplingParams,
    StopParams, TokenIds, generate_request,
};
use common::worker::{EOS, FakeWorker, admitted, failed, finished, first_tokens, tokens};
use common::{House, within};
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

async fn channel(house: &House) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{}", house.address)).unwrap();
    within(endpoint.connect()).await.unwrap()
}

fn request(ids: &[u32]) -> GenerateRequest {
    let tokens = TokenIds { ids: ids.to_vec() };
    let prompt = Some(generate_request::Prompt::Tokens(tokens));
    GenerateRequest { prompt, max_tokens: 8, ..GenerateRequest::default() }
}

#[tokio::test]
async fn generation_streams_ids_and_text() {
    let worker = FakeWorker::start("d1").await;
    let house = House::open(&[&worker]).await;
    let mut client = InferenceClient::new(channel(&house).await);
    let play = async {
        let submit = worker.submitted().await;
        worker.say(&submit, 0, [admitted()]).await;
        submit
    };
    let (stream, submit) = tokio::join!(client.generate(request(&[1, 2, 3])), play);
    let temperature = submit.sampling.as_ref().unwrap().temperature;
    assert!(temperature.abs() < f32::EPSILON, "greedy unless told otherwise");
    let mut stream = stream.unwrap().into_inner();
    let first = within(stream.message()).await.unwrap().unwrap();
    assert_eq!((first.text.as_str(), first.token_ids.len()), ("", 0), "admitted");

    worker.say(&submit, 0, [first_tokens(&[4])]).await;
    let piece = within(stream.message()).await.unwrap().unwrap();
    assert_eq!((piece.text.as_str(), piece.token_ids), (" t4", vec![4]));
    worker.say(&submit, 0, [tokens(&[EOS]), finished(Reason::Stop)]).await;
    let last = within(stream.message()).await.unwrap().unwrap();
    assert_eq!((last.finish_reason.as_str(), last.token_ids), ("stop", vec![EOS]));
    let usage = last.usage.unwrap();
    assert_eq!((usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens), (3, 2, 2));
    assert_eq!(within(stream.message()).await.unwrap(), None);
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_request() {
    let worker = FakeWorker::start("d1").await;
    let house = House::open(&[&worker]).await;
    let mut client = InferenceClient::new(channel(&house).await);
    let play = async {
        let submit = worker.submitted().await;
        worker.say(&submit, 0, [admitted()]).await;
        submit
    };
    let (stream, submit) = tokio::join!(client.generate(request(&[1])), play);
    drop(stream);
    assert_eq!(worker.cancelled().await.request_id, submit.request_id);
}

#[tokio::test]
async fn refusals_have_the_right_code_before_anything_streams() {
    let worker = FakeWorker::start("d1").await;
    let house = House::open(&[&worker]).await;
    let mut client = InferenceClient::new(channel(&house).await);
    let message = |role: &str| ChatMessage { role: role.to_owned(), content: "hi".to_owned() };
    let chat = |messages| {
        let chat = Conversation { messages, tools_json: vec![] };
        GenerateRequest {
            prompt: Some(generate_request::Prompt::Chat(chat)),
            ..GenerateRequest::default()
        }
    };
    let hot = SamplingParams { temperature: Some(f32::NAN), ..SamplingParams::default() };
    let stops = StopParams { strings: vec![String::new()], ..StopParams::default() };
    for (request, code, word) in [
        (GenerateRequest::default(), Code::InvalidArgument, "prompt"),
        (GenerateRequest { n: 1000, ..request(&[1]) }, Code::InvalidArgument, "'n'"),
        (request(&[1000]), Code::InvalidArgument, "vocabulary"),
        (GenerateRequest { model: "big".to_owned(), ..request(&[1]) }, Code::NotFound, "big"),
        (chat(vec![]), Code::InvalidArgument, "chat.messages"),
        (chat(vec![message("robot")]), Code::InvalidArgument, "chat.messages[0].role"),
        (GenerateRequest { sampling: Some(hot), ..request(&[1]) }, Code::InvalidArgument, "NaN"),
        (GenerateRequest { stop: Some(stops), ..request(&[1]) }, Code::InvalidArgument, "stop"),
        (request(&vec![1; 5000]), Code::InvalidArgument, "4096"),
        (
            GenerateRequest { tenant: "x".repeat(129), ..request(&[1]) },
            Code::InvalidArgument,
            "'tenant'",
        ),
    ] {
        let status = within(client.generate(request)).await.unwrap_err();
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(word), "{status:?}");
    }
    for (name, value) in [("x-baton-explain", "dry-run"), ("x-baton-policy", "kv-aware")] {
        let mut asked = Request::new(request(&[1]));
        asked.metadata_mut().insert(name, value.parse().unwrap());
        let status = within(client.generate(asked)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert!(status.message().contains(name), "{status:?}");
    }
    assert!(worker.heard_nothing());

    let refuse = async {
        let submit = worker.submitted().await;
        worker.say(&submit, 0, [failed(Kind::Overloaded)]).await;
    };
    let (answer, ()) = tokio::join!(client.generate(request(&[1])), refuse);
    assert_eq!(answer.unwrap_err().code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn the_clients_deadline_travels() {
    let worker = FakeWorker::start("d1").await;
    let house = House::open(&[&worker]).await;
    let mut client = InferenceClient::new(channel(&house).await);
    let mut request = Request::new(request(&[1]));
    request.set_timeout(Duration::from_secs(5));
    let (answer, submit) =
        tokio::join!(client.generate(request), worker.play(&[4], Reason::Length));
    assert!(answer.is_ok());
    assert!((1..=5000).contains(&submit.deadline_ms), "{}", submit.deadline_ms);
}

#[tokio::test]
async fn models_health_and_descriptions_can_be_asked_for() {
    let worker = FakeWorker::start("d1").await;
    let house = House::open(&[&worker]).await;
    let channel = channel(&house).await;
    let models = InferenceClient::new(channel.clone()).list_models(ListModelsRequest {}).await;
    let expected = vec![Model { id: "tiny".to_owned(), context_tokens: 4096 }];
    assert_eq!(models.unwrap().into_inner().models, expected);

    let mut health = HealthClient::new(channel.clone());
    let service = "baton.v1.Inference".to_owned();
    let mut watch = health.watch(HealthCheckRequest { service }).await.unwrap().into_inner();
    // The readiness task may be a moment behind the worker.
    let serving = async {
        while watch.message().await.unwrap().unwrap().status() != ServingStatus::Serving {}
    };
    within(serving).await;
    worker.die();
    let gone = async {
        while watch.message().await.unwrap().unwrap().status() != ServingStatus::NotServing {}
    };
    within(gone).await;
    assert_eq!(
        services(channel).await,
        ["baton.v1.Inference", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection",]
    );
}

/// What reflection lists.
async fn services(channel: Channel) -> Vec<String> {
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let list = MessageRequest::ListServices(String::new());
    let ask = ServerReflectionRequest { host: String::new(), message_request: Some(list) };
    let asked = tokio_stream::iter([ask]);
    let mut client = ServerReflectionClient::new(channel);
    let mut answers = client.server_reflection_info(asked).await.unwrap().into_inner();
    match within(answers.message()).await.unwrap().unwrap().message_response.unwrap() {
        MessageResponse::ListServicesResponse(list) => {
            let mut names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
            names.sort();
            names
        }
        other => panic!("{other:?}"),
    }
}
