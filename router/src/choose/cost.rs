//! What a turn costs on a worker, term by term, in seconds.
//!
//! Each term is a small function of few numbers. docs/routing.md has them as formulas.

use super::learn::Line;
use std::ops::Add;

/// What is predicted for a turn on a candidate. All in seconds.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Terms {
    /// What was accepted before and is computed first.
    pub queue_s: f64,
    /// Until there is room for prompt and answer.
    pub memory_s: f64,
    /// Blocks that are brought from another worker, as far as computing does not hide it.
    pub fetch_s: f64,
    /// Until the blocks that are on their way to the decode worker are there.
    pub join_s: f64,
    /// The prompt's tokens that nobody who is asked holds.
    pub compute_s: f64,
    /// From the last announced block to the first decoding step.
    pub handover_s: f64,
    /// The answer.
    pub decode_s: f64,
    /// What the turns that run there already lose by it.
    pub harm_s: f64,
    /// What it will cost others that blocks have to go for it.
    pub eviction_s: f64,
}

impl Default for Terms {
    /// Nothing. The zeros are negative, since a compiler may leave out the addition of a negative
    /// zero, and not that of a positive one; a walk through a thousand workers shows it.
    fn default() -> Self {
        Self {
            queue_s: -0.0,
            memory_s: -0.0,
            fetch_s: -0.0,
            join_s: -0.0,
            compute_s: -0.0,
            handover_s: -0.0,
            decode_s: -0.0,
            harm_s: -0.0,
            eviction_s: -0.0,
        }
    }
}

impl Terms {
    /// All of it: what is compared.
    pub fn total_s(&self) -> f64 {
        self.queue_s
            + self.memory_s
            + self.fetch_s
            + self.join_s
            + self.compute_s
            + self.handover_s
            + self.decode_s
            + self.harm_s
            + self.eviction_s
    }
}

impl Add for Terms {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            queue_s: self.queue_s + other.queue_s,
            memory_s: self.memory_s + other.memory_s,
            fetch_s: self.fetch_s + other.fetch_s,
            join_s: self.join_s + other.join_s,
            compute_s: self.compute_s + other.compute_s,
            handover_s: self.handover_s + other.handover_s,
            decode_s: self.decode_s + other.decode_s,
            harm_s: self.harm_s + other.harm_s,
            eviction_s: self.eviction_s + other.eviction_s,
        }
    }
}

/// Prompt tokens that were accepted before are computed at this worker's own speed.
pub fn queued_tokens_s(pending_tokens: u64, fill: Line) -> f64 {
    pending_tokens as f64 * fill.slope_s
}

/// Turns that wait for memory let go of it one after the other: a worker that has room for
/// `slots / turn_blocks` turns of this size lets one in every `turn_s` divided by that. `slot` is
/// one of the worker's slots as a share of all.
pub fn queued_turns_s(queued: u32, turn_s: f64, turn_blocks: f64, slot: f64) -> f64 {
    f64::from(queued) * turn_s * turn_blocks * slot
}

/// A worker whose memory is taken gives back all of it in about the time of one turn.
pub fn memory_s(short_blocks: u64, turn_s: f64, slot: f64) -> f64 {
    short_blocks as f64 * turn_s * slot
}

/// Blocks that the decode worker holds and the prefill worker lacks come before it can continue
/// them. A link that is slower than computing is counted as no worse than computing.
pub fn held_fetch_s(blocks: u64, fetch: Line, fill: Line, block_tokens: f64) -> f64 {
    blocks as f64 * fetch.slope_s.min(fill.slope_s * block_tokens)
}

/// Blocks are fetched while later ones are computed; what is seen is what takes longer.
pub fn exposed_fetch_s(fetch_s: f64, compute_s: f64) -> f64 {
    (fetch_s - compute_s).max(0.0)
}

/// Blocks on their way that others are made after: what is still to be waited for when those are
/// done.
pub fn join_s(ready_s: f64, after_s: f64) -> f64 {
    (ready_s - after_s).max(0.0)
}

/// One step per token, as long as a step takes with these turns in it.
pub fn decode_s(answer_tokens: f64, turns: f64, step: Line) -> f64 {
    answer_tokens * step.at(turns)
}

/// Each running turn waits in each step for the new one's token, and for its prompt positions.
pub fn harm_s(running: f64, answer_tokens: f64, choices: f64, step: Line) -> f64 {
    running * answer_tokens * choices * step.slope_s
}

/// Prompt positions that are computed between the steps of running turns delay all of them.
pub fn interruption_s(running: f64, tokens: f64, fill: Line) -> f64 {
    running * tokens * fill.slope_s
}

/// Blocks that have to go are wanted again with probability `weight`, and computed again then.
pub fn eviction_s(evicted_blocks: u64, block_tokens: f64, recompute: Line, weight: f64) -> f64 {
    evicted_blocks as f64 * block_tokens * recompute.slope_s * weight
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "sums of few exact numbers")]
mod tests {
    use super::*;

    const FILL: Line = Line { base_s: 0.5, slope_s: 0.25 };

    #[test]
    fn each_term_is_in_seconds() {
        assert_eq!(queued_tokens_s(8, FILL), 2.0);
        assert_eq!(queued_turns_s(3, 10.0, 25.0, 0.125), 93.75);
        assert_eq!(memory_s(50, 10.0, 0.125), 62.5);
        assert_eq!(held_fetch_s(4, Line { base_s: 9.0, slope_s: 2.0 }, FILL, 16.0), 8.0);
        assert_eq!(held_fetch_s(4, Line { base_s: 9.0, slope_s: 50.0 }, FILL, 16.0), 16.0);
        assert_eq!((exposed_fetch_s(3.0, 2.0), exposed_fetch_s(2.0, 3.0)), (1.0, 0.0));
        assert_eq!((join_s(3.0, 2.0), join_s(2.0, 3.0)), (1.0, 0.0));
        assert_eq!(decode_s(10.0, 2.0, FILL), 10.0);
        assert_eq!(harm_s(4.0, 10.0, 2.0, FILL), 20.0);
        assert_eq!(interruption_s(4.0, 10.0, FILL), 10.0);
        assert_eq!(eviction_s(2, 16.0, FILL, 0.5), 4.0);
    }

    #[test]
    fn nothing_costs_nothing() {
        assert_eq!(queued_tokens_s(0, FILL), 0.0);
        assert_eq!(queued_turns_s(0, 9.0, 9.0, 1.0), 0.0);
        assert_eq!(memory_s(0, 9.0, 1.0), 0.0);
        assert_eq!(held_fetch_s(0, FILL, FILL, 16.0), 0.0);
        assert_eq!(Terms::default().total_s(), 0.0);
    }

    #[test]
    fn the_total_has_every_term_once() {
        let terms = Terms {
            queue_s: 1.0,
            memory_s: 2.0,
            fetch_s: 4.0,
            compute_s: 8.0,
            handover_s: 16.0,
            decode_s: 32.0,
            harm_s: 64.0,
            eviction_s: 128.0,
            join_s: 256.0,
        };
        assert_eq!(terms.total_s(), 511.0);
        assert_eq!((terms + terms).total_s(), 1022.0);
    }
}
