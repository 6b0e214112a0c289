//! `POST /tokenize` and `POST /detokenize`, as vLLM has them: what a prompt is in ids, by the model's own
//! template and tokenizer, and what ids read. Nothing is started for either.

use super::body::{json, read};
use super::chat;
use super::completions::{prompt, token_ids};
use super::contract::{CONVERSATION, DETOKENIZE, TOKENIZE};
use super::fields::Object;
use super::http::identify;
use crate::config::Limits;
use crate::error::{Invalid, TurnError};
use crate::metrics::RequestCount;
use crate::service::Service;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use baton_proto::ids::{TenantId, TokenId};
use baton_proto::ir::Prompt;
use bytes::Bytes;
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) async fn tokenize(State(service): State<Arc<Service>>, request: Request) -> Response {
    serve(&service, request, "tokenize", ids).await
}

pub(super) async fn detokenize(State(service): State<Arc<Service>>, request: Request) -> Response {
    serve(&service, request, "detokenize", words).await
}

async fn serve<F>(
    service: &Arc<Service>,
    request: Request,
    name: &'static str,
    answer: impl FnOnce(Arc<Service>, TenantId, Bytes) -> F,
) -> Response
where
    F: Future<Output = Result<Value, TurnError>>,
{
    let mut served = RequestCount::new(service.metrics(), name);
    let response = match take(service, request, answer).await {
        Ok(body) => axum::Json(body).into_response(),
        Err(error) => error.into_response(),
    };
    served.set(response.status().as_u16());
    response
}

async fn take<F>(
    service: &Arc<Service>,
    request: Request,
    answer: impl FnOnce(Arc<Service>, TenantId, Bytes) -> F,
) -> Result<Value, TurnError>
where
    F: Future<Output = Result<Value, TurnError>>,
{
    let mut permit = service.enter()?;
    let visitor = identify(service, request.headers())?;
    service.admit(&mut permit, &visitor)?;
    let (body, _held) = read(service, request).await?;
    answer(service.clone(), visitor.scope(), body).await
}

/// A prompt's ids; with what each of them reads, where that is wanted.
async fn ids(service: Arc<Service>, scope: TenantId, body: Bytes) -> Result<Value, TurnError> {
    let (sender, spelled) = tokio::sync::oneshot::channel();
    let parse = move |config: &crate::config::Config| {
        let (name, prompt, wants_words) = asked(&json(&body)?, &config.limits)?;
        // Nobody listens only when the request is gone.
        let _ = sender.send(wants_words);
        Ok((name, prompt))
    };
    let counted = service.count_tokens(scope, parse).await?;
    let token = |id: &TokenId| service.text().token_text(*id).unwrap_or_default();
    let words = spelled.await.is_ok_and(|wanted| wanted);
    let words: Option<Vec<_>> = words.then(|| counted.ids.iter().map(token).collect());
    Ok(json!({
        "count": counted.ids.len(),
        "max_model_len": counted.context,
        "tokens": counted.ids,
        "token_strs": words,
    }))
}

/// The model's name, what is to be tokenised, and whether each id is to be spelled.
pub(super) fn asked(body: &Value, limits: &Limits) -> Result<(String, Prompt, bool), Invalid> {
    let body = Object::body(body, &TOKENIZE, limits)?;
    let name = body.required_string("model")?.to_owned();
    let words = body.boolean("return_token_strs")?.unwrap_or(false);
    let prompt = match body.get("prompt") {
        Some(value) => {
            alone(body)?;
            prompt(value)?
        }
        None if body.get("messages").is_some() => Prompt::Chat(chat::conversation(body, limits)?),
        None => return Err(Invalid::missing("prompt")),
    };
    Ok((name, prompt, words))
}

/// A prompt is no conversation: what belongs to one would be left out without a word.
fn alone(body: Object<'_>) -> Result<(), Invalid> {
    let names = CONVERSATION.iter().map(|field| field.name).chain(["messages"]);
    match names.into_iter().find(|name| body.get(name).is_some()) {
        None => Ok(()),
        Some(name) => {
            let message = format!("'{name}' and 'prompt' exclude each other.");
            Err(Invalid::value(name, message))
        }
    }
}

/// What ids read, markers included.
async fn words(service: Arc<Service>, _scope: TenantId, body: Bytes) -> Result<Value, TurnError> {
    let parse = move |config: &crate::config::Config| Ok(listed(&json(&body)?, &config.limits)?);
    Ok(json!({"prompt": service.words(parse).await?}))
}

/// The model's name, and the ids.
pub(super) fn listed(body: &Value, limits: &Limits) -> Result<(String, Vec<TokenId>), Invalid> {
    let body = Object::body(body, &DETOKENIZE, limits)?;
    let name = body.required_string("model")?.to_owned();
    let values = body.array("tokens")?.ok_or_else(|| Invalid::missing("tokens"))?;
    Ok((name, token_ids(values, "tokens")?))
}
