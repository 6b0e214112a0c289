//! A worker in miniature for tests: an arena, a pool, and sequences whose blocks go from drafts to
//! tables.
#![allow(clippy::unwrap_used)]

use crate::api::{Batch, Engine, Item, ModelSpec, Sample};
use baton_arena::{Arena, ArenaOptions};
use baton_kv::lease::{Draft, WriteLease};
use baton_kv::pool::{Pool, PoolConfig};
use baton_proto::ids::{SeqKey, SlotId, TokenId};
use baton_proto::ir::Sampling;
use std::borrow::Cow;
use std::time::Duration;

/// Arena and pool.
pub(crate) struct Rig {
    pub(crate) arena: Arena,
    pool: Pool,
    block_bytes: usize,
    block_tokens: u32,
}

/// A sequence and its blocks.
pub(crate) struct Sequence {
    pub(crate) key: SeqKey,
    pub(crate) tokens: Vec<TokenId>,
    pub(crate) prompt_len: u32,
    pub(crate) computed: u32,
    pub(crate) sampling: Sampling,
    pub(crate) choice: u16,
    pub(crate) max_tokens: usize,
    pub(crate) suppressed: Vec<TokenId>,
    /// The blocks that are full, and the one that is not.
    pub(crate) full: Vec<Draft>,
    pub(crate) draft: Option<Draft>,
}

impl Sequence {
    pub(crate) fn new(key: u64, prompt: &[TokenId], seed: u64, max_tokens: usize) -> Self {
        Self {
            key: SeqKey(key),
            tokens: prompt.to_vec(),
            prompt_len: prompt.len() as u32,
            computed: 0,
            sampling: Sampling { seed, ..Sampling::greedy() },
            choice: 0,
            max_tokens,
            suppressed: Vec::new(),
            full: Vec::new(),
            draft: None,
        }
    }

    pub(crate) fn answer(&self) -> &[TokenId] {
        &self.tokens[self.prompt_len as usize..]
    }

    pub(crate) fn finished(&self) -> bool {
        self.answer().len() >= self.max_tokens
    }

    /// Positions whose KV is missing.
    pub(crate) fn missing(&self) -> u32 {
        self.tokens.len() as u32 - self.computed
    }

    fn sample(&self) -> Sample<'_> {
        Sample {
            sampling: &self.sampling,
            choice: self.choice,
            prompt_len: self.prompt_len,
            suppressed: Cow::Borrowed(&self.suppressed),
            forced: None,
            logprobs: None,
            raw_top: 0,
            last: self.answer().len() + 1 == self.max_tokens,
        }
    }
}

impl Rig {
    /// Every slot starts with this byte everywhere, so that nothing is right by chance.
    pub(crate) fn new(model: &ModelSpec, slots: u32, garbage: u8) -> Self {
        let slot_bytes = model.block_bytes;
        let arena = Arena::create(ArenaOptions { slots, slot_bytes, name: "engine-test" }).unwrap();
        for slot in 0..slots {
            arena.write(slot).fill(garbage);
        }
        let pool = Pool::new(PoolConfig { slots, events_kept: 16, leases_max: 16 });
        Self { arena, pool, block_bytes: model.block_bytes, block_tokens: model.block_tokens }
    }

    pub(crate) fn draft(&mut self) -> Draft {
        self.pool.draft().unwrap().0
    }

    /// One step: of each sequence the given number of positions, at most those that are missing.
    /// Draws where nothing is missing any more, unless the sequence only wants its prompt computed.
    pub(crate) fn step(
        &mut self,
        engine: &mut dyn Engine,
        work: &mut [(&mut Sequence, u32)],
    ) -> Duration {
        let mut drafts: Vec<Vec<WriteLease>> = Vec::new();
        for (sequence, count) in work.iter_mut() {
            *count = (*count).min(sequence.missing());
            let first = sequence.computed / self.block_tokens;
            let end = (sequence.computed + *count).div_ceil(self.block_tokens);
            let begun = sequence.draft.take();
            let fresh = end - first - u32::from(begun.is_some());
            let fresh: Vec<Draft> = (0..fresh).map(|_| self.draft()).collect();
            drafts.push(begun.into_iter().chain(fresh).map(Draft::lend).collect());
        }
        let tables: Vec<Vec<SlotId>> =
            work.iter().map(|(s, _)| s.full.iter().map(Draft::slot).collect()).collect();
        let items =
            work.iter().zip(drafts).zip(&tables).map(|(((s, count), drafts), table)| Item {
                seq: s.key,
                tokens: &s.tokens,
                start: s.computed,
                count: *count,
                table,
                drafts,
                sample: (*count == s.missing() && s.max_tokens > 0).then(|| s.sample()),
            });
        let output = engine.step(&self.arena, Batch { items: items.collect() });
        assert_eq!(output.items.len(), work.len());
        for ((sequence, count), output) in work.iter_mut().zip(output.items) {
            assert_eq!(output.seq, sequence.key);
            sequence.computed += *count;
            sequence.full.extend(output.drafts.into_iter().map(WriteLease::settle));
            if !sequence.computed.is_multiple_of(self.block_tokens) {
                sequence.draft = sequence.full.pop();
            }
            sequence.tokens.extend(output.drawn.map(|drawn| drawn.token));
        }
        output.modelled
    }

    /// Runs one sequence alone until it is finished, its prompt in chunks.
    pub(crate) fn run(&mut self, engine: &mut dyn Engine, sequence: &mut Sequence, chunk: u32) {
        while if sequence.max_tokens == 0 { sequence.missing() > 0 } else { !sequence.finished() } {
            self.step(engine, &mut [(sequence, chunk)]);
        }
    }

    /// Runs one sequence alone until it has drawn that many tokens.
    pub(crate) fn run_until(
        &mut self,
        engine: &mut dyn Engine,
        sequence: &mut Sequence,
        drawn: usize,
    ) {
        while sequence.answer().len() < drawn {
            self.step(engine, &mut [(sequence, u32::MAX)]);
        }
    }

    /// The bytes of a sequence's full blocks.
    pub(crate) fn full_blocks(&self, sequence: &Sequence) -> Vec<Vec<u8>> {
        sequence.full.iter().map(|block| self.bytes(block.slot())).collect()
    }

    pub(crate) fn bytes(&self, slot: SlotId) -> Vec<u8> {
        self.arena.read(slot.0)[..self.block_bytes].to_vec()
    }

    /// Gives a sequence full blocks with these contents, as if they had been pulled.
    pub(crate) fn adopt(&mut self, sequence: &mut Sequence, blocks: &[Vec<u8>]) {
        for block in blocks {
            let draft = self.draft();
            self.arena.write(draft.slot().0)[..self.block_bytes].copy_from_slice(block);
            sequence.full.push(draft);
            sequence.computed += self.block_tokens;
        }
    }

    pub(crate) fn flip(&self, slot: SlotId, bit: usize) {
        self.arena.write(slot.0)[bit / 8] ^= 1 << (bit % 8);
    }
}
