//! A text's ids are its segments' ids, one after the other, whatever the tokenizer and the text.
//!
//! The random texts are made of what lies in wait at cuts. `BATON_SEED` replays a run, `BATON_LONG`
//! makes fifty times as many.

mod common;

use baton_proto::ids::TokenId;
use baton_text::TextModel;
use common::cases::{text, tokenizers};
use common::{Chance, DEEPSEEK, DEMO, GPT2, GPT4O, LLAMA, QWEN, Spec, gpt2, model, sequence};

fn ids(model: &TextModel, text: &str) -> Vec<TokenId> {
    model.encode_rendered(text).expect("ids")
}

fn cut<'t>(model: &TextModel, text: &'t str) -> Vec<&'t str> {
    model.segments(text, 0).expect("segments").iter().map(|segment| segment.text).collect()
}

fn piecewise(model: &TextModel, segments: &[&str]) -> Vec<TokenId> {
    segments.iter().flat_map(|segment| ids(model, segment)).collect()
}

#[test]
fn segments_give_the_ids_of_the_whole() {
    let mut chance = Chance::from_environment();
    for (name, spec, at_markers, inside) in tokenizers() {
        let random = spec.dropout.is_some();
        let model = model(&spec);
        let (mut markers, mut parts) = (0, 0);
        for _ in 0..common::times(100, 5000) {
            let text = text(&mut chance);
            let segments = cut(&model, &text);
            assert_eq!(segments.concat(), text, "{name}");
            assert!(segments.iter().all(|segment| !segment.is_empty()), "{name}");
            let starting = |first: &[char]| {
                segments.iter().skip(1).filter(|segment| segment.starts_with(first)).count()
            };
            markers += starting(&['<']);
            parts += starting(&[' ', '\n']);
            if !random {
                assert_eq!(piecewise(&model, &segments), ids(&model, &text), "{name}: {text:?}");
            }
        }
        assert_eq!(markers > 0, at_markers, "{name}: cut at markers");
        assert_eq!(parts > 0, inside, "{name}: cut inside");
    }
}

/// A rule that is wrong is found out by the same texts.
#[test]
fn wrong_cuts_give_other_ids() {
    type Rule = fn(&[u8]) -> bool;
    // What comes before the cut and after it, by the bytes beside it.
    let rules: [(&str, Rule, &[&str]); 5] = [
        ("before any blank", |pair| pair[1] == b' ', &["gpt-2", "llama 3", "qwen", "deepseek"]),
        (
            "after any blank",
            |pair| pair[0] == b' ',
            &["gpt-2", "llama 3", "qwen", "deepseek", "metaspace, first"],
        ),
        ("before a line feed", |pair| pair[1] == b'\n', &["gpt-2", "llama 3", "qwen", "deepseek"]),
        (
            "between a letter and white space",
            |pair| pair[0].is_ascii_alphabetic() && b" \n".contains(&pair[1]),
            &[
                "metaspace, first",
                "metaspace, unsplit",
                "llama 2",
                "prefix space",
                "unknown pattern",
                "strip",
                "ordinary blanks",
            ],
        ),
        ("before a bracket", |pair| pair[1] == b'<', &["a mask", "gpt-2", "llama 2"]),
    ];
    let mut chance = Chance::from_environment();
    for (rule, is_cut, names) in rules {
        for (name, spec, ..) in tokenizers().into_iter().filter(|(name, ..)| names.contains(name)) {
            let model = model(&spec);
            let found = (0..300).any(|_| {
                let text = text(&mut chance);
                let cuts = (1..text.len()).filter(|at| {
                    text.is_char_boundary(*at) && is_cut(&text.as_bytes()[at - 1..=*at])
                });
                let mut start = 0;
                let mut segments = Vec::new();
                for end in cuts.chain([text.len()]) {
                    segments.push(&text[start..end]);
                    start = end;
                }
                piecewise(&model, &segments) != ids(&model, &text)
            });
            assert!(found, "cuts {rule} go unnoticed with {name}");
        }
    }
}

#[test]
fn a_text_that_goes_on_keeps_its_segments() {
    let model = model(&Spec { pre_tokenizer: sequence(&[QWEN]), ..Spec::default() });
    let mut chance = Chance::from_environment();
    for _ in 0..100 {
        let (first, more) = (text(&mut chance), text(&mut chance));
        let before = cut(&model, &first);
        let whole = format!("{first}{more}");
        let after = cut(&model, &whole);
        let same = before.iter().zip(&after).take_while(|(a, b)| a == b).count();
        // The last one may grow, and a marker may come about where one text ends.
        assert!(same + 2 >= before.len(), "{same} of {}", before.len());
    }
}

#[test]
fn firm_segments_are_those_of_all_texts_that_begin_alike() {
    let mut chance = Chance::from_environment();
    let offsets = |model: &TextModel, text: &str| -> Vec<(usize, bool)> {
        let mut at = 0;
        let segments = model.segments(text, 0).expect("segments");
        let begin = |segment: &baton_text::Segment<'_>| {
            at += segment.text.len();
            (at - segment.text.len(), segment.firm)
        };
        segments.iter().map(begin).collect()
    };
    for (name, spec, ..) in tokenizers() {
        let model = model(&spec);
        for _ in 0..common::times(100, 5000) {
            let head =
                text(&mut chance) + ["", "<|im_end|", "<|im_", "word", "\n"][chance.below(5)];
            let [one, other] = [(); 2].map(|()| {
                let tail = [">", ">>", "|>", " ", "end|>"][chance.below(5)];
                format!("{head}{tail}{}", text(&mut chance))
            });
            let alike = one.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
            let theirs = offsets(&model, &other);
            for (at, firm) in offsets(&model, &one) {
                let certain = firm && at + model.lookahead() <= alike && at < other.len();
                assert!(!certain || theirs.contains(&(at, true)), "{name}: {one:?} {other:?} {at}");
            }
        }
    }
}

#[test]
fn parts_are_short_or_there_are_none() {
    let model = model(&Spec { pre_tokenizer: gpt2(), ..Spec::default() });
    let words = "some words ".repeat(20_000);
    let segments = cut(&model, &words);
    assert!(segments.iter().all(|segment| segment.len() < 600));
    // The pattern's engine gives up on such a run, and takes the rest as one piece.
    for blanks in [70_000, 1_200_000] {
        let text = format!("{words}{}{words}<|im_end|>{words}", " ".repeat(blanks));
        let segments = cut(&model, &text);
        assert_eq!(segments[0].len(), 2 * words.len() + blanks, "one segment up to the marker");
        assert!(segments.len() > 10);
        assert_eq!(piecewise(&model, &segments), ids(&model, &text));
    }
}

/// The pattern's engine counts its steps back; the longest run that a part may hold is far from its
/// limit, of whatever characters.
#[test]
fn long_runs_do_not_wear_the_engine_out() {
    let runs =
        [" ", "\n", "\u{1}", "A", "Aa", "漢", "1", "'", "\u{301}", "Ａ", " \u{1}", "\u{200d}"];
    let words = " of words".repeat(300);
    for (name, patterns) in [
        ("gpt-2", &[GPT2][..]),
        ("demo", &[DEMO]),
        ("gpt-4o", &[GPT4O]),
        ("llama 3", &[LLAMA]),
        ("qwen", &[QWEN]),
        ("deepseek", &DEEPSEEK),
    ] {
        let model = model(&Spec { pre_tokenizer: sequence(patterns), ..Spec::default() });
        for run in runs {
            let text = format!("{words}{}{words}", run.repeat(14_000 / run.len()));
            let segments = cut(&model, &text);
            assert!(segments.len() > 2, "{name}, {run:?}: {} segments", segments.len());
            assert_eq!(piecewise(&model, &segments), ids(&model, &text), "{name}, {run:?}");
        }
    }
}

#[test]
fn synthetic_texts_are_cut_anywhere() {
    let model = TextModel::synthetic(100);
    let text = "漢字 and more\n".repeat(2000);
    let segments = cut(&model, &text);
    assert!(segments.len() > 5);
    assert_eq!(piecewise(&model, &segments), ids(&model, &text));
}
