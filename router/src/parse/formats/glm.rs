//! GLM 4.5 and later:
//! `<tool_call>f<arg_key>k</arg_key><arg_value>v</arg_value></tool_call>`, with or without newlines
//! between the parts.
//!
//! Values stand without quotes; their types are the schema's ([`Value`]).

use super::super::event::{Events, Warning};
use super::super::frame::{Call, Flow, Words};
use super::super::markers::{Here, Markers};
use super::super::members::Members;
use super::{Layout, Spec, by_steps, framed, in_text, is_space, space_len};

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";
const KEY: &str = "<arg_key>";
const KEY_END: &str = "</arg_key>";
const VALUE: &str = "<arg_value>";
const VALUE_END: &str = "</arg_value>";
const MARKERS: [&str; 5] = [CLOSE, KEY, KEY_END, VALUE, VALUE_END];

/// The longest name or key, with what stands around it.
const NAME_BYTES_MAX: usize = 512;

pub(super) const SPEC: Spec = Spec {
    name: "glm4",
    is_of: |template| template.contains(KEY) && template.contains(VALUE),
    tokens: &[OPEN, CLOSE, KEY, KEY_END, VALUE, VALUE_END],
    layout: Layout::Tagged(Words { openers: &[OPEN], ..Words::NONE }),
    make: |style, start| {
        let mut markers = Markers::new(MARKERS.to_vec());
        markers.want(in_text(style, &MARKERS));
        framed(style, start, |tools| Glm {
            state: State::Name,
            markers,
            members: Members::new(tools),
            raw: String::new(),
            again: "",
        })
    },
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Name,
    /// Between a key and another.
    Between,
    Key,
    /// Before the key's value.
    AfterKey,
    Value,
}

struct Glm {
    state: State,
    markers: Markers,
    members: Members,
    /// What was read and is text after all, unless the call goes on as it should.
    raw: String,
    /// What was held back and may be the beginning of another marker.
    again: &'static str,
}

impl Glm {
    fn step(&mut self, text: &str, out: &mut Events) -> (usize, Flow) {
        if self.markers.is_idle() {
            let len = match self.state {
                State::Between | State::AfterKey => space_len(text),
                _ => self.markers.next(text),
            };
            if len > 0 {
                return self.plain_text(&text[..len], out);
            }
        }
        match self.markers.here(text) {
            Here::Perhaps => (text.len(), Flow::More),
            Here::Marker(index, used) => {
                let marker = self.markers.text(index);
                (used, self.marker(marker, out))
            }
            Here::No("") if self.state == State::Value => self.plain_text(&text[..1], out),
            Here::No(released) => (0, self.unexpected(released, out)),
        }
    }

    /// Text without markers.
    fn plain_text(&mut self, text: &str, out: &mut Events) -> (usize, Flow) {
        let word = match self.state {
            State::Between | State::AfterKey => return (text.len(), Flow::More),
            State::Value => {
                return match self.members.value.feed(text, out) {
                    Ok(()) => (text.len(), Flow::More),
                    Err((warning, unused)) => {
                        self.raw.clear();
                        self.members.value.rest(&mut self.raw);
                        (text.len() - unused, self.cut(warning, out))
                    }
                };
            }
            State::Name => &mut self.members.name,
            State::Key => &mut self.members.key,
        };
        let used = text.floor_char_boundary(NAME_BYTES_MAX.saturating_sub(word.len()));
        word.push_str(&text[..used]);
        self.raw.push_str(&text[..used]);
        let fits = used == text.len();
        (used, if fits { Flow::More } else { self.unexpected("", out) })
    }

    /// Not what is expected. This was held back as the beginning of a marker.
    fn unexpected(&mut self, released: &'static str, out: &mut Events) -> Flow {
        self.again = released;
        match self.state {
            State::Name => Flow::Reject(Some(Warning::Malformed)),
            State::Between | State::Key | State::AfterKey => self.cut(Warning::Malformed, out),
            State::Value => {
                let (used, flow) = self.plain_text(released, out);
                self.again = &released[used..];
                flow
            }
        }
    }

    fn marker(&mut self, marker: &'static str, out: &mut Events) -> Flow {
        match (self.state, marker) {
            (State::Name, KEY | CLOSE) if is_name(&self.members.name) => {
                self.raw.clear();
                self.members.begin(out);
                self.state = State::Between;
                return self.marker(marker, out);
            }
            (State::Between, KEY) => {
                self.members.key.clear();
                self.raw.clear();
                self.raw.push_str(marker);
                self.state = State::Key;
            }
            (State::Between, CLOSE) => {
                self.raw.clear();
                self.members.end(out);
                return Flow::Closed;
            }
            (State::Key, KEY_END) if is_name(&self.members.key) => {
                self.raw.push_str(marker);
                self.state = State::AfterKey;
            }
            (State::AfterKey, VALUE) => {
                self.members.begin_value();
                self.state = State::Value;
            }
            (State::Value, VALUE_END) => {
                self.raw.clear();
                if let Err(warning) = self.members.value.end(out) {
                    self.members.value.rest(&mut self.raw);
                    self.raw.push_str(marker);
                    return self.cut(warning, out);
                }
                self.state = State::Between;
            }
            (State::Value, _) => {
                let (used, flow) = self.plain_text(marker, out);
                self.raw.push_str(if flow == Flow::More { "" } else { &marker[used..] });
                return flow;
            }
            _ => {
                self.raw.push_str(marker);
                return self.unexpected("", out);
            }
        }
        Flow::More
    }

    fn cut(&mut self, warning: Warning, out: &mut Events) -> Flow {
        self.members.cut(self.state == State::Value, warning, out)
    }
}

/// A name or a key: one line with something in it.
fn is_name(text: &str) -> bool {
    let text = text.trim_matches(is_space);
    !text.is_empty() && !text.contains('\n')
}

impl Call for Glm {
    fn open(&mut self, opener: &'static str) {
        self.state = State::Name;
        self.members.reset();
        self.raw.clear();
        self.raw.push_str(opener);
    }

    fn text(&mut self, text: &str, out: &mut Events) -> (usize, Flow) {
        by_steps(text, |text| self.step(text, out))
    }

    fn plain(&mut self, text: &str, out: &mut Events) -> bool {
        self.state == State::Value
            && self.markers.is_idle()
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
        match MARKERS.iter().find(|marker| **marker == token) {
            Some(marker) => (token.len(), self.marker(marker, out)),
            None if self.state == State::Value => self.plain_text(token, out),
            None => (0, self.unexpected("", out)),
        }
    }

    fn finish(&mut self, out: &mut Events) -> Flow {
        if self.state == State::Name {
            self.raw.push_str(self.markers.release());
            return Flow::Reject(Some(Warning::Unfinished));
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
