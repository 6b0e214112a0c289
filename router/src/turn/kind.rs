//! By what the length of an answer is learned: the session, and the kind of turn, which is known
//! also where the session is not.

use crate::service::{keyed, session_key};
use baton_proto::ir::{Chat, Content, Message, Prompt, Request, Role};

/// Names under which the answer's length is looked up, the most telling first, and learned.
pub(crate) fn length_keys(request: &Request) -> Vec<u64> {
    let kind = match &request.prompt {
        Prompt::Chat(chat) => Some(kind_key(request, chat)),
        Prompt::Text(_) | Prompt::Tokens(_) => None,
    };
    session_key(request).into_iter().chain(kind).collect()
}

/// A tenant's turns of one kind: what follows that tool's result, or a user's words, in a main
/// conversation or in one that works for another.
fn kind_key(request: &Request, chat: &Chat) -> u64 {
    let after = answered_tool(&chat.messages).unwrap_or_default();
    let agent: &[u8] = if request.hints.parent.is_some() { b"subagent" } else { b"agent" };
    keyed(request, &[b"kind", agent, after.as_bytes()])
}

/// The tool whose result ends the conversation.
fn answered_tool(messages: &[Message]) -> Option<&str> {
    let (last, before) = messages.split_last()?;
    if last.role != Role::Tool {
        return None;
    }
    let answered = last.parts.iter().find_map(|part| match &part.content {
        Content::ToolResult { call_id, .. } => call_id.as_deref(),
        _ => None,
    });
    let parts = before.iter().rev().flat_map(|message| &message.parts);
    let mut calls = parts.filter_map(|part| match &part.content {
        Content::ToolCall(call) => Some(call),
        _ => None,
    });
    let called = answered.and_then(|id| calls.find(|call| call.id == id));
    called.map(|call| call.name.as_str()).or(last.name.as_deref()).or(Some("tool"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_proto::ir::{JsonText, ToolCall};

    fn message(role: Role, content: Content) -> Message {
        Message { role, parts: vec![content.into()], name: None }
    }

    fn called(id: &str, name: &str) -> Message {
        let arguments = JsonText("{}".to_owned());
        let call = ToolCall { id: id.to_owned(), name: name.to_owned(), arguments };
        message(Role::Assistant, Content::ToolCall(call))
    }

    fn result(call_id: Option<&str>) -> Message {
        let call_id = call_id.map(str::to_owned);
        message(Role::Tool, Content::ToolResult { call_id, text: "42".to_owned(), is_error: false })
    }

    #[test]
    fn the_tool_is_the_one_whose_call_is_answered_last() {
        let history = [called("1", "ls"), result(Some("1")), called("2", "grep")];
        let with = |last: Message| {
            let mut messages = history.to_vec();
            messages.push(last);
            answered_tool(&messages).map(str::to_owned)
        };
        assert_eq!(with(result(Some("2"))).as_deref(), Some("grep"));
        assert_eq!(with(result(Some("1"))).as_deref(), Some("ls"));
        assert_eq!(with(result(Some("9"))).as_deref(), Some("tool"));
        let named = Message { name: Some("cat".to_owned()), ..result(None) };
        assert_eq!(with(named).as_deref(), Some("cat"));
        assert_eq!(with(message(Role::User, Content::Text("hi".to_owned()))), None);
        assert_eq!(answered_tool(&[]), None);
    }
}
