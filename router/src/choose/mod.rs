//! The choice of who computes a turn: a decode worker, and prefill workers to ask, or none.
//!
//! Pure: it reads what it is given, no clock and no entropy, so that the same functions place
//! turns in the simulator. A [`Fleet`] knows the workers; a [`Policy`] ranks those that a turn may
//! go to; [`Fleet::choose`] does what all policies have in common: a worker without room for the
//! whole turn is never chosen while one with room exists, equals are chosen in an order that
//! differs from turn to turn, and the rules of the configuration about asking prefill hold.
//!
//! docs/routing.md has the cost in formulas.

pub mod cost;
mod explain;
pub mod external;
mod fleet;
mod kv_aware;
mod learn;
mod lengths;
mod policy;

pub use cost::Terms;
pub use explain::{Considered, Explanation};
pub use fleet::{Charge, Common, Fleet, Load, Observed, Own, Role, Worker};
pub use learn::{Learner, Line, WINDOW};
pub use lengths::AnswerLengths;
pub use policy::{Case, Policy, PolicyName, UnknownPolicy};

use baton_node::config::Threshold;
use baton_proto::ids::WorkerId;
use std::cmp::Ordering;

/// How many prefill workers a decode worker is told about; more would only be tried in a disaster.
const PREFILL_CANDIDATES_MAX: usize = 3;

/// A turn, as far as the choice depends on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ask {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens that each answer will probably have.
    pub answer_tokens: usize,
    /// Answers.
    pub choices: usize,
    /// Tokens of a block.
    pub block_tokens: usize,
    /// Decides between equals, so that new prompts spread, and draws where a policy draws: any
    /// number that differs from turn to turn.
    pub spread: u64,
    /// Counts the router's turns.
    pub turn: u64,
    /// The session, where one is named.
    pub session: Option<u64>,
}

impl Ask {
    /// Whole blocks that another worker can compute: all before the last token, which the decode
    /// worker computes itself to draw from it.
    pub fn whole_blocks(&self) -> usize {
        self.prompt_tokens.saturating_sub(1) / self.block_tokens
    }

    /// Blocks that the turn has at its end: what a decode worker promises it.
    pub fn blocks_at_completion(&self) -> usize {
        let first = (self.prompt_tokens + self.answer_tokens).div_ceil(self.block_tokens);
        let other = self.answer_tokens.div_ceil(self.block_tokens) + 1;
        first + self.choices.saturating_sub(1) * other
    }
}

/// What is configured about the choice.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Rules {
    /// With fewer missing whole blocks no prefill worker is asked; 0: one always is, as long as
    /// a block is missing.
    pub disaggregate_min_blocks: Threshold<u32>,
    /// The harm of computing prompt tokens on a decode worker, as a share of the time that takes,
    /// for turns that are still to come there. Each that runs already counts as 1.
    pub local_harm: f64,
    /// The same of a prefill worker, for turns that are still to come there: what keeps a turn from
    /// computing again elsewhere what it could as well wait for.
    pub prefill_harm: f64,
    /// The probability that a block which is evicted would have been wanted again.
    pub eviction_weight: f64,
}

impl Rules {
    /// Whether prefill may be asked for a turn of whose blocks so many are held.
    pub fn may_ask_prefill(&self, ask: &Ask, held: u32) -> bool {
        let missing = (ask.whole_blocks() as u32).saturating_sub(held);
        missing > 0 && self.disaggregate_min_blocks.is_reached_by(&missing)
    }
}

/// What is assumed until it has been measured.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Assumed {
    /// A prefill worker computes prompt tokens.
    pub prefill: Line,
    /// A decode worker computes prompt tokens beside its steps.
    pub local: Line,
    /// A decode step, by the turns in it.
    pub step: Line,
    /// Blocks come from another worker.
    pub fetch: Line,
    /// From the last announced block to the first decoding step.
    pub handover_s: f64,
}

/// What a worker has of a prompt's beginning.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Held {
    /// Which worker.
    pub worker: WorkerId,
    /// Leading blocks of the prompt that it holds, or will hold.
    pub blocks: usize,
    /// In how many seconds it will, where some of them are on their way for an earlier turn: 0 of
    /// what is late.
    pub ready_s: Option<f64>,
}

impl From<(WorkerId, usize)> for Held {
    /// Blocks that are there.
    fn from((worker, blocks): (WorkerId, usize)) -> Self {
        Self { worker, blocks, ready_s: None }
    }
}

/// Who computes a turn.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The decode worker.
    pub decode: WorkerId,
    /// Prefill workers to ask, the best first; none: the decode worker computes the prompt.
    pub prefill: Vec<WorkerId>,
    /// Prompt tokens that have to be computed by whoever comes first.
    pub compute_tokens: usize,
    /// Blocks that it counts on are still on their way.
    pub joins: bool,
}

/// Arrays that one choice leaves to the next.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    held_decode: Vec<u32>,
    held_prefill: Vec<u32>,
    /// Workers that will hold what is noted of them in so many seconds.
    ready_decode: Vec<(u32, f64)>,
    ready_prefill: Vec<(u32, f64)>,
    decode: Vec<u32>,
    /// Whether those in `decode` have room.
    room: bool,
    prefill: Vec<u32>,
    scores: Vec<f64>,
    prefill_scores: Vec<f64>,
}

impl Fleet {
    /// Chooses among the workers that are left; `None` if no decode worker is. `held` says how
    /// many of the prompt's leading blocks who holds; those in `tried` are not asked again.
    pub fn choose(
        &mut self,
        policy: &dyn Policy,
        ask: &Ask,
        rules: &Rules,
        held: impl IntoIterator<Item = impl Into<Held>>,
        tried: &[WorkerId],
    ) -> Option<Plan> {
        self.decided(policy, (ask, rules), held, tried, |_, plan| plan)
    }

    /// Decides, and makes something of the decision and of what it was made from.
    fn decided<T>(
        &mut self,
        policy: &dyn Policy,
        (ask, rules): (&Ask, &Rules),
        held: impl IntoIterator<Item = impl Into<Held>>,
        tried: &[WorkerId],
        make: impl FnOnce(&Case<'_>, Plan) -> T,
    ) -> Option<T> {
        let mut scratch = std::mem::take(&mut self.scratch);
        self.prepare(&mut scratch, ask, held, tried);
        let plan = self.decide(policy, ask, rules, &mut scratch);
        let made = plan.map(|plan| make(&Case::new(self, ask, rules, &scratch), plan));
        self.scratch = scratch;
        made
    }

    /// Notes who holds what, and who may be chosen: those with room, or all where none has any.
    fn prepare(
        &self,
        scratch: &mut Scratch,
        ask: &Ask,
        held: impl IntoIterator<Item = impl Into<Held>>,
        tried: &[WorkerId],
    ) {
        let reset = |array: &mut Vec<u32>, length| {
            array.clear();
            array.resize(length, 0);
        };
        reset(&mut scratch.held_decode, self.decode.len());
        reset(&mut scratch.held_prefill, self.prefill.len());
        let whole = ask.whole_blocks();
        scratch.ready_decode.clear();
        scratch.ready_prefill.clear();
        for held in held {
            let Held { worker, blocks, ready_s } = held.into();
            let blocks = blocks.min(whole) as u32;
            let Some((role, at)) = self.place(worker) else { continue };
            let (held, ready) = match role {
                Role::Decode => (&mut scratch.held_decode, &mut scratch.ready_decode),
                Role::Prefill => (&mut scratch.held_prefill, &mut scratch.ready_prefill),
            };
            held[at] = blocks;
            if let Some(ready_s) = ready_s {
                ready.push((at as u32, ready_s));
            }
        }
        let needed = ask.blocks_at_completion();
        let Scratch { held_decode, held_prefill, decode, prefill, .. } = scratch;
        let room = admit((&self.decode, held_decode, decode), needed, tried);
        admit((&self.prefill, held_prefill, prefill), whole, tried);
        scratch.room = room;
    }

    fn decide(
        &self,
        policy: &dyn Policy,
        ask: &Ask,
        rules: &Rules,
        scratch: &mut Scratch,
    ) -> Option<Plan> {
        let mut scores = std::mem::take(&mut scratch.scores);
        let mut prefill_scores = std::mem::take(&mut scratch.prefill_scores);
        let case = Case::new(self, ask, rules, scratch);
        scores.clear();
        policy.rank(&case, &mut scores);
        let best = best(ask.spread, &self.decode, case.eligible, &scores);
        let plan = best.map(|at| {
            let decode = case.eligible[at];
            let held = case.held(decode);
            let mut prefill = Vec::new();
            if case.may_ask_prefill(held) {
                prefill_scores.clear();
                policy.rank_prefill(&case, decode, &mut prefill_scores);
                prefill = self.best_prefill(ask, case.eligible_prefill, &prefill_scores);
                let first = prefill.first().map(|at| prefill_scores[*at]);
                let forced = rules.disaggregate_min_blocks == Threshold::At(0);
                prefill.truncate(policy.prefill_max());
                if !forced && first.is_some_and(|s| policy.computes_here(&case, decode, s)) {
                    prefill.clear();
                }
            }
            let at = |at: &usize| case.eligible_prefill[*at];
            let compute_tokens = match prefill.first().map(at) {
                Some(first) => {
                    let known = held.max(case.held_prefill(first));
                    (ask.whole_blocks() - known as usize) * ask.block_tokens
                }
                None => ask.prompt_tokens - held as usize * ask.block_tokens,
            };
            let id = |index: &usize| self.prefill[at(index) as usize].id;
            let first = prefill.first().is_some_and(|first| case.joins_prefill(at(first)));
            Plan {
                joins: first || case.joins(decode),
                decode: self.decode[decode as usize].id,
                prefill: prefill.iter().map(id).collect(),
                compute_tokens,
            }
        });
        (scratch.scores, scratch.prefill_scores) = (scores, prefill_scores);
        plan
    }

    /// The places in `eligible` of the best prefill workers, the best first.
    fn best_prefill(&self, ask: &Ask, eligible: &[u32], scores: &[f64]) -> Vec<usize> {
        let mut best: Vec<usize> = Vec::with_capacity(PREFILL_CANDIDATES_MAX + 1);
        let order = |a: usize, b: usize| {
            let id = |at: usize| self.prefill[eligible[at] as usize].id;
            compare(ask.spread, (scores[a], id(a)), (scores[b], id(b)))
        };
        for at in 0..eligible.len() {
            let full = best.len() == PREFILL_CANDIDATES_MAX;
            if full && order(at, best[PREFILL_CANDIDATES_MAX - 1]).is_gt() {
                continue;
            }
            let place = best.partition_point(|other| order(*other, at).is_lt());
            best.insert(place, at);
            best.truncate(PREFILL_CANDIDATES_MAX);
        }
        best
    }
}

/// Notes the places of those that may be chosen: those that have room for `needed` blocks, or all
/// where none has. Whether they have.
fn admit(
    (workers, held, eligible): (&[Worker], &[u32], &mut Vec<u32>),
    needed: usize,
    tried: &[WorkerId],
) -> bool {
    let left = |worker: &Worker| !worker.draining && !tried.contains(&worker.id);
    let all = || workers.iter().zip(held).zip(0..).filter(|((worker, _), _)| left(worker));
    eligible.clear();
    // One after the other, without asking each time whether the array has to grow.
    eligible.resize(workers.len(), 0);
    let mut count = 0;
    for ((worker, held), at) in all() {
        eligible[count] = at;
        count += usize::from(short_blocks(worker, needed, *held) == 0);
    }
    eligible.truncate(count);
    if count == 0 {
        eligible.extend(all().map(|(_, at)| at));
    }
    count > 0
}

/// Blocks that a worker is short of for a turn. What it holds of the prompt would be pinned, not
/// taken; what it has promised to turns of this router is gone, though they may not have it yet.
/// Alone on a worker, a turn fits: the worker cuts its answer to what there is.
fn short_blocks(worker: &Worker, needed: usize, held: u32) -> u64 {
    let needed = (needed as u64).min(u64::from(worker.slots));
    let new = needed.saturating_sub(u64::from(held));
    let pool = new.saturating_sub(u64::from(worker.available_blocks()));
    let promised = (worker.own.blocks + needed).saturating_sub(u64::from(worker.slots));
    pool.max(promised)
}

/// The place in `eligible` of the worker with the least score.
fn best(spread: u64, workers: &[Worker], eligible: &[u32], scores: &[f64]) -> Option<usize> {
    let id = |at: usize| workers[eligible[at] as usize].id;
    let mut best = 0;
    let mut least = *scores.first()?;
    for (at, score) in scores.iter().copied().enumerate().skip(1) {
        // Almost always the first comparison decides.
        if score > least {
            continue;
        }
        if compare(spread, (score, id(at)), (least, id(best))).is_lt() {
            (best, least) = (at, score);
        }
    }
    Some(best)
}

/// By score, then in an order of the workers that differs from turn to turn.
fn compare(spread: u64, a: (f64, WorkerId), b: (f64, WorkerId)) -> Ordering {
    a.0.total_cmp(&b.0)
        .then_with(|| scatter(spread, a.1).cmp(&scatter(spread, b.1)))
        .then_with(|| a.1.cmp(&b.1))
}

/// A permutation of the worker numbers for each value of `spread`.
fn scatter(spread: u64, worker: WorkerId) -> u64 {
    mix(spread ^ (u64::from(worker.0) << 32 | u64::from(worker.0)))
}

/// The finaliser of SplitMix64.
pub(crate) fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
