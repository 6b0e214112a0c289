//! One pass through a decoder for all positions of a batch.

use super::pages::Pages;
use super::weights::Weights;
use crate::api::Batch;
use crate::checkpoint::{Checkpoint, ModelConfig};
use crate::models::Layer;
use baton_kernels::{Attention, Cpu, KvLayout, Projection, Rope, RopeSpeeds, RopeTable, Segment};
use std::ops::Range;

/// The model, its operators, and room for a batch's activations.
pub(super) struct Forward {
    cpu: Cpu,
    config: ModelConfig,
    weights: Weights,
    layout: KvLayout,
    rope: RopeTable,
    rows: Rows,
}

/// Activations, one row per position.
#[derive(Default)]
struct Rows {
    /// The residual stream.
    x: Vec<f32>,
    /// Its norm.
    normed: Vec<f32>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    attended: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

/// An item's queries.
#[derive(Clone)]
struct Queries {
    item: usize,
    /// Position of the first.
    start: usize,
    /// Their rows.
    rows: Range<usize>,
}

impl Forward {
    pub(super) fn new(
        checkpoint: &Checkpoint,
        batch_tokens_max: u32,
        rope_speeds: RopeSpeeds,
        cpu: Cpu,
        layout: KvLayout,
    ) -> Self {
        let batch_tokens_max = batch_tokens_max as usize;
        let config = checkpoint.config().clone();
        let (q, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        let room = |width: usize| vec![0.0; batch_tokens_max * width];
        let rows = Rows {
            x: room(config.hidden),
            normed: room(config.hidden),
            q: room(q),
            k: room(kv),
            v: room(kv),
            attended: room(q),
            gate: room(config.intermediate),
            up: room(config.intermediate),
            cos: Vec::with_capacity(batch_tokens_max * config.head_dim / 2),
            sin: Vec::with_capacity(batch_tokens_max * config.head_dim / 2),
        };
        let (theta, scaling) = (config.rope_theta, config.rope_scaling);
        let rope = RopeTable::new(config.head_dim, theta, scaling, rope_speeds);
        Self { weights: Weights::new(checkpoint), rope, cpu, config, layout, rows }
    }

    pub(super) fn layout(&self) -> KvLayout {
        self.layout
    }

    /// Computes and stores the keys and values of all positions. Afterwards the first rows of the
    /// residual stream belong to the items that are to be sampled, one row each, in their order.
    pub(super) fn run(&mut self, batch: &Batch<'_>, pages: &mut Pages) {
        let mut queries = Vec::with_capacity(batch.items.len());
        let mut row = 0;
        for (item, segment) in batch.items.iter().enumerate() {
            let (start, count) = (segment.start as usize, segment.count as usize);
            self.embed(row, &segment.tokens[start..start + count]);
            queries.push(Queries { item, start, rows: row..row + count });
            row += count;
        }
        let positions = batch.items.iter().flat_map(|item| item.start..item.start + item.count);
        self.rope.rows(positions, &mut self.rows.cos, &mut self.rows.sin);
        let last = self.weights.model.layers.len() - 1;
        for layer in 0..=last {
            self.project_qkv(layer, row);
            for Queries { item, rows, .. } in &queries {
                let width = self.layout.kv_heads * self.layout.head_dim;
                let range = rows.start * width..rows.end * width;
                pages.store(*item, layer, &self.rows.k[range.clone()], &self.rows.v[range]);
            }
            if layer == last {
                // Nobody asks for the other positions' results any more.
                queries.retain(|q| batch.items[q.item].sample.is_some());
                self.keep_last_rows(&mut queries);
                row = queries.len();
            }
            if row > 0 {
                self.attend(layer, row, &queries, pages);
                self.feed_forward(layer, row);
            }
        }
    }

    /// Logits of the sampled items `first ..`, as many as `out` has room for.
    pub(super) fn logits(&mut self, first: usize, out: &mut [f32]) {
        let ModelConfig { hidden, vocab, .. } = self.config;
        let rows = out.len() / vocab;
        let model = &self.weights.model;
        let x = &self.rows.x[first * hidden..(first + rows) * hidden];
        let normed = &mut self.rows.normed[..rows * hidden];
        self.cpu.rms_norm(x, model.norm.vector(), self.config.norm_eps, normed);
        let head = self.weights.matrix(model.head.as_ref().unwrap_or(&model.embedding));
        let logits = Projection { weight: head, bias: None, out, accumulate: false };
        self.cpu.linear(normed, rows, &mut [logits]);
    }

    /// Fills the residual stream from row `first` on.
    fn embed(&mut self, first: usize, tokens: &[u32]) {
        let embedding = self.weights.matrix(&self.weights.model.embedding);
        let rows = self.rows.x.chunks_exact_mut(self.config.hidden).skip(first);
        for (x, token) in rows.zip(tokens) {
            embedding.widen_row(*token as usize, x);
        }
    }

    /// Queries, keys and values of `count` rows, rotated.
    fn project_qkv(&mut self, layer: usize, count: usize) {
        let Self { cpu, config, weights, rows, .. } = self;
        let layer = &weights.model.layers[layer];
        let (hidden, head_dim, eps) = (config.hidden, config.head_dim, config.norm_eps);
        let (q, kv) = (count * config.heads * head_dim, count * config.kv_heads * head_dim);
        let normed = &mut rows.normed[..count * hidden];
        cpu.rms_norm(&rows.x[..count * hidden], layer.attention_norm.vector(), eps, normed);
        let mut projections = [
            weights.project(&layer.q, &mut rows.q[..q], false),
            weights.project(&layer.k, &mut rows.k[..kv], false),
            weights.project(&layer.v, &mut rows.v[..kv], false),
        ];
        cpu.linear(normed, count, &mut projections);
        for (x, norm) in [(&mut rows.q[..q], &layer.q_norm), (&mut rows.k[..kv], &layer.k_norm)] {
            let norm = norm.as_ref().map(|weight| (weight.vector(), eps));
            cpu.rope(x, count, &Rope { cos: &rows.cos, sin: &rows.sin, head_dim, norm });
        }
    }

    /// Moves each item's last row of queries and of the residual stream to the front.
    fn keep_last_rows(&mut self, queries: &mut [Queries]) {
        let (q, hidden) = (self.config.heads * self.config.head_dim, self.config.hidden);
        for (to, item) in queries.iter_mut().enumerate() {
            let from = item.rows.end - 1;
            self.rows.q.copy_within(from * q..(from + 1) * q, to * q);
            self.rows.x.copy_within(from * hidden..(from + 1) * hidden, to * hidden);
            item.start += item.rows.len() - 1;
            item.rows = to..to + 1;
        }
    }

    /// Adds the attention of `count` rows to the residual stream.
    fn attend(&mut self, layer: usize, count: usize, queries: &[Queries], pages: &Pages) {
        let Self { cpu, config, weights, rows, layout, .. } = self;
        let width = count * config.heads * config.head_dim;
        let tables = pages.tables();
        let segment = |q: &Queries| Segment {
            blocks: &tables[q.item],
            start: q.start,
            count: q.rows.len(),
            row: q.rows.start,
        };
        cpu.attention(Attention {
            layout: *layout,
            layer,
            heads: config.heads,
            scale: 1.0 / (config.head_dim as f32).sqrt(),
            q: &rows.q[..width],
            segments: &queries.iter().map(segment).collect::<Vec<_>>(),
            out: &mut rows.attended[..width],
        });
        let output = &weights.model.layers[layer].o;
        let x = &mut rows.x[..count * config.hidden];
        cpu.linear(&rows.attended[..width], count, &mut [weights.project(output, x, true)]);
    }

    /// Adds the feed-forward part of `count` rows to the residual stream.
    fn feed_forward(&mut self, layer: usize, count: usize) {
        let Self { cpu, config, weights, rows, .. } = self;
        let Layer { mlp_norm, gate, up, down, .. } = &weights.model.layers[layer];
        let (hidden, width) = (count * config.hidden, count * config.intermediate);
        let (x, normed) = (&mut rows.x[..hidden], &mut rows.normed[..hidden]);
        cpu.rms_norm(x, mlp_norm.vector(), config.norm_eps, normed);
        let mut projections = [
            weights.project(gate, &mut rows.gate[..width], false),
            weights.project(up, &mut rows.up[..width], false),
        ];
        cpu.linear(normed, count, &mut projections);
        cpu.silu_mul(&mut rows.gate[..width], &rows.up[..width]);
        cpu.linear(&rows.gate[..width], count, &mut [weights.project(down, x, true)]);
    }
}
