//! The decoders by themselves: a body to what it asks for, without a server around it. For fuzzing.

use super::common::{Call, Mint};
use super::{Dialect, body};
use crate::config::Config;
use crate::error::Invalid;
use crate::intent::{Bounds, Said};
use crate::switches::Switches;
use baton_proto::ids::{RequestId, TenantId};
use baton_proto::ir::{Chat, Content, JsonText, Part, Prompt};
use baton_text::SamplingDefaults;
use std::time::Duration;

/// Whose words a body is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decoder {
    /// `POST /v1/chat/completions`
    Chat,
    /// `POST /v1/messages`
    Messages,
    /// `POST /v1/responses`
    Responses,
}

/// What a body asks for.
#[derive(Debug)]
pub struct Decoded(Call);

/// Why a body is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// The field at fault; none where the body is no object at all.
    pub param: Option<String>,
    /// For programs.
    pub code: &'static str,
    /// For people.
    pub message: String,
}

impl From<Invalid> for Refused {
    fn from(Invalid { param, code, message }: Invalid) -> Self {
        Self { param, code, message }
    }
}

/// Decodes a body as the server does, under the default configuration.
pub fn decode(decoder: Decoder, body: &[u8]) -> Result<Decoded, Refused> {
    let dialect = match decoder {
        Decoder::Chat => Dialect::Chat,
        Decoder::Messages => Dialect::Messages,
        Decoder::Responses => Dialect::Responses,
    };
    let config = Config::default();
    let mint = Mint {
        id: RequestId::default(),
        tenant: TenantId::anonymous(),
        scope: TenantId::anonymous(),
        deadline: Duration::from_mins(1),
        seed: 0,
        sampling: SamplingDefaults::default(),
        said: Said::default(),
        bounds: Bounds::new(&config, Switches::default()),
    };
    Ok(Decoded(dialect.parse(&body::json(body)?, &mint, &config.limits)?))
}

impl Decoded {
    /// Both ask for the same.
    pub fn asks_the_same(&self, other: &Self) -> bool {
        let (one, two) = (&self.0.request, &other.0.request);
        let plain = one.model == two.model
            && (&one.sampling, &one.stop, &one.hints) == (&two.sampling, &two.stop, &two.hints)
            && (one.choices, one.logprobs) == (two.choices, two.logprobs)
            && self.0.delivery.stream == other.0.delivery.stream;
        let same = |one: &Chat, two: &Chat| {
            (&one.messages, &one.tools) == (&two.messages, &two.tools)
                && (&one.tool_choice, &one.edits) == (&two.tool_choice, &two.edits)
                && (one.serial_tool_calls, one.thinking) == (two.serial_tool_calls, two.thinking)
                && one.add_generation_prompt == two.add_generation_prompt
                && one.template_args == two.template_args
        };
        plain && self.chat().zip(other.chat()).is_some_and(|(one, two)| same(one, two))
    }

    /// Messages of the conversation, tools, stop strings.
    pub fn counts(&self) -> [usize; 3] {
        let chat = self.chat();
        let stops = self.0.request.stop.strings.len();
        chat.map_or([0; 3], |chat| [chat.messages.len(), chat.tools.len(), stops])
    }

    /// Bytes of all that was said, tools and the template's arguments included.
    pub fn text_bytes(&self) -> usize {
        let Some(chat) = self.chat() else { return 0 };
        let said: usize = chat.messages.iter().flat_map(|message| &message.parts).map(bytes).sum();
        let tools: usize = chat.tools.iter().map(|tool| tool.definition.0.len()).sum();
        let args = chat.template_args.iter();
        let args: usize = args.map(|(name, JsonText(value))| name.len() + value.len()).sum();
        said + tools + args
    }

    fn chat(&self) -> Option<&Chat> {
        match &self.0.request.prompt {
            Prompt::Chat(chat) => Some(chat),
            Prompt::Text(_) | Prompt::Tokens(_) => None,
        }
    }
}

fn bytes(part: &Part) -> usize {
    match &part.content {
        Content::Text(text) | Content::Reasoning(text) => text.len(),
        Content::ToolCall(call) => call.id.len() + call.name.len() + call.arguments.0.len(),
        Content::ToolResult { call_id, text, .. } => {
            call_id.as_ref().map_or(0, String::len) + text.len()
        }
        Content::Image(image) => image.path.len() + image.source.len(),
    }
}
