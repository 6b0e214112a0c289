//! Lines as the agents print them, shortened.

use super::*;

const CLAUDE: &str = r#"{"type":"system","subtype":"init","model":"baton-demo"}
{"type":"assistant","message":{"content":[{"type":"tool_use","id":"toolu_1","name":"Read","input":{"file_path":"note.txt"}}]}}
{"type":"user","message":{"role":"user","content":[{"tool_use_id":"toolu_1","type":"tool_result","content":"1\twalrus\n2\t"}]}}
{"type":"assistant","message":{"content":[{"type":"text","text":"It is so."}]}}
{"type":"result","subtype":"success","is_error":false,"num_turns":2,"result":"It is so."}
"#;
const CODEX: &str = r#"{"type":"thread.started","thread_id":"01a2"}
{"type":"item.completed","item":{"id":"item_0","type":"error","message":"Model metadata for `baton-demo` not found. Defaulting to fallback metadata."}}
{"type":"item.completed","item":{"id":"item_1","type":"command_execution","command":"cat note.txt","aggregated_output":"walrus\n","exit_code":0,"status":"completed"}}
{"type":"item.completed","item":{"id":"item_2","type":"agent_message","text":"It is so."}}
{"type":"turn.completed","usage":{"input_tokens":30425}}
"#;
const OPEN_CODE: &str = r#"{"type":"tool_use","part":{"type":"tool","tool":"read","state":{"status":"completed","output":"1: walrus"}}}
{"type":"step_finish","part":{"type":"step-finish","reason":"tool-calls"}}
{"type":"text","part":{"type":"text","text":"It is so."}}
{"type":"step_finish","part":{"type":"step-finish","reason":"stop"}}
"#;

fn faults(output: Output, stdout: &str) -> Vec<String> {
    Said::read(output, stdout).faults("walrus", "It is so.")
}

#[test]
fn a_whole_loop_is_good() {
    for (output, stdout) in
        [(Output::Messages, CLAUDE), (Output::Codex, CODEX), (Output::OpenCode, OPEN_CODE)]
    {
        assert_eq!(faults(output, stdout), Vec::<String>::new(), "{output:?}");
    }
}

#[test]
fn an_empty_turn_is_found() {
    for (output, stdout) in
        [(Output::Messages, CLAUDE), (Output::Codex, CODEX), (Output::OpenCode, OPEN_CODE)]
    {
        let silent = stdout.replace("It is so.", "");
        assert_eq!(faults(output, &silent), ["its answer is empty"], "{output:?}");
        assert_eq!(faults(output, "").len(), 2, "{output:?}");
    }
}

#[test]
fn a_tool_that_did_not_read_the_file_is_found() {
    for (output, stdout) in
        [(Output::Messages, CLAUDE), (Output::Codex, CODEX), (Output::OpenCode, OPEN_CODE)]
    {
        let other = stdout.replace("walrus", "seal");
        let missing = ["no tool's result has the file's word walrus"];
        assert_eq!(faults(output, &other), missing, "{output:?}");
    }
    let failed = [
        (
            Output::Messages,
            CLAUDE.replace(r#""type":"tool_result""#, r#""type":"tool_result","is_error":true"#),
        ),
        (Output::Codex, CODEX.replace(r#""exit_code":0"#, r#""exit_code":1"#)),
        (Output::OpenCode, OPEN_CODE.replace("completed", "error")),
    ];
    for (output, stdout) in failed {
        assert_eq!(faults(output, &stdout).len(), 2, "{output:?}");
    }
}

#[test]
fn every_error_that_is_printed_counts() {
    let lines = [
        (
            Output::Messages,
            CLAUDE,
            r#"{"type":"result","subtype":"error_max_turns","result":"It is so."}"#,
        ),
        (
            Output::Messages,
            CLAUDE,
            r#"{"type":"result","subtype":"success","is_error":true,"result":"It is so."}"#,
        ),
        (Output::Codex, CODEX, r#"{"type":"error","message":"stream disconnected"}"#),
        (Output::Codex, CODEX, r#"{"type":"turn.failed","error":{"message":"no"}}"#),
        (
            Output::Codex,
            CODEX,
            r#"{"type":"item.completed","item":{"type":"error","message":"no"}}"#,
        ),
        (Output::OpenCode, OPEN_CODE, r#"{"type":"error","error":{"name":"APIError"}}"#),
        (Output::OpenCode, OPEN_CODE, "Segmentation fault"),
    ];
    for (output, good, line) in lines {
        let found = faults(output, &format!("{good}{line}\n"));
        assert!(matches!(&found[..], [one] if one.starts_with("it printed ")), "{line}: {found:?}");
    }
    assert_eq!(errors("WARNING: fine\nAPI Error: 500\n"), ["it printed API Error: 500"]);
}
