//! The inner loop of every projection and of attention scores: a tile of dot products.

use crate::simd::{Element, LANES, Simd};

/// Dot products of `MR` rows of `x` with `NR` rows of `w`, each in the one order that
/// [`crate::simd`] defines; a tile only shares loads.
///
/// # Safety
///
/// The CPU has `S`; row `i` of `x` is readable at `x + i * x_stride` for `k` elements, `w` alike.
#[inline(always)]
pub(crate) unsafe fn dots<S: Simd, E: Element, const MR: usize, const NR: usize>(
    x: *const f32,
    x_stride: usize,
    w: *const E,
    w_stride: usize,
    k: usize,
) -> [[f32; NR]; MR] {
    // SAFETY: offsets stay below `k` in rows that the caller vouches for; the padded copies are
    // LANES long.
    unsafe {
        let mut acc = [[S::zero(); NR]; MR];
        let full = k - k % LANES;
        let mut i = 0;
        while i < full {
            let mut xs = [S::zero(); MR];
            for (m, x_m) in xs.iter_mut().enumerate() {
                *x_m = S::load(x.add(m * x_stride + i));
            }
            for n in 0..NR {
                let w_n = E::load::<S>(w.add(n * w_stride + i));
                for m in 0..MR {
                    acc[m][n] = S::fma(xs[m], w_n, acc[m][n]);
                }
            }
            i += LANES;
        }
        if full < k {
            for n in 0..NR {
                let w_n = load_padded::<S, E>(w.add(n * w_stride + full), k - full);
                for m in 0..MR {
                    let x_m = load_padded::<S, f32>(x.add(m * x_stride + full), k - full);
                    acc[m][n] = S::fma(x_m, w_n, acc[m][n]);
                }
            }
        }
        let mut out = [[0.0; NR]; MR];
        for m in 0..MR {
            for n in 0..NR {
                out[m][n] = S::sum(acc[m][n]);
            }
        }
        out
    }
}

/// The last `count < LANES` elements, followed by zeros.
///
/// # Safety
///
/// The CPU has `S`; `p` is readable for `count` elements, `count < LANES`.
#[inline(always)]
unsafe fn load_padded<S: Simd, E: Element>(p: *const E, count: usize) -> S::V {
    let mut padded = [0.0f32; LANES];
    for (i, out) in padded.iter_mut().enumerate().take(count) {
        // SAFETY: `i < count`.
        *out = unsafe { p.add(i).read_unaligned() }.widen();
    }
    // SAFETY: LANES floats.
    unsafe { S::load(padded.as_ptr()) }
}
