//! Real models on the CPU.
//!
//! A step goes through the layers once for all positions of the batch, prompts and answers alike.
//! What makes an item's result independent of its company is in the operators
//! ([`baton_kernels`]); this module never lets one row's arithmetic depend on another's.

mod forward;
mod options;
mod pages;
mod weights;

pub use options::{CpuOptions, LoadError};

use crate::api::{Batch, Engine, Item, ItemOutput, ModelSpec, StepOutput};
use crate::checkpoint::{Checkpoint, Progress, quirks};
use crate::sampling;
use baton_arena::Arena;
use baton_kernels::{Cpu, KvLayout, RopeSpeeds};
use baton_proto::ids::SeqKey;
use forward::Forward;
use pages::Pages;
use std::time::Duration;

/// Sequences whose logits are in memory at once.
const LOGIT_ROWS: usize = 16;

/// A checkpoint on the CPU.
pub struct CpuEngine {
    spec: ModelSpec,
    forward: Forward,
    logits: Vec<f32>,
}

impl CpuEngine {
    /// Takes a checkpoint into service. All weights are read once, for their digest, with
    /// `progress` called from several threads; they stay in the page cache, which all engines of
    /// the machine share.
    pub fn load(
        checkpoint: &Checkpoint,
        options: &CpuOptions,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Self, LoadError> {
        let config = checkpoint.config();
        let context_tokens = options.check(config)?;
        let layout = KvLayout {
            kv_heads: config.kv_heads,
            layers: config.layers,
            block_tokens: options.block_tokens as usize,
            head_dim: config.head_dim,
        };
        let cpu = match options.isa {
            Some(isa) => Cpu::with_isa(isa, options.threads),
            None => Cpu::new(options.threads),
        };
        let cpu = cpu.map_err(|source| LoadError::Threads { count: options.threads, source })?;
        let weights_digest = checkpoint.digest(options.threads, progress);
        let rope_speeds =
            options.rope_speeds.unwrap_or_else(|| quirks::rope_speeds(&weights_digest));
        let spec = ModelSpec {
            name: options.name.clone().unwrap_or_else(|| checkpoint.name()),
            vocab_size: config.vocab as u32,
            context_tokens,
            eos: config.eos.clone(),
            block_tokens: options.block_tokens,
            block_bytes: layout.block_floats() * size_of::<f32>(),
            kv_format: kv_format(layout, rope_speeds),
            weights_digest,
            numerics_class: baton_kernels::numerics_class().to_owned(),
            batch_tokens_max: options.batch_tokens_max,
        };
        let forward = Forward::new(checkpoint, options.batch_tokens_max, rope_speeds, cpu, layout);
        Ok(Self { spec, forward, logits: Vec::new() })
    }

    /// The caller's side of the contract.
    fn check(&self, arena: &Arena, batch: &Batch<'_>) {
        let spec = &self.spec;
        assert!(arena.slot_bytes() >= spec.block_bytes, "the arena's slots are too small");
        let positions: u64 = batch.items.iter().map(|item| u64::from(item.count)).sum();
        assert!(positions <= u64::from(spec.batch_tokens_max), "{positions} positions in a step");
        for Item { seq, tokens, start, count, table, drafts, .. } in &batch.items {
            let (full, end) = (start / spec.block_tokens, u64::from(*start) + u64::from(*count));
            assert!(*count > 0, "sequence {seq}: nothing to compute");
            assert!(end <= u64::from(spec.context_tokens), "sequence {seq}: {end} tokens");
            assert!(tokens.len() as u64 >= end, "sequence {seq}: unknown tokens");
            assert_eq!(table.len(), full as usize, "sequence {seq}: full blocks");
            let blocks = (end as usize).div_ceil(spec.block_tokens as usize);
            assert_eq!(drafts.len(), blocks - full as usize, "sequence {seq}: drafts");
            let computed = &tokens[*start as usize..end as usize];
            let known = computed.iter().all(|token| *token < spec.vocab_size);
            assert!(known, "sequence {seq}: a token beyond the vocabulary");
        }
    }
}

impl Engine for CpuEngine {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn step(&mut self, arena: &Arena, batch: Batch<'_>) -> StepOutput {
        self.check(arena, &batch);
        let mut pages = Pages::open(arena, &batch, self.forward.layout());
        self.forward.run(&batch, &mut pages);
        // From here on nothing touches the blocks.
        drop(pages);
        let sampled: Vec<usize> =
            (0..batch.items.len()).filter(|&i| batch.items[i].sample.is_some()).collect();
        let mut drawn = Vec::with_capacity(sampled.len());
        let vocab = self.spec.vocab_size as usize;
        for (group, items) in sampled.chunks(LOGIT_ROWS).enumerate() {
            self.logits.resize(items.len() * vocab, 0.0);
            self.forward.logits(group * LOGIT_ROWS, &mut self.logits);
            for (logits, &i) in self.logits.chunks_exact_mut(vocab).zip(items) {
                let Item { tokens, start, count, sample, .. } = &batch.items[i];
                let position = start + count;
                let history = &tokens[..position as usize];
                let draw = |sample| sampling::draw(logits, history, position, sample);
                drawn.extend(sample.as_ref().map(draw));
            }
        }
        let mut drawn = drawn.into_iter();
        let give_back = |item: Item<'_>| ItemOutput {
            seq: item.seq,
            drafts: item.drafts,
            drawn: item.sample.and_then(|_| drawn.next()),
        };
        StepOutput {
            items: batch.items.into_iter().map(give_back).collect(),
            modelled: Duration::ZERO,
        }
    }

    /// Nothing is kept: everything a sequence needs is in its blocks.
    fn forget(&mut self, _: SeqKey) {}
}

fn kv_format(layout: KvLayout, rope_speeds: RopeSpeeds) -> String {
    let KvLayout { kv_heads, layers, block_tokens, head_dim } = layout;
    let rope = match rope_speeds {
        RopeSpeeds::F32 => "f32",
        RopeSpeeds::Bf16 => "bf16",
    };
    format!(
        "f32 [kv_head {kv_heads}][layer {layers}][k|v][token {block_tokens}][head_dim {head_dim}], \
         rope speeds {rope}"
    )
}
