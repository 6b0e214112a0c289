//! Qwen3-Coder and its like:
//! `<tool_call><function=f><parameter=p>value</parameter></function></tool_call>`.
//!
//! Values stand without quotes; a newline at either end is the markup's. What they are in JSON is
//! decided by the types in the tool's schema ([`Value`]). The first `<tool_call>` is often missing.

use super::super::event::{Events, Warning};
use super::super::frame::{Call, Flow, Words};
use super::super::markers::{Here, Markers};
use super::super::members::Members;
use super::{Layout, Spec, by_steps, framed, space_len};

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";
const FUNCTION: &str = "<function=";
const FUNCTION_END: &str = "</function>";
const PARAMETER: &str = "<parameter=";
const PARAMETER_END: &str = "</parameter>";
const MARKERS: [&str; 5] = [FUNCTION, FUNCTION_END, PARAMETER, PARAMETER_END, CLOSE];

/// The longest name, and the longest whitespace where it matters.
const NAME_BYTES_MAX: usize = 256;

pub(super) const SPEC: Spec = Spec {
    name: "qwen3_coder",
    is_of: |template| template.contains(FUNCTION) && template.contains(PARAMETER),
    tokens: &[OPEN, CLOSE],
    layout: Layout::Tagged(Words {
        openers: &[OPEN, FUNCTION],
        bare_opener: None,
        closer: Some(CLOSE),
    }),
    make: |style, start| {
        let in_text = if style.is_token(CLOSE) { 0b0_1111 } else { 0b1_1111 };
        framed(style, start, |tools| QwenCoder {
            state: State::Open,
            markers: Markers::new(MARKERS.to_vec()),
            in_text,
            members: Members::new(tools),
            newline: false,
            is_new: false,
            raw: String::new(),
            again: "",
        })
    },
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the function.
    Open,
    Name,
    /// In the function, outside parameters.
    Function,
    Key,
    Value,
    /// After `</parameter>`, which is part of the value unless markup follows.
    AfterValue,
}

struct QwenCoder {
    state: State,
    markers: Markers,
    /// Bit `i`: marker `i` comes as text.
    in_text: u32,
    members: Members,
    /// A newline of the value is held back: it is the markup's if the value ends.
    newline: bool,
    /// Nothing of the value has come yet: a newline is the markup's.
    is_new: bool,
    /// What was read and is text after all, unless markup follows.
    raw: String,
    /// What was held back and may be the beginning of another marker.
    again: &'static str,
}

impl QwenCoder {
    fn step(&mut self, text: &str, out: &mut Events) -> (usize, Flow) {
        match self.state {
            State::Name | State::Key => return self.word(text, out),
            State::Value if self.markers.is_idle() => {
                let plain = self.markers.next(text);
                if plain > 0 {
                    return self.value_text(&text[..plain], out);
                }
            }
            _ if self.markers.is_idle() => {
                let space = space_len(text);
                if space > 0 {
                    return self.space(&text[..space], out);
                }
            }
            State::Open | State::Function | State::Value | State::AfterValue => {}
        }
        match self.markers.here(text) {
            Here::Perhaps => (text.len(), Flow::More),
            Here::Marker(index, used) => {
                let marker = self.markers.text(index);
                (used, self.marker(marker, out))
            }
            Here::No("") if self.state == State::Value => self.value_text(&text[..1], out),
            Here::No(released) => (0, self.unexpected(released, out)),
        }
    }

    /// Whitespace between parts.
    fn space(&mut self, space: &str, out: &mut Events) -> (usize, Flow) {
        if self.state == State::Function {
            return (space.len(), Flow::More);
        }
        let used = space.len().min(NAME_BYTES_MAX.saturating_sub(self.raw.len()));
        self.raw.push_str(&space[..used]);
        let flow = if used < space.len() { self.unexpected("", out) } else { Flow::More };
        (used, flow)
    }

    /// No markup where it is expected. This was held back as its beginning.
    fn unexpected(&mut self, released: &'static str, out: &mut Events) -> Flow {
        self.again = released;
        match self.state {
            State::Open | State::Name => Flow::Reject(Some(Warning::Malformed)),
            State::Function | State::Key => self.cut(Warning::Malformed, out),
            State::AfterValue => {
                self.state = State::Value;
                let raw = std::mem::take(&mut self.raw);
                match self.own_text(&raw, out) {
                    Flow::More => self.unexpected(released, out),
                    flow => flow,
                }
            }
            State::Value => {
                let (used, flow) = self.value_text(released, out);
                self.again = &released[used..];
                flow
            }
        }
    }

    /// A name, up to `>`.
    fn word(&mut self, text: &str, out: &mut Events) -> (usize, Flow) {
        let word =
            if self.state == State::Name { &mut self.members.name } else { &mut self.members.key };
        for (at, char) in text.char_indices() {
            if char == '>' && !word.trim().is_empty() {
                return (at + 1, self.word_ends(out));
            }
            let fits = word.len() + char.len_utf8() <= NAME_BYTES_MAX;
            if !fits || matches!(char, '>' | '<' | '\n') {
                return (at, self.unexpected("", out));
            }
            word.push(char);
            self.raw.push(char);
        }
        (text.len(), Flow::More)
    }

    fn word_ends(&mut self, out: &mut Events) -> Flow {
        self.raw.clear();
        if self.state == State::Name {
            self.members.begin(out);
            self.state = State::Function;
        } else {
            self.members.begin_value();
            (self.is_new, self.newline) = (true, false);
            self.state = State::Value;
        }
        Flow::More
    }

    fn marker(&mut self, marker: &'static str, out: &mut Events) -> Flow {
        match (self.state, marker) {
            (State::Open, FUNCTION) => self.function(marker),
            (State::Value, PARAMETER_END) => {
                self.raw.clear();
                self.raw.push_str(marker);
                self.state = State::AfterValue;
            }
            // Without the value's own end these end it at the beginning of a line.
            (State::Value, FUNCTION_END | PARAMETER) if self.newline => {
                return self.value_ends(marker, out);
            }
            (State::Value, _) => return self.own_text(marker, out),
            (State::AfterValue, FUNCTION_END | PARAMETER | CLOSE) => {
                return self.value_ends(marker, out);
            }
            (State::Function, PARAMETER) => {
                self.members.key.clear();
                self.raw.clear();
                self.raw.push_str(marker);
                self.state = State::Key;
            }
            (State::Function, FUNCTION_END) => {
                self.raw.clear();
                self.members.end(out);
                return Flow::Done;
            }
            (State::Function, CLOSE) => {
                self.raw.clear();
                self.members.end(out);
                return Flow::Closed;
            }
            _ => {
                self.raw.push_str(marker);
                return self.unexpected("", out);
            }
        }
        Flow::More
    }

    fn function(&mut self, marker: &'static str) {
        self.raw.push_str(marker);
        self.state = State::Name;
    }

    fn value_ends(&mut self, marker: &'static str, out: &mut Events) -> Flow {
        if let Err(warning) = self.members.value.end(out) {
            let raw = std::mem::take(&mut self.raw);
            let flow = self.cut_value(warning, &raw, out);
            self.raw.push_str(marker);
            return flow;
        }
        self.raw.clear();
        self.state = State::Function;
        self.marker(marker, out)
    }

    /// Text of the value that is not part of the input's present piece.
    fn own_text(&mut self, text: &str, out: &mut Events) -> Flow {
        self.raw.clear();
        let (used, flow) = self.value_text(text, out);
        self.raw.push_str(&text[used..]);
        flow
    }

    /// Text of the value; how much was used. A newline is held back until something else follows.
    fn value_text(&mut self, text: &str, out: &mut Events) -> (usize, Flow) {
        let mut body = text;
        if !text.is_empty() && std::mem::take(&mut self.is_new) {
            body = text.strip_prefix('\n').unwrap_or(text);
        }
        let begun = text.len() - body.len();
        if body.is_empty() {
            return (begun, Flow::More);
        }
        if std::mem::take(&mut self.newline)
            && let Err((warning, _)) = self.members.value.feed("\n", out)
        {
            return (begun, self.cut_value(warning, "\n", out));
        }
        let whole = body;
        body = whole.strip_suffix('\n').unwrap_or(whole);
        self.newline = body.len() < whole.len();
        match self.members.value.feed(body, out) {
            Ok(()) => (text.len(), Flow::More),
            Err((warning, unused)) => {
                let used = begun + body.len() - unused;
                (used, self.cut_value(warning, "", out))
            }
        }
    }

    /// The value cannot go on with this.
    fn cut_value(&mut self, warning: Warning, with: &str, out: &mut Events) -> Flow {
        self.raw.clear();
        self.members.value.rest(&mut self.raw);
        self.raw.push_str(with);
        self.cut(warning, out)
    }

    fn cut(&mut self, warning: Warning, out: &mut Events) -> Flow {
        let in_value = matches!(self.state, State::Value | State::AfterValue);
        self.members.cut(in_value, warning, out)
    }
}

impl Call for QwenCoder {
    fn open(&mut self, opener: &'static str) {
        self.raw.clear();
        self.members.reset();
        self.markers.want(self.in_text);
        if opener == FUNCTION {
            self.function(opener);
        } else {
            self.raw.push_str(opener);
            self.state = State::Open;
        }
    }

    fn text(&mut self, text: &str, out: &mut Events) -> (usize, Flow) {
        by_steps(text, |text| self.step(text, out))
    }

    fn plain(&mut self, text: &str, out: &mut Events) -> bool {
        let goes_on = self.state == State::Value && !self.is_new && !self.newline;
        goes_on
            && self.markers.is_idle()
            && !text.ends_with('\n')
            && self.markers.next(text) == text.len()
            && self.members.value.plain(text, out)
    }

    fn special(&mut self, token: &str, out: &mut Events) -> (usize, Flow) {
        let released = self.markers.release();
        if !released.is_empty() {
            let flow = self.unexpected(released, out);
            if flow != Flow::More {
                return (0, flow);
            }
        }
        if token == CLOSE && matches!(self.state, State::Function | State::AfterValue) {
            return (token.len(), self.marker(CLOSE, out));
        }
        if self.state == State::AfterValue {
            let flow = self.unexpected("", out);
            if flow != Flow::More {
                return (0, flow);
            }
        }
        if self.state == State::Value {
            return self.value_text(token, out);
        }
        (0, self.unexpected("", out))
    }

    fn finish(&mut self, out: &mut Events) -> Flow {
        if matches!(self.state, State::Open | State::Name) {
            self.raw.push_str(self.markers.release());
            return Flow::Reject(Some(Warning::Unfinished));
        }
        if self.state == State::AfterValue && self.members.value.end(out).is_ok() {
            self.state = State::Function;
        }
        self.raw.clear();
        self.cut(Warning::Unfinished, out)
    }

    fn rest(&mut self) -> &mut String {
        &mut self.raw
    }

    fn again(&mut self) -> &'static str {
        std::mem::take(&mut self.again)
    }
}
