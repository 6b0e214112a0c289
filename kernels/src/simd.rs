//! Sixteen float lanes on each instruction set.
//!
//! Every sum over many products in this crate is formed the same way: lane `i` adds up the
//! products with index `i mod 16` in ascending order by fused multiply-add, and [`Simd::sum`]
//! folds the lanes in halves (16, 8, 4, 2, 1). Both are defined by IEEE 754 alone, so every
//! implementation of [`Simd`] gives the same bits.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod portable;

/// Lanes of a vector, on every instruction set.
pub(crate) const LANES: usize = 16;

/// Operations on vectors of [`LANES`] floats.
///
/// Everything here is inlined into a function that enables the instruction set (see
/// [`crate::isa`]); the trait is only named inside kernels that run through it.
///
/// # Safety
///
/// Callers of any method promise that the running CPU has the implementation's instruction set,
/// and that pointers are valid for `LANES` elements (any alignment).
pub(crate) trait Simd: Copy + 'static {
    /// A vector of [`LANES`] floats.
    type V: Copy;
    /// Registers are wide and many: kernels hold larger tiles.
    const WIDE: bool;

    unsafe fn zero() -> Self::V;
    unsafe fn splat(x: f32) -> Self::V;
    unsafe fn load(p: *const f32) -> Self::V;
    unsafe fn load_bf16(p: *const u16) -> Self::V;
    unsafe fn load_f16(p: *const u16) -> Self::V;
    unsafe fn store(p: *mut f32, v: Self::V);
    /// `a * b + c`, rounded once.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// Lanes added in halves: `i` and `i + 8`, then `i + 4`, `i + 2`, `i + 1`.
    unsafe fn sum(v: Self::V) -> f32;
}

/// A stored number that widens to `f32` without loss.
pub(crate) trait Element: Copy + 'static {
    /// Widens [`LANES`] elements. Safety as for [`Simd`].
    unsafe fn load<S: Simd>(p: *const Self) -> S::V;
    /// Widens one element.
    fn widen(self) -> f32;
}

impl Element for f32 {
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Self) -> S::V {
        // SAFETY: the caller's promise, passed on.
        unsafe { S::load(p) }
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
}

/// The bits of a bfloat16.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Bf16(pub(crate) u16);

impl Element for Bf16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Self) -> S::V {
        // SAFETY: the caller's promise, passed on; the type is transparent.
        unsafe { S::load_bf16(p.cast()) }
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }
}

/// The bits of an IEEE half.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct F16(pub(crate) u16);

impl Element for F16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Self) -> S::V {
        // SAFETY: the caller's promise, passed on; the type is transparent.
        unsafe { S::load_f16(p.cast()) }
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        half::f16::from_bits(self.0).to_f32()
    }
}
