//! A call's arguments as a JSON object that stands by itself, where the name is known already.

use super::event::{Events, Warning};
use super::frame::Arguments;
use super::json::{Scan, Scanner};

/// How far the object has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Progress {
    /// It goes on.
    More,
    /// It is whole, and the call over.
    Whole,
    /// There is none, and no call has begun.
    None,
    /// What follows cannot belong to it.
    Broken(Warning),
}

/// Follows one object. The call begins with its first brace.
pub(super) struct Body {
    scanner: Scanner,
    begun: bool,
}

impl Body {
    pub(super) fn new() -> Self {
        Self { scanner: Scanner::new(), begun: false }
    }

    /// For the next object.
    pub(super) fn reset(&mut self) {
        self.scanner.reset();
        self.begun = false;
    }

    /// The call has begun.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// It stands within a string, where any character may follow.
    pub(super) fn is_in_string(&self) -> bool {
        self.scanner.is_in_string()
    }

    /// Takes text in if it is nothing but a part of a string.
    #[inline]
    pub(super) fn plain(&mut self, text: &str, out: &mut Events) -> bool {
        let is_plain = self.begun && self.scanner.passes(text);
        if is_plain {
            out.arguments(text);
        }
        is_plain
    }

    /// Takes text in, up to the object's end; how many bytes were used. What comes first must be the
    /// brace, not whitespace.
    pub(super) fn feed(&mut self, name: &str, text: &str, out: &mut Events) -> (usize, Progress) {
        if !self.begun {
            if !text.starts_with('{') {
                return (0, Progress::None);
            }
            self.begin(name, out);
        }
        let (used, scan) = self.scanner.feed(text, &mut Arguments(out));
        let progress = match scan {
            Scan::More => Progress::More,
            Scan::Broken(warning) => Progress::Broken(warning),
            Scan::Done => {
                if self.scanner.mended() {
                    out.warning(Warning::Mended);
                }
                out.call_end("");
                Progress::Whole
            }
        };
        (used, progress)
    }

    /// The call begins, with arguments or without.
    pub(super) fn begin(&mut self, name: &str, out: &mut Events) {
        self.begun = true;
        out.call_begin(name);
    }

    /// The call is over before its time; what was read and not let through goes to `rest`.
    pub(super) fn cut(&mut self, warning: Warning, rest: &mut String, out: &mut Events) {
        self.scanner.rest(rest);
        self.end(warning, out);
    }

    /// The output ends within the call.
    pub(super) fn finish(&mut self, out: &mut Events) {
        self.end(Warning::Unfinished, out);
    }

    fn end(&mut self, warning: Warning, out: &mut Events) {
        let mut missing = String::new();
        self.scanner.missing(&mut missing);
        if missing.is_empty() {
            missing.push_str("{}");
        }
        out.warning(warning);
        out.call_end(&missing);
    }
}
