//! The inner loop of every projection and of attention scores: a tile of dot products.

use crate::simd::{Element, LANES, Simd};

/// Repeats a block with a constant index below `$n` (at most 4), so that the elements of a tile's
/// array are registers: a loop that the compiler leaves as a loop keeps them in memory.
macro_rules! unroll {
    ($i:ident < $n:ident $body:block) => {
        unroll!(@ 0 1 2 3, $i < $n $body)
    };
    (@ $($at:literal)*, $i:ident < $n:ident $body:block) => {
        $({
            const $i: usize = $at;
            if $i < $n $body
        })*
    };
}
pub(crate) use unroll;

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
    const { assert!(MR <= 4 && NR <= 4, "`unroll` goes no further") };
    // SAFETY: offsets stay below `k` in rows that the caller vouches for; the padded copies are
    // LANES long.
    unsafe {
        let mut acc = [[S::zero(); NR]; MR];
        let full = k - k % LANES;
        let mut i = 0;
        while i < full {
            let mut xs = [S::zero(); MR];
            unroll!(M < MR {
                xs[M] = S::load(x.add(M * x_stride + i));
            });
            unroll!(N < NR {
                let w_n = E::load::<S>(w.add(N * w_stride + i));
                unroll!(M < MR {
                    acc[M][N] = S::fma(xs[M], w_n, acc[M][N]);
                });
            });
            i += LANES;
        }
        if full < k {
            unroll!(N < NR {
                let w_n = load_padded::<S, E>(w.add(N * w_stride + full), k - full);
                unroll!(M < MR {
                    let x_m = load_padded::<S, f32>(x.add(M * x_stride + full), k - full);
                    acc[M][N] = S::fma(x_m, w_n, acc[M][N]);
                });
            });
        }
        let mut out = [[0.0; NR]; MR];
        unroll!(M < MR {
            unroll!(N < NR {
                out[M][N] = S::sum(acc[M][N]);
            });
        });
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
    // SAFETY: the caller's promise, passed on; then LANES floats.
    unsafe {
        let padded = pad(p, count);
        S::load(padded.as_ptr())
    }
}

/// Kept out of the kernels: tails are rare, and a tile would hold many copies of it.
///
/// # Safety
///
/// `p` is readable for `count` elements, `count < LANES`.
#[inline(never)]
unsafe fn pad<E: Element>(p: *const E, count: usize) -> [f32; LANES] {
    let mut padded = [0.0f32; LANES];
    for (i, out) in padded.iter_mut().enumerate().take(count) {
        // SAFETY: `i < count`.
        *out = unsafe { p.add(i).read_unaligned() }.widen();
    }
    padded
}
