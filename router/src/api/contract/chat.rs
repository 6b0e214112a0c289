//! `POST /v1/chat/completions`.

use super::shared::{
    ADDED, EFFORT_MEANING, MODEL, OLDER, SAMPLING, SERIAL_CALLS, TEMPLATE_ARGS, temperature,
};
use super::{Body, But, COUNT_MAX, Field, Kind, Most, ignored, refused, supported};
use crate::api::effort::EFFORTS;

pub(in crate::api) const CHAT: Body = Body {
    path: "/v1/chat/completions",
    fields: &[OWN, CONVERSATION, &[temperature(2.0)], SAMPLING, OLDER, ADDED, IGNORED],
    names_unknown: false,
};

const OWN: &[Field] = &[
    MODEL,
    supported("messages", Kind::Schema("ChatMessages"), "none is moved or merged").required(),
    supported(
        "max_completion_tokens",
        Kind::Integer(1, COUNT_MAX),
        "the newer name of `max_tokens`; it wins",
    ),
    supported("logprobs", Kind::Boolean, "log-probabilities of the drawn tokens"),
    supported(
        "top_logprobs",
        Kind::Integer(0, Most::Limit(|limits| i64::from(limits.top_logprobs_max))),
        "and of the likeliest; only with `logprobs`",
    ),
];

/// What makes the prompt of a conversation, beside its messages.
pub(in crate::api) const CONVERSATION: &[Field] = &[
    supported("tools", Kind::Schema("ChatTools"), "given to the chat template, keys in your order"),
    supported(
        "tool_choice",
        Kind::Schema("ChatToolChoice"),
        "`auto`, or `none`: what looks like a call is text; a call cannot be enforced, so others are refused",
    ),
    SERIAL_CALLS,
    supported("reasoning_effort", Kind::Words(&EFFORTS), EFFORT_MEANING),
    TEMPLATE_ARGS,
    supported("add_generation_prompt", Kind::Boolean, "for the template; default `true`"),
    supported("continue_final_message", Kind::Boolean, "an answer is a message of its own")
        .refused(But::Is("false")),
    refused("functions", "use 'tools'"),
    refused("function_call", "use 'tool_choice'"),
];

const IGNORED: &[Field] = &[
    ignored("verbosity", "no template knows it"),
    ignored("safety_identifier", "who asks is the tenant"),
    ignored("prompt_cache_retention", "see `intent`"),
    ignored("prediction", "an answer does not depend on it"),
];
