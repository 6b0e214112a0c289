//! What the writers of all dialects have in common: an answer comes to them in pieces, and they put
//! it into their dialect's words, whole or as server-sent events.

use crate::error::TurnError;
use crate::turn::{Delta, Summary};
use serde::Serialize;
use serde_json::Value;

/// A comment, which every client skips.
pub(super) const COMMENT: &[u8] = b": keep-alive\n\n";

/// Writes the answer of one request. Either [`keep`](Self::keep) is called for every piece and then
/// [`whole`](Self::whole), or the others, which append events to `out`.
pub(super) trait AnswerWriter: Send {
    /// Keeps a piece of the answer.
    fn keep(&mut self, delta: Delta);

    /// What was kept, as one body.
    fn whole(&mut self, summary: &Summary) -> Value;

    /// The stream begins: the turn is admitted.
    fn head(&mut self, out: &mut Vec<u8>);

    /// A piece of the answer; `last` completes it. Few pieces say what the turn has cost.
    fn piece(
        &mut self,
        delta: &Delta,
        summary: &dyn Fn() -> Summary,
        last: bool,
        out: &mut Vec<u8>,
    );

    /// The answer is complete.
    fn end(&mut self, summary: &Summary, out: &mut Vec<u8>);

    /// The answer ends early.
    fn fail(&mut self, error: &TurnError, out: &mut Vec<u8>);

    /// Nothing has happened for a while.
    fn keep_alive(&self) -> &'static [u8] {
        COMMENT
    }
}

/// An event without a name.
pub(super) fn data(out: &mut Vec<u8>, data: &impl Serialize) {
    out.extend_from_slice(b"data: ");
    // Values made here always serialise; one that did not would be an empty event.
    let _ = serde_json::to_writer(&mut *out, data);
    out.extend_from_slice(b"\n\n");
}

/// An event with a name.
pub(super) fn named(out: &mut Vec<u8>, name: &str, value: &impl Serialize) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.push(b'\n');
    data(out, value);
}
