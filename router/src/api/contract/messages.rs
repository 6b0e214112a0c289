//! `POST /v1/messages` and `POST /v1/messages/count_tokens`.

use super::shared::{ADDED, MODEL, SAMPLING, STREAM, TEMPLATE_ARGS, temperature};
use super::{Body, COUNT_MAX, Field, Kind, Most, ignored, refused, supported};

pub(in crate::api) const MESSAGES: Body = Body {
    path: "/v1/messages",
    fields: &[
        TURN,
        CONVERSATION,
        &[THINKING, TOOL_CHOICE, CACHE_CONTROL],
        &[temperature(1.0)],
        SAMPLING,
        &[STREAM],
        ADDED,
    ],
    names_unknown: true,
};

pub(in crate::api) const COUNT_TOKENS: Body = Body {
    path: "/v1/messages/count_tokens",
    fields: &[
        &[MODEL],
        CONVERSATION,
        &[COUNTED_THINKING, WISHED, CACHE_CONTROL.ignored(), COUNTED_NVEXT],
    ],
    names_unknown: false,
};

/// The least that the interface grants to thinking.
const THINKING_BUDGET_MIN: i64 = 1024;

const TURN: &[Field] = &[
    MODEL,
    supported("max_tokens", Kind::Integer(1, COUNT_MAX), "").required(),
    supported("stop_sequences", Kind::Schema("Stop"), "ends of the answer, and not part of it"),
    supported(
        "metadata",
        Kind::Object(&[supported(
            "user_id",
            Kind::Text,
            "the session, where it names one as Claude Code's does and no header does",
        )]),
        "",
    ),
    supported(
        "output_config",
        Kind::Object(&[
            refused("format", "nothing guides what is drawn"),
            ignored("effort", "templates that know it read it from `chat_template_kwargs`"),
        ]),
        "",
    ),
    ignored("service_tier", "see `intent`"),
];

const THINKING: Field = supported("thinking", Kind::Object(&[THINKING_TYPE, THINKING_BUDGET]), "");

const COUNTED_THINKING: Field =
    supported("thinking", Kind::Object(&[THINKING_TYPE, COUNTED_BUDGET]), "");

const COUNTED_BUDGET: Field =
    Field { meaning: "no prompt depends on it", ..THINKING_BUDGET.ignored() };

const THINKING_TYPE: Field = supported(
    "type",
    Kind::Words(&["adaptive", "enabled", "disabled"]),
    "`adaptive`, `enabled`: the template's `enable_thinking` (or `thinking`) is true; `disabled` or absent: it is false",
)
.required();

const THINKING_BUDGET: Field = supported(
    "budget_tokens",
    Kind::Integer(THINKING_BUDGET_MIN, Most::Fixed(i32::MAX as i64 - 1)),
    "with `enabled`: [tokens of reasoning](#a-bound-on-thinking) in the answer, at most, and less than `max_tokens`; checked with any `type`",
);

const CACHE_CONTROL: Field = supported(
    "cache_control",
    Kind::Schema("CacheControl"),
    "also on any block and tool: [where the usage is divided](#cache_control)",
);

const TOOL_CHOICE: Field = supported(
    "tool_choice",
    Kind::Schema("ToolChoice"),
    "`auto`, `none`; `any` and `tool` are refused: a call cannot be enforced",
);

/// Also one that a turn would refuse.
const WISHED: Field = supported("tool_choice", Kind::Schema("CountedToolChoice"), "as it counts");

const COUNTED_NVEXT: Field =
    supported("nvext", Kind::Schema("CountedNvext"), "where it is kept makes no difference")
        .ignored();

const CONVERSATION: &[Field] = &[
    supported(
        "messages",
        Kind::Schema("Messages"),
        "each stays where it stands; the last one must not be the assistant's",
    )
    .required(),
    supported("system", Kind::Schema("System"), "text, or text blocks"),
    supported(
        "tools",
        Kind::Schema("Tools"),
        "given to the chat template; those that Anthropic's servers run or define are ignored and named in `x-baton-warning`",
    ),
    supported(
        "context_management",
        Kind::Schema("ContextManagement"),
        "`edits`: `clear_thinking_20251015`, `clear_tool_uses_20250919`; others are ignored and named in `x-baton-warning`",
    ),
    TEMPLATE_ARGS,
];
