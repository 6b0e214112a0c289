//! Hermes, Qwen 2.5 and Qwen 3: `<tool_call>`, one JSON object, `</tool_call>`.

use super::super::envelope::Envelope;
use super::super::event::{Events, Warning};
use super::super::frame::{Call, Flow, Words};
use super::{Layout, Spec, framed};

pub(super) const SPEC: Spec = Spec {
    name: "hermes",
    is_of: |template| template.contains("<tool_call>"),
    tokens: &["<tool_call>", "</tool_call>"],
    layout: Layout::Tagged(Words {
        openers: &["<tool_call>"],
        bare_opener: None,
        closer: Some("</tool_call>"),
    }),
    make: |style, start| framed(style, start, |_| Hermes { envelope: Envelope::new() }),
};

struct Hermes {
    envelope: Envelope,
}

impl Call for Hermes {
    fn open(&mut self, opener: &'static str) {
        self.envelope.reset(opener);
    }

    fn text(&mut self, text: &str, out: &mut Events) -> (usize, Flow) {
        self.envelope.feed(text, out)
    }

    fn plain(&mut self, text: &str, out: &mut Events) -> bool {
        self.envelope.plain(text, out)
    }

    fn special(&mut self, token: &str, out: &mut Events) -> (usize, Flow) {
        // In a string it is what the string says.
        if self.envelope.is_in_string() {
            return self.envelope.feed(token, out);
        }
        (0, self.envelope.broken(Warning::Malformed, out))
    }

    fn finish(&mut self, out: &mut Events) -> Flow {
        self.envelope.finish(out)
    }

    fn rest(&mut self) -> &mut String {
        self.envelope.rest()
    }
}
