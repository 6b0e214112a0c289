//! The bound against a naive one that reads the whole answer anew for every token, and what routers
//! may send.

use super::*;
use NextToken::{Forced, Free, Not};
use baton_engine::api::Engine;
use baton_engine::witness::{Witness, WitnessSpec};
use proptest::prelude::*;

const OPEN: TokenId = 7;
const CLOSE: TokenId = 8;
const NEWLINE: TokenId = 1;
/// A call, which ends reasoning too.
const CALL: TokenId = 9;

/// As of a model that marks reasoning with a token at each end.
fn tags(tokens_max: u32, is_open: bool) -> ThinkingRule {
    ThinkingRule {
        tokens_max,
        is_open,
        open: vec![OPEN],
        close: vec![CLOSE, CALL],
        end: vec![NEWLINE, CLOSE],
        opens_anywhere: false,
        blanks: vec![NEWLINE],
    }
}

/// As of a model with channels: 2 begins a message's header and ends the message before it.
fn channels(tokens_max: u32) -> ThinkingRule {
    ThinkingRule {
        tokens_max,
        is_open: false,
        open: vec![2, 3],
        close: vec![4, 2],
        end: vec![4, 2],
        opens_anywhere: true,
        blanks: Vec::new(),
    }
}

/// What an answer becomes whose tokens the model wishes to be these, one after the other.
fn answer(rule: &ThinkingRule, wishes: &[TokenId]) -> Vec<TokenId> {
    let mut thinking = Thinking::new(rule);
    let mut wishes = wishes.iter().copied();
    let mut answer = Vec::new();
    loop {
        let token = match thinking.next(rule) {
            Forced(token) => Some(token),
            Free => wishes.next(),
            Not(token) => wishes.find(|wish| *wish != token),
        };
        let Some(token) = token else { return answer };
        thinking.push(rule, token);
        answer.push(token);
    }
}

/// What is said about the token after `answer`, from the answer as a whole; and how many of its
/// tokens are reasoning.
fn naive(rule: &ThinkingRule, answer: &[TokenId]) -> (NextToken, u32) {
    let (mut at, mut spent, mut inside) = (0, 0, rule.is_open);
    let (marker, last) = (rule.open.len(), rule.open[rule.open.len() - 1]);
    loop {
        if inside {
            while at < answer.len() && spent < rule.tokens_max && !rule.close.contains(&answer[at])
            {
                (at, spent) = (at + 1, spent + 1);
            }
            let rest = answer.len() - at;
            if spent == rule.tokens_max {
                if rest < rule.end.len() {
                    return (Forced(rule.end[rest]), spent);
                }
                at += rule.end.len();
            } else if rest == 0 {
                return (Free, spent);
            } else {
                at += 1;
            }
            // What ends a section may begin the next one's marker.
            at -= usize::from(marker > 1 && answer[at - 1] == rule.open[0]);
        }
        if !rule.opens_anywhere {
            at += answer[at..].iter().take_while(|token| rule.blanks.contains(token)).count();
        }
        let starts = if rule.opens_anywhere { at..answer.len() + 1 } else { at..at + 1 };
        let found = starts.into_iter().find(|start| {
            let seen = &answer[*start..answer.len().min(start + marker)];
            rule.open.starts_with(seen)
        });
        let Some(start) = found else { return (Free, spent) };
        if start + marker <= answer.len() {
            (at, inside) = (start + marker, true);
            continue;
        }
        let is_last = answer.len() + 1 == start + marker;
        let next = if is_last && spent >= rule.tokens_max { Not(last) } else { Free };
        return (next, spent);
    }
}

fn rules() -> impl Strategy<Value = ThinkingRule> {
    let max = 0_u32..6;
    prop_oneof![
        (max.clone(), any::<bool>()).prop_map(|(max, open)| tags(max, open)),
        max.prop_map(channels)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn every_token_is_as_the_naive_bound_says(
        rule in rules(),
        wishes in prop::collection::vec(0_u32..10, 0..60),
    ) {
        let answer = answer(&rule, &wishes);
        let mut thinking = Thinking::new(&rule);
        for at in 0..=answer.len() {
            let (next, spent) = naive(&rule, &answer[..at]);
            prop_assert_eq!((thinking.next(&rule), thinking.spent), (next, spent), "{:?}", &answer[..at]);
            if let Some(token) = answer.get(at) {
                thinking.push(&rule, *token);
            }
        }
    }

    /// Counted without knowing of the bound: what stands between two markers.
    #[test]
    fn no_answer_has_more_reasoning_than_the_budget(
        max in 0_u32..6,
        is_open in any::<bool>(),
        // Sections alone: after other words a marker is text.
        wishes in prop::collection::vec(prop_oneof![Just(OPEN), Just(CLOSE), 20_u32..30], 0..60),
    ) {
        let rule = ThinkingRule {
            end: vec![CLOSE], opens_anywhere: true, blanks: Vec::new(), ..tags(max, is_open)
        };
        let (mut inside, mut count) = (is_open, 0);
        for token in answer(&rule, &wishes) {
            match token {
                OPEN if !inside => inside = true,
                CLOSE => inside = false,
                _ => count += u32::from(inside),
            }
        }
        prop_assert!(count <= max, "{count} tokens of reasoning");
    }
}

#[test]
fn a_section_that_the_prompt_has_opened_is_ended_after_exactly_so_many_tokens() {
    let words: Vec<TokenId> = (20..30).collect();
    for max in 0..=10 {
        let (thought, rest) = words.split_at(max);
        let ended = [thought, &[NEWLINE, CLOSE], rest].concat();
        // Nobody knows whether the model would have ended it in the next token.
        assert_eq!(answer(&tags(max as u32, true), &words), ended);
    }
    assert_eq!(answer(&tags(11, true), &words), words);
    let ends_itself = [20, 21, CLOSE, 22, 23, 24];
    assert_eq!(answer(&tags(3, true), &ends_itself), ends_itself);
}

#[test]
fn a_section_that_the_model_opens_counts_from_there() {
    let opened = [NEWLINE, OPEN, 20, 21, 22];
    assert_eq!(answer(&tags(2, false), &opened), [NEWLINE, OPEN, 20, 21, NEWLINE, CLOSE, 22]);
    let text = [20, OPEN, 21, 22, 23];
    assert_eq!(answer(&tags(2, false), &text), text, "amid text it is a word like any other");
    let call = [OPEN, 20, CALL, 21, 22, 23];
    assert_eq!(answer(&tags(2, false), &call), call, "a call ends it");
}

#[test]
fn sections_share_the_budget_and_none_opens_when_it_is_spent() {
    let two = [OPEN, 20, CLOSE, NEWLINE, OPEN, 21, 22, OPEN, 23];
    let answered = [OPEN, 20, CLOSE, NEWLINE, OPEN, 21, NEWLINE, CLOSE, 22, OPEN, 23];
    assert_eq!(answer(&tags(2, false), &two), answered);
    let again = [OPEN, 20, OPEN, OPEN, 21];
    assert_eq!(answer(&tags(1, false), &again), [OPEN, 20, NEWLINE, CLOSE, 21]);
    // The forced end begins a header: of any channel but the one of reasoning.
    let messages = [2, 3, 20, 21, 3, 5, 22, 4, 2, 3, 6, 3];
    assert_eq!(answer(&channels(1), &messages), [2, 3, 20, 4, 2, 21, 3, 5, 22, 4, 2, 6, 3]);
}

#[test]
fn what_routers_send_is_checked_and_the_field_named() {
    let spec = Witness::new(WitnessSpec::small()).unwrap().spec().clone();
    let good = ThinkingBudget {
        tokens_max: 3,
        open_ids: vec![7],
        close_ids: vec![8],
        end_ids: vec![8],
        ..ThinkingBudget::default()
    };
    assert_eq!(ThinkingRule::from_wire(good.clone(), &spec).unwrap().end, [8]);
    let many = vec![1; IDS_MAX + 1];
    for (bad, field) in [
        (ThinkingBudget { open_ids: Vec::new(), ..good.clone() }, "open_ids"),
        (ThinkingBudget { open_ids: vec![7, 6, 7], ..good.clone() }, "open_ids"),
        (ThinkingBudget { end_ids: Vec::new(), ..good.clone() }, "end_ids"),
        (ThinkingBudget { end_ids: vec![spec.vocab_size], ..good.clone() }, "end_ids"),
        (ThinkingBudget { close_ids: many.clone(), ..good.clone() }, "close_ids"),
        (ThinkingBudget { blank_ids: many, ..good }, "blank_ids"),
    ] {
        let refused = ThinkingRule::from_wire(bad, &spec).unwrap_err();
        assert_eq!(refused.field, format!("submit.thinking.{field}"));
    }
}
