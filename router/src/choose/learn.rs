//! What is measured becomes a line: seconds = base + slope x size.
//!
//! Prefill by tokens, a decode step by the sequences in it, a fetch by blocks: each is learned from
//! the last [`WINDOW`] observations. The slope is the median of the slopes between pairs of them
//! (Theil and Sen), the base the median of what is left: up to a quarter of the observations may
//! be arbitrarily wrong - a stalled machine, a first step - without moving the line far. Old ones
//! fall out, so memory and the time to notice a change are bounded.

/// Observations that count.
pub const WINDOW: usize = 16;
/// Two observations whose sizes differ by less than this share of the larger say nothing about the
/// slope.
const APART: f64 = 0.1;
/// With fewer pairs that far apart, only the scale of the assumed line is learned.
const PAIRS_MIN: usize = 6;
/// No span that is observed counts for more, in seconds.
const SECONDS_MAX: f64 = 3600.0;
/// No observed span counts for less, so that ratios stay finite.
const SECONDS_MIN: f64 = 1e-7;

/// Seconds by size. Neither part is negative, so more never takes less time.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Line {
    /// What any size takes, in seconds.
    pub base_s: f64,
    /// What each unit of size adds, in seconds.
    pub slope_s: f64,
}

impl Line {
    /// What this size takes, in seconds; nothing takes no time.
    pub fn at(&self, size: f64) -> f64 {
        if size > 0.0 { self.base_s + self.slope_s * size } else { 0.0 }
    }
}

/// A line that is learned.
#[derive(Clone, PartialEq, Debug)]
pub struct Learner {
    /// What holds before anything is known, and what decides how base and slope share a time where
    /// all observations have one size.
    assumed: Line,
    sizes: [f64; WINDOW],
    seconds: [f64; WINDOW],
    count: usize,
    next: usize,
    line: Line,
}

impl Learner {
    /// Knows nothing, and assumes this.
    pub fn new(assumed: Line) -> Self {
        let (sizes, seconds) = ([0.0; WINDOW], [0.0; WINDOW]);
        Self { assumed, sizes, seconds, count: 0, next: 0, line: assumed }
    }

    /// The line as it is known now.
    pub fn line(&self) -> Line {
        self.line
    }

    /// Observations that the line rests on, [`WINDOW`] at most.
    pub fn observations(&self) -> usize {
        self.count
    }

    /// Something of that size has taken that long. What makes no sense is left out.
    pub fn observe(&mut self, size: f64, seconds: f64) {
        if !(size.is_finite() && seconds.is_finite()) || size <= 0.0 || seconds < 0.0 {
            return;
        }
        self.sizes[self.next] = size;
        self.seconds[self.next] = seconds.clamp(SECONDS_MIN, SECONDS_MAX);
        self.next = (self.next + 1) % WINDOW;
        self.count = (self.count + 1).min(WINDOW);
        self.line = self.fit();
    }

    fn points(&self) -> impl Iterator<Item = (f64, f64)> + Clone + '_ {
        self.sizes.iter().copied().zip(self.seconds.iter().copied()).take(self.count)
    }

    fn fit(&self) -> Line {
        let mut slopes = Vec::with_capacity(WINDOW * (WINDOW - 1) / 2);
        for (i, (size, seconds)) in self.points().enumerate() {
            for (other_size, other_seconds) in self.points().skip(i + 1) {
                let apart = other_size - size;
                if apart.abs() > APART * size.max(other_size) {
                    slopes.push((other_seconds - seconds) / apart);
                }
            }
        }
        let proportional = |points: &Self| {
            median(&mut points.points().map(|(size, seconds)| seconds / size).collect::<Vec<_>>())
        };
        if slopes.len() < PAIRS_MIN {
            let Line { base_s, slope_s } = self.assumed;
            if base_s + slope_s <= 0.0 {
                // A line of nothing has no scale.
                return Line { base_s: 0.0, slope_s: proportional(self) };
            }
            let ratio = |(size, seconds)| seconds / self.assumed.at(size).max(SECONDS_MIN);
            let scale = median(&mut self.points().map(ratio).collect::<Vec<_>>());
            return Line { base_s: base_s * scale, slope_s: slope_s * scale };
        }
        let slope_s = median(&mut slopes).max(0.0);
        let rest = |(size, seconds)| seconds - slope_s * size;
        let base_s = median(&mut self.points().map(rest).collect::<Vec<_>>());
        if base_s < 0.0 {
            // Nothing takes less than no time: all of it belongs to the size.
            return Line { base_s: 0.0, slope_s: proportional(self) };
        }
        Line { base_s, slope_s }
    }
}

/// The middle value, the lower one of two; 0 of none.
fn median(values: &mut [f64]) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    let middle = (values.len() - 1) / 2;
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "values that are given back as they came")]
mod tests {
    use super::*;

    const ASSUMED: Line = Line { base_s: 0.01, slope_s: 0.001 };

    fn learned(points: &[(f64, f64)]) -> Line {
        let mut learner = Learner::new(ASSUMED);
        for (size, seconds) in points {
            learner.observe(*size, *seconds);
        }
        learner.line()
    }

    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() <= 1e-9 + expected * 1e-6, "{found} is not {expected}");
    }

    #[test]
    fn before_anything_is_known_the_assumption_holds() {
        assert_eq!(learned(&[]), ASSUMED);
    }

    #[test]
    fn a_line_is_found() {
        let points: Vec<_> = (1..10).map(|n| (f64::from(n * 100), 0.5 + f64::from(n))).collect();
        let line = learned(&points);
        near(line.base_s, 0.5);
        near(line.slope_s, 0.01);
    }

    #[test]
    fn one_observation_scales_the_assumption_and_is_then_predicted() {
        let line = learned(&[(90.0, 1.0)]);
        near(line.at(90.0), 1.0);
        near(line.base_s, 0.1);
    }

    #[test]
    fn where_nothing_was_assumed_one_observation_is_predicted() {
        let mut learner = Learner::new(Line::default());
        assert_eq!(learner.line(), Line::default());
        (0..20).for_each(|_| learner.observe(4.0, 2.0));
        near(learner.line().at(4.0), 2.0);
    }

    #[test]
    fn a_quarter_of_wild_observations_moves_little() {
        let mut points: Vec<_> = (1..=16).map(|n| (f64::from(n * 64), f64::from(n))).collect();
        for wild in [0, 5, 10, 15] {
            points[wild].1 = 1e9;
        }
        let at = learned(&points).at(512.0);
        assert!((4.0..16.0).contains(&at), "{at} s, of 8");
    }

    #[test]
    fn a_change_is_noticed_within_the_window() {
        let slow: Vec<_> = (0..100).map(|n| (f64::from(n % 7 + 1) * 100.0, 50.0)).collect();
        let fast = (0..WINDOW).map(|n| (f64::from(n as u32 % 7 + 1) * 100.0, 1.0));
        let all: Vec<_> = slow.into_iter().chain(fast).collect();
        near(learned(&all).at(400.0), 1.0);
    }

    #[test]
    fn what_makes_no_sense_is_left_out() {
        let senseless = [
            (f64::NAN, 1.0),
            (1.0, f64::NAN),
            (0.0, 1.0),
            (-1.0, 1.0),
            (1.0, -1.0),
            (f64::INFINITY, 1.0),
            (1.0, f64::INFINITY),
        ];
        assert_eq!(learned(&senseless), ASSUMED);
    }

    #[test]
    fn whatever_is_observed_more_never_takes_less() {
        let mut state = crate::seeded_tests::Draws::announced();
        for _ in 0..2000 {
            let mut learner = Learner::new(ASSUMED);
            for _ in 0..state.below(40) {
                let size = state.between(1, 1 << 20) as f64;
                learner.observe(size, state.unit().powi(6) * 1e5);
            }
            let Line { base_s, slope_s } = learner.line();
            assert!(base_s >= 0.0 && slope_s >= 0.0 && (base_s + slope_s).is_finite());
        }
    }
}
