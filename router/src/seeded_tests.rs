//! Draws for tests from a seed that is printed: `BATON_SEED=n` repeats a run, `BATON_LONG=1`
//! makes it forty times as long.

/// A sequence of draws (SplitMix64).
#[derive(Debug)]
pub(crate) struct Draws(u64);

impl Draws {
    /// From the seed in `BATON_SEED`, or the usual one; printed, so that a failure can be repeated.
    pub(crate) fn announced() -> Self {
        Self::announced_or(11)
    }

    /// The same with a usual seed of the test's own.
    pub(crate) fn announced_or(usual: u64) -> Self {
        let seed = std::env::var("BATON_SEED");
        let seed = seed.map_or(usual, |seed| seed.parse().expect("BATON_SEED is a number"));
        println!("BATON_SEED={seed}");
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        crate::choose::mix(self.0)
    }

    /// Less than `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// A place among `count`.
    pub(crate) fn place(&mut self, count: usize) -> usize {
        self.below(count as u64) as usize
    }

    pub(crate) fn between(&mut self, first: u64, last: u64) -> u64 {
        first + self.below(last - first + 1)
    }

    /// 0 to 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Often nothing, seldom much.
    pub(crate) fn skewed(&mut self, most: u64) -> u64 {
        if self.below(3) == 0 { 0 } else { (self.unit().powi(3) * most as f64) as u64 }
    }
}

/// How often a test tries.
pub(crate) fn rounds(short: usize) -> usize {
    if std::env::var_os("BATON_LONG").is_some() { short * 40 } else { short }
}
