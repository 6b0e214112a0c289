//! What the engine loop and a schedule say to each other about one step.

use baton_engine::api::{Batch, StepOutput};
use baton_kv::lease::WriteLease;
use baton_proto::ids::SeqKey;
use std::cmp::Reverse;
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

/// What a request says about who comes first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Precedence {
    /// Work of a larger one comes first, however long that of a smaller one waits.
    pub strict_priority: u8,
    /// Larger is more urgent; waiting makes up for it.
    pub priority: i32,
    /// By when the answer is wanted, on this process's clock. It orders, and ends nothing.
    pub wanted: Option<Duration>,
}

impl Precedence {
    /// From a message: `wanted_ms` counts from `now`.
    pub fn from_wire(
        strict_priority: u32,
        priority: i32,
        wanted_ms: Option<u32>,
        now: Duration,
    ) -> Self {
        Self {
            strict_priority: u8::try_from(strict_priority).unwrap_or(u8::MAX),
            priority,
            wanted: wanted_ms.map(|ms| now + Duration::from_millis(u64::from(ms))),
        }
    }

    /// What is left until the answer is wanted, for a message.
    pub fn wanted_ms(&self, now: Duration) -> Option<u32> {
        let left = |wanted: Duration| wanted.saturating_sub(now).as_millis();
        self.wanted.map(|wanted| u32::try_from(left(wanted)).unwrap_or(u32::MAX))
    }
}

/// What decides who comes first: the strict priority, then priority, which waiting raises, then by
/// when the answer is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Urgency {
    /// What the request says.
    pub precedence: Precedence,
    /// When the work came.
    pub arrived: Duration,
    /// When nobody wants it any more.
    pub deadline: Duration,
}

impl Urgency {
    /// A key to sort by, the most urgent first; waiting for `ageing` is worth one of priority.
    pub fn rank(&self, now: Duration, ageing: Duration) -> impl Ord + use<> {
        let Precedence { strict_priority, priority, wanted } = self.precedence;
        let waited = now.saturating_sub(self.arrived).as_millis() / ageing.as_millis().max(1);
        let aged = i64::from(priority) + waited as i64;
        (Reverse(strict_priority), Reverse(aged), wanted.unwrap_or(self.deadline))
    }
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
}
