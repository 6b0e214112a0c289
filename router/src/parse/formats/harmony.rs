//! gpt-oss: messages with a header each, `<|channel|>analysis<|message|>...<|end|>`. The channel
//! says what the message is, and a recipient (`to=functions.f`) makes it a call.
//!
//! The prompt ends with `<|start|>assistant`, so the answer begins within a header; an answer that
//! does not is text.

use super::super::body::{Body, Progress};
use super::super::event::{Events, Warning};
use super::super::markers::{Here, Markers};
use super::super::thinking::Marks;
use super::super::{Automaton, Piece};
use super::{Layout, Spec, in_text, is_space, space_len};

const START: &str = "<|start|>";
const CHANNEL: &str = "<|channel|>";
const CONSTRAIN: &str = "<|constrain|>";
const MESSAGE: &str = "<|message|>";
const END: &str = "<|end|>";
const CALL: &str = "<|call|>";
const RETURN: &str = "<|return|>";
const MARKERS: [&str; 7] = [START, CHANNEL, CONSTRAIN, MESSAGE, END, CALL, RETURN];
/// A recipient may come before the first channel.
const TO: &str = " to=";

/// The longest header, with the whitespace after it.
const HEADER_BYTES_MAX: usize = 1024;

pub(super) const SPEC: Spec = Spec {
    name: "harmony",
    is_of: |template| template.contains(CHANNEL) && template.contains(MESSAGE),
    tokens: &MARKERS,
    layout: Layout::Messages(Marks {
        open: &[CHANNEL, "analysis"],
        // Whatever follows a message ends it.
        close: &[END, CALL, RETURN, START, CHANNEL],
        // The model says which channel is next: it may want to call a tool.
        end: &[END, START, "assistant", CHANNEL],
    }),
    make: |style, start| {
        let mut harmony = Harmony {
            state: State::Open,
            markers: Markers::new(MARKERS.into_iter().chain([TO]).collect()),
            in_text: in_text(style, &MARKERS),
            raw: String::new(),
            name: String::new(),
            body: Body::new(),
            calls: start.tools.is_some(),
        };
        harmony.enter(State::Open);
        Box::new(harmony)
    },
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing has come.
    Open,
    /// Between two messages.
    Between,
    Header,
    Text,
    Reasoning,
    /// In a message to a tool.
    Call,
    /// In such a message, after the arguments.
    AfterCall,
}

struct Harmony {
    state: State,
    markers: Markers,
    /// Bit `i`: marker `i` comes as text.
    in_text: u32,
    /// The header; it is text if no call follows where it promised one.
    raw: String,
    name: String,
    body: Body,
    /// A message to a tool is a call; otherwise it is text, as everything that cannot be one.
    calls: bool,
}

impl Harmony {
    fn enter(&mut self, state: State) {
        self.state = state;
        let to = u32::from(state == State::Open) << MARKERS.len();
        self.markers.want(self.in_text | to);
    }

    fn text(&mut self, mut text: &str, out: &mut Events) {
        if self.state == State::Call && self.body.plain(text, out) {
            return;
        }
        while !text.is_empty() {
            if self.markers.is_idle() {
                let plain = match self.state {
                    State::Open => 0,
                    // In a string a marker is text, and elsewhere the object ends before it.
                    State::Call if self.body.has_begun() => text.len(),
                    _ => self.markers.next(text),
                };
                if plain > 0 {
                    let used = self.plain(&text[..plain], out);
                    text = &text[used..];
                    continue;
                }
            }
            match self.markers.here(text) {
                Here::Perhaps => return,
                Here::Marker(index, used) => {
                    text = &text[used..];
                    let marker = self.markers.text(index);
                    self.marker(marker, out);
                }
                Here::No("") => {
                    let first = text.chars().next().map_or(0, char::len_utf8);
                    let used = self.plain(&text[..first], out);
                    text = &text[used..];
                }
                Here::No(released) => self.all_plain(released, out),
            }
        }
    }

    /// Text without markers, in which none is looked for.
    fn all_plain(&mut self, mut text: &str, out: &mut Events) {
        while !text.is_empty() {
            let used = self.plain(text, out);
            text = &text[used..];
        }
    }

    /// Text without markers; how much of it belongs to this state.
    fn plain(&mut self, text: &str, out: &mut Events) -> usize {
        match self.state {
            State::Text => out.text(text),
            State::Reasoning => out.reasoning(text),
            State::Call => return self.arguments(text, out),
            State::Header => return self.header(text, out),
            State::Open => {
                self.enter(State::Text);
                return 0;
            }
            State::Between | State::AfterCall => {
                let space = space_len(text);
                if space == 0 {
                    out.warning(Warning::Malformed);
                    self.enter(State::Text);
                }
                return space;
            }
        }
        text.len()
    }

    fn header(&mut self, text: &str, out: &mut Events) -> usize {
        let room = HEADER_BYTES_MAX.saturating_sub(self.raw.len());
        let used = text.floor_char_boundary(room);
        self.raw.push_str(&text[..used]);
        if used < text.len() {
            self.give_up(Warning::TooLong, out);
        }
        used
    }

    /// The header was none, or its message no call: what was held back is text.
    fn give_up(&mut self, warning: Warning, out: &mut Events) {
        out.warning(warning);
        out.text(&self.raw);
        self.enter(State::Text);
    }

    fn arguments(&mut self, text: &str, out: &mut Events) -> usize {
        if !self.body.has_begun() && text.starts_with(is_space) {
            return self.header(&text[..space_len(text)], out);
        }
        let (used, progress) = self.body.feed(&self.name, text, out);
        match progress {
            Progress::More => {}
            Progress::Whole => self.enter(State::AfterCall),
            Progress::None => self.give_up(Warning::Malformed, out),
            Progress::Broken(warning) => self.cut(warning, out),
        }
        used
    }

    fn cut(&mut self, warning: Warning, out: &mut Events) {
        self.raw.clear();
        self.body.cut(warning, &mut self.raw, out);
        out.text(&self.raw);
        self.enter(State::Text);
    }

    fn marker(&mut self, marker: &str, out: &mut Events) {
        match (self.state, marker) {
            (State::Header, MESSAGE) => {
                self.raw.push_str(marker);
                return self.message();
            }
            (State::Header, CHANNEL | CONSTRAIN) => {
                let used = self.header(marker, out);
                return self.all_plain(&marker[used..], out);
            }
            (State::Header, _) => self.give_up(Warning::Malformed, out),
            (State::Call, _) if self.body.has_begun() => {
                self.cut(Warning::Malformed, out);
                return self.marker(marker, out);
            }
            // A message to a tool without content.
            (State::Call, _) => {
                self.body.begin(&self.name, out);
                out.arguments("{}");
                out.call_end("");
            }
            (State::Text, MESSAGE | CONSTRAIN) => return out.text(marker),
            (State::Reasoning, MESSAGE | CONSTRAIN) => return out.reasoning(marker),
            _ => {}
        }
        self.raw.clear();
        match marker {
            END | CALL | RETURN => self.enter(State::Between),
            MESSAGE => self.message(),
            _ => {
                self.raw.push_str(marker);
                self.enter(State::Header);
            }
        }
    }

    /// The header is complete.
    fn message(&mut self) {
        let recipient = self.raw.split_once("to=").map(|(_, rest)| word(rest));
        let channel = self.raw.split_once(CHANNEL).map(|(_, rest)| word(rest.trim_start()));
        let state = match (recipient, channel) {
            (Some(recipient), _)
                if self.calls && !matches!(recipient, "" | "user" | "assistant" | "all") =>
            {
                self.name.clear();
                self.name.push_str(recipient.strip_prefix("functions.").unwrap_or(recipient));
                self.body.reset();
                State::Call
            }
            (_, Some("analysis")) => State::Reasoning,
            _ => State::Text,
        };
        self.enter(state);
    }
}

/// What comes before whitespace or a marker.
fn word(text: &str) -> &str {
    let end = text.find(|char: char| is_space(char) || char == '<');
    &text[..end.unwrap_or(text.len())]
}

impl Automaton for Harmony {
    fn push(&mut self, piece: Piece<'_>, out: &mut Events) {
        match piece {
            Piece::Text(text) => self.text(text, out),
            Piece::Special(token) => {
                let released = self.markers.release();
                self.all_plain(released, out);
                match MARKERS.iter().find(|marker| **marker == token) {
                    Some(marker) => self.marker(marker, out),
                    None => self.all_plain(token, out),
                }
            }
        }
    }

    fn finish(&mut self, out: &mut Events) {
        let released = self.markers.release();
        self.all_plain(released, out);
        match self.state {
            State::Header => self.give_up(Warning::Unfinished, out),
            State::Call => {
                if !self.body.has_begun() {
                    self.body.begin(&self.name, out);
                }
                self.body.finish(out);
            }
            _ => {}
        }
    }
}
