//! No calls; reasoning in tags.

use super::{Case, NoTools, Reasoning, Table, Text, Think, Thinking, Tools, case};

pub(super) const PLAIN: Table = Table {
    format: "plain",
    reasoning: Reasoning::None,
    cases: &[
        case("nothing", Tools, "", &[]),
        case("text", Tools, "Hi, <b>you</b>.\n\n", &[Text("Hi, <b>you</b>.\n\n")]),
        case("newlines alone", Tools, "\n\n", &[Text("\n\n")]),
        case(
            "tags of others",
            Tools,
            "<think>a</think><tool_call>{}</tool_call>",
            &[Text("<think>a</think><tool_call>{}</tool_call>")],
        ),
    ],
};

pub(super) const THINK: Table =
    Table { format: "plain", reasoning: Reasoning::Think, cases: &THINKING };

const THINKING: [Case; 11] = [
    case(
        "reasoning, then text",
        Tools,
        "<think>\nLet me see.\n\nYes.\n</think>\n\nIt is so.\n",
        &[Think("Let me see.\n\nYes."), Text("It is so.\n")],
    ),
    case(
        "begun by the template",
        Thinking,
        "\nHm.\n</think>\n\nYes.",
        &[Think("Hm."), Text("Yes.")],
    ),
    case("empty", Tools, "<think>\n\n</think>\n\nYes.", &[Text("Yes.")]),
    case("newlines before", NoTools, "\n<think>a</think>b", &[Think("a"), Text("b")]),
    case("never closed", Thinking, "On and on\n\n", &[Think("On and on")]),
    case("an open end", Thinking, "So </thin", &[Think("So </thin")]),
    case(
        "a tag in text is text",
        Tools,
        "The tag <think> opens, </think> closes.",
        &[Text("The tag <think> opens, </think> closes.")],
    ),
    case(
        "a tag in reasoning is reasoning",
        Thinking,
        "a <think> b </b></think>c",
        &[Think("a <think> b </b>"), Text("c")],
    ),
    case(
        "beginnings of tags",
        Tools,
        "<<think>a<</<</think><think",
        &[Text("<<think>a<</<</think><think")],
    ),
    case(
        "reasoning twice",
        Tools,
        "<think>a</think>\n<think>b</think>\nc",
        &[Think("ab"), Text("c")],
    ),
    case("nothing but newlines after", Tools, "<think>a</think>\n\n", &[Think("a")]),
];

pub(super) const BRACKETS: Table = Table {
    format: "plain",
    reasoning: Reasoning::Brackets,
    cases: &[
        case("brackets", Tools, "[THINK]é[/THINK]ü", &[Think("é"), Text("ü")]),
        case("markdown", Tools, "[a](b) [THINK]", &[Text("[a](b) [THINK]")]),
    ],
};
