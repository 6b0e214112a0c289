//! The life of a turn: placed, admitted, streamed, and moved to another worker where that is still
//! possible. Dropping a [`Turn`] at any point cancels what runs for it.

mod alarm;
mod answer;
mod breakpoints;
mod edits;
mod kind;
mod moves;
mod outside;
mod prepare;
mod report;
mod thinking;
mod voice;

pub(crate) use alarm::Alarm;
pub(crate) use answer::{AnswerToken, Delta};
pub(crate) use breakpoints::Breakpoint;
pub(crate) use edits::{EditKind, Edited};
pub(crate) use kind::length_keys;
pub(crate) use moves::{Placed, send_once, verdict};
pub(crate) use prepare::{Basis, Counted, PUBLIC_BLOCKS, Prepared, count, prepare};
pub(crate) use report::Summary;
pub(crate) use thinking::Thinking;
pub(crate) use voice::{Voice, call_id};

use crate::ahead::{Ahead, Bought};
use crate::audit::{Entry, Kind};
use crate::choose::Observed;
use crate::cluster::{Explained, Failure, NewTokens, Route, Ticket, Update, Wanted};
use crate::decisions::{Ending, Outcome};
use crate::error::TurnError;
use crate::parse::Event;
use crate::placing::{Explain, Placing};
use crate::service::{self, Permit, Service};
use answer::Answer;
use baton_proto::ids::WorkerId;
use baton_proto::internal::TurnReport;
use baton_proto::ir::FinishReason;
use moves::Moves;
use report::Meter;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use voice::Reader;

/// A turn on its way to another worker.
type Moving = Pin<Box<dyn Future<Output = Moved> + Send>>;
type Moved = (Moves, Result<Placed, TurnError>);

/// A turn that has been admitted and is being generated.
pub(crate) struct Turn {
    service: Arc<Service>,
    prepared: Arc<Prepared>,
    placing: Placing,
    route: Route,
    /// What the turn counts for on its workers.
    ticket: Ticket,
    /// Why it is there, where that is wanted.
    why: Option<Arc<Explained>>,
    answers: Vec<Answer>,
    /// What is certain and has not been read.
    ready: Option<Delta>,
    /// A token has arrived: from here on the turn cannot be moved.
    started: bool,
    /// The worker did not take it, and it is being placed again.
    moving: Option<Moving>,
    moves: Moves,
    meter: Meter,
    /// What the next turn is prepared from, where that is wanted.
    ahead: Option<Ahead>,
    /// What was computed ahead for this one.
    bought: Option<Bought>,
    failed: bool,
    /// When the whole answer has to be there.
    deadline: Alarm,
    /// The turn's place among the requests in the house.
    _permit: Permit,
}

impl Turn {
    /// Places a turn and waits until a decode worker has admitted it. Until then nothing has been
    /// said to the client, so every refusal can become a plain status.
    pub(crate) async fn begin(
        service: Arc<Service>,
        mut prepared: Prepared,
        placing: Placing,
        permit: Permit,
    ) -> Result<Self, TurnError> {
        let ahead = Ahead::new(&service, &mut prepared);
        let prepared = Arc::new(prepared);
        let mut moves = Moves::new(placing);
        let Placed { route, ticket, why } = moves.place(&service, &prepared).await?;
        let request = &prepared.request;
        let answer = |choice| {
            let voice = prepared.voice.as_ref();
            let reader = voice.map(|voice| Reader::new(service.style(), voice));
            let (stops, ends) = (&request.stop.strings, prepared.ends.clone());
            Answer::new(choice, service.text(), stops, ends, reader)
        };
        let answers = (0..request.choices).map(answer).collect();
        let meter = Meter::new(&service, &prepared);
        let mut turn = Self {
            service,
            placing,
            route,
            ticket,
            why,
            answers,
            ready: None,
            started: false,
            moving: None,
            moves,
            meter,
            ahead,
            bought: None,
            failed: false,
            deadline: Alarm::at(prepared.deadline),
            prepared,
            _permit: permit,
        };
        loop {
            match poll_fn(|cx| turn.poll_step(cx)).await {
                Ok(true) => {
                    turn.bought = turn.service.speculation().claim(&turn.prepared);
                    return Ok(turn);
                }
                Ok(false) => {}
                Err(error) => {
                    turn.failed = true;
                    return Err(error);
                }
            }
        }
    }

    /// What became certain next; `None` when every choice is complete or after an error. Safe to
    /// drop and call again.
    pub(crate) async fn next(&mut self) -> Option<Result<Delta, TurnError>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The same for whoever is polled.
    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Delta, TurnError>>> {
        loop {
            if let Some(delta) = self.ready.take() {
                return Poll::Ready(Some(Ok(delta)));
            }
            if self.failed || self.is_complete() {
                return Poll::Ready(None);
            }
            if let Err(error) = ready!(self.poll_step(cx)) {
                self.failed = true;
                return Poll::Ready(Some(Err(error)));
            }
        }
    }

    /// Every choice is complete, and everything about it has been read.
    pub(crate) fn is_complete(&self) -> bool {
        self.ready.is_none() && self.answers.iter().all(Answer::is_done)
    }

    /// What the turn has cost up to now.
    pub(crate) fn summary(&self) -> Summary {
        let completion_tokens = self.answers.iter().map(Answer::tokens).sum();
        let why = match self.placing.explain {
            Explain::Off => None,
            _ => self.why.clone(),
        };
        let summary = self.meter.summary(self.route.link().worker, completion_tokens, why);
        let reasoning_tokens = self.answers.iter().map(Answer::reasoning_tokens).sum();
        Summary { bought: self.bought, reasoning_tokens, ..summary }
    }

    pub(crate) fn prepared(&self) -> &Prepared {
        &self.prepared
    }

    /// Handles one piece of news, of which comes one piece of the answer at most; whether the turn is
    /// admitted now.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, TurnError>> {
        let news = match &mut self.moving {
            None => self.route.poll_recv(cx).map(|update| self.take(update)),
            Some(moving) => {
                moving.as_mut().poll(cx).map(|moved| self.settle(moved).map(|()| false))
            }
        };
        if news.is_pending() && self.deadline.poll(cx).is_ready() {
            return Poll::Ready(Err(TurnError::Deadline));
        }
        news
    }

    fn take(&mut self, update: Update) -> Result<bool, TurnError> {
        match update {
            Update::Admitted => {}
            Update::Tokens(tokens) => self.take_tokens(tokens),
            Update::Finished { choice, reason, report } => {
                if let Some(report) = report {
                    self.take_report(choice, &report);
                }
                self.finish(choice, reason);
            }
            Update::Failed(failure) => {
                self.recover(failure)?;
                return Ok(false);
            }
        }
        if self.answers.iter().all(Answer::is_done)
            && let Some(ahead) = self.ahead.take()
        {
            ahead.finish(&self.service, self.prepared.clone(), self.placing);
        }
        Ok(true)
    }

    fn take_tokens(&mut self, tokens: NewTokens) {
        let choice = tokens.choice;
        if self.answers.get(usize::from(choice)).is_none_or(Answer::is_done) {
            return;
        }
        self.started = true;
        self.meter.tokens(choice, tokens.ids.len());
        if let Some(report) = &tokens.report {
            self.take_report(choice, report);
        }
        let answer = &mut self.answers[usize::from(choice)];
        let delta = answer.push(tokens, Delta::spare());
        self.note(&delta);
        let stopped = delta.finish.is_some();
        if stopped || !delta.text.is_empty() || !delta.tokens.is_empty() {
            self.ready = Some(delta);
        }
        if stopped && self.answers.iter().any(|answer| !answer.is_done()) {
            // When no choice is left, dropping the route cancels the whole request.
            self.route.cancel_choice(choice);
        }
    }

    fn take_report(&mut self, choice: u16, report: &TurnReport) {
        self.meter.report(choice, report);
        self.ticket.started(&observed(self.prepared.ids.len(), report));
    }

    fn finish(&mut self, choice: u16, reason: FinishReason) {
        let Some(answer) = self.answers.get_mut(usize::from(choice)) else { return };
        if !answer.is_done() {
            let delta = answer.finish(reason);
            self.note(&delta);
            self.ready = Some(delta);
        }
        if self.answers.iter().all(Answer::is_done) {
            self.route.complete();
        }
    }

    /// What others want to know of a piece of an answer.
    fn note(&mut self, delta: &Delta) {
        for event in delta.events.iter() {
            if let Event::Warning(warning) = event {
                self.service.metrics().misread(warning.as_str());
            }
        }
        if let Some(ahead) = &mut self.ahead {
            ahead.push(delta);
        }
    }

    /// Sees to it that the turn is moved to another worker if nothing of its answer has been seen yet.
    fn recover(&mut self, failure: Failure) -> Result<(), TurnError> {
        if failure != Failure::Overrun {
            // The worker has said its last word; there is nothing to cancel there.
            self.route.complete();
        }
        if self.started {
            return Err(self.mid_stream(failure));
        }
        self.moves.refused(&self.service, self.route.link().worker, failure)?;
        let (service, prepared) = (self.service.clone(), self.prepared.clone());
        let mut moves = std::mem::take(&mut self.moves);
        self.moving = Some(Box::pin(async move {
            let placed = moves.place(&service, &prepared).await;
            (moves, placed)
        }));
        Ok(())
    }

    /// The turn was sent to another worker, or there is none.
    fn settle(&mut self, (moves, placed): Moved) -> Result<(), TurnError> {
        (self.moving, self.moves) = (None, moves);
        let Placed { route, ticket, why } = placed?;
        (self.route, self.ticket, self.why) = (route, ticket, why);
        let (request, worker) = (&self.prepared.request.id, &self.route.link().name);
        tracing::info!(%request, %worker, "turn moved before its first token");
        self.service.metrics().moved_turns.inc();
        Ok(())
    }

    fn mid_stream(&self, failure: Failure) -> TurnError {
        match failure {
            Failure::Draining => {
                TurnError::WorkerLost(format!("{} is shutting down", self.route.link().name))
            }
            other => moves::verdict(other),
        }
    }
}

impl Drop for Turn {
    /// What the turn has shown is learned, and the decision recorded with what came of it.
    fn drop(&mut self) {
        let (tokens, step_s) = self.meter.pace();
        self.ticket.end(tokens, step_s);
        let complete = self.answers.iter().all(Answer::is_done);
        let request = &self.prepared.request;
        let session = service::session_key(request);
        if complete {
            let tokens: u64 = self.answers.iter().map(Answer::tokens).sum();
            let each = tokens / u64::from(request.choices.max(1));
            self.service.cluster().learn_answer(&self.prepared.length_keys, each);
        }
        let ending = match (complete, self.failed) {
            (true, _) => Ending::Answered,
            (false, true) => Ending::Failed,
            (false, false) => Ending::Cancelled,
        };
        if let Some(audit) = self.service.audit() {
            let report = self.meter.prompt_report();
            let prefill = report.map(|report| report.prefill_worker).filter(|worker| *worker != 0);
            audit.write(Entry {
                decode: Some(self.route.link().name.clone()),
                prefill_worker: prefill,
                ..Entry::new(Kind::Placement, &self.prepared, ending.as_str())
            });
        }
        if let (Some(log), Some(why)) = (self.service.decisions(), self.why.take()) {
            let completion_tokens = self.answers.iter().map(Answer::tokens).sum();
            let worker = self.route.link().worker;
            let summary = self.meter.summary(worker, completion_tokens, Some(why));
            let parent = service::parent_key(request);
            log.write(Outcome { request: request.id, session, parent, ending, summary });
        }
    }
}

/// What would be decided about a turn, and why; nothing is started.
pub(crate) async fn explain(
    service: &Service,
    prepared: &Prepared,
    placing: Placing,
) -> Result<Explained, TurnError> {
    let told = outside::consult(service, prepared, placing, &[]).await;
    let wanted = moves::wanted(service, prepared, placing, &[]);
    let wanted = Wanted { explain: true, told: told.as_ref(), ..wanted };
    let why = service.cluster().explain(&wanted);
    if let Some(told) = &told {
        let fallback = why.as_ref().and_then(|why| why.told.as_ref()?.1);
        outside::count(service, told, fallback);
    }
    why.ok_or(TurnError::NoWorker)
}

/// From what a worker says about a prompt.
fn observed(prompt_tokens: usize, report: &TurnReport) -> Observed {
    let seconds = |micros: u32| f64::from(micros) / 1e6;
    Observed {
        prompt_tokens: prompt_tokens as u64,
        cached_tokens: u64::from(report.cached_tokens),
        pulled_tokens: u64::from(report.pulled_tokens),
        computed_tokens: u64::from(report.computed_tokens),
        pulled_blocks: u64::from(report.pulled_blocks),
        handover_s: seconds(report.handover_us),
        prefill_s: seconds(report.prefill_us),
        prefill_worker: (report.prefill_worker != 0).then_some(WorkerId(report.prefill_worker)),
    }
}
