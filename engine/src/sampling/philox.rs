//! The sampler's source of chance: Philox4x32-10 (Salmon et al., "Parallel random numbers: as
//! easy as 1, 2, 3", 2011), a function from a key and a counter to 128 random bits.
//!
//! It has no state, so a draw depends on nothing but its name (seed, choice, position): a
//! migrated, preempted or replayed sequence draws what it would have drawn. It needs 32-bit
//! multiplications only, so that a GPU kernel gives the same bits.
//!
//! ```text
//! key      seed (low, high)
//! counter  position, choice, 0, 0
//! ```

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;

/// A number in `[0, 1)` with 53 random bits: the one draw of a choice at a position.
pub(super) fn uniform(seed: u64, choice: u16, position: u32) -> f64 {
    let words = philox([seed as u32, (seed >> 32) as u32], [position, u32::from(choice), 0, 0]);
    let bits = (u64::from(words[1]) << 32) | u64::from(words[0]);
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

fn philox(mut key: [u32; 2], mut counter: [u32; 4]) -> [u32; 4] {
    for _ in 0..ROUNDS {
        let left = u64::from(MULTIPLIERS[0]) * u64::from(counter[0]);
        let right = u64::from(MULTIPLIERS[1]) * u64::from(counter[2]);
        counter = [
            (right >> 32) as u32 ^ counter[1] ^ key[0],
            right as u32,
            (left >> 32) as u32 ^ counter[3] ^ key[1],
            left as u32,
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::{philox, uniform};

    /// The known answers published with the authors' library (Random123, `kat_vectors`).
    #[test]
    fn known_answers() {
        assert_eq!(philox([0; 2], [0; 4]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox([u32::MAX; 2], [u32::MAX; 4]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox(
                [0xa409_3822, 0x299f_31d0],
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344]
            ),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn every_part_of_the_name_counts_and_the_range_is_half_open() {
        let base = uniform(7, 0, 0);
        let others =
            [uniform(8, 0, 0), uniform(7 | 1 << 32, 0, 0), uniform(7, 1, 0), uniform(7, 0, 1)];
        assert!(others.iter().all(|other| other.to_bits() != base.to_bits()));
        assert!((0..10_000).all(|position| (0.0..1.0).contains(&uniform(1, 0, position))));
    }
}
