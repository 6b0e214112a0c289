//! What a run came to.

use super::load::Outcome;
use serde::Serialize;

/// What a run came to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Report {
    /// The scenario.
    pub scenario: &'static str,
    /// The seed that repeats the run.
    pub seed: u64,
    /// What must not be; empty in a good run.
    pub violations: Vec<String>,
    /// Requests whose every choice is complete.
    pub answered: u64,
    /// Requests whose client lost interest.
    pub cancelled: u64,
    /// Requests that ended in the middle of the answer because their worker went away.
    pub lost: u64,
    /// Requests that nobody took.
    pub refused: u64,
    /// Requests whose deadline passed.
    pub late: u64,
    /// Times that a turn was placed anew.
    pub moved: u64,
    /// Calls of prefill workers.
    pub calls: u64,
    /// Streams that broke.
    pub broken_streams: u64,
    /// Blocks that were pulled.
    pub pulled_blocks: u64,
    /// Pulls that failed.
    pub failed_pulls: u64,
    /// Positions computed by the workers that live at the end.
    pub computed_tokens: u64,
    /// Things that happened.
    pub happenings: u64,
    /// Virtual time of the end.
    pub virtual_ms: u64,
    /// Digest of everything that happened, in order: equal for equal scenarios and seeds.
    pub digest: u64,
}

impl Report {
    pub(super) fn new(scenario: &'static str, seed: u64) -> Self {
        Self {
            scenario,
            seed,
            violations: Vec::new(),
            answered: 0,
            cancelled: 0,
            lost: 0,
            refused: 0,
            late: 0,
            moved: 0,
            calls: 0,
            broken_streams: 0,
            pulled_blocks: 0,
            failed_pulls: 0,
            computed_tokens: 0,
            happenings: 0,
            virtual_ms: 0,
            digest: 0,
        }
    }

    pub(super) fn count(&mut self, outcome: Outcome) {
        let count = match outcome {
            Outcome::Answered => &mut self.answered,
            Outcome::Cancelled => &mut self.cancelled,
            Outcome::Lost => &mut self.lost,
            Outcome::Refused => &mut self.refused,
            Outcome::Deadline => &mut self.late,
        };
        *count += 1;
    }
}
