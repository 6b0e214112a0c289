//! Errors in the shape of this interface:
//! `{"type":"error","error":{"type","message"},"request_id"}`.

use crate::api::error::{class, with_advice};
use crate::error::{TurnError, clip};
use axum::response::{IntoResponse, Response};
use baton_proto::ids::RequestId;
use http::{Method, StatusCode};
use serde_json::{Value, json};

const REQUEST: &str = "invalid_request_error";

/// The status that says that there is too much to do here.
const OVERLOADED: u16 = 529;

/// The answer to a request that is refused.
pub(in crate::api) fn refusal(error: &TurnError, id: Option<RequestId>) -> Response {
    let status = kind(error).0;
    let response = (status, axum::Json(body(error, id))).into_response();
    with_advice(response, error)
}

/// The body of an error, and the data of an error event inside a stream.
pub(super) fn body(error: &TurnError, id: Option<RequestId>) -> Value {
    envelope(kind(error).1, &words(error), id)
}

fn envelope(kind: &str, message: &str, id: Option<RequestId>) -> Value {
    let id = id.map(|id| format!("req_{id}"));
    json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": id})
}

/// What an error says. Clients look for these words to learn that a conversation has become too
/// long, and shorten it.
fn words(error: &TurnError) -> String {
    match error {
        TurnError::ContextTooLong { prompt, context, .. } => {
            format!("prompt is too long: {prompt} tokens > {context} maximum")
        }
        TurnError::TextTooLong { tokens_min, context, .. } => {
            format!("prompt is too long: {tokens_min} tokens > {context} maximum")
        }
        other => other.to_string(),
    }
}

/// Status and type of an error.
fn kind(error: &TurnError) -> (StatusCode, &'static str) {
    let overloaded = StatusCode::from_u16(OVERLOADED).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    match error {
        TurnError::Invalid(invalid) if invalid.code == "header_not_allowed" => {
            (StatusCode::FORBIDDEN, "permission_error")
        }
        TurnError::Unauthorized(_) => (StatusCode::UNAUTHORIZED, "authentication_error"),
        TurnError::UnknownModel(_) => (StatusCode::NOT_FOUND, "not_found_error"),
        TurnError::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "request_too_large"),
        TurnError::Quota { .. } => (StatusCode::TOO_MANY_REQUESTS, "rate_limit_error"),
        TurnError::Overloaded(_) | TurnError::NoWorker | TurnError::Draining => {
            (overloaded, "overloaded_error")
        }
        TurnError::Deadline => (StatusCode::GATEWAY_TIMEOUT, "timeout_error"),
        TurnError::WorkerLost(_) | TurnError::Internal(_) => {
            (StatusCode::INTERNAL_SERVER_ERROR, "api_error")
        }
        TurnError::Invalid(_)
        | TurnError::ContextTooLong { .. }
        | TurnError::TextTooLong { .. }
        | TurnError::BodyTooSlow
        | TurnError::BodyBroken(_)
        | TurnError::SlowReader => (class(error).0, REQUEST),
    }
}

/// A path below this interface's that is not served.
pub(in crate::api) fn not_found(method: &Method, path: &str) -> Response {
    let message = format!("Unknown request URL: {method} {}.", clip(path));
    (StatusCode::NOT_FOUND, axum::Json(envelope("not_found_error", &message, None))).into_response()
}

/// A path of this interface, but not with this method.
pub(in crate::api) fn wrong_method(method: &Method, path: &str) -> Response {
    let message = format!("Not allowed to {method} on {}.", clip(path));
    let body = envelope(REQUEST, &message, None);
    (StatusCode::METHOD_NOT_ALLOWED, axum::Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Invalid;
    use baton_proto::ids::TenantId;
    use std::time::Duration;

    #[test]
    fn every_error_has_its_status_and_type() {
        let text = || "x".to_owned();
        let long = TurnError::ContextTooLong { prompt: 9, context: 8, param: "messages" };
        let (tenant, after) = (TenantId::anonymous(), Duration::from_millis(1500));
        let header = Invalid { code: "header_not_allowed", ..Invalid::missing("x") };
        for (error, status, kind, after) in [
            (TurnError::Invalid(Invalid::missing("model")), 400, "invalid_request_error", None),
            (TurnError::Unauthorized("x"), 401, "authentication_error", None),
            (TurnError::Invalid(header), 403, "permission_error", None),
            (TurnError::UnknownModel(text()), 404, "not_found_error", None),
            (TurnError::BodyTooLarge, 413, "request_too_large", None),
            (
                TurnError::Quota { tenant, quota: "x", limit: 1, after },
                429,
                "rate_limit_error",
                Some("2"),
            ),
            (TurnError::Internal(text()), 500, "api_error", None),
            (TurnError::WorkerLost(text()), 500, "api_error", Some("1")),
            (TurnError::Deadline, 504, "timeout_error", Some("1")),
            (TurnError::Overloaded(text()), 529, "overloaded_error", Some("1")),
            (TurnError::NoWorker, 529, "overloaded_error", Some("1")),
            (TurnError::Draining, 529, "overloaded_error", Some("1")),
            (long.clone(), 400, "invalid_request_error", None),
            (TurnError::BodyTooSlow, 408, "invalid_request_error", None),
            (TurnError::BodyBroken(text()), 400, "invalid_request_error", None),
        ] {
            let response = refusal(&error, Some(RequestId(7)));
            assert_eq!(response.status().as_u16(), status, "{error:?}");
            let told = response.headers().get("retry-after").map(http::HeaderValue::as_bytes);
            assert_eq!(told, after.map(str::as_bytes), "{error:?}");
            let body = body(&error, Some(RequestId(7)));
            assert_eq!((&body["type"], &body["error"]["type"]), (&json!("error"), &json!(kind)));
            assert_eq!(body["request_id"], format!("req_{}", RequestId(7)));
        }
        assert_eq!(words(&long), "prompt is too long: 9 tokens > 8 maximum");
    }
}
