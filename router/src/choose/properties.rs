//! What holds for every cluster: clusters are drawn from a seed, and changed in one respect.

use super::tests::RULES;
use super::*;
use crate::seeded_tests::{Draws, rounds};
use std::collections::HashMap;

const BLOCK: usize = 16;

/// A cluster and a turn for it.
#[derive(Debug, Clone)]
pub(super) struct Drawn {
    workers: Vec<(WorkerId, Role, u32, Load)>,
    pub(super) held: Vec<(WorkerId, usize)>,
    pub(super) ask: Ask,
    pub(super) rules: Rules,
    assumed: Assumed,
}

impl Drawn {
    pub(super) fn new(draws: &mut Draws, decode: u64, prefill: u64) -> Self {
        let ask = Ask {
            prompt_tokens: draws.between(1, 4000) as usize,
            answer_tokens: draws.between(1, 600) as usize,
            choices: draws.between(1, 3) as usize,
            block_tokens: BLOCK,
            spread: draws.next(),
            turn: draws.below(100),
            session: (draws.below(2) == 0).then(|| draws.below(20)),
        };
        // From a link a hundred times slower than computing to one a hundred times faster.
        let mut line = || Line {
            base_s: draws.unit().powi(4),
            slope_s: 10_f64.powf(-5.0 + 4.0 * draws.unit()),
        };
        let assumed = Assumed {
            prefill: line(),
            local: line(),
            step: line(),
            fetch: line(),
            handover_s: line().base_s,
        };
        let (workers, held) = (Vec::new(), Vec::new());
        let mut drawn = Self { workers, held, ask, rules: RULES, assumed };
        // Between 1 and the whole, the rule makes fewer missing blocks the worse bargain.
        let thresholds = [Threshold::At(0), Threshold::At(1), Threshold::Never];
        drawn.rules.disaggregate_min_blocks = thresholds[draws.below(3) as usize];
        let counts = [
            (Role::Decode, draws.between(1, decode), 1),
            (Role::Prefill, draws.below(prefill + 1), 1000),
        ];
        for (role, count, first) in counts {
            for id in first..first + count as u32 {
                let slots = draws.between(20, 600) as u32;
                let free_blocks = draws.below(u64::from(slots) + 1) as u32;
                let load = Load {
                    queued: draws.skewed(20) as u32,
                    running: draws.skewed(60) as u32,
                    free_blocks,
                    evictable_blocks: draws.below(u64::from(slots - free_blocks) + 1) as u32,
                    pending_tokens: draws.skewed(50_000),
                };
                drawn.workers.push((WorkerId(id), role, slots, load));
                let held = draws.skewed(ask.whole_blocks() as u64) as usize;
                if held > 0 {
                    drawn.held.push((WorkerId(id), held));
                }
            }
        }
        drawn
    }

    pub(super) fn fleet(&self) -> Fleet {
        let mut fleet = Fleet::new(self.assumed);
        for (id, role, slots, load) in &self.workers {
            fleet.join(*id, *role, *slots);
            fleet.set_load(*id, *load);
        }
        fleet
    }

    fn plan(&self, policy: PolicyName) -> Plan {
        let held = self.held.iter().copied();
        let plan = self.fleet().choose(policy.policy(), &self.ask, &self.rules, held, &[]);
        plan.expect("there is a decode worker")
    }

    fn explain(&self, policy: PolicyName) -> Explanation {
        let held = self.held.iter().copied();
        let why = self.fleet().explain(policy.policy(), &self.ask, &self.rules, held, &[]);
        why.expect("there is a decode worker")
    }

    pub(super) fn fits(&self, worker: WorkerId) -> bool {
        let (_, role, slots, load) = self.workers.iter().find(|w| w.0 == worker).expect("known");
        let held = self.held.iter().find(|held| held.0 == worker).map_or(0, |held| held.1);
        let needed = match role {
            Role::Decode => self.ask.blocks_at_completion(),
            Role::Prefill => self.ask.whole_blocks(),
        };
        let needed = needed.min(*slots as usize);
        needed.saturating_sub(held) <= (load.free_blocks + load.evictable_blocks) as usize
    }
}

#[test]
fn a_full_worker_is_never_chosen_while_one_with_room_exists() {
    let mut draws = Draws::announced();
    let mut decided = 0;
    for _ in 0..rounds(3000) {
        let drawn = Drawn::new(&mut draws, 6, 6);
        for policy in PolicyName::ALL {
            let plan = drawn.plan(policy);
            for (role, worker) in
                [(Role::Decode, Some(&plan.decode)), (Role::Prefill, plan.prefill.first())]
            {
                let Some(worker) = worker else { continue };
                let side = drawn.workers.iter().filter(|(_, other, ..)| *other == role);
                let room: Vec<_> = side.map(|(id, ..)| drawn.fits(*id)).collect();
                decided += usize::from(room.contains(&true) && room.contains(&false));
                assert!(drawn.fits(*worker) || !room.contains(&true), "{policy}: {drawn:?}");
            }
        }
    }
    assert!(decided > 100, "the rule mattered {decided} times");
}

#[test]
fn the_same_case_leads_to_the_same_plan_and_the_explanation_tells_it() {
    let mut draws = Draws::announced();
    for _ in 0..rounds(1000) {
        let drawn = Drawn::new(&mut draws, 8, 8);
        for policy in PolicyName::ALL {
            let plan = drawn.plan(policy);
            assert_eq!(plan, drawn.plan(policy));
            let why = drawn.explain(policy);
            assert_eq!(plan, why.plan);
            let chosen = why.chosen().expect("the chosen one is told");
            assert_eq!(chosen.with, plan.prefill.first().copied(), "{drawn:?}");
            assert!(chosen.probability > 0.0, "{policy}: {why:?}");
            let sum: f64 = why.decode.iter().map(|candidate| candidate.probability).sum();
            assert!((sum - 1.0).abs() < 1e-9, "{policy}: {sum}, {drawn:?}");
        }
    }
}

/// The order in which workers joined must not matter.
#[test]
fn ties_are_broken_by_the_turn_alone() {
    let mut draws = Draws::announced();
    for _ in 0..rounds(500) {
        let mut drawn = Drawn::new(&mut draws, 8, 8);
        for worker in &mut drawn.workers {
            (worker.2, worker.3) = (500, Load { free_blocks: 500, ..Load::default() });
        }
        drawn.held.clear();
        let plan = drawn.plan(PolicyName::KvAware);
        drawn.workers.reverse();
        assert_eq!(plan, drawn.plan(PolicyName::KvAware));
    }
}

/// What each decode worker is predicted to take.
fn totals(drawn: &Drawn) -> HashMap<WorkerId, f64> {
    let why = drawn.explain(PolicyName::KvAware);
    why.decode.iter().map(|candidate| (candidate.worker, candidate.score)).collect()
}

#[test]
fn more_queue_never_makes_a_worker_better() {
    let mut draws = Draws::announced();
    for _ in 0..rounds(3000) {
        let drawn = Drawn::new(&mut draws, 5, 5);
        let before = drawn.plan(PolicyName::KvAware);
        let mut worse = drawn.clone();
        let victim = draws.below(drawn.workers.len() as u64) as usize;
        let (id, role, ..) = drawn.workers[victim];
        let load = &mut worse.workers[victim].3;
        match draws.below(3) {
            0 => load.queued += draws.between(1, 10) as u32,
            1 => load.running += draws.between(1, 10) as u32,
            _ => load.pending_tokens += draws.between(1, 10_000),
        }
        let after = worse.plan(PolicyName::KvAware);
        if role == Role::Decode {
            let (was, is) = (totals(&drawn), totals(&worse));
            if let (Some(was), Some(is)) = (was.get(&id), is.get(&id)) {
                assert!(is >= was, "{id}: {was} s before, {is} s after {drawn:?}");
            }
            assert!(after.decode != id || before.decode == id, "{id} in {drawn:?}");
        } else if after.decode == before.decode {
            let first = |plan: &Plan| plan.prefill.first() == Some(&id);
            assert!(!first(&after) || first(&before), "{id} in {drawn:?}");
        }
    }
}

#[test]
fn more_cached_never_makes_a_worker_worse() {
    let mut draws = Draws::announced();
    for _ in 0..rounds(3000) {
        let drawn = Drawn::new(&mut draws, 5, 5);
        let before = drawn.plan(PolicyName::KvAware);
        let mut better = drawn.clone();
        let decode: Vec<_> = drawn.workers.iter().filter(|w| w.1 == Role::Decode).collect();
        let id = decode[draws.below(decode.len() as u64) as usize].0;
        let held = drawn.held.iter().find(|held| held.0 == id).map_or(0, |held| held.1);
        let more = held + draws.below((drawn.ask.whole_blocks() - held) as u64 + 1) as usize;
        better.held.retain(|held| held.0 != id);
        better.held.push((id, more));
        let after = better.plan(PolicyName::KvAware);
        let (was, is) = (totals(&drawn), totals(&better));
        if let (Some(was), Some(is)) = (was.get(&id), is.get(&id)) {
            assert!(
                *is <= was * (1.0 + 1e-9),
                "{id}: {was} s before, {is} s after {more} in {drawn:?}"
            );
        }
        assert!(before.decode != id || after.decode == id, "{id} with {more} in {drawn:?}");
    }
}

/// Against a search through all pairs: where nobody holds anything, the plan is the best there is.
#[test]
fn the_plan_is_the_best_of_all_pairs() {
    let mut draws = Draws::announced();
    for _ in 0..rounds(1500) {
        let mut drawn = Drawn::new(&mut draws, 6, 6);
        drawn.rules.disaggregate_min_blocks = Threshold::At(1);
        drawn.held.retain(|(id, _)| id.0 >= 1000);
        let plan = drawn.plan(PolicyName::KvAware);
        let fleet = drawn.fleet();
        let mut scratch = Scratch::default();
        fleet.prepare(&mut scratch, &drawn.ask, drawn.held.iter().copied(), &[]);
        let case = Case::new(&fleet, &drawn.ask, &drawn.rules, &scratch);
        let estimate = kv_aware::Estimate::new(&case);
        let mut best = (f64::INFINITY, WorkerId(0));
        let mut planned = f64::INFINITY;
        for at in case.eligible {
            let decode = case.decode(*at).id;
            let mut ways = vec![(estimate.alone(*at).total_s(), None)];
            if case.may_ask_prefill(0) {
                let with = |place: &u32| estimate.with(*at, *place).total_s();
                let pairs = case.eligible_prefill.iter();
                ways.extend(pairs.map(|place| (with(place), Some(case.prefill(*place).id))));
            }
            for (total, with) in ways {
                if total < best.0 {
                    best = (total, decode);
                }
                if decode == plan.decode && with == plan.prefill.first().copied() {
                    planned = total;
                }
            }
        }
        assert!(planned <= best.0 * (1.0 + 1e-9), "{planned} s is not {best:?}: {drawn:?}");
    }
}

#[test]
fn whatever_workers_report_the_figures_are_finite() {
    let mut draws = Draws::announced();
    for _ in 0..rounds(500) {
        let mut drawn = Drawn::new(&mut draws, 4, 4);
        for (_, _, slots, load) in &mut drawn.workers {
            let wild = |draws: &mut Draws| [0, 1, u32::MAX][draws.below(3) as usize];
            *slots = wild(&mut draws);
            *load = Load {
                queued: wild(&mut draws),
                running: wild(&mut draws),
                free_blocks: wild(&mut draws),
                evictable_blocks: wild(&mut draws),
                pending_tokens: [0, 1, u64::MAX][draws.below(3) as usize],
            };
        }
        drawn.ask.answer_tokens = [0, 1, u32::MAX as usize][draws.below(3) as usize];
        let mut fleet = drawn.fleet();
        for policy in PolicyName::ALL {
            let held = || drawn.held.iter().copied();
            let why = fleet.explain(policy.policy(), &drawn.ask, &drawn.rules, held(), &[]);
            let why = why.expect("there is a decode worker");
            for candidate in why.decode.iter().chain(&why.prefill) {
                assert!(candidate.terms.total_s().is_finite(), "{candidate:?}");
                assert!(!candidate.score.is_nan(), "{candidate:?}");
            }
            // What they say about the turn may be as wild.
            let mut charge = fleet.charge(&drawn.ask, &why.plan);
            let wild = |draws: &mut Draws| [0, 1, u64::from(u32::MAX)][draws.below(3) as usize];
            let seen = Observed {
                prompt_tokens: drawn.ask.prompt_tokens as u64,
                cached_tokens: wild(&mut draws),
                pulled_tokens: wild(&mut draws),
                computed_tokens: draws.below(2),
                pulled_blocks: wild(&mut draws),
                handover_s: wild(&mut draws) as f64 / 1e6,
                prefill_s: wild(&mut draws) as f64 / 1e6,
                prefill_worker: why.plan.prefill.first().copied(),
            };
            fleet.started(&mut charge, &seen);
            fleet.ended(charge, wild(&mut draws), wild(&mut draws) as f64 / 1e6);
        }
    }
}

/// Everything that was charged is taken back, in whatever order workers come and go meanwhile.
#[test]
fn what_was_sent_and_is_over_leaves_nothing() {
    let mut draws = Draws::announced();
    for _ in 0..rounds(200) {
        let drawn = Drawn::new(&mut draws, 4, 3);
        let mut fleet = drawn.fleet();
        let mut charges = Vec::new();
        for _ in 0..draws.between(1, 60) {
            match draws.below(8) {
                0 => {
                    let at = draws.below(drawn.workers.len() as u64) as usize;
                    let (id, role, slots, _) = drawn.workers[at];
                    fleet.leave(id);
                    if draws.below(3) > 0 {
                        fleet.join(id, role, slots);
                    }
                }
                1..4 if !charges.is_empty() => {
                    let at = draws.below(charges.len() as u64) as usize;
                    let mut charge: Charge = charges.swap_remove(at);
                    if draws.below(2) == 0 {
                        let seen =
                            Observed { computed_tokens: 9, prefill_s: 0.1, ..Observed::default() };
                        fleet.started(&mut charge, &seen);
                    }
                    fleet.ended(charge, draws.below(100), draws.unit());
                }
                _ => {
                    let held = drawn.held.iter().copied();
                    let policy = PolicyName::ALL[draws.below(5) as usize].policy();
                    if let Some(plan) = fleet.choose(policy, &drawn.ask, &drawn.rules, held, &[]) {
                        charges.push(fleet.charge(&drawn.ask, &plan));
                    }
                }
            }
        }
        for charge in charges {
            fleet.ended(charge, 0, 0.0);
        }
        for role in [Role::Decode, Role::Prefill] {
            assert!(fleet.side(role).iter().all(|worker| worker.own == Own::default()));
        }
    }
}
