//! From a parsed request to what can be placed: ids within the limits, and their hash chain.
//!
//! Rendering and tokenising take long enough to hold up an async thread, so this runs on the
//! threads for text (see `Service::prepare`).

use super::breakpoints::{self, Breakpoint};
use super::edits::{self, EditKind, Edited};
use super::{Thinking, Voice};
use crate::cluster::Model;
use crate::error::{Invalid, TurnError};
use crate::parse::Style;
use crate::prompts::{Encoded, Prompts};
use baton_kv::hash::Salt;
use baton_proto::ids::{SequenceHash, TenantId, TokenId};
use baton_proto::internal;
use baton_proto::ir::{Chat, Edit, Prompt, Request};
use baton_proto::packed;
use baton_text::{EncodeError, PromptError, RenderError, TextModel};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Number of leading blocks that tenants share; nothing is declared public yet.
pub(crate) const PUBLIC_BLOCKS: u32 = 0;

/// A request that can be placed, again and again if need be.
pub(crate) struct Prepared {
    pub(crate) request: Request,
    pub(crate) model: Arc<Model>,
    pub(crate) ids: Vec<TokenId>,
    /// The hashes of the whole blocks of `ids`.
    pub(crate) chain: Vec<SequenceHash>,
    /// What the client wants to be kept, as places in `ids`.
    pub(crate) breakpoints: Vec<Breakpoint>,
    /// What was taken out of the history, as the client wanted it.
    pub(crate) edited: Vec<Edited>,
    /// What bounds the reasoning of its answers, where anything does.
    pub(crate) thinking: Option<internal::ThinkingBudget>,
    /// How its answers are told apart, where they are.
    pub(crate) voice: Option<Voice>,
    /// The conversation, where its next prompt is to be prepared for.
    pub(crate) chat: Option<Chat>,
    /// How many of `ids` were known from earlier prompts.
    pub(crate) reused_tokens: usize,
    /// Tokens that a choice will probably have: the client's word, or the assumption of the
    /// configuration. Memory is promised for them.
    pub(crate) answer_tokens: u32,
    /// By what the length of its answer is learned.
    pub(crate) length_keys: Vec<u64>,
    /// When the request came.
    pub(crate) arrived: Instant,
    /// When nobody wants the answer any more.
    pub(crate) deadline: Instant,
    /// The ids that end an answer.
    pub(crate) ends: Arc<HashSet<TokenId>>,
}

/// What the router brings to every request.
#[derive(Clone, Copy)]
pub(crate) struct Basis<'a> {
    pub(crate) text: &'a TextModel,
    /// No token stands for more bytes of text.
    pub(crate) token_bytes_max: usize,
    /// How the model writes reasoning and calls.
    pub(crate) style: &'a Style,
    /// How its reasoning can be bounded.
    pub(crate) thinking: &'a Thinking,
    /// What earlier prompts have left.
    pub(crate) prompts: &'a Prompts,
    /// The length of an answer that nobody has said.
    pub(crate) answer_tokens_assumed: u32,
}

/// Checks a request against the model, renders and tokenises its prompt, hashes its blocks.
pub(crate) fn prepare(
    mut request: Request,
    model: Arc<Model>,
    basis: Basis<'_>,
    mut voice: Option<Voice>,
    arrived: Instant,
) -> Result<Prepared, TurnError> {
    let described = &model.description;
    check_vocabulary(&request, described.vocab_size)?;
    let param = prompt_param(&request.prompt);
    // The ids stand for it from here on; a turn lives long, and its text may be large.
    let prompt = std::mem::replace(&mut request.prompt, Prompt::Tokens(Vec::new()));
    let tokenised = tokenise(prompt, &request.scope, &model, basis, param)?;
    let Tokenised { mut encoded, rendered, chat, breakpoints, edited } = tokenised;
    let ids = &encoded.ids;
    if ids.is_empty() {
        let message = format!("Invalid '{param}': the prompt has no tokens.");
        return Err(Invalid::value(param, message).into());
    }
    // An answer needs room for one token.
    let room = (described.context_tokens as usize).saturating_sub(ids.len()) as u32;
    if room == 0 {
        let (prompt, context) = (ids.len(), described.context_tokens);
        return Err(TurnError::ContextTooLong { prompt, context, param });
    }
    request.stop.max_tokens = request.stop.max_tokens.min(room);
    request.stop.min_tokens = request.stop.min_tokens.min(request.stop.max_tokens);
    let salt = Salt { tenant: &request.scope, public_blocks: PUBLIC_BLOCKS };
    let chain = encoded.chain(&model, &salt);
    if let Some(rendered) = rendered {
        if let Some(voice) = &mut voice {
            voice.start.in_reasoning = basis.style.opens_reasoning(&rendered);
        }
        basis.prompts.keep(&model, &request.scope, rendered, &encoded, &chain);
    }
    let thinking = request.thinking_budget.and_then(|tokens_max| {
        let calls = voice.as_ref().is_some_and(|voice| voice.start.tools.is_some());
        basis.thinking.budget(tokens_max, &encoded.ids, calls, basis.text)
    });
    let mut ends: HashSet<_> = request.stop.ids.iter().copied().collect();
    if !request.stop.ignore_eos {
        ends.extend(&described.eos);
    }
    let deadline = arrived + request.deadline;
    let assumed = request.hints.osl.unwrap_or(basis.answer_tokens_assumed);
    let answer_tokens = assumed.min(request.stop.max_tokens);
    let wants_next = request.hints.speculative_prefill;
    Ok(Prepared {
        request,
        reused_tokens: encoded.reused,
        ids: encoded.ids,
        chain,
        breakpoints,
        edited,
        thinking,
        voice,
        chat: chat.filter(|_| wants_next),
        answer_tokens,
        length_keys: Vec::new(),
        arrived,
        deadline,
        ends: Arc::new(ends),
        model,
    })
}

impl Prepared {
    /// Tokens of a block.
    pub(crate) fn block_tokens(&self) -> usize {
        self.model.description.block_tokens as usize
    }

    /// The request as a decode worker gets it.
    pub(crate) fn submit(
        &self,
        prefill: Vec<internal::PeerAddress>,
        now: Instant,
    ) -> internal::Submit {
        let request = &self.request;
        let (sampling, stop) = (&request.sampling, &request.stop);
        let bias = |&(token_id, bias): &(TokenId, f32)| internal::LogitBias { token_id, bias };
        let hints = &request.hints;
        // What has been waited counts.
        let wanted = |within: Duration| within.saturating_sub(now - self.arrived).as_millis();
        let wanted_ms = hints.wanted_within.map(|within| millis(wanted(within)));
        let remaining = self.deadline.saturating_duration_since(now).as_millis();
        internal::Submit {
            request_id: request.id.to_bytes().to_vec(),
            token_ids: packed::pack(&self.ids),
            tenant: request.tenant.0.to_string(),
            public_blocks: PUBLIC_BLOCKS,
            choices: u32::from(request.choices),
            sampling: Some(internal::Sampling {
                temperature: sampling.temperature,
                top_k: sampling.top_k,
                top_p: sampling.top_p,
                min_p: sampling.min_p,
                repetition_penalty: sampling.repetition_penalty,
                presence_penalty: sampling.presence_penalty,
                frequency_penalty: sampling.frequency_penalty,
                logit_bias: sampling.logit_bias.iter().map(bias).collect(),
                seed: sampling.seed,
            }),
            stop: Some(internal::StopRule {
                max_tokens: stop.max_tokens,
                min_tokens: stop.min_tokens,
                ids: stop.ids.clone(),
                ignore_eos: stop.ignore_eos,
            }),
            logprobs: request.logprobs.map(u32::from),
            strict_priority: u32::from(hints.strict_priority),
            priority: hints.priority,
            wanted_ms,
            osl: self.answer_tokens,
            deadline_ms: millis(remaining),
            thinking: self.thinking.clone(),
            prefill,
        }
    }
}

/// Milliseconds for a message.
fn millis(millis: u128) -> u32 {
    u32::try_from(millis).unwrap_or(u32::MAX)
}

/// A prompt in ids, and what it was made from.
struct Tokenised {
    encoded: Encoded,
    /// The text that `encoded` is, where that is worth keeping.
    rendered: Option<String>,
    chat: Option<Chat>,
    breakpoints: Vec<Breakpoint>,
    edited: Vec<Edited>,
}

/// What a prompt has.
pub(crate) struct Counted {
    /// As it would be computed.
    pub(crate) ids: Vec<TokenId>,
    /// So many more if nothing were taken out of the conversation.
    pub(crate) cleared_tokens: usize,
    /// The most that the model takes.
    pub(crate) context: u32,
}

/// A prompt in ids.
pub(crate) fn count(
    prompt: Prompt,
    scope: &TenantId,
    model: &Model,
    basis: Basis<'_>,
) -> Result<Counted, TurnError> {
    let param = prompt_param(&prompt);
    let tokenised = tokenise(prompt, scope, model, basis, param)?;
    let cleared_tokens = tokenised.edited.iter().map(|edited| edited.cleared_tokens).sum();
    let context = model.description.context_tokens;
    Ok(Counted { ids: tokenised.encoded.ids, cleared_tokens, context })
}

/// The prompt's ids. A text that cannot fit the context, whatever its tokens are, is not tokenised:
/// that would take seconds for an answer that is known before.
fn tokenise(
    prompt: Prompt,
    tenant: &TenantId,
    model: &Model,
    basis: Basis<'_>,
    param: &'static str,
) -> Result<Tokenised, TurnError> {
    let Basis { text, prompts, .. } = basis;
    let context = model.description.context_tokens;
    let unusable = |error: PromptError| unusable_prompt(&error, param);
    let bytes_max = (context as usize).saturating_mul(basis.token_bytes_max);
    let check = |bytes: usize| match bytes {
        bytes if bytes > bytes_max => {
            let tokens_min = bytes.div_ceil(basis.token_bytes_max);
            Err(TurnError::TextTooLong { bytes, tokens_min, context, param })
        }
        _ => Ok(()),
    };
    let encode = |rendered: &str| {
        check(rendered.len())?;
        let encoded = prompts.encode(text, model, tenant, rendered);
        encoded.map_err(|error| unusable(error.into()))
    };
    match prompt {
        Prompt::Chat(chat) => {
            let render = |chat: &Chat| text.render(chat).map_err(|error| unusable(error.into()));
            tokenise_chat(chat, text, render, encode)
        }
        Prompt::Text(rendered) => {
            let mut encoded = encode(&rendered)?;
            // Kept are ids that begin where their text begins.
            let shifted = encoded.add_prefix(text);
            let rendered = (!shifted).then_some(rendered);
            Ok(Tokenised { rendered, ..Tokenised::plain(encoded) })
        }
        Prompt::Tokens(ids) => {
            text.check_ids(&ids).map_err(|error| unusable(error.into()))?;
            Ok(Tokenised::plain(Encoded::given(ids)))
        }
    }
}

impl Tokenised {
    fn plain(encoded: Encoded) -> Self {
        let (breakpoints, edited) = (Vec::new(), Vec::new());
        Self { encoded, rendered: None, chat: None, breakpoints, edited }
    }
}

/// A conversation's ids, once it is edited as the client wants it. What the template leaves out does
/// not count, so the rendered text is what is measured.
fn tokenise_chat(
    mut chat: Chat,
    text: &TextModel,
    render: impl Fn(&Chat) -> Result<String, TurnError>,
    encode: impl Fn(&str) -> Result<Encoded, TurnError>,
) -> Result<Tokenised, TurnError> {
    let mut rendered = render(&chat)?;
    let mut encoded = encode(&rendered)?;
    let mut edited = Vec::new();
    for edit in std::mem::take(&mut chat.edits) {
        let Some((shorter, count)) = edits::apply(&edit, &chat, encoded.ids.len()) else {
            continue;
        };
        let anew = render(&shorter)?;
        let encoded_anew = encode(&anew)?;
        let cleared_tokens = encoded.ids.len().saturating_sub(encoded_anew.ids.len());
        if matches!(edit, Edit::ClearToolUses { clear_at_least, .. } if cleared_tokens < clear_at_least)
        {
            continue;
        }
        (chat, rendered, encoded) = (shorter, anew, encoded_anew);
        edited.push(Edited { kind: EditKind::of(&edit), count, cleared_tokens });
    }
    let breakpoints = breakpoints::places(text, &chat, &rendered);
    let breakpoints = breakpoints.into_iter().map(|(place, ttl)| {
        let tokens = if place == rendered.len() {
            encoded.ids.len()
        } else {
            encode(&rendered[..place])?.ids.len().min(encoded.ids.len())
        };
        Ok(Breakpoint { tokens, ttl })
    });
    let breakpoints = breakpoints.collect::<Result<_, TurnError>>()?;
    Ok(Tokenised { encoded, rendered: Some(rendered), chat: Some(chat), breakpoints, edited })
}

/// Ids that the model does not have are refused here, before anything is started for them.
fn check_vocabulary(request: &Request, vocab_size: u32) -> Result<(), Invalid> {
    let check = |ids: &mut dyn Iterator<Item = TokenId>, path: &str| {
        let Some((index, id)) = ids.enumerate().find(|&(_, id)| id >= vocab_size) else {
            return Ok(());
        };
        let message = format!(
            "Invalid '{path}': token id {id} at index {index} is outside the vocabulary of {vocab_size}."
        );
        Err(Invalid::value(path, message))
    };
    if let Prompt::Tokens(ids) = &request.prompt {
        check(&mut ids.iter().copied(), "prompt")?;
    }
    check(&mut request.stop.ids.iter().copied(), "stop_token_ids")?;
    check(&mut request.sampling.logit_bias.iter().map(|(id, _)| *id), "logit_bias")
}

/// The field that holds a prompt of this kind.
fn prompt_param(prompt: &Prompt) -> &'static str {
    match prompt {
        Prompt::Chat(_) => "messages",
        Prompt::Text(_) | Prompt::Tokens(_) => "prompt",
    }
}

fn unusable_prompt(error: &PromptError, param: &str) -> TurnError {
    let field = match error {
        PromptError::Render(RenderError::Argument { field, .. } | RenderError::Image { field }) => {
            field.clone()
        }
        PromptError::Encode(EncodeError::Tokenizer { .. }) => {
            return TurnError::Internal(error.to_string());
        }
        _ => param.to_owned(),
    };
    let message = format!("Invalid '{field}': {error}.");
    Invalid::value(field, message).into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use baton_kv::hash::ChainRoot;
    use baton_proto::internal::ModelDescription;
    use baton_text::TextModel;

    #[test]
    fn text_that_cannot_fit_is_refused_before_it_is_tokenised() {
        let text = TextModel::synthetic(1000);
        let prompts = Prompts::new(1 << 20);
        let style = Style::detect("", |_| None, None, None);
        let basis = Basis {
            text: &text,
            token_bytes_max: 8,
            style: &style,
            thinking: &Thinking::None,
            prompts: &prompts,
            answer_tokens_assumed: 512,
        };
        let tenant = TenantId::anonymous();
        let description = ModelDescription {
            context_tokens: 10,
            block_tokens: 16,
            ..ModelDescription::default()
        };
        let model = Model { description, root: ChainRoot::new(&[0; 32], &[0; 32]) };
        let try_text = |prompt: String| {
            let encoded = tokenise(Prompt::Text(prompt), &tenant, &model, basis, "prompt");
            encoded.map(|tokenised| tokenised.encoded.ids)
        };
        // Whether it fits by its tokens is decided later, by the count.
        assert_eq!(try_text("a".repeat(80)).unwrap().len(), 80);
        let refused =
            TurnError::TextTooLong { bytes: 81, tokens_min: 11, context: 10, param: "prompt" };
        assert_eq!(try_text("a".repeat(81)), Err(refused));
    }
}
