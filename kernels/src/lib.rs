//! The mathematics: operators on CPU with a fixed order of summation.
//!
//! Every result is a function of its inputs alone: it has the same bits for one row as for a
//! thousand, on one thread or many, on AVX2, AVX-512 or plain code. Three rules make it so:
//!
//! * a sum over many products has one order (see `simd`), which tiles and threads never cut;
//! * attention is formed in parts at absolute multiples of [`PART`] positions, merged in order;
//! * elementary functions are built from IEEE 754 operations (see `math`), never taken from libm.
//!
//! All `unsafe` of the computation is in here; the interface is safe and checks every size.

// A kernel is compiled for an instruction set by being inlined into a function that enables it.
#![allow(clippy::inline_always)]
// Tiles are arrays indexed by row and column at once; iterators would hide the shape.
#![allow(clippy::needless_range_loop)]
// Bits are what is promised, and loads that ask for no alignment may take any pointer.
#![cfg_attr(test, allow(clippy::float_cmp))]
#![allow(clippy::cast_ptr_alignment)]

mod attention;
mod dots;
mod isa;
mod linear;
mod map;
mod math;
mod matrix;
mod rope;
mod rowwise;
mod shared;
mod simd;
mod threads;

pub use attention::{Attention, KvLayout, PART, Segment};
pub use isa::Isa;
pub use linear::Projection;
pub use map::{MappedFile, map_file};
pub use matrix::{DType, Matrix, SizeMismatch};
pub use rope::{RopeScaling, RopeSpeeds, RopeTable};
pub use rowwise::Rope;
pub use threads::Threads;

/// Names what decides the bits of results. Two processes with the same name compute the same
/// bytes from the same inputs; it changes whenever an operator's arithmetic does.
pub const fn numerics_class() -> &'static str {
    "cpu-f32-lanes16-part256-v1"
}

/// The operators, on a given instruction set and pool of threads.
pub struct Cpu {
    isa: Isa,
    threads: Threads,
}

impl Cpu {
    /// Operators on the CPU's best instruction set and `threads` threads.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        Self::with_isa(Isa::detect(), threads)
    }

    /// Operators on a chosen instruction set.
    pub fn with_isa(isa: Isa, threads: usize) -> std::io::Result<Self> {
        Ok(Self { isa, threads: Threads::new(threads)? })
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The threads that share an operator's work.
    pub fn threads(&self) -> &Threads {
        &self.threads
    }

    /// `out = x W^T (+ bias)` for each projection; `x` is `rows` rows.
    pub fn linear(&self, x: &[f32], rows: usize, projections: &mut [Projection<'_>]) {
        linear::linear(self.isa, &self.threads, x, rows, projections);
    }

    /// `out = x / rms(x) * weight` for every row of `weight.len()` elements.
    pub fn rms_norm(&self, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        rowwise::rms_norm(self.isa, &self.threads, x, weight, eps, out);
    }

    /// Normalises (where asked) and rotates every head of `rows` rows, `[row][head][head_dim]`.
    pub fn rope(&self, x: &mut [f32], rows: usize, rope: &Rope<'_>) {
        rowwise::rope(self.isa, &self.threads, x, rows, rope);
    }

    /// `gate = silu(gate) * up`, element by element.
    pub fn silu_mul(&self, gate: &mut [f32], up: &[f32]) {
        rowwise::silu_mul(self.isa, &self.threads, gate, up);
    }

    /// Causal attention of one layer.
    pub fn attention(&self, attention: Attention<'_>) {
        attention::attention(self.isa, &self.threads, attention);
    }
}
