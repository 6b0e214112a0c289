//! The blocks of a batch while a step runs: full ones to read, drafts to write and to read.

use crate::api::Batch;
use baton_arena::{Arena, ReadGuard, WriteGuard};
use baton_kernels::KvLayout;

/// The blocks of all items, in their order.
pub(super) struct Pages {
    layout: KvLayout,
    items: Vec<Blocks>,
}

/// One item's blocks.
struct Blocks {
    start: usize,
    full: Vec<ReadGuard>,
    drafts: Vec<WriteGuard>,
}

impl Pages {
    /// Takes every block of the batch.
    pub(super) fn open(arena: &Arena, batch: &Batch<'_>, layout: KvLayout) -> Self {
        let open = |item: &crate::api::Item<'_>| Blocks {
            start: item.start as usize,
            full: item.table.iter().map(|slot| arena.read(slot.0)).collect(),
            drafts: item.drafts.iter().map(|lease| arena.write(lease.slot().0)).collect(),
        };
        Self { layout, items: batch.items.iter().map(open).collect() }
    }

    /// Stores one layer's keys and values of an item's positions, `[position][kv_head][head_dim]`.
    pub(super) fn store(&mut self, item: usize, layer: usize, keys: &[f32], values: &[f32]) {
        let KvLayout { kv_heads, block_tokens, head_dim, .. } = self.layout;
        let Blocks { start, full, drafts } = &mut self.items[item];
        for (source, value) in [(keys, false), (values, true)] {
            for (i, row) in source.chunks_exact(kv_heads * head_dim).enumerate() {
                let position = *start + i;
                let block = drafts[position / block_tokens - full.len()].f32s_mut();
                for (head, vector) in row.chunks_exact(head_dim).enumerate() {
                    let tile = self.layout.tile(head, layer, value);
                    let at = tile + position % block_tokens * head_dim;
                    block[at..at + head_dim].copy_from_slice(vector);
                }
            }
        }
    }

    /// Every item's blocks from position 0 on.
    pub(super) fn tables(&self) -> Vec<Vec<&[f32]>> {
        let floats = self.layout.block_floats();
        let mut tables = Vec::with_capacity(self.items.len());
        for Blocks { full, drafts, .. } in &self.items {
            let full = full.iter().map(|guard| &guard.f32s()[..floats]);
            tables.push(full.chain(drafts.iter().map(|guard| &guard.f32s()[..floats])).collect());
        }
        tables
    }
}
