//! A decision with its reasons: every candidate with what was known and what was predicted of it.

use super::cost::Terms;
use super::fleet::{Fleet, Load, Own, Role, Worker};
use super::kv_aware::Estimate;
use super::policy::{Case, Policy, PolicyName};
use super::{Ask, Held, Plan, Rules, compare, short_blocks};
use baton_node::config::Threshold;
use baton_proto::ids::WorkerId;

/// Candidates of each role that are told, the chosen and the cheapest first.
const CANDIDATES_MAX: usize = 32;

/// Why a turn goes where it goes.
#[derive(Clone, PartialEq, Debug)]
pub struct Explanation {
    /// By which rule.
    pub policy: PolicyName,
    /// What was asked.
    pub ask: Ask,
    /// What was decided.
    pub plan: Plan,
    /// Decode workers that could be chosen, and how many that were before the list was cut.
    pub decode: Vec<Considered>,
    /// See [`decode`](Self::decode).
    pub decode_count: usize,
    /// Prefill workers that could be asked, for the chosen decode worker.
    pub prefill: Vec<Considered>,
    /// See [`prefill`](Self::prefill).
    pub prefill_count: usize,
}

/// A worker that was considered.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Considered {
    /// Which one.
    pub worker: WorkerId,
    /// Leading blocks of the prompt that it holds.
    pub held_blocks: u32,
    /// What it reported.
    pub load: Load,
    /// What this router had sent it.
    pub own: Own,
    /// Blocks that it has memory for.
    pub slots: u32,
    /// Whether it has room for the whole turn.
    pub fits: bool,
    /// What is predicted; of a prefill worker, its part in it.
    pub terms: Terms,
    /// Of a decode worker: the prefill worker that the prediction counts on.
    pub with: Option<WorkerId>,
    /// What the policy compared; less is better.
    pub score: f64,
    /// How probable it was to be chosen; 0 for prefill workers, which are ranked.
    pub probability: f64,
}

impl Fleet {
    /// Decides as [`choose`](Self::choose) does, and tells why.
    pub fn explain(
        &mut self,
        policy: &dyn Policy,
        ask: &Ask,
        rules: &Rules,
        held: impl IntoIterator<Item = impl Into<Held>>,
        tried: &[WorkerId],
    ) -> Option<Explanation> {
        self.decided(policy, (ask, rules), held, tried, |case, plan| {
            explain(policy, case, plan, CANDIDATES_MAX)
        })
    }
}

/// At most so many candidates of each role are told.
pub(super) fn explain(
    policy: &dyn Policy,
    case: &Case<'_>,
    plan: Plan,
    candidates_max: usize,
) -> Explanation {
    let mut scores = Vec::new();
    policy.rank(case, &mut scores);
    let probabilities = policy.probabilities(case, &scores);
    let estimate = Estimate::new(case);
    let places = case.eligible.iter().copied().zip(scores.into_iter().zip(probabilities));
    let mut decode: Vec<_> = places
        .map(|(at, (score, probability))| {
            let (worker, held) = (case.decode(at), case.held(at));
            let fits = short_blocks(worker, case.ask.blocks_at_completion(), held) == 0;
            Considered { probability, ..considered(worker, held, fits, score) }
        })
        .collect();
    let decode_count = decode.len();
    cut(case.ask.spread, &mut decode, &[plan.decode], candidates_max);
    let chosen = place(case, plan.decode);
    let mut prefill = prefill_side(policy, case, &estimate, chosen);
    let prefill_count = prefill.len();
    cut(case.ask.spread, &mut prefill, &plan.prefill, candidates_max);
    for candidate in &mut decode {
        let at = place(case, candidate.worker);
        (candidate.terms, candidate.with) = predicted(case, &estimate, at, &plan, &prefill);
    }
    let policy = policy.name();
    Explanation { policy, ask: *case.ask, plan, decode, decode_count, prefill, prefill_count }
}

/// What is predicted of a decode worker with the best that it can do about the prompt, as far as
/// the prefill workers that are told go; of the chosen one, with what was decided.
fn predicted(
    case: &Case<'_>,
    estimate: &Estimate<'_>,
    at: u32,
    plan: &Plan,
    prefill: &[Considered],
) -> (Terms, Option<WorkerId>) {
    let alone = (estimate.alone(at), None);
    let together = |worker| (estimate.with(at, place(case, worker)), Some(worker));
    if case.decode(at).id == plan.decode {
        return plan.prefill.first().map_or(alone, |first| together(*first));
    }
    if !case.may_ask_prefill(case.held(at)) {
        return alone;
    }
    let total_s = |(terms, _): &(Terms, Option<WorkerId>)| terms.total_s();
    let best = prefill.iter().map(|candidate| together(candidate.worker));
    let best = best.min_by(|a, b| total_s(a).total_cmp(&total_s(b)));
    let forced = case.rules.disaggregate_min_blocks == Threshold::At(0);
    match best {
        Some(best) if forced || total_s(&best) < total_s(&alone) => best,
        _ => alone,
    }
}

/// A worker's place on its side.
fn place(case: &Case<'_>, worker: WorkerId) -> u32 {
    let (_, at) = case.fleet.place(worker).expect("a worker of this case is in its fleet");
    at as u32
}

fn prefill_side(
    policy: &dyn Policy,
    case: &Case<'_>,
    estimate: &Estimate<'_>,
    decode: u32,
) -> Vec<Considered> {
    let mut scores = Vec::new();
    policy.rank_prefill(case, decode, &mut scores);
    let held = case.held(decode);
    let places = case.eligible_prefill.iter().copied().zip(scores);
    let candidate = |(at, score)| {
        let worker = case.prefill(at);
        let link = case.fleet.link(worker.id, case.decode(decode).id);
        let own = case.held_prefill(at);
        let fits = short_blocks(worker, case.ask.whole_blocks(), own) == 0;
        Considered { terms: estimate.bring(at, held, link), ..considered(worker, own, fits, score) }
    };
    places.map(candidate).collect()
}

fn considered(worker: &Worker, held_blocks: u32, fits: bool, score: f64) -> Considered {
    Considered {
        worker: worker.id,
        held_blocks,
        load: worker.load,
        own: worker.own,
        slots: worker.slots,
        fits,
        terms: Terms::default(),
        with: None,
        score,
        probability: 0.0,
    }
}

/// Those that were chosen first, then the others by score; not more than are told.
fn cut(spread: u64, candidates: &mut Vec<Considered>, chosen: &[WorkerId], candidates_max: usize) {
    let place = |worker| chosen.iter().position(|id| *id == worker).unwrap_or(chosen.len());
    candidates.sort_by(|a, b| {
        let by_score = || compare(spread, (a.score, a.worker), (b.score, b.worker));
        place(a.worker).cmp(&place(b.worker)).then_with(by_score)
    });
    candidates.truncate(candidates_max);
}

impl Explanation {
    /// The worker in the list that was chosen.
    pub fn chosen(&self) -> Option<&Considered> {
        self.decode.iter().find(|candidate| candidate.worker == self.plan.decode)
    }

    /// Where the turn stands in the queue of the chosen worker; 1: nobody waits before it.
    pub fn queue_position(&self) -> u32 {
        self.chosen().map_or(1, |chosen| chosen.load.queued.saturating_add(1))
    }

    /// All workers that are named, each once.
    pub fn workers(&self) -> impl Iterator<Item = (Role, WorkerId)> + '_ {
        let decode = self.decode.iter().map(|candidate| (Role::Decode, candidate.worker));
        decode.chain(self.prefill.iter().map(|candidate| (Role::Prefill, candidate.worker)))
    }
}
