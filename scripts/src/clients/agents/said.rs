//! What an agent has said: the results of its tools, its answer, and what it complains of. Each
//! prints JSON lines of its own kind.

use serde_json::Value;

/// Codex knows the names of OpenAI's models, and says so of every other one.
const CODEX_UNKNOWN_MODEL: &str = "Model metadata for ";

/// A kind of JSON lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Output {
    /// `--output-format stream-json` of Claude Code, and of Qwen Code.
    Messages,
    /// `--json` of Codex.
    Codex,
    /// `--format json` of OpenCode.
    OpenCode,
}

/// What the lines say.
#[derive(PartialEq, Eq, Debug, Default)]
pub(super) struct Said {
    /// Of tools that worked, in order.
    results: Vec<String>,
    /// The last text.
    answer: String,
    /// Errors, in the agent's own words.
    complaints: Vec<String>,
}

impl Said {
    /// Reads standard output; whatever is no JSON is a complaint.
    pub(super) fn read(output: Output, stdout: &str) -> Self {
        let mut said = Self::default();
        for line in stdout.lines().filter(|line| !line.trim().is_empty()) {
            match (serde_json::from_str(line), output) {
                (Ok(event), Output::Messages) => said.message(&event),
                (Ok(event), Output::Codex) => said.codex(&event),
                (Ok(event), Output::OpenCode) => said.open_code(&event),
                (Err(_), _) => said.complaints.push(line.to_owned()),
            }
        }
        said
    }

    /// What is wrong with it, if a tool was to find `word`, after which the model said `answer`.
    pub(super) fn faults(&self, word: &str, answer: &str) -> Vec<String> {
        let mut faults: Vec<String> =
            self.complaints.iter().map(|complaint| format!("it printed {complaint}")).collect();
        if !self.results.iter().any(|result| result.contains(word)) {
            faults.push(format!("no tool's result has the file's word {word}"));
        }
        if self.answer.trim().is_empty() {
            faults.push("its answer is empty".to_owned());
        } else if self.answer.trim() != answer {
            faults.push(format!("its answer is {:?}, not {answer:?}", self.answer));
        }
        faults
    }

    fn message(&mut self, event: &Value) {
        let blocks = event["message"]["content"].as_array();
        for block in blocks.into_iter().flatten().filter(|block| block["type"] == "tool_result") {
            self.result(block["is_error"] != true, &block["content"]);
        }
        if event["type"] == "result" {
            self.answer = text(&event["result"]);
        }
        let failed = event["is_error"] == true || event["type"] == "error";
        let ended = event["type"] == "result" && event["subtype"] != "success";
        if failed || ended {
            self.complaints.push(event.to_string());
        }
    }

    fn codex(&mut self, event: &Value) {
        let item = &event["item"];
        let known = text(&item["message"]).starts_with(CODEX_UNKNOWN_MODEL);
        match (text(&event["type"]).as_str(), text(&item["type"]).as_str()) {
            ("item.completed", "command_execution") => {
                self.result(item["exit_code"] == 0, &item["aggregated_output"]);
            }
            ("item.completed", "agent_message") => self.answer = text(&item["text"]),
            ("error" | "turn.failed", _) => self.complaints.push(event.to_string()),
            (_, "error") if !known => self.complaints.push(event.to_string()),
            _ => {}
        }
    }

    fn open_code(&mut self, event: &Value) {
        let part = &event["part"];
        match text(&event["type"]).as_str() {
            "tool_use" => {
                let state = &part["state"];
                let worked = state["status"] == "completed";
                self.result(worked, if worked { &state["output"] } else { state });
            }
            "text" => self.answer = text(&part["text"]),
            "error" => self.complaints.push(event.to_string()),
            _ => {}
        }
    }

    fn result(&mut self, worked: bool, told: &Value) {
        let list = if worked { &mut self.results } else { &mut self.complaints };
        list.push(text(told));
    }
}

/// Lines of standard error that speak of an error.
pub(super) fn errors(stderr: &str) -> Vec<String> {
    let lines = stderr.lines().filter(|line| line.to_lowercase().contains("error"));
    lines.map(|line| format!("it printed {line}")).collect()
}

/// A text as it is, anything else as JSON, nothing for null.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
