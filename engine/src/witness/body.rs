//! What the witness and the scripted engine have in common: reading and writing blocks.

use super::bytes::{Bytes, absorb};
use super::spec::{SpecError, WitnessSpec};
use crate::api::{Batch, Item, ItemOutput, ModelSpec, StepOutput};
use baton_arena::Arena;
use baton_kv::lease::WriteLease;
use baton_proto::ids::{SeqKey, SlotId};
use std::collections::HashMap;

/// Sequences whose reading is remembered. It is a memory of work done, nothing more: beyond this
/// number all are forgotten and read again.
const SEQUENCES_MAX: usize = 1 << 16;

/// An engine without its choice of tokens.
#[derive(Debug)]
pub(crate) struct Body {
    pub(crate) spec: WitnessSpec,
    pub(crate) model: ModelSpec,
    bytes: Bytes,
    entered: HashMap<SeqKey, Vec<Entered>>,
}

/// A block of a sequence's table that has been read.
#[derive(Clone, Copy, Debug)]
struct Entered {
    slot: SlotId,
    /// The digests of all blocks up to and with this one.
    so_far: u64,
}

impl Body {
    pub(crate) fn new(spec: WitnessSpec, kind: &str) -> Result<Self, SpecError> {
        spec.check()?;
        let model = spec.model(kind);
        let bytes = Bytes::new(&spec, &model.weights_digest);
        Ok(Self { spec, model, bytes, entered: HashMap::new() })
    }

    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Computes a batch; `drawn` chooses the tokens, given the digest of the blocks before the
    /// tail.
    pub(crate) fn step(
        &mut self,
        arena: &Arena,
        batch: Batch<'_>,
        mut drawn: impl FnMut(&Self, &Item<'_>, u64) -> Option<crate::api::Drawn>,
    ) -> StepOutput {
        let positions: u64 = batch.items.iter().map(|item| u64::from(item.count)).sum();
        let most = u64::from(self.model.batch_tokens_max);
        assert!(positions <= most, "a batch of {positions} positions, at most {most} are allowed");
        let modelled = self.spec.latency.modelled(&batch);
        let items = batch.items.into_iter().map(|item| {
            let before = self.compute(arena, &item);
            let drawn = drawn(self, &item, before);
            ItemOutput { seq: item.seq, drafts: item.drafts, drawn }
        });
        StepOutput { items: items.collect(), modelled }
    }

    pub(crate) fn forget(&mut self, seq: SeqKey) {
        self.entered.remove(&seq);
    }

    /// Digest of block `index` of an item, read now.
    pub(crate) fn read_block(&self, arena: &Arena, item: &Item<'_>, index: usize) -> u64 {
        self.bytes.block(&arena.read(slot_of(item, index).0))
    }

    /// Digest of the tail: the last block, up to the last position.
    pub(crate) fn read_tail(&self, arena: &Arena, item: &Item<'_>) -> u64 {
        let (index, tokens) = self.tail(item);
        self.bytes.head(&arena.read(slot_of(item, index).0), tokens)
    }

    /// The last position's block, and how many positions it holds up to that one.
    pub(crate) fn tail(&self, item: &Item<'_>) -> (usize, usize) {
        let last = (item.start + item.count - 1) as usize;
        let block_tokens = self.model.block_tokens as usize;
        (last / block_tokens, last % block_tokens + 1)
    }

    /// Reads what entered the table, writes the positions, and gives the digest of all blocks
    /// before the tail.
    fn compute(&mut self, arena: &Arena, item: &Item<'_>) -> u64 {
        self.check(item);
        let mut before = self.enter(arena, item.seq, item.table);
        let block_tokens = self.model.block_tokens;
        let end = item.start + item.count;
        let mut position = item.start;
        let mut filled: Option<&WriteLease> = None;
        for draft in &item.drafts {
            if let Some(filled) = filled.replace(draft) {
                before = absorb(before, self.bytes.block(&arena.read(filled.slot().0)));
            }
            let offset = position % block_tokens;
            let next = end.min(position - offset + block_tokens);
            let tokens = &item.tokens[position as usize..next as usize];
            let mut block = arena.write(draft.slot().0);
            self.bytes.write(&mut block, before, offset as usize, tokens);
            position = next;
        }
        before
    }

    /// Reads the blocks that are new in a sequence's table, fully, and gives the digest of all.
    fn enter(&mut self, arena: &Arena, seq: SeqKey, table: &[SlotId]) -> u64 {
        if self.entered.len() >= SEQUENCES_MAX && !self.entered.contains_key(&seq) {
            self.entered.clear();
        }
        let entered = self.entered.entry(seq).or_default();
        let known = entered.iter().zip(table).take_while(|(known, slot)| known.slot == **slot);
        let known = known.count();
        entered.truncate(known);
        let mut so_far = entered.last().map_or(self.bytes.root(), |last| last.so_far);
        for slot in &table[known..] {
            so_far = absorb(so_far, self.bytes.block(&arena.read(slot.0)));
            entered.push(Entered { slot: *slot, so_far });
        }
        so_far
    }

    /// The scheduler's side of the contract.
    fn check(&self, item: &Item<'_>) {
        let block_tokens = self.model.block_tokens;
        let end = item.start.checked_add(item.count).expect("positions are 32-bit numbers");
        assert!(item.count > 0, "an item without positions");
        assert!(end <= self.model.context_tokens, "position {end} is beyond the context");
        assert!(item.tokens.len() >= end as usize, "tokens up to position {end} must be known");
        let full = item.start / block_tokens;
        assert_eq!(item.table.len(), full as usize, "full blocks before position {}", item.start);
        let drafts = end.div_ceil(block_tokens) - full;
        assert_eq!(item.drafts.len(), drafts as usize, "drafts for {}..{end}", item.start);
    }
}

fn slot_of(item: &Item<'_>, index: usize) -> SlotId {
    match item.table.get(index) {
        Some(slot) => *slot,
        None => item.drafts[index - item.table.len()].slot(),
    }
}
