//! Text to token ids and back: tokenizer, chat template, incremental detokeniser.
//!
//! A [`TextModel`] is what a checkpoint directory says about text. It is loaded once and shared
//! by an `Arc`; everything else here is the state of one answer.

#![forbid(unsafe_code)]

mod byte_level;
mod decoder;
mod detokenizer;
mod error;
mod files;
mod generation;
mod known;
mod model;
mod pieces;
mod segments;
mod stop;
mod synthetic;
mod template;

pub use detokenizer::Detokenizer;
pub use error::{EncodeError, LoadError, PromptError, RenderError};
pub use generation::SamplingDefaults;
pub use model::{Clock, Limits, TextModel};
pub use segments::Segment;
pub use stop::{StopHit, StopStrings};
