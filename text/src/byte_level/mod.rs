//! Ids of byte-level tokenizers, by pieces that were seen before.
//!
//! The tokenizers library keeps for every character where it came from, which nobody asks for
//! here, and that is most of its time. This does what it does, and no more: added tokens are found
//! in the text, what is between them is normalised and split at the patterns, and a piece's ids are
//! those that the library's model has for it, kept for the next time.
//!
//! Only for tokenizers whose every part is known ([`ByteLevel::of`]). The ids are the library's, but
//! for one difference: its engine of patterns gives up when a match takes a million steps back, and
//! takes the rest of the text as one piece. This one gives the pieces of the pattern.

mod markers;
mod memo;
mod splitter;

use crate::EncodeError;
use crate::known::{self, Normalizer};
use baton_proto::ids::TokenId;
use markers::Markers;
use memo::Memo;
use splitter::Splitter;
use std::borrow::Cow;
use std::sync::Mutex;
use tokenizers::{Model, ModelWrapper, Tokenizer};
use unicode_normalization_alignments::{IsNormalized, UnicodeNormalization, is_nfc_quick};

/// So many workspaces are kept for later texts. Texts at the same time have one each, of 4 MB at most and
/// 1 MB for each further pattern.
const IDLE_MAX: usize = 64;

/// What is known of a byte-level tokenizer.
pub(crate) struct ByteLevel {
    /// Added tokens that are looked for in the text as it is.
    markers: Markers,
    /// Added tokens that are looked for in the normalised text.
    normalized: Markers,
    compose: bool,
    splitters: Vec<Splitter>,
    /// The character that stands for a byte in the vocabulary.
    alphabet: [char; 256],
    idle: Mutex<Vec<Workspace>>,
}

/// What one text needs while it is tokenised.
struct Workspace {
    caches: Vec<splitter::Cache>,
    memo: Memo,
    /// A piece in the vocabulary's characters.
    spelled: String,
}

impl ByteLevel {
    /// Looks a tokenizer up; `None` where it does anything that is not known. Truncation and padding
    /// must have been removed from it.
    pub(crate) fn of(tokenizer: &Tokenizer) -> Option<Self> {
        let model = tokenizer.get_model();
        let is_bpe = matches!(model, ModelWrapper::BPE(_));
        if !is_bpe || !known::is_deterministic(model) || !known::leaves_ids_alone(tokenizer) {
            return None;
        }
        let compose = match Normalizer::of(tokenizer) {
            Normalizer::Nothing => false,
            Normalizer::Nfc => true,
            Normalizer::OtherForm | Normalizer::Unknown => return None,
        };
        let patterns = known::byte_level_patterns(&known::pre_tokenizer(tokenizer))?;
        let normalized = Markers::of(tokenizer, true)?;
        // How such a token is normalised itself is not looked into.
        if compose && !normalized.is_empty() {
            return None;
        }
        Some(Self {
            markers: Markers::of(tokenizer, false)?,
            normalized,
            compose,
            splitters: patterns.into_iter().map(Splitter::new).collect::<Option<_>>()?,
            alphabet: alphabet(),
            idle: Mutex::default(),
        })
    }

    /// Appends the ids of a text. With `special`, special tokens are recognised in it.
    pub(crate) fn encode(
        &self,
        tokenizer: &Tokenizer,
        text: &str,
        special: bool,
        ids: &mut Vec<TokenId>,
    ) -> Result<(), EncodeError> {
        let workspace = self.idle().pop();
        let mut workspace = workspace.unwrap_or_else(|| Workspace {
            caches: self.splitters.iter().map(Splitter::cache).collect(),
            memo: Memo::default(),
            spelled: String::new(),
        });
        let model = tokenizer.get_model();
        TextIds { of: self, model, workspace: &mut workspace, ids }.text(text, special)?;
        let mut idle = self.idle();
        if idle.len() < IDLE_MAX {
            idle.push(workspace);
        }
        Ok(())
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Workspace>> {
        // Nothing panics while it is held.
        self.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The ids of one text, as they come.
struct TextIds<'a> {
    of: &'a ByteLevel,
    model: &'a ModelWrapper,
    workspace: &'a mut Workspace,
    ids: &'a mut Vec<TokenId>,
}

impl TextIds<'_> {
    fn text(&mut self, text: &str, special: bool) -> Result<(), EncodeError> {
        let of = self.of;
        of.markers.split(text, special, &mut |part| match part {
            markers::Part::Token(id) => {
                self.ids.push(id);
                Ok(())
            }
            markers::Part::Text(text) => self.normalize(text, special),
        })
    }

    fn normalize(&mut self, text: &str, special: bool) -> Result<(), EncodeError> {
        let of = self.of;
        let text = if of.compose { composed(text) } else { Cow::Borrowed(text) };
        of.normalized.split(&text, special, &mut |part| match part {
            markers::Part::Token(id) => {
                self.ids.push(id);
                Ok(())
            }
            markers::Part::Text(text) => self.split(0, text),
        })
    }

    /// What the splitters before `level` have left is split further.
    fn split(&mut self, level: usize, text: &str) -> Result<(), EncodeError> {
        let of = self.of;
        let mut start = 0;
        while start < text.len() {
            let end =
                of.splitters[level].piece_end(&mut self.workspace.caches[level], text, start)?;
            if level + 1 < of.splitters.len() {
                self.split(level + 1, &text[start..end])?;
            } else if !self.workspace.memo.append(text, start, end, self.ids) {
                self.merge(&text[start..end])?;
            }
            start = end;
        }
        Ok(())
    }

    /// A piece that is new.
    fn merge(&mut self, piece: &str) -> Result<(), EncodeError> {
        let Workspace { memo, spelled, .. } = &mut *self.workspace;
        spelled.clear();
        spelled.extend(piece.bytes().map(|byte| self.of.alphabet[usize::from(byte)]));
        let tokens = self.model.tokenize(spelled);
        let tokens = tokens.map_err(|e| EncodeError::Tokenizer { reason: e.to_string() })?;
        let before = self.ids.len();
        self.ids.extend(tokens.iter().map(|token| token.id));
        memo.put(piece, &self.ids[before..]);
        Ok(())
    }
}

/// A text in NFC, by the tables that the tokenizers library has.
fn composed(text: &str) -> Cow<'_, str> {
    if text.is_ascii() || is_nfc_quick(text.chars()) == IsNormalized::Yes {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().nfc().map(|(c, _)| c).collect())
}

/// GPT-2's: bytes that are printable in Latin-1 are themselves, all others come after U+00FF in
/// order (`bytes_to_unicode` in github.com/openai/gpt-2, src/encoder.py).
fn alphabet() -> [char; 256] {
    let mut others = '\u{100}'..;
    std::array::from_fn(|byte| match byte as u8 {
        byte @ (b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff) => char::from(byte),
        _ => others.next().unwrap_or_default(),
    })
}
