//! Answers that may be acted on, and those that may not; what a policy is told.

use super::*;
use crate::choose::properties::Drawn;
use crate::choose::tests::RULES;
use crate::choose::{Load, Plan};
use crate::config::AssumedConfig;
use crate::seeded_tests::{Draws, rounds};
use baton_node::config::Threshold;

const BLOCK: usize = 16;
const ASK: Ask = Ask {
    prompt_tokens: 10 * BLOCK + 1,
    answer_tokens: 20,
    choices: 1,
    block_tokens: BLOCK,
    spread: 7,
    turn: 0,
    session: Some(5),
};
const NOTHING_HELD: [(WorkerId, usize); 0] = [];

/// Decode workers 1, 2 and 3, prefill workers 101 and 102.
fn fleet() -> Fleet {
    let mut fleet = Fleet::new(AssumedConfig::default().lines());
    (1..=3).for_each(|id| fleet.join(WorkerId(id), Role::Decode, 1000));
    (101..=102).for_each(|id| fleet.join(WorkerId(id), Role::Prefill, 1000));
    fleet
}

fn told(decode: u32, prefill: &[u32]) -> Told {
    let prefill_worker_ids = prefill.to_vec();
    let reply = ChooseReply { decode_worker_id: decode, prefill_worker_ids, ..Default::default() };
    Told { acts: true, answer: Ok(Answer::read(reply)), took: None }
}

/// What comes of an answer: the plan by it, or why it does not count.
fn plan(
    fleet: &mut Fleet,
    told: &Told,
    rules: &Rules,
    tried: &[WorkerId],
) -> Result<Plan, Fallback> {
    let heeded = fleet.heed(told, &ASK, rules, NOTHING_HELD, tried)?;
    Ok(fleet.choose(&heeded, &ASK, rules, NOTHING_HELD, tried).expect("a plan"))
}

#[test]
fn a_reply_is_cut_to_what_is_ever_used() {
    let reply = ChooseReply {
        decode_worker_id: 3,
        prefill_worker_ids: vec![7, 8, 7, 8, 9, 10],
        probability: Some(0.25),
        reason: "ä".repeat(1000),
    };
    let answer = Answer::read(reply.clone());
    assert_eq!((answer.decode, answer.probability), (WorkerId(3), Some(0.25)));
    assert_eq!(answer.prefill, [7, 8, 9].map(WorkerId), "each once, as many as are ever asked");
    let reason = answer.reason.expect("a reason");
    assert!(reason.len() <= 128 && reason.starts_with("ää"), "{}", reason.len());
    for probability in [0.0, -1.0, 1.5, f64::NAN, f64::INFINITY] {
        let reply = ChooseReply { probability: Some(probability), ..reply.clone() };
        assert_eq!(Answer::read(reply).probability, None, "{probability} is none");
    }
    assert_eq!(Answer::read(ChooseReply::default()).reason, None);
}

#[test]
fn what_cannot_be_acted_on_is_told_apart() {
    let mut fleet = fleet();
    fleet.set_draining(WorkerId(2));
    fleet.set_load(WorkerId(3), Load { running: 9, ..Load::default() });
    fleet.set_load(WorkerId(102), Load { running: 9, ..Load::default() });
    fleet.join(WorkerId(4), Role::Decode, 1000);
    let tried = [WorkerId(4)];
    for (decode, prefill, why) in [
        (77, &[][..], Fallback::UnknownWorker),
        (0, &[], Fallback::UnknownWorker),
        (101, &[], Fallback::WrongRole),
        (2, &[], Fallback::Draining),
        (3, &[], Fallback::NoRoom),
        (4, &[], Fallback::Tried),
        (1, &[101, 77], Fallback::UnknownWorker),
        (1, &[101, 1], Fallback::WrongRole),
        (1, &[101, 102], Fallback::NoRoom),
    ] {
        let refused = plan(&mut fleet, &told(decode, prefill), &RULES, &tried);
        assert_eq!(refused, Err(why), "{decode} {prefill:?}");
    }
    let plan = plan(&mut fleet, &told(1, &[101]), &RULES, &tried).expect("possible");
    assert_eq!((plan.decode, plan.prefill), (WorkerId(1), vec![WorkerId(101)]));
    let silent = Told { answer: Err(Fallback::Timeout), ..told(1, &[]) };
    let heeded = fleet.heed(&silent, &ASK, &RULES, NOTHING_HELD, &[]);
    assert_eq!(heeded.err(), Some(Fallback::Timeout));
}

#[test]
fn where_nobody_has_room_any_worker_may_be_named() {
    let mut fleet = fleet();
    for id in 1..=3 {
        fleet.set_load(WorkerId(id), Load { running: 9, ..Load::default() });
    }
    assert_eq!(
        plan(&mut fleet, &told(3, &[]), &RULES, &[]).map(|plan| plan.decode),
        Ok(WorkerId(3))
    );
}

#[test]
fn the_rules_about_asking_prefill_hold_for_it_too() {
    let named = |threshold, prefill: &[u32]| {
        let rules = Rules { disaggregate_min_blocks: threshold, ..RULES };
        plan(&mut fleet(), &told(2, prefill), &rules, &[]).expect("possible").prefill
    };
    let both = [WorkerId(102), WorkerId(101)];
    assert_eq!(named(Threshold::At(4), &[102, 101]), both, "in its order");
    assert_eq!(named(Threshold::At(4), &[102]), [WorkerId(102)], "and nobody else");
    assert!(named(Threshold::At(4), &[]).is_empty(), "or nobody");
    assert!(named(Threshold::Never, &[102, 101]).is_empty(), "too little is missing");
    assert!(!named(Threshold::At(0), &[]).is_empty(), "somebody always is asked");
}

#[test]
fn the_explanation_has_its_name_and_the_probability_that_it_says() {
    let mut fleet = fleet();
    for said in [Some(0.5), None] {
        let mut told = told(2, &[101]);
        told.answer.as_mut().expect("an answer").probability = said;
        let heeded = fleet.heed(&told, &ASK, &RULES, NOTHING_HELD, &[]).expect("possible");
        let why = fleet.explain(&heeded, &ASK, &RULES, NOTHING_HELD, &[]).expect("a decision");
        assert_eq!((why.policy, why.plan.decode), (PolicyName::External, WorkerId(2)));
        let chosen = why.chosen().expect("told");
        assert_eq!(Some(chosen.probability).filter(|p| !p.is_nan()), said);
        assert!(
            why.decode.iter().skip(1).all(|other| other.probability.is_nan() && other.score >= 0.0)
        );
    }
}

/// Names are drawn from all workers and some that do not exist. What is heeded becomes the plan as
/// it was said, and breaks none of the promises that all policies keep.
#[test]
fn whatever_is_named_the_promises_of_all_policies_hold() {
    let mut draws = Draws::announced();
    let (mut heeded, mut refused) = (0, 0);
    for _ in 0..rounds(3000) {
        let drawn = Drawn::new(&mut draws, 6, 6);
        let (mut fleet, ask, rules) = (drawn.fleet(), &drawn.ask, &drawn.rules);
        let mut any = |side: u64| side as u32 + draws.below(8) as u32;
        let (decode, prefill) = (any(0), [any(1000), any(1000)]);
        let prefill = &prefill[..draws.below(3) as usize];
        let tried: Vec<_> = (draws.below(4) == 0).then_some(WorkerId(1)).into_iter().collect();
        let held = || drawn.held.iter().copied();
        let told = told(decode, prefill);
        let usual = fleet.choose(PolicyName::External.policy(), ask, rules, held(), &tried);
        match fleet.heed(&told, ask, rules, held(), &tried) {
            Err(_) => refused += 1,
            Ok(policy) => {
                heeded += 1;
                let plan = fleet.choose(&policy, ask, rules, held(), &tried).expect("a plan");
                assert_eq!(plan.decode, WorkerId(decode));
                let why = fleet.explain(&policy, ask, rules, held(), &tried).expect("a plan");
                assert_eq!(why.plan, plan, "the explanation is that of the plan");
                let answer = told.answer.as_ref().expect("an answer");
                let forced = rules.disaggregate_min_blocks == Threshold::At(0);
                let as_said = plan.prefill == answer.prefill;
                assert!(as_said || plan.prefill.is_empty() || (forced && prefill.is_empty()));
                let usual = usual.expect("somebody is left");
                assert!(!tried.contains(&plan.decode));
                assert!(drawn.fits(plan.decode) || !drawn.fits(usual.decode), "{drawn:?}");
            }
        }
    }
    assert!(heeded > 100 && refused > 100, "{heeded} heeded, {refused} refused");
}

/// Everybody who is told of may be named.
#[test]
fn a_question_tells_the_best_candidates_that_may_be_named() {
    let mut draws = Draws::announced();
    for _ in 0..rounds(1000) {
        let drawn = Drawn::new(&mut draws, 8, 8);
        let (mut fleet, ask, rules) = (drawn.fleet(), &drawn.ask, &drawn.rules);
        let (held, most) = (|| drawn.held.iter().copied(), draws.between(1, 9) as usize);
        let why = fleet.consult(ask, rules, held(), &[], most).expect("there is a decode worker");
        let asked = question(&why, rules, |worker| format!("w{worker}"));
        assert!(asked.decode.len() <= most && asked.prefill.len() <= most);
        assert!(asked.decode.len() <= asked.decode_total as usize);
        let usual = asked.kv_aware.as_ref().expect("a choice");
        let first = &asked.decode[0];
        assert_eq!(first.worker_id, usual.decode_worker_id);
        assert!(usual.prefill_worker_ids.is_empty() || first.may_ask_prefill);
        assert_eq!(first.with_prefill_worker_id, usual.prefill_worker_ids.first().copied());
        for candidate in asked.decode.iter().chain(&asked.prefill) {
            let cost = candidate.cost.as_ref().expect("a cost");
            let sum = cost.queue_ms
                + cost.memory_ms
                + cost.fetch_ms
                + cost.join_ms
                + cost.compute_ms
                + cost.handover_ms
                + cost.decode_ms
                + cost.harm_ms
                + cost.eviction_ms;
            assert!((sum - cost.total_ms).abs() <= 1e-9 * sum.max(1.0), "{cost:?}");
            assert!(candidate.held_tokens as usize <= ask.prompt_tokens);
            assert_eq!(candidate.fits, drawn.fits(WorkerId(candidate.worker_id)));
        }
        let decode = &asked.decode[draws.place(asked.decode.len())];
        let prefill: Vec<_> = asked.prefill.iter().map(|worker| worker.worker_id).take(2).collect();
        let told = told(decode.worker_id, &prefill);
        assert!(fleet.heed(&told, ask, rules, held(), &[]).is_ok(), "{told:?} of {drawn:?}");
    }
}
