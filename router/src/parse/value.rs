//! A parameter's value that stands without quotes, as JSON.
//!
//! If the schema allows a string it is one, and comes as it is written. Otherwise it is held back
//! until it is whole: it is the JSON that it reads as, if that is of an allowed type, and else a
//! string after all. Only what is longer than [`HELD_BYTES_MAX`] and has been JSON so far comes
//! before it is whole.

use super::HELD_BYTES_MAX;
use super::event::{Events, Warning};
use super::frame::Arguments;
use super::json::{Scan, Scanner, escape_into};
use super::tools::Types;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// A string, or null if it reads so.
    Nullable,
    /// A string, which has been begun.
    Text,
    /// JSON that is held back.
    Json,
    /// JSON that is not.
    Streamed,
}

/// A member of the arguments: its key and its value.
pub(super) struct Value {
    mode: Mode,
    types: Types,
    /// What stands before the value: comma, key and colon; empty once it has been said.
    head: String,
    /// The value as written, while it is held back.
    raw: String,
    /// The same as JSON.
    json: String,
    scanner: Scanner,
    /// So far it reads as JSON.
    scan: Scan,
    mended: bool,
}

impl Value {
    pub(super) fn new() -> Self {
        Self {
            mode: Mode::Text,
            types: Types::STRING,
            head: String::new(),
            raw: String::new(),
            json: String::new(),
            scanner: Scanner::new(),
            scan: Scan::More,
            mended: false,
        }
    }

    /// The value of this parameter follows.
    pub(super) fn begin(&mut self, types: Types, key: &str, is_first: bool) {
        self.types = types;
        self.head.clear();
        self.head.push_str(if is_first { "\"" } else { ", \"" });
        escape_into(key, &mut self.head);
        self.head.push_str("\": ");
        self.raw.clear();
        self.json.clear();
        self.scanner.reset();
        self.scan = Scan::More;
        self.mode = if types == Types::STRING | Types::NULL {
            Mode::Nullable
        } else if types.allow(Types::STRING) {
            Mode::Text
        } else {
            Mode::Json
        };
    }

    /// Something in a value was mended since the last time.
    pub(super) fn take_mended(&mut self) -> bool {
        std::mem::take(&mut self.mended)
    }

    /// Takes text in if it is more of a string that has been begun.
    #[inline]
    pub(super) fn plain(&mut self, text: &str, out: &mut Events) -> bool {
        let is_text = self.mode == Mode::Text && self.head.is_empty();
        if is_text {
            escape_into(text, &mut Arguments(out));
        }
        is_text
    }

    /// More of the value; if it cannot go on, why, and how much of the text was not used.
    pub(super) fn feed(
        &mut self,
        mut text: &str,
        out: &mut Events,
    ) -> Result<(), (Warning, usize)> {
        while !text.is_empty() {
            match self.mode {
                Mode::Text => {
                    self.say_head("\"", out);
                    escape_into(text, &mut Arguments(out));
                    return Ok(());
                }
                Mode::Nullable => {
                    self.raw.push_str(text);
                    if !"null".starts_with(&self.raw) {
                        self.turns_to_text(out);
                    }
                    return Ok(());
                }
                Mode::Json => {
                    let room = HELD_BYTES_MAX.saturating_sub(self.raw.len());
                    let (fits, more) = text.split_at(text.floor_char_boundary(room));
                    self.hold(fits);
                    text = more;
                    let is_decided = self.scan != Scan::More || !more.is_empty();
                    if is_decided && !self.is_json() {
                        self.turns_to_text(out);
                    } else if !more.is_empty() {
                        self.say_head("", out);
                        out.arguments(&self.json);
                        self.raw.clear();
                        self.mode = Mode::Streamed;
                    }
                }
                Mode::Streamed => {
                    if self.scan == Scan::More {
                        let (used, scan) = self.scanner.feed(text, &mut Arguments(out));
                        text = &text[used..];
                        self.scan = scan;
                    }
                    if self.scan == Scan::Done {
                        text = text.trim_ascii_start();
                    }
                    match self.scan {
                        Scan::Broken(warning) => return Err((warning, text.len())),
                        Scan::Done if !text.is_empty() => {
                            return Err((Warning::Malformed, text.len()));
                        }
                        _ => {}
                    }
                }
            }
        }
        Ok(())
    }

    /// The value is complete.
    pub(super) fn end(&mut self, out: &mut Events) -> Result<(), Warning> {
        match self.mode {
            Mode::Nullable if self.raw == "null" => {
                self.say_head("null", out);
                return Ok(());
            }
            Mode::Streamed => {
                self.mended |= self.scanner.mended();
                let whole = self.scanner.is_complete_at_end();
                return if whole { Ok(()) } else { Err(Warning::Malformed) };
            }
            Mode::Json if self.is_json() && self.scanner.is_complete_at_end() => {
                self.mended |= self.scanner.mended();
                self.say_head("", out);
                out.arguments(&self.json);
                return Ok(());
            }
            Mode::Json | Mode::Nullable => self.turns_to_text(out),
            Mode::Text => self.say_head("\"", out),
        }
        out.arguments("\"");
        Ok(())
    }

    /// What would complete the part of the value that has been said.
    pub(super) fn missing(&self, out: &mut String) {
        match self.mode {
            Mode::Text if self.head.is_empty() => out.push('"'),
            Mode::Streamed => self.scanner.missing(out),
            _ => {}
        }
    }

    /// What was read of the value and not said.
    pub(super) fn rest(&self, out: &mut String) {
        match self.mode {
            Mode::Text => {}
            Mode::Json | Mode::Nullable => out.push_str(&self.raw),
            Mode::Streamed => self.scanner.rest(out),
        }
    }

    /// More of what may be JSON.
    fn hold(&mut self, text: &str) {
        self.raw.push_str(text);
        let mut rest = text;
        if self.scan == Scan::More {
            let (used, scan) = self.scanner.feed(text, &mut self.json);
            self.scan = scan;
            rest = &text[used..];
        }
        if self.scan == Scan::Done && !rest.trim_ascii().is_empty() {
            self.scan = Scan::Broken(Warning::Malformed);
        }
    }

    /// It reads as JSON of an allowed type so far.
    fn is_json(&self) -> bool {
        let of = match self.json.trim_ascii_start().as_bytes().first() {
            Some(b'{') => Types::OBJECT,
            Some(b'[') => Types::ARRAY,
            Some(b'"') => Types::STRING,
            Some(b't' | b'f') => Types::BOOLEAN,
            Some(b'n') => Types::NULL,
            _ => Types::NUMBER,
        };
        !matches!(self.scan, Scan::Broken(_)) && self.types.allow(of)
    }

    /// What was held back is the beginning of a string.
    fn turns_to_text(&mut self, out: &mut Events) {
        self.say_head("\"", out);
        escape_into(&self.raw, &mut Arguments(out));
        self.raw.clear();
        self.mode = Mode::Text;
    }

    fn say_head(&mut self, then: &str, out: &mut Events) {
        if !self.head.is_empty() {
            out.arguments(&self.head);
            out.arguments(then);
            self.head.clear();
        }
    }
}
