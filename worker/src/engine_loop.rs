//! The engine loop: one thread that feeds events to the schedule, computes what it plans, and
//! delivers what it wants done.

use crate::blocks::Blocks;
use crate::plan::{LoadReport, Schedule};
use baton_engine::api::Engine;
use baton_kv::pool::Counts;
use baton_kv::retention::Class;
use baton_node::clock::Clock;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Leases, deadlines and waiting work are looked at that often.
const TICK: Duration = Duration::from_millis(20);
/// Events taken in between two steps, at most: a flood of events cannot starve the sequences.
const EVENTS_PER_STEP: usize = 256;

/// Carries out a schedule's actions. Called on the engine's thread, so it never waits: it sends
/// what fits and starts tasks.
pub trait Shell<A>: Send {
    /// Takes all actions of one moment, in order.
    fn deliver(&mut self, actions: &mut Vec<A>);
}

/// What the rest of the daemon sees of the loop, after each turn of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Status {
    /// The number of the next block event.
    pub next_seq: u64,
    /// How busy the worker is.
    pub load: LoadReport,
    /// How many slots are in which state.
    pub counts: Counts,
    /// Slots that can be had.
    pub available: u32,
    /// Blocks that have made room, by class as in [`Class::ALL`].
    pub evictions: [u64; Class::ALL.len()],
    /// Steps computed.
    pub steps: u64,
    /// Positions computed.
    pub computed_tokens: u64,
    /// Whether every accepted piece of work has ended.
    pub idle: bool,
}

/// The loop and all it drives.
pub struct EngineLoop<S: Schedule> {
    /// Decides.
    pub schedule: S,
    /// Computes.
    pub engine: Box<dyn Engine>,
    /// Where KV lies.
    pub blocks: Blocks,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// What happens; bounded.
    pub events: flume::Receiver<S::Event>,
    /// Carries out.
    pub shell: Box<dyn Shell<S::Action>>,
    /// Tells the rest of the daemon.
    pub status: watch::Sender<Status>,
    /// Whether the loop shall end once nothing is left to do.
    pub draining: Box<dyn Fn() -> bool + Send>,
}

impl<S: Schedule> EngineLoop<S> {
    /// Runs until the daemon drains and every accepted piece of work has ended, or nobody can send
    /// events any more.
    pub fn run(mut self) {
        let mut actions = Vec::new();
        let mut next_tick = self.clock.now() + TICK;
        let mut idle = true;
        let (mut steps, mut computed_tokens) = (0, 0);
        loop {
            if self.take_events(idle, next_tick, &mut actions).is_err() {
                return;
            }
            let now = self.clock.now();
            if next_tick <= now {
                self.schedule.tick(now, &mut actions);
                next_tick = now + TICK;
            }
            let plan = self.schedule.plan(self.clock.now(), &mut actions);
            self.shell.deliver(&mut actions);
            idle = plan.is_none();
            if let Some(plan) = plan {
                steps += 1;
                computed_tokens += plan.segments.iter().map(|s| u64::from(s.count)).sum::<u64>();
                let begun = self.clock.now();
                let output = self.engine.step(self.blocks.arena(), self.schedule.batch(plan));
                self.wait_until(begun + output.modelled);
                self.schedule.stepped(output, self.clock.now(), &mut actions);
                self.shell.deliver(&mut actions);
            }
            for seq in self.schedule.forgotten() {
                self.engine.forget(seq);
            }
            self.tell(steps, computed_tokens);
            if idle && self.schedule.is_idle() && (self.draining)() {
                return;
            }
        }
    }

    /// Waits for an event where there is nothing to compute, then takes what is there.
    fn take_events(
        &mut self,
        idle: bool,
        next_tick: Duration,
        actions: &mut Vec<S::Action>,
    ) -> Result<(), flume::RecvError> {
        if idle {
            let patience = next_tick.saturating_sub(self.clock.now());
            match self.events.recv_timeout(patience) {
                Ok(event) => self.schedule.step(event, self.clock.now(), actions),
                Err(flume::RecvTimeoutError::Timeout) => {}
                Err(flume::RecvTimeoutError::Disconnected) => {
                    return Err(flume::RecvError::Disconnected);
                }
            }
        }
        for event in self.events.try_iter().take(EVENTS_PER_STEP) {
            self.schedule.step(event, self.clock.now(), actions);
        }
        Ok(())
    }

    /// The engine's latency model wants a step to have taken that long.
    fn wait_until(&self, moment: Duration) {
        loop {
            let left = moment.saturating_sub(self.clock.now());
            if left.is_zero() {
                return;
            }
            std::thread::park_timeout(left);
        }
    }

    fn tell(&mut self, steps: u64, computed_tokens: u64) {
        let (next_seq, counts, available) = {
            let mut pool = self.blocks.lock();
            (pool.log().next_seq().0, pool.counts(), pool.available())
        };
        let idle = self.schedule.is_idle();
        let load = self.schedule.load();
        let evictions = self.blocks.evictions();
        let status =
            Status { next_seq, load, counts, available, evictions, steps, computed_tokens, idle };
        self.status.send_if_modified(|current| {
            let changed = *current != status;
            *current = status;
            changed
        });
    }
}
