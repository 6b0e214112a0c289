//! The bound on reasoning in the schedule.

use super::tests::*;
use crate::thinking::ThinkingRule;
use crate::turn::{StopRule, TurnRequest};

/// With and without others beside it, in several choices, from the first token, and after its memory
/// was taken away and it began anew.
#[test]
fn a_choice_that_thinks_too_long_is_ended_wherever_it_is_computed() {
    let rule = |tokens_max, ends: u32| ThinkingRule {
        tokens_max,
        is_open: true,
        open: vec![1],
        // With 0, the model never ends it itself.
        close: (100..100 + ends).collect(),
        end: vec![2, 3],
        opens_anywhere: false,
        blanks: Vec::new(),
    };
    let thinking = |id: u128, rule| TurnRequest {
        choices: 2,
        osl: 0,
        stop: StopRule { max_tokens: 60, ..turn(1, Vec::new()).stop },
        thinking: Some(rule),
        ..turn(id, prompt(2, 1, id as u32))
    };
    let rules = [rule(0, 0), rule(5, 0), rule(20, 2000), rule(57, 0), rule(59, 0), rule(1000, 0)];
    for slots in [9, 14, 90] {
        let mut rig = Rig::new(1, slots);
        let turns: Vec<_> =
            (1..).zip(&rules).map(|(id, rule)| thinking(id, rule.clone())).collect();
        for turn in &turns {
            rig.submit(turn);
        }
        rig.run();
        for turn in &turns {
            rig.assert_answered(turn);
        }
        assert_eq!(rig.preempted, slots < 90, "{slots} slots");
        for (id, at) in [(1, 0), (2, 5), (4, 57)] {
            assert_eq!(rig.tokens(id, 1)[at..at + 2], [2, 3], "request {id}");
        }
        assert_eq!(rig.tokens(5, 0)[59], 2, "the limit of the answer cuts the end off");
        assert!(!rig.tokens(6, 0).contains(&3), "there is budget left");
        rig.assert_empty();
    }
}

/// `min_tokens` keeps the model from ending its answer. What ends the thinking may be such an end; then
/// nobody would read on.
#[test]
fn an_answer_ends_with_its_thinking_where_that_is_an_end_of_it() {
    let rule = ThinkingRule {
        tokens_max: 5,
        is_open: true,
        open: vec![1],
        close: Vec::new(),
        end: vec![3],
        opens_anywhere: false,
        blanks: Vec::new(),
    };
    let turn = TurnRequest {
        stop: StopRule { max_tokens: 20, min_tokens: 15, end_ids: vec![3] },
        thinking: Some(rule),
        ..turn(1, prompt(2, 1, 1))
    };
    let mut rig = Rig::new(1, 20);
    rig.submit(&turn);
    rig.run();
    let tokens = rig.tokens(1, 0);
    assert_eq!((tokens.len(), tokens.last()), (6, Some(&3)));
    rig.assert_empty();
}
