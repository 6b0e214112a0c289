//! Mistral, both forms.

use super::{
    Args, Case, END, Malformed, Mended, Reasoning, Table, Text, Think, Tools, Unfinished, call,
    case, cut, warn,
};

pub(super) const MISTRAL: Table =
    Table { format: "mistral", reasoning: Reasoning::Brackets, cases: &CASES };

const CASES: [Case; 24] = [
    case("text", Tools, "See [1] and [TOOLS].", &[Text("See [1] and [TOOLS].")]),
    case(
        "a list of one",
        Tools,
        "[TOOL_CALLS] [{\"name\": \"ls\", \"arguments\": {\"path\": \"[TOOL_CALLS]\"}}]",
        &[call("ls"), Args("{\"path\": \"[TOOL_CALLS]\"}"), END],
    ),
    case(
        "a list of two",
        Tools,
        "[TOOL_CALLS][{\"arguments\": {\"a\": [1, 2]}, \"name\": \"f\"},\n {\"name\": \"g\", \"arguments\": {}, \"id\": \"x\"}]\n",
        &[call("f"), Args("{\"a\": [1, 2]}"), END, call("g"), Args("{}"), END],
    ),
    case(
        "names",
        Tools,
        "[TOOL_CALLS]f[ARGS]{\"a\": \"ü\"}[TOOL_CALLS]g-2[CALL_ID]Ab1[ARGS] {}",
        &[call("f"), Args("{\"a\": \"ü\"}"), END, call("g-2"), Args("{}"), END],
    ),
    case(
        "names without a marker",
        Tools,
        "[TOOL_CALLS]f{\"a\": {\"b\": null}}[TOOL_CALLS]g{}",
        &[call("f"), Args("{\"a\": {\"b\": null}}"), END, call("g"), Args("{}"), END],
    ),
    case(
        "reasoning and text",
        Tools,
        "[THINK]hm[/THINK]ok\n[TOOL_CALLS]f[ARGS]{}",
        &[Think("hm"), Text("ok"), call("f"), Args("{}"), END],
    ),
    case(
        "text after a list",
        Tools,
        "[TOOL_CALLS] [{\"name\": \"f\"}] so",
        &[call("f"), Args("{}"), END, Text(" so")],
    ),
    case("an empty list", Tools, "[TOOL_CALLS] []", &[warn(Malformed), Text("[TOOL_CALLS] []")]),
    case(
        "a list of something else",
        Tools,
        "[TOOL_CALLS] [1, 2]",
        &[warn(Malformed), Text("[TOOL_CALLS] [1, 2]")],
    ),
    case(
        "no name in the list",
        Tools,
        "a\n[TOOL_CALLS] [{\"arguments\": {}}]",
        &[Text("a"), warn(Malformed), Text("\n[TOOL_CALLS] [{\"arguments\": {}}]")],
    ),
    case(
        "a second without a name",
        Tools,
        "a\n[TOOL_CALLS] [{\"name\": \"f\"}, {\"x\": 1}]",
        &[Text("a"), call("f"), Args("{}"), END, warn(Malformed), Text(",{\"x\": 1}]")],
    ),
    case(
        "junk in the list",
        Tools,
        "[TOOL_CALLS] [{\"name\": \"f\"}; {\"name\": \"g\"}]",
        &[call("f"), Args("{}"), END, warn(Malformed), Text("; {\"name\": \"g\"}]")],
    ),
    case("no name", Tools, "[TOOL_CALLS]{}", &[warn(Malformed), Text("[TOOL_CALLS]{}")]),
    case(
        "words for a name",
        Tools,
        "[TOOL_CALLS]let me see",
        &[warn(Malformed), Text("[TOOL_CALLS]let me see")],
    ),
    case(
        "no object",
        Tools,
        "[TOOL_CALLS]f[ARGS] [1]",
        &[warn(Malformed), Text("[TOOL_CALLS]f[ARGS] [1]")],
    ),
    case(
        "breaks off in the list",
        Tools,
        "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"a\": .5}}]",
        &[call("f"), Args("{"), warn(Malformed), cut("}"), Text("\"a\": .5}}]")],
    ),
    case(
        "breaks off",
        Tools,
        "[TOOL_CALLS]f[ARGS]{\"a\": 01}",
        &[call("f"), Args("{\"a\": 0"), warn(Malformed), cut("}"), Text("1}")],
    ),
    case(
        "ends in the list",
        Tools,
        "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"a\": {\"b\": \"c",
        &[call("f"), Args("{\"a\": {\"b\": \"c"), warn(Unfinished), cut("\"}}")],
    ),
    case("ends between", Tools, "[TOOL_CALLS] [{\"name\": \"f\"},", &[call("f"), Args("{}"), END]),
    case(
        "ends in the arguments",
        Tools,
        "[TOOL_CALLS]f[ARGS]{\"a\": 1e",
        &[call("f"), Args("{\"a\": 1"), warn(Unfinished), cut("}")],
    ),
    case("ends in a name", Tools, "[TOOL_CALLS]f", &[warn(Unfinished), Text("[TOOL_CALLS]f")]),
    case(
        "a name and another marker",
        Tools,
        "[TOOL_CALLS]f[TOOL_CALLS]g{}",
        &[warn(Malformed), Text("[TOOL_CALLS]f"), call("g"), Args("{}"), END],
    ),
    case("ends in the marker", Tools, "a[TOOL_", &[Text("a[TOOL_")]),
    case(
        "mended",
        Tools,
        "[TOOL_CALLS]f[ARGS]{\"a\": \"\\.\"}",
        &[call("f"), Args("{\"a\": \"\\\\.\"}"), warn(Mended), END],
    ),
];
