//! What is played, on any path, and which scripts are refused.
#![allow(clippy::unwrap_used)]

use super::{Rule, Script, ScriptError, Scripted, When};
use crate::api::Engine;
use crate::witness::rig::{Rig, Sequence};
use crate::witness::{Witness, WitnessSpec};
use baton_proto::ids::TokenId;
use std::cell::Cell;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

fn spec() -> WitnessSpec {
    WitnessSpec { block_tokens: 16, vocab: 300, eos: vec![256, 257], ..WitnessSpec::small() }
}

/// One token per byte.
#[expect(clippy::unnecessary_wraps, reason = "the shape of a tokenizer")]
fn encode(text: &str) -> Result<Vec<TokenId>, Infallible> {
    Ok(text.bytes().map(TokenId::from).collect())
}

fn decode(ids: &[TokenId]) -> String {
    ids.iter().filter_map(|id| char::from_u32(*id)).collect()
}

fn engine(script: &str) -> Scripted {
    let script = Script::parse(script, encode).unwrap();
    Scripted::new(spec(), script, Box::new(decode)).unwrap()
}

fn play(
    engine: &mut Scripted,
    prompt: &[TokenId],
    n: usize,
    suppressed: &[TokenId],
) -> Vec<TokenId> {
    let mut rig = Rig::new(engine.spec(), 32, 0xEE);
    let mut sequence = Sequence::new(1, prompt, 0, n);
    sequence.suppressed = suppressed.to_vec();
    rig.run(engine, &mut sequence, 7);
    engine.forget(sequence.key);
    sequence.answer().to_vec()
}

const SCRIPT: &str = r#"
{"when": "weather", "say": "rain"}
{"when": [5, 6], "say": [7, 8, 9]}

{"say": ""}
"#;

#[test]
fn the_first_rule_that_fits_is_played_then_the_end_token() {
    let mut engine = engine(SCRIPT);
    let rain: Vec<TokenId> = [114, 97, 105, 110, 256, 256].to_vec();
    assert_eq!(play(&mut engine, &encode("the weather here").unwrap(), 6, &[]), rain);
    assert_eq!(play(&mut engine, &[1, 5, 6, 2], 4, &[]), [7, 8, 9, 256]);
    assert_eq!(play(&mut engine, &[5, 1, 6], 2, &[]), [256, 256]);
    let mut both = encode("weather").unwrap();
    both.extend([5, 6]);
    assert_eq!(play(&mut engine, &both, 2, &[]), rain[..2]);
}

#[test]
fn without_a_fitting_rule_the_answer_is_empty() {
    let mut engine = engine(r#"{"when": "x", "say": "y"}"#);
    assert_eq!(play(&mut engine, &[1, 2], 1, &[]), [256]);
}

#[test]
fn suppressed_tokens_give_way() {
    let mut engine = engine(SCRIPT);
    assert_eq!(play(&mut engine, &[5, 6], 8, &[256, 257]), [7, 8, 9, 7, 8, 9, 7, 8]);
    assert_eq!(play(&mut engine, &[5, 6], 4, &[8, 256]), [7, 9, 9, 7]);
    assert_eq!(play(&mut engine, &[1], 2, &[0, 256, 257]), [1, 1]);
}

#[test]
fn a_replayed_answer_goes_on_and_blocks_are_the_same() {
    let say: Vec<TokenId> = (0..60).collect();
    let rules = vec![Rule { when: When::Tokens(vec![99]), say: say.clone() }];
    let new = || Scripted::new(spec(), Script::new(rules.clone()), Box::new(decode)).unwrap();
    let mut whole = new();
    let mut rig = Rig::new(whole.spec(), 32, 0xEE);
    let mut first = Sequence::new(1, &[99; 10], 0, 50);
    rig.run(&mut whole, &mut first, 3);
    assert_eq!(first.answer(), &say[..50]);

    // Another worker gets the ids so far, computes what is missing, and continues.
    let mut other = new();
    let mut second = Sequence::new(7, &[99; 10], 0, 50);
    second.tokens.extend(&say[..30]);
    let mut elsewhere = Rig::new(other.spec(), 32, 0x11);
    elsewhere.run(&mut other, &mut second, 64);
    assert_eq!(second.answer(), first.answer());
    assert!(elsewhere.full_blocks(&second) == rig.full_blocks(&first));
    // The witness of the same name writes other bytes: neither can take the other's blocks.
    let witness = Witness::new(spec()).unwrap();
    assert_ne!(witness.spec().weights_digest, whole.spec().weights_digest);
}

#[test]
fn a_prompt_is_decoded_once_for_all_its_draws() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let script = Script::parse(SCRIPT, encode).unwrap();
    let decode = move |ids: &[TokenId]| {
        counted.fetch_add(1, Ordering::Relaxed);
        decode(ids)
    };
    let mut engine = Scripted::new(spec(), script, Box::new(decode)).unwrap();
    play(&mut engine, &[1, 2, 3], 20, &[]);
    assert_eq!(count.load(Ordering::Relaxed), 1);
}

#[test]
fn bad_scripts_are_refused_by_line() {
    let refused = |lines: &str| Script::parse(lines, encode).unwrap_err().to_string();
    for (lines, says) in [
        ("\n{\"say\": 3}", "script, line 2: expected a text or a list of token ids"),
        (r#"{"say": [-1]}"#, "script, line 1: expected a text or a list of token ids"),
        (r#"{"say": "a", "wen": "b"}"#, "script, line 1: unknown field `wen`"),
        (r#"{"when": "a"}"#, "script, line 1: missing field `say`"),
        ("{\"say\": []}\nnonsense", "script, line 2: expected ident"),
    ] {
        let message = refused(lines);
        assert!(message.starts_with(says), "{message}");
    }
    let many = "{\"say\":[]}\n".repeat(10_001);
    assert!(refused(&many).starts_with("script, line 10001: at most 10000 rules"));

    let calls = Cell::new(0);
    let failing = |_: &str| -> Result<Vec<TokenId>, &str> {
        calls.set(calls.get() + 1);
        Err("no such letter")
    };
    let error = Script::parse(r#"{"say": "a"}"#, failing).unwrap_err();
    assert_eq!(error.to_string(), "script, line 1: `say`: no such letter");
    assert_eq!(calls.get(), 1);

    let script = Script::parse(r#"{"say": [300]}"#, encode).unwrap();
    let error = Scripted::new(spec(), script, Box::new(decode)).unwrap_err();
    assert_eq!(error, ScriptError::Token { token: 300, vocab: 300 });
}
