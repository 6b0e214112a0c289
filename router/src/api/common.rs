//! What the interfaces have in common: sampling, ends, hints, delivery.

use super::fields::{self, Object};
use super::hints;
use super::responses::Echo;
use crate::config::Limits;
use crate::error::Invalid;
pub(super) use crate::error::{NAME_BYTES_MAX, clip};
use crate::intent::{self, Applied, Bounds, Said};
use baton_proto::ids::{RequestId, TenantId, TokenId};
use baton_proto::ir::{JsonText, Prompt, Request, Sampling, Stop};
use baton_text::SamplingDefaults;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// A parsed call: what to compute, and how to deliver it.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) request: Request,
    pub(crate) delivery: Delivery,
}

/// How the answer is delivered.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Delivery {
    /// As server-sent events.
    pub(crate) stream: bool,
    /// With a last event that carries the usage.
    pub(crate) include_usage: bool,
    /// With `nvext.timing`.
    pub(crate) timing: bool,
    /// With `nvext.worker_id`.
    pub(crate) worker_id: bool,
    /// With `nvext.applied`: what came of the hints.
    pub(crate) applied: Option<Arc<[Applied]>>,
    /// Told apart into text, reasoning and calls, whose names begin so; otherwise it is plain text.
    pub(crate) call_prefix: Option<&'static str>,
    /// With what was taken out of the history.
    pub(crate) edits_told: bool,
    /// What of a response's request its answer tells again.
    pub(crate) echo: Option<Arc<Echo>>,
    /// With a header about fields that nobody knows.
    pub(crate) warning: Option<String>,
}

impl Delivery {
    /// Says something more in the header of warnings, in visible ASCII.
    pub(crate) fn warn(&mut self, about: &str) {
        let before = self.warning.take().map(|warning| format!("{warning}; "));
        self.warning = Some(before.unwrap_or_default() + about);
    }
}

/// What a request gets from its surroundings rather than from its body. Made by the caller, so
/// that parsing draws no entropy.
#[derive(Clone, Debug)]
pub(crate) struct Mint {
    pub(crate) id: RequestId,
    pub(crate) tenant: TenantId,
    /// Whose blocks it may find.
    pub(crate) scope: TenantId,
    pub(crate) deadline: Duration,
    /// Used where the client names no seed.
    pub(crate) seed: u64,
    /// Used where the client does not say how to draw.
    pub(crate) sampling: SamplingDefaults,
    /// What the headers say about intent.
    pub(crate) said: Said,
    /// What hints are clamped to.
    pub(crate) bounds: Bounds,
}

/// What differs between the interfaces, already parsed.
pub(super) struct Parts<'a> {
    pub(super) prompt: Prompt,
    pub(super) stop: Stop,
    /// The field that held `stop.max_tokens`, for messages.
    pub(super) max_tokens_param: &'static str,
    pub(super) choices: u16,
    pub(super) logprobs: Option<u8>,
    /// Beside `thinking_token_budget`, which all have.
    pub(super) thinking_budget: Option<u32>,
    /// The place and the name of the session, where nothing more telling names it.
    pub(super) session: Option<(&'static str, &'a str)>,
}

/// What differs between the two older interfaces of OpenAI's.
pub(super) struct OlderParts {
    pub(super) prompt: Prompt,
    pub(super) max_tokens: Option<u32>,
    /// The field that held `max_tokens`, for messages.
    pub(super) max_tokens_param: &'static str,
    pub(super) logprobs: Option<u8>,
}

/// Things that are ignored and named in a header; what comes beyond is not named.
const IGNORED_NAMED_MAX: usize = 8;

/// Puts a call together from its own parts and the fields that all interfaces share.
pub(super) fn call(
    body: Object<'_>,
    parts: Parts<'_>,
    mint: &Mint,
    limits: &Limits,
) -> Result<Call, Invalid> {
    let Parts { prompt, mut stop, max_tokens_param, choices, logprobs, session, .. } = parts;
    let continues = prompt.is_continued_by_an_answer() && choices == 1;
    let (mut hints, mut applied) = hints::read(body, mint, continues, session)?;
    applied.extend(mint.bounds.limit_answer(&mut stop, choices, max_tokens_param, &mut hints));
    let delivery = delivery(body, applied)?;
    let thinking_budget = body.integer("thinking_token_budget")?.map(|tokens| tokens as u32);
    let request = Request {
        id: mint.id,
        tenant: mint.tenant.clone(),
        scope: mint.scope.clone(),
        deadline: mint.deadline,
        model: body.required_string("model")?.to_owned(),
        sampling: sampling(body, mint, limits)?,
        stop,
        choices,
        logprobs,
        thinking_budget: [parts.thinking_budget, thinking_budget].into_iter().flatten().min(),
        hints,
        prompt,
    };
    Ok(Call { request, delivery })
}

/// The same for the two older interfaces of OpenAI's.
pub(super) fn older_call(
    body: Object<'_>,
    parts: OlderParts,
    mint: &Mint,
    limits: &Limits,
) -> Result<Call, Invalid> {
    let parts = Parts {
        stop: stop(body, &parts, limits)?,
        choices: body.integer("n")?.unwrap_or(1) as u16,
        session: cache_key(body)?,
        thinking_budget: None,
        prompt: parts.prompt,
        max_tokens_param: parts.max_tokens_param,
        logprobs: parts.logprobs,
    };
    let mut call = call(body, parts, mint, limits)?;
    call.delivery.include_usage = include_usage(body, call.delivery.stream)?;
    Ok(call)
}

/// The session, as OpenAI's interfaces name it.
pub(super) fn cache_key(body: Object<'_>) -> Result<Option<(&'static str, &str)>, Invalid> {
    const NAME: &str = "prompt_cache_key";
    Ok(body.string(NAME)?.map(|key| (NAME, key)))
}

/// How tokens are drawn.
fn sampling(body: Object<'_>, mint: &Mint, limits: &Limits) -> Result<Sampling, Invalid> {
    let otherwise = mint.sampling;
    let top_k = body.integer("top_k")?.map(|k| k.max(0) as u32);
    Ok(Sampling {
        temperature: body.number("temperature")?.unwrap_or(otherwise.temperature),
        top_k: top_k.unwrap_or(otherwise.top_k),
        top_p: body.number("top_p")?.unwrap_or(otherwise.top_p),
        min_p: body.number("min_p")?.unwrap_or(otherwise.min_p),
        repetition_penalty: body
            .number("repetition_penalty")?
            .unwrap_or(otherwise.repetition_penalty),
        presence_penalty: body.number("presence_penalty")?.unwrap_or(0.0),
        frequency_penalty: body.number("frequency_penalty")?.unwrap_or(0.0),
        logit_bias: logit_bias(body, limits)?,
        // The bits of a negative seed serve as well as any.
        seed: body.integer("seed")?.map_or(mint.seed, |seed| seed as u64),
    })
}

fn logit_bias(body: Object<'_>, limits: &Limits) -> Result<Vec<(TokenId, f32)>, Invalid> {
    let Some(value) = body.get("logit_bias") else { return Ok(Vec::new()) };
    let entries = Object::new(value, "logit_bias")?.entries();
    if entries.len() > limits.logit_bias_max {
        return Err(too_many("logit_bias", "entries", limits.logit_bias_max, entries.len()));
    }
    entries
        .map(|(key, value)| {
            let path = format!("logit_bias.{}", clip(key));
            let id = key.parse().map_err(|_| {
                Invalid::value(&path, format!("Invalid '{path}': the key must be a token id."))
            })?;
            Ok((id, fields::number(value, &path, -100.0, 100.0)?))
        })
        .collect()
}

fn stop(body: Object<'_>, parts: &OlderParts, limits: &Limits) -> Result<Stop, Invalid> {
    let min_tokens = body.integer("min_tokens")?.unwrap_or(0) as u32;
    let max_tokens = parts.max_tokens.unwrap_or(u32::MAX);
    if min_tokens > max_tokens {
        let message = format!(
            "Invalid 'min_tokens': {min_tokens} is more than '{}' ({max_tokens}).",
            parts.max_tokens_param
        );
        return Err(Invalid::value("min_tokens", message));
    }
    Ok(Stop {
        max_tokens,
        min_tokens,
        strings: stop_strings(body, "stop", limits)?,
        ids: stop_ids(body, limits)?,
        ignore_eos: body.boolean("ignore_eos")?.unwrap_or(false),
    })
}

/// The field with that name: a stop string, or several.
pub(super) fn stop_strings(
    body: Object<'_>,
    name: &str,
    limits: &Limits,
) -> Result<Vec<String>, Invalid> {
    let check = |value: &Value, path: &str| {
        let text = fields::string(value, path)?;
        if text.is_empty() {
            return Err(Invalid::value(
                path,
                format!("Invalid '{path}': a stop string must not be empty."),
            ));
        }
        if text.len() > limits.stop_string_bytes_max {
            return Err(too_many(path, "bytes", limits.stop_string_bytes_max, text.len()));
        }
        Ok(text.to_owned())
    };
    match body.get(name) {
        None => Ok(Vec::new()),
        Some(Value::Array(values)) if values.len() > limits.stop_strings_max => {
            Err(too_many(name, "stop strings", limits.stop_strings_max, values.len()))
        }
        Some(Value::Array(values)) => values
            .iter()
            .enumerate()
            .map(|(i, value)| check(value, &format!("{name}[{i}]")))
            .collect(),
        Some(value @ Value::String(_)) => Ok(vec![check(value, name)?]),
        Some(other) => {
            Err(Invalid::kind(name, "a string or an array of strings", fields::kind(other)))
        }
    }
}

fn stop_ids(body: Object<'_>, limits: &Limits) -> Result<Vec<TokenId>, Invalid> {
    let values = body.array("stop_token_ids")?.unwrap_or(&[]);
    if values.len() > limits.stop_ids_max {
        return Err(too_many("stop_token_ids", "ids", limits.stop_ids_max, values.len()));
    }
    let id = |(i, value)| {
        fields::integer(value, &format!("stop_token_ids[{i}]"), 0, i64::from(u32::MAX))
    };
    values.iter().enumerate().map(|entry| Ok(id(entry)? as TokenId)).collect()
}

/// Whether a stream tells its usage.
fn include_usage(body: Object<'_>, stream: bool) -> Result<bool, Invalid> {
    let Some(value) = body.get("stream_options") else { return Ok(false) };
    if !stream {
        let message = "The 'stream_options' parameter is only allowed when 'stream' is enabled.";
        return Err(Invalid::value("stream_options", message));
    }
    Ok(Object::new(value, "stream_options")?.boolean("include_usage")?.unwrap_or(false))
}

/// Hints that were given for a router's sake are answered without being asked for.
fn delivery(body: Object<'_>, applied: Vec<Applied>) -> Result<Delivery, Invalid> {
    let stream = body.boolean("stream")?.unwrap_or(false);
    let warning = intent::warning(&applied);
    let mut delivery = Delivery { stream, warning, ..Delivery::default() };
    let nvext = body.get("nvext").map(|nvext| Object::new(nvext, "nvext")).transpose()?;
    let hinted = nvext.is_some_and(|nvext| nvext.get("agent_hints").is_some());
    if hinted || body.get("intent").is_some() {
        delivery.applied = Some(applied.into());
    }
    let Some(nvext) = nvext else { return Ok(delivery) };
    let extra = nvext.array("extra_fields")?.unwrap_or(&[]);
    for (i, name) in extra.iter().enumerate() {
        match fields::string(name, &format!("nvext.extra_fields[{i}]"))? {
            "timing" => delivery.timing = true,
            "worker_id" => delivery.worker_id = true,
            // Later versions know more; asking for those is not an error.
            _ => {}
        }
    }
    Ok(delivery)
}

/// Variables for the template, by name.
pub(super) type TemplateArgs = Vec<(String, JsonText)>;

/// Further variables for the template.
pub(super) fn template_args(body: Object<'_>) -> Result<TemplateArgs, Invalid> {
    let Some(value) = body.get("chat_template_kwargs") else { return Ok(Vec::new()) };
    let object = Object::new(value, "chat_template_kwargs")?;
    Ok(object.entries().map(|(name, value)| (name.clone(), fields::text(value))).collect())
}

/// The arguments of a call, of which clients send the text, and an empty one for "none". Templates want
/// an object; what a model has written that is none stays as it is, or the conversation could not go on.
pub(super) fn arguments(text: &str) -> JsonText {
    if text.trim().is_empty() {
        return JsonText("{}".to_owned());
    }
    match serde_json::from_str::<Value>(text) {
        Ok(object @ Value::Object(_)) => fields::text(&object),
        _ => JsonText(text.to_owned()),
    }
}

/// What is said about things that are ignored, before what else is said, as a header takes it.
pub(super) fn with_ignored(ignored: &[String], warning: Option<String>) -> Option<String> {
    // What stands in a header must be visible ASCII.
    let plain = |name: &String| name.replace(|c: char| !c.is_ascii_graphic(), "?");
    let named: Vec<_> = ignored.iter().take(IGNORED_NAMED_MAX).map(plain).collect();
    let ignored = (!named.is_empty()).then(|| format!("ignored: {}", named.join(", ")));
    match (ignored, warning) {
        (Some(one), Some(other)) => Some(format!("{one}; {other}")),
        (one, other) => one.or(other),
    }
}

/// An image where none can be.
pub(super) fn no_images(path: &str) -> Invalid {
    let message = format!("Invalid '{path}': the model takes no images.");
    Invalid::unsupported(path, message)
}

/// A conversation's entries: at least one, and no more than may be. `one` and `several` are what
/// they are called.
pub(super) fn entries<'a>(
    values: &'a [Value],
    path: &str,
    (one, several): (&str, &str),
    max: usize,
) -> Result<&'a [Value], Invalid> {
    if values.is_empty() {
        return Err(empty(path, one));
    }
    if values.len() > max {
        return Err(too_many(path, several, max, values.len()));
    }
    Ok(values)
}

/// The messages of a body, by number within the limit.
pub(super) fn messages<'a>(body: Object<'a>, limits: &Limits) -> Result<&'a [Value], Invalid> {
    let values = body.array("messages")?.ok_or_else(|| Invalid::missing("messages"))?;
    entries(values, "messages", ("message", "messages"), limits.messages_max)
}

/// A list without what it should have.
pub(super) fn empty(path: &str, what: &str) -> Invalid {
    let message = format!("Invalid '{path}': expected at least 1 {what}, but got none.");
    Invalid { param: Some(path.to_owned()), code: "empty_array", message }
}

/// A list or text beyond its limit.
pub(super) fn too_many(path: &str, what: &str, max: usize, got: usize) -> Invalid {
    let message = format!("Invalid '{path}': expected at most {max} {what}, but got {got}.");
    Invalid { param: Some(path.to_owned()), code: "above_max_length", message }
}
