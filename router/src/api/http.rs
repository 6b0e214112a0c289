//! The routes, and the way of a request from its bytes to its answer.

use super::body::{json, read};
use super::common::{Call, Delivery, Mint, NAME_BYTES_MAX};
use super::writer::AnswerWriter;
use super::{Dialect, capabilities, contract, error, explain, messages, models, sse, tokens};
use crate::config::Config;
use crate::error::{Invalid, TurnError};
use crate::intent::Said;
use crate::metrics::RequestCount;
use crate::placing::{EXPLAIN_HEADER, Explain, POLICY_HEADER, Placing};
use crate::service::{Service, request_id};
use crate::tenancy::Visitor;
use crate::turn::{self, Turn};
use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use baton_node::clock::unix_time;
use baton_proto::ids::RequestId;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// Says what of a request nobody here knows.
const WARNING_HEADER: HeaderName = HeaderName::from_static("x-baton-warning");
/// Who asks. Without a tenants file, as trustworthy as whoever may reach this port.
const TENANT_HEADER: &str = "x-baton-tenant";

/// Everything a client can ask for over HTTP.
pub(crate) fn routes(service: Arc<Service>) -> Router {
    models::note_start();
    // What it depends on does not change as the router runs.
    let document = Bytes::from(contract::openapi(&service.config().limits).to_string());
    let described = async move || ([(CONTENT_TYPE, "application/json")], document);
    Router::new()
        .route("/v1/chat/completions", post(chat_completions))
        .route("/v1/completions", post(text_completions))
        .route("/v1/responses", post(create_response))
        .route("/v1/messages", post(create_message))
        .route("/v1/messages/count_tokens", post(messages::count_tokens))
        .route("/tokenize", post(tokens::tokenize))
        .route("/detokenize", post(tokens::detokenize))
        .route("/v1/models", get(models::list))
        .route("/v1/capabilities", get(capabilities::get))
        .route("/openapi.json", get(described))
        // Names may contain slashes.
        .route("/v1/models/{*id}", get(models::get))
        .route("/health", get(async || axum::Json(serde_json::json!({"status": "ok"}))))
        // Some clients look first whether anybody is there.
        .route("/", get(async || "baton\n"))
        .fallback(async |service: State<Arc<Service>>, method: Method, uri: Uri| {
            unserved(&service, not_found(&method, uri.path()))
        })
        .method_not_allowed_fallback(
            async |service: State<Arc<Service>>, method: Method, uri: Uri| {
                unserved(&service, wrong_method(&method, uri.path()))
            },
        )
        .with_state(service)
}

/// Counts what belongs to no interface: a client that asks for it may lack something here.
fn unserved(service: &Service, response: Response) -> Response {
    service.metrics().request("none", response.status().as_u16());
    response
}

/// A path that is not served, in the words of the dialect that it looks like.
fn not_found(method: &Method, path: &str) -> Response {
    if path.starts_with(messages::PATH) {
        return messages::not_found(method, path);
    }
    error::not_found(method, path)
}

fn wrong_method(method: &Method, path: &str) -> Response {
    if path.starts_with(messages::PATH) {
        return messages::wrong_method(method, path);
    }
    error::wrong_method(method, path)
}

async fn chat_completions(State(service): State<Arc<Service>>, request: Request) -> Response {
    answer(service, Dialect::Chat, request).await
}

async fn text_completions(State(service): State<Arc<Service>>, request: Request) -> Response {
    answer(service, Dialect::Completions, request).await
}

async fn create_message(State(service): State<Arc<Service>>, request: Request) -> Response {
    answer(service, Dialect::Messages, request).await
}

async fn create_response(State(service): State<Arc<Service>>, request: Request) -> Response {
    answer(service, Dialect::Responses, request).await
}

/// Counts the request and answers it, well or badly.
async fn answer(service: Arc<Service>, dialect: Dialect, request: Request) -> Response {
    let mut count = RequestCount::new(service.metrics(), dialect.name());
    let id = match request_id() {
        Ok(id) => id,
        Err(error) => return error.into_response(),
    };
    let response = match begin(&service, dialect, id, request).await {
        Ok(Begun::Decided(decision)) => {
            count.set(200);
            axum::Json(decision).into_response()
        }
        Ok(Begun::Turn(turn, mut delivery)) => {
            let (stream, warning) = (delivery.stream, delivery.warning.take());
            let writer = dialect.writer(&turn, delivery, service.text(), received(&turn));
            let response = if stream {
                sse::respond(&service, turn, writer, count)
            } else {
                let refused = |error: TurnError| dialect.refusal(&error, id);
                whole(*turn, writer, count).await.unwrap_or_else(refused)
            };
            warned(response, warning)
        }
        Err(error) => {
            let response = dialect.refusal(&error, id);
            count.set(response.status().as_u16());
            response
        }
    };
    dialect.signed(response, id)
}

/// The answer in one piece.
async fn whole(
    turn: Turn,
    writer: Box<dyn AnswerWriter>,
    mut count: RequestCount,
) -> Result<Response, TurnError> {
    let answer = collect(turn, writer).await;
    count.set(answer.as_ref().map_or_else(error::status, |_| 200));
    Ok(axum::Json(answer?).into_response())
}

fn warned(mut response: Response, warning: Option<String>) -> Response {
    if let Some(value) = warning.and_then(|warning| HeaderValue::try_from(warning).ok()) {
        response.headers_mut().insert(WARNING_HEADER, value);
    }
    response
}

/// What a request has led to.
enum Begun {
    /// An admitted turn.
    Turn(Box<Turn>, Delivery),
    /// Nothing but a decision, told.
    Decided(Value),
}

/// From the request to an admitted turn. Dropping this future, as happens when the client goes,
/// cancels whatever was started.
async fn begin(
    service: &Arc<Service>,
    dialect: Dialect,
    id: RequestId,
    request: Request,
) -> Result<Begun, TurnError> {
    let mut permit = service.enter()?;
    let visitor = identify(service, request.headers())?;
    service.admit(&mut permit, &visitor)?;
    let placing = placing(service, request.headers())?;
    let mint = mint(service, id, &visitor, request.headers())?;
    let (body, held) = read(service, request).await?;
    let deadline = mint.deadline;
    let parse = move |config: &Config| parse(dialect, &body, &mint, config);
    let (prepared, delivery) = service.prepare(deadline, parse).await?;
    drop(held);
    if placing.explain == Explain::DryRun {
        let why = turn::explain(service, &prepared, placing).await?;
        return Ok(Begun::Decided(explain::dry_run(&why)));
    }
    service.tenancy().charge(&prepared.request.tenant, prepared.ids.len())?;
    let turn = Turn::begin(service.clone(), prepared, placing, permit).await?;
    Ok(Begun::Turn(Box::new(turn), delivery))
}

fn placing(service: &Service, headers: &HeaderMap) -> Result<Placing, Invalid> {
    let values = |name| headers.get_all(name).iter().map(http::HeaderValue::as_bytes);
    Placing::read(&service.config().placement, values(POLICY_HEADER), values(EXPLAIN_HEADER))
}

/// When the request came, since 1970.
fn received(turn: &Turn) -> Duration {
    unix_time().saturating_sub(turn.prepared().arrived.elapsed())
}

fn mint(
    service: &Service,
    id: RequestId,
    visitor: &Visitor,
    headers: &HeaderMap,
) -> Result<Mint, TurnError> {
    let said = Said::read(|name| headers.get(name).and_then(|value| value.to_str().ok()))?;
    service.mint(id, visitor, said)
}

/// Who asks.
pub(super) fn identify(service: &Service, headers: &HeaderMap) -> Result<Visitor, TurnError> {
    let values = |name| headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let named = tenant(headers)?.map(|name| (TENANT_HEADER, name));
    service.tenancy().identify(values("authorization"), values("x-api-key"), named)
}

/// The tenant that the header names. One that cannot be taken as it stands is refused: to take it
/// for nobody's would put what the tenant computes where others find it.
fn tenant(headers: &HeaderMap) -> Result<Option<&str>, Invalid> {
    let refuse = |expected: &str| {
        let message = format!("Invalid header '{TENANT_HEADER}': expected {expected}.");
        Invalid::value(TENANT_HEADER, message)
    };
    let mut values = headers.get_all(TENANT_HEADER).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(refuse("it once"));
    }
    if value.is_empty() || value.len() > NAME_BYTES_MAX {
        return Err(refuse(&format!("1 to {NAME_BYTES_MAX} bytes, but got {}", value.len())));
    }
    match value.to_str() {
        Ok(name) if name.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(Some(name)),
        _ => Err(refuse("visible ASCII characters")),
    }
}

/// The body of a request to what it asks for.
pub(crate) fn parse(
    dialect: Dialect,
    body: &[u8],
    mint: &Mint,
    config: &Config,
) -> Result<Call, TurnError> {
    Ok(dialect.parse(&json(body)?, mint, &config.limits)?)
}

/// Waits for the whole answer.
async fn collect(mut turn: Turn, mut writer: Box<dyn AnswerWriter>) -> Result<Value, TurnError> {
    while let Some(delta) = turn.next().await {
        writer.keep(delta?);
    }
    Ok(writer.whole(&turn.summary()))
}
