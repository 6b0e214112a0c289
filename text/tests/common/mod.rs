//! Tokenizers of every common kind, trained on a few lines, and chance from a seed.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(unreachable_pub, missing_docs, clippy::unwrap_used, reason = "tests, not an interface")]

pub mod cases;

use baton_text::TextModel;
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::BpeTrainer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer};

pub const LLAMA: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
pub const QWEN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
pub const GPT2: &str =
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
pub const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
pub const DEMO: &str = r#"(?: ["{\[]|["{}\[\]:,])+| ?\p{L}+|\p{N}|\s|[^\s\p{L}\p{N}]"#;
/// As in its file, with the line ends themselves in the pattern.
pub const DEEPSEEK: [&str; 3] = [
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
];

/// What a tokenizer is made of.
pub struct Spec {
    /// `BPE`, `Unigram` or `WordPiece`.
    pub kind: &'static str,
    pub normalizer: Json,
    pub pre_tokenizer: Json,
    pub added: Vec<Json>,
    pub dropout: Option<f32>,
    pub template: String,
}

impl Default for Spec {
    fn default() -> Self {
        let marker = |content: &str| {
            json!({"content": content, "special": true, "normalized": false,
                   "lstrip": false, "rstrip": false, "single_word": false})
        };
        Self {
            kind: "BPE",
            normalizer: Json::Null,
            pre_tokenizer: gpt2(),
            added: ["<|im_start|>", "<|im_end|>"].map(marker).to_vec(),
            dropout: None,
            template: String::new(),
        }
    }
}

pub fn byte_level(add_prefix_space: bool, use_regex: bool) -> Json {
    json!({"type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": true,
           "use_regex": use_regex})
}

pub fn gpt2() -> Json {
    byte_level(false, true)
}

/// Splits at patterns, then bytes.
pub fn sequence(patterns: &[&str]) -> Json {
    let split = |pattern: &&str| {
        json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated",
               "invert": false})
    };
    let parts: Vec<Json> = patterns.iter().map(split).chain([byte_level(false, false)]).collect();
    json!({"type": "Sequence", "pretokenizers": parts})
}

pub fn metaspace(prepend_scheme: &str, split: bool) -> Json {
    json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": prepend_scheme, "split": split})
}

/// Texts in which pairs across every kind of border are frequent, so that merges would cross a cut
/// if they could.
const CORPUS: &[&str] = &[
    "<|im_start|>user\nsome words of words, it's what I'll say; don't\n\n  of words\n    word word",
    "1234567 123 12 3.14 x1 {\"a\": 1} -- ... ;\n\n;\n  12 345 of words 123 word\r\n\r\nof words",
    "漢字かな 漢 字 한국어 مرحبا é e\u{301} ﬁ Å ß İ Σ ▁▁ ▁ <mask> [SEP] key word :// /\n/",
    "assistant\nuser\n  of words \n of words\t\tword  word   word    word of words of words",
];

/// A model with the vocabulary of a BPE, whose first piece is what is unknown.
fn other_model(kind: &str, vocab: &Json) -> Json {
    let mut pieces: Vec<(&str, u64)> = vocab
        .as_object()
        .unwrap()
        .iter()
        .map(|(p, id)| (p.as_str(), id.as_u64().unwrap()))
        .collect();
    pieces.sort_by_key(|(_, id)| *id);
    match kind {
        "Unigram" => {
            // Longer pieces came later, and are preferred.
            let scored = |(piece, id): &(&str, u64)| json!([piece, *id as f64 / 1000.0 - 4.0]);
            let vocab: Vec<Json> = pieces.iter().map(scored).collect();
            json!({"type": kind, "unk_id": 0, "vocab": vocab, "byte_fallback": false})
        }
        _ => json!({"type": kind, "unk_token": pieces[0].0, "continuing_subword_prefix": "",
                    "max_input_chars_per_word": 100, "vocab": vocab}),
    }
}

/// The text side of a checkpoint with this tokenizer.
pub fn model(spec: &Spec) -> TextModel {
    load(spec, &trained(spec))
}

/// The text side of a checkpoint with this tokenizer.json.
pub fn load(spec: &Spec, tokenizer: &str) -> TextModel {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), tokenizer).unwrap();
    if !spec.template.is_empty() {
        std::fs::write(dir.path().join("chat_template.jinja"), &spec.template).unwrap();
    }
    TextModel::load(dir.path()).unwrap()
}

/// The tokenizer.json of this tokenizer, trained here.
pub fn trained(spec: &Spec) -> String {
    let bytes = spec.pre_tokenizer.to_string().contains("ByteLevel");
    let empty = json!({
        "normalizer": spec.normalizer, "pre_tokenizer": spec.pre_tokenizer,
        "model": {"type": "BPE", "vocab": {}, "merges": [], "unk_token": null},
    });
    let mut tokenizer = Tokenizer::from_bytes(empty.to_string()).unwrap();
    let mut trainer = BpeTrainer::builder().show_progress(false).vocab_size(700);
    if bytes {
        trainer = trainer.initial_alphabet(ByteLevel::alphabet().into_iter().collect());
    }
    let mut trainer = TrainerWrapper::BpeTrainer(trainer.build());
    tokenizer.train(&mut trainer, CORPUS.iter()).unwrap();
    let added = spec.added.iter().map(|token| serde_json::from_value::<AddedToken>(token.clone()));
    let added: Vec<AddedToken> = added.collect::<Result<_, _>>().unwrap();
    tokenizer.add_tokens(added).unwrap();
    let mut whole: Json = serde_json::from_str(&tokenizer.to_string(false).unwrap()).unwrap();
    whole["model"]["dropout"] = json!(spec.dropout);
    if spec.kind != "BPE" {
        whole["model"] = other_model(spec.kind, &whole["model"]["vocab"]);
    }
    whole["decoder"] = json!({"type": if bytes { "ByteLevel" } else { "Fuse" }});
    if bytes {
        whole["decoder"] = gpt2();
    }
    whole.to_string()
}

/// The smallest tokenizer there is: loading it takes no time.
const TOKENIZER: &str = r#"{"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}}"#;

/// A checkpoint directory with these further files.
pub fn directory(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for (name, text) in [("tokenizer.json", TOKENIZER)].iter().chain(files) {
        std::fs::write(dir.path().join(name), text).expect("the file is written");
    }
    dir
}

/// How often a test does what it does: more in long runs.
pub fn times(short: usize, long: usize) -> usize {
    if std::env::var_os("BATON_LONG").is_some() { long } else { short }
}

/// Numbers from a seed (SplitMix64).
pub struct Chance(u64);

impl Chance {
    /// From `BATON_SEED`, or the same every time.
    pub fn from_environment() -> Self {
        let seed = std::env::var("BATON_SEED").map_or(5, |seed| seed.parse().unwrap());
        println!("BATON_SEED={seed}");
        Self(seed)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}
