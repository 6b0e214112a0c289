//! Token ids to text, one at a time.

use crate::TextModel;
use crate::decoder::{self, Stage};
use baton_proto::ids::TokenId;
use std::fmt;
use std::sync::Arc;

/// Turns the ids of one answer into text as they come. No character is ever split: bytes of an
/// incomplete one are held back. The concatenation of everything returned equals the decoding of
/// all ids at once.
pub struct Detokenizer {
    model: Arc<TextModel>,
    stages: Vec<Stage>,
    skip_special: bool,
}

impl Detokenizer {
    pub(crate) fn new(model: Arc<TextModel>, skip_special: bool) -> Self {
        let stages = model.stages.clone();
        Self { model, stages, skip_special }
    }

    /// The text that this id makes certain; empty while a character is incomplete. Ids that the
    /// vocabulary does not have are passed over.
    pub fn push(&mut self, id: TokenId) -> String {
        let mut out = String::new();
        self.push_to(id, &mut out);
        out
    }

    /// The same, appended to `out`: in the long run an id costs no allocation.
    pub fn push_to(&mut self, id: TokenId, out: &mut String) {
        if let Some(piece) = self.model.pieces.get(id)
            && !(self.skip_special && self.model.pieces.is_special(id))
        {
            decoder::feed(&mut self.stages, piece, out);
        }
    }

    /// The answer is complete: what was held back, with U+FFFD for an incomplete character.
    /// Afterwards the next answer may follow.
    pub fn finish(&mut self) -> String {
        let mut out = String::new();
        decoder::finish(&mut self.stages, &mut out);
        self.stages.clone_from(&self.model.stages);
        out
    }
}

impl fmt::Debug for Detokenizer {
    /// Without the text that is held back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Detokenizer")
            .field("skip_special", &self.skip_special)
            .finish_non_exhaustive()
    }
}
