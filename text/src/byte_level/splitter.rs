//! Splits a text at a pattern, with a lazily built automaton.
//!
//! Automata cannot look ahead, and the patterns look ahead once: `\s+(?!\S)|\s+` at their end. It
//! takes a run of white space, and leaves its last character to what follows, if anything follows
//! and it is not the only one. So the automaton has two patterns, what is before this, and `\s+`; where
//! the second one matched, the last character is given back here.

use crate::EncodeError;
use regex_automata::hybrid::dfa::DFA;
use regex_automata::{Anchored, Input, MatchKind};

pub(super) use regex_automata::hybrid::dfa::Cache;

const LOOK_AHEAD: &str = r"|\s+(?!\S)|\s+";
/// An automaton's states, in bytes; when they are more, it begins anew.
const CACHE_BYTES: usize = 1 << 20;

/// Finds the pieces of a text: the matches of a pattern, and what is between them.
pub(super) struct Splitter(DFA);

impl Splitter {
    /// `None` for a pattern that no automaton can match.
    pub(super) fn new(pattern: &str) -> Option<Self> {
        let patterns = match pattern.strip_suffix(LOOK_AHEAD) {
            Some(before) => vec![before, r"\s+"],
            None => vec![pattern],
        };
        let config = DFA::config()
            .match_kind(MatchKind::LeftmostFirst)
            .cache_capacity(CACHE_BYTES)
            .skip_cache_capacity_check(true);
        DFA::builder().configure(config).build_many(&patterns).ok().map(Self)
    }

    pub(super) fn cache(&self) -> Cache {
        self.0.create_cache()
    }

    /// Where the piece ends that begins at `start`, which is before the text's end.
    pub(super) fn piece_end(
        &self,
        cache: &mut Cache,
        text: &str,
        start: usize,
    ) -> Result<usize, EncodeError> {
        let mut at = start;
        loop {
            match self.match_end(cache, text, at)? {
                Some(end) if at == start => return Ok(end),
                // What no match holds is a piece of its own.
                Some(_) => return Ok(at),
                None => at += text[at..].chars().next().map_or(1, char::len_utf8),
            }
            if at >= text.len() {
                return Ok(text.len());
            }
        }
    }

    /// Where the match ends that begins at `start`.
    fn match_end(
        &self,
        cache: &mut Cache,
        text: &str,
        start: usize,
    ) -> Result<Option<usize>, EncodeError> {
        let input = Input::new(text).range(start..).anchored(Anchored::Yes);
        let found = self.0.try_search_fwd(cache, &input);
        let found = found.map_err(|e| EncodeError::Tokenizer { reason: e.to_string() })?;
        let Some(found) = found else { return Ok(None) };
        let end = found.offset();
        if found.pattern().as_usize() == 1 && end < text.len() {
            let last = text[start..end].chars().next_back().map_or(0, char::len_utf8);
            if end - last > start {
                return Ok(Some(end - last));
            }
        }
        Ok(Some(end).filter(|end| *end > start))
    }
}
