//! The exponential, the logarithm and the sum that sampling uses.
//!
//! They are our own because the platform's differ between machines and versions of its library,
//! and a draw may hang on the last bit: with these, equal logits give equal tokens on every
//! machine. They use plain additions and multiplications, never fused, in a fixed order.

/// Elements that the processor handles side by side.
const LANES: usize = 8;

/// `e^x` for `x <= 0`, within 2 units in the last place; 0 below -87.3 and for NaN.
pub(super) fn exp(x: f32) -> f32 {
    // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts; the first has so few bits that its product with n is exact.
    const LN2_HIGH: f32 = 355.0 / 512.0;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    const TERMS: [f32; 6] =
        [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
    const FLOOR: f32 = -87.3;

    let clamped = if x >= FLOOR { x } else { FLOOR };
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = clamped - n * LN2_HIGH - n * LN2_LOW;
    let mut poly = TERMS[0];
    for term in &TERMS[1..] {
        poly = poly * r + term;
    }
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127);
    let result = (poly * r * r + r + 1.0) * f32::from_bits(exponent << 23);
    if x >= FLOOR { result } else { 0.0 }
}

/// The natural logarithm of a positive, normal number, within 1e-15 of the true value.
pub(super) fn ln(x: f64) -> f64 {
    const MANTISSA: u64 = (1 << 52) - 1;
    const ONE: u64 = 1023 << 52;
    let bits = x.to_bits();
    let mut exponent = (bits >> 52) as i64 - 1023;
    let mut m = f64::from_bits(bits & MANTISSA | ONE);
    if m > std::f64::consts::SQRT_2 {
        m *= 0.5;
        exponent += 1;
    }
    // ln m = 2 artanh(s); s^2 < 0.0295, so that 11 terms reach the last bit.
    let s = (m - 1.0) / (m + 1.0);
    let square = s * s;
    let mut series = 0.0;
    for k in (0..11).rev() {
        series = series * square + 1.0 / f64::from(2 * k + 1);
    }
    exponent as f64 * std::f64::consts::LN_2 + 2.0 * s * series
}

/// The sum of all elements: element `i` goes to partial sum `i % 8`, and the partial sums are
/// added in order.
pub(super) fn sum(values: &[f32]) -> f64 {
    let mut lanes = [0.0_f64; LANES];
    let (eights, rest) = values.as_chunks::<LANES>();
    for eight in eights {
        for (lane, value) in lanes.iter_mut().zip(eight) {
            *lane += f64::from(*value);
        }
    }
    for (lane, value) in lanes.iter_mut().zip(rest) {
        *lane += f64::from(*value);
    }
    lanes.iter().sum()
}

/// The largest element; minus infinity if there is none. None of them is NaN.
pub(super) fn largest(values: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (eights, rest) = values.as_chunks::<LANES>();
    for eight in eights {
        for (lane, value) in lanes.iter_mut().zip(eight) {
            *lane = larger(*lane, *value);
        }
    }
    lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, larger)
}

#[cfg(test)]
mod tests {
    use super::{exp, largest, ln, sum};

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        for step in 0..870_000 {
            let x = -(step as f32) * 1e-4;
            let (ours, truth) = (f64::from(exp(x)), f64::from(x).exp());
            let unit = truth * f64::from(f32::EPSILON);
            assert!((ours - truth).abs() <= 2.0 * unit, "exp({x}) = {ours}, not {truth}");
        }
    }

    #[test]
    fn exp_at_the_edges() {
        assert_eq!(exp(0.0).to_bits(), 1.0_f32.to_bits());
        assert_eq!(exp(-0.0).to_bits(), 1.0_f32.to_bits());
        for x in [-87.31, -1e30, f32::MIN, f32::NEG_INFINITY, f32::NAN] {
            assert_eq!(exp(x).to_bits(), 0.0_f32.to_bits(), "exp({x})");
        }
    }

    /// Golden bits: a change of any of them changes sampled streams.
    #[test]
    fn golden_bits() {
        let exps = [-0.1_f32, -1.0, -10.0, -80.0].map(|x| exp(x).to_bits());
        assert_eq!(exps, [0x3f67_a36d, 0x3ebc_5ab2, 0x383e_6bce, 0x05bf_ecba]);
        let logs = [0.1_f64, 2.0, 1e5].map(|x| ln(x).to_bits());
        assert_eq!(logs, [0xc002_6bb1_bbb5_5515, 0x3fe6_2e42_fefa_39ef, 0x4027_069e_2aa2_aa5b]);
    }

    #[test]
    fn ln_is_exact_to_fifteen_digits() {
        for step in 1..100_000 {
            let x = f64::from(step) * 0.37;
            assert!((ln(x) - x.ln()).abs() <= 2e-15 * x.ln().abs().max(1.0), "ln({x})");
        }
    }

    #[test]
    fn sum_and_largest_take_every_element() {
        for len in 0..40 {
            let values: Vec<f32> = (0..len).map(|i| i as f32).collect();
            let expected = f64::from(len * (len - 1) / 2);
            assert!((sum(&values) - expected).abs() < 1e-12);
            let shifted: Vec<f32> = values.iter().map(|x| (x * 7.0) % len as f32 - 50.0).collect();
            let expected = shifted.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(largest(&shifted).to_bits(), expected.to_bits());
        }
    }
}
