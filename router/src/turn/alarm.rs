//! A timer beside something that is polled far more often than it goes off.

use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep};

/// Goes off at its time. To poll it costs no more than to look at the clock, but for the first time in
/// a task.
pub(crate) struct Alarm {
    at: Instant,
    timer: Pin<Box<Sleep>>,
    /// Who will be woken.
    known: Option<Waker>,
}

impl Alarm {
    pub(crate) fn at(at: Instant) -> Self {
        Self { at, timer: Box::pin(tokio::time::sleep_until(at)), known: None }
    }

    /// Sets it to another time.
    pub(crate) fn reset(&mut self, at: Instant) {
        self.at = at;
        self.timer.as_mut().reset(at);
        self.known = None;
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let knows = self.known.as_ref().is_some_and(|known| known.will_wake(cx.waker()));
        if knows && Instant::now() < self.at {
            return Poll::Pending;
        }
        // A task that has used up its budget would get an answer, and no timer.
        let state = pin!(unconstrained(self.timer.as_mut())).poll(cx);
        if state.is_pending() {
            self.known = Some(cx.waker().clone());
        }
        state
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::time::Duration;

    const MOMENT: Duration = Duration::from_millis(5);

    #[tokio::test]
    async fn goes_off_at_its_time_and_again_when_it_is_set_anew() {
        let mut at = Instant::now() + MOMENT;
        let mut alarm = Alarm::at(at);
        for _ in 0..2 {
            // Polled again and again before its time, as beside tokens that come.
            poll_fn(|cx| {
                let _ = alarm.poll(cx);
                alarm.poll(cx)
            })
            .await;
            assert!(Instant::now() >= at);
            at = Instant::now() + MOMENT;
            alarm.reset(at);
        }
    }

    #[tokio::test]
    async fn goes_off_in_a_task_that_has_no_budget_left() {
        let mut alarm = Alarm::at(Instant::now() + MOMENT);
        while tokio::task::coop::has_budget_remaining() {
            tokio::task::coop::consume_budget().await;
        }
        poll_fn(|cx| alarm.poll(cx)).await;
    }

    #[tokio::test]
    async fn wakes_the_task_that_polled_it_last() {
        let mut alarm = Alarm::at(Instant::now() + MOMENT);
        let elsewhere = &mut Context::from_waker(Waker::noop());
        assert!(alarm.poll(elsewhere).is_pending());
        poll_fn(|cx| alarm.poll(cx)).await;
    }
}
