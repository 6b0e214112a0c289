//! The retry budget: attempts to move work must not multiply the load that made them necessary.
//!
//! A token bucket: every request deposits a fifth of a retry, time deposits ten a second, and what
//! lies there is worth ten seconds at most (reads no clock; the caller says what time it is).

use std::time::Duration;

const PER_REQUEST: f64 = 0.2;
const PER_SECOND: f64 = 10.0;
const KEPT_MAX: f64 = 100.0;

/// How many retries are left to this router.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    balance: f64,
    updated: Duration,
}

impl RetryBudget {
    /// A budget worth one second.
    pub(crate) fn new(now: Duration) -> Self {
        Self { balance: PER_SECOND, updated: now }
    }

    /// A request has been accepted.
    pub(crate) fn deposit(&mut self) {
        self.balance = (self.balance + PER_REQUEST).min(KEPT_MAX);
    }

    /// Takes one retry, if one is left.
    pub(crate) fn withdraw(&mut self, now: Duration) -> bool {
        let passed = now.saturating_sub(self.updated).as_secs_f64();
        self.balance = (self.balance + passed * PER_SECOND).min(KEPT_MAX);
        self.updated = now;
        if self.balance < 1.0 {
            return false;
        }
        self.balance -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(budget: &mut RetryBudget, now: Duration) -> usize {
        (0..1000).take_while(|_| budget.withdraw(now)).count()
    }

    #[test]
    fn retries_are_a_fifth_of_the_requests_and_ten_a_second() {
        let start = Duration::from_secs(50);
        let mut budget = RetryBudget::new(start);
        assert_eq!(drain(&mut budget, start), 10);
        (0..51).for_each(|_| budget.deposit());
        assert_eq!(drain(&mut budget, start), 10);
        assert_eq!(drain(&mut budget, start + Duration::from_millis(1_010)), 10);
    }

    #[test]
    fn savings_are_bounded() {
        let mut budget = RetryBudget::new(Duration::ZERO);
        (0..100_000).for_each(|_| budget.deposit());
        assert_eq!(drain(&mut budget, Duration::from_hours(1)), 100);
    }
}
