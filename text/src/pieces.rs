//! The vocabulary as a table: what each id stands for.

use baton_proto::ids::TokenId;
use tokenizers::Tokenizer;

/// Ids beyond this are not believed: a table of them would be larger than any vocabulary.
const IDS_MAX: u32 = 1 << 24;

/// Every id's piece of text as the vocabulary writes it, before any decoder.
#[derive(Debug)]
pub(crate) struct Pieces {
    text: String,
    /// Where the piece of each id ends in `text`.
    ends: Vec<u32>,
    flags: Vec<Flag>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Flag {
    /// The vocabulary has a hole here.
    Hole,
    Ordinary,
    Special,
}

impl Pieces {
    /// The table of a checkpoint's vocabulary; `Err` gives an id that is absurd.
    pub(crate) fn of(tokenizer: &Tokenizer) -> Result<Self, TokenId> {
        use tokenizers::Model;
        let added = tokenizer.get_added_vocabulary();
        let ids =
            tokenizer.get_vocab(true).into_values().max().map_or(0, |id| id.saturating_add(1));
        if ids > IDS_MAX {
            return Err(ids - 1);
        }
        let mut pieces = Self::empty(ids as usize);
        for id in 0..ids {
            // The same order as in decoding: an added token hides the model's.
            let token =
                added.simple_id_to_token(id).or_else(|| tokenizer.get_model().id_to_token(id));
            match token {
                None => pieces.push("", Flag::Hole),
                Some(token) if added.is_special_token(&token) => {
                    pieces.push(&token, Flag::Special);
                }
                Some(token) => pieces.push(&token, Flag::Ordinary),
            }
        }
        Ok(pieces)
    }

    /// Ordinary pieces in the order of their ids.
    pub(crate) fn synthetic(texts: impl ExactSizeIterator<Item = String>) -> Self {
        let mut pieces = Self::empty(texts.len());
        texts.for_each(|text| pieces.push(&text, Flag::Ordinary));
        pieces
    }

    fn empty(ids: usize) -> Self {
        Self { text: String::new(), ends: Vec::with_capacity(ids), flags: Vec::with_capacity(ids) }
    }

    fn push(&mut self, piece: &str, flag: Flag) {
        self.text.push_str(piece);
        self.ends.push(u32::try_from(self.text.len()).expect("a vocabulary of less than 4 GiB"));
        self.flags.push(flag);
    }

    /// The number of ids, holes included.
    pub(crate) fn len(&self) -> u32 {
        self.ends.len() as u32
    }

    /// The piece of an id that the vocabulary has.
    pub(crate) fn get(&self, id: TokenId) -> Option<&str> {
        let i = id as usize;
        if *self.flags.get(i)? == Flag::Hole {
            return None;
        }
        let start = if i == 0 { 0 } else { self.ends[i - 1] as usize };
        Some(&self.text[start..self.ends[i] as usize])
    }

    pub(crate) fn is_special(&self, id: TokenId) -> bool {
        self.flags.get(id as usize) == Some(&Flag::Special)
    }
}
