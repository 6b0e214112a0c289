//! What a decode worker has said about one request and its turn has not read yet.
//!
//! Tokens of a choice that nobody has read are merged, so a slow reader costs no queue entries;
//! what is kept is bounded by what the request may generate at all.

use baton_proto::internal::{Logprob, TurnReport};
use baton_proto::ir::FinishReason;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// News about a request.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Update {
    /// It has its credit.
    Admitted,
    /// Further ids of a choice.
    Tokens(NewTokens),
    /// A choice is complete.
    Finished { choice: u16, reason: FinishReason, report: Option<TurnReport> },
    /// The worker refused or gave up; nothing follows.
    Failed(Failure),
}

/// Further ids of a choice.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct NewTokens {
    pub(crate) choice: u16,
    pub(crate) ids: Vec<u32>,
    /// None, or as many as ids.
    pub(crate) logprobs: Vec<Logprob>,
    /// What the prompt cost, with the first tokens of a choice.
    pub(crate) report: Option<TurnReport>,
}

/// Why a worker's part in a request ended without an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Failure {
    /// It has no room for the request.
    Overloaded(String),
    /// The request's deadline passed there.
    Deadline,
    /// The request can never fit there.
    TooLarge(String),
    /// The worker finds the request malformed.
    Invalid(String),
    /// A defect there.
    Internal(String),
    /// It is going down and takes nothing new.
    Draining,
    /// The connection to it was lost.
    Lost(String),
    /// The connection was gone before the request could be sent.
    NotSent(String),
    /// It said more than the request allows for.
    Overrun,
}

/// More arrived than the request can have asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Overrun;

/// One request's queue between the connection and the turn.
#[derive(Debug)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    choices: u16,
    ids_max: usize,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Update>,
    ids: usize,
    /// Who reads, and whether it waits. It is the same task for long, so its waker is kept: to make one
    /// for each token would cost as much as the rest of the inbox.
    reader: Option<Waker>,
    waits: bool,
}

impl Inbox {
    /// For a request of so many choices with so many tokens each.
    pub(crate) fn new(choices: u16, tokens_max: u32) -> Self {
        let ids_max = usize::from(choices).saturating_mul(tokens_max as usize);
        Self { state: Mutex::default(), choices, ids_max }
    }

    /// Takes an update in. After an overrun the request is beyond repair.
    pub(crate) fn push(&self, update: Update) -> Result<(), Overrun> {
        let mut state = self.lock();
        state.take_in(update, self.choices, self.ids_max)?;
        state.tell();
        Ok(())
    }

    /// Replaces everything unread by a failure.
    pub(crate) fn fail(&self, failure: Failure) {
        let mut state = self.lock();
        // An answer that has arrived complete stays an answer.
        let finished = state.queue.iter().filter(|u| matches!(u, Update::Finished { .. })).count();
        if finished < usize::from(self.choices) {
            state.queue.retain(|update| !matches!(update, Update::Failed(_)));
            state.queue.push_back(Update::Failed(failure));
        }
        state.tell();
    }

    /// The next update. Only one turn reads.
    pub(crate) async fn recv(&self) -> Update {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// The same for whoever is polled; the task that asked last is woken.
    pub(crate) fn poll_recv(&self, cx: &Context<'_>) -> Poll<Update> {
        let mut state = self.lock();
        let Some(update) = state.queue.pop_front() else {
            state.await_news(cx.waker());
            return Poll::Pending;
        };
        if let Update::Tokens(tokens) = &update {
            state.ids -= tokens.ids.len();
        }
        Poll::Ready(update)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn await_news(&mut self, reader: &Waker) {
        match &mut self.reader {
            Some(known) => known.clone_from(reader),
            None => self.reader = Some(reader.clone()),
        }
        self.waits = true;
    }

    fn tell(&mut self) {
        if std::mem::take(&mut self.waits)
            && let Some(reader) = &self.reader
        {
            reader.wake_by_ref();
        }
    }

    fn take_in(&mut self, update: Update, choices: u16, ids_max: usize) -> Result<(), Overrun> {
        // Admitted once, per choice tokens and an end, a failure: more entries cannot be needed.
        let entries_max = 2 + 2 * usize::from(choices);
        let Update::Tokens(tokens) = update else {
            if self.queue.len() >= entries_max {
                return Err(Overrun);
            }
            self.queue.push_back(update);
            return Ok(());
        };
        self.ids += tokens.ids.len();
        if self.ids > ids_max {
            return Err(Overrun);
        }
        let full = self.queue.len() >= entries_max;
        let unread = self.queue.iter_mut().rev().find_map(|update| match update {
            Update::Tokens(unread) if unread.choice == tokens.choice => Some(unread),
            _ => None,
        });
        match unread {
            Some(unread) => {
                unread.ids.extend(tokens.ids);
                unread.logprobs.extend(tokens.logprobs);
                unread.report = unread.report.take().or(tokens.report);
            }
            None if full => return Err(Overrun),
            None => self.queue.push_back(Update::Tokens(tokens)),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn tokens(choice: u16, ids: &[u32]) -> Update {
        Update::Tokens(NewTokens { choice, ids: ids.to_vec(), ..NewTokens::default() })
    }

    #[test]
    fn unread_tokens_of_a_choice_are_merged() {
        let inbox = Inbox::new(2, 100);
        for update in [Update::Admitted, tokens(0, &[1]), tokens(1, &[9]), tokens(0, &[2, 3])] {
            inbox.push(update).expect("room");
        }
        let read: Vec<_> = std::iter::from_fn(|| inbox.recv().now_or_never()).collect();
        assert_eq!(read, vec![Update::Admitted, tokens(0, &[1, 2, 3]), tokens(1, &[9])]);
    }

    #[test]
    fn more_ids_than_the_request_allows_are_an_overrun() {
        let inbox = Inbox::new(1, 3);
        assert_eq!(inbox.push(tokens(0, &[1, 2, 3])), Ok(()));
        assert_eq!(inbox.push(tokens(0, &[4])), Err(Overrun));
    }

    #[test]
    fn endless_repetition_is_an_overrun() {
        let inbox = Inbox::new(1, 3);
        let pushed = (0..10).take_while(|_| inbox.push(Update::Admitted).is_ok()).count();
        assert_eq!(pushed, 4);
    }

    #[test]
    fn a_lost_worker_does_not_take_a_complete_answer_back() {
        let inbox = Inbox::new(1, 3);
        let finished = Update::Finished { choice: 0, reason: FinishReason::Stop, report: None };
        inbox.push(tokens(0, &[1])).expect("room");
        inbox.push(finished.clone()).expect("room");
        inbox.fail(Failure::Lost("gone".to_owned()));
        let read: Vec<_> = std::iter::from_fn(|| inbox.recv().now_or_never()).collect();
        assert_eq!(read, vec![tokens(0, &[1]), finished]);
    }
}
