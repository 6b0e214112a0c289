//! The default policy: the least predicted time to the end of the turn, plus the harm it does.

use super::cost::{self, Terms};
use super::fleet::Worker;
use super::learn::Line;
use super::policy::{Case, Policy, PolicyName};
use super::short_blocks;
use baton_node::config::Threshold;

/// See docs/routing.md.
#[derive(Debug)]
pub(super) struct KvAware;

/// What is the same for all workers of a case, and the terms of each.
#[derive(Debug)]
pub(super) struct Estimate<'a> {
    case: &'a Case<'a>,
    whole: u32,
    block_tokens: f64,
    /// Tokens after the last whole block, which the decode worker computes itself.
    last_tokens: f64,
    needed: usize,
    answer_tokens: f64,
    choices: f64,
}

impl<'a> Estimate<'a> {
    pub(super) fn new(case: &'a Case<'a>) -> Self {
        let ask = case.ask;
        let whole = ask.whole_blocks();
        Self {
            case,
            whole: whole as u32,
            block_tokens: ask.block_tokens as f64,
            last_tokens: (ask.prompt_tokens - whole * ask.block_tokens) as f64,
            needed: ask.blocks_at_completion(),
            answer_tokens: ask.answer_tokens as f64,
            choices: ask.choices as f64,
        }
    }

    /// What a decode worker's own state costs, whoever computes the prompt.
    pub(super) fn stay(&self, worker: &Worker, held: u32) -> Terms {
        let fleet = self.case.fleet;
        let (fill, step) = (fleet.fill(super::Role::Decode, worker), fleet.step(worker));
        let running = f64::from(worker.running());
        let decode_s = cost::decode_s(self.answer_tokens, running + self.choices, step);
        // What a turn of this size takes, apart from the others: else more of them that run would
        // make those that wait look shorter or longer.
        let turn_s = cost::decode_s(self.answer_tokens, self.choices, step);
        let short = if self.case.room { 0 } else { short_blocks(worker, self.needed, held) };
        let new = (self.needed as u64).saturating_sub(u64::from(held));
        let evicted = new
            .saturating_sub(u64::from(worker.load.free_blocks))
            .min(u64::from(worker.load.evictable_blocks));
        let recompute = fleet.common().prefill;
        Terms {
            queue_s: cost::queued_tokens_s(worker.pending_tokens(), fill)
                + cost::queued_turns_s(worker.load.queued, turn_s, self.needed as f64, worker.slot),
            memory_s: cost::memory_s(short, turn_s, worker.slot),
            decode_s,
            harm_s: cost::harm_s(running, self.answer_tokens, self.choices, step),
            eviction_s: cost::eviction_s(
                evicted,
                self.block_tokens,
                recompute,
                self.case.rules.eviction_weight,
            ),
            ..Terms::default()
        }
    }

    /// What it costs that the decode worker computes the prompt.
    pub(super) fn here(&self, worker: &Worker, held: u32) -> Terms {
        let tokens = f64::from(self.whole - held) * self.block_tokens + self.last_tokens;
        self.compute(worker, tokens)
    }

    /// What it costs that the decode worker computes the last, partial block.
    fn last(&self, worker: &Worker) -> Terms {
        self.compute(worker, self.last_tokens)
    }

    fn compute(&self, worker: &Worker, tokens: f64) -> Terms {
        let fill = self.case.fleet.fill(super::Role::Decode, worker);
        let running = f64::from(worker.running());
        Terms {
            compute_s: fill.at(tokens),
            harm_s: cost::interruption_s(running + self.case.rules.local_harm, tokens, fill),
            ..Terms::default()
        }
    }

    /// What it costs that a prefill worker brings the whole blocks, without what the decode worker
    /// does itself.
    pub(super) fn bring(&self, prefill: u32, held: u32, link: (Line, f64)) -> Terms {
        Helper::new(self, prefill, link).bring(self, held)
    }

    /// All terms of a decode worker together with a prefill worker.
    pub(super) fn with(&self, decode: u32, prefill: u32) -> Terms {
        let (worker, held) = (self.case.decode(decode), self.case.held(decode));
        let link = self.case.fleet.link(self.case.prefill(prefill).id, worker.id);
        let bring = self.bring(prefill, held, link);
        let stay = self.stay(worker, held);
        let after_s = stay.queue_s + bring.queue_s + bring.compute_s;
        let join_s = cost::join_s(self.case.ready_s(decode), after_s);
        stay + Terms { join_s, ..bring } + self.last(worker)
    }

    /// All terms of a decode worker that computes the prompt.
    pub(super) fn alone(&self, decode: u32) -> Terms {
        let (worker, held) = (self.case.decode(decode), self.case.held(decode));
        let stay = self.stay(worker, held);
        let join_s = cost::join_s(self.case.ready_s(decode), stay.queue_s);
        stay + Terms { join_s, ..self.here(worker, held) }
    }

    /// Whether computing here is better, or the rule leaves nothing else.
    fn prefers_here(&self, held: u32, here_s: f64, there_s: f64) -> bool {
        match self.case.rules.disaggregate_min_blocks {
            _ if !self.case.may_ask_prefill(held) => true,
            Threshold::At(0) => false,
            _ => here_s <= there_s,
        }
    }
}

/// A prefill worker that may be asked, over a link.
#[derive(Clone, Copy, Debug)]
struct Helper {
    queue_s: f64,
    fill: Line,
    fetch: Line,
    handover_s: f64,
    held: u32,
    /// In how many seconds it holds them.
    ready_s: f64,
}

impl Helper {
    fn new(estimate: &Estimate<'_>, prefill: u32, (fetch, handover_s): (Line, f64)) -> Self {
        let worker = estimate.case.prefill(prefill);
        let fill = estimate.case.fleet.fill(super::Role::Prefill, worker);
        // A job that waits has its tokens among those pending, and a beginning of its own.
        let queue_s = cost::queued_tokens_s(worker.pending_tokens(), fill)
            + f64::from(worker.load.queued) * fill.base_s;
        let (held, ready_s) =
            (estimate.case.held_prefill(prefill), estimate.case.ready_prefill_s(prefill));
        Self { queue_s, fill, fetch, handover_s, held, ready_s }
    }

    /// For a decode worker that holds so many blocks.
    fn bring(&self, estimate: &Estimate<'_>, held: u32) -> Terms {
        let Self { queue_s, fill, fetch, handover_s, held: own, ready_s } = *self;
        let (whole, block_tokens) = (estimate.whole, estimate.block_tokens);
        let tokens = f64::from(whole - held.max(own)) * block_tokens;
        let compute_s = fill.at(tokens);
        let harm_s = cost::interruption_s(estimate.case.rules.prefill_harm, tokens, fill);
        let from_decode = u64::from(held.saturating_sub(own));
        let fetch_s = cost::held_fetch_s(from_decode, fetch, fill, block_tokens)
            + cost::exposed_fetch_s(fetch.at(f64::from(whole - held)), compute_s + ready_s);
        Terms { queue_s, fetch_s, compute_s, handover_s, harm_s, ..Terms::default() }
    }

    /// The same in all, where what the decode worker holds is there after `ready_s`.
    fn bring_s(&self, estimate: &Estimate<'_>, held: u32, ready_s: f64) -> f64 {
        let terms = self.bring(estimate, held);
        terms.total_s() + cost::join_s(ready_s, terms.queue_s + terms.compute_s)
    }
}

/// The best up to now, with what it was compared by.
type Best = Option<(f64, Helper)>;

impl Policy for KvAware {
    fn name(&self) -> PolicyName {
        PolicyName::KvAware
    }

    fn rank(&self, case: &Case<'_>, scores: &mut Vec<f64>) {
        let estimate = Estimate::new(case);
        let common = case.fleet.common();
        let link = (common.fetch, common.handover_s);
        // Most workers hold nothing, and would ask the same one. Whoever holds something would ask
        // that one, too, or, the more it holds, the one with the shortest queue.
        let helpers = case.eligible_prefill.iter().map(|at| Helper::new(&estimate, *at, link));
        let (mut from_nothing, mut soonest): (Best, Best) = (None, None);
        let less = |score: f64, known: &Best| known.is_none_or(|(least, _)| score < least);
        for helper in helpers {
            let (score, wait_s) = (helper.bring_s(&estimate, 0, 0.0), helper.queue_s);
            if less(score, &from_nothing) {
                from_nothing = Some((score, helper));
            }
            if less(wait_s, &soonest) {
                soonest = Some((wait_s, helper));
            }
        }
        let from_nothing_s = from_nothing.map_or(f64::INFINITY, |(score, _)| score);
        let two = [from_nothing, soonest];
        scores.extend(case.eligible.iter().map(|at| {
            let (worker, held) = (case.decode(*at), case.held(*at));
            let stay = estimate.stay(worker, held);
            // What is on its way is made while the queue is worked off.
            let ready_s = if held == 0 { 0.0 } else { case.ready_s(*at) };
            let ready_s = cost::join_s(ready_s, stay.queue_s);
            let here_s = estimate.here(worker, held).total_s() + ready_s;
            let bring_s = match held {
                0 => from_nothing_s,
                _ => two.iter().flatten().fold(f64::INFINITY, |least, (_, helper)| {
                    helper.bring_s(&estimate, held, ready_s).min(least)
                }),
            };
            let there_s = bring_s + estimate.last(worker).total_s();
            let here = estimate.prefers_here(held, here_s, there_s);
            stay.total_s() + if here { here_s } else { there_s }
        }));
    }

    fn rank_prefill(&self, case: &Case<'_>, decode: u32, scores: &mut Vec<f64>) {
        let estimate = Estimate::new(case);
        let common = case.fleet.common();
        let held = case.held(decode);
        let usual = (common.fetch, common.handover_s);
        let bring_s = |at, link| estimate.bring(at, held, link).total_s();
        scores.extend(case.eligible_prefill.iter().map(|at| bring_s(*at, usual)));
        // The few links that are known are better than usual, or worse.
        let decode = case.decode(decode).id;
        for link in case.fleet.links(decode) {
            let Some((_, place)) = case.fleet.place(link.prefill) else { continue };
            if let Ok(at) = case.eligible_prefill.binary_search(&(place as u32)) {
                scores[at] = bring_s(place as u32, case.fleet.link(link.prefill, decode));
            }
        }
    }

    fn computes_here(&self, case: &Case<'_>, decode: u32, best: f64) -> bool {
        let estimate = Estimate::new(case);
        let (worker, held) = (case.decode(decode), case.held(decode));
        let ready_s = cost::join_s(case.ready_s(decode), estimate.stay(worker, held).queue_s);
        let here_s = estimate.here(worker, held).total_s() + ready_s;
        let there_s = best + cost::join_s(ready_s, best) + estimate.last(worker).total_s();
        estimate.prefers_here(held, here_s, there_s)
    }
}
