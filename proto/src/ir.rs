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
    /// Tokens of reasoning that each choice may have; then its end is written for the model.
    pub thinking_budget: Option<u32>,
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
    /// The tools that the model may call.
    pub tools: Vec<Tool>,
    /// Whether it calls one.
    pub tool_choice: ToolChoice,
    /// An answer has one call at most.
    pub serial_tool_calls: bool,
    /// Whether the model thinks before it answers; unsaid, the template decides.
    pub thinking: Option<bool>,
    /// What is taken out of the history before it is rendered, one after the other.
    pub edits: Vec<Edit>,
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

/// Something that is taken out of a history, to make room.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Edit {
    /// The reasoning of all but the last messages that have some.
    ClearThinking {
        /// So many of these keep theirs.
        keep: usize,
    },
    /// The results of all but the last tool calls; what is left says that there was one.
    ClearToolUses {
        /// From when on it is done.
        trigger: Trigger,
        /// So many calls keep their results.
        keep: usize,
        /// Where it would make less room than that, nothing is done; in tokens.
        clear_at_least: usize,
        /// Tools whose results stay.
        exclude: Vec<String>,
        /// Whose calls lose their arguments, too.
        inputs: ToolSet,
    },
}

/// From when on a history is edited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trigger {
    /// The prompt has more tokens than that.
    PromptTokens(usize),
    /// The history has more results of tools than that.
    ToolUses(usize),
}

/// Some of the tools of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ToolSet {
    /// None of them.
    None,
    /// All of them.
    All,
    /// Those of these names.
    Named(Vec<String>),
}

/// A tool that the model may call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tool {
    /// The JSON text of one object, of the form that chat templates know:
    /// `{"type":"function","function":{"name","description","parameters"}}`.
    pub definition: JsonText,
    /// The prompt up to here is worth keeping.
    pub cache: Option<CacheTtl>,
}

impl From<JsonText> for Tool {
    fn from(definition: JsonText) -> Self {
        Self { definition, cache: None }
    }
}

/// Whether the model calls a tool.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum ToolChoice {
    /// As it likes.
    #[default]
    Auto,
    /// It calls none: what looks like a call is text.
    None,
    /// It calls some tool.
    Required,
    /// It calls the tool of that name.
    Named(String),
}

/// How long what a client wants to be kept shall be kept after it was last used.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum CacheTtl {
    /// Five minutes.
    Minutes5,
    /// An hour.
    Hour1,
}

/// One message of a conversation.
#[derive(Clone, PartialEq, Eq, Debug)]
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

/// A part of a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    /// What is said.
    pub content: Content,
    /// The prompt up to here is worth keeping.
    pub cache: Option<CacheTtl>,
}

impl Part {
    /// Plain text.
    pub fn text(text: impl Into<String>) -> Self {
        Content::Text(text.into()).into()
    }

    /// What its blocks are for whoever decides how long they are kept.
    pub fn class(&self, role: Role) -> BlockClass {
        match (&self.content, role) {
            (Content::ToolResult { .. }, _) | (_, Role::Tool) => BlockClass::ToolResult,
            (Content::Reasoning(_), _) => BlockClass::Reasoning,
            (Content::ToolCall(_), _) | (_, Role::Assistant) => BlockClass::Answer,
            (_, Role::System | Role::Developer) => BlockClass::System,
            (_, Role::User) => BlockClass::History,
        }
    }
}

impl From<Content> for Part {
    fn from(content: Content) -> Self {
        Self { content, cache: None }
    }
}

/// What a part of a prompt is. Tool definitions count as the system's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BlockClass {
    /// Instructions and tools: what conversations share.
    System,
    /// What users have said.
    History,
    /// What tools have said.
    ToolResult,
    /// What the model has thought, which templates take out of later prompts.
    Reasoning,
    /// What the model has said, its calls included.
    Answer,
}

/// What is said in a part. `Debug` shows sizes alone.
#[derive(Clone, PartialEq, Eq)]
pub enum Content {
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
        /// The tool failed.
        is_error: bool,
    },
    /// A picture; models without vision refuse it.
    Image(Image),
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Self::Reasoning(text) => write!(f, "Reasoning({} bytes)", text.len()),
            Self::ToolCall(call) => f.debug_tuple("ToolCall").field(call).finish(),
            Self::ToolResult { text, .. } => write!(f, "ToolResult({} bytes)", text.len()),
            Self::Image(image) => write!(f, "Image({} bytes)", image.source.len()),
        }
    }
}

/// A picture.
#[derive(Clone, PartialEq, Eq)]
pub struct Image {
    /// Where it stands in what the client sent, for messages to the client.
    pub path: String,
    /// A URL, which may be one of the scheme `data`.
    pub source: String,
}

/// A call of a tool by the model.
#[derive(Clone, PartialEq, Eq, Debug)]
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

impl Stop {
    /// After so many tokens at most, and where the model ends.
    pub fn after(max_tokens: u32) -> Self {
        let (strings, ids) = (Vec::new(), Vec::new());
        Self { max_tokens, min_tokens: 0, strings, ids, ignore_eos: false }
    }
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
        let call = ToolCall { id: "1".into(), name: "ls".into(), arguments: json() };
        let image = Image { path: "messages[0]".into(), source: canary.clone() };
        let result = Content::ToolResult { call_id: None, text: canary.clone(), is_error: false };
        let parts = [
            Content::Text(canary.clone()),
            Content::Reasoning(canary.clone()),
            Content::ToolCall(call),
            result,
            Content::Image(image),
        ];
        let parts = parts.map(Part::from).to_vec();
        let messages = vec![Message { role: Role::User, parts, name: None }];
        let chat = Chat { messages, tools: vec![json().into()], ..Chat::default() };
        let prompts =
            [Prompt::Chat(chat), Prompt::Text(canary.clone()), Prompt::Tokens(vec![987_654])];
        let shown = format!("{prompts:?}");
        assert!(!shown.contains(&canary) && !shown.contains("987654"), "{shown}");
    }
}
