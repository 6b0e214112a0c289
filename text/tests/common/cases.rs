//! Tokenizers of every common kind, and random texts of what lies in wait for them.

use super::{
    Chance, DEEPSEEK, DEMO, GPT2, GPT4O, LLAMA, QWEN, Spec, byte_level, gpt2, metaspace, sequence,
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

/// A text of what lies in wait.
pub fn text(chance: &mut Chance) -> String {
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
pub type Case = (&'static str, Spec, bool, bool);

/// Tokenizers of every common kind.
pub fn tokenizers() -> Vec<Case> {
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
