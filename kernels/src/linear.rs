//! Projections: `y = x W^T`, from weights in place.
//!
//! Work is cut over output columns only. With few rows of `x` the weights are widened as they are
//! read (memory is the limit); with many, a panel of weight rows is widened once and used for all.
//! Neither choice is visible in the result.

use crate::dots::dots;
use crate::isa::{Isa, Kernel};
use crate::matrix::{DType, Matrix};
use crate::shared::Disjoint;
use crate::simd::{Bf16, Element, F16, Simd};
use crate::threads::Threads;
use std::cell::RefCell;

/// Up to so many rows of `x`, weights are widened on the fly.
const DIRECT_ROWS: usize = 8;
/// Weight rows that one index of the parallel loop covers: a multiple of every tile's height.
const TASK_ROWS: usize = 48;

/// One weight matrix applied to the common input.
pub struct Projection<'a> {
    /// Weights, `[out][in]`.
    pub weight: Matrix<'a>,
    /// Added to each output, `out` long.
    pub bias: Option<&'a [f32]>,
    /// The result, `[rows of x][out]`.
    pub out: &'a mut [f32],
    /// Add to what `out` holds (a residual) instead of replacing it.
    pub accumulate: bool,
}

/// Applies all projections to `x` (`rows` rows).
pub(crate) fn linear(
    isa: Isa,
    threads: &Threads,
    x: &[f32],
    rows: usize,
    projections: &mut [Projection<'_>],
) {
    if rows == 0 {
        return;
    }
    let cols = x.len() / rows;
    assert_eq!(x.len(), rows * cols, "x is not {rows} whole rows");
    let mut tasks = Vec::new();
    let targets: Vec<Target<'_>> = projections
        .iter_mut()
        .enumerate()
        .map(|(which, p)| {
            let n = p.weight.rows();
            assert_eq!(p.weight.cols(), cols, "the weights' input width");
            assert_eq!(p.out.len(), rows * n, "the output's size");
            assert!(p.bias.is_none_or(|b| b.len() == n), "the bias' length");
            tasks.extend((0..n).step_by(TASK_ROWS).map(|from| (which, from)));
            Target {
                weight: p.weight,
                bias: p.bias,
                out: Disjoint::new(p.out),
                accumulate: p.accumulate,
            }
        })
        .collect();
    threads.run(tasks.len(), &|i| {
        let (which, from) = tasks[i];
        let target = &targets[which];
        let count = TASK_ROWS.min(target.weight.rows() - from);
        isa.run(Columns { x, rows, cols, target, from, count });
    });
}

struct Target<'a> {
    weight: Matrix<'a>,
    bias: Option<&'a [f32]>,
    out: Disjoint<'a>,
    accumulate: bool,
}

/// Output columns `from .. from + count` of one projection.
struct Columns<'a> {
    x: &'a [f32],
    rows: usize,
    cols: usize,
    target: &'a Target<'a>,
    from: usize,
    count: usize,
}

impl Kernel for Columns<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let size = self.target.weight.dtype().bytes();
        let start = self.from * self.cols * size;
        let bytes = &self.target.weight.bytes()[start..start + self.count * self.cols * size];
        // SAFETY: the CPU has `S`; the slice above holds `count` rows of `cols` numbers of the
        // type it is cast to, which has no invalid bit patterns.
        unsafe {
            match self.target.weight.dtype() {
                DType::Bf16 => self.panels::<S, Bf16>(bytes.as_ptr().cast()),
                DType::F16 => self.panels::<S, F16>(bytes.as_ptr().cast()),
                DType::F32 => self.panels::<S, f32>(bytes.as_ptr().cast()),
            }
        }
    }
}

thread_local! {
    /// The widened panel of the thread.
    static PANEL: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

impl Columns<'_> {
    /// # Safety
    ///
    /// The CPU has `S`; `w` is readable for `count` rows of `cols` elements.
    #[inline(always)]
    unsafe fn panels<S: Simd, E: Element>(&self, w: *const E) {
        // SAFETY: the caller's promise, passed on with the tile that suits the registers.
        unsafe {
            if self.rows <= DIRECT_ROWS {
                if S::WIDE { self.direct::<S, E, 4, 4>(w) } else { self.direct::<S, E, 2, 3>(w) }
            } else if S::WIDE {
                self.widened::<S, E, 4, 4>(w);
            } else {
                self.widened::<S, E, 3, 2>(w);
            }
        }
    }

    /// # Safety
    ///
    /// As for `panels`.
    #[inline(always)]
    unsafe fn direct<S: Simd, E: Element, const MR: usize, const NR: usize>(&self, w: *const E) {
        let mut n = 0;
        while n < self.count {
            let nr = NR.min(self.count - n);
            // SAFETY: rows `n .. n + nr` of the panel are below `count`.
            unsafe { self.panel::<S, E, MR, NR>(w.add(n * self.cols), n, nr) };
            n += nr;
        }
    }

    /// # Safety
    ///
    /// As for `panels`.
    #[inline(always)]
    unsafe fn widened<S: Simd, E: Element, const MR: usize, const NR: usize>(&self, w: *const E) {
        // Taken and put back: what runs in a closure is compiled without the instruction set.
        let mut panel = PANEL.take();
        panel.resize(NR * self.cols, 0.0);
        let mut n = 0;
        while n < self.count {
            let nr = NR.min(self.count - n);
            // SAFETY: rows `n .. n + nr` are below `count`; they lie one after the other, and the
            // panel has room for NR of them.
            unsafe {
                widen::<S, E>(w.add(n * self.cols), &mut panel[..nr * self.cols]);
                self.panel::<S, f32, MR, NR>(panel.as_ptr(), n, nr);
            }
            n += nr;
        }
        PANEL.set(panel);
    }

    /// All rows of `x` with the `nr` weight rows at `w`, which give column `self.from + n` on.
    ///
    /// # Safety
    ///
    /// The CPU has `S`; `w` is readable for `nr <= NR` rows of `cols` elements.
    #[inline(always)]
    unsafe fn panel<S: Simd, E: Element, const MR: usize, const NR: usize>(
        &self,
        w: *const E,
        n: usize,
        nr: usize,
    ) {
        let mut m = 0;
        while m < self.rows {
            let left = self.rows - m;
            // SAFETY: rows `m ..` of `x` that are taken exist, by the bounds just tested.
            unsafe {
                m += if left >= MR {
                    self.tile::<S, E, MR, NR>(m, w, n, nr)
                } else if left == 3 && MR > 3 {
                    self.tile::<S, E, 3, NR>(m, w, n, nr)
                } else if left == 2 && MR > 2 {
                    self.tile::<S, E, 2, NR>(m, w, n, nr)
                } else {
                    self.tile::<S, E, 1, NR>(m, w, n, nr)
                };
            }
        }
    }

    /// Rows `m .. m + MR` of `x`; gives `MR`.
    ///
    /// # Safety
    ///
    /// As for `panel`; `m + MR <= rows`.
    #[inline(always)]
    unsafe fn tile<S: Simd, E: Element, const MR: usize, const NR: usize>(
        &self,
        m: usize,
        w: *const E,
        n: usize,
        nr: usize,
    ) -> usize {
        let k = self.cols;
        // SAFETY: MR rows of `x` from `m` on exist; so do `nr` rows of `w`.
        unsafe {
            let x = self.x.as_ptr().add(m * k);
            if nr == NR {
                let sums = dots::<S, E, MR, NR>(x, k, w, k, k);
                self.store(m, n, &sums);
            } else {
                for j in 0..nr {
                    let sums = dots::<S, E, MR, 1>(x, k, w.add(j * k), k, k);
                    self.store(m, n + j, &sums);
                }
            }
        }
        MR
    }

    #[inline(always)]
    fn store<const MR: usize, const NR: usize>(&self, m: usize, n: usize, sums: &[[f32; NR]; MR]) {
        let target = self.target;
        let column = self.from + n;
        for (i, sums) in sums.iter().enumerate() {
            // SAFETY: columns are this task's own, so no other thread has this part.
            let out = unsafe { target.out.part((m + i) * target.weight.rows() + column, NR) };
            for j in 0..NR {
                let mut y = sums[j];
                if let Some(bias) = target.bias {
                    y += bias[column + j];
                }
                out[j] = if target.accumulate { out[j] + y } else { y };
            }
        }
    }
}

/// Widens `out.len()` elements.
///
/// # Safety
///
/// The CPU has `S`; `w` is readable for `out.len()` elements.
#[inline(always)]
unsafe fn widen<S: Simd, E: Element>(w: *const E, out: &mut [f32]) {
    let full = out.len() - out.len() % crate::simd::LANES;
    // SAFETY: every index is below `out.len()`.
    unsafe {
        let mut i = 0;
        while i < full {
            S::store(out.as_mut_ptr().add(i), E::load::<S>(w.add(i)));
            i += crate::simd::LANES;
        }
        for (i, out) in out.iter_mut().enumerate().skip(full) {
            *out = w.add(i).read_unaligned().widen();
        }
    }
}
