//! A message of the public interface to the internal request.

use crate::api::Mint;
use crate::config::Config;
use crate::error::Invalid;
use crate::intent::{Hint, Reading};
use baton_proto::ir::{
    Chat, Content, Hints, JsonText, Message, Part, Prompt, Request, Role, Sampling, Stop,
};
use baton_proto::v1::{
    Conversation, GenerateRequest, Intent, SamplingParams, StopParams, generate_request,
};
use std::fmt::Display;

/// Parses a request; an empty model name means the only model.
pub(super) fn request(
    message: GenerateRequest,
    mint: &Mint,
    config: &Config,
) -> Result<Request, Invalid> {
    let limits = &config.limits;
    let prompt = match message.prompt.ok_or_else(|| Invalid::missing("prompt"))? {
        generate_request::Prompt::Text(text) => Prompt::Text(text),
        generate_request::Prompt::Tokens(tokens) => Prompt::Tokens(tokens.ids),
        generate_request::Prompt::Chat(conversation) => Prompt::Chat(chat(conversation, config)?),
    };
    let choices = message.n.max(1);
    at_most("n", choices, u32::from(limits.choices_max))?;
    let logprobs = message.logprobs.unwrap_or(0);
    at_most("logprobs", logprobs, u32::from(limits.top_logprobs_max))?;
    let max_tokens = if message.max_tokens == 0 { u32::MAX } else { message.max_tokens };
    let model = match message.model.as_str() {
        "" => config.model.display_name(),
        _ => message.model,
    };
    let continues = prompt.is_continued_by_an_answer() && choices == 1;
    let mut hints = hints(&message.intent.unwrap_or_default(), mint, continues);
    let mut stop = stop(message.stop.unwrap_or_default(), max_tokens, config)?;
    mint.bounds.limit_answer(&mut stop, choices as u16, "max_tokens", &mut hints);
    let params = message.sampling.unwrap_or_default();
    Ok(Request {
        id: mint.id,
        tenant: mint.tenant.clone(),
        scope: mint.scope.clone(),
        deadline: mint.deadline,
        model,
        prompt,
        sampling: sampling(&params, mint.seed, config)?,
        stop,
        choices: choices as u16,
        logprobs: message.logprobs.map(|top| top as u8),
        thinking_budget: params.thinking_token_budget,
        hints,
    })
}

/// The same vocabulary as over HTTP; what came of it has no place in the answer here.
fn hints(intent: &Intent, mint: &Mint, continues: bool) -> Hints {
    let mut reading = Reading::new(mint.bounds.clone(), continues);
    mint.said.tell(&mut reading);
    let numbers = [
        (Hint::StrictPriority, "intent.strict_priority", intent.strict_priority.map(i64::from)),
        (Hint::Priority, "intent.priority", intent.priority.map(i64::from)),
        (Hint::Osl, "intent.osl", intent.osl.map(i64::from)),
        (Hint::DeadlineMs, "intent.deadline_ms", intent.deadline_ms.map(i64::from)),
    ];
    for (hint, place, said) in numbers {
        if let Some(said) = said {
            reading.number(hint, place, said);
        }
    }
    for (hint, place, said) in [
        (Hint::Session, "intent.session", &intent.session),
        (Hint::Parent, "intent.parent", &intent.parent),
    ] {
        if let Some(said) = said {
            reading.name(hint, place, said);
        }
    }
    if let Some(said) = intent.speculative_prefill {
        reading.wish(Hint::SpeculativePrefill, "intent.speculative_prefill", said);
    }
    mint.said.tell_identity(&mut reading);
    reading.finish().0
}

fn chat(conversation: Conversation, config: &Config) -> Result<Chat, Invalid> {
    let messages = conversation.messages;
    if messages.is_empty() {
        return Err(Invalid::value(
            "chat.messages",
            "'chat.messages': expected at least 1 message.",
        ));
    }
    at_most("chat.messages", messages.len(), config.limits.messages_max)?;
    at_most("chat.tools_json", conversation.tools_json.len(), config.limits.tools_max)?;
    let messages = messages.into_iter().enumerate().map(|(i, message)| {
        let role = role(&message.role, i)?;
        let text = message.content;
        let part = match role {
            Role::Tool => Content::ToolResult { call_id: None, text, is_error: false }.into(),
            _ => Part::text(text),
        };
        Ok(Message { role, parts: vec![part], name: None })
    });
    Ok(Chat {
        messages: messages.collect::<Result<_, _>>()?,
        tools: conversation.tools_json.into_iter().map(|tool| JsonText(tool).into()).collect(),
        add_generation_prompt: true,
        ..Chat::default()
    })
}

fn role(name: &str, index: usize) -> Result<Role, Invalid> {
    let roles = [Role::System, Role::Developer, Role::User, Role::Assistant, Role::Tool];
    roles.into_iter().find(|role| role.as_str() == name).ok_or_else(|| {
        let path = format!("chat.messages[{index}].role");
        let message =
            format!("Invalid '{path}': expected one of system, developer, user, assistant, tool.");
        Invalid::value(path, message)
    })
}

fn sampling(params: &SamplingParams, seed: u64, config: &Config) -> Result<Sampling, Invalid> {
    at_most("sampling.logit_bias", params.logit_bias.len(), config.limits.logit_bias_max)?;
    let mut logit_bias: Vec<_> = params.logit_bias.iter().map(|(id, bias)| (*id, *bias)).collect();
    // A map has no order; equal requests shall be equal.
    logit_bias.sort_unstable_by_key(|(id, _)| *id);
    for (id, bias) in &logit_bias {
        within(&format!("sampling.logit_bias[{id}]"), *bias, -100.0, 100.0)?;
    }
    let field = |name: &str, value: Option<f32>, neutral: f32, min: f32, max: f32| {
        within(&format!("sampling.{name}"), value.unwrap_or(neutral), min, max)
    };
    Ok(Sampling {
        temperature: field("temperature", params.temperature, 0.0, 0.0, 2.0)?,
        top_k: params.top_k.unwrap_or(0),
        top_p: field("top_p", params.top_p, 1.0, f32::MIN_POSITIVE, 1.0)?,
        min_p: field("min_p", params.min_p, 0.0, 0.0, 1.0)?,
        repetition_penalty: field(
            "repetition_penalty",
            params.repetition_penalty,
            1.0,
            f32::MIN_POSITIVE,
            10.0,
        )?,
        presence_penalty: field("presence_penalty", params.presence_penalty, 0.0, -2.0, 2.0)?,
        frequency_penalty: field("frequency_penalty", params.frequency_penalty, 0.0, -2.0, 2.0)?,
        logit_bias,
        seed: params.seed.unwrap_or(seed),
    })
}

fn stop(params: StopParams, max_tokens: u32, config: &Config) -> Result<Stop, Invalid> {
    let limits = &config.limits;
    at_most("stop.strings", params.strings.len(), limits.stop_strings_max)?;
    at_most("stop.token_ids", params.token_ids.len(), limits.stop_ids_max)?;
    at_most("stop.min_tokens", params.min_tokens, max_tokens)?;
    for (i, text) in params.strings.iter().enumerate() {
        let path = format!("stop.strings[{i}]");
        if text.is_empty() {
            let message = format!("Invalid '{path}': a stop string must not be empty.");
            return Err(Invalid::value(path, message));
        }
        at_most(&path, text.len(), limits.stop_string_bytes_max)?;
    }
    Ok(Stop {
        max_tokens,
        min_tokens: params.min_tokens,
        strings: params.strings,
        ids: params.token_ids,
        ignore_eos: params.ignore_eos,
    })
}

fn at_most<T: PartialOrd + Display + Copy>(path: &str, value: T, max: T) -> Result<(), Invalid> {
    if value <= max {
        return Ok(());
    }
    let message = format!("Invalid '{path}': expected at most {max}, but got {value}.");
    Err(Invalid::value(path, message))
}

fn within(path: &str, value: f32, min: f32, max: f32) -> Result<f32, Invalid> {
    // Written so that a NaN is refused.
    if value >= min && value <= max {
        return Ok(value);
    }
    let message = format!("Invalid '{path}': expected {min} to {max}, but got {value}.");
    Err(Invalid::value(path, message))
}
