//! Turns that need what another one has asked for.

use super::tests::{BLOCK, Rig, ahead, prompt, turn, with_candidates};
use super::*;
use baton_proto::ids::WorkerId;

/// A turn that has asked worker 7 for six blocks, of which the other one needs five.
fn shared_prefix(rig: &mut Rig, first: TurnRequest) -> (TurnRequest, TurnRequest) {
    let first = with_candidates(TurnRequest { tokens: prompt(5, 1, 1), ..first }, &[7]);
    let second = turn(2, prompt(5, 1, 2));
    rig.submit(&first);
    rig.submit(&second);
    for _ in 0..3 {
        rig.step();
    }
    (first, second)
}

#[test]
fn a_turn_without_candidates_waits_for_what_another_has_asked_for() {
    let (mut owner, mut rig) = (Rig::new(7, 40), Rig::new(1, 40));
    let (first, second) = shared_prefix(&mut rig, turn(1, Vec::new()));
    assert_eq!((rig.calls(), rig.computed), ((vec![7], 0), 0));
    let blocks = owner.lend(&first);
    rig.send(Event::Announced(TurnId(1), blocks));
    for _ in 0..4 {
        rig.bring_pulls(&owner);
    }
    rig.run();
    rig.assert_answered(&first);
    rig.assert_answered(&second);
    assert_eq!(rig.calls().0, [7]);
    // The block that only the second one needs, and the last positions and the answers of both.
    assert_eq!(rig.computed as usize, BLOCK + 2 * (3 + 19));
    rig.assert_empty();
}

#[test]
fn whoever_waited_for_a_turn_that_leaves_asks_itself() {
    let mut rig = Rig::new(1, 40);
    let (_, second) = shared_prefix(&mut rig, turn(1, Vec::new()));
    rig.send(Event::Cancel(RouterId(1), RequestId(1), None));
    rig.step();
    assert_eq!(rig.calls(), (vec![7, 7], 1));
    rig.send(Event::PrefillFailed(TurnId(2), WorkerId(7)));
    rig.run();
    rig.assert_answered(&second);
    rig.assert_empty();
}

#[test]
fn whoever_is_more_urgent_than_the_one_it_waits_for_asks_itself() {
    let mut rig = Rig::new(1, 40);
    let (first, second) = shared_prefix(&mut rig, ahead(1, Vec::new()));
    assert_eq!((rig.calls(), rig.computed), ((vec![7, 7], 0), 0));
    rig.send(Event::PrefillFailed(TurnId(2), WorkerId(7)));
    rig.send(Event::PrefillFailed(TurnId(1), WorkerId(7)));
    rig.run();
    rig.assert_answered(&first);
    rig.assert_answered(&second);
    rig.assert_empty();
}

#[test]
fn a_turn_that_has_computed_a_part_of_a_block_does_not_wait_for_those_who_wait_for_it() {
    let mut rig = Rig::new(1, 60);
    // One draws, and one computes beside it, so that little is left of each step for the third.
    rig.submit(&turn(1, prompt(0, 1, 1)));
    while rig.tokens(1, 0).is_empty() {
        rig.step();
    }
    let alone = [turn(2, prompt(0, 9, 2)), turn(3, prompt(0, 9, 3))];
    for turn in &alone {
        rig.submit(turn);
    }
    rig.step();
    let asks =
        with_candidates(TurnRequest { tokens: prompt(0, 9, 3), ..turn(4, Vec::new()) }, &[7]);
    rig.submit(&asks);
    rig.run();
    for turn in &alone {
        rig.assert_answered(turn);
    }
    rig.send(Event::PrefillFailed(TurnId(4), WorkerId(7)));
    rig.run();
    rig.assert_answered(&asks);
    rig.assert_empty();
}

#[test]
fn nobody_waits_for_those_who_came_later_or_longer_than_for_a_worker_of_its_own() {
    let mut rig = Rig::new(1, 60);
    let first = turn(1, prompt(5, 1, 1));
    rig.submit(&first);
    rig.submit(&with_candidates(turn(2, prompt(5, 1, 2)), &[7]));
    rig.step();
    assert!(rig.computed > 0, "the later one's call is nothing to wait for");

    let mut rig = Rig::new(1, 60);
    let (_, second) = shared_prefix(&mut rig, turn(1, Vec::new()));
    rig.now = rig.schedule.limits.prefill_patience / 2;
    rig.step();
    assert_eq!(rig.computed, 0);
    rig.now = rig.schedule.limits.prefill_patience;
    rig.run();
    rig.assert_answered(&second);
}
