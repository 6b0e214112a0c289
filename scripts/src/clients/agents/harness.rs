//! The agents: how each is pointed at Baton, which of its tools reads a file, and what keeps it from
//! talking to anybody else. docs/agents.md has what a person would write.

use super::said::Output;
use serde_json::{Value, json};
use std::path::Path;

/// The model's name; its folder has it too.
pub(super) const MODEL: &str = "baton-demo";
/// What every agent is asked.
const PROMPT: &str = "Which word is in the file note.txt?";

/// An agent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Harness {
    ClaudeCode,
    Codex,
    OpenCode,
    QwenCode,
}

/// How an agent is started, for a router at some address.
pub(super) struct Setup {
    pub(super) arguments: Vec<&'static str>,
    pub(super) environment: Vec<(&'static str, String)>,
    /// A file in its home, with its text.
    pub(super) settings: Option<(&'static str, String)>,
}

impl Harness {
    pub(super) const ALL: [Self; 4] =
        [Self::ClaudeCode, Self::Codex, Self::OpenCode, Self::QwenCode];

    /// The program that npm installs.
    pub(super) fn program(self) -> &'static str {
        match self {
            Self::ClaudeCode => "claude",
            Self::Codex => "codex",
            Self::OpenCode => "opencode",
            Self::QwenCode => "qwen",
        }
    }

    /// The interface it speaks, as the router's metrics call it.
    pub(super) fn interface(self) -> &'static str {
        match self {
            Self::ClaudeCode => "messages",
            Self::Codex => "responses",
            Self::OpenCode | Self::QwenCode => "chat_completions",
        }
    }

    /// The form of what it prints.
    pub(super) fn output(self) -> Output {
        match self {
            // Qwen Code prints what Claude Code does.
            Self::ClaudeCode | Self::QwenCode => Output::Messages,
            Self::Codex => Output::Codex,
            Self::OpenCode => Output::OpenCode,
        }
    }

    /// Whether it asks for reasoning: the template then begins the answer within a thought.
    pub(super) fn thinks(self) -> bool {
        matches!(self, Self::ClaudeCode | Self::Codex)
    }

    /// The call of its own tool that reads this file: a name, and arguments.
    pub(super) fn call(self, file: &Path) -> (&'static str, Value) {
        match self {
            Self::ClaudeCode => ("Read", json!({"file_path": file})),
            Self::Codex => ("exec_command", json!({"cmd": format!("cat '{}'", file.display())})),
            Self::OpenCode => ("read", json!({"filePath": file})),
            Self::QwenCode => ("read_file", json!({"file_path": file})),
        }
    }

    /// How to start it with `home` as its home; `url` is the router's.
    pub(super) fn setup(self, url: &str, home: &Path) -> Setup {
        match self {
            Self::ClaudeCode => claude_code(url),
            Self::Codex => codex(url),
            Self::OpenCode => open_code(url, home),
            Self::QwenCode => qwen_code(url),
        }
    }
}

fn claude_code(url: &str) -> Setup {
    let output = ["--output-format", "stream-json", "--verbose"];
    Setup {
        arguments: [&["-p", PROMPT][..], &output, &["--allowedTools", "Read"]].concat(),
        environment: vec![
            ("ANTHROPIC_BASE_URL", url.to_owned()),
            ("ANTHROPIC_AUTH_TOKEN", "none".to_owned()),
            ("ANTHROPIC_MODEL", MODEL.to_owned()),
            ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1".to_owned()),
            ("DISABLE_AUTOUPDATER", "1".to_owned()),
            ("CLAUDE_CODE_MAX_RETRIES", "0".to_owned()),
        ],
        settings: None,
    }
}

fn codex(url: &str) -> Setup {
    let settings = format!(
        "model = \"{MODEL}\"
model_provider = \"baton\"
model_reasoning_effort = \"high\"

[model_providers.baton]
name = \"baton\"
base_url = \"{url}/v1\"
wire_api = \"responses\"
request_max_retries = 0
stream_max_retries = 0
"
    );
    Setup {
        arguments: vec!["exec", "--json", "--skip-git-repo-check", PROMPT],
        environment: Vec::new(),
        settings: Some((".codex/config.toml", settings)),
    }
}

fn open_code(url: &str, home: &Path) -> Setup {
    const SETTINGS: &str = "opencode.json";
    let limit = json!({"context": 200_000, "output": 8_000});
    let settings = json!({
        "autoupdate": false,
        "share": "disabled",
        "model": format!("baton/{MODEL}"),
        "small_model": format!("baton/{MODEL}"),
        "provider": {"baton": {
            "npm": "@ai-sdk/openai-compatible",
            "name": "baton",
            "options": {"baseURL": format!("{url}/v1"), "apiKey": "none"},
            "models": {MODEL: {"name": MODEL, "tool_call": true, "limit": limit}},
        }},
    });
    Setup {
        arguments: vec!["run", "--format", "json", PROMPT],
        environment: vec![
            ("OPENCODE_CONFIG", home.join(SETTINGS).display().to_string()),
            ("OPENCODE_DISABLE_AUTOUPDATE", "1".to_owned()),
            ("OPENCODE_DISABLE_LSP_DOWNLOAD", "1".to_owned()),
            ("OPENCODE_DISABLE_MODELS_FETCH", "1".to_owned()),
        ],
        settings: Some((SETTINGS, settings.to_string())),
    }
}

fn qwen_code(url: &str) -> Setup {
    let settings = json!({
        "general": {"enableAutoUpdate": false},
        "privacy": {"usageStatisticsEnabled": false},
        "telemetry": {"enabled": false},
    });
    Setup {
        arguments: vec![PROMPT, "--output-format", "stream-json"],
        environment: vec![
            ("OPENAI_BASE_URL", format!("{url}/v1")),
            ("OPENAI_API_KEY", "none".to_owned()),
            ("OPENAI_MODEL", MODEL.to_owned()),
        ],
        settings: Some((".qwen/settings.json", settings.to_string())),
    }
}
