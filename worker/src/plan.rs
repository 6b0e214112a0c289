//! What the engine loop and a schedule say to each other about one step.

use crate::queue::Shadow;
use baton_engine::api::{Batch, StepOutput};
use baton_kv::lease::WriteLease;
use baton_proto::ids::SeqKey;
use std::time::Duration;

/// One step's work, decided: which sequence computes how much, into which slots.
#[derive(Debug, Default)]
pub struct Plan {
    /// At most one segment per sequence.
    pub segments: Vec<Segment>,
}

/// A sequence's part of a step.
#[derive(Debug)]
pub struct Segment {
    /// The sequence.
    pub seq: SeqKey,
    /// Positions to compute.
    pub count: u32,
    /// Where they go.
    pub drafts: Vec<WriteLease>,
}

/// A worker's schedule: a pure core that the engine loop drives.
///
/// The loop feeds events, lets the schedule plan a step, has the engine compute it, and reports
/// the result before any further event. No I/O, no clock, no entropy inside: time is passed in as
/// the duration since the process began.
pub trait Schedule {
    /// What happens to it.
    type Event: Send;
    /// What it wants done.
    type Action: Send;

    /// Takes an event in; what shall be done is appended to `actions`.
    fn step(&mut self, event: Self::Event, now: Duration, actions: &mut Vec<Self::Action>);

    /// Decides the next engine step; `None` where there is nothing to compute.
    fn plan(&mut self, now: Duration, actions: &mut Vec<Self::Action>) -> Option<Plan>;

    /// The engine's view of a plan.
    fn batch(&self, plan: Plan) -> Batch<'_>;

    /// The step is computed.
    fn stepped(&mut self, output: StepOutput, now: Duration, actions: &mut Vec<Self::Action>);

    /// Time has passed: leases, deadlines and waiting work are looked at again.
    fn tick(&mut self, now: Duration, actions: &mut Vec<Self::Action>);

    /// Sequences that the engine can forget, since the last call.
    fn forgotten(&mut self) -> Vec<SeqKey>;

    /// What a router wants to know to choose.
    fn load(&self) -> LoadReport;

    /// Whether every accepted piece of work has ended.
    fn is_idle(&self) -> bool;
}

/// How long steps take. Leases are renewed between steps, so they have to outlast the slowest.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    begun: Duration,
    slowest: Duration,
}

impl Pace {
    /// A step begins.
    pub fn begin(&mut self, now: Duration) {
        self.begun = now;
    }

    /// The step is over.
    pub fn end(&mut self, now: Duration) {
        self.slowest = self.slowest.max(now.saturating_sub(self.begun));
    }

    /// A time to live that outlasts a step or two, whatever is configured.
    pub fn outlast(&self, ttl: Duration) -> Duration {
        ttl + 2 * self.slowest
    }
}

/// How busy a worker is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LoadReport {
    /// Accepted, not begun.
    pub queued: u32,
    /// Begun, not ended.
    pub running: u32,
    /// Prompt tokens accepted and not yet computed.
    pub pending_tokens: u64,
    /// What the order of work would have done while it was in shadow.
    pub order: Shadow,
}
