//! Mistral, both forms: `[TOOL_CALLS] [{"name": "f", "arguments": {...}}, ...]`, and
//! `[TOOL_CALLS]f[ARGS]{...}` with or without `[CALL_ID]id` before `[ARGS]`.

use super::super::body::{Body, Progress};
use super::super::envelope::Envelope;
use super::super::event::{Events, Warning};
use super::super::frame::{Call, Flow, Words};
use super::super::markers::{Here, Markers};
use super::{Layout, Spec, by_steps, framed, in_text, is_space, space_len};

const OPENER: &str = "[TOOL_CALLS]";
const ARGS: &str = "[ARGS]";
const CALL_ID: &str = "[CALL_ID]";
/// The longest name and id together, with what stands around them.
const HEAD_BYTES_MAX: usize = 1024;

pub(super) const SPEC: Spec = Spec {
    name: "mistral",
    is_of: |template| template.contains(OPENER),
    tokens: &[OPENER, ARGS, CALL_ID],
    layout: Layout::Tagged(Words { openers: &[OPENER], ..Words::NONE }),
    make: |style, start| {
        let mut markers = Markers::new(vec![ARGS, CALL_ID]);
        markers.want(in_text(style, &[ARGS, CALL_ID]));
        framed(style, start, |_| Mistral {
            state: State::Open,
            markers,
            envelope: Envelope::new(),
            body: Body::new(),
            name: String::new(),
            raw: String::new(),
            again: "",
            calls: 0,
        })
    },
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// After the marker.
    Open,
    /// In a list, before an object.
    Item,
    Object,
    /// After an object of the list.
    Between,
    Name,
    Id,
    Body,
}

struct Mistral {
    state: State,
    markers: Markers,
    envelope: Envelope,
    body: Body,
    name: String,
    /// All since the marker, while no call has begun.
    raw: String,
    /// What was held back and may be the beginning of another marker.
    again: &'static str,
    /// Calls since the marker.
    calls: u32,
}

impl Mistral {
    fn step(&mut self, text: &str, out: &mut Events) -> (usize, Flow) {
        match self.state {
            State::Object => {
                let (used, flow) = self.envelope.feed(text, out);
                (used, self.object_went(flow, out))
            }
            State::Body if self.body.has_begun() || !text.starts_with(is_space) => {
                let (used, progress) = self.body.feed(&self.name, text, out);
                let flow = match progress {
                    Progress::More => Flow::More,
                    Progress::Whole => self.over(Flow::Done),
                    Progress::None => Flow::Reject(Some(Warning::Malformed)),
                    Progress::Broken(warning) => self.cut(warning, out),
                };
                (used, flow)
            }
            State::Body => self.keep(text, space_len(text)),
            State::Name | State::Id => self.head(text),
            State::Open | State::Item | State::Between => {
                let space = space_len(text);
                if space > 0 {
                    return if self.calls == 0 {
                        self.keep(text, space)
                    } else {
                        (space, Flow::More)
                    };
                }
                self.punctuation(text.as_bytes()[0], out)
            }
        }
    }

    /// What stands around objects, or the first of a name.
    fn punctuation(&mut self, byte: u8, out: &mut Events) -> (usize, Flow) {
        match (self.state, byte) {
            (State::Open, b'[') => {
                self.raw.push('[');
                self.state = State::Item;
            }
            (State::Item, b'{') => {
                self.envelope.reset_open(if self.calls == 0 { &self.raw } else { "," });
                self.state = State::Object;
            }
            (State::Between, b',') => self.state = State::Item,
            (State::Between, b']') => return (1, Flow::Done),
            (State::Open, _) => {
                self.state = State::Name;
                return (0, Flow::More);
            }
            _ if self.calls == 0 => return (0, Flow::Reject(Some(Warning::Malformed))),
            _ => {
                out.warning(Warning::Malformed);
                self.raw.clear();
                self.raw.push_str(if self.state == State::Item { "," } else { "" });
                return (0, Flow::Cut);
            }
        }
        (1, Flow::More)
    }

    /// A name or an id, up to the marker after it or, for a name, the arguments themselves.
    fn head(&mut self, text: &str) -> (usize, Flow) {
        if self.markers.is_idle() {
            let goes_on = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.:/".contains(byte);
            let len = text.bytes().take_while(goes_on).count();
            if len > 0 {
                if self.state == State::Name {
                    let room = HEAD_BYTES_MAX.saturating_sub(self.raw.len());
                    self.name.push_str(&text[..len.min(room)]);
                }
                return self.keep(text, len);
            }
            if text.starts_with('{') && self.state == State::Name && !self.name.is_empty() {
                self.state = State::Body;
                return (0, Flow::More);
            }
        }
        match self.markers.here(text) {
            Here::Perhaps => (text.len(), Flow::More),
            Here::Marker(index, used) => {
                let marker = self.markers.text(index);
                (used, self.mark(marker))
            }
            Here::No(released) => {
                self.again = released;
                (0, Flow::Reject(Some(Warning::Malformed)))
            }
        }
    }

    /// A marker after a name or an id.
    fn mark(&mut self, marker: &str) -> Flow {
        self.state = match (self.state, marker) {
            (State::Name, CALL_ID) if !self.name.is_empty() => State::Id,
            (State::Name | State::Id, ARGS) if !self.name.is_empty() => State::Body,
            _ => {
                self.raw.push_str(marker);
                return Flow::Reject(Some(Warning::Malformed));
            }
        };
        self.raw.push_str(marker);
        Flow::More
    }

    /// Keeps so much of the text as what no call has begun with yet.
    fn keep(&mut self, text: &str, len: usize) -> (usize, Flow) {
        let room = HEAD_BYTES_MAX.saturating_sub(self.raw.len());
        let kept = len.min(room);
        self.raw.push_str(&text[..kept]);
        let fits = kept == len;
        (kept, if fits { Flow::More } else { Flow::Reject(Some(Warning::TooLong)) })
    }

    fn object_went(&mut self, flow: Flow, out: &mut Events) -> Flow {
        if flow == Flow::More {
            return flow;
        }
        std::mem::swap(&mut self.raw, self.envelope.rest());
        match flow {
            Flow::Done => {
                self.state = State::Between;
                self.calls += 1;
                Flow::More
            }
            Flow::Reject(warning) if self.calls > 0 => {
                out.warning(warning.unwrap_or(Warning::Malformed));
                Flow::Cut
            }
            flow => flow,
        }
    }

    fn cut(&mut self, warning: Warning, out: &mut Events) -> Flow {
        self.raw.clear();
        self.body.cut(warning, &mut self.raw, out);
        Flow::Cut
    }

    fn over(&mut self, flow: Flow) -> Flow {
        self.raw.clear();
        flow
    }
}

impl Call for Mistral {
    fn open(&mut self, opener: &'static str) {
        self.state = State::Open;
        self.body.reset();
        self.name.clear();
        self.raw.clear();
        self.raw.push_str(opener);
        self.calls = 0;
    }

    fn text(&mut self, text: &str, out: &mut Events) -> (usize, Flow) {
        by_steps(text, |text| self.step(text, out))
    }

    fn plain(&mut self, text: &str, out: &mut Events) -> bool {
        match self.state {
            State::Body => self.body.plain(text, out),
            State::Object => self.envelope.plain(text, out),
            _ => false,
        }
    }

    fn special(&mut self, token: &str, out: &mut Events) -> (usize, Flow) {
        let released = self.markers.release();
        self.raw.push_str(released);
        match self.state {
            // In a string it is what the string says.
            State::Object if self.envelope.is_in_string() => self.text(token, out),
            State::Body if self.body.is_in_string() => self.text(token, out),
            State::Object => {
                let flow = self.envelope.broken(Warning::Malformed, out);
                (0, self.object_went(flow, out))
            }
            State::Body if self.body.has_begun() => (0, self.cut(Warning::Malformed, out)),
            State::Name | State::Id if released.is_empty() && token != OPENER => {
                (token.len(), self.mark(token))
            }
            State::Item | State::Between if self.calls > 0 => {
                self.raw.clear();
                out.warning(Warning::Malformed);
                (0, Flow::Cut)
            }
            _ => (0, Flow::Reject(Some(Warning::Malformed))),
        }
    }

    fn finish(&mut self, out: &mut Events) -> Flow {
        let released = self.markers.release();
        self.raw.push_str(released);
        match self.state {
            State::Object => {
                let flow = self.envelope.finish(out);
                match self.object_went(flow, out) {
                    Flow::More => self.over(Flow::Done),
                    flow => flow,
                }
            }
            State::Body if self.body.has_begun() => {
                self.raw.clear();
                self.body.finish(out);
                Flow::Cut
            }
            State::Item | State::Between if self.calls > 0 => self.over(Flow::Done),
            _ => Flow::Reject(Some(Warning::Unfinished)),
        }
    }

    fn rest(&mut self) -> &mut String {
        &mut self.raw
    }

    fn again(&mut self) -> &'static str {
        std::mem::take(&mut self.again)
    }
}
