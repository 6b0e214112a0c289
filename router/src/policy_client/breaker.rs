//! When a policy that fails is left alone (reads no clock; the caller says what time it is).
//!
//! After some failures in a row nobody asks for a while; then one turn tries it, and either all do
//! again or the pause is twice as long.

use std::time::Duration;

/// So many failures in a row begin a pause.
pub(super) const FAILURES_MAX: u32 = 5;
/// The first pause; each further one is twice as long.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(4);

/// Whether a policy is asked.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    /// In a row, without a pause.
    failures: u32,
    pause: Option<Pause>,
}

#[derive(Debug)]
struct Pause {
    length: Duration,
    until: Duration,
    /// A turn tries whether the policy is back.
    tried: bool,
}

/// Leave to ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Leave {
    Usual,
    /// To try whether the policy is back; nobody else asks meanwhile.
    Trial,
}

/// What a failure has led to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Failed {
    /// It is asked further on.
    Asked,
    /// A first pause begins.
    Gone,
    /// It is still gone: another pause.
    StillGone,
}

impl Breaker {
    /// Whether the policy may be asked now.
    pub(super) fn enter(&mut self, now: Duration) -> Option<Leave> {
        let Some(pause) = &mut self.pause else { return Some(Leave::Usual) };
        if pause.tried || now < pause.until {
            return None;
        }
        pause.tried = true;
        Some(Leave::Trial)
    }

    /// It has answered; whether it had been gone. Late answers count as well.
    pub(super) fn answered(&mut self) -> bool {
        self.failures = 0;
        self.pause.take().is_some()
    }

    /// It has not. Those that were asked before the pause began make it no longer.
    pub(super) fn failed(&mut self, leave: Leave, now: Duration) -> Failed {
        match (&mut self.pause, leave) {
            (None, _) => {
                self.failures += 1;
                if self.failures < FAILURES_MAX {
                    return Failed::Asked;
                }
                let until = now + PAUSE_FIRST;
                self.pause = Some(Pause { length: PAUSE_FIRST, until, tried: false });
                Failed::Gone
            }
            (Some(pause), Leave::Trial) => {
                pause.length = (pause.length * 2).min(PAUSE_MAX);
                (pause.until, pause.tried) = (now + pause.length, false);
                Failed::StillGone
            }
            (Some(_), Leave::Usual) => Failed::Asked,
        }
    }

    /// Nobody waits for the answer any more: nothing is known, and another turn may try.
    pub(super) fn abandoned(&mut self, leave: Leave) {
        if let (Some(pause), Leave::Trial) = (&mut self.pause, leave) {
            pause.tried = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn gone_at(now: Duration) -> Breaker {
        let mut breaker = Breaker::default();
        for count in 1..=FAILURES_MAX {
            assert_eq!(breaker.enter(now), Some(Leave::Usual));
            let expected = if count < FAILURES_MAX { Failed::Asked } else { Failed::Gone };
            assert_eq!(breaker.failed(Leave::Usual, now), expected);
        }
        breaker
    }

    #[test]
    fn failures_that_are_not_in_a_row_change_nothing() {
        let mut breaker = Breaker::default();
        for _ in 0..100 {
            assert_eq!(breaker.failed(Leave::Usual, ms(0)), Failed::Asked);
            assert!(!breaker.answered(), "it had not been gone");
            assert_eq!(breaker.enter(ms(0)), Some(Leave::Usual));
        }
    }

    #[test]
    fn one_turn_tries_when_the_pause_is_over_and_its_answer_ends_it() {
        let mut breaker = gone_at(ms(1000));
        assert_eq!(breaker.enter(ms(1249)), None);
        assert_eq!(breaker.enter(ms(1250)), Some(Leave::Trial));
        assert_eq!(breaker.enter(ms(1251)), None, "one is enough");
        assert!(breaker.answered(), "it had been gone");
        assert_eq!(breaker.enter(ms(1252)), Some(Leave::Usual));
        assert_eq!(breaker.failed(Leave::Usual, ms(1253)), Failed::Asked, "counted anew");
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut breaker = gone_at(ms(0));
        let mut at = ms(250);
        for length in [500, 1000, 2000, 4000, 4000, 4000] {
            assert_eq!(breaker.enter(at), Some(Leave::Trial));
            assert_eq!(breaker.failed(Leave::Trial, at), Failed::StillGone);
            assert_eq!(breaker.enter(at + ms(length - 1)), None);
            at += ms(length);
        }
    }

    #[test]
    fn those_asked_before_make_a_pause_no_longer_but_may_end_it() {
        let mut breaker = gone_at(ms(0));
        assert_eq!(breaker.failed(Leave::Usual, ms(200)), Failed::Asked);
        assert_eq!(breaker.enter(ms(250)), Some(Leave::Trial));
        assert_eq!(breaker.failed(Leave::Usual, ms(251)), Failed::Asked);
        assert!(breaker.answered());
        assert_eq!(breaker.enter(ms(252)), Some(Leave::Usual));
    }

    #[test]
    fn a_trial_that_nobody_waits_for_is_left_to_the_next() {
        let mut breaker = gone_at(ms(0));
        assert_eq!(breaker.enter(ms(250)), Some(Leave::Trial));
        breaker.abandoned(Leave::Trial);
        assert_eq!(breaker.enter(ms(250)), Some(Leave::Trial));
    }
}
