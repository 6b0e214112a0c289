//! The copies of x86-64. One body for both widths; the instructions differ.
//!
//! The checksum: four (wide) or eight (narrow) accumulators take every so many bytes each. To move
//! an accumulator `d` bits on is to multiply it by `x^d`, done for its two 64-bit halves by
//! carry-less multiplications with `x^(d+32)` and `x^(d-32)` modulo the polynomial (Gopal et al.,
//! "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ Instruction", Intel, 2009). What
//! is left at the end has the same remainder as everything before it, so the processor's own
//! CRC32C instruction reduces it.

use std::arch::asm;
use std::arch::x86_64::{
    __m128i, __m512i, _mm_clmulepi64_si128, _mm_crc32_u8, _mm_crc32_u64, _mm_cvtsi32_si128,
    _mm_set_epi64x, _mm_setzero_si128, _mm_sfence, _mm_storeu_si128, _mm_stream_si128,
    _mm_xor_si128, _mm512_broadcast_i32x4, _mm512_clmulepi64_epi128, _mm512_setzero_si512,
    _mm512_storeu_si512, _mm512_stream_si512, _mm512_ternarylogic_epi64, _mm512_zextsi128_si512,
};

/// Whether this processor can do what the wide functions use.
pub(super) fn has_wide() -> bool {
    has_narrow() && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("vpclmulqdq")
}

/// Whether this processor can do what the narrow functions use.
pub(super) fn has_narrow() -> bool {
    is_x86_feature_detected!("sse4.2") && is_x86_feature_detected!("pclmulqdq")
}

/// `x^n` modulo the polynomial of CRC32C, bits reflected, in the place that a product of reflected
/// factors wants it.
const fn power(n: u32) -> i64 {
    let mut power: u32 = 1 << 31;
    let mut i = 0;
    while i < n {
        power = (power >> 1) ^ (if power & 1 == 1 { 0x82F6_3B78 } else { 0 });
        i += 1;
    }
    (power as i64) << 1
}

/// One byte of the source.
///
/// # Safety
/// `source` has to be readable.
#[inline]
unsafe fn load8(source: *const u8) -> u8 {
    let byte: u8;
    // SAFETY: reads one byte, as promised.
    unsafe {
        asm!("mov {0}, byte ptr [{1}]", out(reg_byte) byte, in(reg) source,
            options(nostack, preserves_flags));
    }
    byte
}

/// # Safety
/// `source` has to be readable for 16 bytes.
#[inline]
#[target_feature(enable = "sse4.2")]
unsafe fn load128(source: *const u8) -> __m128i {
    let vector: __m128i;
    // SAFETY: reads 16 bytes, as promised, at any alignment.
    unsafe {
        asm!("movdqu {0}, xmmword ptr [{1}]", out(xmm_reg) vector, in(reg) source,
            options(nostack, preserves_flags));
    }
    vector
}

/// # Safety
/// `source` has to be readable for 64 bytes.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load512(source: *const u8) -> __m512i {
    let vector: __m512i;
    // SAFETY: reads 64 bytes, as promised, at any alignment.
    unsafe {
        asm!("vmovdqu64 {0}, zmmword ptr [{1}]", out(zmm_reg) vector, in(reg) source,
            options(nostack, preserves_flags));
    }
    vector
}

/// Single bytes, at the ends of a copy: there are less than two rounds of them.
///
/// # Safety
/// `source` has to be readable for `len` bytes, and `into`, if `COPY`, writable.
#[target_feature(enable = "sse4.2")]
unsafe fn bytes<const COPY: bool>(source: *const u8, into: *mut u8, len: usize, crc: u32) -> u32 {
    let mut crc = crc;
    for i in 0..len {
        // SAFETY: inside both.
        unsafe {
            let byte = load8(source.add(i));
            if COPY {
                into.add(i).write(byte);
            }
            crc = _mm_crc32_u8(crc, byte);
        }
    }
    crc
}

macro_rules! kernel {
    (
        $module:ident, $features:literal, $vector:ty, $bytes:literal x $lanes:literal,
        load $load:ident, zero $zero:ident, store $store:ident, stream $stream:ident,
        first $first:expr, factors $factors:expr, fold $fold:expr
    ) => {
        mod $module {
            use super::*;

            const LANE: usize = $bytes;
            const ROUND: usize = LANE * $lanes;
            const ROUND_BITS: u32 = ROUND as u32 * 8;
            const LANE_BITS: u32 = LANE as u32 * 8;

            /// Copies if `COPY`, past the caches if `STREAM`; continues `crc`, not inverted at
            /// either end, if `CRC`.
            ///
            /// # Safety
            /// `source` has to be readable for `len` bytes and `into`, if `COPY`, writable; the
            /// processor has to have the features.
            #[target_feature(enable = $features)]
            pub(super) unsafe fn run<const COPY: bool, const STREAM: bool, const CRC: bool>(
                source: *const u8,
                into: *mut u8,
                len: usize,
                crc: u32,
            ) -> u32 {
                // Stores past the caches want an aligned destination.
                let head = if COPY { into.align_offset(LANE).min(len) } else { 0 };
                // SAFETY: `head`, the rounds and the tail are disjoint parts of `len` bytes, and
                // `into` is aligned after the head.
                unsafe {
                    let crc = bytes::<COPY>(source, into, head, crc);
                    let rounds = (len - head) / ROUND * ROUND;
                    let (source, into, len) =
                        (source.add(head), into.wrapping_add(head), len - head);
                    let crc = match rounds {
                        0 => crc,
                        _ => run_rounds::<COPY, STREAM, CRC>(source, into, rounds, crc),
                    };
                    bytes::<COPY>(source.add(rounds), into.wrapping_add(rounds), len - rounds, crc)
                }
            }

            /// # Safety
            /// As for `run`; `len` is a positive multiple of `ROUND`, `into` aligned to `LANE`.
            #[target_feature(enable = $features)]
            unsafe fn run_rounds<const COPY: bool, const STREAM: bool, const CRC: bool>(
                source: *const u8,
                into: *mut u8,
                len: usize,
                crc: u32,
            ) -> u32 {
                let mut lanes = [$zero(); $lanes];
                for at in (0..len).step_by(ROUND) {
                    for (i, lane) in lanes.iter_mut().enumerate() {
                        // SAFETY: the round at `at` lies inside both; `into` is aligned.
                        let vector = unsafe {
                            let vector = $load(source.add(at + i * LANE));
                            if COPY && STREAM {
                                $stream(into.add(at + i * LANE).cast(), vector);
                            } else if COPY {
                                $store(into.add(at + i * LANE).cast(), vector);
                            }
                            vector
                        };
                        if CRC {
                            let factors = $factors(
                                const { power(ROUND_BITS + 32) },
                                const { power(ROUND_BITS - 32) },
                            );
                            *lane = $fold(*lane, factors, vector);
                            if at == 0 && i == 0 {
                                *lane = $first(*lane, crc);
                            }
                        }
                    }
                }
                if COPY && STREAM {
                    // Stores past the caches are ordered with nothing else without it.
                    _mm_sfence();
                }
                if !CRC {
                    return crc;
                }
                let factors =
                    $factors(const { power(LANE_BITS + 32) }, const { power(LANE_BITS - 32) });
                let mut sum = lanes[0];
                for lane in &lanes[1..] {
                    sum = $fold(sum, factors, *lane);
                }
                let mut words = [0u64; LANE / 8];
                // SAFETY: `words` has the size of a vector; the store needs no alignment.
                unsafe { $store(words.as_mut_ptr().cast(), sum) };
                words.into_iter().fold(0, |crc, word| _mm_crc32_u64(crc, word)) as u32
            }
        }
    };
}

kernel!(
    wide, "avx512f,vpclmulqdq,pclmulqdq,sse4.2", __m512i, 64 x 4,
    load load512, zero _mm512_setzero_si512, store _mm512_storeu_si512, stream _mm512_stream_si512,
    first |lane: __m512i, crc: u32| {
        // 0x3c: the exclusive or of the first two.
        let crc = _mm512_zextsi128_si512(_mm_cvtsi32_si128(crc as i32));
        _mm512_ternarylogic_epi64(lane, crc, crc, 0x3c)
    },
    factors |low: i64, high: i64| _mm512_broadcast_i32x4(_mm_set_epi64x(high, low)),
    // 0x96: the exclusive or of all three.
    fold |lane: __m512i, factors: __m512i, next: __m512i| _mm512_ternarylogic_epi64(
        _mm512_clmulepi64_epi128(lane, factors, 0x00),
        _mm512_clmulepi64_epi128(lane, factors, 0x11),
        next,
        0x96,
    )
);

kernel!(
    narrow, "pclmulqdq,sse4.2", __m128i, 16 x 8,
    load load128, zero _mm_setzero_si128, store _mm_storeu_si128, stream _mm_stream_si128,
    first |lane: __m128i, crc: u32| _mm_xor_si128(lane, _mm_cvtsi32_si128(crc as i32)),
    factors |low: i64, high: i64| _mm_set_epi64x(high, low),
    fold |lane: __m128i, factors: __m128i, next: __m128i| _mm_xor_si128(
        _mm_xor_si128(
            _mm_clmulepi64_si128(lane, factors, 0x00),
            _mm_clmulepi64_si128(lane, factors, 0x11),
        ),
        next,
    )
);

macro_rules! entrances {
    ($module:ident, $features:literal, $copy:ident, $copy_crc:ident, $crc:ident) => {
        /// # Safety
        /// As for `Kernel::copy`; the processor has to have the features.
        #[target_feature(enable = $features)]
        pub(super) unsafe fn $copy(source: *const u8, into: &mut [u8], stream: bool) {
            let (to, len) = (into.as_mut_ptr(), into.len());
            // SAFETY: as promised; `into` is writable and nobody else's.
            let _ = unsafe {
                match stream {
                    true => $module::run::<true, true, false>(source, to, len, 0),
                    false => $module::run::<true, false, false>(source, to, len, 0),
                }
            };
        }

        /// # Safety
        /// As for `Kernel::copy`; the processor has to have the features.
        #[target_feature(enable = $features)]
        pub(super) unsafe fn $copy_crc(
            source: *const u8,
            into: &mut [u8],
            stream: bool,
            crc: u32,
        ) -> u32 {
            let (to, len) = (into.as_mut_ptr(), into.len());
            // SAFETY: as promised; `into` is writable and nobody else's.
            !unsafe {
                match stream {
                    true => $module::run::<true, true, true>(source, to, len, !crc),
                    false => $module::run::<true, false, true>(source, to, len, !crc),
                }
            }
        }

        /// # Safety
        /// As for `Kernel::crc`; the processor has to have the features.
        #[target_feature(enable = $features)]
        pub(super) unsafe fn $crc(source: *const u8, len: usize, crc: u32) -> u32 {
            // SAFETY: as promised; without `COPY` nothing is written.
            !unsafe { $module::run::<false, false, true>(source, std::ptr::null_mut(), len, !crc) }
        }
    };
}

entrances!(wide, "avx512f,vpclmulqdq,pclmulqdq,sse4.2", wide_copy, wide_copy_crc, wide_crc);
entrances!(narrow, "pclmulqdq,sse4.2", narrow_copy, narrow_copy_crc, narrow_crc);
