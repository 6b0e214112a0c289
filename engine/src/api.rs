//! The engine's interface: a batch of sequence segments goes in, drawn tokens come out.
//!
//! Real models, the witness and the scripted engine stand behind one trait, so that a scheduler
//! cannot tell them apart. Memory is named by slots: full blocks by slot number, blocks that are
//! written by a [`WriteLease`], which goes in by value and comes back with the output.

use baton_arena::Arena;
use baton_kv::lease::WriteLease;
use baton_proto::ids::{SeqKey, SlotId, TokenId};
use baton_proto::ir::Sampling;
use std::borrow::Cow;
use std::time::Duration;

/// Computes batches. One engine serves one worker; it is driven by one thread.
pub trait Engine: Send {
    /// What is served, and how its blocks look.
    fn spec(&self) -> &ModelSpec;

    /// Computes every item of the batch and draws where asked.
    ///
    /// Equal items give equal bytes and equal tokens, whatever else is in the batch, however the
    /// prompt was cut into chunks, and wherever its blocks came from.
    fn step(&mut self, arena: &Arena, batch: Batch<'_>) -> StepOutput;

    /// The sequence will not come again: state kept for it can go.
    fn forget(&mut self, seq: SeqKey);
}

/// What a loaded engine serves.
#[derive(Clone, PartialEq, Debug)]
pub struct ModelSpec {
    /// The model's name in the API.
    pub name: String,
    /// Token ids are `0..vocab_size`.
    pub vocab_size: u32,
    /// Longest sequence, prompt and answer together.
    pub context_tokens: u32,
    /// The model's own end tokens.
    pub eos: Vec<TokenId>,
    /// Tokens per block.
    pub block_tokens: u32,
    /// Bytes per block, all layers and heads.
    pub block_bytes: usize,
    /// Data type and layout of a block, in words; part of a block's identity.
    pub kv_format: String,
    /// BLAKE3 over the weights and what interprets them.
    pub weights_digest: [u8; 32],
    /// Within one class equal inputs give equal bytes; part of a block's identity.
    pub numerics_class: String,
    /// Most positions in one step, over all items.
    pub batch_tokens_max: u32,
}

/// One step's work.
#[derive(Debug)]
pub struct Batch<'a> {
    /// Segments of different sequences.
    pub items: Vec<Item<'a>>,
}

/// A segment of one sequence: positions `start .. start + count`.
#[derive(Debug)]
pub struct Item<'a> {
    /// The sequence.
    pub seq: SeqKey,
    /// All tokens known of the sequence, at least `start + count`.
    pub tokens: &'a [TokenId],
    /// KV exists for the positions before this one.
    pub start: u32,
    /// Positions to compute, at least 1.
    pub count: u32,
    /// The full blocks `0 .. start / block_tokens`, in order; pinned by the caller.
    pub table: &'a [SlotId],
    /// The blocks `start / block_tokens .. (start + count).div_ceil(block_tokens)`, in order; the
    /// first holds `start % block_tokens` positions already.
    pub drafts: Vec<WriteLease>,
    /// Draw the token that follows position `start + count - 1`.
    pub sample: Option<Sample<'a>>,
}

/// How the next token is drawn.
#[derive(Clone, Debug)]
pub struct Sample<'a> {
    /// The request's parameters.
    pub sampling: &'a Sampling,
    /// Which of the request's choices this sequence is; part of the sampler's key.
    pub choice: u16,
    /// Tokens before this index are the prompt; penalties tell it from the answer.
    pub prompt_len: u32,
    /// Tokens that must not be drawn (end tokens before `min_tokens`).
    pub suppressed: Cow<'a, [TokenId]>,
    /// This token comes, whatever the model would say and whatever is suppressed. It has its place
    /// like one that is drawn, and the draws at other places are what they would be.
    pub forced: Option<TokenId>,
    /// Log-probabilities of the drawn token and of that many alternatives.
    pub logprobs: Option<u8>,
    /// That many of the largest raw logits, before any processing.
    pub raw_top: u16,
    /// The token limit makes this the sequence's last draw.
    pub last: bool,
}

/// What a step gave.
#[derive(Debug)]
pub struct StepOutput {
    /// As many as the batch's items, in their order.
    pub items: Vec<ItemOutput>,
    /// Time that the engine's latency model wants the step to have taken; zero for real models.
    /// The driver waits that long, or moves virtual time.
    pub modelled: Duration,
}

/// What one item gave.
#[derive(Debug)]
pub struct ItemOutput {
    /// The sequence.
    pub seq: SeqKey,
    /// The item's drafts, written; no engine thread touches them any more.
    pub drafts: Vec<WriteLease>,
    /// The drawn token, where one was asked for.
    pub drawn: Option<Drawn>,
}

/// A drawn token.
#[derive(Clone, PartialEq, Debug)]
pub struct Drawn {
    /// The token.
    pub token: TokenId,
    /// Its log-probability under the model (temperature 1, before penalties).
    pub logprob: f32,
    /// The likeliest tokens and their log-probabilities, the best first, where asked for.
    pub top: Vec<(TokenId, f32)>,
    /// The largest raw logits, the best first, where asked for.
    pub raw_top: Vec<(TokenId, f32)>,
}
