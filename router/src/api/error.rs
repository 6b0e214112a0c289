//! Errors in the shape of the OpenAI interface: `{"error":{"message","type","param","code"}}`.

use super::body::UNSUPPORTED_MEDIA;
use crate::error::{TurnError, clip};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use std::time::Duration;

/// The body of an error, and the data of an error event inside a stream.
#[derive(Serialize, PartialEq, Eq, Debug)]
pub(crate) struct ErrorBody {
    error: ErrorFields,
}

#[derive(Serialize, PartialEq, Eq, Debug)]
struct ErrorFields {
    message: String,
    #[serde(rename = "type")]
    kind: &'static str,
    param: Option<String>,
    code: Option<&'static str>,
}

impl From<&TurnError> for ErrorBody {
    fn from(error: &TurnError) -> Self {
        let (_, kind, code) = class(error);
        let param = match error {
            TurnError::Invalid(invalid) => invalid.param.clone(),
            TurnError::UnknownModel(_) => Some("model".to_owned()),
            TurnError::ContextTooLong { param, .. } | TurnError::TextTooLong { param, .. } => {
                Some((*param).to_owned())
            }
            _ => None,
        };
        Self { error: ErrorFields { message: error.to_string(), kind, param, code: Some(code) } }
    }
}

impl IntoResponse for TurnError {
    fn into_response(self) -> Response {
        (&self).into_response()
    }
}

impl IntoResponse for &TurnError {
    fn into_response(self) -> Response {
        let response = (class(self).0, axum::Json(ErrorBody::from(self))).into_response();
        with_advice(response, self)
    }
}

/// Adds the headers that say what to do about an error.
pub(super) fn with_advice(mut response: Response, error: &TurnError) -> Response {
    if let Some(after) = error.retry_after() {
        let value = HeaderValue::from(whole_seconds(after));
        response.headers_mut().insert(header::RETRY_AFTER, value);
    }
    if response.status() == StatusCode::UNAUTHORIZED {
        let scheme = HeaderValue::from_static("Bearer");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
    }
    response
}

/// Whoever comes back after that finds the time over.
fn whole_seconds(span: Duration) -> u64 {
    (span.as_secs() + u64::from(span.subsec_nanos() > 0)).max(1)
}

/// Status, type and code of an error.
pub(super) fn class(error: &TurnError) -> (StatusCode, &'static str, &'static str) {
    const REQUEST: &str = "invalid_request_error";
    const SERVER: &str = "server_error";
    match error {
        TurnError::Invalid(invalid) if invalid.code == UNSUPPORTED_MEDIA => {
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, REQUEST, invalid.code)
        }
        TurnError::Invalid(invalid) => (StatusCode::BAD_REQUEST, REQUEST, invalid.code),
        TurnError::Unauthorized(_) => (StatusCode::UNAUTHORIZED, REQUEST, "invalid_api_key"),
        TurnError::UnknownModel(_) => (StatusCode::NOT_FOUND, REQUEST, "model_not_found"),
        TurnError::ContextTooLong { .. } | TurnError::TextTooLong { .. } => {
            (StatusCode::BAD_REQUEST, REQUEST, "context_length_exceeded")
        }
        TurnError::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, REQUEST, "body_too_large"),
        TurnError::BodyTooSlow => (StatusCode::REQUEST_TIMEOUT, REQUEST, "body_timeout"),
        TurnError::BodyBroken(_) => (StatusCode::BAD_REQUEST, REQUEST, "body_incomplete"),
        TurnError::Overloaded(_) => {
            (StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", "overloaded")
        }
        TurnError::Quota { .. } => {
            (StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", "quota_exceeded")
        }
        TurnError::NoWorker => (StatusCode::SERVICE_UNAVAILABLE, SERVER, "no_worker"),
        TurnError::Draining => (StatusCode::SERVICE_UNAVAILABLE, SERVER, "draining"),
        TurnError::Deadline => (StatusCode::SERVICE_UNAVAILABLE, SERVER, "deadline_exceeded"),
        TurnError::WorkerLost(_) => (StatusCode::SERVICE_UNAVAILABLE, SERVER, "worker_lost"),
        TurnError::SlowReader => (StatusCode::REQUEST_TIMEOUT, REQUEST, "slow_reader"),
        TurnError::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, SERVER, "internal_error"),
    }
}

/// A path that is not served.
pub(super) fn not_found(method: &http::Method, path: &str) -> Response {
    plain(
        StatusCode::NOT_FOUND,
        format!("Unknown request URL: {method} {}.", clip(path)),
        "unknown_url",
    )
}

/// A path that is served, but not with this method.
pub(super) fn wrong_method(method: &http::Method, path: &str) -> Response {
    let message = format!("Not allowed to {method} on {}.", clip(path));
    plain(StatusCode::METHOD_NOT_ALLOWED, message, "method_not_supported")
}

fn plain(status: StatusCode, message: String, code: &'static str) -> Response {
    let fields =
        ErrorFields { message, kind: "invalid_request_error", param: None, code: Some(code) };
    (status, axum::Json(ErrorBody { error: fields })).into_response()
}

/// The HTTP status of an error.
pub(crate) fn status(error: &TurnError) -> u16 {
    class(error).0.as_u16()
}
