//! Against figures that can be worked out by hand, and what holds for every trace.

use super::*;
use crate::sim::chance::Chance;
use baton_node::config::Threshold;
use baton_router::choose::Own;

fn setting(decode: u32, prefill: u32) -> Setting {
    let line = |base_s, slope_s| Line { base_s, slope_s };
    let speeds = Assumed {
        prefill: line(0.0, 0.001),
        local: line(0.0, 0.01),
        step: line(0.5, 0.25),
        fetch: line(0.0, 0.125),
        handover_s: 1.0,
    };
    let rules = Rules {
        disaggregate_min_blocks: Threshold::At(1),
        local_harm: 0.0,
        prefill_harm: 0.0,
        eviction_weight: 0.0,
    };
    Setting { decode, prefill, slots: 100, block_tokens: 10, speed: 1.0, rules, speeds }
}

fn turn(at_s: f64, prompt: usize, answer: usize, chain: &[u64]) -> Recorded {
    Recorded {
        timestamp: at_s * 1e3,
        input_length: prompt,
        output_length: answer,
        hash_ids: chain.to_vec(),
        session: None,
    }
}

fn near(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{found:?}");
    let close = found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-3);
    assert!(close, "{found:?} is not {expected:?}");
}

#[test]
fn a_turn_alone_takes_its_prompt_and_its_steps() {
    let trace = [turn(5.0, 31, 9, &[1, 2, 3])];
    let outcome = play(&trace, PolicyName::KvAware, &setting(1, 0));
    near(&outcome.ttft_s, &[0.31]);
    near(&outcome.total_s, &[0.31 + 8.0 * 0.75]);
    assert_eq!((outcome.prompt_tokens, outcome.computed_tokens, outcome.prefilled), (31, 31, 0));
}

#[test]
fn a_prompt_comes_from_prefill_and_is_found_the_next_time() {
    let mut setting = setting(1, 1);
    setting.rules.disaggregate_min_blocks = Threshold::At(0);
    let chain: Vec<u64> = (0..10).collect();
    let trace = [turn(0.0, 101, 1, &chain), turn(60.0, 101, 1, &chain)];
    let outcome = play(&trace, PolicyName::LeastLoaded, &setting);
    // Computing 0.1 s, fetching 1.25 s beside it, the hand-over, and the last token.
    near(&outcome.ttft_s, &[1.25 + 1.0 + 0.01, 0.01]);
    assert_eq!((outcome.computed_tokens, outcome.prefilled), (102, 1));
}

#[test]
fn answers_share_the_steps_of_their_worker() {
    let trace = [turn(0.0, 1, 11, &[]), turn(0.0, 1, 11, &[])];
    let outcome = play(&trace, PolicyName::RoundRobin, &setting(1, 0));
    // The first draws alone for the 10 ms in which the second prompt is computed.
    near(&outcome.ttft_s, &[0.01, 0.02]);
    let alone = 0.01 / 0.75;
    near(&outcome.total_s, &[0.02 + (10.0 - alone), 0.02 + (10.0 - alone) + alone * 0.75]);
}

#[test]
fn who_has_no_room_waits_for_who_has() {
    let setting = Setting { slots: 3, ..setting(1, 0) };
    let trace = [turn(0.0, 21, 5, &[1, 2]), turn(0.0, 21, 5, &[3, 4])];
    let outcome = play(&trace, PolicyName::KvAware, &setting);
    let first = 0.21 + 4.0 * 0.75;
    near(&outcome.ttft_s, &[0.21, first + 0.21]);
    near(&outcome.total_s, &[first, 2.0 * first]);
}

#[test]
fn the_block_that_nobody_builds_on_goes_first() {
    let mut cache = Cache::default();
    cache.keep(&[1, 2, 3], 3, Duration::ZERO);
    cache.keep(&[1, 9], 3, Duration::from_secs(5));
    let held = |chain: &[u64], by| cache.held(chain, Duration::from_secs(by)).0;
    assert_eq!((held(&[1, 2, 3], 0), held(&[1, 9], 4), held(&[1, 9], 5)), (2, 1, 2));
}

/// Sessions that grow, each with a beginning that it shares with others.
fn sessions(chance: &mut Chance) -> Vec<Recorded> {
    let mut trace = Vec::new();
    for session in 0..chance.between(1, 12) {
        let mut chain: Vec<u64> = (0..chance.between(1, 6)).collect();
        let mut at_s = chance.below(50) as f64;
        for turn_no in 0..chance.between(1, 8) {
            chain
                .extend((0..chance.between(0, 6)).map(|n| 1000 * (session + 1) + 50 * turn_no + n));
            let prompt = chain.len() * 10 + chance.between(1, 10) as usize;
            let answer = chance.between(1, 40) as usize;
            let recorded = turn(at_s, prompt, answer, &chain);
            trace.push(Recorded { session: Some(session), ..recorded });
            at_s += chance.below(60) as f64;
        }
    }
    trace.sort_by(|a, b| a.timestamp.total_cmp(&b.timestamp));
    trace
}

#[test]
fn every_turn_ends_and_leaves_nothing() {
    let seed = std::env::var("BATON_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(5);
    println!("BATON_SEED={seed}");
    let mut chance = Chance::new(seed);
    let mut ttft_s = [0.0; 2];
    for _ in 0..if std::env::var_os("BATON_LONG").is_some() { 2000 } else { 50 } {
        let trace = sessions(&mut chance);
        let slots = chance.between(10, 200) as u32;
        let (decode, prefill) = (chance.between(1, 4) as u32, chance.below(4) as u32);
        let setting = Setting { slots, ..setting(decode, prefill) };
        for policy in PolicyName::ALL {
            let mut house = House::new(&trace, policy, &setting);
            house.run();
            let outcome = &house.outcome;
            assert_eq!((outcome.ttft_s.len(), outcome.total_s.len()), (trace.len(), trace.len()));
            assert!(house.turns.is_empty());
            for role in [Role::Decode, Role::Prefill] {
                assert!(house.fleet.side(role).iter().all(|worker| worker.own == Own::default()));
            }
            for worker in &house.workers {
                assert!(worker.promised == 0 && worker.admitted == 0 && worker.drawing.is_empty());
                assert!(worker.cache.blocks.len() <= slots as usize);
                assert_eq!(worker.cache.blocks.len(), worker.cache.order.len());
            }
            let prompts: usize = trace.iter().map(|turn| turn.input_length).sum();
            assert_eq!(outcome.prompt_tokens, prompts as u64);
            assert!(outcome.computed_tokens <= outcome.prompt_tokens);
            match policy {
                PolicyName::KvAware => ttft_s[0] += outcome.ttft_s.iter().sum::<f64>(),
                PolicyName::RoundRobin => ttft_s[1] += outcome.ttft_s.iter().sum::<f64>(),
                _ => {}
            }
            assert_eq!(*outcome, play(&trace, policy, &setting), "the same again");
        }
    }
    assert!(ttft_s[0] < ttft_s[1], "{ttft_s:?}: what is known is not made use of");
}
