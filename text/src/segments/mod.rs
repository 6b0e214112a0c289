//! Where a text can be cut so that its parts can be tokenised one by one.
//!
//! A *segment* is a part of a text such that the ids of the text are the ids of its segments, one
//! after the other, each tokenised as if it were a text of its own. So ids can be kept by segment,
//! and a text that shares segments with an earlier one, wherever they stand in it, costs only those
//! that are new.
//!
//! **Before an added token.** A tokenizer first looks for the added tokens that are matched in the
//! text as it is (`normalized: false`, as all markers of chat templates are), from left to right,
//! the longest where several begin. What is left between them is normalised, pre-tokenised and
//! merged piece by piece, and no piece knows of another. So a text may be cut before such a token:
//!
//! * The search begins anew after each token it has found, and looks no further back; what it finds
//!   before the token does not depend on anything behind it. Both halves give the same tokens.
//! * A token that takes the white space around it (`lstrip`, `rstrip`) or looks at its neighbours
//!   (`single_word`) could notice the cut. It is no place to cut at, and cuts are made only at
//!   tokens whose own first and last characters stop such a look.
//! * A segment begins with its token, so a pre-tokenizer that treats the beginning of a text in its
//!   own way (`Metaspace`, `prepend_scheme: first`) sees what it would see in the whole text.
//!
//! **Inside**, between two such tokens, only where [`inside`] can prove it.
//!
//! What else has to hold (no dropout, a post-processor that leaves the ids alone) is looked up
//! once, when the tokenizer is loaded. A tokenizer that is not understood gives one segment: the
//! whole text.

mod inside;

use crate::known;
use aho_corasick::AhoCorasick;
use inside::Inside;
use tokenizers::{AddedToken, Tokenizer};

/// A part of a text that can be tokenised by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment<'t> {
    /// Never empty.
    pub text: &'t str,
    /// Whether another text that is the same up to [`TextModel::lookahead`](crate::TextModel)
    /// bytes behind this segment's beginning has the same segments before it, and one that begins
    /// here. So what follows can be cut by itself.
    pub firm: bool,
}

/// What a tokenizer's texts may be cut at.
pub(crate) struct Cuts {
    /// Finds what the tokenizer finds; `None` where nothing may be cut there.
    tokens: Option<AhoCorasick>,
    /// By pattern of `tokens`: whether a text may be cut before it.
    cut_before: Vec<bool>,
    /// Bytes of the longest added token that is looked for.
    token_bytes_max: usize,
    inside: Inside,
}

impl Cuts {
    /// Looks a tokenizer up. Truncation and padding must have been removed from it.
    pub(crate) fn of(tokenizer: &Tokenizer) -> Self {
        if !known::is_deterministic(tokenizer.get_model()) || !known::leaves_ids_alone(tokenizer) {
            return Self::none();
        }
        let added = known::added_tokens(tokenizer, false);
        let neighbours_matter = added.iter().any(|(_, token)| token.single_word);
        let cut_before: Vec<bool> =
            added.iter().map(|(_, token)| is_cut(token, neighbours_matter)).collect();
        let tokens = known::finder(&added);
        // A token that is no cut may look, or take, beyond the place that would be cut.
        let calm = cut_before.iter().all(|cut| *cut) && (tokens.is_some() || added.is_empty());
        let inside = if calm { Inside::of(tokenizer) } else { Inside::Nowhere };
        let token_bytes_max = added.iter().map(|(_, token)| token.content.len()).max().unwrap_or(0);
        let tokens = tokens.filter(|_| !added.is_empty());
        Self { tokens, cut_before, token_bytes_max, inside }
    }

    /// For an encoding of single bytes: anywhere.
    pub(crate) fn anywhere() -> Self {
        Self { inside: Inside::Anywhere, ..Self::none() }
    }

    fn none() -> Self {
        Self { tokens: None, cut_before: Vec::new(), token_bytes_max: 0, inside: Inside::Nowhere }
    }

    /// How far behind its beginning a segment may depend on the text: whether a token is found at a
    /// place, or before it, is certain when so much is known.
    pub(crate) fn lookahead(&self) -> usize {
        self.token_bytes_max
    }

    /// The segments of a text, in order and without gaps.
    pub(crate) fn segments<'t>(&self, text: &'t str) -> Vec<Segment<'t>> {
        let mut segments = Vec::new();
        let mut start = 0;
        for found in self.tokens.iter().flat_map(|tokens| tokens.find_iter(text)) {
            if self.cut_before[found.pattern().as_usize()] {
                if found.start() > start {
                    self.inside.split(&text[start..found.start()], &mut segments);
                }
                start = found.start();
            }
        }
        if start < text.len() {
            self.inside.split(&text[start..], &mut segments);
        }
        segments
    }
}

/// Whether a text may be cut before this token.
fn is_cut(token: &AddedToken, neighbours_matter: bool) -> bool {
    let stops = |c: Option<char>| {
        c.is_some_and(|c| {
            if neighbours_matter {
                c.is_ascii_punctuation() && c != '_'
            } else {
                !c.is_whitespace()
            }
        })
    };
    let (first, last) = (token.content.chars().next(), token.content.chars().next_back());
    !token.lstrip && !token.rstrip && !token.single_word && stops(first) && stops(last)
}
