//! Messages of the system that are not the first.
//!
//! Harnesses send them in mid-conversation, and some templates refuse them there, drop them, or
//! demand that users and the model take turns. What such a template gets in their place stands in
//! the same place, and depends on the template and on the conversation up to there alone, so that a
//! conversation that goes on begins as it did before. How a template takes them is tried once, when
//! it is loaded.

use baton_proto::ir::{Chat, Content, Message, Part, Role};
use std::borrow::Cow;

/// How a template takes messages of the system that are not the first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LaterSystem {
    /// As they are.
    Verbatim,
    /// As a user's, in tags; those at the beginning are one.
    AsUser,
    /// The same, and joined with a user's message or a tool's result that stands beside it.
    Joined,
}

/// Between messages that become one.
const GAP: &str = "\n\n";

/// Words of the probe, in the order in which a rendering has them.
const PROBE: [&str; 6] = ["first", "second", "third", "fourth", "fifth", "sixth"];

impl LaterSystem {
    /// The messages for a template of this kind.
    pub(super) fn settle(self, messages: &[Message], knows_developer: bool) -> Cow<'_, [Message]> {
        let is_system = |message: &Message| match message.role {
            Role::System => true,
            Role::Developer => !knows_developer,
            _ => false,
        };
        if self == Self::Verbatim || !messages.iter().skip(1).any(is_system) {
            return Cow::Borrowed(messages);
        }
        let mut settled: Vec<Message> = Vec::with_capacity(messages.len());
        // A made message, which takes in the user's words that follow.
        let mut made = false;
        for message in messages {
            let first = settled.is_empty() || (settled.len() == 1 && is_system(&settled[0]));
            match (settled.last_mut(), is_system(message)) {
                (Some(last), true) if first => join(last, message.parts.clone()),
                (_, true) if first => settled.push(message.clone()),
                (Some(last), true) if self == Self::Joined && takes(last) => {
                    join(last, tagged(message));
                }
                (_, true) => {
                    let parts = tagged(message);
                    settled.push(Message { role: Role::User, parts, name: None });
                    made = true;
                    continue;
                }
                (Some(last), false)
                    if self == Self::Joined && made && message.role == Role::User =>
                {
                    join(last, message.parts.clone());
                }
                (_, false) => settled.push(message.clone()),
            }
            made = false;
        }
        Cow::Owned(settled)
    }
}

/// Whether what the system says may be joined to it.
fn takes(last: &Message) -> bool {
    matches!(last.role, Role::User | Role::Tool)
}

/// Puts parts behind those of a message.
fn join(message: &mut Message, parts: Vec<Part>) {
    if let Some(Content::ToolResult { text, .. }) =
        message.parts.last_mut().map(|part| &mut part.content)
    {
        text.push_str(GAP);
        for part in parts {
            if let Content::Text(more) = part.content {
                text.push_str(&more);
            }
        }
        return;
    }
    message.parts.push(Part::text(GAP));
    message.parts.extend(parts);
}

fn tagged(message: &Message) -> Vec<Part> {
    let open = std::iter::once(Part::text("<system>\n"));
    let close = std::iter::once(Part::text("\n</system>"));
    open.chain(message.parts.iter().cloned()).chain(close).collect()
}

/// A conversation with messages of the system behind a user's and behind the model's.
pub(super) fn probe() -> Chat {
    let roles =
        [Role::User, Role::System, Role::Assistant, Role::User, Role::Assistant, Role::System];
    let said = roles.into_iter().zip(PROBE);
    let mut messages: Vec<_> = said
        .map(|(role, word)| Message { role, parts: vec![Part::text(word)], name: None })
        .collect();
    messages.push(Message { role: Role::User, parts: vec![Part::text("last")], name: None });
    Chat { messages, add_generation_prompt: true, ..Chat::default() }
}

/// Whether a rendering of the probe has all of it, each word in its place.
pub(super) fn is_in_order(rendered: &str) -> bool {
    let mut rest = rendered;
    PROBE.into_iter().chain(["last"]).all(|word| match rest.split_once(word) {
        Some((_, after)) => {
            rest = after;
            true
        }
        None => false,
    })
}
