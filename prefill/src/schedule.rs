//! The prefill schedule: prompts become sealed blocks, announced in order as they are done.
//!
//! A pure core. Jobs are served in the order of [`baton_worker::queue`], chunk by chunk. A job
//! reserves the blocks of its whole prompt before it begins, so that it can always finish; it keeps
//! what it announced under a lease until its caller ends the call. Where a job of a higher tier
//! lacks room, what is computed ahead and what is less than ordinary gives way between two chunks,
//! and goes on later. Equal work is joined by hash: a job whose next block is being made by another
//! one waits for it, and lends it its urgency.

use crate::job::{Job, JobFailure, JobId, JobReport, JobRequest, Phase};
use baton_engine::api::{Batch, StepOutput};
use baton_node::switch::Switch;
use baton_proto::block::BlockDescriptor;
use baton_proto::ids::SeqKey;
use baton_transfer::{Peer, Pull, Settled};
use baton_worker::blocks::Blocks;
use baton_worker::claims::Claims;
use baton_worker::fill::{FillLimits, Next};
use baton_worker::plan::{LoadReport, Pace, Plan, Schedule, Segment};
use baton_worker::queue::Shares;
use baton_worker::sequence::Sequence;
use std::collections::BTreeMap;
use std::time::Duration;

/// What happens to the schedule.
#[derive(Debug)]
pub enum Event {
    /// A decode worker wants blocks.
    Compute(JobId, Box<JobRequest>),
    /// The caller has ended the call, for whatever reason.
    Cancel(JobId),
    /// Pulls have ended.
    Settled(JobId, Vec<Settled>),
    /// Pulls have ended, and their slots are quarantined.
    Lost(JobId, Vec<BlockDescriptor>),
    /// Whether jobs are ordered by more than their arrival.
    Order(Switch),
}

/// What the schedule wants done.
#[derive(Debug)]
pub enum Action {
    /// Tell the caller that these blocks can be pulled.
    Announce(JobId, Vec<BlockDescriptor>),
    /// Tell the caller that all are announced.
    Done(JobId, JobReport),
    /// Tell the caller that nothing more will come.
    Fail(JobId, JobFailure),
    /// Start these pulls, and send [`Event::Settled`], and [`Event::Lost`] for those without result.
    Pull(JobId, Peer, Vec<Pull>, Duration),
}

/// Bounds and sizes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Jobs accepted at a time.
    pub jobs_max: usize,
    /// Positions of one job in one step.
    pub chunk_tokens: u32,
    /// Positions in one step.
    pub batch_tokens: u32,
    /// Blocks a job pulls at a time.
    pub pull_window_blocks: usize,
    /// A pull that takes longer has failed.
    pub pull_timeout: Duration,
    /// How long announced blocks are kept without a renewal.
    pub lease_ttl: Duration,
    /// Waiting that long counts as one step of priority.
    pub ageing: Duration,
}

/// The schedule.
#[derive(Debug)]
pub struct PrefillSchedule {
    blocks: Blocks,
    claims: Claims,
    limits: Limits,
    jobs: BTreeMap<JobId, Job>,
    shares: Shares,
    /// Blocks promised to begun jobs.
    reserved_blocks: usize,
    next_seq: u64,
    /// What the step under way computes, by job.
    in_step: Vec<(JobId, u32)>,
    forgotten: Vec<SeqKey>,
    pace: Pace,
}

impl Schedule for PrefillSchedule {
    type Event = Event;
    type Action = Action;

    fn step(&mut self, event: Event, now: Duration, actions: &mut Vec<Action>) {
        match event {
            Event::Compute(id, request) => self.accept(id, *request, now, actions),
            Event::Cancel(id) => self.end(id),
            Event::Settled(id, results) => self.settled(id, results),
            Event::Lost(id, blocks) => self.lost(id, &blocks),
            Event::Order(switch) => self.shares.set(switch),
        }
        self.pump(now, actions);
    }

    fn plan(&mut self, now: Duration, actions: &mut Vec<Action>) -> Option<Plan> {
        let mut plan = Plan::default();
        self.pace.begin(now);
        let mut budget = self.limits.batch_tokens;
        self.in_step.clear();
        for id in self.order(now, Phase::is_filling) {
            // Whoever makes what this one waits for comes in its place.
            let maker = self.maker(id).unwrap_or(id);
            if budget == 0 {
                break;
            }
            if self.in_step.iter().any(|(planned, _)| *planned == maker) {
                continue;
            }
            let compute_tokens = self.limits.chunk_tokens.min(budget);
            let segment = self.plan_job(maker, compute_tokens, now, actions);
            let Some(segment) = segment else { continue };
            budget -= segment.count;
            self.in_step.push((maker, segment.count));
            plan.segments.push(segment);
        }
        (!plan.segments.is_empty()).then_some(plan)
    }

    fn batch(&self, plan: Plan) -> Batch<'_> {
        let item = |(segment, (id, _)): (Segment, &(JobId, u32))| {
            let fill = self.jobs[id].fill().expect("a planned job is filling");
            fill.item(segment.count, segment.drafts)
        };
        Batch { items: plan.segments.into_iter().zip(&self.in_step).map(item).collect() }
    }

    fn stepped(&mut self, output: StepOutput, now: Duration, actions: &mut Vec<Action>) {
        self.pace.end(now);
        for (item, (id, count)) in output.items.into_iter().zip(std::mem::take(&mut self.in_step)) {
            let job = self.jobs.get_mut(&id).expect("no job ends during a step");
            let fill = job.fill_mut().expect("a planned job is filling");
            fill.absorb(count, item.drafts, &self.blocks, &mut self.claims);
            let request = &job.request;
            self.shares.charge(&request.chain_key.tenant, request.weight, u64::from(count));
        }
        self.pump(now, actions);
    }

    fn tick(&mut self, now: Duration, actions: &mut Vec<Action>) {
        self.blocks.expire(now);
        let late: Vec<JobId> = self
            .jobs
            .iter()
            .filter(|(_, job)| job.request.deadline <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            actions.push(Action::Fail(id, JobFailure::Deadline));
            self.end(id);
        }
        for job in self.jobs.values() {
            if let Some(lease) = job.lease {
                self.blocks.renew(lease, self.lease_ttl(), now);
            }
        }
        self.pump(now, actions);
    }

    fn forgotten(&mut self) -> Vec<SeqKey> {
        std::mem::take(&mut self.forgotten)
    }

    fn load(&self) -> LoadReport {
        let mut load = LoadReport { order: self.shares.shadow(), ..LoadReport::default() };
        for job in self.jobs.values() {
            match &job.phase {
                Phase::Queued(sequence) => {
                    load.queued += 1;
                    load.pending_tokens += sequence.tokens().len() as u64;
                }
                Phase::Filling(fill) => {
                    load.running += 1;
                    let missing = fill.goal() - fill.have();
                    load.pending_tokens +=
                        missing as u64 * u64::from(fill.sequence().block_tokens());
                }
                Phase::Announced => {}
            }
        }
        load
    }

    fn is_idle(&self) -> bool {
        self.jobs.is_empty()
    }
}

impl PrefillSchedule {
    /// An empty schedule over a worker's blocks.
    pub fn new(blocks: Blocks, limits: Limits) -> Self {
        Self {
            blocks,
            claims: Claims::default(),
            limits,
            jobs: BTreeMap::new(),
            shares: Shares::default(),
            reserved_blocks: 0,
            next_seq: 1,
            in_step: Vec::new(),
            forgotten: Vec::new(),
            pace: Pace::default(),
        }
    }

    /// Blocks that jobs have claimed; none where nothing is under way.
    pub fn claimed(&self) -> usize {
        self.claims.len()
    }

    /// Blocks promised to begun jobs; none where nothing is under way.
    pub fn promised(&self) -> usize {
        self.reserved_blocks
    }

    fn accept(&mut self, id: JobId, request: JobRequest, now: Duration, actions: &mut Vec<Action>) {
        let slots = self.blocks.usable_slots();
        let goal = request.goal();
        let failure = if self.jobs.len() >= self.limits.jobs_max {
            Some(JobFailure::Overloaded)
        } else if goal > slots {
            Some(JobFailure::TooLarge { blocks: goal, slots })
        } else if request.deadline <= now {
            Some(JobFailure::Deadline)
        } else {
            None
        };
        if let Some(failure) = failure {
            actions.push(Action::Fail(id, failure));
            return;
        }
        if goal <= request.from_block {
            actions.push(Action::Done(id, JobReport::default()));
            return;
        }
        let key = self.mint_seq();
        let sequence = Sequence::new(key, request.chain_key.clone(), request.tokens.clone());
        self.shares.enter(&request.chain_key.tenant);
        self.jobs.insert(id, Job::queued(request, sequence, now));
    }

    /// Ends a job in whatever phase it is. What it sealed stays in the pool for others.
    fn end(&mut self, id: JobId) {
        let Some(job) = self.jobs.remove(&id) else { return };
        if let Some(lease) = job.lease {
            self.blocks.release(lease);
        }
        self.reserved_blocks -= job.reserved();
        self.shares.leave(&job.request.chain_key.tenant);
        if let Phase::Filling(fill) = &job.phase {
            self.claims.release_all(fill.sequence().key());
            self.forgotten.push(fill.sequence().key());
        }
    }

    fn settled(&mut self, id: JobId, results: Vec<Settled>) {
        let Some(fill) = self.jobs.get_mut(&id).and_then(Job::fill_mut) else {
            // The job is gone: the transport is quiet, so the slots can go back.
            results.into_iter().for_each(Settled::give_back);
            return;
        };
        let mut failed = false;
        for result in results {
            failed |= !fill.settled(result, &mut self.claims);
        }
        if failed {
            // The caller cannot deliver: compute what it said it had.
            fill.withdraw_offers();
        }
    }

    fn lost(&mut self, id: JobId, blocks: &[BlockDescriptor]) {
        let Some(fill) = self.jobs.get_mut(&id).and_then(Job::fill_mut) else { return };
        for block in blocks {
            fill.lost(block, &mut self.claims);
        }
        fill.withdraw_offers();
    }

    /// Begins what fits, takes what has become available, announces what is new.
    fn pump(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let slots = self.blocks.usable_slots();
        let mut blocked = false;
        for id in self.order(now, Phase::is_queued) {
            let job = &self.jobs[&id];
            let wanted = job.request.goal() - job.reserved();
            // Behind one that does not fit only those go on that keep others' room by what they have
            // announced: whoever began fits beside it, so one of them always does.
            if blocked && job.reserved() == 0 {
                continue;
            }
            if self.reserved_blocks + wanted > slots
                && (blocked || !self.make_room(id, wanted, slots, now))
            {
                blocked = true;
                continue;
            }
            self.reserved_blocks += wanted;
            self.jobs.get_mut(&id).expect("listed jobs exist").begin(now);
        }
        for id in self.order(now, Phase::is_filling) {
            self.advance(id, 0, now, actions);
        }
    }

    /// Has jobs give way to one that needs so many blocks more; `false`, and none does, where that
    /// would not be enough.
    fn make_room(&mut self, id: JobId, wanted: usize, slots: usize, now: Duration) -> bool {
        let (urgency, times) = (self.jobs[&id].urgency(), (now, self.limits.ageing));
        let order = self.order(now, Phase::is_filling);
        let others = order.into_iter().map(|other| (other, &self.jobs[&other]));
        let others = others.filter(|(_, job)| job.can_give_way());
        let others = others.map(|(other, job)| (other, job.urgency(), job.given_back()));
        let missing = (self.reserved_blocks + wanted).saturating_sub(slots);
        let chosen = self.shares.displaced(&urgency, others, missing, times);
        for other in chosen.iter().flatten() {
            let key = self.mint_seq();
            let job = self.jobs.get_mut(other).expect("listed jobs exist");
            self.reserved_blocks -= job.given_back();
            if let Some(old) = job.give_way(key) {
                self.claims.release_all(old);
                self.forgotten.push(old);
            }
        }
        chosen.is_some()
    }

    /// The job that makes the block which this one waits for, if it waits for one.
    fn maker(&self, id: JobId) -> Option<JobId> {
        let fill = self.jobs.get(&id)?.fill()?;
        let seq = self.claims.holder(fill.missing()?)?;
        if seq == fill.sequence().key() {
            return None;
        }
        let makes = |job: &Job| job.fill().is_some_and(|fill| fill.sequence().key() == seq);
        self.jobs.iter().find(|(_, job)| makes(job)).map(|(id, _)| *id)
    }

    fn plan_job(
        &mut self,
        id: JobId,
        compute_tokens: u32,
        now: Duration,
        actions: &mut Vec<Action>,
    ) -> Option<Segment> {
        let count = self.advance(id, compute_tokens, now, actions)?;
        let fill = self.jobs.get_mut(&id).and_then(Job::fill_mut)?;
        let seq = fill.sequence().key();
        let Some(drafts) = fill.lend(count, &self.blocks) else {
            self.claims.release_all(seq);
            return None;
        };
        Some(Segment { seq, count, drafts })
    }

    /// Moves one job on; returns how many positions it wants to compute.
    fn advance(
        &mut self,
        id: JobId,
        compute_tokens: u32,
        now: Duration,
        actions: &mut Vec<Action>,
    ) -> Option<u32> {
        let limits = FillLimits { window_blocks: self.limits.pull_window_blocks, compute_tokens };
        let ttl = self.lease_ttl();
        let job = self.jobs.get_mut(&id)?;
        let next = job.fill_mut()?.advance(&self.blocks, &mut self.claims, limits);
        let compute = match next {
            Next::Compute(count) => Some(count),
            Next::Pull(pulls) => {
                let peer = job.request.held_by.clone().expect("offers come with their peer");
                let deadline = job.request.deadline.min(now + self.limits.pull_timeout);
                actions.push(Action::Pull(id, peer, pulls, deadline));
                None
            }
            Next::Wait | Next::Done => None,
        };
        if !job.announce(id, &self.blocks, ttl, now, actions) {
            actions.push(Action::Fail(id, JobFailure::NoLease));
            self.end(id);
            return None;
        }
        if let Some(done) = job.finish(now) {
            self.forgotten.push(done.seq);
            actions.push(Action::Done(id, done.report));
        }
        compute
    }

    fn lease_ttl(&self) -> Duration {
        self.pace.outlast(self.limits.lease_ttl)
    }

    fn mint_seq(&mut self) -> SeqKey {
        let key = SeqKey(self.next_seq);
        self.next_seq += 1;
        key
    }

    /// Jobs in a phase, in the order in which they are served.
    fn order(&self, now: Duration, phase: fn(&Phase) -> bool) -> Vec<JobId> {
        let jobs = self.jobs.iter().filter(|(_, job)| phase(&job.phase));
        let entries = jobs.map(|(id, job)| job.entry(*id)).collect();
        self.shares.order(entries, now, self.limits.ageing)
    }
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
