//! Which tokens a message is made of, and how likely each was.

use crate::api::logprobs;
use crate::parse::Event;
use crate::turn::{AnswerToken, Delta};
use baton_text::TextModel;
use serde_json::Value;
use std::sync::Arc;

/// Tells the tokens of words from those of thoughts, calls and markers.
pub(super) struct Spoken {
    text: Arc<TextModel>,
    /// Tokens of which it is not certain yet what they say; bounded by what a parser holds back.
    waiting: Vec<AnswerToken>,
}

impl Spoken {
    pub(super) fn new(text: &Arc<TextModel>) -> Self {
        Self { text: text.clone(), waiting: Vec::new() }
    }

    /// The log-probabilities that belong to each event of a piece; none to what is no text.
    pub(super) fn read(&mut self, delta: &Delta) -> Vec<Vec<Value>> {
        let words = delta.events.iter().map(|event| match event {
            Event::Text(text) => Some(text),
            _ => None,
        });
        let words: Vec<_> = words.collect();
        let mut shown = vec![Vec::new(); words.len()];
        for token in delta.tokens.iter().filter(|token| !token.is_end) {
            if !token.is_marker {
                self.waiting.push(token.clone());
            } else if token.event.is_none() {
                self.waiting.clear();
            }
            let Some(event) = token.event else { continue };
            let waiting = std::mem::take(&mut self.waiting);
            if let Some(Some(text)) = words.get(event) {
                let begins = shown[event].is_empty();
                shown[event].extend(self.show(&waiting, text, begins));
            }
        }
        shown
    }

    /// Tokens with nothing but blanks, before words that begin without one, were between the words
    /// and something else.
    fn show(&self, tokens: &[AnswerToken], text: &str, is_first: bool) -> Vec<Value> {
        let tight = is_first && !text.starts_with(char::is_whitespace);
        let is_blank = |token: &AnswerToken| {
            let word = self.text.token_text(token.id).unwrap_or_default();
            word.chars().all(char::is_whitespace)
        };
        let said = tokens.iter().skip_while(|token| tight && is_blank(token));
        said.map(|token| logprobs::entry(&self.text, token)).collect()
    }
}
