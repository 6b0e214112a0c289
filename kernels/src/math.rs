//! Elementary functions from IEEE 754 operations alone: no call into the system's libm, whose
//! results differ between versions and CPUs.

use std::f64::consts::{LN_2, LOG2_E, PI};

/// Adding it rounds a small float to an integer, which then stands in the lowest bits.
const ROUND: f32 = 12_582_912.0;

/// `e^x`, relative error below 2e-7; 0 below -87.3, at most `e^88`. Vectorises.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Remez-like coefficients of (e^r - 1 - r) / r^2 on |r| <= ln(2)/2 (Cephes).
    const C: [f32; 6] =
        [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1];
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let clamped = if x > 88.0 { 88.0 } else { x };
    let clamped = if clamped < -87.3 { -87.3 } else { clamped };
    let shifted = clamped.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, clamped));
    let mut p = C[0];
    for c in &C[1..] {
        p = p.mul_add(r, *c);
    }
    let p = (p * r).mul_add(r, r) + 1.0;
    // 2^n: the exponent field is n + 127.
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    if x < -87.3 { 0.0 } else { p * scale }
}

/// `ln x` for positive, normal `x`.
pub(crate) fn ln(x: f64) -> f64 {
    debug_assert!(x >= f64::MIN_POSITIVE);
    // x = m * 2^e with m in [sqrt(1/2), sqrt(2)), then ln m = 2 atanh((m - 1) / (m + 1)).
    let bits = x.to_bits();
    let mut e = ((bits >> 52) as i64 - 1023) as f64;
    let mut m = f64::from_bits((bits & 0x000f_ffff_ffff_ffff) | 0x3ff0_0000_0000_0000);
    if m > std::f64::consts::SQRT_2 {
        m /= 2.0;
        e += 1.0;
    }
    let s = (m - 1.0) / (m + 1.0);
    let s2 = s * s;
    let series = (0..20).rev().fold(0.0, |sum, i| sum * s2 + 1.0 / f64::from(2 * i + 1));
    e * LN_2 + 2.0 * s * series
}

/// `e^x` for `|x| < 700`.
pub(crate) fn exp_f64(x: f64) -> f64 {
    let n = (x * LOG2_E).round();
    let r = x - n * LN_2;
    let series = (1..22).rev().fold(1.0, |sum, i| 1.0 + sum * r / f64::from(i));
    series * f64::from_bits(((n as i64 + 1023) as u64) << 52)
}

/// `(sin x, cos x)` for `0 <= x < 2^20`; absolute error below 1e-9.
pub(crate) fn sin_cos(x: f64) -> (f64, f64) {
    // Pi/2 in two parts; the first has 33 bits, so that its multiples are exact.
    const PI_2_HIGH: f64 = 1.570_796_326_734_125_6;
    const PI_2_LOW: f64 = 6.077_100_506_506_192e-11;
    let n = (x * (2.0 / PI)).round();
    let r = (x - n * PI_2_HIGH) - n * PI_2_LOW;
    let r2 = r * r;
    let alternating = |first: i32| {
        // Horner form of 1 - r^2/(a(a+1)) (1 - r^2/((a+2)(a+3)) (...)).
        (0..9).rev().fold(1.0, |sum, i| {
            let a = first + 2 * i;
            1.0 - sum * r2 / f64::from(a * (a + 1))
        })
    };
    let (sin, cos) = (r * alternating(2), alternating(1));
    match n as i64 & 3 {
        0 => (sin, cos),
        1 => (cos, -sin),
        2 => (-sin, -cos),
        _ => (-cos, sin),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_over_its_range() {
        let mut x = -87.2f32;
        while x < 88.0 {
            let (got, want) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((got / want - 1.0).abs() < 2e-7, "exp({x}) = {got}, not {want}");
            x += 0.001_37;
        }
    }

    #[test]
    fn exp_at_the_edges() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-1e9), 0.0);
        assert!(exp(f32::INFINITY).is_finite());
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn double_functions_agree_with_the_system() {
        for i in 0..200_000 {
            let x = f64::from(i) * 0.731;
            let (s, c) = sin_cos(x);
            assert!((s - x.sin()).abs() < 1e-9 && (c - x.cos()).abs() < 1e-9, "at {x}");
        }
        for i in 1..20_000 {
            let x = f64::from(i) * 1.7;
            assert!((ln(x) - x.ln()).abs() < 1e-14 * x.ln().abs().max(1.0), "ln {x}");
            let y = f64::from(i - 10_000) * 0.01;
            assert!((exp_f64(y) / y.exp() - 1.0).abs() < 1e-13, "exp {y}");
        }
    }
}
