//! The gRPC interface, package `baton.v1`, on the same port as HTTP: generation as a server
//! stream, the standard health service, and reflection.

mod parse;

use crate::api::{Call, Delivery, status as http_status};
use crate::error::{Invalid, NAME_BYTES_MAX, TurnError};
use crate::intent::Said;
use crate::metrics::RequestCount;
use crate::placing::{self, EXPLAIN_HEADER, Explain, POLICY_HEADER, Placing};
use crate::service::{Service, request_id};
use crate::tenancy::{Named, Visitor};
use crate::turn::{AnswerToken, Delta, Summary, Turn};
use axum::Router;
use baton_proto::PUBLIC_DESCRIPTORS;
use baton_proto::ir::FinishReason;
use baton_proto::v1::inference_server::{Inference, InferenceServer};
use baton_proto::v1::{
    Alternative, GenerateRequest, GenerateResponse, ListModelsRequest, ListModelsResponse, Model,
    TokenLogprobs, Usage,
};
use prost::Message as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::server::NamedService;
use tonic::{Code, Request, Response, Status};
use tonic_health::server::HealthReporter;

type Message = Result<GenerateResponse, Status>;

/// The services under their paths, and where to say whether the router can serve.
pub(crate) fn routes(service: &Arc<Service>) -> Result<(Router, HealthReporter), ReflectionError> {
    let (reporter, health) = tonic_health::server::health_reporter();
    let bytes_max = service
        .config()
        .serve
        .body_bytes_max
        .at()
        .map_or(usize::MAX, baton_node::config::ByteSize::bytes);
    let inference = InferenceServer::new(Api(service.clone())).max_decoding_message_size(bytes_max);
    let describe = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(PUBLIC_DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let router = mount(Router::new(), inference);
    let router = mount(router, health);
    let router = mount(router, describe().build_v1()?);
    // What most installed clients still speak.
    let router = mount(router, describe().build_v1alpha()?);
    Ok((router, reporter))
}

pub(crate) type ReflectionError = tonic_reflection::server::Error;

/// The name that health is reported under, beside the empty one for the whole server.
pub(crate) const INFERENCE: &str = <InferenceServer<Api> as NamedService>::NAME;

fn mount<S>(router: Router, service: S) -> Router
where
    S: tower::Service<
            http::Request<axum::body::Body>,
            Response = http::Response<tonic::body::Body>,
            Error = std::convert::Infallible,
        > + NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
{
    router.route_service(&format!("/{}/{{*method}}", S::NAME), service)
}

/// The implementation of `baton.v1.Inference`.
pub(crate) struct Api(Arc<Service>);

#[tonic::async_trait]
impl Inference for Api {
    type GenerateStream = ReceiverStream<Message>;

    async fn generate(
        &self,
        request: Request<GenerateRequest>,
    ) -> Result<Response<Self::GenerateStream>, Status> {
        let mut count = RequestCount::new(self.0.metrics(), "grpc_generate");
        match begin(&self.0, request).await {
            Ok(turn) => Ok(Response::new(stream(&self.0, turn, count)?)),
            Err(error) => {
                count.set(http_status(&error));
                Err(status(&error))
            }
        }
    }

    async fn list_models(
        &self,
        request: Request<ListModelsRequest>,
    ) -> Result<Response<ListModelsResponse>, Status> {
        identify(&self.0, request.metadata(), None).map_err(|error| status(&error))?;
        let known = self.0.cluster().model();
        let context_tokens = known.map_or(0, |model| model.description.context_tokens);
        let id = self.0.config().model.display_name();
        Ok(Response::new(ListModelsResponse { models: vec![Model { id, context_tokens }] }))
    }
}

async fn begin(
    service: &Arc<Service>,
    request: Request<GenerateRequest>,
) -> Result<Turn, TurnError> {
    let mut permit = service.enter()?;
    let visitor = visitor(service, &request)?;
    service.admit(&mut permit, &visitor)?;
    let deadline = deadline(&request);
    let placing = placing(service, &request)?;
    let metadata = request.metadata();
    let said = Said::read(|name| metadata.get(name).and_then(|value| value.to_str().ok()))?;
    let request = request.into_inner();
    // Beyond the connection's own limits a message is counted only once it is whole.
    let mut held = service.bodies().enter();
    held.grow(request.encoded_len())?;
    let mut mint = service.mint(request_id()?, &visitor, said)?;
    mint.deadline = deadline.map_or(mint.deadline, |deadline| deadline.min(mint.deadline));
    let deadline = mint.deadline;
    let parse = move |config: &crate::config::Config| {
        let request = parse::request(request, &mint, config)?;
        Ok(Call { request, delivery: Delivery::default() })
    };
    let (prepared, _) = service.prepare(deadline, parse).await?;
    drop(held);
    service.tenancy().charge(&prepared.request.tenant, prepared.ids.len())?;
    Turn::begin(service.clone(), prepared, placing, permit).await
}

/// Who asks, by the metadata and the message's own word.
fn visitor(service: &Service, request: &Request<GenerateRequest>) -> Result<Visitor, TurnError> {
    let tenant = &request.get_ref().tenant;
    if tenant.len() > NAME_BYTES_MAX {
        let message = format!(
            "Invalid 'tenant': expected at most {NAME_BYTES_MAX} bytes, but got {}.",
            tenant.len()
        );
        return Err(Invalid::value("tenant", message).into());
    }
    let named = (!tenant.is_empty()).then_some(("tenant", tenant.as_str()));
    identify(service, request.metadata(), named)
}

fn identify(
    service: &Service,
    metadata: &MetadataMap,
    named: Named<'_>,
) -> Result<Visitor, TurnError> {
    let values = |name: &'static str| metadata.get_all(name).iter().map(MetadataValue::as_bytes);
    service.tenancy().identify(values("authorization"), values("x-api-key"), named)
}

/// What the metadata says about where the turn goes. Reasons have no place in the answer here; who
/// asks for a dry run must not get a turn.
fn placing<T>(service: &Service, request: &Request<T>) -> Result<Placing, Invalid> {
    let values = |name| request.metadata().get_all(name).iter().map(MetadataValue::as_bytes);
    let config = &service.config().placement;
    let placing = Placing::read(config, values(POLICY_HEADER), values(EXPLAIN_HEADER))?;
    match placing.explain {
        Explain::Off => Ok(placing),
        _ => Err(placing::refuse(EXPLAIN_HEADER, "only the HTTP interface tells decisions")),
    }
}

/// What the client's own deadline leaves, in the notation of gRPC: digits and a unit.
fn deadline<T>(request: &Request<T>) -> Option<Duration> {
    let text = request.metadata().get("grpc-timeout")?.to_str().ok()?;
    let (count, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let count: u64 = count.parse().ok().filter(|count| *count < 100_000_000)?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

/// A task carries the answer to the connection. It ends the turn when the client is gone, and cuts a
/// client that does not read.
fn stream(
    service: &Arc<Service>,
    turn: Turn,
    mut count: RequestCount,
) -> Result<ReceiverStream<Message>, Status> {
    let (messages, stream) = mpsc::channel(service.config().limits.stream_pieces_max);
    let slow_reader = service.config().timeouts.slow_reader.0;
    let carry = async move {
        if let Some(code) = carry(turn, messages, slow_reader).await {
            count.set(code);
        }
    };
    service
        .tasks()
        .try_spawn("stream", carry)
        .map_err(|error| status(&TurnError::Overloaded(error.to_string())))?;
    Ok(ReceiverStream::new(stream))
}

/// Carries an answer; the status it ended with, `None` if the client left.
async fn carry(
    mut turn: Turn,
    messages: mpsc::Sender<Message>,
    slow_reader: Duration,
) -> Option<u16> {
    let mut next = Ok(GenerateResponse::default());
    loop {
        let failed = next.as_ref().err().map(http_status);
        let message = next.map_err(|error| status(&error));
        match tokio::time::timeout(slow_reader, messages.send(message)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return None,
            Err(_) => return Some(http_status(&TurnError::SlowReader)),
        }
        if failed.is_some() {
            return failed;
        }
        let delta = tokio::select! {
            delta = turn.next() => delta,
            () = messages.closed() => return None,
        };
        next = match delta {
            Some(Ok(delta)) => {
                let last = turn.is_complete().then(|| turn.summary());
                Ok(response(delta, last.as_ref()))
            }
            Some(Err(error)) => Err(error),
            None => return Some(200),
        };
    }
}

fn response(delta: Delta, last: Option<&Summary>) -> GenerateResponse {
    let finish_reason = match delta.finish {
        None => "",
        Some(FinishReason::Stop) => "stop",
        Some(FinishReason::Length) => "length",
    };
    GenerateResponse {
        choice: u32::from(delta.choice),
        token_ids: delta.tokens.iter().map(|token| token.id).collect(),
        logprobs: delta.tokens.iter().filter_map(logprobs).collect(),
        text: delta.text,
        finish_reason: finish_reason.to_owned(),
        usage: last.map(|summary| Usage {
            prompt_tokens: summary.prompt_tokens as u32,
            cached_tokens: summary.cached_tokens as u32,
            completion_tokens: summary.completion_tokens as u32,
        }),
    }
}

fn logprobs(token: &AnswerToken) -> Option<TokenLogprobs> {
    let logprob = token.logprob.as_ref()?;
    let top = logprob.top_ids.iter().zip(&logprob.top_logprobs);
    let top = top.map(|(&token_id, &logprob)| Alternative { token_id, logprob }).collect();
    Some(TokenLogprobs { token_id: token.id, logprob: logprob.logprob, top })
}

/// An error as gRPC says it.
fn status(error: &TurnError) -> Status {
    let code = match error {
        TurnError::Invalid(_)
        | TurnError::ContextTooLong { .. }
        | TurnError::TextTooLong { .. } => Code::InvalidArgument,
        TurnError::UnknownModel(_) => Code::NotFound,
        TurnError::Unauthorized(_) => Code::Unauthenticated,
        TurnError::BodyTooLarge | TurnError::Overloaded(_) | TurnError::Quota { .. } => {
            Code::ResourceExhausted
        }
        TurnError::NoWorker | TurnError::Draining | TurnError::WorkerLost(_) => Code::Unavailable,
        TurnError::Deadline => Code::DeadlineExceeded,
        TurnError::BodyTooSlow | TurnError::BodyBroken(_) | TurnError::SlowReader => Code::Aborted,
        TurnError::Internal(_) => Code::Internal,
    };
    Status::new(code, error.to_string())
}
