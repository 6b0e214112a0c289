//! Llama 3.

use super::{
    Args, Case, END, Malformed, NoTools, Reasoning, Table, Text, Tools, Unfinished, call, case,
    cut, warn,
};

pub(super) const LLAMA3: Table =
    Table { format: "llama3", reasoning: Reasoning::None, cases: &CASES };

const CASES: [Case; 21] = [
    case("text", Tools, "Use {\"name\": \"ls\"}.\n", &[Text("Use {\"name\": \"ls\"}.\n")]),
    case(
        "bare",
        Tools,
        "{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Zürich\", \"n\": [1, {}]}}",
        &[call("get_weather"), Args("{\"city\": \"Zürich\", \"n\": [1, {}]}"), END],
    ),
    case(
        "tagged",
        Tools,
        "<|python_tag|>{\"name\": \"f\", \"parameters\": {\"a\": \"}\"}}",
        &[call("f"), Args("{\"a\": \"}\"}"), END],
    ),
    case(
        "several, tagged",
        Tools,
        "<|python_tag|>{\"name\": \"f\", \"parameters\": {}}; {\"name\": \"g\", \"parameters\": {\"a\": \"; {\"}};\n{\"name\": \"h\"}",
        &[
            call("f"),
            Args("{}"),
            END,
            call("g"),
            Args("{\"a\": \"; {\"}"),
            END,
            call("h"),
            Args("{}"),
            END,
        ],
    ),
    case(
        "several, bare",
        Tools,
        "{\"type\": \"function\", \"name\": \"ls\", \"parameters\": {}}; {\"parameters\": {\"a\": 1}, \"name\": \"ls\"}\n{\"name\": \"ls\", \"arguments\": {}}",
        &[
            call("ls"),
            Args("{}"),
            END,
            call("ls"),
            Args("{\"a\": 1}"),
            END,
            call("ls"),
            Args("{}"),
            END,
        ],
    ),
    case(
        "text before the tag",
        Tools,
        "ok\n<|python_tag|>{\"name\": \"f\"}",
        &[Text("ok"), call("f"), Args("{}"), END],
    ),
    case("data of another kind", Tools, "{\"temperature\": 3}", &[Text("{\"temperature\": 3}")]),
    case(
        "data with a name",
        Tools,
        "{\"name\": \"ls\", \"age\": 3}",
        &[Text("{\"name\": \"ls\", \"age\": 3}")],
    ),
    case(
        "a name that is no tool's",
        Tools,
        "{\"name\": \"Ann\", \"parameters\": {}}",
        &[Text("{\"name\": \"Ann\", \"parameters\": {}}")],
    ),
    case("a name alone", Tools, "{\"name\": \"ls\"}", &[Text("{\"name\": \"ls\"}")]),
    case("no JSON", Tools, "{name: ls}", &[Text("{name: ls}")]),
    case("a set of braces", Tools, "{}", &[Text("{}")]),
    case(
        "code after the tag",
        Tools,
        "<|python_tag|>print(1)",
        &[warn(Malformed), Text("<|python_tag|>print(1)")],
    ),
    case(
        "text after",
        Tools,
        "{\"name\": \"ls\", \"parameters\": {}} and so on",
        &[call("ls"), Args("{}"), END, Text("and so on")],
    ),
    case(
        "a semicolon and text",
        Tools,
        "<|python_tag|>{\"name\": \"ls\", \"parameters\": {}}; so",
        &[call("ls"), Args("{}"), END, Text(";so")],
    ),
    case(
        "a second that is none",
        Tools,
        "{\"name\": \"ls\", \"parameters\": {}}; {\"x\": 1}",
        &[call("ls"), Args("{}"), END, warn(Malformed), Text(";{\"x\": 1}")],
    ),
    case(
        "ends in a string",
        Tools,
        "{\"name\": \"ls\", \"parameters\": {\"a\": \"x\\",
        &[call("ls"), Args("{\"a\": \"x"), warn(Unfinished), cut("\"}")],
    ),
    case(
        "ends before it is certain",
        Tools,
        "{\"name\": \"ls\", \"par",
        &[Text("{\"name\": \"ls\", \"par")],
    ),
    case(
        "ends after the tag",
        Tools,
        "<|python_tag|>",
        &[warn(Unfinished), Text("<|python_tag|>")],
    ),
    case(
        "breaks off",
        Tools,
        "{\"name\": \"ls\", \"parameters\": {\"a\" 1}}",
        &[call("ls"), Args("{"), warn(Malformed), cut("}"), Text("\"a\" 1}}")],
    ),
    case(
        "without tools",
        NoTools,
        "{\"name\": \"ls\", \"parameters\": {}}",
        &[Text("{\"name\": \"ls\", \"parameters\": {}}")],
    ),
];
