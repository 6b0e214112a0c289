//! `POST /v1/completions`.

use super::shared::{ADDED, MODEL, OLDER, SAMPLING, temperature};
use super::{Body, But, Field, Kind, Most, supported};

pub(in crate::api) const COMPLETIONS: Body = Body {
    path: "/v1/completions",
    fields: &[OWN, &[temperature(2.0)], SAMPLING, OLDER, ADDED],
    names_unknown: false,
};

const OWN: &[Field] = &[
    MODEL,
    supported(
        "prompt",
        Kind::Schema("Prompt"),
        "text, or an array of token ids; one prompt per request",
    )
    .required(),
    supported(
        "logprobs",
        Kind::Integer(0, Most::Limit(|limits| i64::from(limits.top_logprobs_max))),
        "log-probabilities of the drawn tokens and of that many of the likeliest",
    ),
    supported("echo", Kind::Boolean, "an answer does not repeat its prompt")
        .refused(But::Is("false")),
    supported("suffix", Kind::Text, "a prompt is continued at its end").refused(But::Is("\"\"")),
    supported("best_of", Kind::Integer(1, Most::Fixed(i64::MAX)), "all choices are returned")
        .refused(But::Equals("n")),
];
