//! When the workers' steps were, as streams see it that nothing delays: each has one token of each step
//! of its worker. A stream is laid upon the latest steps that fit: one that is late by the same whole
//! steps all the time cannot be told from one that began later.

use crate::stats::Sample;
use std::collections::BTreeMap;
use std::time::Duration;

/// A token seems to come earlier than its step where the witness was late itself: so much, and so often,
/// that means nothing.
const TOLERANCE: Duration = Duration::from_millis(5);
const EARLY_PERCENT_MAX: usize = 5;
/// So many steps are tried.
const SHIFTS_MAX: usize = 64;

/// The steps of all workers, by the worker.
#[derive(Debug, Default)]
pub(super) struct Steps(BTreeMap<u64, Vec<Duration>>);

impl Steps {
    /// From the workers of some streams, and when the tokens of each came: the first to have a token of
    /// a step tells when that was.
    pub(super) fn of<'a>(streams: impl Iterator<Item = (u64, &'a [Duration])>) -> Self {
        let mut steps: BTreeMap<u64, Vec<Duration>> = BTreeMap::new();
        let mut streams: Vec<_> = streams.collect();
        streams.sort_by_key(|(_, arrivals)| arrivals.first().copied());
        for (worker, arrivals) in streams {
            let steps = steps.entry(worker).or_insert_with(|| arrivals.to_vec());
            let Some(shift) = shift(steps, arrivals) else { continue };
            for (step, at) in steps.iter_mut().skip(shift).zip(arrivals) {
                *step = (*step).min(*at);
            }
        }
        Self(steps)
    }

    /// How late each token of one stream was, in milliseconds; `None` where its worker's steps are not
    /// known.
    pub(super) fn lateness(&self, worker: u64, arrivals: &[Duration]) -> Option<Sample> {
        let steps = self.0.get(&worker)?;
        let due = steps.get(shift(steps, arrivals)?..)?;
        if due.len() < arrivals.len() {
            return None;
        }
        let late = arrivals.iter().zip(due).map(|(at, due)| at.saturating_sub(*due));
        Some(late.map(|late| late.as_secs_f64() * 1e3).collect())
    }

    /// The longest step of any worker in that time, in milliseconds.
    pub(super) fn longest_ms(&self, from: Duration, to: Duration) -> Option<f64> {
        let pairs = self.0.values().flat_map(|steps| steps.windows(2));
        let within = pairs.filter(|pair| from <= pair[0] && pair[1] <= to);
        within.map(|pair| pair[1].saturating_sub(pair[0]).as_secs_f64() * 1e3).reduce(f64::max)
    }
}

/// The last of the steps that the first of these tokens may belong to.
fn shift(steps: &[Duration], arrivals: &[Duration]) -> Option<usize> {
    let first = arrivals.first()?;
    let begun = steps.partition_point(|step| *step <= *first + TOLERANCE);
    let fits = |shift: &usize| {
        let pairs = arrivals.iter().zip(&steps[*shift..]);
        let early = pairs.filter(|(at, due)| **at + TOLERANCE < **due).count();
        100 * early <= EARLY_PERCENT_MAX * arrivals.len()
    };
    (0..begun).rev().take(SHIFTS_MAX).find(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: &[u64]) -> Vec<Duration> {
        ms.iter().copied().map(Duration::from_millis).collect()
    }

    #[test]
    fn a_token_is_late_against_the_step_that_it_is_of() {
        let irregular = at(&[0, 20, 47, 60, 95, 110]);
        let steps = Steps::of([(1, &irregular[..]), (2, &at(&[500])[..])].into_iter());
        let late = steps.lateness(1, &at(&[49, 64, 95, 180])).expect("known");
        assert_eq!((late.min(), late.max()), (Some(0.0), Some(70.0)));
        assert_eq!(steps.lateness(3, &at(&[49])), None);
        assert_eq!(steps.longest_ms(Duration::ZERO, Duration::from_millis(100)), Some(35.0));
    }

    #[test]
    fn the_first_witness_of_a_step_tells_when_it_was() {
        let (one, other) = (at(&[0, 20, 45, 60, 80]), at(&[21, 41, 61, 78, 99]));
        let steps = Steps::of([(1, &other[..]), (1, &one[..])].into_iter());
        let late = steps.lateness(1, &at(&[22, 42, 62, 80])).expect("known");
        assert_eq!((late.min(), late.max()), (Some(1.0), Some(2.0)));
    }
}
