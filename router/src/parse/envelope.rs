//! A call as one JSON object: `{"name": "f", "arguments": {...}}`, in any order of its members and
//! beside others. Hermes, Llama 3 and Mistral's older form share it.

use super::HELD_BYTES_MAX;
use super::event::{Events, Warning};
use super::frame::{Arguments, Flow};
use super::json::{Scan, Scanner, Sink, unescape};
use super::tools::Tools;
use std::sync::Arc;

/// The longest name of a member that matters; of the others this much is kept.
const KEY_BYTES_KEPT: usize = 32;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before `{`.
    Open,
    /// After `{`.
    FirstKey,
    /// After a comma.
    Key,
    InKey,
    Colon,
    /// After the colon.
    Value,
    InName,
    InArguments,
    InOther,
    /// After a member's value.
    After,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    Nothing,
    Begun,
    Whole,
}

/// Follows one object.
pub(super) struct Envelope {
    state: State,
    /// Only what names one of these is a call, has arguments, and no members that do not belong to a
    /// call: anything else may be data.
    only: Option<Arc<Tools>>,
    scanner: Scanner,
    /// The key or the name, as JSON has it.
    field: String,
    name: Option<String>,
    arguments: Seen,
    /// Arguments that came before the name.
    held: String,
    mended: bool,
    /// The call has been announced.
    begun: bool,
    /// All that was read, while it may still turn out to be text; later what did turn out so.
    raw: String,
}

/// Keeps the beginning.
struct Beginning<'a>(&'a mut String);

impl Sink for Beginning<'_> {
    fn put(&mut self, text: &str) {
        let room = KEY_BYTES_KEPT.saturating_sub(self.0.len());
        self.0.push_str(&text[..text.floor_char_boundary(room)]);
    }
}

struct Nowhere;

impl Sink for Nowhere {
    fn put(&mut self, _: &str) {}
}

impl Envelope {
    /// For objects that are certainly meant as calls.
    pub(super) fn new() -> Self {
        Self {
            state: State::Open,
            only: None,
            scanner: Scanner::new(),
            field: String::new(),
            name: None,
            arguments: Seen::Nothing,
            held: String::new(),
            mended: false,
            begun: false,
            raw: String::new(),
        }
    }

    /// For objects that may be data.
    pub(super) fn of_tools(tools: Arc<Tools>) -> Self {
        Self { only: Some(tools), ..Self::new() }
    }

    /// For the next object, which stands after this text and whose first brace has been read.
    pub(super) fn reset_open(&mut self, before: &str) {
        self.reset(before);
        self.raw.push('{');
        self.state = State::FirstKey;
    }

    /// For the next object, which stands after this text.
    pub(super) fn reset(&mut self, before: &str) {
        self.state = State::Open;
        self.name = None;
        self.arguments = Seen::Nothing;
        self.held.clear();
        (self.mended, self.begun) = (false, false);
        self.raw.clear();
        self.raw.push_str(before);
    }

    /// What was read and is text after all.
    pub(super) fn rest(&mut self) -> &mut String {
        &mut self.raw
    }

    /// It stands within a string, where any character may follow.
    pub(super) fn is_in_string(&self) -> bool {
        use State::{InArguments, InKey, InName, InOther};
        matches!(self.state, InKey | InName | InArguments | InOther) && self.scanner.is_in_string()
    }

    /// Takes text in if it is nothing but a part of a string in the arguments.
    #[inline]
    pub(super) fn plain(&mut self, text: &str, out: &mut Events) -> bool {
        let is_plain = self.begun && self.state == State::InArguments && self.scanner.passes(text);
        if is_plain {
            out.arguments(text);
        }
        is_plain
    }

    /// Takes text in, up to the object's end; how many bytes were used.
    pub(super) fn feed(&mut self, text: &str, out: &mut Events) -> (usize, Flow) {
        let mut at = 0;
        while at < text.len() {
            let mut end = text.len();
            if !self.begun {
                let room = HELD_BYTES_MAX.saturating_sub(self.raw.len());
                end = text.floor_char_boundary(at.saturating_add(room));
                if end <= at {
                    return (at, Flow::Reject(Some(Warning::TooLong)));
                }
            }
            let (used, flow) = self.step(&text[at..end], out);
            if !self.begun {
                self.raw.push_str(&text[at..at + used]);
            }
            at += used;
            if !matches!(flow, Flow::More) {
                return (at, flow);
            }
        }
        (at, Flow::More)
    }

    /// The output ends here.
    pub(super) fn finish(&mut self, out: &mut Events) -> Flow {
        if !self.begun && !self.begin_without_arguments(out) {
            return Flow::Reject(Some(Warning::Unfinished));
        }
        if self.arguments == Seen::Whole {
            self.end(out);
            return Flow::Done;
        }
        let flow = self.cut(Warning::Unfinished, out);
        self.raw.clear();
        flow
    }

    /// What follows cannot belong to the object.
    pub(super) fn broken(&mut self, warning: Warning, out: &mut Events) -> Flow {
        if self.begun { self.cut(warning, out) } else { Flow::Reject(Some(warning)) }
    }

    fn cut(&mut self, warning: Warning, out: &mut Events) -> Flow {
        self.raw.clear();
        let mut missing = String::new();
        match self.arguments {
            Seen::Nothing => missing.push_str("{}"),
            Seen::Whole => {}
            Seen::Begun => {
                self.scanner.missing(&mut missing);
                self.scanner.rest(&mut self.raw);
            }
        }
        out.warning(warning);
        out.call_end(&missing);
        Flow::Cut
    }

    /// Announces the call if it is certain to be one: what has other arguments than an object is none.
    fn begin(&mut self, out: &mut Events) -> Flow {
        let Some(name) = self.name.as_deref().filter(|_| !self.begun) else { return Flow::More };
        if self.only.as_ref().is_some_and(|tools| !tools.has(name)) {
            return Flow::Reject(Some(Warning::Malformed));
        }
        if self.arguments != Seen::Nothing {
            out.call_begin(name);
            out.arguments(&self.held);
            self.begun = true;
            self.raw.clear();
        }
        Flow::More
    }

    /// Announces the call where no arguments can follow any more; whether it is one.
    fn begin_without_arguments(&mut self, out: &mut Events) -> bool {
        let Some(name) = self.name.as_deref().filter(|_| self.only.is_none()) else { return false };
        out.call_begin(name);
        self.begun = true;
        self.raw.clear();
        true
    }

    fn end(&mut self, out: &mut Events) {
        if self.arguments == Seen::Nothing {
            out.arguments("{}");
        }
        if self.mended {
            out.warning(Warning::Mended);
        }
        out.call_end("");
    }

    /// Takes in what one state has to say to it.
    fn step(&mut self, text: &str, out: &mut Events) -> (usize, Flow) {
        match self.state {
            State::InArguments => return self.in_arguments(text, out),
            State::InKey => {
                let (used, scan) = self.scanner.feed(text, &mut Beginning(&mut self.field));
                return (used, self.value_came(scan, State::Colon, out));
            }
            State::InOther => {
                let (used, scan) = self.scanner.feed(text, &mut Nowhere);
                return (used, self.value_came(scan, State::After, out));
            }
            State::InName => {
                let (used, scan) = self.scanner.feed(text, &mut self.field);
                let mut flow = self.value_came(scan, State::After, out);
                if scan == Scan::Done {
                    self.name = Some(unescape(&self.field));
                    flow = self.begin(out);
                }
                return (used, flow);
            }
            _ => {}
        }
        let space = text.bytes().take_while(u8::is_ascii_whitespace).count();
        if space > 0 {
            return (space, Flow::More);
        }
        let byte = text.as_bytes()[0];
        match (self.state, byte) {
            (State::Open, b'{') => self.state = State::FirstKey,
            (State::Colon, b':') => self.state = State::Value,
            (State::After, b',') => self.state = State::Key,
            (State::FirstKey | State::Key, b'"') => {
                self.start(State::InKey);
                return (0, Flow::More);
            }
            (State::FirstKey | State::After, b'}') => {
                if !self.begun && !self.begin_without_arguments(out) {
                    return (0, Flow::Reject(Some(Warning::Malformed)));
                }
                self.end(out);
                return (1, Flow::Done);
            }
            (State::Value, _) => return (0, self.value(byte, out)),
            _ => return (0, self.broken(Warning::Malformed, out)),
        }
        (1, Flow::More)
    }

    fn start(&mut self, state: State) {
        self.state = state;
        self.scanner.reset();
        self.field.clear();
    }

    /// A member's value begins with this byte.
    fn value(&mut self, byte: u8, out: &mut Events) -> Flow {
        let is_name = self.field == "\"name\"";
        let is_arguments = self.field == "\"arguments\"" || self.field == "\"parameters\"";
        if is_name && self.name.is_none() {
            if byte != b'"' {
                return self.broken(Warning::Malformed, out);
            }
            self.start(State::InName);
        } else if is_arguments && self.arguments == Seen::Nothing && byte != b'n' {
            if byte != b'{' {
                return self.broken(Warning::Malformed, out);
            }
            self.start(State::InArguments);
            self.arguments = Seen::Begun;
            return self.begin(out);
        } else if self.only.is_some() && !self.begun && !self.is_of_a_call() {
            return Flow::Reject(Some(Warning::Malformed));
        } else {
            self.start(State::InOther);
        }
        Flow::More
    }

    /// The member may stand in a call.
    fn is_of_a_call(&self) -> bool {
        let known = ["\"name\"", "\"arguments\"", "\"parameters\"", "\"type\"", "\"id\""];
        known.contains(&self.field.as_str())
    }

    fn in_arguments(&mut self, text: &str, out: &mut Events) -> (usize, Flow) {
        let (used, scan) = if self.begun {
            self.scanner.feed(text, &mut Arguments(out))
        } else {
            self.scanner.feed(text, &mut self.held)
        };
        if scan == Scan::Done {
            self.arguments = Seen::Whole;
            self.mended |= self.scanner.mended();
        }
        (used, self.value_came(scan, State::After, out))
    }

    fn value_came(&mut self, scan: Scan, next: State, out: &mut Events) -> Flow {
        match scan {
            Scan::More => Flow::More,
            Scan::Done => {
                self.state = next;
                Flow::More
            }
            Scan::Broken(warning) => self.broken(warning, out),
        }
    }
}
