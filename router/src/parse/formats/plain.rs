//! No calls: text, and reasoning in tags.

use super::super::frame::{Frame, Words};
use super::Spec;

pub(super) const SPEC: Spec = Spec {
    name: "plain",
    is_of: |_| true,
    tokens: &[],
    make: |style, start| {
        let words = Words { openers: &[], bare_opener: None, closer: None };
        Box::new(Frame::new(style, &words, None, start.in_reasoning))
    },
};
