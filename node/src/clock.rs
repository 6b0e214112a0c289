//! Time as a value: the pure cores are given `now`, and this is where it comes from.
//!
//! The only module that asks the system what time it is.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A clock that never goes back.
pub trait Clock: Send + Sync {
    /// Time since an arbitrary start, the same for all users of one clock.
    fn now(&self) -> Duration;
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Duration {
        (**self).now()
    }
}

/// The system's monotonic clock. All values in a process share one start, so that times taken by
/// different parts can be compared.
#[derive(Clone, Copy, Debug)]
pub struct Monotonic {
    start: Instant,
}

impl Monotonic {
    /// The process's clock; its first use is time zero.
    #[expect(clippy::disallowed_methods, reason = "the edge at which time comes in")]
    pub fn process() -> Self {
        static START: OnceLock<Instant> = OnceLock::new();
        Self { start: *START.get_or_init(Instant::now) }
    }
}

impl Clock for Monotonic {
    #[expect(clippy::disallowed_methods, reason = "the edge at which time comes in")]
    fn now(&self) -> Duration {
        Instant::now().duration_since(self.start)
    }
}

/// A clock that stands still until it is told otherwise: for tests and simulations.
/// Clones share their hand.
#[derive(Clone, Debug, Default)]
pub struct Manual {
    nanos: Arc<AtomicU64>,
}

impl Manual {
    /// A clock that shows zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the hand forward.
    pub fn advance(&self, by: Duration) {
        self.nanos.fetch_add(by.as_nanos() as u64, Ordering::SeqCst);
    }
}

impl Clock for Manual {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Ordering::SeqCst))
    }
}

/// The calendar's time since 1970, for what people and protocols read (`created` in a response).
/// It may jump: never subtract two of them.
#[expect(clippy::disallowed_methods, reason = "the edge at which time comes in")]
pub fn unix_time() -> Duration {
    // Before 1970 the clock is not set; zero says so as well as anything.
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_of_one_process_share_their_start() {
        let (first, second) = (Monotonic::process(), Monotonic::process());
        let before = first.now();
        assert!(second.now() >= before);
        assert!(first.now() >= before);
    }

    #[test]
    fn a_manual_clock_moves_only_when_told_and_for_all_clones() {
        let clock = Manual::new();
        let other = clock.clone();
        assert_eq!(other.now(), Duration::ZERO);
        clock.advance(Duration::from_millis(1500));
        assert_eq!(other.now(), Duration::from_millis(1500));
    }
}
