//! The detokeniser's pieces always add up to the decoding of the whole, as the tokenizers
//! library gives it.

use baton_text::TextModel;
use proptest::prelude::*;
use serde_json::json;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use tokenizers::Tokenizer;

/// A model of ours and the library's own view of the same file.
struct Pair {
    model: Arc<TextModel>,
    tokenizer: Tokenizer,
}

impl Pair {
    fn load(dir: &Path) -> Self {
        let tokenizer = Tokenizer::from_file(dir.join("tokenizer.json")).expect("the file loads");
        Self { model: Arc::new(TextModel::load(dir).expect("the model loads")), tokenizer }
    }

    /// A vocabulary of single bytes, spaces as `▁` and some words, under this decoder.
    fn with_decoder(decoder: &serde_json::Value) -> Self {
        let mut vocab = serde_json::Map::new();
        let bytes = (0..=255).map(|byte| format!("<0x{byte:02X}>"));
        let words =
            ["▁", "▁▁", "▁a", "b▁c", "☃", " ", " x ", "<0xZZ>", "  ", "é"].map(str::to_owned);
        for (id, piece) in bytes.chain(words).enumerate() {
            vocab.insert(piece, json!(id));
        }
        let special = json!({"id": 266, "content": "<s>", "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true});
        let tokenizer = json!({
            "model": {"type": "BPE", "vocab": vocab, "merges": []},
            "added_tokens": [special],
            "decoder": decoder,
        });
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).expect("written");
        Self::load(dir.path())
    }

    fn check(&self, ids: &[u32]) -> Result<(), TestCaseError> {
        for skip in [true, false] {
            let mut detokenizer =
                if skip { self.model.detokenizer() } else { self.model.detokenizer_with_special() };
            // Twice: finishing leaves nothing behind.
            for _ in 0..2 {
                let mut text: String = ids.iter().map(|id| detokenizer.push(*id)).collect();
                text.push_str(&detokenizer.finish());
                prop_assert_eq!(&text, &self.tokenizer.decode(ids, skip).expect("decoding"));
            }
        }
        Ok(())
    }
}

static TINY: LazyLock<Pair> = LazyLock::new(|| {
    Pair::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/models/tiny-qwen3"))
});
static SENTENCEPIECE: LazyLock<Pair> = LazyLock::new(|| {
    Pair::with_decoder(&json!({"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}))
});
static OTHERS: LazyLock<Vec<Pair>> = LazyLock::new(|| {
    let metaspace = |scheme: &str| json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": true});
    let decoders = [
        json!(null),
        metaspace("always"),
        metaspace("never"),
        json!({"type": "Fuse"}),
        json!({"type": "Strip", "content": " ", "start": 2, "stop": 0}),
        json!({"type": "Sequence", "decoders": [
            {"type": "ByteFallback"}, metaspace("first"), {"type": "Fuse"},
            {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"},
            {"type": "Strip", "content": " ", "start": 3, "stop": 0}]}),
    ];
    decoders.iter().map(Pair::with_decoder).collect()
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_ids_of_a_byte_level_vocabulary(ids in prop::collection::vec(0u32..4200, 0..40)) {
        TINY.check(&ids)?;
    }

    /// Single bytes are the first ids after the special ones: nearly nothing is valid UTF-8.
    #[test]
    fn single_bytes(ids in prop::collection::vec(0u32..270, 0..40)) {
        TINY.check(&ids)?;
    }

    #[test]
    fn any_text(text in "\\PC{0,60}") {
        let ids = TINY.model.encode(&text, false).expect("ids");
        TINY.check(&ids)?;
        prop_assert_eq!(TINY.tokenizer.decode(&ids, false).expect("decoding"), text);
    }

    #[test]
    fn any_ids_with_byte_fallback(
        ids in prop::collection::vec(prop_oneof![0u32..267, 0xc0u32..0xf5, 0x80u32..0xc0, 256u32..268], 0..24),
    ) {
        SENTENCEPIECE.check(&ids)?;
        for pair in OTHERS.iter() {
            pair.check(&ids)?;
        }
    }

    /// Characters written as bytes, some of them cut.
    #[test]
    fn characters_as_bytes(text in "[a☃é😀]{1,8}", cut in 0usize..8, word in 256u32..266) {
        let bytes = text.as_bytes();
        let mut ids: Vec<u32> = bytes[..bytes.len() - cut.min(bytes.len())].iter().map(|b| u32::from(*b)).collect();
        ids.push(word);
        ids.extend(bytes.iter().map(|b| u32::from(*b)));
        SENTENCEPIECE.check(&ids)?;
    }
}

#[test]
fn whole_characters_come_at_once_and_parts_do_not() {
    let ids = |text: &str| TINY.model.encode(text, false).expect("ids");
    let snowman = ids("☃");
    assert!(snowman.len() > 1, "the snowman is several tokens");
    let mut detokenizer = TINY.model.detokenizer();
    let (last, first) = snowman.split_last().expect("ids");
    for id in first {
        assert_eq!(detokenizer.push(*id), "");
    }
    assert_eq!(detokenizer.push(*last), "☃");
    assert_eq!(detokenizer.push(snowman[0]), "");
    assert_eq!(detokenizer.finish(), "\u{fffd}");
}

#[test]
fn a_token_by_itself_keeps_its_space() {
    let text = |id| SENTENCEPIECE.model.token_text(id);
    assert_eq!(text(258).as_deref(), Some(" a"));
    assert_eq!(text(0xe2).as_deref(), Some("\u{fffd}"));
    assert_eq!(SENTENCEPIECE.model.token_bytes(0xe2), Some(vec![0xe2]));
    assert_eq!(text(266).as_deref(), Some("<s>"));
    assert!(SENTENCEPIECE.model.is_special(266) && !SENTENCEPIECE.model.is_special(258));
}

/// A run of byte tokens is text only if all of it is valid, so it is held; but not for ever.
#[test]
fn an_endless_run_of_byte_tokens_is_let_through() {
    let mut detokenizer = SENTENCEPIECE.model.detokenizer();
    let mut text = String::new();
    for _ in 0..2000 {
        for byte in "☃".bytes() {
            text.push_str(&detokenizer.push(u32::from(byte)));
        }
    }
    assert!(text.len() > 4000, "{}", text.len());
    text.push_str(&detokenizer.finish());
    assert_eq!(text, "☃".repeat(2000));
}

#[test]
fn synthetic_models_write_every_id() {
    let model = Arc::new(TextModel::synthetic(500));
    let mut detokenizer = model.detokenizer();
    let text: String = [7, 499, 0].iter().map(|id| detokenizer.push(*id)).collect();
    assert_eq!(text + &detokenizer.finish(), " t7 t499 t0");
    assert_eq!(detokenizer.push(500), "");
    assert_eq!(model.encode("hé", true).expect("ids"), [104, 195, 169]);
    assert_eq!(model.token_id(" t12"), Some(12));
    assert_eq!((model.vocab_size(), model.token_id(" t500")), (500, None));
    let small = TextModel::synthetic(10);
    assert!(small.encode("any text", true).expect("ids").iter().all(|id| *id < 10));
}
