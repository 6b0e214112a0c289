//! Qwen3-Coder.

use super::{
    Args, Case, END, Malformed, Mended, NoTools, Reasoning, Table, Text, Think, Thinking, Tools,
    Unfinished, call, case, cut, warn,
};

pub(super) const QWEN_CODER: Table =
    Table { format: "qwen3_coder", reasoning: Reasoning::Think, cases: &CASES };

const CASES: [Case; 30] = [
    case("text", Tools, "a <b> </function> c\n", &[Text("a <b> </function> c\n")]),
    case(
        "a call",
        Tools,
        "<tool_call>\n<function=ls>\n<parameter=path>\n/tmp\n</parameter>\n</function>\n</tool_call>",
        &[call("ls"), Args("{\"path\": \"/tmp\"}"), END],
    ),
    case(
        "without parameters",
        Tools,
        "<tool_call>\n<function=ls>\n</function>\n</tool_call>\n",
        &[call("ls"), Args("{}"), END],
    ),
    case(
        "lines, quotes and tags in a value",
        Tools,
        "<tool_call><function=edit><parameter=text>\n\n<a href=\"x\">\\é\t</a>\n</function> \"\n\n</parameter></function></tool_call>",
        &[
            call("edit"),
            Args("{\"text\": \"\\n<a href=\\\"x\\\">\\\\é\\t</a>\"}"),
            END,
            warn(Malformed),
            Text(" \"\n\n</parameter></function>"),
        ],
    ),
    case(
        "markers within a line of a value",
        Tools,
        "<function=edit><parameter=text>a</function>b<parameter=c></tool_call><tool_call></parameter></function>",
        &[
            call("edit"),
            Args("{\"text\": \"a</function>b<parameter=c></tool_call><tool_call>\"}"),
            END,
        ],
    ),
    case(
        "a value with the end of a value",
        Tools,
        "<function=edit><parameter=text>\na\n</parameter>\nb\n</parameter>\n</function>",
        &[call("edit"), Args("{\"text\": \"a\\n</parameter>\\nb\"}"), END],
    ),
    case(
        "types",
        Tools,
        "<tool_call><function=edit><parameter=count>\n-1.5\n</parameter><parameter=all>True</parameter>\
         <parameter=options>\n{\"a\": [\"</parameter> \", 1]}\n</parameter><parameter=list>[]</parameter>\
         <parameter=path>12</parameter></function></tool_call>",
        &[
            call("edit"),
            Args(
                "{\"count\": -1.5, \"all\": true, \"options\": {\"a\": [\"</parameter> \", 1]}, \"list\": [], \"path\": \"12\"}",
            ),
            warn(Mended),
            END,
        ],
    ),
    case(
        "values of other types",
        Tools,
        "<function=edit><parameter=count>\nmany\n</parameter><parameter=all>1</parameter>\
         <parameter=options>{'a': 1}</parameter><parameter=list>[1</parameter></function>",
        &[
            call("edit"),
            Args(
                "{\"count\": \"many\", \"all\": \"1\", \"options\": \"{'a': 1}\", \"list\": \"[1\"}",
            ),
            END,
        ],
    ),
    case(
        "several types",
        Tools,
        "<function=edit><parameter=either>null</parameter><parameter=maybe>\nnull\n</parameter>\
         <parameter=maybe>nul</parameter><parameter=maybe>nulls</parameter><parameter=maybe></parameter></function>",
        &[
            call("edit"),
            Args(
                "{\"either\": \"null\", \"maybe\": null, \"maybe\": \"nul\", \"maybe\": \"nulls\", \"maybe\": \"\"}",
            ),
            END,
        ],
    ),
    case(
        "an unknown tool",
        Tools,
        "<function=x y><parameter= \"q\" >1</parameter></function>",
        &[call("x y"), Args("{\"\\\"q\\\"\": \"1\"}"), END],
    ),
    case(
        "two calls and text",
        Tools,
        "ok\n\n<tool_call>\n<function=ls>\n</function>\n</tool_call>\n<tool_call>\n<function=ls>\n</function>\n</tool_call>\nso",
        &[Text("ok\n"), call("ls"), Args("{}"), END, call("ls"), Args("{}"), END, Text("\nso")],
    ),
    case(
        "two functions in one",
        Tools,
        "<tool_call>\n<function=ls>\n</function>\n<function=ls>\n</function>\n</tool_call>",
        &[call("ls"), Args("{}"), END, call("ls"), Args("{}"), END],
    ),
    case(
        "reasoning",
        Thinking,
        "so\n</think>\n\n<tool_call>\n<function=ls>\n</function>\n</tool_call>",
        &[Think("so"), call("ls"), Args("{}"), END],
    ),
    case(
        "a call ends the reasoning",
        Thinking,
        "so\n<tool_call>\n<function=ls>\n</function>\n</tool_call>\n</think>",
        &[Think("so"), call("ls"), Args("{}"), END],
    ),
    case(
        "no end of the value",
        Tools,
        "<function=ls>\n<parameter=a>\n1\n<parameter=b>\n2\n</function>\n</tool_call>",
        &[call("ls"), Args("{\"a\": \"1\", \"b\": \"2\"}"), END],
    ),
    case(
        "no end of the function",
        Tools,
        "<tool_call><function=ls><parameter=a>\n1\n</parameter>\n</tool_call>\nso",
        &[call("ls"), Args("{\"a\": \"1\"}"), END, Text("\nso")],
    ),
    case(
        "no function",
        Tools,
        "a\n<tool_call>\n{\"name\": \"ls\"}\n</tool_call>",
        &[Text("a"), warn(Malformed), Text("\n<tool_call>\n{\"name\": \"ls\"}\n</tool_call>")],
    ),
    case(
        "no name",
        Tools,
        "<tool_call><function=></function>",
        &[warn(Malformed), Text("<tool_call><function=></function>")],
    ),
    case("a name over lines", Tools, "<function=a\n>", &[warn(Malformed), Text("<function=a\n>")]),
    case(
        "junk in the function",
        Tools,
        "<tool_call><function=ls>so</function></tool_call>",
        &[call("ls"), Args("{"), warn(Malformed), cut("}"), Text("so</function>")],
    ),
    case(
        "a key without an end",
        Tools,
        "<function=ls><parameter=a\n1</parameter>",
        &[call("ls"), Args("{"), warn(Malformed), cut("}"), Text("<parameter=a\n1</parameter>")],
    ),
    case(
        "ends in a value",
        Tools,
        "<function=ls><parameter=a>\nrm -rf /tm\n</para",
        &[call("ls"), Args("{\"a\": \"rm -rf /tm"), warn(Unfinished), cut("\"}")],
    ),
    case(
        "ends in a number",
        Tools,
        "<function=edit><parameter=count>1",
        &[call("edit"), Args("{"), warn(Unfinished), cut("}")],
    ),
    case(
        "ends after a value",
        Tools,
        "<function=edit><parameter=count>1</parameter>\n</fun",
        &[call("edit"), Args("{\"count\": 1"), warn(Unfinished), cut("}")],
    ),
    case(
        "ends in a key",
        Tools,
        "<function=edit><parameter=cou",
        &[call("edit"), Args("{"), warn(Unfinished), cut("}")],
    ),
    case(
        "ends in the name",
        Tools,
        "<tool_call>\n<function=ed",
        &[warn(Unfinished), Text("<tool_call>\n<function=ed")],
    ),
    case(
        "ends in a marker",
        Tools,
        "<tool_call>\n<func",
        &[warn(Unfinished), Text("<tool_call>\n<func")],
    ),
    case(
        "newlines alone",
        Tools,
        "<function=ls><parameter=a>\n\n</parameter></function>",
        &[call("ls"), Args("{\"a\": \"\"}"), END],
    ),
    case(
        "a value with what looks like markup",
        Tools,
        "<function=ls><parameter=a><<<p<param</parameter></function>",
        &[call("ls"), Args("{\"a\": \"<<<p<param\"}"), END],
    ),
    case("without tools", NoTools, "<function=ls></function>", &[Text("<function=ls></function>")]),
];
