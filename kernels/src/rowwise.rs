//! Operators that treat every row alone: norms, rotation, activation.

use crate::isa::{Isa, Kernel};
use crate::math;
use crate::shared::Disjoint;
use crate::simd::{LANES, Simd};
use crate::threads::Threads;

/// Elements per index of the parallel loop, about: below it, a loop is not worth sharing.
const TASK_ELEMENTS: usize = 16 * 1024;

/// Runs `kernel(first row, rows)` over all rows.
fn over_rows(threads: &Threads, rows: usize, cols: usize, kernel: &(dyn Fn(usize, usize) + Sync)) {
    let step = (TASK_ELEMENTS / cols.max(1)).max(1);
    threads.run(rows.div_ceil(step), &|i| {
        let first = i * step;
        kernel(first, step.min(rows - first));
    });
}

/// `out = x / rms(x) * weight` for every row of `weight.len()` elements.
pub(crate) fn rms_norm(
    isa: Isa,
    threads: &Threads,
    x: &[f32],
    weight: &[f32],
    eps: f32,
    out: &mut [f32],
) {
    let cols = weight.len();
    assert_eq!(x.len(), out.len());
    assert!(cols > 0 && x.len().is_multiple_of(cols), "whole rows");
    let out = Disjoint::new(out);
    over_rows(threads, x.len() / cols, cols, &|first, rows| {
        let range = first * cols..(first + rows) * cols;
        // SAFETY: rows of different indices do not overlap.
        let out = unsafe { out.part(range.start, range.len()) };
        out.copy_from_slice(&x[range]);
        isa.run(NormRows { x: out, weight, eps });
    });
}

/// Rows of `weight.len()` elements, normalised in place.
struct NormRows<'a> {
    x: &'a mut [f32],
    weight: &'a [f32],
    eps: f32,
}

impl Kernel for NormRows<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for row in self.x.chunks_exact_mut(self.weight.len()) {
            // SAFETY: the CPU has `S`.
            unsafe { norm_row::<S>(row, self.weight, self.eps) };
        }
    }
}

/// # Safety
///
/// The CPU has `S`.
#[inline(always)]
unsafe fn norm_row<S: Simd>(row: &mut [f32], weight: &[f32], eps: f32) {
    // SAFETY: the caller's promise; the row is `len` long.
    let squares = unsafe {
        let p = row.as_ptr();
        crate::dots::dots::<S, f32, 1, 1>(p, row.len(), p, row.len(), row.len())[0][0]
    };
    let scale = 1.0 / (squares / row.len() as f32 + eps).sqrt();
    for (x, w) in row.iter_mut().zip(weight) {
        *x = *x * scale * w;
    }
}

/// Rotary embedding and, before it, an optional norm per head.
pub struct Rope<'a> {
    /// Cosines, `[row][head_dim / 2]`, then sines alike; see [`crate::rope::RopeTable::rows`].
    pub cos: &'a [f32],
    /// See `cos`.
    pub sin: &'a [f32],
    /// Elements per head.
    pub head_dim: usize,
    /// Weights of the norm per head, `head_dim` long, and its epsilon.
    pub norm: Option<(&'a [f32], f32)>,
}

/// Normalises (where asked) and rotates every head of every row of `x`, `[row][head][head_dim]`.
pub(crate) fn rope(isa: Isa, threads: &Threads, x: &mut [f32], rows: usize, rope: &Rope<'_>) {
    if rows == 0 {
        return;
    }
    let (cols, half) = (x.len() / rows, rope.head_dim / 2);
    assert!(rope.head_dim > 0 && rope.head_dim.is_multiple_of(2), "an even head_dim");
    assert!(x.len() == rows * cols && cols.is_multiple_of(rope.head_dim), "whole heads");
    assert!(rope.cos.len() == rows * half && rope.sin.len() == rows * half, "one angle per pair");
    assert!(rope.norm.is_none_or(|(w, _)| w.len() == rope.head_dim), "the norm's width");
    let x = Disjoint::new(x);
    over_rows(threads, rows, cols, &|first, rows| {
        // SAFETY: rows of different indices do not overlap.
        let x = unsafe { x.part(first * cols, rows * cols) };
        isa.run(RopeRows { x, cols, first, rope });
    });
}

struct RopeRows<'a> {
    x: &'a mut [f32],
    cols: usize,
    first: usize,
    rope: &'a Rope<'a>,
}

impl Kernel for RopeRows<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (dim, half) = (self.rope.head_dim, self.rope.head_dim / 2);
        for (i, row) in self.x.chunks_exact_mut(self.cols).enumerate() {
            let angles = (self.first + i) * half..(self.first + i + 1) * half;
            let (cos, sin) = (&self.rope.cos[angles.clone()], &self.rope.sin[angles]);
            for head in row.chunks_exact_mut(dim) {
                if let Some((weight, eps)) = self.rope.norm {
                    // SAFETY: the CPU has `S`.
                    unsafe { norm_row::<S>(head, weight, eps) };
                }
                let (low, high) = head.split_at_mut(half);
                for (((a, b), c), s) in low.iter_mut().zip(high).zip(cos).zip(sin) {
                    (*a, *b) = (*a * c - *b * s, *b * c + *a * s);
                }
            }
        }
    }
}

/// `gate = silu(gate) * up`, element by element.
pub(crate) fn silu_mul(isa: Isa, threads: &Threads, gate: &mut [f32], up: &[f32]) {
    assert_eq!(gate.len(), up.len());
    let gate = Disjoint::new(gate);
    over_rows(threads, up.len().div_ceil(LANES), LANES, &|first, rows| {
        let from = first * LANES;
        let up = &up[from..up.len().min(from + rows * LANES)];
        // SAFETY: ranges of different indices do not overlap.
        let gate = unsafe { gate.part(from, up.len()) };
        isa.run(SiluMul { gate, up });
    });
}

struct SiluMul<'a> {
    gate: &'a mut [f32],
    up: &'a [f32],
}

impl Kernel for SiluMul<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for (gate, up) in self.gate.iter_mut().zip(self.up) {
            *gate = *gate / (1.0 + math::exp(-*gate)) * up;
        }
    }
}
