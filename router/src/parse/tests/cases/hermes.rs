//! Hermes and Qwen.

use super::{
    Args, Case, END, Malformed, Mended, NoTools, Reasoning, Table, Text, Think, Thinking, Tools,
    Unfinished, call, case, cut, warn,
};

pub(super) const HERMES: Table =
    Table { format: "hermes", reasoning: Reasoning::Think, cases: &CASES };

const CASES: [Case; 32] = [
    case("text", Tools, "Hello <b> & {\"a\": 1}\n", &[Text("Hello <b> & {\"a\": 1}\n")]),
    case(
        "a call",
        Tools,
        "<tool_call>\n{\"name\": \"ls\", \"arguments\": {\"path\": \"/tmp\"}}\n</tool_call>",
        &[call("ls"), Args("{\"path\": \"/tmp\"}"), END],
    ),
    case(
        "text before, one newline is the marker's",
        Tools,
        "I'll look.\n\n<tool_call>\n{\"name\": \"ls\", \"arguments\": {}}\n</tool_call>\n",
        &[Text("I'll look.\n"), call("ls"), Args("{}"), END],
    ),
    case(
        "two calls",
        Tools,
        "<tool_call>\n{\"name\": \"a\", \"arguments\": {\"x\": [1, {\"y\": []}]}}\n</tool_call>\n\
         <tool_call>\n{\"name\": \"b\", \"arguments\": {\"é\": \"☃ \\\"}{\\\\\"}}\n</tool_call>",
        &[
            call("a"),
            Args("{\"x\": [1, {\"y\": []}]}"),
            END,
            call("b"),
            Args("{\"é\": \"☃ \\\"}{\\\\\"}"),
            END,
        ],
    ),
    case(
        "text between and after",
        Tools,
        "a\n<tool_call>{\"name\":\"x\",\"arguments\":{}}</tool_call>\n\nb\n\
         <tool_call>{\"name\":\"y\",\"arguments\":{}}</tool_call>\nc",
        &[
            Text("a"),
            call("x"),
            Args("{}"),
            END,
            Text("\n\nb"),
            call("y"),
            Args("{}"),
            END,
            Text("\nc"),
        ],
    ),
    case(
        "reasoning, text and a call",
        Tools,
        "<think>\nhm\n</think>\n\nso\n<tool_call>\n{\"name\": \"x\", \"arguments\": {}}\n</tool_call>",
        &[Think("hm"), Text("so"), call("x"), Args("{}"), END],
    ),
    case(
        "reasoning and a call",
        Thinking,
        "hm\n</think>\n\n<tool_call>\n{\"name\": \"x\", \"arguments\": {}}\n</tool_call>",
        &[Think("hm"), call("x"), Args("{}"), END],
    ),
    case(
        "a call ends the reasoning",
        Thinking,
        "hm\n<tool_call>\n{\"name\": \"x\", \"arguments\": {}}\n</tool_call>\n</think>\n\nso",
        &[Think("hm"), call("x"), Args("{}"), END, Text("\n\nso")],
    ),
    case(
        "what is no call does not end the reasoning",
        Thinking,
        "the tag <tool_call> comes\n</think>so",
        &[Think("the tag "), warn(Malformed), Think("<tool_call> comes"), Text("so")],
    ),
    case(
        "markers in strings",
        Tools,
        "<tool_call>{\"name\": \"x\", \"arguments\": {\"t\": \"</tool_call><tool_call>\\n<think>\"}}</tool_call>",
        &[call("x"), Args("{\"t\": \"</tool_call><tool_call>\\n<think>\"}"), END],
    ),
    case(
        "arguments before the name, and others",
        Tools,
        "<tool_call>{\"id\": [1, \"}\"], \"arguments\": {\"a\": -1.5e+3}, \"name\": \"x\", \"z\": null}</tool_call>",
        &[call("x"), Args("{\"a\": -1.5e+3}"), END],
    ),
    case(
        "parameters",
        Tools,
        "<tool_call>{\"name\": \"x\", \"parameters\": {\"a\": true}}</tool_call>",
        &[call("x"), Args("{\"a\": true}"), END],
    ),
    case(
        "no arguments",
        Tools,
        "<tool_call>{\"name\": \"x\"}</tool_call><tool_call>{\"name\": \"y\", \"arguments\": null}</tool_call>",
        &[call("x"), Args("{}"), END, call("y"), Args("{}"), END],
    ),
    case(
        "a name with escapes",
        Tools,
        "<tool_call>{\"name\": \"\\u0061\\ud83d\\ude00\\\"\", \"arguments\": {}}</tool_call>",
        &[call("a😀\""), Args("{}"), END],
    ),
    case(
        "no closing marker",
        Tools,
        "<tool_call>{\"name\":\"x\",\"arguments\":{}}\n<tool_call>{\"name\":\"y\",\"arguments\":{}}",
        &[call("x"), Args("{}"), END, call("y"), Args("{}"), END],
    ),
    case(
        "one brace too many",
        Tools,
        "<tool_call>\n{\"name\": \"x\", \"arguments\": {}}}\n</tool_call>",
        &[call("x"), Args("{}"), END, warn(Malformed), Text("}")],
    ),
    case(
        "one brace too few",
        Tools,
        "<tool_call>\n{\"name\": \"x\", \"arguments\": {\"a\": 1}\n</tool_call>",
        &[call("x"), Args("{\"a\": 1}"), warn(Malformed), cut("")],
    ),
    case(
        "no JSON",
        Tools,
        "<tool_call>\nls -l\n</tool_call>",
        &[warn(Malformed), Text("<tool_call>\nls -l\n</tool_call>")],
    ),
    case(
        "no name",
        Tools,
        "a\n\n<tool_call>{\"arguments\": {}}</tool_call>",
        &[Text("a\n"), warn(Malformed), Text("\n<tool_call>{\"arguments\": {}}</tool_call>")],
    ),
    case(
        "arguments that are no object",
        Tools,
        "<tool_call>{\"name\": \"x\", \"arguments\": [1]}</tool_call>.",
        &[warn(Malformed), Text("<tool_call>{\"name\": \"x\", \"arguments\": [1]}</tool_call>.")],
    ),
    case(
        "arguments that break off",
        Tools,
        "<tool_call>{\"name\": \"x\", \"arguments\": {\"a\": [1, oops]}}</tool_call>",
        &[call("x"), Args("{\"a\": [1"), warn(Malformed), cut("]}"), Text(", oops]}}")],
    ),
    case(
        "ends in a string",
        Tools,
        "<tool_call>{\"name\": \"x\", \"arguments\": {\"a\": \"rm -rf /tm\\u00",
        &[call("x"), Args("{\"a\": \"rm -rf /tm"), warn(Unfinished), cut("\"}")],
    ),
    case(
        "ends in a key",
        Tools,
        "<tool_call>{\"name\": \"x\", \"arguments\": {\"a\": [{\"b\": 1}, 2], \"lo",
        &[call("x"), Args("{\"a\": [{\"b\": 1}, 2]"), warn(Unfinished), cut("}")],
    ),
    case(
        "ends in a literal",
        Tools,
        "<tool_call>{\"name\": \"x\", \"arguments\": {\"a\": tru",
        &[call("x"), Args("{"), warn(Unfinished), cut("}")],
    ),
    case(
        "ends in a number",
        Tools,
        "<tool_call>{\"name\": \"x\", \"arguments\": {\"a\": [12.",
        &[call("x"), Args("{\"a\": [12"), warn(Unfinished), cut("]}")],
    ),
    case(
        "ends before the arguments",
        Tools,
        "<tool_call>{\"name\": \"x\", \"argum",
        &[call("x"), warn(Unfinished), cut("{}")],
    ),
    case(
        "ends before the name",
        Tools,
        "a\n<tool_call>\n{\"na",
        &[Text("a"), warn(Unfinished), Text("\n<tool_call>\n{\"na")],
    ),
    case("ends in the marker", Tools, "a\n<tool_ca", &[Text("a\n<tool_ca")]),
    case(
        "ends before the closing marker",
        Tools,
        "<tool_call>{\"name\": \"x\", \"arguments\": {}}\n</tool",
        &[call("x"), Args("{}"), END, warn(Malformed), Text("\n</tool")],
    ),
    case(
        "faults that are mended",
        Tools,
        "<tool_call>{\"name\": \"x\", \"arguments\": {\"a\": \"1\n\t2\u{1}\\d\\u12x\\ud800y\\ud83d\\ude00\\ude00\\ud83d\\ud83d\\ude00\\n\", \"b\": [True, None]}}</tool_call>",
        &[
            call("x"),
            Args(
                "{\"a\": \"1\\n\\t2\\u0001\\\\d\\\\u12x\\ufffdy\\ud83d\\ude00\\ufffd\\ufffd\\ud83d\\ude00\\n\", \"b\": [true, null]}",
            ),
            warn(Mended),
            END,
        ],
    ),
    case(
        "without tools a call is text",
        NoTools,
        "<think>a</think><tool_call>{\"name\": \"x\", \"arguments\": {}}</tool_call>",
        &[Think("a"), Text("<tool_call>{\"name\": \"x\", \"arguments\": {}}</tool_call>")],
    ),
    case(
        "an empty call",
        Tools,
        "<tool_call></tool_call> <tool_call>",
        &[warn(Malformed), Text("<tool_call></tool_call> "), warn(Unfinished), Text("<tool_call>")],
    ),
];
