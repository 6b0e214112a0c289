//! No calls: text, and reasoning in tags.

use super::super::frame::{Frame, Words};
use super::{Layout, Spec};

pub(super) const SPEC: Spec = Spec {
    name: "plain",
    is_of: |_| true,
    tokens: &[],
    layout: Layout::Tagged(Words::NONE),
    make: |style, start| Box::new(Frame::new(style, &Words::NONE, None, start.in_reasoning)),
};
