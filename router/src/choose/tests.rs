//! What the choice promises, on small clusters.

use super::*;

const BLOCK: usize = 64;
const ASSUMED: Assumed = Assumed {
    prefill: Line { base_s: 0.002, slope_s: 0.000_25 },
    local: Line { base_s: 0.002, slope_s: 0.000_5 },
    step: Line { base_s: 0.02, slope_s: 0.000_2 },
    fetch: Line { base_s: 0.001, slope_s: 0.005 },
    handover_s: 0.005,
};
pub(super) const RULES: Rules = Rules {
    disaggregate_min_blocks: Threshold::At(4),
    local_harm: 0.25,
    prefill_harm: 0.1,
    eviction_weight: 0.1,
};

fn ask(prompt_blocks: usize) -> Ask {
    Ask {
        prompt_tokens: prompt_blocks * BLOCK + 1,
        answer_tokens: 64,
        choices: 1,
        block_tokens: BLOCK,
        spread: 7,
        turn: 0,
        session: None,
    }
}

/// A cluster, and who holds what of the prompt at hand.
struct House {
    fleet: Fleet,
    held: Vec<(WorkerId, usize)>,
}

impl House {
    /// Decode workers 1, 2, ... that hold so many blocks, and prefill workers 101, 102, ...
    fn of(decode: &[usize], prefill: &[usize]) -> Self {
        let mut house = Self { fleet: Fleet::new(ASSUMED), held: Vec::new() };
        for (role, first, held) in [(Role::Decode, 1, decode), (Role::Prefill, 101, prefill)] {
            for (id, blocks) in (first..).zip(held) {
                house.fleet.join(WorkerId(id), role, 1000);
                house.held.push((WorkerId(id), *blocks));
            }
        }
        house
    }

    fn load(mut self, worker: u32, load: Load) -> Self {
        let free_blocks = if load.free_blocks == 0 { 1000 } else { load.free_blocks };
        self.fleet.set_load(WorkerId(worker), Load { free_blocks, ..load });
        self
    }

    fn plan_by(&mut self, policy: PolicyName, ask: &Ask, threshold: Threshold<u32>) -> Plan {
        let rules = Rules { disaggregate_min_blocks: threshold, ..RULES };
        let held = self.held.iter().copied();
        self.fleet.choose(policy.policy(), ask, &rules, held, &[]).expect("a plan")
    }

    fn plan(&mut self, ask: &Ask, threshold: Threshold<u32>) -> Plan {
        self.plan_by(PolicyName::KvAware, ask, threshold)
    }

    fn decode(&mut self, blocks: usize) -> u32 {
        self.plan(&ask(blocks), Threshold::Never).decode.0
    }
}

#[test]
fn the_worker_that_holds_most_is_chosen_among_equally_loaded_ones() {
    assert_eq!(House::of(&[0, 9, 4], &[]).decode(10), 2);
}

#[test]
fn a_long_queue_outweighs_a_few_held_blocks() {
    let load = Load { queued: 5, pending_tokens: 50 * BLOCK as u64, ..Load::default() };
    assert_eq!(House::of(&[0, 10], &[]).load(2, load).decode(10), 1);
}

#[test]
fn prompt_tokens_accepted_earlier_count_like_missing_ones() {
    let load = |blocks| Load { pending_tokens: blocks * BLOCK as u64, ..Load::default() };
    assert_eq!(House::of(&[2, 0], &[]).load(1, load(4)).decode(10), 2);
    assert_eq!(House::of(&[5, 0], &[]).load(1, load(4)).decode(10), 1);
}

#[test]
fn what_was_sent_counts_before_it_is_reported() {
    let mut house = House::of(&[0, 0], &[]);
    let ask = ask(10);
    let first = house.plan(&ask, Threshold::Never);
    let charge = house.fleet.charge(&ask, &first);
    let second = house.plan(&ask, Threshold::Never);
    assert_ne!(first.decode, second.decode);
    house.fleet.ended(charge, 1, 0.0);
    assert_eq!(house.plan(&ask, Threshold::Never), first);
    assert_eq!(house.fleet.worker(first.decode).expect("known").own, Own::default());
}

#[test]
fn a_turn_that_decodes_counts_before_it_is_reported() {
    let mut house = House::of(&[0, 0], &[]);
    let ask = ask(10);
    let first = house.plan(&ask, Threshold::Never);
    let mut charge = house.fleet.charge(&ask, &first);
    house.fleet.started(&mut charge, &Observed::default());
    assert_eq!(house.fleet.worker(first.decode).expect("known").pending_tokens(), 0);
    for policy in [PolicyName::KvAware, PolicyName::LeastLoaded] {
        assert_ne!(house.plan_by(policy, &ask, Threshold::Never).decode, first.decode);
    }
    // Once it is reported it does not count twice.
    let load = Load { running: 1, free_blocks: 1000, ..Load::default() };
    house.fleet.set_load(first.decode, load);
    assert_eq!(house.fleet.worker(first.decode).expect("known").running(), 1);
    house.fleet.ended(charge, 0, 0.0);
}

/// Places turns with one long beginning and a little of their own, one right after the other; the
/// tokens that all of them will have computed, as far as the router knows.
fn fan_out(turns: usize, joins: bool) -> usize {
    let mut house = House::of(&[0, 0, 0], &[0, 0, 0]);
    let ask = Ask { prompt_tokens: 20_000 + 64, ..ask(0) };
    let shared = 20_000 / BLOCK;
    let mut computed = 0;
    let mut held: Vec<Held> = Vec::new();
    for _ in 0..turns {
        let plan = house
            .fleet
            .choose(PolicyName::KvAware.policy(), &ask, &RULES, held.iter().copied(), &[])
            .expect("a plan");
        let _under_way = house.fleet.charge(&ask, &plan);
        computed += plan.compute_tokens;
        let (there_s, here_s) = house.fleet.ready_s(&ask, &plan);
        let prefill = plan.prefill.first().map(|worker| (*worker, there_s));
        for (worker, ready_s) in prefill.into_iter().chain([(plan.decode, here_s)]) {
            let blocks = if joins { shared } else { 0 };
            held.retain(|held| held.worker != worker);
            held.push(Held { worker, blocks, ready_s: Some(ready_s) });
        }
    }
    computed
}

#[test]
fn turns_that_start_together_on_one_beginning_have_it_computed_once() {
    let (one, eight) = (fan_out(1, true), fan_out(8, true));
    assert!(100 * eight <= 105 * one, "{eight} tokens for eight, {one} for one");
    assert!(fan_out(8, false) > 2 * one, "the others do not see what is on its way");
}

#[test]
fn waiting_for_the_work_of_others_is_not_learned_as_slowness() {
    let mut house = House::of(&[0], &[]);
    let policy = PolicyName::KvAware.policy();
    let rules = Rules { disaggregate_min_blocks: Threshold::Never, ..RULES };
    // What is late is waited for all the same.
    for ready_s in [Some(2.0), Some(0.0), None] {
        let held = Held { worker: WorkerId(1), blocks: 10, ready_s };
        let before = *house.fleet.common();
        for _ in 0..5 {
            let plan = house.fleet.choose(policy, &ask(10), &rules, [held], &[]).expect("a plan");
            assert_eq!(plan.joins, ready_s.is_some());
            let mut charge = house.fleet.charge(&ask(10), &plan);
            let seen = Observed { computed_tokens: 1, prefill_s: 2.0, ..Observed::default() };
            house.fleet.started(&mut charge, &seen);
            house.fleet.ended(charge, 0, 0.0);
        }
        assert_eq!(*house.fleet.common() == before, ready_s.is_some(), "{ready_s:?}");
    }
}

#[test]
fn nobody_waits_for_what_takes_longer_than_doing_it_again() {
    let held = Held { worker: WorkerId(1), blocks: 10, ready_s: Some(60.0) };
    let plan = |held| {
        let rules = Rules { disaggregate_min_blocks: Threshold::Never, ..RULES };
        let policy = PolicyName::KvAware.policy();
        House::of(&[0, 0], &[]).fleet.choose(policy, &ask(10), &rules, [held], &[]).expect("a plan")
    };
    assert_eq!(plan(held).decode, WorkerId(2));
    assert_eq!(plan(Held { ready_s: Some(0.05), ..held }).decode, WorkerId(1));
}

#[test]
fn a_worker_without_memory_for_the_whole_answer_is_avoided() {
    let full = Load { free_blocks: 1, evictable_blocks: 1, ..Load::default() };
    assert_eq!(House::of(&[3, 0], &[]).load(1, full).decode(10), 2);
}

#[test]
fn held_blocks_need_no_further_memory() {
    // Needs 12 blocks at completion, holds 10 of them: 2 are enough.
    let full = Load { free_blocks: 1, evictable_blocks: 1, ..Load::default() };
    assert_eq!(House::of(&[10, 0], &[]).load(1, full).decode(10), 1);
}

#[test]
fn promised_memory_is_gone_before_it_is_taken() {
    let mut house = House::of(&[0, 0], &[]);
    let ask = Ask { answer_tokens: 700 * BLOCK, ..ask(10) };
    let plans: Vec<_> = (0..2)
        .map(|_| {
            let plan = house.plan(&ask, Threshold::Never);
            let _charge = house.fleet.charge(&ask, &plan);
            plan.decode
        })
        .collect();
    assert_ne!(plans[0], plans[1], "700 of 1000 blocks are promised, though none is taken");
}

#[test]
fn what_would_have_to_go_counts() {
    let free = Load { free_blocks: 500, evictable_blocks: 500, ..Load::default() };
    let used = Load { free_blocks: 1, evictable_blocks: 999, ..Load::default() };
    assert_eq!(House::of(&[0, 0], &[]).load(1, used).load(2, free).decode(10), 2);
    assert_eq!(House::of(&[0, 0], &[]).load(1, free).load(2, used).decode(10), 1);
}

#[test]
fn prefill_is_asked_from_the_threshold_on() {
    let remote = |threshold| !House::of(&[6], &[0]).plan(&ask(10), threshold).prefill.is_empty();
    assert!(remote(Threshold::At(0)));
    assert!(remote(Threshold::At(4)), "4 are missing");
    assert!(!remote(Threshold::At(5)));
    assert!(!remote(Threshold::Never));
}

#[test]
fn beyond_the_threshold_the_estimate_decides() {
    let queue = |blocks| Load { pending_tokens: blocks * BLOCK as u64, ..Load::default() };
    let mut waiting = House::of(&[0], &[0]).load(101, queue(1000));
    assert!(waiting.plan(&ask(10), Threshold::At(4)).prefill.is_empty());
    assert!(!waiting.plan(&ask(10), Threshold::At(0)).prefill.is_empty(), "always is always");
    // Turns that run at the decode worker would be held up.
    let running = Load { running: 50, ..Load::default() };
    let mut crowded = House::of(&[0], &[0]).load(101, queue(20)).load(1, running);
    assert!(!crowded.plan(&ask(10), Threshold::At(4)).prefill.is_empty());
}

#[test]
fn what_is_measured_decides_who_computes() {
    let mut house = House::of(&[0], &[0]);
    let ask = ask(10);
    let before = house.plan(&ask, Threshold::At(4));
    assert_eq!(before.prefill.len(), 1);
    for _ in 0..8 {
        // The prefill worker turns out to be a hundred times slower than was assumed.
        let mut charge = house.fleet.charge(&ask, &before);
        let seen = Observed {
            prompt_tokens: 641,
            pulled_tokens: 640,
            pulled_blocks: 10,
            computed_tokens: 1,
            prefill_s: 16.0,
            handover_s: 0.001,
            prefill_worker: Some(WorkerId(101)),
            ..Observed::default()
        };
        house.fleet.started(&mut charge, &seen);
        house.fleet.ended(charge, 0, 0.0);
    }
    assert!(house.plan(&ask, Threshold::At(4)).prefill.is_empty());
}

#[test]
fn who_is_busy_with_the_prompts_of_others_is_not_slow() {
    let mut house = House::of(&[0], &[]);
    let ask = ask(10);
    let slope_s = 0.004;
    for busy in [0, 5_000, 20_000, 1_000, 80_000, 0, 40_000, 10_000] {
        house = house.load(1, Load { pending_tokens: busy, ..Load::default() });
        let plan = house.plan(&ask, Threshold::Never);
        let mut charge = house.fleet.charge(&ask, &plan);
        let seen = Observed {
            prompt_tokens: 641,
            computed_tokens: 641,
            prefill_s: (busy + 641) as f64 * slope_s,
            ..Observed::default()
        };
        house.fleet.started(&mut charge, &seen);
        house.fleet.ended(charge, 0, 0.0);
    }
    let worker = house.fleet.worker(WorkerId(1)).expect("known");
    let learned = house.fleet.fill(Role::Decode, worker).at(1000.0);
    assert!((learned - 1000.0 * slope_s).abs() < 0.01, "{learned}");
}

#[test]
fn what_went_otherwise_than_planned_teaches_nothing() {
    let mut house = House::of(&[0], &[0, 9]);
    let ask = ask(10);
    let plan = house.plan(&ask, Threshold::At(0));
    assert_eq!(plan.prefill, [102, 101].map(WorkerId));
    let before = *house.fleet.common();
    let remote = Observed {
        prompt_tokens: 641,
        pulled_tokens: 640,
        pulled_blocks: 10,
        computed_tokens: 1,
        prefill_s: 16.0,
        prefill_worker: Some(WorkerId(102)),
        ..Observed::default()
    };
    // The second one had to be asked; the decode worker had to continue, or do it all.
    let other = Observed { prefill_worker: Some(WorkerId(101)), ..remote };
    let part = Observed { pulled_tokens: 320, computed_tokens: 321, ..remote };
    let alone = Observed { pulled_tokens: 0, computed_tokens: 641, ..remote };
    for (seen, learned) in [(other, false), (part, false), (alone, false), (remote, true)] {
        let mut charge = house.fleet.charge(&ask, &plan);
        house.fleet.started(&mut charge, &seen);
        house.fleet.ended(charge, 0, 0.0);
        assert_eq!(*house.fleet.common() != before, learned, "{seen:?}");
    }
}

#[test]
fn nothing_is_asked_for_when_nothing_is_missing() {
    assert_eq!(House::of(&[10], &[0]).plan(&ask(10), Threshold::At(0)).prefill, vec![]);
}

#[test]
fn the_block_of_the_last_token_is_left_to_decode() {
    let exact = |tokens| Ask { prompt_tokens: tokens, ..ask(0) }.whole_blocks();
    assert_eq!([0, 1, BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 1].map(exact), [0, 0, 0, 1, 1, 2]);
}

#[test]
fn prefill_candidates_come_best_first_and_are_few() {
    let pending = |blocks| Load { pending_tokens: blocks * BLOCK as u64, ..Load::default() };
    let mut house = House::of(&[0], &[0, 0, 5, 2, 10]).load(101, pending(4)).load(105, pending(90));
    let plan = house.plan(&ask(10), Threshold::At(4));
    assert_eq!(plan.prefill, [103, 104, 102].map(WorkerId));
    assert_eq!(plan.compute_tokens, 5 * BLOCK, "what the first of them lacks");
}

#[test]
fn a_prefill_worker_that_everything_can_be_fetched_from_is_asked() {
    let plan = House::of(&[0], &[0, 10]).plan(&ask(10), Threshold::At(4));
    assert_eq!((plan.prefill[0], plan.compute_tokens), (WorkerId(102), 0));
}

#[test]
fn equals_are_chosen_about_equally_often() {
    for policy in [PolicyName::KvAware, PolicyName::LeastLoaded, PolicyName::PowerOfTwo] {
        let mut house = House::of(&[0, 0, 0], &[]);
        let mut hits = [0; 3];
        for spread in 0..3000 {
            let plan = house.plan_by(policy, &Ask { spread, ..ask(10) }, Threshold::Never);
            hits[plan.decode.0 as usize - 1] += 1;
        }
        assert!(hits.iter().all(|&count| (850..1150).contains(&count)), "{policy}: {hits:?}");
    }
}

#[test]
fn turns_go_round() {
    let mut house = House::of(&[0, 9, 0], &[]);
    let by = |house: &mut House, turn| {
        let ask = Ask { turn, ..ask(10) };
        house.plan_by(PolicyName::RoundRobin, &ask, Threshold::Never).decode.0
    };
    let seven: Vec<_> = (0..7).map(|turn| by(&mut house, turn)).collect();
    assert_eq!(seven, [1, 2, 3, 1, 2, 3, 1]);
}

#[test]
fn the_least_loaded_has_the_fewest_turns_and_then_the_fewest_tokens() {
    let load = |running, pending_tokens| Load { running, pending_tokens, ..Load::default() };
    let mut house =
        House::of(&[9, 0, 0], &[]).load(1, load(3, 0)).load(2, load(1, 900)).load(3, load(1, 800));
    assert_eq!(house.plan_by(PolicyName::LeastLoaded, &ask(10), Threshold::Never).decode.0, 3);
}

#[test]
fn a_session_stays_and_moves_only_when_it_must() {
    let mut house = House::of(&[0; 8], &[]);
    let at = |house: &mut House, session| {
        let ask = Ask { session: Some(session), spread: session ^ 5, ..ask(10) };
        house.plan_by(PolicyName::SessionAffinity, &ask, Threshold::Never).decode.0
    };
    let before: Vec<_> = (0..400).map(|session| at(&mut house, session)).collect();
    let mut counts = [0; 8];
    for worker in &before {
        counts[*worker as usize - 1] += 1;
    }
    assert!(counts.iter().all(|count| (25..80).contains(count)), "{counts:?}");
    let busy = Load { running: 99, ..Load::default() };
    house = house.load(before[0], busy);
    assert_eq!(at(&mut house, 0), before[0], "load does not move it");
    house.fleet.leave(WorkerId(4));
    for (session, worker) in (0..).zip(&before) {
        let now = at(&mut house, session);
        assert_eq!(now == *worker, *worker != 4, "session {session}");
    }
}

#[test]
fn without_a_decode_worker_there_is_no_plan() {
    let mut fleet = House::of(&[], &[0]).fleet;
    let policy = PolicyName::KvAware.policy();
    let none: [Held; 0] = [];
    assert_eq!(fleet.choose(policy, &ask(10), &RULES, none, &[]), None);
    assert_eq!(fleet.explain(policy, &ask(10), &RULES, none, &[]), None);
}

#[test]
fn those_that_were_tried_or_drain_are_left_alone() {
    let mut house = House::of(&[9, 8, 7], &[]);
    house.fleet.set_draining(WorkerId(2));
    let policy = PolicyName::KvAware.policy();
    let held = house.held.clone();
    let mut choose = |tried: &[u32]| {
        let tried: Vec<_> = tried.iter().copied().map(WorkerId).collect();
        let plan = house.fleet.choose(policy, &ask(10), &RULES, held.clone(), &tried);
        plan.map(|plan| plan.decode.0)
    };
    assert_eq!([choose(&[]), choose(&[1]), choose(&[1, 3])], [Some(1), Some(3), None]);
}

#[test]
fn an_earlier_run_of_a_worker_takes_nothing_from_the_next() {
    let mut house = House::of(&[0], &[]);
    let ask = ask(10);
    let plan = house.plan(&ask, Threshold::Never);
    let (before, lost) = (house.fleet.charge(&ask, &plan), house.fleet.charge(&ask, &plan));
    house.fleet.ended(before, 0, 0.0);
    house.fleet.join(WorkerId(1), Role::Decode, 1000);
    let charge = house.fleet.charge(&ask, &plan);
    let own = house.fleet.worker(WorkerId(1)).expect("known").own;
    house.fleet.ended(lost, 0, 0.0);
    assert_eq!(house.fleet.worker(WorkerId(1)).expect("known").own, own);
    house.fleet.ended(charge, 0, 0.0);
    assert_eq!(house.fleet.worker(WorkerId(1)).expect("known").own, Own::default());
}

#[test]
fn names_are_read_back_and_others_are_refused() {
    for name in PolicyName::ALL {
        assert_eq!((name.as_str().parse(), name.policy().name()), (Ok(name), name));
    }
    let unknown = "random".parse::<PolicyName>().expect_err("no such policy");
    assert!(unknown.to_string().contains("round-robin"), "{unknown}");
}
