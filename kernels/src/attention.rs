//! Causal attention over paged blocks of keys and values.
//!
//! The keys of a query are cut at absolute multiples of [`PART`] positions. Each part gives a
//! maximum, a sum and a weighted value in the order of positions; parts are merged in that order.
//! So a query's result depends on the bytes of the positions before it and on nothing else: not
//! on block size, chunking, other queries or threads.

use crate::dots::{dots, unroll};
use crate::isa::{Isa, Kernel};
use crate::math;
use crate::shared::Disjoint;
use crate::simd::{LANES, Simd};
use crate::threads::Threads;
use std::cell::RefCell;

/// Positions per part. Blocks are not larger and divide it.
pub const PART: usize = 256;
/// Query rows (position, head of a group) that one index of the parallel loop covers, about.
const TASK_ROWS: usize = 32;

/// Where a token's key or value lies in a block: `[kv_head][layer][k|v][token][head_dim]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KvLayout {
    /// Key-value heads.
    pub kv_heads: usize,
    /// Layers.
    pub layers: usize,
    /// Tokens per block, a power of two up to [`PART`].
    pub block_tokens: usize,
    /// Elements per head.
    pub head_dim: usize,
}

impl KvLayout {
    /// Floats per block.
    pub fn block_floats(&self) -> usize {
        self.kv_heads * self.layers * 2 * self.block_tokens * self.head_dim
    }

    /// Where the keys (`value == false`) or values of a head and layer begin in a block.
    pub fn tile(&self, kv_head: usize, layer: usize, value: bool) -> usize {
        ((kv_head * self.layers + layer) * 2 + usize::from(value))
            * self.block_tokens
            * self.head_dim
    }
}

/// Queries of one sequence: positions `start .. start + count`, whose keys are in place.
#[derive(Clone, Copy)]
pub struct Segment<'a> {
    /// The sequence's blocks from position 0 on, each `block_floats` long.
    pub blocks: &'a [&'a [f32]],
    /// Position of the first query.
    pub start: usize,
    /// Queries.
    pub count: usize,
    /// Row of the first query in `q` and `out`.
    pub row: usize,
}

/// One layer's attention for a batch of segments.
pub struct Attention<'a> {
    /// How blocks are laid out.
    pub layout: KvLayout,
    /// Which layer.
    pub layer: usize,
    /// Query heads; a multiple of the key-value heads.
    pub heads: usize,
    /// Scores are multiplied with it.
    pub scale: f32,
    /// Queries, `[row][head][head_dim]`.
    pub q: &'a [f32],
    /// The batch.
    pub segments: &'a [Segment<'a>],
    /// The result, like `q`. Rows of no segment stay as they are.
    pub out: &'a mut [f32],
}

pub(crate) fn attention(isa: Isa, threads: &Threads, attention: Attention<'_>) {
    let Attention { layout, layer, heads, scale, q, segments, out } = attention;
    let width = heads * layout.head_dim;
    assert!(layout.block_tokens.is_power_of_two() && layout.block_tokens <= PART);
    assert!(layer < layout.layers && heads.is_multiple_of(layout.kv_heads));
    assert_eq!(q.len(), out.len());
    let group = heads / layout.kv_heads;
    let step = (TASK_ROWS / group).max(1);
    let mut tasks = Vec::new();
    let mut next_row = 0;
    for segment in segments {
        assert!(segment.row >= next_row, "segments in the order of their rows, without overlap");
        next_row = segment.row + segment.count;
        assert!(next_row * width <= q.len(), "a segment beyond the queries");
        let blocks = (segment.start + segment.count).div_ceil(layout.block_tokens);
        assert!(segment.blocks.len() >= blocks, "a segment's blocks are missing");
        assert!(segment.blocks[..blocks].iter().all(|b| b.len() == layout.block_floats()));
        for first in (0..segment.count).step_by(step) {
            let count = step.min(segment.count - first);
            tasks.extend((0..layout.kv_heads).map(|kv_head| (segment, first, count, kv_head)));
        }
    }
    let out = Disjoint::new(out);
    threads.run(tasks.len(), &|i| {
        let (segment, first, count, kv_head) = tasks[i];
        let queries = Queries {
            layout: &layout,
            keys: layout.tile(kv_head, layer, false),
            values: layout.tile(kv_head, layer, true),
            blocks: segment.blocks,
            position: segment.start + first,
            rows: count * group,
            group,
        };
        let offset = |query: usize| {
            (segment.row + first + query) * width + kv_head * group * layout.head_dim
        };
        isa.run(Task { queries, q, out: &out, offset, scale });
    });
}

/// Some consecutive queries of one sequence and key-value head. A row is a (query, head of the
/// group) pair.
struct Queries<'a> {
    layout: &'a KvLayout,
    /// Offsets of the head's keys and values in a block.
    keys: usize,
    values: usize,
    blocks: &'a [&'a [f32]],
    /// Of the first query.
    position: usize,
    rows: usize,
    group: usize,
}

struct Task<'a, F> {
    queries: Queries<'a>,
    q: &'a [f32],
    out: &'a Disjoint<'a>,
    /// Where the group's heads of a query begin in `q` and `out`.
    offset: F,
    scale: f32,
}

/// Buffers of one thread.
#[derive(Default)]
struct Scratch {
    /// Scaled queries, `[row][head_dim]`.
    q: Vec<f32>,
    /// Scores, then weights of one part, `[row][PART]`.
    p: Vec<f32>,
    /// One part: maxima, sums, weighted values.
    part: Sums,
    /// All parts so far.
    total: Sums,
}

#[derive(Default)]
struct Sums {
    max: Vec<f32>,
    sum: Vec<f32>,
    /// `[row][head_dim]`.
    value: Vec<f32>,
}

impl Sums {
    fn reset(&mut self, rows: usize, dim: usize) {
        for (buffer, len) in
            [(&mut self.max, rows), (&mut self.sum, rows), (&mut self.value, rows * dim)]
        {
            buffer.clear();
            buffer.resize(len, 0.0);
        }
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl<F: Fn(usize) -> usize> Kernel for Task<'_, F> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let queries = &self.queries;
        let (dim, group) = (queries.layout.head_dim, queries.group);
        // Taken and put back: what runs in a closure is compiled without the instruction set.
        let mut scratch = SCRATCH.take();
        scratch.q.clear();
        for query in 0..queries.rows / group {
            let from = (self.offset)(query);
            for q in &self.q[from..from + group * dim] {
                scratch.q.push(q * self.scale);
            }
        }
        // SAFETY: the CPU has `S`.
        unsafe { queries.attend::<S>(&mut scratch) };
        for query in 0..queries.rows / group {
            // SAFETY: a (query, key-value head) belongs to one task alone.
            let out = unsafe { self.out.part((self.offset)(query), group * dim) };
            let first = query * group;
            out.copy_from_slice(&scratch.total.value[first * dim..(first + group) * dim]);
            for (out, sum) in out.chunks_exact_mut(dim).zip(&scratch.total.sum[first..]) {
                for x in out {
                    *x /= sum;
                }
            }
        }
        SCRATCH.set(scratch);
    }
}

impl Queries<'_> {
    /// Positions of the part at `from` that `row` sees.
    #[inline(always)]
    fn seen(&self, row: usize, from: usize) -> usize {
        (self.position + row / self.group + 1).saturating_sub(from).min(PART)
    }

    /// Fills `scratch.total` for `scratch.q`.
    ///
    /// # Safety
    ///
    /// The CPU has `S`.
    #[inline(always)]
    unsafe fn attend<S: Simd>(&self, scratch: &mut Scratch) {
        let dim = self.layout.head_dim;
        assert_eq!(scratch.q.len(), self.rows * dim);
        scratch.p.resize(self.rows * PART, 0.0);
        scratch.total.reset(self.rows, dim);
        let end = self.position + self.rows / self.group;
        for from in (0..end).step_by(PART) {
            scratch.part.reset(self.rows, dim);
            // SAFETY: the CPU has `S`; the buffers have just been sized for `rows`.
            unsafe {
                if S::WIDE {
                    self.scores::<S, 4, 4>(from, &scratch.q, &mut scratch.p);
                    self.weigh(from, &mut scratch.p, &mut scratch.part);
                    self.mix::<S, 4, 4>(from, &scratch.p, &mut scratch.part.value);
                } else {
                    self.scores::<S, 2, 2>(from, &scratch.q, &mut scratch.p);
                    self.weigh(from, &mut scratch.p, &mut scratch.part);
                    self.mix::<S, 2, 2>(from, &scratch.p, &mut scratch.part.value);
                }
            }
            self.merge(from, &scratch.part, &mut scratch.total);
        }
    }

    /// Scores of one part: the products of queries and keys. A tile's rows share the keys up to
    /// the last one that any of them sees; what a row does not see is not looked at later.
    ///
    /// # Safety
    ///
    /// The CPU has `S`; `q` and `p` are sized for `rows`.
    #[inline(always)]
    unsafe fn scores<S: Simd, const MR: usize, const NR: usize>(
        &self,
        from: usize,
        q: &[f32],
        p: &mut [f32],
    ) {
        let step = self.layout.block_tokens;
        for begin in (0..self.seen(self.rows - 1, from)).step_by(step) {
            let block = self.blocks[(from + begin) / step];
            let keys = &block[self.keys..self.keys + step * self.layout.head_dim];
            let mut row = 0;
            while row < self.rows {
                let tall = row + MR <= self.rows;
                let rows = if tall { MR } else { 1 };
                let seen = self.seen(row + rows - 1, from);
                let count = seen.saturating_sub(begin).min(step);
                // SAFETY: `rows` rows from `row` on exist; `keys` holds at least `count` keys.
                unsafe {
                    if tall {
                        self.score_rows::<S, MR, NR>(row, begin, keys, count, q, p);
                    } else {
                        self.score_rows::<S, 1, NR>(row, begin, keys, count, q, p);
                    }
                }
                row += rows;
            }
        }
    }

    /// `MR` rows against the first `count` of `keys`, which stand at `begin` in the part.
    ///
    /// # Safety
    ///
    /// As for `scores`; `row + MR <= rows`, `keys` holds `count` keys.
    #[inline(always)]
    unsafe fn score_rows<S: Simd, const MR: usize, const NR: usize>(
        &self,
        row: usize,
        begin: usize,
        keys: &[f32],
        count: usize,
        q: &[f32],
        p: &mut [f32],
    ) {
        let dim = self.layout.head_dim;
        let q = q[row * dim..(row + MR) * dim].as_ptr();
        let mut j = 0;
        while j < count {
            // SAFETY: `q` has MR rows, `keys` has the NR or 1 keys from `j` on.
            unsafe {
                let key = keys.as_ptr().add(j * dim);
                if j + NR <= count {
                    let sums = dots::<S, f32, MR, NR>(q, dim, key, dim, dim);
                    for (m, sums) in sums.iter().enumerate() {
                        let at = (row + m) * PART + begin + j;
                        p[at..at + NR].copy_from_slice(sums);
                    }
                    j += NR;
                } else {
                    let sums = dots::<S, f32, MR, 1>(q, dim, key, dim, dim);
                    for (m, sums) in sums.iter().enumerate() {
                        p[(row + m) * PART + begin + j] = sums[0];
                    }
                    j += 1;
                }
            }
        }
    }

    /// Scores become weights `e^(score - max)`; their maxima and sums go to `part`.
    #[inline(always)]
    fn weigh(&self, from: usize, p: &mut [f32], part: &mut Sums) {
        for (row, p) in p.chunks_exact_mut(PART).take(self.rows).enumerate() {
            let seen = self.seen(row, from);
            let padded = seen.next_multiple_of(LANES);
            p[seen..padded].fill(f32::NEG_INFINITY);
            let (lanes, _) = p[..padded].as_chunks_mut::<LANES>();
            let mut max = [f32::NEG_INFINITY; LANES];
            for lane in lanes.iter() {
                for i in 0..LANES {
                    max[i] = if lane[i] > max[i] { lane[i] } else { max[i] };
                }
            }
            let max = max.iter().fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a });
            let mut sum = [0.0f32; LANES];
            for lane in lanes.iter_mut() {
                for i in 0..LANES {
                    lane[i] = math::exp(lane[i] - max);
                    sum[i] += lane[i];
                }
            }
            part.max[row] = max;
            part.sum[row] = fold(sum);
        }
    }

    /// Values of one part, mixed by their weights in the order of positions.
    ///
    /// # Safety
    ///
    /// The CPU has `S`; `p` and `out` are sized for `rows`.
    #[inline(always)]
    unsafe fn mix<S: Simd, const MR: usize, const DV: usize>(
        &self,
        from: usize,
        p: &[f32],
        out: &mut [f32],
    ) {
        let mut row = 0;
        while row < self.rows {
            // SAFETY: the rows named exist; every row is mixed up to what it sees, and the blocks
            // hold what is seen.
            unsafe {
                if row + MR <= self.rows {
                    // What all rows of the tile see together, then what later rows see alone.
                    let common = self.seen(row, from);
                    self.mix_rows::<S, MR, DV>(row, from, 0, common, p, out);
                    for row in row + 1..row + MR {
                        self.mix_rows::<S, 1, DV>(row, from, common, self.seen(row, from), p, out);
                    }
                    row += MR;
                } else {
                    self.mix_rows::<S, 1, DV>(row, from, 0, self.seen(row, from), p, out);
                    row += 1;
                }
            }
        }
    }

    /// Adds the values at `begin..end` of the part to `MR` rows of `out`.
    ///
    /// # Safety
    ///
    /// As for `mix`; `row + MR <= rows`.
    #[inline(always)]
    unsafe fn mix_rows<S: Simd, const MR: usize, const DV: usize>(
        &self,
        row: usize,
        from: usize,
        begin: usize,
        end: usize,
        p: &[f32],
        out: &mut [f32],
    ) {
        if begin >= end {
            return;
        }
        let dim = self.layout.head_dim;
        let p = &p[row * PART..(row + MR) * PART];
        let out = &mut out[row * dim..(row + MR) * dim];
        let mut d = 0;
        while d + LANES <= dim {
            // SAFETY: the vectors from `d` on lie within a head.
            unsafe {
                d += if d + DV * LANES <= dim {
                    self.mix_columns::<S, MR, DV>(from, begin..end, d, p, out)
                } else {
                    self.mix_columns::<S, MR, 1>(from, begin..end, d, p, out)
                };
            }
        }
        // Heads that are no multiple of the lanes: what a lane does, for single elements.
        for (row, out) in out.chunks_exact_mut(dim).enumerate() {
            for (d, out) in out.iter_mut().enumerate().skip(d) {
                for j in begin..end {
                    *out = p[row * PART + j].mul_add(self.value(from + j)[d], *out);
                }
            }
        }
    }

    /// Columns `d .. d + DV * LANES`; gives how many that are.
    ///
    /// # Safety
    ///
    /// As for `mix_rows`; the columns exist.
    #[inline(always)]
    unsafe fn mix_columns<S: Simd, const MR: usize, const DV: usize>(
        &self,
        from: usize,
        range: std::ops::Range<usize>,
        d: usize,
        p: &[f32],
        out: &mut [f32],
    ) -> usize {
        const { assert!(MR <= 4 && DV <= 4, "`unroll` goes no further") };
        let (dim, step) = (self.layout.head_dim, self.layout.block_tokens);
        // SAFETY: `out` has MR rows of `dim`, and the columns are within; `p` has MR rows of
        // PART, and the range is within; a block's values are `step` rows of `dim`.
        unsafe {
            let out = out.as_mut_ptr().add(d);
            let mut acc = [[S::zero(); DV]; MR];
            unroll!(M < MR {
                unroll!(V < DV {
                    acc[M][V] = S::load(out.add(M * dim + V * LANES));
                });
            });
            let mut j = range.start;
            while j < range.end {
                let until = range.end.min((j / step + 1) * step);
                let block = self.blocks[(from + j) / step];
                let values = &block[self.values..self.values + step * dim];
                let mut value = values.as_ptr().add(j % step * dim + d);
                for j in j..until {
                    let mut vs = [S::zero(); DV];
                    unroll!(V < DV {
                        vs[V] = S::load(value.add(V * LANES));
                    });
                    unroll!(M < MR {
                        let weight = S::splat(*p.get_unchecked(M * PART + j));
                        unroll!(V < DV {
                            acc[M][V] = S::fma(weight, vs[V], acc[M][V]);
                        });
                    });
                    // The last step may leave the block, hence no plain `add`.
                    value = value.wrapping_add(dim);
                }
                j = until;
            }
            unroll!(M < MR {
                unroll!(V < DV {
                    S::store(out.add(M * dim + V * LANES), acc[M][V]);
                });
            });
        }
        DV * LANES
    }

    /// The value vector of a position.
    #[inline(always)]
    fn value(&self, position: usize) -> &[f32] {
        let (dim, step) = (self.layout.head_dim, self.layout.block_tokens);
        let at = self.values + position % step * dim;
        &self.blocks[position / step][at..at + dim]
    }

    /// Adds the part at `from` to the total, row by row.
    #[inline(always)]
    fn merge(&self, from: usize, part: &Sums, total: &mut Sums) {
        let dim = self.layout.head_dim;
        for row in 0..self.rows {
            if self.seen(row, from) == 0 {
                continue;
            }
            let value = &part.value[row * dim..(row + 1) * dim];
            let out = &mut total.value[row * dim..(row + 1) * dim];
            if from == 0 {
                total.max[row] = part.max[row];
                total.sum[row] = part.sum[row];
                out.copy_from_slice(value);
                continue;
            }
            let (a, b) = (total.max[row], part.max[row]);
            let max = if b > a { b } else { a };
            let (keep, add) = (math::exp(a - max), math::exp(b - max));
            total.max[row] = max;
            total.sum[row] = total.sum[row] * keep + part.sum[row] * add;
            for (out, value) in out.iter_mut().zip(value) {
                *out = *out * keep + value * add;
            }
        }
    }
}

/// Lanes added in halves, as in [`Simd::sum`].
#[inline(always)]
fn fold(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}
