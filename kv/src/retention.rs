//! Why a block may be worth keeping: what its tokens are, how urgent their request was, how long
//! somebody wants to find them again.
//!
//! It is kept with the block and told when the block makes room. The order of eviction is the
//! least recently used leaf's, whatever is said here.

use std::time::Duration;

/// What the tokens of a block are, as far as the typed parts of its request tell.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub enum Class {
    /// Instructions and tool definitions, shared by many conversations.
    SystemAndTools,
    /// What was said before, by whomever.
    #[default]
    History,
    /// What a tool said.
    ToolResult,
    /// The model's reasoning, which templates tend to strip from the next turn.
    Reasoning,
    /// What the model has just answered.
    Answer,
    /// A conversation of a subagent, which ends with its task.
    Subagent,
}

impl Class {
    /// All of them.
    pub const ALL: [Class; 6] = [
        Class::SystemAndTools,
        Class::History,
        Class::ToolResult,
        Class::Reasoning,
        Class::Answer,
        Class::Subagent,
    ];

    /// The label that metrics show.
    pub fn as_str(self) -> &'static str {
        match self {
            Class::SystemAndTools => "system_and_tools",
            Class::History => "history",
            Class::ToolResult => "tool_result",
            Class::Reasoning => "reasoning",
            Class::Answer => "answer",
            Class::Subagent => "subagent",
        }
    }
}

/// Why a block may be worth keeping.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Retention {
    /// What its tokens are.
    pub class: Class,
    /// The request's priority; larger is more urgent.
    pub priority: i32,
    /// How long after its last use somebody wants to find it; nobody said: `None`.
    pub ttl: Option<Duration>,
}
