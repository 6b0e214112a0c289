//! JSON that arrives in pieces: checked, mended where the meaning is plain, and let through as soon
//! as it can be completed.
//!
//! What has been let through is at any moment the beginning of a valid text that closing brackets
//! alone would complete: a key comes only with the first byte of its value, a literal or an escape
//! as a whole.

mod escapes;
mod strings;

pub(super) use strings::{escape_into, unescape};

use super::event::Warning;
use strings::{escape_control, is_plain, is_short_escape, plain_len};

/// The deepest nesting that common parsers accept (serde_json's limit is 128, and a call's envelope
/// or a request around it take some).
const DEPTH_MAX: u32 = 120;
/// The longest key with what stands around it.
const KEY_BYTES_MAX: usize = 4096;

/// Takes text that has become certain.
pub(super) trait Sink {
    fn put(&mut self, text: &str);
}

impl Sink for String {
    fn put(&mut self, text: &str) {
        self.push_str(text);
    }
}

/// How far a value has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Scan {
    /// It goes on.
    More,
    /// It is complete.
    Done,
    /// What follows cannot belong to it.
    Broken(Warning),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// A value must follow.
    Value,
    /// `[` was last.
    FirstValue,
    /// `{` was last.
    FirstKey,
    /// A comma in an object was last.
    Key,
    Colon,
    /// A value in an array or an object is complete.
    After,
    /// In a string, which is a key or not.
    Text {
        key: bool,
    },
    /// In an escape within a string; its bytes are in `escape`.
    Escape {
        key: bool,
    },
    Number(Number),
    /// So many bytes of a literal.
    Literal(usize, usize),
    Done,
}

/// Where in a number; RFC 8259, section 6.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Number {
    Minus,
    Zero,
    Int,
    Dot,
    Fraction,
    E,
    Sign,
    Exponent,
}

/// As models write them, and as JSON has them.
const LITERALS: [(&str, &str); 6] = [
    ("true", "true"),
    ("false", "false"),
    ("null", "null"),
    ("True", "true"),
    ("False", "false"),
    ("None", "null"),
];

/// Follows one JSON value.
pub(super) struct Scanner {
    state: State,
    /// The open brackets, the innermost lowest: 1 is an object.
    stack: u128,
    depth: u32,
    /// What has been read but not let through, as it would be.
    held: String,
    /// An escape that is incomplete, or half a surrogate pair: up to `\ud83d\ude00`.
    escape: String,
    mended: bool,
}

impl Scanner {
    pub(super) fn new() -> Self {
        Self {
            state: State::Value,
            stack: 0,
            depth: 0,
            held: String::new(),
            escape: String::new(),
            mended: false,
        }
    }

    /// For the next value.
    pub(super) fn reset(&mut self) {
        self.state = State::Value;
        (self.stack, self.depth, self.mended) = (0, 0, false);
        self.held.clear();
        self.escape.clear();
    }

    /// Something was mended.
    pub(super) fn mended(&self) -> bool {
        self.mended
    }

    /// The text is nothing but a part of a string value: it may be let through as it is.
    #[inline]
    pub(super) fn passes(&self, text: &str) -> bool {
        self.state == (State::Text { key: false }) && is_plain(text)
    }

    /// Takes text in, up to the value's end; how many bytes were used. Whitespace before the value
    /// is part of it.
    pub(super) fn feed(&mut self, text: &str, sink: &mut impl Sink) -> (usize, Scan) {
        let mut run = Run { text, from: 0, certain: 0 };
        // A byte that is mended becomes six at most.
        let may_be_long = self.held.len() + 6 * text.len() > KEY_BYTES_MAX;
        let bytes = text.as_bytes();
        let mut at = 0;
        let scan = loop {
            if self.state == State::Done {
                break Scan::Done;
            }
            if at == bytes.len() {
                break Scan::More;
            }
            match self.state {
                State::Text { key: false } => self.string(&mut run, &mut at, text, sink),
                State::Escape { key } => self.escape(&mut run, &mut at, key, sink),
                State::Text { .. } if !may_be_long => self.string(&mut run, &mut at, text, sink),
                _ if !may_be_long => {
                    if let Err(warning) = self.step(&mut run, &mut at, sink) {
                        break Scan::Broken(warning);
                    }
                }
                _ => {
                    // The same byte is one too many however the text was cut.
                    let room = KEY_BYTES_MAX.saturating_sub(self.uncertain(&run, at));
                    let end = text.floor_char_boundary(at.saturating_add(room));
                    if end <= at {
                        break Scan::Broken(Warning::TooLong);
                    }
                    if self.state == (State::Text { key: true }) {
                        self.string(&mut run, &mut at, &text[..end], sink);
                    } else if let Err(warning) = self.step(&mut run, &mut at, sink) {
                        break Scan::Broken(warning);
                    }
                }
            }
        };
        self.settle(&mut run, at, sink);
        (at, scan)
    }

    /// How many bytes before this place may not be let through yet.
    fn uncertain(&self, run: &Run<'_>, at: usize) -> usize {
        if run.certain > run.from { at - run.certain } else { self.held.len() + at - run.from }
    }

    /// The text ends here. A number at the root is complete only then.
    pub(super) fn is_complete_at_end(&self) -> bool {
        let number = matches!(self.state, State::Number(number) if number.is_whole());
        self.state == State::Done || (number && self.depth == 0)
    }

    /// It stands within a string, where any character may follow.
    pub(super) fn is_in_string(&self) -> bool {
        matches!(self.state, State::Text { .. } | State::Escape { .. })
    }

    /// What was read and not let through.
    pub(super) fn rest(&self, out: &mut String) {
        out.push_str(&self.held);
        out.push_str(&self.escape);
        if let State::Literal(literal, len) = self.state {
            out.push_str(&LITERALS[literal].0[..len]);
        }
    }

    /// What would complete the text that has been let through.
    pub(super) fn missing(&self, out: &mut String) {
        let open = matches!(self.state, State::Text { key: false } | State::Escape { key: false });
        if open {
            out.push('"');
        }
        for level in 0..self.depth {
            out.push(if self.stack >> level & 1 == 1 { '}' } else { ']' });
        }
    }

    /// A byte outside strings.
    fn step(
        &mut self,
        run: &mut Run<'_>,
        at: &mut usize,
        sink: &mut impl Sink,
    ) -> Result<(), Warning> {
        let byte = run.text.as_bytes()[*at];
        if let State::Number(number) = self.state {
            if let Some(next) = number.next(byte) {
                self.state = State::Number(next);
                *at += 1;
                if next.is_whole() {
                    run.certain = *at;
                }
                return Ok(());
            }
            if !number.is_whole() {
                return Err(Warning::Malformed);
            }
            self.value_ends();
            return Ok(());
        }
        if let State::Literal(literal, len) = self.state {
            let (written, meant) = LITERALS[literal];
            if written.as_bytes()[len] != byte {
                return Err(Warning::Malformed);
            }
            *at += 1;
            run.from = *at;
            run.certain = *at;
            self.state = State::Literal(literal, len + 1);
            if len + 1 == written.len() {
                self.mended |= written != meant;
                self.let_held_go(sink);
                sink.put(meant);
                self.value_ends();
            }
            return Ok(());
        }
        self.structure(run, at, byte, sink)
    }

    /// A byte that is whitespace, punctuation or the first of a value.
    fn structure(
        &mut self,
        run: &mut Run<'_>,
        at: &mut usize,
        byte: u8,
        sink: &mut impl Sink,
    ) -> Result<(), Warning> {
        use State::{After, Colon, FirstKey, FirstValue, Key, Text, Value};
        let here = *at;
        // Whether all up to this byte may be let through.
        let certain = match (self.state, byte) {
            (FirstKey | FirstValue | After, b' ' | b'\n' | b'\t' | b'\r') => true,
            (_, b' ' | b'\n' | b'\t' | b'\r') => false,
            (FirstKey | Key, b'"') => {
                self.state = Text { key: true };
                false
            }
            (Colon, b':') => {
                self.state = Value;
                false
            }
            (After, b',') => {
                self.state = if self.in_object() { Key } else { Value };
                false
            }
            (FirstKey | After, b'}') if self.in_object() => self.close(),
            (FirstValue | After, b']') if !self.in_object() => self.close(),
            (Value | FirstValue, b'"') => {
                self.state = Text { key: false };
                true
            }
            (Value | FirstValue, b'{' | b'[') => {
                self.open(byte == b'{')?;
                true
            }
            (Value | FirstValue, b'-' | b'0'..=b'9') => {
                let number = Number::first(byte);
                self.state = State::Number(number);
                number.is_whole()
            }
            (Value | FirstValue, _) => {
                let begins = |(written, _): &(&str, &str)| written.as_bytes()[0] == byte;
                let literal = LITERALS.iter().position(begins).ok_or(Warning::Malformed)?;
                self.settle(run, here, sink);
                self.state = State::Literal(literal, 1);
                run.from = here + 1;
                true
            }
            _ => return Err(Warning::Malformed),
        };
        *at = here + 1;
        if certain {
            run.certain = here + 1;
        }
        Ok(())
    }

    fn in_object(&self) -> bool {
        self.depth > 0 && self.stack & 1 == 1
    }

    fn open(&mut self, object: bool) -> Result<(), Warning> {
        if self.depth == DEPTH_MAX {
            return Err(Warning::TooDeep);
        }
        self.depth += 1;
        self.stack = self.stack << 1 | u128::from(object);
        self.state = if object { State::FirstKey } else { State::FirstValue };
        Ok(())
    }

    fn close(&mut self) -> bool {
        self.depth -= 1;
        self.stack >>= 1;
        self.value_ends();
        true
    }

    fn value_ends(&mut self) {
        self.state = if self.depth == 0 { State::Done } else { State::After };
    }

    /// The inside of a string, up to its end, an escape that needs a closer look, or the end of
    /// `text`, the run's own text or its beginning.
    fn string(&mut self, run: &mut Run<'_>, at: &mut usize, text: &str, sink: &mut impl Sink) {
        let key = self.state == (State::Text { key: true });
        let bytes = text.as_bytes();
        loop {
            *at += plain_len(&bytes[*at..]);
            let certain = *at;
            match bytes.get(*at) {
                None => break run.reach(certain, !key),
                Some(b'"') => {
                    *at += 1;
                    run.reach(*at, !key);
                    if key {
                        self.state = State::Colon;
                    } else {
                        self.value_ends();
                    }
                    break;
                }
                Some(b'\\') => {
                    let next = bytes.get(*at + 1);
                    if next.is_some_and(|next| is_short_escape(*next)) {
                        *at += 2;
                        continue;
                    }
                    run.reach(certain, !key);
                    self.settle(run, certain, sink);
                    self.escape.clear();
                    self.escape.push('\\');
                    self.state = State::Escape { key };
                    *at += 1;
                    run.skip_to(*at);
                    break;
                }
                Some(&control) => {
                    run.reach(certain, !key);
                    self.settle(run, certain, sink);
                    self.mended = true;
                    let mut buffer = [0; 6];
                    let escaped = escape_control(control, &mut buffer);
                    self.put(key, escaped, sink);
                    *at += 1;
                    run.skip_to(*at);
                }
            }
        }
    }

    fn put(&mut self, key: bool, text: &str, sink: &mut impl Sink) {
        if key {
            self.held.push_str(text);
        } else {
            sink.put(text);
        }
    }

    fn let_held_go(&mut self, sink: &mut impl Sink) {
        if !self.held.is_empty() {
            sink.put(&self.held);
            self.held.clear();
        }
    }

    /// Lets through what is certain of the run up to `end`, and holds the rest back.
    fn settle(&mut self, run: &mut Run<'_>, end: usize, sink: &mut impl Sink) {
        let certain = run.certain.min(end);
        if certain > run.from {
            self.let_held_go(sink);
            sink.put(&run.text[run.from..certain]);
            run.from = certain;
        }
        if end > run.from {
            self.held.push_str(&run.text[run.from..end]);
        }
        run.skip_to(end);
    }
}

/// The part of the text that is yet to be let through or held back.
struct Run<'a> {
    text: &'a str,
    from: usize,
    /// Up to here it may be let through.
    certain: usize,
}

impl Run<'_> {
    fn reach(&mut self, at: usize, certain: bool) {
        if certain {
            self.certain = at;
        }
    }

    fn skip_to(&mut self, at: usize) {
        self.from = at;
        self.certain = at;
    }
}

impl Number {
    fn first(byte: u8) -> Self {
        match byte {
            b'-' => Self::Minus,
            b'0' => Self::Zero,
            _ => Self::Int,
        }
    }

    fn next(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Minus, b'0') => Self::Zero,
            (Self::Minus | Self::Int, b'0'..=b'9') => Self::Int,
            (Self::Zero | Self::Int, b'.') => Self::Dot,
            (Self::Dot | Self::Fraction, b'0'..=b'9') => Self::Fraction,
            (Self::Zero | Self::Int | Self::Fraction, b'e' | b'E') => Self::E,
            (Self::E, b'+' | b'-') => Self::Sign,
            (Self::E | Self::Sign | Self::Exponent, b'0'..=b'9') => Self::Exponent,
            _ => return None,
        })
    }

    /// It may end here.
    fn is_whole(self) -> bool {
        matches!(self, Self::Zero | Self::Int | Self::Fraction | Self::Exponent)
    }
}
