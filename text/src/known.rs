//! What is known of a tokenizer, so that something can be proven of its ids.

use aho_corasick::{AhoCorasick, MatchKind};
use baton_proto::ids::TokenId;
use serde_json::Value as Json;
use tokenizers::{AddedToken, ModelWrapper, Tokenizer};

/// GPT-2's pattern; `ByteLevel` has it built in.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// GPT-4o's pattern is the longest of them; all others are variations of GPT-2's.
const PATTERNS: [&str; 6] = [
    // Llama 3.
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    // Qwen 2, 2.5 and 3.
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    GPT2,
    // GPT-4o and what follows it.
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    // DeepSeek V3, after its splits at digits and at Chinese and Japanese.
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##,
    // The demo model's, which looks at nothing around a match.
    r#"(?: ["{\[]|["{}\[\]:,])+| ?\p{L}+|\p{N}|\s|[^\s\p{L}\p{N}]"#,
];
/// Splits that may stand before the pattern: neither knows letters or white space.
const SPLITS_BEFORE: [&str; 2] = [r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+"];

/// What is done to a text before it is pre-tokenised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Normalizer {
    /// Nothing.
    Nothing,
    /// Unicode's canonical composition.
    Nfc,
    /// NFD, NFKC or NFKD.
    OtherForm,
    /// Anything else.
    Unknown,
}

impl Normalizer {
    pub(crate) fn of(tokenizer: &Tokenizer) -> Self {
        let Some(normalizer) = tokenizer.get_normalizer() else { return Self::Nothing };
        let Ok(json) = serde_json::to_value(normalizer) else { return Self::Unknown };
        match json["type"].as_str() {
            Some("NFC") => Self::Nfc,
            Some("NFD" | "NFKC" | "NFKD") => Self::OtherForm,
            Some("Sequence") if json["normalizers"].as_array().is_some_and(Vec::is_empty) => {
                Self::Nothing
            }
            _ => Self::Unknown,
        }
    }
}

/// The pre-tokenizer as its file has it.
pub(crate) fn pre_tokenizer(tokenizer: &Tokenizer) -> Json {
    let json = tokenizer.get_pre_tokenizer().map(serde_json::to_value);
    json.and_then(Result::ok).unwrap_or(Json::Null)
}

/// The patterns that a byte-level pre-tokenizer splits by, one after the other, before it takes the
/// pieces as bytes; `None` if it does anything else, or has a pattern that is not known.
pub(crate) fn byte_level_patterns(pre_tokenizer: &Json) -> Option<Vec<&'static str>> {
    if is_byte_level(pre_tokenizer, true) {
        return Some(vec![GPT2]);
    }
    let parts = pre_tokenizer["pretokenizers"].as_array();
    let parts = parts.filter(|_| pre_tokenizer["type"] == "Sequence")?;
    let [before @ .., pattern, bytes] = &parts[..] else { return None };
    if !is_byte_level(bytes, false) {
        return None;
    }
    let before = before.iter().map(|split| split_pattern(split, &SPLITS_BEFORE));
    before.chain([split_pattern(pattern, &PATTERNS)]).collect()
}

fn is_byte_level(json: &Json, use_regex: bool) -> bool {
    json["type"] == "ByteLevel"
        && json["add_prefix_space"] == false
        && json["use_regex"] == use_regex
}

fn split_pattern(json: &Json, patterns: &[&'static str]) -> Option<&'static str> {
    let isolated = json["behavior"] == "Isolated" && json["invert"] == false;
    if json["type"] != "Split" || !isolated {
        return None;
    }
    let written = json["pattern"]["Regex"].as_str()?;
    // Some files have the characters themselves where others have their escapes.
    let written = written.replace('\r', r"\r").replace('\n', r"\n");
    patterns.iter().find(|pattern| **pattern == written).copied()
}

/// The added tokens that are looked for in the normalised text, or else in the text as it is.
pub(crate) fn added_tokens(tokenizer: &Tokenizer, normalized: bool) -> Vec<(TokenId, AddedToken)> {
    let mut added: Vec<_> = tokenizer.get_added_tokens_decoder().into_iter().collect();
    added.retain(|(_, token)| token.normalized == normalized);
    added
}

/// Finds added tokens as a tokenizer does: from left to right, the longest where several begin.
pub(crate) fn finder(added: &[(TokenId, AddedToken)]) -> Option<AhoCorasick> {
    let contents = added.iter().map(|(_, token)| &token.content);
    AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(contents).ok()
}

/// Whether the same text always has the same ids: dropout and sampling draw them.
pub(crate) fn is_deterministic(model: &ModelWrapper) -> bool {
    match model {
        ModelWrapper::BPE(bpe) => bpe.dropout.is_none_or(|dropout| dropout == 0.0),
        ModelWrapper::Unigram(unigram) => unigram.alpha.is_none_or(|alpha| alpha == 0.0),
        ModelWrapper::WordPiece(_) | ModelWrapper::WordLevel(_) => true,
    }
}

/// Whether the post-processor, asked to add nothing, changes nothing.
pub(crate) fn leaves_ids_alone(tokenizer: &Tokenizer) -> bool {
    match tokenizer.get_post_processor() {
        None => true,
        Some(processor) => serde_json::to_value(processor).is_ok_and(|json| is_neutral(&json)),
    }
}

fn is_neutral(processor: &Json) -> bool {
    let list = |key: &str| processor[key].as_array().into_iter().flatten();
    match processor["type"].as_str() {
        Some("ByteLevel" | "BertProcessing" | "RobertaProcessing") => true,
        // The text once; a template could also repeat it.
        Some("TemplateProcessing") => {
            list("single").filter(|piece| piece.get("Sequence").is_some()).count() == 1
        }
        Some("Sequence") => list("processors").all(is_neutral),
        _ => false,
    }
}
