//! Scripts: which prompt gets which answer.
//!
//! A script is a file of JSON lines, one rule a line; blank lines are skipped. `when` says which
//! prompts a rule is for, `say` what they get; both are a text or a list of token ids. The first
//! rule that fits wins, and one without `when` fits always:
//!
//! ```json
//! {"when": "weather in", "say": "It rains."}
//! {"when": [5, 6], "say": [7, 8, 9]}
//! {"say": "I have nothing to say."}
//! ```

use baton_proto::ids::TokenId;
use serde::Deserialize;
use std::fmt::Display;

/// Rules in a script.
const RULES_MAX: usize = 10_000;
/// Token ids in a script, over all rules.
const TOKENS_MAX: usize = 1 << 20;

/// Which prompt gets which answer.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Script {
    rules: Vec<Rule>,
}

/// One rule of a script.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    /// The prompts it is for.
    pub when: When,
    /// The answer, without an end token.
    pub say: Vec<TokenId>,
}

/// Prompts that a rule is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum When {
    /// All.
    Always,
    /// Those in which these ids follow each other somewhere.
    Tokens(Vec<TokenId>),
    /// Those whose text contains this one.
    Text(String),
}

impl Script {
    /// Parses a script; `encode` turns the texts of answers into token ids.
    pub fn parse<E: Display>(
        lines: &str,
        mut encode: impl FnMut(&str) -> Result<Vec<TokenId>, E>,
    ) -> Result<Self, ScriptError> {
        let mut script = Self::default();
        let mut tokens = 0;
        for (number, line) in (1..).zip(lines.lines()) {
            if line.trim().is_empty() {
                continue;
            }
            let refuse = |problem: String| ScriptError::Line { line: number, problem };
            let raw: RawRule =
                serde_json::from_str(line).map_err(|error| refuse(error.to_string()))?;
            let rule = Rule {
                when: match raw.when {
                    None => When::Always,
                    Some(Words::Text(text)) => When::Text(text),
                    Some(Words::Tokens(tokens)) => When::Tokens(tokens),
                },
                say: match raw.say {
                    Words::Tokens(tokens) => tokens,
                    Words::Text(text) => {
                        encode(&text).map_err(|error| refuse(format!("`say`: {error}")))?
                    }
                },
            };
            tokens += rule.say.len();
            if script.rules.len() == RULES_MAX || tokens > TOKENS_MAX {
                let most = format!("at most {RULES_MAX} rules and {TOKENS_MAX} tokens are allowed");
                return Err(refuse(most));
            }
            script.rules.push(rule);
        }
        Ok(script)
    }

    /// A script of these rules.
    pub fn new(rules: Vec<Rule>) -> Self {
        Self { rules }
    }

    /// The number of the first rule that fits a prompt.
    pub(super) fn find(
        &self,
        prompt: &[TokenId],
        decode: &dyn Fn(&[TokenId]) -> String,
    ) -> Option<usize> {
        let mut text = None;
        self.rules.iter().position(|rule| match &rule.when {
            When::Always => true,
            When::Tokens(ids) => {
                ids.is_empty() || prompt.windows(ids.len()).any(|window| window == ids)
            }
            When::Text(part) => text.get_or_insert_with(|| decode(prompt)).contains(part.as_str()),
        })
    }

    /// What a rule says; nothing if there is no such rule.
    pub(super) fn say(&self, rule: Option<usize>) -> &[TokenId] {
        rule.and_then(|rule| self.rules.get(rule)).map_or(&[], |rule| &rule.say)
    }

    /// A token that a rule says and that is not below `vocab`.
    pub(super) fn beyond(&self, vocab: u32) -> Option<TokenId> {
        self.rules.iter().flat_map(|rule| &rule.say).copied().find(|token| *token >= vocab)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    when: Option<Words>,
    say: Words,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a text or a list of token ids")]
enum Words {
    Text(String),
    Tokens(Vec<TokenId>),
}

/// Why a script cannot be played.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ScriptError {
    /// A line that is no rule.
    #[error("script, line {line}: {problem}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// A token that the vocabulary does not have.
    #[error("script: `say` has token {token}, but token ids are below {vocab}")]
    Token {
        /// The token.
        token: TokenId,
        /// The vocabulary's size.
        vocab: u32,
    },
    /// An impossible shape.
    #[error(transparent)]
    Spec(#[from] crate::witness::SpecError),
}
