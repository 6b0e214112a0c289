//! How an answer is told apart into text, reasoning and calls, where its dialect wants that.

use crate::parse::{Events, Parser, Piece, Start, Style};
use baton_proto::ids::{RequestId, TokenId};
use std::collections::VecDeque;
use std::sync::Arc;

/// What a dialect wants of the answers to one request.
#[derive(Clone, Debug)]
pub(crate) struct Voice {
    /// How each answer begins.
    pub(crate) start: Start,
    /// It ends with its first call.
    pub(crate) serial: bool,
    /// What the names of calls begin with.
    pub(crate) call_prefix: &'static str,
}

/// The name of a call, the same whenever it is asked for, in letters and digits after the prefix.
pub(crate) fn call_id(prefix: &str, request: RequestId, choice: u16, call: usize) -> String {
    format!("{prefix}{request}{choice:02x}{call:04x}")
}

/// Reads one answer.
pub(super) struct Reader {
    style: Arc<Style>,
    parser: Parser,
    serial: bool,
    /// Markers that were seen and not read yet, and where in the text they begin.
    markers: VecDeque<(u64, &'static str)>,
    /// So many bytes of text have been read.
    at: u64,
    /// What was said last is reasoning, and nothing else has followed it.
    thinks: bool,
    /// Markers that end it.
    ends: Vec<&'static str>,
    /// One of these came last.
    ended: bool,
}

impl Reader {
    pub(super) fn new(style: &Arc<Style>, voice: &Voice) -> Self {
        Self {
            style: style.clone(),
            parser: style.parser(&voice.start),
            serial: voice.serial,
            markers: VecDeque::new(),
            at: 0,
            thinks: voice.start.in_reasoning,
            ends: style.sections().map_or_else(Vec::new, |sections| sections.close),
            ended: false,
        }
    }

    /// The marker that this token is.
    pub(super) fn marker(&self, id: TokenId) -> Option<&'static str> {
        self.style.marker(id)
    }

    /// A marker stands at this place of the text, whose bytes it is a part of.
    pub(super) fn note(&mut self, at: u64, marker: &'static str) {
        self.markers.push_back((at, marker));
    }

    /// Whether the model thinks: from the first words of its reasoning to the marker that ends it, or
    /// until something else is said.
    pub(super) fn thinks(&self) -> bool {
        self.thinks
    }

    /// Reads more of the text; whether the answer is to end here.
    pub(super) fn read(&mut self, text: &str, out: &mut Events) -> bool {
        let before = out.size();
        self.thinks &= !std::mem::take(&mut self.ended);
        self.parse(text, out);
        if out.size() != before {
            self.thinks = out.ends_in_reasoning();
        }
        self.serial && out.end_with_first_call()
    }

    fn parse(&mut self, mut text: &str, out: &mut Events) {
        while !text.is_empty() {
            let next = self.markers.front().copied();
            if let Some((start, marker)) = next
                && start <= self.at
            {
                let rest = marker.len() - (self.at - start) as usize;
                let taken = rest.min(text.len());
                if taken == rest {
                    self.markers.pop_front();
                    self.parser.push(Piece::Special(marker), out);
                    self.ended |= self.ends.contains(&marker);
                }
                (text, self.at) = (&text[taken..], self.at + taken as u64);
                continue;
            }
            let before = next.map_or(text.len(), |(start, _)| (start - self.at) as usize);
            let (words, rest) = text.split_at(before.min(text.len()));
            self.parser.push(Piece::Text(words), out);
            (text, self.at) = (rest, self.at + words.len() as u64);
        }
    }

    /// The text is complete.
    pub(super) fn finish(mut self, out: &mut Events) {
        // A stop string may have begun within a marker.
        if let Some((start, marker)) = self.markers.front()
            && let Some(seen) = self.at.checked_sub(*start)
            && let Some(words) = marker.get(..seen as usize)
        {
            self.parser.push(Piece::Text(words), out);
        }
        self.parser.finish(out);
    }
}
