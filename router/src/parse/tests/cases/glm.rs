//! GLM.

use super::{
    Args, Case, END, Malformed, NoTools, Reasoning, Table, Text, Think, Tools, Unfinished, call,
    case, cut, warn,
};

pub(super) const GLM: Table = Table { format: "glm4", reasoning: Reasoning::Think, cases: &CASES };

const CASES: [Case; 18] = [
    case("text", Tools, "a <arg> b\n", &[Text("a <arg> b\n")]),
    case(
        "a call with newlines",
        Tools,
        "\n<think>hm</think>\nso\n<tool_call>edit\n<arg_key>text</arg_key>\n<arg_value>\na \"b\"\n</arg_value>\n<arg_key>count</arg_key>\n<arg_value>3</arg_value>\n</tool_call>",
        &[
            Think("hm"),
            Text("so"),
            call("edit"),
            Args("{\"text\": \"\\na \\\"b\\\"\\n\", \"count\": 3}"),
            END,
        ],
    ),
    case(
        "two calls without newlines",
        Tools,
        "<tool_call>ls<arg_key>a</arg_key><arg_value>ü</arg_value></tool_call><tool_call>ls</tool_call>.",
        &[call("ls"), Args("{\"a\": \"ü\"}"), END, call("ls"), Args("{}"), END, Text(".")],
    ),
    case(
        "types",
        Tools,
        "<tool_call>edit<arg_key>options</arg_key><arg_value>{\"a\": \"</arg_key>\"}</arg_value><arg_key>list</arg_key><arg_value>[1</arg_value><arg_key>maybe</arg_key><arg_value>null</arg_value></tool_call>",
        &[
            call("edit"),
            Args("{\"options\": {\"a\": \"</arg_key>\"}, \"list\": \"[1\", \"maybe\": null}"),
            END,
        ],
    ),
    case(
        "markers in a value",
        Tools,
        "<tool_call>ls<arg_key>a</arg_key><arg_value><tool_call></tool_call><arg_key></arg_valu<</arg_value></tool_call>",
        &[call("ls"), Args("{\"a\": \"<tool_call></tool_call><arg_key></arg_valu<\"}"), END],
    ),
    case(
        "no name",
        Tools,
        "<tool_call>\n</tool_call>",
        &[warn(Malformed), Text("<tool_call>\n</tool_call>")],
    ),
    case(
        "lines for a name",
        Tools,
        "<tool_call>a\nb</tool_call>",
        &[warn(Malformed), Text("<tool_call>a\nb</tool_call>")],
    ),
    case(
        "JSON for a name",
        Tools,
        "<tool_call>{\"name\":\n\"ls\"}</tool_call>",
        &[warn(Malformed), Text("<tool_call>{\"name\":\n\"ls\"}</tool_call>")],
    ),
    case(
        "a value without a key",
        Tools,
        "<tool_call>ls<arg_value>1",
        &[warn(Malformed), Text("<tool_call>ls<arg_value>1")],
    ),
    case(
        "no value",
        Tools,
        "<tool_call>ls<arg_key>a</arg_key></tool_call>",
        &[
            call("ls"),
            Args("{"),
            warn(Malformed),
            cut("}"),
            Text("<arg_key>a</arg_key></tool_call>"),
        ],
    ),
    case(
        "junk between",
        Tools,
        "<tool_call>ls<arg_key>a</arg_key><arg_value>1</arg_value>so<arg_key>",
        &[call("ls"), Args("{\"a\": \"1\""), warn(Malformed), cut("}"), Text("so<arg_key>")],
    ),
    case(
        "ends in a value",
        Tools,
        "<tool_call>ls<arg_key>a</arg_key><arg_value>rm -rf /tm",
        &[call("ls"), Args("{\"a\": \"rm -rf /tm"), warn(Unfinished), cut("\"}")],
    ),
    case(
        "ends in a number",
        Tools,
        "<tool_call>edit<arg_key>count</arg_key><arg_value>1",
        &[call("edit"), Args("{"), warn(Unfinished), cut("}")],
    ),
    case(
        "ends in a key",
        Tools,
        "<tool_call>ls\n<arg_key>a",
        &[call("ls"), Args("{"), warn(Unfinished), cut("}")],
    ),
    case(
        "ends in the name",
        Tools,
        "a\n<tool_call>l",
        &[Text("a"), warn(Unfinished), Text("\n<tool_call>l")],
    ),
    case(
        "another call in between",
        Tools,
        "<tool_call>ls\n<tool_call>ls\n</tool_call>",
        &[warn(Malformed), Text("<tool_call>ls"), call("ls"), Args("{}"), END],
    ),
    case(
        "an empty value",
        Tools,
        "<tool_call>ls<arg_key>a</arg_key><arg_value></arg_value></tool_call>",
        &[call("ls"), Args("{\"a\": \"\"}"), END],
    ),
    case(
        "without tools",
        NoTools,
        "<tool_call>ls</tool_call>",
        &[Text("<tool_call>ls</tool_call>")],
    ),
];
