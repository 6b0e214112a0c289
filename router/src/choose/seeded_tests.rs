//! Draws for tests from a seed that is printed: `BATON_SEED=n` repeats a run, `BATON_LONG=1`
//! makes it forty times as long.

/// A sequence of draws (SplitMix64).
#[derive(Debug)]
pub(super) struct Draws(u64);

impl Draws {
    /// From the seed in `BATON_SEED`, or the usual one; printed, so that a failure can be repeated.
    pub(super) fn announced() -> Self {
        let seed = std::env::var("BATON_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or(11);
        println!("BATON_SEED={seed}");
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        super::mix(self.0)
    }

    /// Less than `end`.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub(super) fn between(&mut self, first: u64, last: u64) -> u64 {
        first + self.below(last - first + 1)
    }

    /// 0 to 1.
    pub(super) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Often nothing, seldom much.
    pub(super) fn skewed(&mut self, most: u64) -> u64 {
        if self.below(3) == 0 { 0 } else { (self.unit().powi(3) * most as f64) as u64 }
    }
}

/// How often a test tries.
pub(super) fn rounds(short: usize) -> usize {
    if std::env::var_os("BATON_LONG").is_some() { short * 40 } else { short }
}
