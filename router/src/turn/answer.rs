//! One choice of a turn, from ids to text: detokenised, ended at a stop string, and with exactly
//! the ids that belong to the text.

use super::voice::Reader;
use crate::cluster::NewTokens;
use crate::parse::Events;
use baton_proto::ids::TokenId;
use baton_proto::internal::Logprob;
use baton_proto::ir::FinishReason;
use baton_text::{Detokenizer, StopHit, StopStrings, TextModel};
use std::cell::Cell;
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

/// What became certain about a choice.
#[derive(Clone, Debug, Default)]
pub(crate) struct Delta {
    pub(crate) choice: u16,
    /// Whole characters, stop strings excluded.
    pub(crate) text: String,
    /// The ids that belong to the text; the answer's end token, if it had one, is the last.
    pub(crate) tokens: Vec<AnswerToken>,
    /// The answer is complete.
    pub(crate) finish: Option<FinishReason>,
    /// What the text says, where its dialect tells that apart.
    pub(crate) events: Events,
    /// The stop string that ended it, by its place among the request's.
    pub(crate) stop_string: Option<usize>,
}

thread_local! {
    /// One that has been read, for the memory it has. All turns of a thread share it: what a turn had for
    /// itself would have left the caches by its next token.
    static SPARE: Cell<Delta> = Cell::default();
}

/// A spare one keeps no more text than that.
const SPARE_BYTES_MAX: usize = 4096;

impl Delta {
    /// Memory for the next one.
    pub(super) fn spare() -> Self {
        SPARE.take()
    }

    /// Gives back what has been read, so that the next piece needs no memory of its own.
    pub(crate) fn reuse(self) {
        if self.text.capacity() <= SPARE_BYTES_MAX {
            SPARE.set(self);
        }
    }

    /// Nothing, in the same memory.
    pub(super) fn cleared(mut self, choice: u16) -> Self {
        let Self { text, tokens, events, .. } = &mut self;
        text.clear();
        tokens.clear();
        events.clear();
        Self { choice, finish: None, stop_string: None, ..self }
    }
}

/// An id of an answer.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct AnswerToken {
    pub(crate) id: TokenId,
    /// Where it was asked for.
    pub(crate) logprob: Option<Logprob>,
    /// It ended the answer and is not part of the text.
    pub(crate) is_end: bool,
    /// It is one of the markers by which a model's format tells its parts apart.
    pub(crate) is_marker: bool,
    /// The last of its piece's events when it became certain, if it has made one or added to one.
    pub(crate) event: Option<usize>,
}

/// One choice that is being generated.
pub(crate) struct Answer {
    choice: u16,
    detokenizer: Detokenizer,
    stops: StopStrings,
    /// Until the answer is complete.
    reader: Option<Reader>,
    /// The text of one id, in memory that is used again and again.
    piece: String,
    ends: Arc<HashSet<TokenId>>,
    /// Ids whose text is not certain yet, each with the place where its text begins.
    held: VecDeque<(u64, AnswerToken)>,
    /// Bytes of text that came out of the detokeniser, and of those that became certain.
    produced: u64,
    certain: u64,
    /// Ids that became certain.
    released: u64,
    /// Ids of reasoning, its end included.
    thought: u64,
    end: Option<AnswerToken>,
    done: bool,
}

impl Answer {
    pub(crate) fn new(
        choice: u16,
        text: &Arc<TextModel>,
        stops: &[String],
        ends: Arc<HashSet<TokenId>>,
        reader: Option<Reader>,
    ) -> Self {
        Self {
            choice,
            detokenizer: text.detokenizer(),
            stops: StopStrings::new(stops),
            reader,
            piece: String::new(),
            ends,
            held: VecDeque::new(),
            produced: 0,
            certain: 0,
            released: 0,
            thought: 0,
            end: None,
            done: false,
        }
    }

    /// The answer is complete; nothing changes it any more.
    pub(crate) fn is_done(&self) -> bool {
        self.done
    }

    /// Ids that belong to the answer, so far.
    pub(crate) fn tokens(&self) -> u64 {
        self.released
    }

    /// Ids of its reasoning, so far.
    pub(crate) fn reasoning_tokens(&self) -> u64 {
        self.thought.min(self.released)
    }

    /// Takes further ids in; what they make certain is put into `spare`, which keeps its memory.
    pub(crate) fn push(&mut self, new: NewTokens, spare: Delta) -> Delta {
        let mut delta = spare.cleared(self.choice);
        let mut logprobs = new.logprobs.into_iter();
        for id in new.ids {
            let mut token = AnswerToken {
                id,
                logprob: logprobs.next(),
                is_end: false,
                is_marker: false,
                event: None,
            };
            // After its end an answer has nothing to say.
            if self.done || self.end.is_some() {
                break;
            }
            if self.ends.contains(&id) {
                token.is_end = true;
                self.end = Some(token);
                break;
            }
            token.is_marker =
                self.reader.as_ref().is_some_and(|reader| reader.marker(id).is_some());
            self.take(token, &mut delta);
        }
        delta
    }

    /// An id that is no end.
    fn take(&mut self, token: AnswerToken, delta: &mut Delta) {
        self.spell(token.id);
        self.held.push_back((self.produced, token));
        self.produced += self.piece.len() as u64;
        let said = delta.text.len();
        let hit = self.stops.push(&self.piece, &mut delta.text);
        self.certain += (delta.text.len() - said) as u64;
        let before = delta.events.size();
        let over = self.reader.as_mut().is_some_and(|reader| {
            let over = reader.read(&delta.text[said..], &mut delta.events);
            self.thought += u64::from(reader.thinks());
            over
        });
        let first = delta.tokens.len();
        match hit {
            Some(hit) => self.end_at(hit, delta),
            None => self.release(delta),
        }
        if delta.events.size() != before {
            let last = delta.events.size().0.checked_sub(1);
            delta.tokens[first..].iter_mut().for_each(|token| token.event = last);
        }
        if over && !self.done {
            self.held.clear();
            delta.finish = Some(FinishReason::Stop);
            self.close();
        }
    }

    /// Puts the text that an id makes certain into `piece`. Markers are text here, too: stop strings
    /// may be in them.
    fn spell(&mut self, id: TokenId) {
        self.piece.clear();
        self.detokenizer.push_to(id, &mut self.piece);
        let Some(reader) = &mut self.reader else { return };
        let Some(marker) = reader.marker(id) else { return };
        // Before it there may be what is left of an incomplete character.
        if !self.piece.ends_with(marker) {
            self.piece.push_str(marker);
        }
        reader.note(self.produced + (self.piece.len() - marker.len()) as u64, marker);
    }

    /// Nothing that comes counts any more.
    fn close(&mut self) {
        self.reader = None;
        self.done = true;
    }

    /// What the reader has held back.
    fn read_out(&mut self, delta: &mut Delta) {
        if let Some(reader) = self.reader.take() {
            reader.finish(&mut delta.events);
        }
    }

    /// The worker has said that the answer is complete.
    pub(crate) fn finish(&mut self, reason: FinishReason) -> Delta {
        let mut delta = Delta { choice: self.choice, ..Delta::default() };
        if self.done {
            return delta;
        }
        let tail = self.detokenizer.finish();
        let hit = self.stops.finish(&tail, &mut delta.text);
        if let Some(reader) = &mut self.reader {
            reader.read(&delta.text, &mut delta.events);
        }
        if let Some(hit) = hit {
            self.end_at(hit, &mut delta);
            return delta;
        }
        // The end token is billed like any other: the model computed it.
        self.released += self.held.len() as u64 + u64::from(self.end.is_some());
        delta.tokens.extend(self.held.drain(..).map(|(_, token)| token));
        delta.tokens.extend(self.end.take());
        self.read_out(&mut delta);
        let last = delta.events.size().0.checked_sub(1);
        delta.tokens.iter_mut().for_each(|token| token.event = last);
        delta.finish = Some(reason);
        self.done = true;
        delta
    }

    /// Lets the ids go whose text has begun to be certain, or which gave no text.
    fn release(&mut self, delta: &mut Delta) {
        let all = self.certain == self.produced;
        while self.held.front().is_some_and(|(start, _)| all || *start < self.certain) {
            delta.tokens.extend(self.held.pop_front().map(|(_, token)| token));
            self.released += 1;
        }
    }

    /// A stop string: so many ids of all belong to the text before it.
    fn end_at(&mut self, hit: StopHit, delta: &mut Delta) {
        let missing = hit.kept_ids.saturating_sub(self.released) as usize;
        delta.tokens.extend(self.held.drain(..).take(missing).map(|(_, token)| token));
        self.released = self.released.max(hit.kept_ids);
        delta.stop_string = Some(hit.stop);
        self.read_out(delta);
        delta.finish = Some(FinishReason::Stop);
        self.done = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In the synthetic text model, token `n` reads ` tn`.
    fn answer(stops: &[&str], ends: &[TokenId]) -> Answer {
        let text = Arc::new(TextModel::synthetic(1000));
        let stops: Vec<_> = stops.iter().map(|stop| (*stop).to_owned()).collect();
        Answer::new(0, &text, &stops, Arc::new(ends.iter().copied().collect()), None)
    }

    fn push(answer: &mut Answer, ids: &[TokenId]) -> (String, Vec<TokenId>, Option<FinishReason>) {
        let ids = ids.to_vec();
        seen(answer.push(NewTokens { ids, ..NewTokens::default() }, Delta::default()))
    }

    fn seen(delta: Delta) -> (String, Vec<TokenId>, Option<FinishReason>) {
        (delta.text, delta.tokens.iter().map(|token| token.id).collect(), delta.finish)
    }

    #[test]
    fn text_and_ids_come_as_they_become_certain() {
        let mut answer = answer(&[], &[]);
        assert_eq!(push(&mut answer, &[1, 2]), (" t1 t2".to_owned(), vec![1, 2], None));
        let end = seen(answer.finish(FinishReason::Length));
        assert_eq!(end, (String::new(), vec![], Some(FinishReason::Length)));
    }

    #[test]
    fn ids_after_a_stop_string_are_neither_given_nor_billed() {
        let mut answer = answer(&["t3 t4"], &[]);
        assert_eq!(push(&mut answer, &[1, 3]), (" t1 ".to_owned(), vec![1, 3], None));
        let hit = push(&mut answer, &[4, 5, 6]);
        assert_eq!(hit, (String::new(), vec![], Some(FinishReason::Stop)));
        assert_eq!(answer.tokens(), 2);
        assert_eq!(push(&mut answer, &[7]), (String::new(), vec![], None));
        assert_eq!(seen(answer.finish(FinishReason::Length)), (String::new(), vec![], None));
    }

    #[test]
    fn what_only_looked_like_a_stop_string_is_given_at_the_end() {
        let mut answer = answer(&[" t3 t4"], &[]);
        assert_eq!(push(&mut answer, &[1, 3]), (" t1".to_owned(), vec![1], None));
        let end = seen(answer.finish(FinishReason::Length));
        assert_eq!(end, (" t3".to_owned(), vec![3], Some(FinishReason::Length)));
    }

    #[test]
    fn an_end_token_is_given_and_billed_but_is_no_text() {
        let mut answer = answer(&[], &[9]);
        assert_eq!(push(&mut answer, &[1, 9]), (" t1".to_owned(), vec![1], None));
        let last = answer.finish(FinishReason::Stop);
        assert!(last.tokens[0].is_end);
        assert_eq!(seen(last), (String::new(), vec![9], Some(FinishReason::Stop)));
        assert_eq!(answer.tokens(), 2);
    }

    #[test]
    fn an_id_costs_no_allocation() {
        let mut answer = answer(&["never said"], &[]);
        let mut spare = Delta::default();
        let mut read = |answer: &mut Answer, count: u32| {
            for id in 0..count {
                // Ids come from outside, in memory of their own: the one allocation here.
                let new = NewTokens { ids: vec![id % 1000], ..NewTokens::default() };
                spare = answer.push(new, std::mem::take(&mut spare));
                assert!(!spare.text.is_empty());
            }
        };
        read(&mut answer, 1000);
        let counted = allocation_counter::measure(|| read(&mut answer, 1000));
        assert_eq!(counted.count_total, 1000, "{counted:?}");
    }
}
