//! Ids that are made by pieces are those of the tokenizers library, whatever the tokenizer and text.
//!
//! The random texts are made of what lies in wait at the borders of pieces. `BATON_SEED` replays a
//! run, `BATON_LONG` makes fifty times as many.

mod common;

use baton_text::TextModel;
use common::cases::{text, tokenizers};
use common::{Chance, GPT2, LLAMA, QWEN, Spec, load, model, sequence, times, trained};
use serde_json::json;
use tokenizers::Tokenizer;

/// Every tokenizer of which all parts are known.
const BY_PIECES: &[&str] = &[
    "gpt-2",
    "gpt-2, written out",
    "demo",
    "gpt-4o",
    "llama 3",
    "qwen",
    "deepseek",
    "longer markers",
    "ordinary words",
    "ordinary blanks",
];

fn is_by_pieces(model: &TextModel) -> bool {
    format!("{model:?}").contains("by_pieces: true")
}

/// The library's own ids.
fn reference(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    tokenizer.encode_fast(text, false).expect("an encoding").get_ids().to_vec()
}

/// The library without special tokens, where there are any.
fn literal(tokenizer: &Tokenizer) -> Tokenizer {
    let mut literal = tokenizer.clone();
    literal.set_encode_special_tokens(true);
    literal
}

#[test]
fn ids_are_those_of_the_library() {
    let mut chance = Chance::from_environment();
    for (name, spec, ..) in tokenizers() {
        let file = trained(&spec);
        let model = load(&spec, &file);
        assert_eq!(is_by_pieces(&model), BY_PIECES.contains(&name), "{name}");
        if spec.dropout.is_some() {
            continue;
        }
        let tokenizer = Tokenizer::from_bytes(&file).expect("a tokenizer");
        let literal = literal(&tokenizer);
        for _ in 0..times(200, 10_000) {
            let text = text(&mut chance);
            let ours = model.encode_rendered(&text).expect("ids");
            assert_eq!(ours, reference(&tokenizer, &text), "{name}: {text:?}");
            let ours = model.encode(&text, false).expect("ids");
            assert_eq!(ours, reference(&literal, &text), "{name}, as text: {text:?}");
        }
    }
}

/// Every character of Unicode, by itself and between others: the classes of the patterns and the
/// composition are the library's.
#[test]
fn every_character_is_classed_as_the_library_does() {
    let nfc = json!({"type": "NFC"});
    let step = times(7, 1);
    for (name, spec) in [
        ("gpt-2", Spec { pre_tokenizer: sequence(&[GPT2]), ..Spec::default() }),
        ("llama 3", Spec { pre_tokenizer: sequence(&[LLAMA]), ..Spec::default() }),
        ("qwen", Spec { pre_tokenizer: sequence(&[QWEN]), normalizer: nfc, ..Spec::default() }),
    ] {
        let file = trained(&spec);
        let model = load(&spec, &file);
        assert!(is_by_pieces(&model));
        let tokenizer = Tokenizer::from_bytes(&file).expect("a tokenizer");
        let characters: Vec<char> = ('\0'..=char::MAX).step_by(step).collect();
        for some in characters.chunks(64) {
            let parts = some.iter().map(|c| format!("{c} {c}a1{c}'{c} ,{c}"));
            let text = parts.collect::<Vec<_>>().concat();
            let ours = model.encode_rendered(&text).expect("ids");
            assert_eq!(ours, reference(&tokenizer, &text), "{name}: {text:?}");
        }
    }
}

/// More pieces than are remembered, and one text on several threads.
#[test]
fn what_is_forgotten_is_made_again() {
    let spec = Spec { pre_tokenizer: sequence(&[QWEN]), ..Spec::default() };
    let file = trained(&spec);
    let model = load(&spec, &file);
    let tokenizer = Tokenizer::from_bytes(&file).expect("a tokenizer");
    let word = |n: usize| {
        let letter = |shift: usize| char::from(b'a' + (n / 26_usize.pow(shift as u32) % 26) as u8);
        (0..4).map(letter).collect::<String>()
    };
    let words: Vec<String> = (0..80_000).map(|n| word(n * 5)).collect();
    let text = words.join(" ");
    let expected = reference(&tokenizer, &text);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..2 {
                    assert!(model.encode_rendered(&text).expect("ids") == expected, "other ids");
                }
            });
        }
    });
}

/// The library's engine gives up on such runs; the pattern itself has an answer.
#[test]
fn long_runs_have_the_pieces_of_the_pattern() {
    let model = model(&Spec { pre_tokenizer: sequence(&[LLAMA]), ..Spec::default() });
    let word = model.encode_rendered(" word").expect("ids");
    let blanks = " ".repeat(1_200_000);
    let text = format!("{blanks} word{blanks}\n word");
    let ids = model.encode_rendered(&text).expect("ids");
    assert!(ids.ends_with(&word));
    let alone = model.encode_rendered(&blanks).expect("ids");
    assert!(ids.starts_with(&alone), "the run is one piece");
    assert_eq!(ids[alone.len()..alone.len() + word.len()], word);
}
