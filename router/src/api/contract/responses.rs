//! `POST /v1/responses`.

use super::shared::{
    ADDED, CACHE_KEY, EFFORT_MEANING, MODEL, SAMPLING, SERIAL_CALLS, STREAM, TEMPLATE_ARGS,
    temperature,
};
use super::{Body, But, COUNT_MAX, Field, Kind, Most, ignored, refused, supported};
use crate::api::effort::EFFORTS;

pub(in crate::api) const RESPONSES: Body = Body {
    path: "/v1/responses",
    fields: &[OWN, &[temperature(2.0)], SAMPLING, &[STREAM], REFUSED, IGNORED, ADDED],
    names_unknown: false,
};

const OWN: &[Field] = &[
    MODEL,
    supported("input", Kind::Schema("ResponseInput"), "text, or items").required(),
    supported("instructions", Kind::Text, "a message of the system before the input"),
    supported("max_output_tokens", Kind::Integer(1, COUNT_MAX), "default: what the context leaves"),
    supported(
        "tools",
        Kind::Schema("ResponseTools"),
        "`function`, `custom`, and those in a `namespace`; others are ignored and named in `x-baton-warning`",
    ),
    supported(
        "tool_choice",
        Kind::Schema("ResponseToolChoice"),
        "`auto`, `none`; others are refused: a call cannot be enforced",
    ),
    SERIAL_CALLS,
    supported(
        "reasoning",
        Kind::Object(&[
            supported("effort", Kind::Words(&EFFORTS), EFFORT_MEANING),
            supported(
                "summary",
                Kind::Text,
                "thoughts come as a summary, which is their whole text",
            ),
            supported("generate_summary", Kind::Text, "the older name of `summary`"),
        ]),
        "",
    ),
    supported(
        "text",
        Kind::Object(&[
            supported(
                "format",
                Kind::Object(&[supported("type", Kind::Text, "nothing guides what is drawn")
                    .required()
                    .refused(But::Is("\"text\""))]),
                "",
            ),
            ignored("verbosity", "no template knows it"),
        ]),
        "",
    ),
    supported(
        "top_logprobs",
        Kind::Integer(0, Most::Limit(|limits| i64::from(limits.top_logprobs_max))),
        "the likeliest tokens in the place of each; asks for log-probabilities by itself",
    ),
    supported(
        "include",
        Kind::Schema("ResponseInclude"),
        "`message.output_text.logprobs`: log-probabilities of a message's tokens; other names are ignored",
    ),
    CACHE_KEY,
    TEMPLATE_ARGS,
];

const REFUSED: &[Field] = &[
    supported("store", Kind::Boolean, "answers are not stored").refused(But::Is("false")),
    supported("background", Kind::Boolean, "answers are not computed in the background")
        .refused(But::Is("false")),
    refused("previous_response_id", "nothing is kept between requests; send all items in 'input'"),
    refused("conversation", "nothing is kept between requests; send all items in 'input'"),
    refused("prompt", "nothing is kept between requests; send all items in 'input'"),
];

const IGNORED: &[Field] = &[
    ignored("metadata", "told again in the answer"),
    ignored("max_tool_calls", "told again in the answer; hosted tools are not served"),
    ignored("safety_identifier", "told again in the answer"),
    ignored("service_tier", "told again in the answer"),
    ignored("truncation", "told again in the answer; nothing is cut off"),
    ignored("stream_options", "nothing is padded"),
    ignored("client_metadata", "headers name the session"),
    ignored("user", "who asks is the tenant"),
    ignored("prompt_cache_retention", "see `intent`"),
];
