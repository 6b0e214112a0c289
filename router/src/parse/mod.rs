//! What an answer says: text, reasoning and tool calls, told apart while it is being generated.
//!
//! A [`Style`] is how a checkpoint writes, found from its chat template and vocabulary; a
//! [`Parser`] is the state of one answer. Parsers never fail: what is not as the format has it comes
//! out as text, with a [`Warning`]. The events do not depend on how the output was cut into pieces,
//! as long as a special token is one piece and a character is not split; arguments come as soon as
//! they are certain to be a part of valid JSON.
//!
//! What is held back has a bound: [`HELD_BYTES_MAX`], and a little for what stands within.

mod body;
mod envelope;
mod event;
mod formats;
mod frame;
mod json;
mod markers;
mod members;
mod style;
#[cfg(test)]
mod tests;
mod thinking;
mod tools;
mod value;

pub use event::{Event, Events, Warning};
pub use style::{Format, Reasoning, Start, Style};
pub(crate) use thinking::Sections;
pub use tools::{Tools, Types};

use std::fmt;

/// The most of an answer, in bytes, that is held back while it is not known what it is.
pub const HELD_BYTES_MAX: usize = 64 << 10;

/// A piece of a model's output.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Piece<'a> {
    /// Detokenised text, in whole characters.
    Text(&'a str),
    /// A token that is a marker ([`Style::marker`]), or any other special token that is to be seen.
    Special(&'a str),
}

/// A format's state machine.
trait Automaton: Send {
    /// Takes a piece in.
    fn push(&mut self, piece: Piece<'_>, out: &mut Events);
    /// The output is complete; called once.
    fn finish(&mut self, out: &mut Events);
}

/// Parses one answer.
pub struct Parser(Box<dyn Automaton>);

impl Parser {
    /// Takes a piece in, and adds to `out` what has become certain.
    #[inline]
    pub fn push(&mut self, piece: Piece<'_>, out: &mut Events) {
        self.0.push(piece, out);
    }

    /// The output is complete: adds what was held back. Nothing may be pushed afterwards.
    pub fn finish(mut self, out: &mut Events) {
        self.0.finish(out);
    }
}

impl fmt::Debug for Parser {
    /// Without what is held back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parser").finish_non_exhaustive()
    }
}
