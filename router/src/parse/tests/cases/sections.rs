//! DeepSeek V3.1 and Kimi K2.

use super::{
    Args, Case, END, Malformed, NoTools, Reasoning, Table, Text, Think, Thinking, Tools,
    Unfinished, call, case, cut, warn,
};

pub(super) const DEEPSEEK_V3_1: Table =
    Table { format: "deepseek_v3_1", reasoning: Reasoning::Think, cases: &DEEPSEEK };

const DEEPSEEK: [Case; 17] = [
    case("text", Tools, "a <b> ｜ c\n", &[Text("a <b> ｜ c\n")]),
    case(
        "two calls",
        Tools,
        "so\n<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\": [\"ü\", {}]}<｜tool▁call▁end｜><｜tool▁call▁begin｜>g<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        &[Text("so"), call("f"), Args("{\"a\": [\"ü\", {}]}"), END, call("g"), Args("{}"), END],
    ),
    case(
        "reasoning and newlines",
        Thinking,
        "hm</think><｜tool▁calls▁begin｜>\n<｜tool▁call▁begin｜>f<｜tool▁sep｜>\n{}\n<｜tool▁call▁end｜>\n<｜tool▁calls▁end｜>\nso",
        &[Think("hm"), call("f"), Args("{}"), END, Text("\nso")],
    ),
    case(
        "a call ends the reasoning",
        Thinking,
        "hm<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜></think>so",
        &[Think("hm"), call("f"), Args("{}"), END, Text("so")],
    ),
    case(
        "markers in a string",
        Tools,
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\": \"<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜tool▁calls▁begin｜>\"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        &[
            call("f"),
            Args("{\"a\": \"<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜tool▁calls▁begin｜>\"}"),
            END,
        ],
    ),
    case(
        "no end of the call",
        Tools,
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{}<｜tool▁call▁begin｜>g<｜tool▁sep｜>{}<｜tool▁calls▁end｜>.",
        &[call("f"), Args("{}"), END, call("g"), Args("{}"), END, Text(".")],
    ),
    case(
        "an empty section",
        Tools,
        "<｜tool▁calls▁begin｜><｜tool▁calls▁end｜>.",
        &[warn(Malformed), Text("<｜tool▁calls▁begin｜><｜tool▁calls▁end｜>.")],
    ),
    case(
        "no name",
        Tools,
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜> <｜tool▁sep｜>{}",
        &[warn(Malformed), Text("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜> <｜tool▁sep｜>{}")],
    ),
    case(
        "two lines for a name",
        Tools,
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>a\nb<｜tool▁sep｜>",
        &[warn(Malformed), Text("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>a\nb<｜tool▁sep｜>")],
    ),
    case(
        "no object",
        Tools,
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>[1]",
        &[warn(Malformed), Text("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>[1]")],
    ),
    case(
        "no object in the second",
        Tools,
        "a\n<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁call▁begin｜>g<｜tool▁sep｜>1<｜tool▁call▁end｜>",
        &[
            Text("a"),
            call("f"),
            Args("{}"),
            END,
            warn(Malformed),
            Text("<｜tool▁call▁begin｜>g<｜tool▁sep｜>1<｜tool▁call▁end｜>"),
        ],
    ),
    case(
        "breaks off",
        Tools,
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\": 1<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        &[
            call("f"),
            Args("{\"a\": 1"),
            warn(Malformed),
            cut("}"),
            Text("<｜tool▁call▁end｜><｜tool▁calls▁end｜>"),
        ],
    ),
    case(
        "ends in a string",
        Tools,
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\": [\"b",
        &[call("f"), Args("{\"a\": [\"b"), warn(Unfinished), cut("\"]}")],
    ),
    case(
        "ends after a call",
        Tools,
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{}<｜tool▁call▁end｜>",
        &[call("f"), Args("{}"), END],
    ),
    case(
        "ends in a name",
        Tools,
        "a<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f",
        &[Text("a"), warn(Unfinished), Text("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f")],
    ),
    case(
        "text in the section",
        Tools,
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{}<｜tool▁call▁end｜>so<｜tool▁calls▁end｜>",
        &[call("f"), Args("{}"), END, warn(Malformed), Text("so<｜tool▁calls▁end｜>")],
    ),
    case(
        "without tools",
        NoTools,
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        &[Text(
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        )],
    ),
];

pub(super) const KIMI_K2: Table =
    Table { format: "kimi_k2", reasoning: Reasoning::Think, cases: &KIMI };

const KIMI: [Case; 6] = [
    case("text", Tools, "a <|b|>\n", &[Text("a <|b|>\n")]),
    case(
        "two calls",
        Tools,
        "so<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{\"a\": 1}<|tool_call_end|><|tool_call_begin|>functions.g:h:12<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|>",
        &[Text("so"), call("f"), Args("{\"a\": 1}"), END, call("g:h"), Args("{}"), END],
    ),
    case(
        "a bare name",
        Tools,
        "<|tool_calls_section_begin|><|tool_call_begin|> f <|tool_call_argument_begin|> {}<|tool_call_end|><|tool_calls_section_end|>",
        &[call("f"), Args("{}"), END],
    ),
    case(
        "no brace",
        Tools,
        "<|tool_calls_section_begin|><|tool_call_begin|>f<|tool_call_argument_begin|><{}",
        &[
            warn(Malformed),
            Text("<|tool_calls_section_begin|><|tool_call_begin|>f<|tool_call_argument_begin|><{}"),
        ],
    ),
    case(
        "a word for a number",
        Tools,
        "<|tool_calls_section_begin|><|tool_call_begin|>f:x<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|>",
        &[call("f:x"), Args("{}"), END],
    ),
    case(
        "ends in a key",
        Tools,
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{\"a\": 1, \"b",
        &[call("f"), Args("{\"a\": 1"), warn(Unfinished), cut("}")],
    ),
];
