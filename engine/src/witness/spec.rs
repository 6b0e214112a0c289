//! What a witness is like: its shape and its latency model.

use crate::api::{Batch, Item, ModelSpec};
use baton_proto::ids::TokenId;
use std::num::NonZeroU32;
use std::time::Duration;

/// The shape of a witness.
#[derive(Clone, PartialEq, Debug)]
pub struct WitnessSpec {
    /// The model's name in the API. It is the witness's only weight: another name gives other
    /// bytes and other tokens.
    pub name: String,
    /// Token ids are `0..vocab`.
    pub vocab: u32,
    /// Longest sequence, prompt and answer together.
    pub context: u32,
    /// Tokens per block, a power of two, `16..=256`.
    pub block_tokens: u32,
    /// Layers, at least 1.
    pub layers: u32,
    /// KV heads, at least 1.
    pub heads: u32,
    /// Elements of 4 bytes per token, head, layer and k or v; even.
    pub dim: u32,
    /// The end tokens that the model names.
    pub eos: Vec<TokenId>,
    /// `Some(n)`: one draw in `n` is the first end token. `None`: none ever is, so that an answer
    /// is as long as its limit.
    pub ends: Option<NonZeroU32>,
    /// Most positions in one step, over all items.
    pub batch_tokens_max: u32,
    /// How long steps claim to have taken.
    pub latency: LatencyModel,
}

impl WitnessSpec {
    /// 128 bytes per token in blocks of 64, 32,000 token ids, no latency.
    pub fn small() -> Self {
        Self {
            name: "witness".to_owned(),
            vocab: 32_000,
            context: 131_072,
            block_tokens: 64,
            layers: 2,
            heads: 2,
            dim: 4,
            eos: vec![0],
            ends: None,
            batch_tokens_max: 8192,
            latency: LatencyModel::default(),
        }
    }

    /// Whether such a witness can be.
    pub fn check(&self) -> Result<(), SpecError> {
        let refuse = |key, want, found: u32| Err(SpecError { key, want, found });
        let block_tokens = self.block_tokens;
        if !block_tokens.is_power_of_two() || !(16..=256).contains(&block_tokens) {
            return refuse("block_tokens", "a power of two in 16..=256", block_tokens);
        }
        if self.dim == 0 || !self.dim.is_multiple_of(2) || self.dim > 1 << 16 {
            return refuse("dim", "an even number in 2..=65536", self.dim);
        }
        for (key, found) in [("layers", self.layers), ("heads", self.heads)] {
            if !(1..=1024).contains(&found) {
                return refuse(key, "a number in 1..=1024", found);
            }
        }
        let positive = [("context", self.context), ("batch_tokens_max", self.batch_tokens_max)];
        for (key, found) in positive {
            if found == 0 {
                return refuse(key, "at least 1", found);
            }
        }
        if let Some(token) = self.eos.iter().find(|token| **token >= self.vocab) {
            return refuse("eos", "token ids below vocab", *token);
        }
        if self.vocab as usize <= self.eos.len() {
            return refuse("vocab", "more token ids than end tokens", self.vocab);
        }
        if self.ends.is_some() && self.eos.is_empty() {
            return refuse("ends", "an end token in eos to draw", 0);
        }
        Ok(())
    }

    /// Bytes of KV per token.
    pub(crate) fn token_bytes(&self) -> usize {
        [self.heads, self.layers, 2, self.dim, 4].iter().map(|n| *n as usize).product()
    }

    /// The specification that schedulers see. `kind` names the engine, and enters the digest.
    pub(crate) fn model(&self, kind: &str) -> ModelSpec {
        let Self { heads, layers, block_tokens, dim, .. } = self;
        let kv_format = format!(
            "{kind}/1 [kv_head {heads}][layer {layers}][k|v][token {block_tokens}][{dim} x 4 bytes]"
        );
        let weights = format!("baton {kind}/1 {}", self.name);
        ModelSpec {
            name: self.name.clone(),
            vocab_size: self.vocab,
            context_tokens: self.context,
            eos: self.eos.clone(),
            block_tokens: self.block_tokens,
            block_bytes: self.token_bytes() * self.block_tokens as usize,
            kv_format,
            weights_digest: *blake3::hash(weights.as_bytes()).as_bytes(),
            numerics_class: format!("{kind}/1"),
            batch_tokens_max: self.batch_tokens_max,
        }
    }
}

/// A witness that cannot be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("witness: `{key}` must be {want}, found {found}")]
pub struct SpecError {
    key: &'static str,
    want: &'static str,
    found: u32,
}

/// How long a step claims to have taken; the driver waits that long or moves virtual time. Zero
/// everywhere by default.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LatencyModel {
    /// Every step that has work.
    pub step: Duration,
    /// Every position that is not a lone draw: prompts and chunks of them.
    pub prefill_token: Duration,
    /// Every item of one position that draws.
    pub decode_sequence: Duration,
}

impl LatencyModel {
    /// The time for one step.
    pub fn modelled(&self, batch: &Batch<'_>) -> Duration {
        if batch.items.is_empty() {
            return Duration::ZERO;
        }
        let decodes = |item: &&Item<'_>| item.count == 1 && item.sample.is_some();
        let decoded = batch.items.iter().filter(decodes).count() as u32;
        let computed: u32 = batch.items.iter().map(|item| item.count).sum();
        self.step + self.prefill_token * (computed - decoded) + self.decode_sequence * decoded
    }
}
