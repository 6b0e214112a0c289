//! What is certain of the next prompt of a conversation.

use super::said::Said;
use super::{Next, blocks_in_common};
use crate::error::TurnError;
use crate::service::{self, Service};
use crate::turn::{PUBLIC_BLOCKS, Prepared};
use baton_kv::hash::Salt;
use baton_proto::ids::TokenId;
use baton_proto::ir::{
    BACKGROUND_PRIORITY, Chat, Content, Hints, JsonText, Message, Part, Prompt, Request, Role,
    Sampling, Stop, Tool,
};
use baton_text::TextModel;
use std::sync::Arc;
use tokio::time::Instant;

/// The prompt whose blocks are worth computing now; `None` where all that is certain exists.
pub(super) fn prepare(
    service: &Service,
    chat: Chat,
    said: Said,
    answered: &[TokenId],
    turn: &Prepared,
    deadline: Instant,
) -> Result<Option<Next>, TurnError> {
    let (text, model, of) = (service.text(), &turn.model, &turn.request);
    let Some(certain) = certain(text, chat, said) else { return Ok(None) };
    let encoded = service.prompts().encode(text, model, &of.scope, &certain);
    let mut encoded = encoded.map_err(|error| TurnError::Internal(error.to_string()))?;
    let block_tokens = turn.block_tokens();
    let known_blocks = blocks_in_common(&encoded.ids, (&turn.ids, answered), block_tokens);
    // An answer needs room for one token.
    if encoded.ids.len() / block_tokens <= known_blocks
        || encoded.ids.len() >= model.description.context_tokens as usize
    {
        return Ok(None);
    }
    let salt = Salt { tenant: &of.scope, public_blocks: PUBLIC_BLOCKS };
    let chain = encoded.chain(model, &salt);
    service.prompts().keep(model, &of.scope, certain, &encoded, &chain);
    let now = Instant::now();
    let prepared = Prepared {
        request: request(service, turn)?,
        model: model.clone(),
        reused_tokens: encoded.reused,
        ids: encoded.ids,
        chain,
        breakpoints: Vec::new(),
        edited: Vec::new(),
        thinking: None,
        voice: None,
        chat: None,
        answer_tokens: 1,
        length_keys: Vec::new(),
        arrived: now,
        deadline,
        ends: Arc::default(),
    };
    Ok(Some(Next { prepared, known_blocks }))
}

/// A request for nothing but a prompt, less urgent than any that a client can make.
fn request(service: &Service, turn: &Prepared) -> Result<Request, TurnError> {
    let of = &turn.request;
    Ok(Request {
        id: service::request_id()?,
        tenant: of.tenant.clone(),
        scope: of.scope.clone(),
        deadline: service.config().speculation.patience.0,
        model: of.model.clone(),
        prompt: Prompt::Tokens(Vec::new()),
        sampling: Sampling::greedy(),
        stop: Stop { ignore_eos: true, ..Stop::after(1) },
        choices: 1,
        logprobs: None,
        thinking_budget: None,
        hints: Hints {
            priority: BACKGROUND_PRIORITY,
            session: of.hints.session.clone(),
            parent: of.hints.parent.clone(),
            ..Hints::default()
        },
    })
}

/// The text that the next prompt begins with, whatever the next message says: what two prompts
/// have in common whose next messages begin differently. `None` where the template takes no further
/// message.
fn certain(text: &TextModel, mut chat: Chat, said: Said) -> Option<String> {
    let calls = !chat.tools.is_empty() && said.calls();
    let call_id = said.first_call().map(str::to_owned);
    chat.messages.push(said.message());
    let mut with = |content: &str| {
        chat.messages.push(following(calls, call_id.clone(), content));
        let rendered = text.render(&chat).ok();
        chat.messages.pop();
        rendered
    };
    let (mut one, other) = (with("0")?, with("1")?);
    let same = one.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
    one.truncate(one.floor_char_boundary(same));
    Some(one)
}

fn following(calls: bool, call_id: Option<String>, content: &str) -> Message {
    let text = content.to_owned();
    let (role, part) = if calls {
        (Role::Tool, Content::ToolResult { call_id, text, is_error: false })
    } else {
        (Role::User, Content::Text(text))
    };
    Message { role, parts: vec![part.into()], name: None }
}

/// Memory that a conversation takes, about.
pub(super) fn bytes(chat: &Chat) -> usize {
    let part = |part: &Part| {
        size_of::<Part>()
            + match &part.content {
                Content::Text(text) | Content::Reasoning(text) => text.len(),
                Content::ToolResult { call_id, text, .. } => {
                    call_id.as_ref().map_or(0, String::len) + text.len()
                }
                Content::ToolCall(call) => call.id.len() + call.name.len() + call.arguments.0.len(),
                Content::Image(image) => image.path.len() + image.source.len(),
            }
    };
    let message = |message: &Message| {
        let name = message.name.as_ref().map_or(0, String::len);
        size_of::<Message>() + name + message.parts.iter().map(part).sum::<usize>()
    };
    let tool = |tool: &Tool| size_of::<Tool>() + tool.definition.0.len();
    let arg = |(name, value): &(String, JsonText)| {
        size_of::<(String, JsonText)>() + name.len() + value.0.len()
    };
    chat.messages.iter().map(message).sum::<usize>()
        + chat.tools.iter().map(tool).sum::<usize>()
        + chat.template_args.iter().map(arg).sum::<usize>()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use baton_node::scratch::Scratch;
    use std::path::Path;

    fn demo() -> TextModel {
        TextModel::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/demo")).unwrap()
    }

    fn said(role: Role, text: &str) -> Message {
        Message { role, parts: vec![Part::text(text)], name: None }
    }

    fn chat(question: &str) -> Chat {
        let tool = r#"{"type":"function","function":{"name":"ls","parameters":{}}}"#;
        Chat {
            messages: vec![said(Role::System, "Be brief."), said(Role::User, question)],
            tools: vec![JsonText(tool.to_owned()).into()],
            add_generation_prompt: true,
            ..Chat::default()
        }
    }

    #[test]
    fn what_is_certain_begins_every_prompt_that_continues() {
        let text = demo();
        let call = "<tool_call>\n{\"name\": \"ls\", \"arguments\": {}}\n</tool_call>";
        for answer in
            ["Hello!", "I wonder.\n</think>\n\nHello!", call, "", "Gr\u{fc}\u{df}e \u{1f600}"]
        {
            let certain = certain(&text, chat("Hi"), Said::plain(answer)).unwrap();
            assert!(certain.contains(answer.rsplit("\n\n").next().unwrap()), "{certain}");
            for next in ["yes", "", "0 1", "\n"] {
                let mut chat = chat("Hi");
                chat.messages.push(said(Role::Assistant, answer));
                chat.messages.push(following(answer == call, None, next));
                let whole = text.render(&chat).unwrap();
                assert!(whole.starts_with(&certain), "{certain:?} {whole:?}");
            }
        }
    }

    #[test]
    fn reasoning_leaves_with_the_next_question_and_stays_for_a_result() {
        let text = demo();
        let certain = |said: Said| certain(&text, chat("Hi"), said).unwrap();
        // Whether it is told apart or not.
        let thought = "I wonder.\n</think>\n\n";
        assert!(!certain(Said::plain(&format!("{thought}Hello!"))).contains("wonder"));
        let call = format!("{thought}<tool_call>\n{{\"name\": \"ls\"}}\n</tool_call>");
        assert!(certain(Said::plain(&call)).contains("wonder"));
        let called = certain(Said::called("I wonder.", "ls"));
        assert!(called.contains("wonder") && called.contains("\"name\": \"ls\""), "{called}");
    }

    #[test]
    fn a_result_names_its_call_where_the_template_writes_it() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let scratch = Scratch::new("ahead").unwrap();
        for name in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
            std::fs::copy(root.join("models/demo").join(name), scratch.path().join(name)).unwrap();
        }
        let template = root.join("text/tests/fixtures/templates/mistral.jinja");
        std::fs::copy(template, scratch.path().join("chat_template.jinja")).unwrap();
        let text = TextModel::load(scratch.path()).unwrap();
        let certain = certain(&text, chat("Hi"), Said::called("", "ls")).unwrap();
        assert!(certain.ends_with("[TOOL_RESULTS] {\"content\": "), "{certain}");
    }
}
