//! How long the answers of a session, or of a kind of turn, are, learned from those before.
//!
//! The estimate is what a retransmission timer keeps of round trips: a moving mean and a moving
//! deviation (RFC 6298). Memory is promised for mean plus deviation; too little costs a preemption,
//! too much keeps others waiting.

use std::collections::HashMap;

/// Sessions and kinds of turns that are remembered; further ones make room by forgetting.
const KEYS_MAX: usize = 16_384;
/// The weight of a new answer in mean and deviation.
const MEAN_WEIGHT: f64 = 0.25;
const DEVIATION_WEIGHT: f64 = 0.25;

/// Answer lengths by the name of a session or kind. Two generations: when the younger one is full, the older is
/// forgotten, so what was used lately stays, and memory is bounded.
#[derive(Debug, Default)]
pub struct AnswerLengths {
    young: HashMap<u64, Length>,
    old: HashMap<u64, Length>,
}

#[derive(Clone, Copy, Debug)]
struct Length {
    mean: f64,
    deviation: f64,
}

impl AnswerLengths {
    /// Knows nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// An answer under that name was so many tokens long.
    pub fn observe(&mut self, key: u64, tokens: u64) {
        let tokens = tokens as f64;
        let length = match self.known(key) {
            None => Length { mean: tokens, deviation: tokens / 2.0 },
            Some(Length { mean, deviation }) => Length {
                mean: mean + MEAN_WEIGHT * (tokens - mean),
                deviation: deviation + DEVIATION_WEIGHT * ((tokens - mean).abs() - deviation),
            },
        };
        if self.young.len() >= KEYS_MAX / 2 && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, length);
    }

    /// Tokens that the next answer will probably not exceed; `None` if nothing is known.
    pub fn expected(&self, key: u64) -> Option<u32> {
        let Length { mean, deviation } = self.known(key)?;
        Some((mean + deviation).round().clamp(1.0, f64::from(u32::MAX)) as u32)
    }

    fn known(&self, key: u64) -> Option<Length> {
        self.young.get(&key).or_else(|| self.old.get(&key)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steady_answers_are_expected_exactly_and_unsteady_ones_with_room() {
        let mut lengths = AnswerLengths::new();
        assert_eq!(lengths.expected(1), None);
        (0..100).for_each(|_| lengths.observe(1, 300));
        assert_eq!(lengths.expected(1), Some(300));
        (0..100).for_each(|n| lengths.observe(2, 100 + 400 * (n % 2)));
        let unsteady = lengths.expected(2).unwrap_or_default();
        assert!((450..=600).contains(&unsteady), "{unsteady}");
    }

    #[test]
    fn the_first_answer_leaves_room_and_an_empty_one_is_no_nothing() {
        let mut lengths = AnswerLengths::new();
        lengths.observe(1, 100);
        assert_eq!(lengths.expected(1), Some(150));
        lengths.observe(2, 0);
        assert_eq!(lengths.expected(2), Some(1));
    }

    #[test]
    fn ten_thousand_sessions_a_second_leave_memory_flat() {
        let mut lengths = AnswerLengths::new();
        for session in 0..1_000_000 {
            lengths.observe(session, 10);
            lengths.observe(7, 10);
        }
        assert!(lengths.young.len() + lengths.old.len() <= KEYS_MAX);
        assert!(lengths.expected(7).is_some(), "what is used stays");
        assert!(lengths.expected(999_999).is_some());
    }
}
