//! `POST /v1/messages/count_tokens`: what a prompt would have, by the model's own template and
//! tokenizer. Nothing is started for it.

use super::error::refusal;
use super::request::counted;
use crate::api::Dialect;
use crate::api::body::{json, read};
use crate::api::http::identify;
use crate::error::TurnError;
use crate::metrics::RequestCount;
use crate::service::{Service, request_id};
use crate::turn::Counted;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use baton_proto::ir::Prompt;
use serde_json::json;
use std::sync::Arc;

/// The name in metrics.
const NAME: &str = "count_tokens";

pub(in crate::api) async fn count_tokens(
    State(service): State<Arc<Service>>,
    request: Request,
) -> Response {
    let mut served = RequestCount::new(service.metrics(), NAME);
    let id = match request_id() {
        Ok(id) => id,
        Err(error) => return refusal(&error, None),
    };
    let response = match count(&service, request).await {
        Ok(counted) => {
            let tokens = counted.ids.len();
            let mut body = json!({"input_tokens": tokens});
            if counted.cleared_tokens > 0 {
                let original = tokens + counted.cleared_tokens;
                body["context_management"] = json!({"original_input_tokens": original});
            }
            axum::Json(body).into_response()
        }
        Err(error) => refusal(&error, Some(id)),
    };
    served.set(response.status().as_u16());
    Dialect::Messages.signed(response, id)
}

async fn count(service: &Arc<Service>, request: Request) -> Result<Counted, TurnError> {
    let mut permit = service.enter()?;
    let visitor = identify(service, request.headers())?;
    service.admit(&mut permit, &visitor)?;
    let (body, _held) = read(service, request).await?;
    let parse = move |config: &crate::config::Config| {
        let (name, chat) = counted(&json(&body)?, &config.limits)?;
        Ok((name, Prompt::Chat(chat)))
    };
    service.count_tokens(visitor.scope(), parse).await
}
