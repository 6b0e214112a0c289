//! Llama 3: `{"name": "f", "parameters": {...}}`, bare as the whole answer or after
//! `<|python_tag|>`, several with semicolons between them.
//!
//! An answer that is bare JSON need not be a call: it is one if it has a name, which is a tool's, and
//! arguments, and nothing else but what goes with them.

use super::super::envelope::Envelope;
use super::super::event::{Events, Warning};
use super::super::frame::{Call, Flow, Words};
use super::{Layout, Spec, framed};

const TAG: &str = "<|python_tag|>";

pub(super) const SPEC: Spec = Spec {
    name: "llama3",
    is_of: |template| {
        template.contains(TAG)
            || (template.contains("<|start_header_id|>") && template.contains("\"parameters\": "))
    },
    tokens: &[TAG],
    layout: Layout::Tagged(Words { openers: &[TAG], bare_opener: Some("{"), closer: None }),
    make: |style, start| {
        framed(style, start, |tools| Llama {
            tagged: Envelope::new(),
            bare: Envelope::of_tools(tools.clone()),
            is_bare: false,
            state: State::Object,
            calls: 0,
        })
    },
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Object,
    /// After an object.
    Between,
    /// After a semicolon.
    Semicolon,
}

struct Llama {
    tagged: Envelope,
    bare: Envelope,
    is_bare: bool,
    state: State,
    /// Calls since the opening marker.
    calls: u32,
}

impl Llama {
    fn envelope(&mut self) -> &mut Envelope {
        if self.is_bare { &mut self.bare } else { &mut self.tagged }
    }

    /// What becomes of the whole if the object does that.
    fn object_went(&mut self, flow: Flow, out: &mut Events) -> Flow {
        match flow {
            Flow::Done => {
                self.state = State::Between;
                self.calls += 1;
                Flow::More
            }
            Flow::Reject(_) if self.is_bare && self.calls == 0 => Flow::Reject(None),
            Flow::Reject(warning) if self.calls > 0 => {
                out.warning(warning.unwrap_or(Warning::Malformed));
                Flow::Cut
            }
            flow => flow,
        }
    }

    /// Neither a semicolon nor an object follows.
    fn over(&mut self) -> Flow {
        let semicolon = if self.state == State::Semicolon { ";" } else { "" };
        self.envelope().rest().push_str(semicolon);
        Flow::Done
    }
}

impl Call for Llama {
    fn open(&mut self, opener: &'static str) {
        self.is_bare = opener == "{";
        self.state = State::Object;
        self.calls = 0;
        if self.is_bare {
            self.bare.reset_open("");
        } else {
            self.tagged.reset(TAG);
        }
    }

    fn text(&mut self, text: &str, out: &mut Events) -> (usize, Flow) {
        let mut at = 0;
        while at < text.len() {
            if self.state == State::Object {
                let (used, flow) = self.envelope().feed(&text[at..], out);
                at += used;
                let flow = self.object_went(flow, out);
                if flow != Flow::More {
                    return (at, flow);
                }
                continue;
            }
            match (self.state, text.as_bytes()[at]) {
                (_, byte) if byte.is_ascii_whitespace() => {}
                (State::Between, b';') => self.state = State::Semicolon,
                (State::Semicolon, b'{') => {
                    self.state = State::Object;
                    self.envelope().reset_open(";");
                }
                _ => return (at, self.over()),
            }
            at += 1;
        }
        (at, Flow::More)
    }

    fn plain(&mut self, text: &str, out: &mut Events) -> bool {
        self.state == State::Object && self.envelope().plain(text, out)
    }

    fn special(&mut self, token: &str, out: &mut Events) -> (usize, Flow) {
        if self.state != State::Object {
            return (0, self.over());
        }
        // In a string it is what the string says.
        if self.envelope().is_in_string() {
            let (used, flow) = self.envelope().feed(token, out);
            return (used, self.object_went(flow, out));
        }
        let flow = self.envelope().broken(Warning::Malformed, out);
        (0, self.object_went(flow, out))
    }

    fn finish(&mut self, out: &mut Events) -> Flow {
        if self.state != State::Object {
            return self.over();
        }
        let flow = self.envelope().finish(out);
        match self.object_went(flow, out) {
            Flow::More => Flow::Done,
            flow => flow,
        }
    }

    fn rest(&mut self) -> &mut String {
        self.envelope().rest()
    }
}
