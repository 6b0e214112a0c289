//! Added tokens in a text.

use crate::known;
use aho_corasick::AhoCorasick;
use baton_proto::ids::TokenId;
use tokenizers::Tokenizer;

/// Finds added tokens: from left to right, the longest where several begin.
pub(super) struct Markers {
    /// `None` where there are none.
    finder: Option<AhoCorasick>,
    /// By pattern: the id, and whether the token is special.
    tokens: Vec<(TokenId, bool)>,
}

/// A part of a text.
pub(super) enum Part<'t> {
    /// An added token.
    Token(TokenId),
    /// What is between two of them; never empty.
    Text(&'t str),
}

impl Markers {
    /// The tokens that are looked for in the normalised text, or else in the text as it is; `None` if
    /// one looks at, or takes, what is beside it.
    pub(super) fn of(tokenizer: &Tokenizer, normalized: bool) -> Option<Self> {
        let added = known::added_tokens(tokenizer, normalized);
        let calm = added.iter().all(|(_, token)| {
            !(token.lstrip || token.rstrip || token.single_word || token.content.is_empty())
        });
        if !calm {
            return None;
        }
        let finder = if added.is_empty() { None } else { Some(known::finder(&added)?) };
        let tokens = added.iter().map(|(id, token)| (*id, token.special)).collect();
        Some(Self { finder, tokens })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Takes a text apart, in order. Special tokens are text unless `special`; no other token is then
    /// looked for within one.
    pub(super) fn split<'t, E>(
        &self,
        text: &'t str,
        special: bool,
        take: &mut impl FnMut(Part<'t>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut start = 0;
        for found in self.finder.iter().flat_map(|finder| finder.find_iter(text)) {
            let (id, is_special) = self.tokens[found.pattern().as_usize()];
            if is_special && !special {
                continue;
            }
            if found.start() > start {
                take(Part::Text(&text[start..found.start()]))?;
            }
            take(Part::Token(id))?;
            start = found.end();
        }
        if start < text.len() {
            take(Part::Text(&text[start..]))?;
        }
        Ok(())
    }
}
