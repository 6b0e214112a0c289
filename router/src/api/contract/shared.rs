//! What several endpoints take.

use super::{But, COUNT_MAX, Field, Kind, Most, ignored, refused, supported};

pub(super) const MODEL: Field =
    supported("model", Kind::Text, "as `GET /v1/models` lists").required();

/// How tokens are drawn, but for the temperature, whose bounds differ.
pub(super) const SAMPLING: &[Field] = &[
    supported("top_p", Kind::Above0(1.0), "off by default, or the checkpoint's"),
    supported(
        "top_k",
        Kind::Integer(-1, COUNT_MAX),
        "off by default, or the checkpoint's; 0 and -1 are off",
    ),
    supported("min_p", Kind::Number(0.0, 1.0), "off by default, or the checkpoint's"),
    supported("repetition_penalty", Kind::Above0(10.0), "off by default, or the checkpoint's"),
    supported("presence_penalty", Kind::Number(-2.0, 2.0), "off by default"),
    supported("frequency_penalty", Kind::Number(-2.0, 2.0), "off by default"),
    supported("logit_bias", Kind::Schema("LogitBias"), "token id to bias, -100 to 100"),
    supported(
        "seed",
        Kind::Integer(i64::MIN, Most::Fixed(i64::MAX)),
        "equal seed and request give an equal answer; drawn where it is absent",
    ),
    supported(
        "thinking_token_budget",
        Kind::Integer(0, COUNT_MAX),
        "[tokens of reasoning](#a-bound-on-thinking) in each answer, at most",
    ),
];

pub(super) const fn temperature(max: f32) -> Field {
    supported("temperature", Kind::Number(0.0, max), "0 is greedy; default 1, or the checkpoint's")
}

pub(super) const STREAM: Field = supported("stream", Kind::Boolean, "server-sent events");

/// What the two older interfaces of OpenAI's have in common.
pub(super) const OLDER: &[Field] = &[
    supported(
        "max_tokens",
        Kind::Integer(1, COUNT_MAX),
        "default: what the context leaves; of completions: 16",
    ),
    supported("min_tokens", Kind::Integer(0, COUNT_MAX), "no end before"),
    supported("stop", Kind::Schema("Stop"), "a string or several; not part of the answer"),
    supported("stop_token_ids", Kind::Schema("StopTokenIds"), "further ends"),
    supported("ignore_eos", Kind::Boolean, "no end at eos"),
    supported(
        "n",
        Kind::Integer(1, Most::Limit(|limits| i64::from(limits.choices_max))),
        "choices",
    ),
    STREAM,
    supported(
        "stream_options",
        Kind::Object(&[
            supported("include_usage", Kind::Boolean, "a last event with the usage"),
            ignored("include_obfuscation", "nothing is padded"),
        ]),
        "only with `stream`",
    ),
    CACHE_KEY,
    supported(
        "response_format",
        Kind::Object(&[supported("type", Kind::Text, "nothing guides what is drawn")
            .required()
            .refused(But::Is("\"text\""))]),
        "`text`",
    ),
    refused("prompt_logprobs", "a prompt has none"),
    ignored("user", "who asks is the tenant"),
    ignored("metadata", "nothing is stored"),
    ignored("store", "nothing is stored"),
    ignored("service_tier", "see `intent`"),
];

pub(super) const CACHE_KEY: Field =
    supported("prompt_cache_key", Kind::Text, "names the session, where nothing more telling does");

/// What Baton and other servers have added.
pub(super) const ADDED: &[Field] = &[
    supported(
        "intent",
        Kind::Schema("Intent"),
        "[hints](intent.md); out of bounds they are clamped",
    ),
    supported(
        "nvext",
        Kind::Schema("Nvext"),
        "`agent_hints`: [hints](intent.md); `cache_control`: [the whole prompt is worth keeping](#cache_control); `extra_fields`: [what the answer tells beside itself](agents.md)",
    ),
    refused("guided_json", "nothing guides what is drawn"),
    refused("guided_regex", "nothing guides what is drawn"),
    refused("guided_choice", "nothing guides what is drawn"),
    refused("guided_grammar", "nothing guides what is drawn"),
    refused("structured_outputs", "nothing guides what is drawn"),
];

pub(super) const EFFORT_MEANING: &str = "`none`: the template's `enable_thinking` (or `thinking`) is false, otherwise true; the template's `reasoning_effort` as well";

pub(super) const TEMPLATE_ARGS: Field = supported(
    "chat_template_kwargs",
    Kind::Schema("TemplateArguments"),
    "variables for the chat template",
);

pub(super) const SERIAL_CALLS: Field =
    supported("parallel_tool_calls", Kind::Boolean, "`false`: an answer ends with its first call");
