//! The internal request: what every client dialect is translated to and the only thing the
//! router's later steps see. It has no serde on purpose: JSON dialects live in `router/src/api`.

use crate::ids::{RequestId, TenantId, TokenId};
use std::fmt;
use std::time::Duration;

/// One request of a client, parsed and within the limits, not yet rendered.
#[derive(Clone, Debug)]
pub struct Request {
    /// Minted by the router.
    pub id: RequestId,
    /// Who asks.
    pub tenant: TenantId,
    /// Whose blocks it may find: what the names of its own are salted with. Mostly the tenant.
    pub scope: TenantId,
    /// What is left until nobody wants the answer any more.
    pub deadline: Duration,
    /// The model's name as the client wrote it.
    pub model: String,
    /// What the model shall continue.
    pub prompt: Prompt,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// When generation ends.
    pub stop: Stop,
    /// Number of choices, at least 1.
    pub choices: u16,
    /// `Some(k)`: log-probabilities of the drawn tokens and of the `k` likeliest alternatives.
    pub logprobs: Option<u8>,
    /// What the harness says about its intent.
    pub hints: Hints,
}

/// What the model shall continue. `Debug` shows sizes alone: prompts do not belong in logs.
#[derive(Clone)]
pub enum Prompt {
    /// A conversation, rendered with the model's chat template.
    Chat(Chat),
    /// Raw text; special tokens written in it are recognised.
    Text(String),
    /// Token ids as they are.
    Tokens(Vec<TokenId>),
}

impl Prompt {
    /// Whether an answer to it is the next message of a conversation.
    pub fn is_continued_by_an_answer(&self) -> bool {
        matches!(self, Self::Chat(chat) if chat.add_generation_prompt)
    }
}

/// A conversation as typed parts in their true order.
#[derive(Clone, Debug, Default)]
pub struct Chat {
    /// The messages; none is moved or merged.
    pub messages: Vec<Message>,
    /// Tool definitions, each the JSON text of one object as the client sent it.
    pub tools: Vec<JsonText>,
    /// Whether the rendering ends with the opening of an assistant's answer.
    pub add_generation_prompt: bool,
    /// Further variables for the template (`enable_thinking`, ...), by name.
    pub template_args: Vec<(String, JsonText)>,
}

impl fmt::Debug for Prompt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chat(chat) => f.debug_tuple("Chat").field(chat).finish(),
            Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Self::Tokens(ids) => write!(f, "Tokens({})", ids.len()),
        }
    }
}

/// JSON as text, with the client's own key order. `Debug` shows its size alone.
#[derive(Clone, PartialEq, Eq)]
pub struct JsonText(pub String);

impl fmt::Debug for JsonText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JsonText({} bytes)", self.0.len())
    }
}

/// One message of a conversation.
#[derive(Clone, Debug)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said, in order.
    pub parts: Vec<Part>,
    /// The speaker's name, where the client gave one.
    pub name: Option<String>,
}

/// Who speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Instructions of the operator.
    System,
    /// Instructions of the application.
    Developer,
    /// The human, or the harness in their place.
    User,
    /// The model.
    Assistant,
    /// A tool.
    Tool,
}

impl Role {
    /// The name that chat templates know.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::Developer => "developer",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        }
    }
}

/// A part of a message. `Debug` shows sizes alone.
#[derive(Clone)]
pub enum Part {
    /// Plain text.
    Text(String),
    /// The model's reasoning, kept apart from its answer.
    Reasoning(String),
    /// A call of a tool by the model.
    ToolCall(ToolCall),
    /// The result of a tool call; its text.
    ToolResult {
        /// The call that is answered, where the client named it.
        call_id: Option<String>,
        /// What the tool said.
        text: String,
    },
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Self::Reasoning(text) => write!(f, "Reasoning({} bytes)", text.len()),
            Self::ToolCall(call) => f.debug_tuple("ToolCall").field(call).finish(),
            Self::ToolResult { text, .. } => write!(f, "ToolResult({} bytes)", text.len()),
        }
    }
}

/// A call of a tool by the model.
#[derive(Clone, Debug)]
pub struct ToolCall {
    /// The call's identity in this conversation.
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// The arguments: the JSON text of one object.
    pub arguments: JsonText,
}

/// How tokens are drawn. Neutral values switch a step off.
#[derive(Clone, PartialEq, Debug)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: f32,
    /// 0 is off.
    pub top_k: u32,
    /// 1 is off.
    pub top_p: f32,
    /// 0 is off.
    pub min_p: f32,
    /// 1 is off; divides positive and multiplies negative logits of tokens seen in prompt or answer.
    pub repetition_penalty: f32,
    /// 0 is off; subtracted once from tokens seen in the answer.
    pub presence_penalty: f32,
    /// 0 is off; subtracted per occurrence in the answer.
    pub frequency_penalty: f32,
    /// Added to the logits, by token.
    pub logit_bias: Vec<(TokenId, f32)>,
    /// Equal seed and prompt give an equal answer; drawn by the router where the client gave none.
    pub seed: u64,
}

impl Sampling {
    /// The likeliest token, always.
    pub fn greedy() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: 0,
        }
    }
}

/// When generation ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stop {
    /// Upper bound of the answer in tokens; already cut to the model's context.
    pub max_tokens: u32,
    /// No end before that many tokens: end tokens are not drawn.
    pub min_tokens: u32,
    /// Texts that end the answer; they are not part of it. Applied by the router.
    pub strings: Vec<String>,
    /// Tokens that end the answer besides the model's own; not part of the text.
    pub ids: Vec<TokenId>,
    /// The model's own end tokens do not end the answer.
    pub ignore_eos: bool,
}

/// The priority of what nobody waits for yet, such as a prompt that is computed ahead: less urgent
/// than any request, in whatever tier.
pub const BACKGROUND_PRIORITY: i32 = i32::MIN;

/// What the harness says about its intent, within the bounds of this deployment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Hints {
    /// Work of a larger one always comes first.
    pub strict_priority: u8,
    /// Larger is more urgent; 0 is ordinary, and waiting makes up for it.
    pub priority: i32,
    /// Expected answer length in tokens.
    pub osl: Option<u32>,
    /// From the request's arrival to when its answer is wanted. It orders, and ends nothing.
    pub wanted_within: Option<Duration>,
    /// After this turn, what the next prompt certainly begins with is computed ahead.
    pub speculative_prefill: bool,
    /// The conversation this turn belongs to.
    pub session: Option<String>,
    /// The conversation that this one works for.
    pub parent: Option<String>,
    /// The tenant's limits that have changed something in this request.
    pub limited: Vec<&'static str>,
}

/// Why an answer ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FinishReason {
    /// An end token or a stop string.
    Stop,
    /// The token limit or the end of the context.
    Length,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_shows_no_word_of_a_prompt() {
        let canary = "canary-4711".to_owned();
        let json = || JsonText(format!("{{\"x\":\"{canary}\"}}"));
        let parts = vec![
            Part::Text(canary.clone()),
            Part::Reasoning(canary.clone()),
            Part::ToolCall(ToolCall { id: "1".into(), name: "ls".into(), arguments: json() }),
            Part::ToolResult { call_id: None, text: canary.clone() },
        ];
        let messages = vec![Message { role: Role::User, parts, name: None }];
        let chat = Chat { messages, tools: vec![json()], ..Chat::default() };
        let prompts =
            [Prompt::Chat(chat), Prompt::Text(canary.clone()), Prompt::Tokens(vec![987_654])];
        let shown = format!("{prompts:?}");
        assert!(!shown.contains(&canary) && !shown.contains("987654"), "{shown}");
    }
}
