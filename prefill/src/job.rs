//! One call of `Prefill.Compute`, from arrival to the end of its lease.

use crate::schedule::Action;
use baton_proto::block::BlockDescriptor;
use baton_proto::ids::{LeaseId, SeqKey, TokenId};
use baton_transfer::Peer;
use baton_worker::blocks::Blocks;
use baton_worker::fill::{Fill, FillReport};
use baton_worker::queue::{Entry, Precedence, Urgency};
use baton_worker::sequence::{ChainKey, Sequence};
use std::fmt;
use std::time::Duration;

/// A call, numbered by the daemon.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct JobId(pub u64);

/// What the caller wants.
pub struct JobRequest {
    /// The prompt.
    pub tokens: Vec<TokenId>,
    /// What decides its hash chain.
    pub chain_key: ChainKey,
    /// The caller holds the blocks before this one.
    pub from_block: usize,
    /// Who comes first.
    pub precedence: Precedence,
    /// The tenant's share where others have work too, from 1.
    pub weight: u32,
    /// On this process's clock.
    pub deadline: Duration,
    /// Where the caller's own blocks lie, ...
    pub held: Vec<BlockDescriptor>,
    /// ... and how to reach them.
    pub held_by: Option<Peer>,
}

impl fmt::Debug for JobRequest {
    /// Sizes instead of tokens: prompts do not belong in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobRequest")
            .field("tokens", &self.tokens.len())
            .field("from_block", &self.from_block)
            .field("precedence", &self.precedence)
            .finish_non_exhaustive()
    }
}

impl JobRequest {
    /// Whole blocks to compute. The block with the last token is left to decode, also where the
    /// prompt ends on its boundary: decode needs the last position's output to draw.
    pub fn goal(&self) -> usize {
        self.tokens.len().saturating_sub(1) / self.chain_key.block_tokens as usize
    }
}

/// Why a job ended early.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum JobFailure {
    /// Too many jobs.
    #[error("too many prefill jobs are waiting (`limits.jobs`)")]
    Overloaded,
    /// What is computed cannot be kept for the caller.
    #[error(
        "no lease on the computed blocks: too many are live (`kv.leases`), or a step took longer \
         than `limits.lease_ttl`"
    )]
    NoLease,
    /// The prompt exceeds the pool.
    #[error("the prompt needs {blocks} blocks and the pool has {slots}")]
    TooLarge {
        /// Needed.
        blocks: usize,
        /// There are.
        slots: usize,
    },
    /// Nobody waits any more.
    #[error("the deadline has passed")]
    Deadline,
}

/// What a job cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct JobReport {
    /// Found in the pool, or joined, beyond what the caller holds.
    pub cached_tokens: u32,
    /// Brought from the caller.
    pub pulled_tokens: u32,
    /// Computed for this job.
    pub computed_tokens: u32,
    /// From arrival to begin.
    pub queue: Duration,
    /// From begin to the last announcement.
    pub compute: Duration,
}

/// How far a job is.
#[derive(Debug)]
pub enum Phase {
    /// Waits for its reservation, for the first time or again.
    Queued(Sequence),
    /// Blocks come together.
    Filling(Fill),
    /// Everything is announced; the lease holds it.
    Announced,
}

impl Phase {
    /// Waits for its reservation.
    pub fn is_queued(&self) -> bool {
        matches!(self, Phase::Queued(_))
    }

    /// Blocks come together.
    pub fn is_filling(&self) -> bool {
        matches!(self, Phase::Filling(_))
    }
}

/// A job that has just announced its last block.
#[derive(Debug)]
pub struct Finished {
    /// The sequence that the engine can forget.
    pub seq: SeqKey,
    /// What it cost.
    pub report: JobReport,
}

/// A job.
#[derive(Debug)]
pub struct Job {
    /// What the caller wants.
    pub request: JobRequest,
    /// When it came.
    pub arrived: Duration,
    /// When it first began.
    pub begun: Option<Duration>,
    /// How far it is.
    pub phase: Phase,
    /// The lease on what is announced.
    pub lease: Option<LeaseId>,
    /// Blocks before this index are announced or the caller's own.
    announced: usize,
    /// Blocks before this index are the caller's own, or were at hand before it had to give way.
    found_from: usize,
    /// What was done before it had to give way.
    before: FillReport,
}

impl Job {
    /// A job that has just come.
    pub fn queued(request: JobRequest, sequence: Sequence, now: Duration) -> Self {
        let announced = request.from_block;
        let phase = Phase::Queued(sequence);
        Self {
            arrived: now,
            begun: None,
            phase,
            lease: None,
            announced,
            found_from: request.from_block,
            before: FillReport::default(),
            request,
        }
    }

    /// What decides when it is served.
    pub fn urgency(&self) -> Urgency {
        let (precedence, deadline) = (self.request.precedence, self.request.deadline);
        Urgency { precedence, arrived: self.arrived, deadline }
    }

    /// Its reservation is granted.
    pub fn begin(&mut self, now: Duration) {
        let Phase::Queued(sequence) = std::mem::replace(&mut self.phase, Phase::Announced) else {
            panic!("a job begins once");
        };
        let mut fill = Fill::new(sequence, self.request.goal(), self.found_from);
        fill.offer(&self.request.held);
        self.begun.get_or_insert(now);
        self.phase = Phase::Filling(fill);
    }

    /// Blocks that are promised to it.
    pub fn reserved(&self) -> usize {
        match self.phase {
            // What is announced stays under its lease.
            Phase::Queued(_) => self.lease.map_or(0, |_| self.announced),
            Phase::Filling(_) | Phase::Announced => self.request.goal(),
        }
    }

    /// Whether it can stop where it is, to go on later: between two chunks, and not while a
    /// transport writes for it.
    pub fn can_give_way(&self) -> bool {
        self.fill().is_some_and(|fill| !fill.is_pulling())
    }

    /// Gives up what is not sealed and waits again, under a new name for the engine; returns the
    /// old one. What it sealed stays in the pool, and what it announced under its lease.
    pub fn give_way(&mut self, key: SeqKey) -> Option<SeqKey> {
        let fill = self.fill()?;
        let (old, have, report) = (fill.sequence().key(), fill.have(), fill.report());
        self.found_from = self.found_from.max(have);
        self.before = self.before + report;
        let (chain_key, tokens) = (&self.request.chain_key, &self.request.tokens);
        self.phase = Phase::Queued(Sequence::new(key, chain_key.clone(), tokens.clone()));
        Some(old)
    }

    /// What it gives back where it gives way.
    pub fn given_back(&self) -> usize {
        self.request.goal() - self.lease.map_or(0, |_| self.announced)
    }

    /// What the queue orders it by: it is as long as what is missing.
    pub fn entry(&self, id: JobId) -> Entry<'_, JobId> {
        let ChainKey { tenant, block_tokens, .. } = &self.request.chain_key;
        let have = self.fill().map_or(self.found_from, Fill::have);
        let missing = self.request.goal().saturating_sub(have) as u64;
        let (weight, cost_tokens) = (self.request.weight, missing * u64::from(*block_tokens));
        Entry { id, tenant, weight, urgency: self.urgency(), cost_tokens }
    }

    /// The fill, while there is one.
    pub fn fill(&self) -> Option<&Fill> {
        match &self.phase {
            Phase::Filling(fill) => Some(fill),
            Phase::Queued(_) | Phase::Announced => None,
        }
    }

    /// The fill, while there is one.
    pub fn fill_mut(&mut self) -> Option<&mut Fill> {
        match &mut self.phase {
            Phase::Filling(fill) => Some(fill),
            Phase::Queued(_) | Phase::Announced => None,
        }
    }

    /// Announces what is new, under the job's lease; `false` where no lease could be had.
    pub fn announce(
        &mut self,
        id: JobId,
        blocks: &Blocks,
        ttl: Duration,
        now: Duration,
        actions: &mut Vec<Action>,
    ) -> bool {
        let Phase::Filling(fill) = &self.phase else { return true };
        if fill.have() <= self.announced {
            return true;
        }
        let new = &fill.sequence().pins()[self.announced..];
        let Some((lease, descriptors)) = blocks.lend(new, self.lease, ttl, now) else {
            return false;
        };
        self.lease = Some(lease);
        self.announced = fill.have();
        actions.push(Action::Announce(id, descriptors));
        true
    }

    /// Ends the filling where every block is at hand.
    pub fn finish(&mut self, now: Duration) -> Option<Finished> {
        let Phase::Filling(fill) = &self.phase else { return None };
        if fill.have() < fill.goal() {
            return None;
        }
        let sources = self.before + fill.report();
        let block_tokens = fill.sequence().block_tokens();
        let begun = self.begun.unwrap_or(self.arrived);
        let report = JobReport {
            cached_tokens: sources.found_blocks * block_tokens,
            pulled_tokens: sources.pulled_blocks * block_tokens,
            computed_tokens: sources.computed_blocks * block_tokens,
            queue: begun.saturating_sub(self.arrived),
            compute: now.saturating_sub(begun),
        };
        let seq = fill.sequence().key();
        self.phase = Phase::Announced;
        Some(Finished { seq, report })
    }
}
