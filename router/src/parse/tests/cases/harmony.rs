//! gpt-oss.

use super::{
    Args, Case, END, Malformed, Mended, NoTools, Reasoning, Table, Text, Think, Tools, Unfinished,
    call, case, cut, warn,
};

pub(super) const HARMONY: Table =
    Table { format: "harmony", reasoning: Reasoning::None, cases: &CASES };

const CASES: [Case; 25] = [
    case("text without a header", Tools, "Hi.\n", &[Text("Hi.\n")]),
    case(
        "a final message",
        Tools,
        "<|channel|>final<|message|>Hi <b>ü</b>.\n<|return|>",
        &[Text("Hi <b>ü</b>.\n")],
    ),
    case(
        "reasoning, then text",
        NoTools,
        "<|channel|>analysis<|message|>Hm.\n<|end|><|start|>assistant<|channel|>final<|message|>Yes.",
        &[Think("Hm.\n"), Text("Yes.")],
    ),
    case(
        "a call",
        Tools,
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary to=functions.ls <|constrain|>json<|message|>{\"path\": \"/tmp\"}<|call|>",
        &[Think("Hm."), call("ls"), Args("{\"path\": \"/tmp\"}"), END],
    ),
    case(
        "a call where none may be",
        NoTools,
        "<|channel|>commentary to=functions.ls<|message|>{\"path\": 1}<|call|>",
        &[Text("{\"path\": 1}")],
    ),
    case(
        "a call at the end of the answer",
        Tools,
        "<|channel|>commentary to=functions.ls<|message|>{}",
        &[call("ls"), Args("{}"), END],
    ),
    case(
        "the recipient before the channel",
        Tools,
        " to=functions.ls<|channel|>commentary json<|message|>\n{\"a\": [\"<|\"]}",
        &[call("ls"), Args("{\"a\": [\"<|\"]}"), END],
    ),
    case(
        "the same after another message",
        Tools,
        "<|channel|>analysis<|message|>a<|end|><|start|>assistant to=functions.f<|channel|>commentary<|message|>{\"x\": 1}<|call|>",
        &[Think("a"), call("f"), Args("{\"x\": 1}"), END],
    ),
    case(
        "a preamble and two calls",
        Tools,
        "<|channel|>commentary<|message|>I'll look.<|end|><|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}<|call|><|start|>assistant<|channel|>commentary to=functions.g <|constrain|>json<|message|>{}",
        &[Text("I'll look."), call("f"), Args("{}"), END, call("g"), Args("{}"), END],
    ),
    case(
        "a built-in tool",
        Tools,
        "<|channel|>analysis to=browser.search code<|message|>{\"query\": \"x\"}<|call|>",
        &[call("browser.search"), Args("{\"query\": \"x\"}"), END],
    ),
    case(
        "code for a built-in tool",
        Tools,
        "<|channel|>analysis to=python<|message|>print(1)<|call|>",
        &[warn(Malformed), Text("<|channel|>analysis to=python<|message|>print(1)")],
    ),
    case(
        "a call without content",
        Tools,
        "<|channel|>commentary to=functions.f<|message|> <|call|>",
        &[call("f"), Args("{}"), END],
    ),
    case(
        "no end and no start between messages",
        Tools,
        "<|channel|>analysis<|message|>a<|channel|>final<|message|>b",
        &[Think("a"), Text("b")],
    ),
    case(
        "no end",
        Tools,
        "<|channel|>analysis<|message|>a<|start|>assistant<|channel|>final<|message|>b",
        &[Think("a"), Text("b")],
    ),
    case(
        "no start",
        Tools,
        "<|channel|>analysis<|message|>a<|end|>\nb",
        &[Think("a"), warn(Malformed), Text("b")],
    ),
    case("no header", Tools, "<|message|>b<|end|>", &[Text("b")]),
    case(
        "a header that breaks off",
        Tools,
        "<|channel|>final<|end|><|start|>assistant<|channel|>final<|message|>b",
        &[warn(Malformed), Text("<|channel|>finalb")],
    ),
    case(
        "a header that ends",
        Tools,
        "<|channel|>fin",
        &[warn(Unfinished), Text("<|channel|>fin")],
    ),
    case(
        "ends in a string",
        Tools,
        "<|channel|>commentary to=functions.f<|message|>{\"a\": \"b",
        &[call("f"), Args("{\"a\": \"b"), warn(Unfinished), cut("\"}")],
    ),
    case(
        "ends in a key",
        Tools,
        "<|channel|>commentary to=functions.f<|message|>{\"a\": 1, \"lo",
        &[call("f"), Args("{\"a\": 1"), warn(Unfinished), cut("}")],
    ),
    case(
        "ends before the arguments",
        Tools,
        "<|channel|>commentary to=functions.f<|message|>",
        &[call("f"), warn(Unfinished), cut("{}")],
    ),
    case(
        "breaks off",
        Tools,
        "<|channel|>commentary to=functions.f<|message|>{\"a\": 1,, 2}<|call|>",
        &[call("f"), Args("{\"a\": 1"), warn(Malformed), cut("}"), Text(",, 2}")],
    ),
    case(
        "cut short by a marker",
        Tools,
        "<|channel|>commentary to=functions.f<|message|>{\"a\": [1<|end|><|start|>assistant<|channel|>final<|message|>b",
        &[call("f"), Args("{\"a\": [1"), warn(Malformed), cut("]}"), Text("b")],
    ),
    case(
        "text after the arguments",
        Tools,
        "<|channel|>commentary to=functions.f<|message|>{\"a\": \"\\,\"} so<|call|>",
        &[call("f"), Args("{\"a\": \"\\\\,\"}"), warn(Mended), END, warn(Malformed), Text("so")],
    ),
    case("an open end", Tools, "<|channel|>final<|message|>a <|mess", &[Text("a <|mess")]),
];
