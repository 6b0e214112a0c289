//! Angles of the rotary embedding, with the scalings that published models use.

use crate::math::{exp_f64, ln, sin_cos};

/// How angular speeds are changed for contexts longer than the base model's.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// Every speed divided by the factor.
    Linear {
        /// The divisor.
        factor: f32,
    },
    /// Slow speeds divided by the factor, fast ones kept, a ramp between (Llama 3.1).
    Llama3 {
        /// The divisor of slow speeds.
        factor: f32,
        /// Wavelengths above `original_context / low_freq_factor` are slow.
        low_freq_factor: f32,
        /// Wavelengths below `original_context / high_freq_factor` are fast.
        high_freq_factor: f32,
        /// The base model's context in tokens.
        original_context: u32,
    },
}

/// How exactly angular speeds are held.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum RopeSpeeds {
    /// In single precision: a checkpoint as the transformers library loads it.
    #[default]
    F32,
    /// Rounded to bfloat16: a model in memory that was cast as a whole, its buffers with it, and
    /// was trained or measured so. No checkpoint says that this happened to it.
    Bf16,
}

/// The angular speed of each pair of a head.
///
/// Speeds and angles are single precision, as in the models' reference implementation: at
/// position 30,000 the rounding of an angle is visible.
#[derive(Clone, Debug)]
pub struct RopeTable {
    speeds: Vec<f32>,
}

impl RopeTable {
    /// The table for heads of `head_dim` elements.
    pub fn new(head_dim: usize, theta: f32, scaling: RopeScaling, held: RopeSpeeds) -> Self {
        assert!(theta >= 1.0 && theta.is_finite(), "rope_theta {theta}");
        let log_theta = ln(f64::from(theta));
        let speeds = (0..head_dim / 2)
            .map(|i| {
                let exponent = (2 * i) as f32 / head_dim as f32;
                let speed = 1.0 / exp_f64(f64::from(exponent) * log_theta) as f32;
                let speed = scale(speed, scaling);
                match held {
                    RopeSpeeds::F32 => speed,
                    RopeSpeeds::Bf16 => half::bf16::from_f32(speed).to_f32(),
                }
            })
            .collect();
        Self { speeds }
    }

    /// Cosines and sines of the given positions, each `[position][head_dim / 2]`.
    pub fn rows(
        &self,
        positions: impl Iterator<Item = u32>,
        cos: &mut Vec<f32>,
        sin: &mut Vec<f32>,
    ) {
        cos.clear();
        sin.clear();
        for position in positions {
            for speed in &self.speeds {
                let (s, c) = sin_cos(f64::from(position as f32 * speed));
                cos.push(c as f32);
                sin.push(s as f32);
            }
        }
    }
}

fn scale(speed: f32, scaling: RopeScaling) -> f32 {
    match scaling {
        RopeScaling::None => speed,
        RopeScaling::Linear { factor } => speed / factor,
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
            let context = original_context as f32;
            let wavelength = std::f32::consts::TAU / speed;
            if wavelength < context / high_freq_factor {
                speed
            } else if wavelength > context / low_freq_factor {
                speed / factor
            } else {
                let ramp =
                    (context / wavelength - low_freq_factor) / (high_freq_factor - low_freq_factor);
                (1.0 - ramp) * (speed / factor) + ramp * speed
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::RopeSpeeds::{Bf16, F32};
    use super::*;

    #[test]
    fn speeds_fall_geometrically() {
        let table = RopeTable::new(64, 10_000.0, RopeScaling::None, F32);
        for (i, speed) in table.speeds.iter().enumerate() {
            let want = 10_000f64.powf(-2.0 * i as f64 / 64.0);
            assert!((f64::from(*speed) / want - 1.0).abs() < 2e-7, "{i}: {speed} {want}");
        }
        let halved = RopeTable::new(64, 10_000.0, RopeScaling::Linear { factor: 2.0 }, F32);
        assert!(table.speeds.iter().zip(&halved.speeds).all(|(a, b)| *a == 2.0 * b));
    }

    #[test]
    fn llama3_scaling_keeps_fast_and_slows_slow_pairs() {
        let plain = RopeTable::new(128, 500_000.0, RopeScaling::None, F32).speeds;
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_context: 8192,
        };
        let scaled = RopeTable::new(128, 500_000.0, scaling, F32).speeds;
        let mut ramp = 0;
        for (p, s) in plain.iter().zip(&scaled) {
            let wavelength = std::f32::consts::TAU / p;
            if wavelength < 2048.0 {
                assert_eq!(p, s);
            } else if wavelength > 8192.0 {
                assert_eq!(*s, p / 8.0);
            } else {
                ramp += 1;
                assert!(*s < *p && *s > p / 8.0);
            }
        }
        assert!(ramp > 0);
    }

    #[test]
    fn speeds_are_rounded_where_asked() {
        let exact = RopeTable::new(32, 1e6, RopeScaling::None, F32).speeds;
        let rounded = RopeTable::new(32, 1e6, RopeScaling::None, Bf16).speeds;
        assert!(rounded.iter().all(|s| s.to_bits().trailing_zeros() >= 16));
        assert!(exact.iter().zip(&rounded).all(|(e, r)| (e / r - 1.0).abs() < 0.004));
    }

    #[test]
    fn angles_are_position_times_speed() {
        let table = RopeTable::new(16, 500_000.0, RopeScaling::None, F32);
        let (mut cos, mut sin) = (vec![9.0], vec![9.0]);
        table.rows([0, 1, 30_000].into_iter(), &mut cos, &mut sin);
        assert_eq!((cos.len(), sin.len()), (24, 24));
        assert!(cos[..8].iter().all(|c| *c == 1.0) && sin[..8].iter().all(|s| *s == 0.0));
        assert!((cos[8] - 1f32.cos()).abs() < 1e-6);
        assert!((sin[16] - 30_000f32.sin()).abs() < 1e-6);
    }
}
