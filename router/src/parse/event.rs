//! What an answer says: events, in a buffer that is used again and again.

use std::fmt;

/// A piece of what the model's output says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event<'a> {
    /// Text for the reader.
    Text(&'a str),
    /// Reasoning that is kept apart from the text.
    Reasoning(&'a str),
    /// A tool call begins. No other call is open.
    CallBegin {
        /// The tool's name as the model wrote it.
        name: &'a str,
    },
    /// More of the open call's arguments. All fragments of a call together are the text of one JSON
    /// object, or the beginning of one if [`Event::CallEnd`] says that something is missing.
    CallArguments(&'a str),
    /// The open call is over.
    CallEnd {
        /// What its arguments lack to be the text of one JSON object. Empty unless the call was cut
        /// off: then what has come is not what the model meant, and a warning has said so.
        missing: &'a str,
    },
    /// Something is not as the format has it.
    Warning(Warning),
}

/// What is not as the format has it. Nothing of the output is lost by it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Warning {
    /// What looked like a call is none; it comes as text.
    Malformed,
    /// The output ended within a call.
    Unfinished,
    /// More than [`HELD_BYTES_MAX`](super::HELD_BYTES_MAX) would have to be held back until it is
    /// certain what it is; it comes as text.
    TooLong,
    /// The arguments are nested deeper than JSON parsers commonly accept; they come as text from there.
    TooDeep,
    /// The arguments' JSON had a fault whose meaning is plain and which was mended: a raw control
    /// character or an unknown escape in a string, half a surrogate pair, a literal of Python's.
    Mended,
}

impl Warning {
    /// The name in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unfinished => "unfinished",
            Self::TooLong => "too_long",
            Self::TooDeep => "too_deep",
            Self::Mended => "mended",
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Reasoning,
    Begin,
    Arguments,
    End,
    Warning(Warning),
}

/// Events in their order. Neighbours of one kind are one event. Cleared, it keeps its memory: in
/// the long run a parser's events cost no allocation.
#[derive(Clone, Default)]
pub struct Events {
    text: String,
    /// Each event's kind and where its text ends.
    spans: Vec<(Kind, usize)>,
}

impl Events {
    /// No events.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets all events.
    pub fn clear(&mut self) {
        self.text.clear();
        self.spans.clear();
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The events, first to last.
    pub fn iter(&self) -> impl Iterator<Item = Event<'_>> {
        let mut start = 0;
        self.spans.iter().map(move |&(kind, end)| {
            let text = &self.text[start..end];
            start = end;
            match kind {
                Kind::Text => Event::Text(text),
                Kind::Reasoning => Event::Reasoning(text),
                Kind::Begin => Event::CallBegin { name: text },
                Kind::Arguments => Event::CallArguments(text),
                Kind::End => Event::CallEnd { missing: text },
                Kind::Warning(warning) => Event::Warning(warning),
            }
        })
    }

    /// How much there is: it grows with every event.
    pub fn size(&self) -> (usize, usize) {
        (self.spans.len(), self.text.len())
    }

    /// The last event is reasoning.
    pub fn ends_in_reasoning(&self) -> bool {
        matches!(self.spans.last(), Some((Kind::Reasoning, _)))
    }

    /// A call was cut off: its arguments are not what the model meant.
    pub fn has_cut_call(&self) -> bool {
        self.iter().any(|event| matches!(event, Event::CallEnd { missing } if !missing.is_empty()))
    }

    /// Forgets what comes behind the end of the first call; whether there is one that was not cut off.
    pub fn end_with_first_call(&mut self) -> bool {
        let mut start = 0;
        let end = self.spans.iter().position(|&(kind, end)| {
            let lacks_nothing = start == end;
            start = end;
            kind == Kind::End && lacks_nothing
        });
        let Some(last) = end else { return false };
        self.spans.truncate(last + 1);
        self.text.truncate(self.spans[last].1);
        true
    }

    /// Text, as a parser would have it.
    #[cfg(test)]
    pub(crate) fn say(&mut self, text: &str) {
        self.text(text);
    }

    pub(super) fn text(&mut self, text: &str) {
        self.more(Kind::Text, text);
    }

    pub(super) fn reasoning(&mut self, text: &str) {
        self.more(Kind::Reasoning, text);
    }

    pub(super) fn arguments(&mut self, text: &str) {
        self.more(Kind::Arguments, text);
    }

    pub(super) fn call_begin(&mut self, name: &str) {
        self.one(Kind::Begin, name);
    }

    pub(super) fn call_end(&mut self, missing: &str) {
        self.one(Kind::End, missing);
    }

    pub(super) fn warning(&mut self, warning: Warning) {
        self.one(Kind::Warning(warning), "");
    }

    #[inline]
    fn more(&mut self, kind: Kind, text: &str) {
        if text.is_empty() {
            return;
        }
        self.text.push_str(text);
        let end = self.text.len();
        match self.spans.last_mut() {
            Some((last, at)) if *last == kind => *at = end,
            _ => self.spans.push((kind, end)),
        }
    }

    fn one(&mut self, kind: Kind, text: &str) {
        self.text.push_str(text);
        self.spans.push((kind, self.text.len()));
    }
}

impl fmt::Debug for Events {
    /// Without what the model said.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("events", &self.spans.len()).finish_non_exhaustive()
    }
}
