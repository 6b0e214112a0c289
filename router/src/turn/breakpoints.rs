//! Where in a prompt the parts end that the client wants to be kept.
//!
//! A template says nothing about where its output comes from. So the conversation is rendered once
//! more up to such a part, and what that has in common with the whole rendering is what lies before
//! the place. Where a template writes history in another way once it goes on, that is less than the
//! part's own end, never more.

use baton_proto::ir::{CacheTtl, Chat, Message, Part, Role};
use baton_text::{RenderError, TextModel};

/// The end of what a client wants to be kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Breakpoint {
    /// Tokens of the prompt that lie before.
    pub(crate) tokens: usize,
    pub(crate) ttl: CacheTtl,
}

/// The places in `rendered`, in bytes, in their order there.
pub(super) fn places(text: &TextModel, chat: &Chat, rendered: &str) -> Vec<(usize, CacheTtl)> {
    let tools = chat.tools.iter().enumerate();
    let tools = tools.filter_map(|(i, tool)| Some((None, i, tool.cache?)));
    let messages = chat.messages.iter().enumerate();
    let parts = messages.flat_map(|(m, message)| {
        let parts = message.parts.iter().enumerate();
        parts.filter_map(move |(i, part)| Some((Some(m), i, part.cache?)))
    });
    let wanted: Vec<_> = tools.chain(parts).collect();
    if wanted.is_empty() {
        return Vec::new();
    }
    let mut prefix = Chat { add_generation_prompt: false, ..chat.clone() };
    // From behind, so that the one copy becomes shorter and shorter.
    let mut places: Vec<_> = wanted
        .into_iter()
        .rev()
        .filter_map(|(message, i, ttl)| {
            if let Some(message) = message {
                prefix.messages.truncate(message + 1);
                prefix.messages.last_mut()?.parts.truncate(i + 1);
            } else {
                let instructs =
                    |message: &Message| matches!(message.role, Role::System | Role::Developer);
                // Many templates write them before the tools.
                let leading = chat.messages.iter().take_while(|m| instructs(m));
                prefix.messages = leading.cloned().collect();
                prefix.tools.truncate(i + 1);
            }
            Some((in_common(rendered, &render(text, &mut prefix)?), ttl))
        })
        .collect();
    places.sort_by_key(|(place, _)| *place);
    places
}

/// The rendering of a conversation that may be too short for its template: some want a question.
fn render(text: &TextModel, chat: &mut Chat) -> Option<String> {
    match text.render(chat) {
        Ok(rendered) => return Some(rendered),
        Err(RenderError::Refused { .. } | RenderError::Failed { .. }) => {}
        // A question more would not help.
        Err(_) => return None,
    }
    chat.messages.push(Message { role: Role::User, parts: vec![Part::text("")], name: None });
    let rendered = text.render(chat);
    chat.messages.pop();
    rendered.ok()
}

/// Bytes that both begin with, in whole characters.
fn in_common(one: &str, other: &str) -> usize {
    let same = one.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
    one.floor_char_boundary(same)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use baton_proto::ir::{JsonText, Tool};
    use std::path::Path;

    fn demo() -> TextModel {
        TextModel::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/demo")).unwrap()
    }

    fn said(role: Role, texts: &[(&str, Option<CacheTtl>)]) -> Message {
        let part = |(text, cache): &(&str, _)| Part { cache: *cache, ..Part::text(*text) };
        Message { role, parts: texts.iter().map(part).collect(), name: None }
    }

    /// The places, and those behind these words of the rendering.
    fn found_and(chat: &Chat, words: &[&str]) -> (Vec<usize>, Vec<usize>) {
        let text = demo();
        let rendered = text.render(chat).unwrap();
        let found = places(&text, chat, &rendered).into_iter().map(|(place, _)| place);
        let behind = |word: &&str| rendered.find(word).unwrap() + word.len();
        (found.collect(), words.iter().map(behind).collect())
    }

    #[test]
    fn a_place_is_where_its_part_ends() {
        let (long, short) = (Some(CacheTtl::Hour1), Some(CacheTtl::Minutes5));
        let mut chat = Chat {
            messages: vec![
                said(Role::System, &[("Be kind.", long), ("Be brief.", None)]),
                said(Role::User, &[("first question", short)]),
                said(Role::Assistant, &[("answer", None)]),
                said(Role::User, &[("some context ", short), ("second question", short)]),
            ],
            add_generation_prompt: true,
            ..Chat::default()
        };
        // A message's last part ends with what closes the message.
        let words =
            ["Be kind.", "first question<|im_end|>\n", "context ", "second question<|im_end|>\n"];
        let (found, expected) = found_and(&chat, &words);
        assert_eq!(found, expected);
        // A tool's place is behind it, whatever stands before the tools.
        let tool = |name: &str, cache| {
            let text = format!(r#"{{"type":"function","function":{{"name":"{name}"}}}}"#);
            Tool { definition: JsonText(text), cache }
        };
        chat.tools = vec![tool("ls", long), tool("cat", None)];
        let (found, expected) = found_and(&chat, &["Be kind.", "\"ls\"}}\n"]);
        assert_eq!((found.len(), &found[..2]), (5, &expected[..]));
    }

    #[test]
    fn who_wants_nothing_kept_gets_no_place() {
        let chat = Chat { messages: vec![said(Role::User, &[("hi", None)])], ..Chat::default() };
        assert_eq!(found_and(&chat, &[]), (vec![], vec![]));
    }
}
