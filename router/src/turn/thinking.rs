//! A bound on reasoning, in the ids of the model: the worker counts ids and knows no text.

use crate::parse::{Sections, Style};
use baton_proto::ids::TokenId;
use baton_proto::internal::ThinkingBudget;
use baton_text::TextModel;

/// Ids in a list of a budget, at most: no worker takes more.
const IDS_MAX: usize = 64;
/// Blanks at the end of a prompt that are looked through for the mark of reasoning before them.
const BLANKS_MAX: usize = 64;

/// How a model's reasoning can be bounded. Found once for a model.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Thinking {
    /// The model does not mark any reasoning: there is nothing to bound.
    None,
    /// Its marks are no tokens of their own, so that nobody sees them in ids.
    Unseen,
    /// Between these ids.
    Between(Ids),
}

/// Between which ids reasoning stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Ids {
    open: Vec<TokenId>,
    close: Vec<TokenId>,
    calls: Vec<TokenId>,
    end: Vec<TokenId>,
    blanks: Vec<TokenId>,
    opens_anywhere: bool,
}

impl Thinking {
    /// How the reasoning of a model of this style can be bounded.
    pub(crate) fn new(style: &Style, text: &TextModel) -> Self {
        let Some(sections) = style.sections() else { return Self::None };
        Ids::new(&sections, text).map_or(Self::Unseen, Self::Between)
    }

    /// At most so many tokens of reasoning in an answer to this prompt, where that can be had. `calls`
    /// says whether calls are looked for.
    pub(super) fn budget(
        &self,
        tokens_max: u32,
        prompt: &[TokenId],
        calls: bool,
        text: &TextModel,
    ) -> Option<ThinkingBudget> {
        let Self::Between(ids) = self else { return None };
        let mut close_ids = ids.close.clone();
        close_ids.extend(ids.calls.iter().filter(|_| calls));
        Some(ThinkingBudget {
            tokens_max,
            is_open: ids.are_open(prompt, text),
            open_ids: ids.open.clone(),
            close_ids,
            end_ids: ids.end.clone(),
            opens_anywhere: ids.opens_anywhere,
            blank_ids: ids.blanks.clone(),
        })
    }
}

impl Ids {
    fn new(sections: &Sections, text: &TextModel) -> Option<Self> {
        let id = |word: &&str| id_of(word, text);
        let ids = |words: &[&str]| words.iter().map(id).collect::<Option<Vec<_>>>();
        let newline = sections.newline.then(|| id_of("\n", text)).flatten();
        Some(Self {
            open: ids(&sections.open)?,
            close: ids(&sections.close)?,
            calls: sections.calls.iter().filter_map(|word| text.marker_id(word)).collect(),
            end: newline.into_iter().chain(ids(&sections.end)?).collect(),
            blanks: if sections.opens_anywhere { Vec::new() } else { newlines(text) },
            opens_anywhere: sections.opens_anywhere,
        })
    }

    /// Whether a prompt ends within reasoning, as [`Style::opens_reasoning`] says it of its text.
    fn are_open(&self, prompt: &[TokenId], text: &TextModel) -> bool {
        let is_blank = |id: TokenId| {
            text.token_bytes(id).is_some_and(|bytes| bytes.iter().all(u8::is_ascii_whitespace))
        };
        let last = prompt.iter().rev().take(BLANKS_MAX).find(|id| !is_blank(**id));
        !self.opens_anywhere && last == self.open.last()
    }
}

/// The one token that a word is: a marker, or a part of ordinary text.
fn id_of(word: &str, text: &TextModel) -> Option<TokenId> {
    text.marker_id(word).or_else(|| match text.encode(word, false).ok()?[..] {
        // What is spelled like a tag can be spelled in other ways, too.
        [id] if !word.starts_with(['<', '[']) => Some(id),
        _ => None,
    })
}

/// Tokens that are newlines and nothing else, the shortest first.
fn newlines(text: &TextModel) -> Vec<TokenId> {
    let length = |id| {
        let bytes = text.token_bytes(id).unwrap_or_default();
        (!bytes.is_empty() && bytes.iter().all(|byte| *byte == b'\n')).then_some(bytes.len())
    };
    let mut found: Vec<_> =
        (0..text.vocab_size()).filter_map(|id| Some((length(id)?, id))).collect();
    found.sort_unstable();
    found.into_iter().take(IDS_MAX).map(|(_, id)| id).collect()
}
