//! DeepSeek V3.1 and Kimi K2: a section of calls, each with a name and arguments between markers.

use super::super::body::{Body, Progress};
use super::super::event::{Events, Warning};
use super::super::frame::{Call, Flow, Words};
use super::super::markers::{Here, Markers};
use super::{Layout, Spec, Style, by_steps, framed, in_text, is_space, space_len};

/// The longest name with what stands around it.
const HEAD_BYTES_MAX: usize = 1024;

/// The markers of such a format.
struct Marks {
    open: [&'static str; 1],
    /// In this order: call, arguments, end of call, end of section.
    inner: [&'static str; 4],
    /// The tool's name, from what stands before the arguments.
    name: fn(&str) -> &str,
}

const DEEPSEEK: Marks = Marks {
    open: ["<｜tool▁calls▁begin｜>"],
    inner: [
        "<｜tool▁call▁begin｜>",
        "<｜tool▁sep｜>",
        "<｜tool▁call▁end｜>",
        "<｜tool▁calls▁end｜>",
    ],
    name: |head| head,
};

const KIMI: Marks = Marks {
    open: ["<|tool_calls_section_begin|>"],
    inner: [
        "<|tool_call_begin|>",
        "<|tool_call_argument_begin|>",
        "<|tool_call_end|>",
        "<|tool_calls_section_end|>",
    ],
    // `functions.f:0`: the call's number is not part of the name.
    name: |head| {
        let head = head.strip_prefix("functions.").unwrap_or(head);
        let number = |(_, digits): &(&str, &str)| digits.bytes().all(|byte| byte.is_ascii_digit());
        head.rsplit_once(':').filter(number).map_or(head, |(name, _)| name)
    },
};

pub(super) const DEEPSEEK_V3_1: Spec = Spec {
    name: "deepseek_v3_1",
    // V3 and R1 write a type before the name and a fence around the arguments.
    is_of: |template| template.contains(DEEPSEEK.open[0]) && !template.contains("```json"),
    tokens: &[
        DEEPSEEK.open[0],
        DEEPSEEK.inner[0],
        DEEPSEEK.inner[1],
        DEEPSEEK.inner[2],
        DEEPSEEK.inner[3],
    ],
    layout: Layout::Tagged(Words { openers: &DEEPSEEK.open, ..Words::NONE }),
    make: |style, start| framed(style, start, |_| Sections::new(style, &DEEPSEEK)),
};

pub(super) const KIMI_K2: Spec = Spec {
    name: "kimi_k2",
    is_of: |template| template.contains(KIMI.open[0]),
    tokens: &[KIMI.open[0], KIMI.inner[0], KIMI.inner[1], KIMI.inner[2], KIMI.inner[3]],
    layout: Layout::Tagged(Words { openers: &KIMI.open, ..Words::NONE }),
    make: |style, start| framed(style, start, |_| Sections::new(style, &KIMI)),
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before a call, or the section's end.
    Between,
    Name,
    Body,
    /// After the arguments.
    AfterBody,
}

struct Sections {
    marks: &'static Marks,
    markers: Markers,
    state: State,
    /// What stands before the arguments.
    head: String,
    body: Body,
    /// All since the last call, or since the section began.
    raw: String,
    /// What was held back and may be the beginning of another marker.
    again: &'static str,
    /// Calls in the section.
    calls: u32,
}

impl Sections {
    fn new(style: &Style, marks: &'static Marks) -> Self {
        let mut markers = Markers::new(marks.inner.to_vec());
        markers.want(in_text(style, &marks.inner));
        Self {
            marks,
            markers,
            state: State::Between,
            head: String::new(),
            body: Body::new(),
            raw: String::new(),
            again: "",
            calls: 0,
        }
    }

    fn step(&mut self, text: &str, out: &mut Events) -> (usize, Flow) {
        if self.state == State::Body
            && self.markers.is_idle()
            && (self.body.has_begun() || text.starts_with('{'))
        {
            return self.arguments(text, out);
        }
        if self.markers.is_idle() {
            let len = match self.state {
                State::Name => self.markers.next(text).min(text.find('\n').unwrap_or(text.len())),
                _ => space_len(text),
            };
            if len > 0 {
                return self.keep(&text[..len], out);
            }
        }
        match self.markers.here(text) {
            Here::Perhaps => (text.len(), Flow::More),
            Here::Marker(index, used) => (used, self.marker(index, out)),
            Here::No("") if self.state == State::Name && !text.starts_with('\n') => {
                self.keep(&text[..1], out)
            }
            Here::No(released) if self.state == State::Name && !released.is_empty() => {
                self.keep_all(released, out)
            }
            Here::No(released) => {
                self.again = released;
                (0, self.broken(Warning::Malformed, out))
            }
        }
    }

    /// Keeps what no call has begun with yet: of a name, or whitespace.
    fn keep(&mut self, text: &str, out: &mut Events) -> (usize, Flow) {
        let used = text.floor_char_boundary(HEAD_BYTES_MAX.saturating_sub(self.raw.len()));
        self.raw.push_str(&text[..used]);
        if self.state == State::Name {
            self.head.push_str(&text[..used]);
        }
        let fits = used == text.len();
        (used, if fits { Flow::More } else { self.broken(Warning::TooLong, out) })
    }

    /// The same with what was held back, of which nothing stands in the present text.
    fn keep_all(&mut self, text: &'static str, out: &mut Events) -> (usize, Flow) {
        let (used, flow) = self.keep(text, out);
        self.again = &text[used..];
        (0, flow)
    }

    fn marker(&mut self, index: usize, out: &mut Events) -> Flow {
        match (self.state, index) {
            (State::Between, 0) => {
                self.head.clear();
                self.state = State::Name;
            }
            (State::Between, 3) if self.calls > 0 => {
                self.raw.clear();
                return Flow::Closed;
            }
            (State::Name, 1) if !self.name().is_empty() => {
                self.body.reset();
                self.state = State::Body;
            }
            (State::AfterBody, 2) => {
                self.state = State::Between;
                self.raw.clear();
                return Flow::More;
            }
            // Without the end of the call.
            (State::AfterBody, 0 | 3) => {
                self.state = State::Between;
                self.raw.clear();
                return self.marker(index, out);
            }
            (State::Body, _) if self.body.has_begun() => {
                let flow = self.cut(Warning::Malformed, out);
                self.raw.push_str(self.marks.inner[index]);
                return flow;
            }
            _ => {
                self.raw.push_str(self.marks.inner[index]);
                return self.broken(Warning::Malformed, out);
            }
        }
        self.raw.push_str(self.marks.inner[index]);
        Flow::More
    }

    fn name(&self) -> &str {
        (self.marks.name)(self.head.trim_matches(is_space))
    }

    fn arguments(&mut self, text: &str, out: &mut Events) -> (usize, Flow) {
        let name = (self.marks.name)(self.head.trim_matches(is_space));
        let (used, progress) = self.body.feed(name, text, out);
        let flow = match progress {
            Progress::More => Flow::More,
            Progress::None => self.broken(Warning::Malformed, out),
            Progress::Broken(warning) => self.cut(warning, out),
            Progress::Whole => {
                self.calls += 1;
                self.raw.clear();
                self.state = State::AfterBody;
                Flow::More
            }
        };
        (used, flow)
    }

    /// What follows is not of the format, and no call is open.
    fn broken(&mut self, warning: Warning, out: &mut Events) -> Flow {
        if self.calls == 0 {
            return Flow::Reject(Some(warning));
        }
        out.warning(warning);
        Flow::Cut
    }

    fn cut(&mut self, warning: Warning, out: &mut Events) -> Flow {
        self.raw.clear();
        self.body.cut(warning, &mut self.raw, out);
        Flow::Cut
    }
}

impl Call for Sections {
    fn open(&mut self, opener: &'static str) {
        self.state = State::Between;
        self.body.reset();
        self.raw.clear();
        self.raw.push_str(opener);
        self.calls = 0;
    }

    fn text(&mut self, text: &str, out: &mut Events) -> (usize, Flow) {
        by_steps(text, |text| self.step(text, out))
    }

    fn plain(&mut self, text: &str, out: &mut Events) -> bool {
        self.state == State::Body && self.body.plain(text, out)
    }

    fn special(&mut self, token: &str, out: &mut Events) -> (usize, Flow) {
        let released = self.markers.release();
        if !released.is_empty() {
            let flow = if self.state == State::Name {
                self.keep_all(released, out).1
            } else {
                self.again = released;
                self.broken(Warning::Malformed, out)
            };
            if flow != Flow::More {
                return (0, flow);
            }
        }
        // In a string it is what the string says.
        if self.state == State::Body && self.body.is_in_string() {
            return self.text(token, out);
        }
        match self.markers.position(token) {
            Some(index) => (token.len(), self.marker(index, out)),
            None if self.state == State::Body && self.body.has_begun() => {
                (0, self.cut(Warning::Malformed, out))
            }
            None => (0, self.broken(Warning::Malformed, out)),
        }
    }

    fn finish(&mut self, out: &mut Events) -> Flow {
        let released = self.markers.release();
        self.raw.push_str(released);
        match self.state {
            State::Body if self.body.has_begun() => {
                self.raw.clear();
                self.body.finish(out);
                Flow::Cut
            }
            State::Between | State::AfterBody if self.calls > 0 => {
                self.raw.clear();
                Flow::Done
            }
            _ => self.broken(Warning::Unfinished, out),
        }
    }

    fn rest(&mut self) -> &mut String {
        &mut self.raw
    }

    fn again(&mut self) -> &'static str {
        std::mem::take(&mut self.again)
    }
}
