//! What headers (of HTTP) and metadata (of gRPC) say: hints under Dynamo's names, and who is
//! speaking, from what harnesses send without being asked to.

use super::{Hint, Reading};
use crate::error::{Invalid, clip};
use std::num::IntErrorKind;

const PRIORITY: &str = "x-dynamo-request-priority";
const STRICT_PRIORITY: &str = "x-dynamo-request-strict-priority";
const FINAL: &str = "x-dynamo-session-final";

/// A session and the one it works for, with the headers that told.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Identity {
    session: Option<Named>,
    parent: Option<Named>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Named {
    name: String,
    header: &'static str,
}

/// What the headers of a request say.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Said {
    priority: Option<i64>,
    strict_priority: Option<i64>,
    is_final: bool,
    /// Said for a router's sake.
    explicit: Identity,
    /// What the harness sends to everybody.
    harness: Identity,
}

impl Said {
    /// `header` gives the value of a header that is there and is ASCII.
    pub(crate) fn read<'a>(
        header: impl Fn(&'static str) -> Option<&'a str>,
    ) -> Result<Self, Invalid> {
        let number = |name: &'static str| -> Result<Option<i64>, Invalid> {
            let Some(text) = header(name) else { return Ok(None) };
            match text.trim().parse::<i64>().map_err(|error| *error.kind()) {
                Ok(said) => Ok(Some(said)),
                // As in a body, what lies beyond 64 bits is as good as their end.
                Err(IntErrorKind::PosOverflow) => Ok(Some(i64::MAX)),
                Err(IntErrorKind::NegOverflow) => Ok(Some(i64::MIN)),
                Err(_) => {
                    let text = clip(text);
                    let message =
                        format!("Invalid header '{name}': expected an integer, but got `{text}`.");
                    Err(Invalid::value(name, message))
                }
            }
        };
        let is_final = match header(FINAL) {
            None | Some("0" | "false") => false,
            Some("1" | "true") => true,
            Some(_) => {
                let message = format!("Invalid header '{FINAL}': expected true or false.");
                return Err(Invalid::value(FINAL, message));
            }
        };
        Ok(Self {
            priority: number(PRIORITY)?,
            strict_priority: number(STRICT_PRIORITY)?,
            is_final,
            explicit: pair(&header, "x-dynamo-session-id", "x-dynamo-parent-session-id"),
            harness: harness(&header),
        })
    }

    /// What was said for a router's sake; it beats the body.
    pub(crate) fn tell(&self, reading: &mut Reading) {
        if let Some(said) = self.strict_priority {
            reading.number(Hint::StrictPriority, &place(STRICT_PRIORITY), said);
        }
        if let Some(said) = self.priority {
            reading.number(Hint::Priority, &place(PRIORITY), said);
        }
        if self.is_final {
            reading.ignore(&place(FINAL), super::unserved("session.final"));
        }
        self.explicit.tell(reading);
    }

    /// Who the harness says is speaking, where nothing better has said so.
    pub(crate) fn tell_identity(&self, reading: &mut Reading) {
        if !reading.has_session() {
            self.harness.tell(reading);
        }
    }
}

impl Identity {
    fn tell(&self, reading: &mut Reading) {
        for (hint, named) in [(Hint::Session, &self.session), (Hint::Parent, &self.parent)] {
            if let Some(Named { name, header }) = named {
                reading.name(hint, &place(header), name);
            }
        }
    }
}

fn place(header: &str) -> String {
    format!("header {header}")
}

fn named<'a>(
    header: &impl Fn(&'static str) -> Option<&'a str>,
    name: &'static str,
) -> Option<Named> {
    let value = header(name).filter(|value| !value.is_empty())?;
    Some(Named { name: value.to_owned(), header: name })
}

fn pair<'a>(
    header: &impl Fn(&'static str) -> Option<&'a str>,
    session: &'static str,
    parent: &'static str,
) -> Identity {
    Identity { session: named(header, session), parent: named(header, parent) }
}

/// What Claude Code, Codex, OpenCode and those that follow their example send; the first that is
/// recognised counts.
fn harness<'a>(header: &impl Fn(&'static str) -> Option<&'a str>) -> Identity {
    if let Some(root) = named(header, "x-claude-code-session-id") {
        return claude_code(header, root);
    }
    // Codex names the thread; older versions the session alone.
    let codex = pair(header, "thread-id", "x-codex-parent-thread-id");
    if codex.session.is_some() {
        return codex;
    }
    let session = ["session-id", "x-session-id", "x-session-affinity"];
    let session = session.into_iter().find_map(|name| named(header, name));
    let parent = session.as_ref().and_then(|_| named(header, "x-parent-session-id"));
    Identity { session, parent }
}

/// A subagent has a conversation of its own under the session's id.
fn claude_code<'a>(header: &impl Fn(&'static str) -> Option<&'a str>, root: Named) -> Identity {
    let within = |named: Named| Named { name: format!("{}/{}", root.name, named.name), ..named };
    let Some(agent) = named(header, "x-claude-code-agent-id") else {
        return Identity { session: Some(root), parent: None };
    };
    let parent = named(header, "x-claude-code-parent-agent-id").map(within);
    Identity { session: Some(within(agent)), parent: parent.or(Some(root)) }
}
