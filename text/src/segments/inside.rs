//! Cuts between two added tokens: where the pre-tokenizer ends a piece whatever stands around it.
//!
//! There is one rule: between an ASCII letter and the blank, or line feed, that follows it. For the
//! pre-tokenizers of [`crate::known`] it is provable:
//!
//! * No alternative of their patterns matches a letter and then white space, so every piece that
//!   holds the letter ends with it: there is a boundary at the cut, always.
//! * Left of it, a match ends at the letter, or before. Whether the text goes on behind the letter
//!   is seen only by a match that reaches it, and those stop at white space as at the end of the
//!   text. The one look ahead, `\s+(?!\S)`, is at what follows a run of white space, which is not
//!   the letter's successor.
//! * Right of it, nothing looks back: the matches from there on are those of a text that begins
//!   there. What is put before the beginning of a text is put only before what is no blank, and
//!   where something is put, only blanks are cut at.
//! * Unicode normalisation (NFC and its kin) never joins a blank or line feed with what is before.
//! * The tokenizers library's engine gives up when one match takes a million steps back, and then
//!   the rest of the text is one piece ([`crate::byte_level`] does not). The steps grow with the run
//!   of characters that is tried, a few for each, and no such run has a cut in it: where all parts
//!   are shorter than [`PART_BYTES_MAX`] none is that long; where one is not, nothing is cut at all.

use super::Segment;
use crate::known::{self, Normalizer};
use tokenizers::Tokenizer;

/// A part ends at the first possible place behind that many bytes. Texts that begin alike share the
/// parts before the one in which they part; what is kept of a part costs some hundred bytes besides.
const PART_BYTES: usize = 512;
/// If there is no place within so many bytes, there are no parts.
const PART_BYTES_MAX: usize = 16 << 10;

/// Where a text without added tokens may be cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Inside {
    /// Nothing is proven.
    Nowhere,
    /// Between a letter and a blank.
    Blanks,
    /// Between a letter and a blank or line feed.
    BlanksAndLines,
    /// Every byte is tokenised by itself.
    Anywhere,
}

impl Inside {
    pub(super) fn of(tokenizer: &Tokenizer) -> Self {
        let plain = Normalizer::of(tokenizer) != Normalizer::Unknown;
        if !plain || !normalized_tokens_are_calm(tokenizer) || !tokens_are_short(tokenizer) {
            return Self::Nowhere;
        }
        let pre_tokenizer = known::pre_tokenizer(tokenizer);
        if pre_tokenizer["type"] == "Metaspace" && pre_tokenizer["split"] == true {
            return Self::Blanks;
        }
        match known::byte_level_patterns(&pre_tokenizer) {
            Some(_) => Self::BlanksAndLines,
            None => Self::Nowhere,
        }
    }

    /// Appends the parts of a text that may be cut here, the last one without an end of its own:
    /// a text that goes on has the same parts up to there.
    pub(super) fn split<'t>(self, text: &'t str, parts: &mut Vec<Segment<'t>>) {
        let part = |start: usize, end: usize| Segment {
            text: &text[start..end],
            // Whether there are parts at all depends on what follows, but for single bytes.
            firm: start == 0 || self == Self::Anywhere,
        };
        let before = parts.len();
        let mut start = 0;
        while let Some(end) = self.next(text, start) {
            if end - start > PART_BYTES_MAX {
                parts.truncate(before);
                start = 0;
                break;
            }
            parts.push(part(start, end));
            start = end;
        }
        if text.len() - start > PART_BYTES_MAX && start > 0 {
            parts.truncate(before);
            start = 0;
        }
        parts.push(part(start, text.len()));
    }

    /// The first place behind `PART_BYTES` from `start`.
    fn next(self, text: &str, start: usize) -> Option<usize> {
        let from = start + PART_BYTES;
        let bytes = text.as_bytes();
        let lines = match self {
            Self::Nowhere => return None,
            Self::Anywhere => {
                return (from..text.len()).find(|at| text.is_char_boundary(*at));
            }
            Self::Blanks => false,
            Self::BlanksAndLines => true,
        };
        let rest = bytes.get(from - 1..)?;
        let is_cut = |pair: &[u8]| {
            pair[0].is_ascii_alphabetic() && (pair[1] == b' ' || (lines && pair[1] == b'\n'))
        };
        rest.windows(2).position(is_cut).map(|at| from + at)
    }
}

/// Added tokens that are looked for in the normalised text: none may lie across a cut or look
/// beyond it.
fn normalized_tokens_are_calm(tokenizer: &Tokenizer) -> bool {
    let added = tokenizer.get_added_vocabulary();
    tokenizer.get_added_tokens_decoder().iter().filter(|(_, token)| token.normalized).all(
        |(id, token)| {
            let matched = added.simple_id_to_token(*id).unwrap_or_default();
            let blank = |text: &str| text.contains(char::is_whitespace);
            !(token.lstrip
                || token.rstrip
                || token.single_word
                || blank(&token.content)
                || blank(&matched))
        },
    )
}

/// No cut lies within the token that a part begins with.
fn tokens_are_short(tokenizer: &Tokenizer) -> bool {
    tokenizer.get_added_tokens_decoder().values().all(|token| token.content.len() < PART_BYTES)
}
