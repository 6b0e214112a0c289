//! What the scripted engine says to an agent: the call of a tool, and after its result the answer.

use super::harness::{Harness, MODEL};
use crate::failure::Failure;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Enough for the agents' own prompts of up to 35,000 tokens.
const CONTEXT_TOKENS: u32 = 200_000;
/// Of the model in the box: what the engine and the router read when no weights are wanted.
const MODEL_FILES: [(&str, Option<&str>); 5] = [
    ("chat_template.jinja", None),
    ("generation_config.json", None),
    ("tokenizer.json", None),
    ("config.json", Some("max_position_embeddings")),
    ("tokenizer_config.json", Some("model_max_length")),
];

/// The script for one run. `word` stands in the file alone, `answer` in the script alone. The first
/// rule that fits wins; the texts of the second and the third are what the chat template writes
/// around results and tools.
pub(super) fn script(harness: Harness, file: &Path, word: &str, answer: &str) -> String {
    let (name, arguments) = harness.call(file);
    let call = json!({"name": name, "arguments": arguments});
    let thought = if harness.thinks() { "Let me see.\n</think>\n\n" } else { "" };
    [
        json!({"when": word, "say": format!("{thought}{answer}")}),
        // A tool that failed must not be called for ever.
        json!({"when": "<tool_response>", "say": format!("{thought}The tool found no word.")}),
        json!({"when": "</tools>", "say": format!("{thought}<tool_call>\n{call}\n</tool_call>")}),
        // Asked for a title, for example.
        json!({"say": "A word in a file"}),
    ]
    .map(|rule| format!("{rule}\n"))
    .concat()
}

/// Copies the model in the box, with a context that agents can work in.
pub(super) fn model(root: &Path, folder: &Path) -> Result<PathBuf, Failure> {
    let (from, to) = (root.join("models/demo"), folder.join(MODEL));
    std::fs::create_dir(&to)?;
    for (name, context) in MODEL_FILES {
        let text = std::fs::read_to_string(from.join(name))?;
        let text = match context {
            Some(field) => widened(&text, field)
                .ok_or_else(|| Failure::new(format!("models/demo/{name} has no `{field}`")))?,
            None => text,
        };
        std::fs::write(to.join(name), text)?;
    }
    Ok(to)
}

/// The settings with this one, which must be there, at [`CONTEXT_TOKENS`].
fn widened(settings: &str, field: &str) -> Option<String> {
    let mut settings: Value = serde_json::from_str(settings).ok()?;
    *settings.get_mut(field)? = CONTEXT_TOKENS.into();
    Some(settings.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_stands_behind_the_word_only() {
        for harness in Harness::ALL {
            let script = script(harness, Path::new("/a \"b\"/note.txt"), "walrus", "It is so.");
            let rules: Vec<Value> =
                script.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
            let told: Vec<bool> =
                rules.iter().map(|rule| rule["say"].to_string().contains("It is so.")).collect();
            assert_eq!(told, [true, false, false, false]);
            assert_eq!(rules[0]["when"], "walrus");
            assert_eq!(script.matches("walrus").count(), 1, "the call must not tell the word");
        }
    }

    #[test]
    fn only_a_setting_that_is_there_is_widened() {
        let settings = r#"{"model_max_length":4096,"pad_token":"x"}"#;
        let wide = widened(settings, "model_max_length");
        assert_eq!(wide.as_deref(), Some(r#"{"model_max_length":200000,"pad_token":"x"}"#));
        assert_eq!(widened(settings, "max_position_embeddings"), None);
    }
}
