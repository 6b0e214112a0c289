//! What a checkpoint says about text: its tokenizer, its vocabulary and its chat template.

use crate::byte_level::ByteLevel;
use crate::decoder::{self, Stage};
use crate::files::{self, TokenizerConfig};
use crate::pieces::Pieces;
use crate::segments::{Cuts, Segment};
use crate::template::Templates;
use crate::{
    Detokenizer, EncodeError, LoadError, PromptError, RenderError, SamplingDefaults, synthetic,
};
use baton_proto::ids::TokenId;
use baton_proto::ir;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};
use tokenizers::Tokenizer;

/// Says what time it is, as time since the Unix epoch; templates may print the date.
pub type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// Bounds on what a request may make the text functions do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// The longest text that is tokenised, in bytes; also the longest rendering.
    pub text_bytes: usize,
    /// The steps that rendering a conversation may take.
    pub template_fuel: u64,
}

impl Default for Limits {
    /// Enough for contexts of several million tokens.
    fn default() -> Self {
        Self { text_bytes: 32 << 20, template_fuel: 10_000_000 }
    }
}

/// A model's text side. Loaded once, shared by an `Arc`.
pub struct TextModel {
    codec: Codec,
    cuts: Cuts,
    pub(crate) pieces: Pieces,
    /// The decoder in its initial state.
    pub(crate) stages: Vec<Stage>,
    templates: Templates,
    sampling: SamplingDefaults,
    limits: Limits,
    clock: Clock,
}

/// How text becomes ids.
enum Codec {
    Checkpoint(Box<Checkpoint>),
    /// Bytes modulo the vocabulary's size; see [`TextModel::synthetic`].
    Synthetic,
}

struct Checkpoint {
    tokenizer: Tokenizer,
    /// Gives the tokenizer's ids with less work, where it is known how.
    byte_level: Option<ByteLevel>,
    /// A copy for which special tokens in the text are ordinary text; made when first needed.
    literal: OnceLock<Tokenizer>,
    /// What stands before every text: bos, for the models that want it.
    prefix: Vec<TokenId>,
}

impl TextModel {
    /// Reads tokenizer.json and what else a checkpoint directory says about text.
    pub fn load(dir: &Path) -> Result<Self, LoadError> {
        Self::load_with(dir, Limits::default())
    }

    /// Like [`TextModel::load`], with other limits.
    pub fn load_with(dir: &Path, limits: Limits) -> Result<Self, LoadError> {
        let path = dir.join("tokenizer.json");
        let malformed = |reason: String| LoadError::Malformed { path: path.clone(), reason };
        let bytes = files::read(&path, true)?.unwrap_or_default();
        let mut tokenizer = Tokenizer::from_bytes(&bytes).map_err(|e| malformed(e.to_string()))?;
        // Leftovers of training; a prompt is never cut or filled silently.
        tokenizer.with_truncation(None).map_err(|e| malformed(e.to_string()))?;
        tokenizer.with_padding(None);

        let pieces = Pieces::of(&tokenizer)
            .map_err(|id| malformed(format!("a token has the id {id}, which is too large")))?;
        let decoder =
            serde_json::to_value(tokenizer.get_decoder()).map_err(|e| malformed(e.to_string()))?;
        let stages = decoder::stages(Some(&decoder))
            .map_err(|what| LoadError::Decoder { path: path.clone(), what })?;
        let config = TokenizerConfig::read(dir)?;
        let prefix = prefix(&tokenizer, &config).map_err(malformed)?;
        let cuts = Cuts::of(&tokenizer);
        let byte_level = ByteLevel::of(&tokenizer);
        let checkpoint = Checkpoint { tokenizer, byte_level, literal: OnceLock::new(), prefix };
        Ok(Self {
            cuts,
            codec: Codec::Checkpoint(Box::new(checkpoint)),
            pieces,
            stages,
            templates: Templates::new(config, limits)?,
            sampling: SamplingDefaults::read(dir)?,
            limits,
            clock: system_clock(),
        })
    }

    /// A model without a checkpoint, for engines that need none: token `n` reads ` tn`, text
    /// becomes one token per byte, and conversations are rendered by a minimal template.
    pub fn synthetic(vocab_size: u32) -> Self {
        let limits = Limits::default();
        Self {
            codec: Codec::Synthetic,
            cuts: Cuts::anywhere(),
            pieces: synthetic::pieces(vocab_size),
            stages: Vec::new(),
            templates: synthetic::templates(limits),
            sampling: SamplingDefaults::default(),
            limits,
            clock: system_clock(),
        }
    }

    /// The same model with another clock for templates that print the date.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Ids are below this. An engine's own vocabulary may be larger: weights are often padded.
    pub fn vocab_size(&self) -> u32 {
        self.pieces.len()
    }

    /// How tokens are drawn where a request does not say it.
    pub fn sampling_defaults(&self) -> SamplingDefaults {
        self.sampling
    }

    /// Whether the model has a template for conversations.
    pub fn has_template(&self) -> bool {
        !self.templates.is_empty()
    }

    /// The text of one token by itself, special or not; U+FFFD stands for incomplete characters.
    /// `None` if the vocabulary does not have it.
    pub fn token_text(&self, id: TokenId) -> Option<String> {
        let piece = self.pieces.get(id)?;
        Some(decoder::alone(&self.stages, piece))
    }

    /// The bytes of one token by itself, which need not be whole characters.
    pub fn token_bytes(&self, id: TokenId) -> Option<Vec<u8>> {
        let piece = self.pieces.get(id)?;
        Some(decoder::alone_bytes(&self.stages, piece))
    }

    /// Whether the token is one of the special ones, which are not part of an answer's text.
    pub fn is_special(&self, id: TokenId) -> bool {
        self.pieces.is_special(id)
    }

    /// The id of a token by its exact text in the vocabulary (`<|im_end|>`).
    pub fn token_id(&self, token: &str) -> Option<TokenId> {
        match &self.codec {
            Codec::Checkpoint(checkpoint) => checkpoint.tokenizer.token_to_id(token),
            Codec::Synthetic => synthetic::token_id(token).filter(|id| *id < self.vocab_size()),
        }
    }

    /// The id of a token that the tokenizer has beside its vocabulary, as markers of templates are,
    /// by its exact text: whoever spells it in pieces gets another id.
    pub fn marker_id(&self, token: &str) -> Option<TokenId> {
        match &self.codec {
            Codec::Checkpoint(checkpoint) => {
                checkpoint.tokenizer.get_added_vocabulary().get_vocab().get(token).copied()
            }
            Codec::Synthetic => None,
        }
    }

    /// The source of the chat template for requests with tools; empty where there is none.
    pub fn template_source(&self) -> String {
        self.templates.source()
    }

    /// The text that the model's chat template makes of a conversation.
    pub fn render(&self, chat: &ir::Chat) -> Result<String, RenderError> {
        self.templates.render(chat, (self.clock)())
    }

    /// Text to ids. With `special`, special tokens written in the text are recognised and what
    /// the model wants before every text (bos) is added, unless the text already begins with it.
    /// Without, the text is text: nothing is recognised and nothing added.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<TokenId>, EncodeError> {
        let mut ids = Vec::with_capacity(text.len() / 3 + 1);
        self.tokenize(text, special, &mut ids)?;
        if special {
            self.add_prefix(&mut ids);
        }
        Ok(ids)
    }

    /// Puts before the ids of a text what the model wants there (bos), unless they begin with it.
    pub fn add_prefix(&self, ids: &mut Vec<TokenId>) {
        if let Codec::Checkpoint(checkpoint) = &self.codec
            && !ids.starts_with(&checkpoint.prefix)
        {
            ids.splice(0..0, checkpoint.prefix.iter().copied());
        }
    }

    /// A rendered conversation to ids: special tokens are recognised and nothing is added, because
    /// the template has written everything.
    pub fn encode_rendered(&self, text: &str) -> Result<Vec<TokenId>, EncodeError> {
        let mut ids = Vec::with_capacity(text.len() / 3 + 1);
        self.append_rendered(text, &mut ids)?;
        Ok(ids)
    }

    /// Appends to `ids` what [`TextModel::encode_rendered`] gives.
    pub fn append_rendered(&self, text: &str, ids: &mut Vec<TokenId>) -> Result<(), EncodeError> {
        self.tokenize(text, true, ids)
    }

    /// The parts of a text that can be tokenised one by one: its ids, as
    /// [`TextModel::encode_rendered`] gives them, are those of its segments, one after the other.
    /// Together the segments are the text. Where they end depends on little that follows, so texts
    /// that begin alike begin with the same segments.
    ///
    /// Those before `start` are left out; a firm segment begins there, or the text.
    pub fn segments<'t>(
        &self,
        text: &'t str,
        start: usize,
    ) -> Result<Vec<Segment<'t>>, EncodeError> {
        self.check_length(text)?;
        Ok(self.cuts.segments(&text[start..]))
    }

    /// See [`Segment::firm`]; in bytes.
    pub fn lookahead(&self) -> usize {
        self.cuts.lookahead()
    }

    /// The one rule for what a prompt of any kind is in ids.
    pub fn prompt_ids(&self, prompt: &ir::Prompt) -> Result<Vec<TokenId>, PromptError> {
        Ok(match prompt {
            ir::Prompt::Chat(chat) => self.encode_rendered(&self.render(chat)?)?,
            ir::Prompt::Text(text) => self.encode(text, true)?,
            ir::Prompt::Tokens(ids) => {
                self.check_ids(ids)?;
                ids.clone()
            }
        })
    }

    /// Whether all ids are the vocabulary's.
    pub fn check_ids(&self, ids: &[TokenId]) -> Result<(), EncodeError> {
        let vocab_size = self.vocab_size();
        match ids.iter().position(|id| *id >= vocab_size) {
            None => Ok(()),
            Some(index) => Err(EncodeError::UnknownId { index, id: ids[index], vocab_size }),
        }
    }

    /// A detokeniser for one answer; special tokens give no text.
    pub fn detokenizer(self: &Arc<Self>) -> Detokenizer {
        Detokenizer::new(self.clone(), true)
    }

    /// A detokeniser for one answer that writes special tokens as they are.
    pub fn detokenizer_with_special(self: &Arc<Self>) -> Detokenizer {
        Detokenizer::new(self.clone(), false)
    }

    fn tokenize(
        &self,
        text: &str,
        special: bool,
        ids: &mut Vec<TokenId>,
    ) -> Result<(), EncodeError> {
        self.check_length(text)?;
        let checkpoint = match &self.codec {
            Codec::Checkpoint(checkpoint) => checkpoint,
            Codec::Synthetic => {
                ids.extend(synthetic::encode(text, self.vocab_size()));
                return Ok(());
            }
        };
        if let Some(byte_level) = &checkpoint.byte_level {
            return byte_level.encode(&checkpoint.tokenizer, text, special, ids);
        }
        let tokenizer = if special { &checkpoint.tokenizer } else { checkpoint.literal() };
        let encoding = tokenizer.encode_fast(text, false);
        let encoding = encoding.map_err(|e| EncodeError::Tokenizer { reason: e.to_string() })?;
        ids.extend_from_slice(encoding.get_ids());
        Ok(())
    }

    fn check_length(&self, text: &str) -> Result<(), EncodeError> {
        let limit = self.limits.text_bytes;
        if text.len() > limit {
            return Err(EncodeError::TooLong { bytes: text.len(), limit });
        }
        Ok(())
    }
}

impl Checkpoint {
    fn literal(&self) -> &Tokenizer {
        self.literal.get_or_init(|| {
            let mut literal = self.tokenizer.clone();
            literal.set_encode_special_tokens(true);
            literal
        })
    }
}

impl fmt::Debug for TextModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by_pieces = matches!(&self.codec, Codec::Checkpoint(c) if c.byte_level.is_some());
        f.debug_struct("TextModel")
            .field("vocab_size", &self.vocab_size())
            .field("by_pieces", &by_pieces)
            .finish_non_exhaustive()
    }
}

/// The default; daemons give their own with [`TextModel::with_clock`].
#[allow(clippy::disallowed_methods)] // This crate sees no daemon's clock.
fn system_clock() -> Clock {
    Arc::new(|| SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

/// What the post-processor puts before a text, corrected by what the configuration says about bos.
/// What it would put after a text (eos) ends the prompt of no generation, and is left out.
fn prefix(tokenizer: &Tokenizer, config: &TokenizerConfig) -> Result<Vec<TokenId>, String> {
    let ids = |special| -> Result<Vec<TokenId>, String> {
        let encoding = tokenizer.encode_fast("a", special).map_err(|e| e.to_string())?;
        Ok(encoding.get_ids().to_vec())
    };
    let bos = config.token("bos_token").and_then(|token| tokenizer.token_to_id(token));
    let (plain, with_special) = (ids(false)?, ids(true)?);
    let start = with_special.windows(plain.len().max(1)).position(|window| window == plain);
    let mut prefix = with_special[..start.unwrap_or(0)].to_vec();
    match (config.add_bos, bos) {
        (Some(false), Some(bos)) => prefix.retain(|id| *id != bos),
        (Some(true), Some(bos)) if !prefix.contains(&bos) => prefix.insert(0, bos),
        _ => {}
    }
    Ok(prefix)
}
