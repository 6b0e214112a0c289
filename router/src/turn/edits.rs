//! What is taken out of a history before it is rendered, where the client has asked for that.

use baton_proto::ir::{Chat, Content, Edit, Part, ToolSet, Trigger};
use std::collections::{HashMap, HashSet};

/// What stands in the place of a result that was taken out.
const CLEARED: &str = "[cleared to save context]";

/// What came of an edit that has changed something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Edited {
    pub(crate) kind: EditKind,
    /// Messages that have lost their reasoning, or calls that have lost their results.
    pub(crate) count: usize,
    /// By how much the prompt is shorter.
    pub(crate) cleared_tokens: usize,
}

/// Which edit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum EditKind {
    Thinking,
    ToolUses,
}

impl EditKind {
    pub(super) fn of(edit: &Edit) -> Self {
        match edit {
            Edit::ClearThinking { .. } => Self::Thinking,
            Edit::ClearToolUses { .. } => Self::ToolUses,
        }
    }
}

/// The conversation as the edit leaves it, whose prompt has so many tokens now, and how much was
/// changed; `None` where nothing is.
pub(super) fn apply(edit: &Edit, chat: &Chat, prompt_tokens: usize) -> Option<(Chat, usize)> {
    match edit {
        Edit::ClearThinking { keep } => clear_thinking(chat, *keep),
        Edit::ClearToolUses { trigger, keep, exclude, inputs, .. } => {
            let results = results(chat, exclude);
            let due = match *trigger {
                Trigger::PromptTokens(tokens) => prompt_tokens > tokens,
                Trigger::ToolUses(uses) => results.len() > uses,
            };
            let old = results.len().saturating_sub(*keep);
            if due { clear_results(chat, &results[..old], inputs) } else { None }
        }
    }
}

fn clear_thinking(chat: &Chat, keep: usize) -> Option<(Chat, usize)> {
    let thinks = |part: &Part| matches!(part.content, Content::Reasoning(_));
    let messages = chat.messages.iter().enumerate();
    let thinking: Vec<_> = messages
        .filter(|(_, message)| message.parts.iter().any(thinks))
        .map(|(place, _)| place)
        .collect();
    let old = &thinking[..thinking.len().saturating_sub(keep)];
    if old.is_empty() {
        return None;
    }
    let mut chat = chat.clone();
    for place in old {
        chat.messages[*place].parts.retain(|part| !thinks(part));
    }
    Some((chat, old.len()))
}

/// Where the results are that may be taken out: message, part, and the call's name.
fn results<'c>(chat: &'c Chat, exclude: &[String]) -> Vec<(usize, usize, Option<&'c str>)> {
    let exclude: HashSet<&str> = exclude.iter().map(String::as_str).collect();
    let mut names: HashMap<&str, &str> = HashMap::new();
    let mut found = Vec::new();
    for (m, message) in chat.messages.iter().enumerate() {
        for (p, part) in message.parts.iter().enumerate() {
            match &part.content {
                Content::ToolCall(call) => drop(names.insert(&call.id, &call.name)),
                Content::ToolResult { call_id, .. } => {
                    let name = call_id.as_deref().and_then(|id| names.get(id).copied());
                    if !name.is_some_and(|name| exclude.contains(name)) {
                        found.push((m, p, name));
                    }
                }
                _ => {}
            }
        }
    }
    found
}

fn clear_results(
    chat: &Chat,
    old: &[(usize, usize, Option<&str>)],
    inputs: &ToolSet,
) -> Option<(Chat, usize)> {
    let mut edited = chat.clone();
    let (mut cleared, mut forgotten) = (0, HashSet::new());
    let named: HashSet<&str> = match inputs {
        ToolSet::Named(names) => names.iter().map(String::as_str).collect(),
        ToolSet::None | ToolSet::All => HashSet::new(),
    };
    for (m, p, name) in old {
        let part = &mut edited.messages[*m].parts[*p];
        let Content::ToolResult { call_id, text, .. } = &mut part.content else { continue };
        if text == CLEARED {
            continue;
        }
        CLEARED.clone_into(text);
        cleared += 1;
        let forgets = match inputs {
            ToolSet::None => false,
            ToolSet::All => true,
            ToolSet::Named(_) => name.is_some_and(|name| named.contains(name)),
        };
        if forgets {
            forgotten.extend(call_id.clone());
        }
    }
    for part in edited.messages.iter_mut().flat_map(|message| &mut message.parts) {
        if let Content::ToolCall(call) = &mut part.content
            && forgotten.contains(&call.id)
        {
            "{}".clone_into(&mut call.arguments.0);
        }
    }
    (cleared > 0).then_some((edited, cleared))
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_proto::ir::{JsonText, Message, Role, ToolCall};

    /// Three calls, each with a thought before it and its result behind.
    fn chat() -> Chat {
        let message = |role, contents: Vec<Content>| Message {
            role,
            parts: contents.into_iter().map(Part::from).collect(),
            name: None,
        };
        let turn = |(id, name): (&str, &str)| {
            let arguments = JsonText(format!("{{\"x\":{id}}}"));
            let call = ToolCall { id: id.to_owned(), name: name.to_owned(), arguments };
            let said = vec![Content::Reasoning(format!("thought {id}")), Content::ToolCall(call)];
            let (call_id, text) = (Some(id.to_owned()), format!("result {id}"));
            let result = Content::ToolResult { call_id, text, is_error: false };
            [message(Role::Assistant, said), message(Role::Tool, vec![result])]
        };
        let turns = [("1", "ls"), ("2", "cat"), ("3", "ls")].into_iter().flat_map(turn);
        Chat { messages: turns.collect(), ..Chat::default() }
    }

    /// What is left, a word a part: thoughts, arguments, results.
    fn left(chat: &Chat) -> String {
        let parts = chat.messages.iter().flat_map(|message| &message.parts);
        let words = parts.map(|part| match &part.content {
            Content::Reasoning(_) => "thought".to_owned(),
            Content::ToolCall(call) => call.arguments.0.clone(),
            Content::ToolResult { text, .. } => text.replace(' ', "-"),
            _ => String::new(),
        });
        words.collect::<Vec<_>>().join(" ").replace(&CLEARED.replace(' ', "-"), "cleared")
    }

    fn uses(trigger: Trigger, keep: usize, exclude: &[&str], inputs: ToolSet) -> Edit {
        let exclude = exclude.iter().map(|name| (*name).to_owned()).collect();
        Edit::ClearToolUses { trigger, keep, clear_at_least: 0, exclude, inputs }
    }

    fn edited(edit: &Edit, tokens: usize) -> Option<(String, usize)> {
        apply(edit, &chat(), tokens).map(|(chat, count)| (left(&chat), count))
    }

    #[test]
    fn old_thoughts_go_and_the_last_stay() {
        let kept = |keep| edited(&Edit::ClearThinking { keep }, 0);
        let expected = "{\"x\":1} result-1 {\"x\":2} result-2 thought {\"x\":3} result-3";
        assert_eq!(kept(1), Some((expected.to_owned(), 2)));
        assert_eq!(kept(3), None);
    }

    #[test]
    fn old_results_go_once_there_are_too_many() {
        let expected =
            "thought {\"x\":1} cleared thought {\"x\":2} cleared thought {\"x\":3} result-3";
        let by_tokens = uses(Trigger::PromptTokens(10), 1, &[], ToolSet::None);
        assert_eq!(edited(&by_tokens, 11), Some((expected.to_owned(), 2)));
        assert_eq!(edited(&by_tokens, 10), None);
        let by_uses = |uses_max| uses(Trigger::ToolUses(uses_max), 1, &[], ToolSet::None);
        assert_eq!(edited(&by_uses(2), 0), Some((expected.to_owned(), 2)));
        assert_eq!(edited(&by_uses(3), 0), None);
        assert_eq!(edited(&uses(Trigger::ToolUses(0), 3, &[], ToolSet::None), 0), None);
        // What is gone does not go again.
        let (once, _) = apply(&by_uses(0), &chat(), 0).expect("an edit");
        assert!(apply(&by_uses(0), &once, 0).is_none());
    }

    #[test]
    fn tools_may_be_spared_and_arguments_go_where_that_is_wanted() {
        let spared = uses(Trigger::ToolUses(0), 0, &["ls"], ToolSet::All);
        let expected = "thought {\"x\":1} result-1 thought {} cleared thought {\"x\":3} result-3";
        assert_eq!(edited(&spared, 0), Some((expected.to_owned(), 1)));
        let some = uses(Trigger::ToolUses(0), 0, &[], ToolSet::Named(vec!["cat".to_owned()]));
        let expected = "thought {\"x\":1} cleared thought {} cleared thought {\"x\":3} cleared";
        assert_eq!(edited(&some, 0), Some((expected.to_owned(), 3)));
    }
}
