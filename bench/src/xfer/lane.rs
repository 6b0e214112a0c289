//! One pull after the other: a lane has slots of its own, and keeps one batch under way.

use super::args::{Placement, Turn};
use super::store::{self, Store};
use crate::sim::chance::Chance;
use baton_kv::lease::Draft;
use baton_node::clock::{Clock, Monotonic};
use baton_node::exit::{Exit, Failure};
use baton_proto::block::BlockDescriptor;
use baton_transfer::{Peer, Pull, Settled, Transport};
use hdrhistogram::Histogram;
use std::collections::VecDeque;
use std::time::Duration;

/// What one pull may take.
const PULL_PATIENCE: Duration = Duration::from_mins(1);
/// Latencies are kept in nanoseconds, up to this.
const LATENCY_MAX_NS: u64 = 120_000_000_000;

/// Blocks and slots of one lane.
pub(super) struct Lane {
    blocks: Vec<BlockDescriptor>,
    drafts: VecDeque<Draft>,
    batch: usize,
    /// Where the next batch begins.
    at: usize,
    placement: Placement,
    chance: Chance,
}

/// What a turn has shown.
#[derive(Clone, Debug)]
pub(super) struct Moved {
    pub(super) blocks: u64,
    /// Work requests of RDMA.
    pub(super) requests: u64,
    /// Calls with which they were posted.
    pub(super) doorbells: u64,
    pub(super) latency_ns: Histogram<u64>,
}

impl Moved {
    pub(super) fn none() -> Self {
        let latency_ns = Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3);
        Self {
            blocks: 0,
            requests: 0,
            doorbells: 0,
            latency_ns: latency_ns.expect("the bounds are in order"),
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.blocks += other.blocks;
        self.requests += other.requests;
        self.doorbells += other.doorbells;
        self.latency_ns += &other.latency_ns;
    }

    pub(super) fn record(&mut self, blocks: u64, took: Duration) {
        self.blocks += blocks;
        self.latency_ns.saturating_record(took.as_nanos() as u64);
    }
}

impl Lane {
    /// A lane that pulls `blocks` to `drafts`, as many, `batch` at once.
    pub(super) fn new(
        blocks: Vec<BlockDescriptor>,
        drafts: Vec<Draft>,
        batch: u32,
        placement: Placement,
        seed: u64,
    ) -> Self {
        assert_eq!(blocks.len(), drafts.len());
        let drafts = drafts.into();
        Self { blocks, drafts, batch: batch as usize, at: 0, placement, chance: Chance::new(seed) }
    }

    /// Pulls for one turn; the lane comes back, also after a failure.
    pub(super) async fn run(
        mut self,
        transport: &dyn Transport,
        peer: &Peer,
        turn: Turn,
    ) -> (Self, Result<Moved, Failure>) {
        let mut pace = Pace::new(turn);
        let mut moved = Moved::none();
        while pace.goes_on() {
            let begun = pace.now();
            match self.pull(transport, peer, |_, _| Ok(())).await {
                Ok(blocks) => moved.record(blocks, pace.now().saturating_sub(begun)),
                Err(error) => return (self, Err(error)),
            }
        }
        (self, Ok(moved))
    }

    /// Pulls every block once, onto bytes that are wrong, and compares what came.
    pub(super) async fn check(
        mut self,
        transport: &dyn Transport,
        peer: &Peer,
        store: &Store,
    ) -> (Self, Result<u64, Failure>) {
        let compare = |block: &BlockDescriptor, slot: u32| {
            let bytes = store.arena.read(slot);
            let tag = store::tag(&block.hash);
            let Some(at) = store::first_wrong(tag, &bytes[..block.len as usize]) else {
                return Ok(());
            };
            let kind = transport.kind();
            let message =
                format!("--check: block {tag} came over {kind} with a wrong byte at {at}");
            Err(Failure::new(Exit::BrokenInvariant, message))
        };
        for draft in &self.drafts {
            let mut slot = store.arena.write(draft.slot().0);
            slot.fill(0xaa);
        }
        let mut compared = 0;
        while compared < self.blocks.len() as u64 {
            match self.pull(transport, peer, compare).await {
                Ok(blocks) => compared += blocks,
                Err(error) => return (self, Err(error)),
            }
        }
        (self, Ok(compared))
    }

    /// One pull; how many blocks came, each shown to `arrived`.
    async fn pull(
        &mut self,
        transport: &dyn Transport,
        peer: &Peer,
        arrived: impl Fn(&BlockDescriptor, u32) -> Result<(), Failure>,
    ) -> Result<u64, Failure> {
        let blocks = self.choose();
        let drafts = self.drafts.drain(..self.batch);
        let pulls = blocks.into_iter().zip(drafts);
        let pulls = pulls.map(|(block, draft)| Pull::whole(block, draft.lend())).collect();
        let settled = transport.pull(peer, pulls, PULL_PATIENCE).settle().await;
        let mut failed = None;
        for settled in settled {
            match settled {
                Settled::Arrived { block, lease } => {
                    let draft = lease.settle();
                    let outcome = arrived(&block, draft.slot().0);
                    failed = failed.or(outcome.err());
                    self.drafts.push_back(draft);
                }
                Settled::Failed { block, lease, error } => {
                    self.drafts.push_back(lease.settle());
                    failed.get_or_insert_with(|| {
                        let tag = store::tag(&block.hash);
                        let message = format!("block {tag} did not arrive: {error}");
                        Failure::new(Exit::Unavailable, message)
                    });
                }
            }
        }
        match failed {
            None => Ok(self.batch as u64),
            Some(error) => Err(error),
        }
    }

    /// The next batch's blocks. The slots wander by themselves: those that were used go to the end
    /// of the line.
    fn choose(&mut self) -> Vec<BlockDescriptor> {
        let all = self.blocks.len();
        if self.at + self.batch > all {
            self.at = 0;
        }
        if self.at == 0 && self.placement == Placement::Random {
            // All blocks, each once, in another order; and the slots likewise.
            for last in (1..all).rev() {
                self.blocks.swap(last, self.chance.below(last as u64 + 1) as usize);
                self.drafts.swap(last, self.chance.below(last as u64 + 1) as usize);
            }
        }
        let chosen = self.blocks[self.at..self.at + self.batch].to_vec();
        self.at += self.batch;
        chosen
    }
}

/// Whether a turn goes on.
pub(super) struct Pace {
    clock: Monotonic,
    begun: Duration,
    pulls: u32,
    turn: Turn,
}

impl Pace {
    pub(super) fn new(turn: Turn) -> Self {
        let clock = Monotonic::process();
        Self { clock, begun: clock.now(), pulls: 0, turn }
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.now()
    }

    /// Asked before each pull; the first one is always made.
    pub(super) fn goes_on(&mut self) -> bool {
        self.pulls += 1;
        let over = match self.turn {
            Turn::Time(time) => self.now().saturating_sub(self.begun) >= time,
            Turn::Pulls(count) => self.pulls > count,
        };
        !over || self.pulls == 1
    }
}
