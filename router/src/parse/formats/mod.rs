//! The formats: a file each, and a line each in the list below.

mod glm;
mod harmony;
mod hermes;
mod llama3;
mod mistral;
mod plain;
mod qwen_coder;
mod sections;

use super::Automaton;
use super::frame::{Call, Flow, Frame, Words};
use super::style::{Start, Style};
use super::thinking::Marks;
use super::tools::Tools;
use std::sync::Arc;

/// What a format is.
pub(super) struct Spec {
    /// As configurations write it.
    pub(super) name: &'static str,
    /// Whether a chat template is of this format.
    pub(super) is_of: fn(&str) -> bool,
    /// Markers that some tokenizers have as tokens of their own.
    pub(super) tokens: &'static [&'static str],
    /// What its calls and its reasoning stand between.
    pub(super) layout: Layout,
    /// A parser for one answer.
    pub(super) make: fn(&Style, &Start) -> Box<dyn Automaton>,
}

/// What calls and reasoning stand between.
pub(super) enum Layout {
    /// Calls between words in running text, reasoning in tags.
    Tagged(Words),
    /// Messages with a header each: reasoning is one of them.
    Messages(Marks),
}

impl Layout {
    /// The words around calls in running text.
    fn words(&self) -> &Words {
        match self {
            Self::Tagged(words) => words,
            Self::Messages(_) => &Words::NONE,
        }
    }
}

/// All formats. A template is of the first that says so, and of the last if none does.
pub(super) static ALL: [&Spec; 9] = [
    &harmony::SPEC,
    &mistral::SPEC,
    &sections::DEEPSEEK_V3_1,
    &sections::KIMI_K2,
    &qwen_coder::SPEC,
    &glm::SPEC,
    &hermes::SPEC,
    &llama3::SPEC,
    &plain::SPEC,
];

/// A parser of text, tagged reasoning and calls; of calls only if the request has tools.
fn framed<C: Call + 'static>(
    style: &Style,
    start: &Start,
    call: impl FnOnce(&Arc<Tools>) -> C,
) -> Box<dyn Automaton> {
    let call = start.tools.as_ref().map(|tools| Box::new(call(tools)) as Box<dyn Call>);
    Box::new(Frame::new(style, style.layout().words(), call, start.in_reasoning))
}

/// The markers that are no tokens and come as text; bit `i` is marker `i`.
fn in_text(style: &Style, markers: &[&str]) -> u32 {
    let in_text = markers.iter().enumerate().filter(|(_, marker)| !style.is_token(marker));
    in_text.fold(0, |set, (i, _)| set | 1 << i)
}

/// Takes text in step by step, each of which says how much it used, until one ends the call.
#[inline]
fn by_steps(text: &str, mut step: impl FnMut(&str) -> (usize, Flow)) -> (usize, Flow) {
    let mut at = 0;
    while at < text.len() {
        let (used, flow) = step(&text[at..]);
        at += used;
        if flow != Flow::More {
            return (at, flow);
        }
    }
    (at, Flow::More)
}

/// Whitespace between the parts of a call.
fn is_space(char: char) -> bool {
    char.is_ascii_whitespace()
}

/// So many bytes of whitespace come first.
fn space_len(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_whitespace).count()
}
