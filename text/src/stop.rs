//! Stop strings, found in a text that arrives in pieces.
//!
//! Text that may turn out to be the beginning of a stop string is held back, and nothing else is:
//! the held part is the longest suffix that is a prefix of some stop string. The result does not
//! depend on how the text was cut: the stop string that is complete first wins, among several that
//! end at the same place the longest.

use std::collections::VecDeque;
use std::fmt;

/// Looks for stop strings in the text of one answer; see the module's documentation.
#[derive(Clone)]
pub struct StopStrings {
    patterns: Vec<Pattern>,
    /// Text that may still become part of a stop string.
    held: String,
    /// Where `held` begins, in bytes of the whole text.
    held_start: u64,
    /// Pushed ids whose text begins before `held_start`.
    settled_ids: u64,
    /// The other pushed ids: where their text begins, and how many begin there.
    open_ids: VecDeque<(u64, u64)>,
    done: bool,
}

/// A stop string was found: the answer has ended, and later pushes give nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StopHit {
    /// Which one, as an index into the list given to [`StopStrings::new`].
    pub stop: usize,
    /// How many of the pushed ids belong to the text before it. An id whose text lies on both
    /// sides of the boundary belongs to it.
    pub kept_ids: u64,
}

impl StopStrings {
    /// A matcher for these strings. Empty ones never match.
    pub fn new<S: AsRef<str>>(stops: &[S]) -> Self {
        let patterns = stops.iter().enumerate();
        let patterns = patterns.filter_map(|(i, stop)| Pattern::new(i, stop.as_ref())).collect();
        Self {
            patterns,
            held: String::new(),
            held_start: 0,
            settled_ids: 0,
            open_ids: VecDeque::new(),
            done: false,
        }
    }

    /// The text that one further id has produced; it may be empty. What certainly belongs to the
    /// answer now is appended to `out`; in the long run that costs no allocation.
    pub fn push(&mut self, text: &str, out: &mut String) -> Option<StopHit> {
        if self.done {
            return None;
        }
        let start = self.held_start + self.held.len() as u64;
        match self.open_ids.back_mut() {
            Some((at, count)) if *at == start => *count += 1,
            _ => self.open_ids.push_back((start, 1)),
        }
        self.scan(text, out)
    }

    /// The last text, which no further id produced, and the end: nothing is held back any more.
    pub fn finish(&mut self, tail: &str, out: &mut String) -> Option<StopHit> {
        if self.done {
            return None;
        }
        let hit = self.scan(tail, out);
        self.done = true;
        out.push_str(&std::mem::take(&mut self.held));
        hit
    }

    fn scan(&mut self, text: &str, out: &mut String) -> Option<StopHit> {
        let old = self.held.len();
        self.held.push_str(text);
        for (i, byte) in text.bytes().enumerate() {
            let mut found: Option<(usize, usize)> = None;
            for pattern in &mut self.patterns {
                if pattern.advance(byte) && found.is_none_or(|(_, len)| pattern.bytes.len() > len) {
                    found = Some((pattern.index, pattern.bytes.len()));
                }
            }
            if let Some((stop, len)) = found {
                return Some(self.end(stop, old + i + 1 - len, out));
            }
        }
        let open = self.patterns.iter().map(|p| p.matched).max().unwrap_or(0);
        self.release(self.held.len() - open, out);
        None
    }

    /// The answer ends `at` bytes into the held text.
    fn end(&mut self, stop: usize, at: usize, out: &mut String) -> StopHit {
        self.release(at, out);
        self.done = true;
        self.held.clear();
        StopHit { stop, kept_ids: self.settled_ids }
    }

    /// Lets the first `len` bytes of the held text go.
    fn release(&mut self, len: usize, out: &mut String) {
        out.push_str(&self.held[..len]);
        self.held.drain(..len);
        self.held_start += len as u64;
        while let Some(&(at, count)) = self.open_ids.front()
            && at < self.held_start
        {
            self.settled_ids += count;
            self.open_ids.pop_front();
        }
    }
}

impl fmt::Debug for StopStrings {
    /// Without the text that is held back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StopStrings")
            .field("patterns", &self.patterns.len())
            .field("held_bytes", &self.held.len())
            .field("done", &self.done)
            .finish_non_exhaustive()
    }
}

/// One stop string with its Knuth-Morris-Pratt table.
#[derive(Clone)]
struct Pattern {
    index: usize,
    bytes: Vec<u8>,
    /// For every prefix, the length of its longest proper suffix that is a prefix too.
    fallback: Vec<usize>,
    /// How many leading bytes the end of the text matches.
    matched: usize,
}

impl Pattern {
    fn new(index: usize, text: &str) -> Option<Self> {
        let bytes = text.as_bytes().to_vec();
        let mut fallback = vec![0; bytes.len()];
        let mut len = 0;
        for i in 1..bytes.len() {
            while len > 0 && bytes[i] != bytes[len] {
                len = fallback[len - 1];
            }
            len += usize::from(bytes[i] == bytes[len]);
            fallback[i] = len;
        }
        (!bytes.is_empty()).then_some(Self { index, bytes, fallback, matched: 0 })
    }

    /// Takes one byte of text; true if the whole string has just been matched. The search ends
    /// there, so the state after a match does not matter.
    fn advance(&mut self, byte: u8) -> bool {
        while self.matched > 0 && self.bytes[self.matched] != byte {
            self.matched = self.fallback[self.matched - 1];
        }
        self.matched += usize::from(self.bytes[self.matched] == byte);
        self.matched == self.bytes.len()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The whole answer, decided with the whole text in hand.
    fn naive(pieces: &[String], stops: &[String]) -> (String, Option<StopHit>) {
        let text: String = pieces.concat();
        for end in 1..=text.len() {
            let hits = stops.iter().enumerate().filter(|(_, stop)| {
                !stop.is_empty() && text.as_bytes()[..end].ends_with(stop.as_bytes())
            });
            // The first of the longest, as the matcher does.
            if let Some((stop, s)) = hits.rev().max_by_key(|(_, stop)| stop.len()) {
                let start = end - s.len();
                let mut offset = 0;
                let mut kept_ids = 0;
                for piece in pieces {
                    kept_ids += u64::from(offset < start);
                    offset += piece.len();
                }
                return (text[..start].to_owned(), Some(StopHit { stop, kept_ids }));
            }
        }
        (text, None)
    }

    fn streamed(pieces: &[String], stops: &[String]) -> (String, Option<StopHit>) {
        let mut matcher = StopStrings::new(stops);
        let mut text = String::new();
        for piece in pieces {
            let hit = matcher.push(piece, &mut text);
            if hit.is_some() {
                let ended = text.clone();
                assert_eq!(matcher.push("more", &mut text), None);
                assert_eq!(matcher.finish("more", &mut text), None);
                assert_eq!(text, ended);
                return (text, hit);
            }
            let longest = stops.iter().map(String::len).max().unwrap_or(0);
            assert!(matcher.held.len() < longest.max(1), "more is held back than may matter");
        }
        let hit = matcher.finish("", &mut text);
        (text, hit)
    }

    fn push(stops: &mut StopStrings, piece: &str) -> String {
        let mut text = String::new();
        assert_eq!(stops.push(piece, &mut text), None);
        text
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn agrees_with_a_search_of_the_whole_text(
            pieces in prop::collection::vec("[abé☃]{0,4}", 0..12),
            stops in prop::collection::vec("[abé☃]{0,5}", 0..4),
        ) {
            prop_assert_eq!(streamed(&pieces, &stops), naive(&pieces, &stops));
        }
    }

    #[test]
    fn holds_back_only_what_may_become_a_stop_string() {
        let mut stops = StopStrings::new(&["\nUser:", "END"]);
        assert_eq!(push(&mut stops, "hello E"), "hello ");
        assert_eq!(push(&mut stops, "N"), "");
        assert_eq!(push(&mut stops, "X\nUse"), "ENX");
        let mut text = String::new();
        let hit = stops.push("r: hi", &mut text);
        assert_eq!((text.as_str(), hit), ("", Some(StopHit { stop: 0, kept_ids: 3 })));
    }

    #[test]
    fn the_tail_is_searched_too() {
        let mut stops = StopStrings::new(&["ab"]);
        assert_eq!(push(&mut stops, "xa"), "x");
        let mut text = String::new();
        let hit = stops.finish("bc", &mut text);
        assert_eq!((text.as_str(), hit), ("", Some(StopHit { stop: 0, kept_ids: 1 })));
    }

    #[test]
    fn without_a_hit_everything_is_let_through() {
        let mut stops = StopStrings::new(&["abc"]);
        assert_eq!(push(&mut stops, "ab"), "");
        let mut text = String::new();
        assert_eq!(stops.finish("", &mut text), None);
        assert_eq!(text, "ab");
    }

    #[test]
    fn ids_without_text_cost_no_memory() {
        let mut stops = StopStrings::new(&["abc"]);
        for _ in 0..1000 {
            assert_eq!(push(&mut stops, ""), "");
        }
        assert_eq!(stops.open_ids.len(), 1);
        let hit = stops.push("xabc", &mut String::new());
        assert_eq!(hit, Some(StopHit { stop: 0, kept_ids: 1001 }));
    }
}
