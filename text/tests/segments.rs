//! A text's ids are its segments' ids, one after the other, whatever the tokenizer and the text.
//!
//! The random texts are made of what lies in wait at cuts. `BATON_SEED` replays a run, `BATON_LONG`
//! makes fifty times as many.

mod common;

use baton_proto::ids::TokenId;
use baton_text::TextModel;
use common::{
    Chance, DEEPSEEK, DEMO, GPT2, GPT4O, LLAMA, QWEN, Spec, byte_level, gpt2, metaspace, model,
    sequence,
};
use serde_json::{Value as Json, json};

/// What texts are made of; `~` stands for a run of words longer than any part.
#[rustfmt::skip]
const PIECES: &[&str] = &[
    "<|im_start|>", "<|im_end|>", "<|im_end|>>", "<|im_", "|>", "<|", "user", "assistant", "\n", "\n\n", "\r\n", " ",
    "  ", "    ", "\t", " \n ", "\u{a0}", "\u{2003}", "a", "I'll", "it's", "'", "'s ", "'S", "word", " word", "Word. ",
    "don't", "1", "12", "123", "1234567", " 3.14", "x1", "-", "--", "...", "{}", "{\"a\": 1}", ";\n", "e\u{301}",
    "\u{301}", "\u{308}", "é", "ﬁ", "Å", "漢字", "かな", "漢 字", "한국어", "مرحبا", "👩‍👩‍👧", "\u{200d}", "ß", "İ", "Σ", "▁",
    "▁▁", " ▁", "<s>", "</s>", "<mask>", " <mask> ", "[SEP]", "key word", "/", "://", "\u{0}", "\u{1}\u{2}", "~",
];

fn text(chance: &mut Chance) -> String {
    let mut text = String::new();
    for _ in 0..chance.below(30) {
        match PIECES[chance.below(PIECES.len())] {
            "~" => (0..600 + chance.below(600)).for_each(|_| {
                let word = PIECES[chance.below(PIECES.len() - 1)];
                // Sentences, with now and then something else in them.
                text.push_str(if chance.below(4) > 0 || word.starts_with('<') {
                    " of words"
                } else {
                    word
                });
            }),
            piece => text.push_str(piece),
        }
    }
    text
}

fn added(content: &str, flags: &[&str]) -> Json {
    let has = |flag| flags.contains(&flag);
    json!({
        "content": content, "special": !has("ordinary"), "normalized": has("normalized"),
        "lstrip": has("lstrip"), "rstrip": has("rstrip"), "single_word": has("single_word"),
    })
}

/// The markers that every tokenizer here has.
fn markers() -> Vec<Json> {
    vec![
        added("<|im_start|>", &[]),
        added("<|im_end|>", &[]),
        added("<s>", &[]),
        added("</s>", &[]),
    ]
}

/// A tokenizer's name, what it is made of, and where its texts are cut: at markers, inside.
type Case = (&'static str, Spec, bool, bool);

fn tokenizers() -> Vec<Case> {
    let mut cases = common_tokenizers();
    cases.extend(tokenizers_with_more());
    cases
}

fn common_tokenizers() -> Vec<Case> {
    let spec = |pre_tokenizer| Spec { pre_tokenizer, ..Spec::default() };
    let normalized = |pre_tokenizer, normalizer: Json| Spec { normalizer, ..spec(pre_tokenizer) };
    let nfc = || json!({"type": "NFC"});
    let prepend = json!({"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    ]});
    let bert = json!({"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                      "strip_accents": null, "lowercase": true});
    let digits = json!({"type": "Digits", "individual_digits": true});
    vec![
        ("gpt-2", spec(gpt2()), true, true),
        ("gpt-2, written out", spec(sequence(&[GPT2])), true, true),
        ("demo", spec(sequence(&[DEMO])), true, true),
        ("gpt-4o", spec(sequence(&[GPT4O])), true, true),
        ("llama 3", spec(sequence(&[LLAMA])), true, true),
        ("qwen", normalized(sequence(&[QWEN]), nfc()), true, true),
        ("qwen, nfkc", normalized(sequence(&[QWEN]), json!({"type": "NFKC"})), true, true),
        ("deepseek", spec(sequence(&DEEPSEEK)), true, true),
        ("metaspace, first", spec(metaspace("first", true)), true, true),
        ("metaspace, always", spec(metaspace("always", true)), true, true),
        ("metaspace, never", spec(metaspace("never", true)), true, true),
        ("metaspace, unsplit", spec(metaspace("first", false)), true, false),
        (
            "llama 2",
            Spec { normalizer: prepend, pre_tokenizer: Json::Null, ..Spec::default() },
            true,
            false,
        ),
        ("prefix space", spec(byte_level(true, true)), true, false),
        ("unknown pattern", spec(sequence(&[r"\p{L}+\s"])), true, false),
        (
            "digits first",
            spec(json!({"type": "Sequence", "pretokenizers": [digits, gpt2()]})),
            true,
            false,
        ),
        ("lowercase", normalized(gpt2(), json!({"type": "Lowercase"})), true, false),
        (
            "strip",
            normalized(gpt2(), json!({"type": "Strip", "strip_left": true, "strip_right": true})),
            true,
            false,
        ),
        ("dropout", Spec { dropout: Some(0.5), ..spec(gpt2()) }, false, false),
        ("unigram", Spec { kind: "Unigram", ..spec(metaspace("first", true)) }, true, true),
        (
            "unigram, unsplit",
            Spec { kind: "Unigram", ..spec(metaspace("always", false)) },
            true,
            false,
        ),
        (
            "wordpiece",
            Spec { kind: "WordPiece", ..normalized(json!({"type": "BertPreTokenizer"}), bert) },
            true,
            false,
        ),
    ]
}

/// With more added tokens than the markers.
fn tokenizers_with_more() -> Vec<Case> {
    let with = |pre_tokenizer, more: &[(&str, &[&str])]| {
        let more = more.iter().map(|(content, flags)| added(content, flags));
        Spec {
            pre_tokenizer,
            added: markers().into_iter().chain(more).collect(),
            ..Spec::default()
        }
    };
    vec![
        (
            "longer markers",
            with(sequence(&[QWEN]), &[("<|im_end|>>", &[]), ("d<|im_", &[])]),
            true,
            true,
        ),
        ("a mask", with(sequence(&[LLAMA]), &[("<mask>", &["lstrip"])]), true, false),
        ("a greedy mask", with(gpt2(), &[("<mask>", &["lstrip", "rstrip"])]), true, false),
        ("a shy word", with(gpt2(), &[("word", &["single_word"])]), true, false),
        (
            "a shy word beside words",
            with(gpt2(), &[("word", &["single_word"]), ("user", &[])]),
            true,
            false,
        ),
        ("blanks", with(gpt2(), &[("  ", &[]), ("<mask>", &["rstrip"])]), true, false),
        (
            "ordinary words",
            with(sequence(&[LLAMA]), &[("word", &["ordinary", "normalized"])]),
            true,
            true,
        ),
        ("ordinary blanks", with(gpt2(), &[("s of", &["ordinary", "normalized"])]), true, false),
    ]
}

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
