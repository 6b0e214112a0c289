//! A policy outside of the router: the case that it is shown, and what its answer is checked for.
//!
//! The answer is advice. It counts if it can be acted on as things are when it comes, and the
//! default policy decides where it cannot, or where there is none: [`Fallback`] says why.

use super::cost::Terms;
use super::explain::{self, Considered, Explanation};
use super::fleet::{Fleet, Role};
use super::kv_aware::KvAware;
use super::policy::{Case, Policy, PolicyName};
use super::{Ask, Held, PREFILL_CANDIDATES_MAX, Rules};
use crate::error::clip;
use baton_proto::ids::WorkerId;
use baton_proto::policy::{Candidate, Choice, ChooseReply, ChooseRequest, Cost, Turn};
use std::fmt;
use std::time::Duration;

/// Of the vocabulary that a policy is asked in.
const VERSION: u32 = 1;

/// What an external policy has answered.
#[derive(Clone, PartialEq, Debug)]
pub struct Answer {
    /// The decode worker.
    pub decode: WorkerId,
    /// Prefill workers to ask, in order and each once; none: the decode worker computes the prompt.
    pub prefill: Vec<WorkerId>,
    /// How probable the choice was over the policy's own chance, where it says so.
    pub probability: Option<f64>,
    /// For people.
    pub reason: Option<String>,
}

/// What came of asking an external policy about a turn.
#[derive(Clone, PartialEq, Debug)]
pub struct Told {
    /// Whether its word counts; otherwise it is only recorded.
    pub acts: bool,
    /// What it said, or why it has said nothing.
    pub answer: Result<Answer, Fallback>,
    /// How long that took; `None`: it was not asked.
    pub took: Option<Duration>,
}

/// Why the default policy decides in place of an external one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fallback {
    /// It is switched off.
    Off,
    /// It has failed several times, and is left alone for a while.
    Paused,
    /// It is asked about as many other turns as it may be at once.
    Busy,
    /// It did not answer in time.
    Timeout,
    /// It cannot be reached.
    Unreachable,
    /// It answered with an error.
    Error,
    /// It named a worker that there is not.
    UnknownWorker,
    /// It named a worker of the other role.
    WrongRole,
    /// It named a worker that takes nothing new.
    Draining,
    /// It named a worker that did not take this turn.
    Tried,
    /// It named a worker that is short of memory for the turn, while another is not.
    NoRoom,
}

impl Fallback {
    /// The name in explanations, records and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Paused => "paused",
            Self::Busy => "busy",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::Error => "error",
            Self::UnknownWorker => "unknown_worker",
            Self::WrongRole => "wrong_role",
            Self::Draining => "draining",
            Self::Tried => "tried",
            Self::NoRoom => "no_room",
        }
    }
}

impl fmt::Display for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Answer {
    /// What a reply means. Of prefill workers as many are taken as are ever asked, and a
    /// probability that is none is not known.
    pub fn read(reply: ChooseReply) -> Self {
        let mut prefill = Vec::new();
        for worker in reply.prefill_worker_ids.into_iter().map(WorkerId) {
            if prefill.len() < PREFILL_CANDIDATES_MAX && !prefill.contains(&worker) {
                prefill.push(worker);
            }
        }
        let probability = reply.probability.filter(|p| *p > 0.0 && *p <= 1.0);
        let reason = Some(clip(&reply.reason)).filter(|reason| !reason.is_empty());
        let decode = WorkerId(reply.decode_worker_id);
        Self { decode, prefill, probability, reason: reason.map(str::to_owned) }
    }

    /// All workers that it names.
    pub fn workers(&self) -> impl Iterator<Item = WorkerId> + '_ {
        std::iter::once(self.decode).chain(self.prefill.iter().copied())
    }
}

/// An answer that can be acted on, as the policy that it stands for. The rules that all policies
/// have in common hold for it, too.
#[derive(Debug)]
pub struct Heeded<'a>(&'a Answer);

impl Policy for Heeded<'_> {
    fn name(&self) -> PolicyName {
        PolicyName::External
    }

    /// The others stand as the default policy has them, behind the named one.
    fn rank(&self, case: &Case<'_>, scores: &mut Vec<f64>) {
        KvAware.rank(case, scores);
        let place = case.eligible.iter().position(|at| case.decode(*at).id == self.0.decode);
        if let Some(score) = place.and_then(|at| scores.get_mut(at)) {
            *score = -1.0;
        }
    }

    /// Likewise, the named ones in their order.
    fn rank_prefill(&self, case: &Case<'_>, decode: u32, scores: &mut Vec<f64>) {
        KvAware.rank_prefill(case, decode, scores);
        let named = &self.0.prefill;
        for (score, at) in scores.iter_mut().zip(case.eligible_prefill) {
            let id = case.prefill(*at).id;
            if let Some(place) = named.iter().position(|worker| *worker == id) {
                *score = place as f64 - named.len() as f64;
            }
        }
    }

    fn prefill_max(&self) -> usize {
        match self.0.prefill.len() {
            // Only where the configuration wants one to be asked whatever is said.
            0 => PREFILL_CANDIDATES_MAX,
            named => named,
        }
    }

    fn computes_here(&self, _case: &Case<'_>, _decode: u32, _best: f64) -> bool {
        self.0.prefill.is_empty()
    }

    /// As it says; what it does not say is not a number.
    fn probabilities(&self, case: &Case<'_>, _scores: &[f64]) -> Vec<f64> {
        let said = self.0.probability.unwrap_or(f64::NAN);
        let of = |at: &u32| if case.decode(*at).id == self.0.decode { said } else { f64::NAN };
        case.eligible.iter().map(of).collect()
    }
}

impl Fleet {
    /// What the default policy would decide, with at most so many candidates of each role, the
    /// best first: what an external policy is asked about. `None` if no decode worker is left.
    pub fn consult(
        &mut self,
        ask: &Ask,
        rules: &Rules,
        held: impl IntoIterator<Item = impl Into<Held>>,
        tried: &[WorkerId],
        candidates_max: usize,
    ) -> Option<Explanation> {
        self.decided(&KvAware, (ask, rules), held, tried, |case, plan| {
            explain::explain(&KvAware, case, plan, candidates_max)
        })
    }

    /// The policy that an answer stands for, if it can be acted on as things are now.
    pub fn heed<'a>(
        &mut self,
        told: &'a Told,
        ask: &Ask,
        rules: &Rules,
        held: impl IntoIterator<Item = impl Into<Held>>,
        tried: &[WorkerId],
    ) -> Result<Heeded<'a>, Fallback> {
        let answer = told.answer.as_ref().map_err(|fallback| *fallback)?;
        let mut scratch = std::mem::take(&mut self.scratch);
        self.prepare(&mut scratch, ask, held, tried);
        let checked = check(&Case::new(self, ask, rules, &scratch), answer, tried);
        self.scratch = scratch;
        checked.map(|()| Heeded(answer))
    }
}

/// Whether every worker that is named may be chosen.
fn check(case: &Case<'_>, answer: &Answer, tried: &[WorkerId]) -> Result<(), Fallback> {
    let mut sides = std::iter::once((Role::Decode, case.eligible))
        .chain(std::iter::repeat((Role::Prefill, case.eligible_prefill)));
    answer.workers().try_for_each(|worker| {
        let (role, eligible) = sides.next().unwrap_or((Role::Prefill, &[]));
        match case.fleet.place(worker) {
            None => Err(Fallback::UnknownWorker),
            Some((found, _)) if found != role => Err(Fallback::WrongRole),
            Some((_, at)) if case.fleet.side(role)[at].draining => Err(Fallback::Draining),
            Some(_) if tried.contains(&worker) => Err(Fallback::Tried),
            Some((_, at)) if !eligible.contains(&(at as u32)) => Err(Fallback::NoRoom),
            Some(_) => Ok(()),
        }
    })
}

/// What an external policy is asked, as far as the choice knows it: of whose request this is, and
/// what its client said about it, whoever asks knows more.
pub fn question(
    why: &Explanation,
    rules: &Rules,
    name: impl Fn(WorkerId) -> String,
) -> ChooseRequest {
    let Explanation { ask, plan, .. } = why;
    let side = |role, candidates: &[Considered]| -> Vec<Candidate> {
        let candidate = |considered: &Considered| Candidate {
            name: name(considered.worker),
            may_ask_prefill: role == Role::Decode
                && why.prefill_count > 0
                && rules.may_ask_prefill(ask, considered.held_blocks),
            ..candidate(considered, ask.block_tokens)
        };
        candidates.iter().map(candidate).collect()
    };
    ChooseRequest {
        version: VERSION,
        turn: Some(Turn {
            prompt_tokens: ask.prompt_tokens as u32,
            answer_tokens: ask.answer_tokens as u32,
            choices: ask.choices as u32,
            block_tokens: ask.block_tokens as u32,
            session: ask.session,
            ..Turn::default()
        }),
        decode: side(Role::Decode, &why.decode),
        decode_total: why.decode_count as u32,
        prefill: side(Role::Prefill, &why.prefill),
        prefill_total: why.prefill_count as u32,
        kv_aware: Some(Choice {
            decode_worker_id: plan.decode.0,
            prefill_worker_ids: plan.prefill.iter().map(|worker| worker.0).collect(),
        }),
        ..ChooseRequest::default()
    }
}

fn candidate(considered: &Considered, block_tokens: usize) -> Candidate {
    let Considered { worker, held_blocks, load, own, slots, fits, terms, with, .. } = considered;
    Candidate {
        worker_id: worker.0,
        held_tokens: held_blocks.saturating_mul(block_tokens as u32),
        queued: load.queued,
        running: load.running,
        pending_tokens: load.pending_tokens,
        free_blocks: load.free_blocks,
        evictable_blocks: load.evictable_blocks,
        slots: *slots,
        sent_turns: own.turns,
        sent_pending_tokens: own.pending_tokens,
        promised_blocks: own.blocks,
        fits: *fits,
        cost: Some(cost(terms)),
        with_prefill_worker_id: with.map(|worker| worker.0),
        ..Candidate::default()
    }
}

fn cost(terms: &Terms) -> Cost {
    // No zero is negative.
    let ms = |seconds: f64| seconds * 1e3 + 0.0;
    Cost {
        queue_ms: ms(terms.queue_s),
        memory_ms: ms(terms.memory_s),
        fetch_ms: ms(terms.fetch_s),
        join_ms: ms(terms.join_s),
        compute_ms: ms(terms.compute_s),
        handover_ms: ms(terms.handover_s),
        decode_ms: ms(terms.decode_s),
        harm_ms: ms(terms.harm_s),
        eviction_ms: ms(terms.eviction_s),
        total_ms: ms(terms.total_s()),
    }
}

#[cfg(test)]
mod tests;
