//! Escapes in strings, whole or not.

use super::strings::is_short_escape;
use super::{Run, Scanner, Sink, State};

/// What a `\uXXXX` is of a surrogate pair.
#[derive(PartialEq, Eq)]
enum Half {
    High,
    Low,
    None,
}

impl Scanner {
    /// A byte within an escape, or after half a surrogate pair.
    pub(super) fn escape(
        &mut self,
        run: &mut Run<'_>,
        at: &mut usize,
        key: bool,
        sink: &mut impl Sink,
    ) {
        let byte = run.text.as_bytes()[*at];
        let fits = match self.escape.len() {
            1 => byte == b'u' || is_short_escape(byte),
            6 => byte == b'\\',
            7 => byte == b'u',
            _ => byte.is_ascii_hexdigit(),
        };
        if !fits {
            // The byte is looked at again, as an ordinary one or as the escape's own.
            return self.mend_escape(key, sink);
        }
        self.escape.push(char::from(byte));
        *at += 1;
        run.skip_to(*at);
        match self.escape.len() {
            2 if byte != b'u' => self.escape_ends(key, sink),
            6 => match self.half(0) {
                Half::High => {}
                Half::Low => self.mend_escape(key, sink),
                Half::None => self.escape_ends(key, sink),
            },
            12 => match self.half(6) {
                Half::Low => self.escape_ends(key, sink),
                _ => self.mend_escape(key, sink),
            },
            _ => {}
        }
    }

    /// The escape is whole.
    fn escape_ends(&mut self, key: bool, sink: &mut impl Sink) {
        let escape = std::mem::take(&mut self.escape);
        self.put(key, &escape, sink);
        self.escape = escape;
        self.escape.clear();
        self.state = State::Text { key };
    }

    /// The escape is none: half a pair becomes U+FFFD, any other backslash stands for itself.
    fn mend_escape(&mut self, key: bool, sink: &mut impl Sink) {
        self.mended = true;
        if self.escape.len() < 6 {
            self.put(key, "\\", sink);
            return self.escape_ends(key, sink);
        }
        self.put(key, "\\ufffd", sink);
        self.escape.drain(..6);
        match self.escape.len() {
            0 => self.state = State::Text { key },
            // The second half is looked at for itself.
            6 => match self.half(0) {
                Half::High => {}
                Half::Low => self.mend_escape(key, sink),
                Half::None => self.escape_ends(key, sink),
            },
            _ => {}
        }
    }

    /// What the `\uXXXX` that begins at this byte of the escape stands for.
    fn half(&self, from: usize) -> Half {
        match u16::from_str_radix(&self.escape[from + 2..from + 6], 16) {
            Ok(0xd800..=0xdbff) => Half::High,
            Ok(0xdc00..=0xdfff) => Half::Low,
            _ => Half::None,
        }
    }
}
