//! `GET /v1/models` and `GET /v1/models/{id}`.

use super::http::identify;
use crate::error::TurnError;
use crate::service::Service;
use axum::Json;
use axum::extract::{Path, State};
use baton_node::clock::unix_time;
use http::HeaderMap;
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

/// When this router began to serve its model, in seconds since 1970.
static CREATED: LazyLock<u64> = LazyLock::new(|| unix_time().as_secs());

/// From now on the model counts as served.
pub(super) fn note_start() {
    LazyLock::force(&CREATED);
}

/// The one model, under all its names.
pub(super) async fn list(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
) -> Result<Json<Value>, TurnError> {
    identify(&service, &headers)?;
    let names = service.config().model.names();
    let data: Vec<_> = names.map(|name| model(&service, &name)).collect();
    Ok(Json(json!({"object": "list", "data": data, "has_more": false})))
}

/// The model by one of its names.
pub(super) async fn get(
    State(service): State<Arc<Service>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, TurnError> {
    identify(&service, &headers)?;
    if !service.config().model.answers_to(&id) {
        return Err(TurnError::unknown_model(&id));
    }
    Ok(Json(model(&service, &id)))
}

fn model(service: &Service, name: &str) -> Value {
    let mut model = json!({
        "id": name, "object": "model", "created": *CREATED, "owned_by": "baton",
        // What Anthropic's clients read.
        "type": "model", "display_name": name,
    });
    // Not part of the OpenAI interface; harnesses that know it size their prompts by it.
    if let Some(known) = service.cluster().model() {
        model["max_model_len"] = json!(known.description.context_tokens);
    }
    model
}
