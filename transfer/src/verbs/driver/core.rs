//! What is posted, what has completed, and who is to hear of it. No clock, no device: moments and
//! completions come in, chains go out.
//!
//! Work requests of one queue pair complete in the order in which they were posted, so each gets a
//! running number, and a completion of number *n* tells of all up to *n*. That holds for those
//! that failed or were flushed as well.

use super::{Job, LinkFault, Provider, Report, Stop};
use std::collections::VecDeque;
use tokio::time::Instant;

/// The jobs of one connection, and its queue pairs as far as counting goes.
pub(super) struct Core<W> {
    lanes: Vec<Lane>,
    jobs: Vec<Option<Running<W>>>,
    free: Vec<usize>,
    depth: u64,
    chain: usize,
    fault: Option<LinkFault>,
}

/// One queue pair.
#[derive(Default)]
struct Lane {
    /// Number of the next work request.
    next: u64,
    /// Work requests before this number have completed.
    done: u64,
    /// Chains that were posted and have not completed, oldest first.
    chains: VecDeque<Chain>,
    /// Jobs that have something left to post here.
    waiting: VecDeque<usize>,
}

struct Chain {
    /// Number of its last work request, the one that is signalled.
    last: u64,
    job: usize,
}

struct Running<W> {
    /// Per queue pair: what is to be posted, and how much of it has been.
    works: Vec<(Vec<W>, usize)>,
    /// Chains posted and not completed.
    posted: usize,
    /// A chain of it did not succeed.
    failed: bool,
    stop: Option<Stop>,
    job: Terms,
}

/// What ends a job, and who hears of it.
struct Terms {
    cancel: tokio_util::sync::CancellationToken,
    deadline: Instant,
    linger: std::time::Duration,
    report: Report,
}

impl<W> Core<W> {
    /// No jobs yet. `depth` work requests fit each queue pair, `chain` one doorbell.
    pub(super) fn new(lanes: usize, depth: u32, chain: usize) -> Self {
        let chain = chain.clamp(1, depth.max(1) as usize);
        Self {
            lanes: (0..lanes).map(|_| Lane::default()).collect(),
            jobs: Vec::new(),
            free: Vec::new(),
            depth: u64::from(depth.max(1)),
            chain,
            fault: None,
        }
    }

    /// Takes a job over.
    pub(super) fn accept(&mut self, job: Job<W>) {
        let Job { mut works, cancel, deadline, linger, report } = job;
        works.resize_with(self.lanes.len(), Vec::new);
        let index = self.free.pop().unwrap_or_else(|| {
            self.jobs.push(None);
            self.jobs.len() - 1
        });
        for (lane, works) in self.lanes.iter_mut().zip(&works) {
            if !works.is_empty() {
                lane.waiting.push_back(index);
            }
        }
        let works = works.into_iter().map(|works| (works, 0)).collect();
        let job = Terms { cancel, deadline, linger, report };
        self.jobs[index] = Some(Running { works, posted: 0, failed: false, stop: None, job });
        self.settle(index);
    }

    /// Jobs that have not ended.
    pub(super) fn running(&self) -> usize {
        self.jobs.len() - self.free.len()
    }

    /// Whether completions are due.
    pub(super) fn outstanding(&self) -> bool {
        self.lanes.iter().any(|lane| !lane.chains.is_empty())
    }

    /// Why nothing is posted any more.
    pub(super) fn fault(&self) -> Option<LinkFault> {
        self.fault
    }

    /// Nothing is posted from now on; only the first reason counts.
    pub(super) fn fail(&mut self, fault: LinkFault) {
        self.fault.get_or_insert(fault);
    }

    /// Posts what fits, in turns: a chain of one job, then a chain of the next, so that a large
    /// job does not hold up a small one.
    pub(super) fn post<P: Provider<Work = W>>(&mut self, provider: &mut P) {
        for index in 0..self.lanes.len() {
            while self.fault.is_none() && self.post_chain(index, provider) {}
        }
    }

    /// Posts one chain on a queue pair; whether there may be another.
    fn post_chain<P: Provider<Work = W>>(&mut self, index: usize, provider: &mut P) -> bool {
        let lane = &mut self.lanes[index];
        let Some(&id) = lane.waiting.front() else { return false };
        let Some(running) = &mut self.jobs[id] else {
            lane.waiting.pop_front();
            return true;
        };
        let (works, start) = &mut running.works[index];
        let works = &works[*start..];
        let count = works.len().min(self.chain);
        if running.stop.is_some() || count == 0 {
            lane.waiting.pop_front();
            return true;
        }
        // Never a part of a chain: there are as many doorbells as planned.
        if lane.next + count as u64 > lane.done + self.depth {
            return false;
        }
        let posted = match provider.post(index, lane.next, &works[..count]) {
            Ok(()) => count,
            Err(posted) => {
                self.fault = Some(LinkFault::Post);
                posted.min(count)
            }
        };
        *start += posted;
        lane.next += posted as u64;
        if posted > 0 {
            running.posted += 1;
            lane.chains.push_back(Chain { last: lane.next - 1, job: id });
        }
        lane.waiting.rotate_left(1);
        true
    }

    /// A completion came: all work requests of a queue pair up to `number` are over.
    pub(super) fn completed(&mut self, index: usize, number: u64, fault: Option<LinkFault>) {
        if let Some(fault) = fault {
            self.fail(fault);
        }
        let Some(lane) = self.lanes.get_mut(index) else { return };
        if number >= lane.next {
            // Not one of ours: whatever sent it, nothing can be believed any more.
            return self.fail(LinkFault::Stray);
        }
        lane.done = lane.done.max(number + 1);
        while let Some(chain) = self.lanes[index].chains.pop_front_if(|c| c.last <= number) {
            if let Some(running) = &mut self.jobs[chain.job] {
                running.posted -= 1;
                running.failed |= fault.is_some();
            }
            // With a fault, jobs are reported only when the queue pairs are gone.
            if self.fault.is_none() {
                self.settle(chain.job);
            }
        }
    }

    /// Everything that was posted on a queue pair is over, without success where nothing else was
    /// said before.
    pub(super) fn ended(&mut self, index: usize) {
        if let Some(last) = self.lanes.get(index).and_then(|lane| lane.next.checked_sub(1)) {
            self.completed(index, last, Some(LinkFault::Flushed));
        }
    }

    /// Stops jobs that are cancelled or out of time. Those with work requests under way have
    /// `linger` for them to complete; then the connection fails, because only a queue pair in the
    /// error state gives them back.
    pub(super) fn sweep(&mut self, now: Instant) {
        for index in 0..self.jobs.len() {
            let Some(running) = &mut self.jobs[index] else { continue };
            let Terms { cancel, deadline, linger, .. } = &running.job;
            let over = now >= *deadline;
            if running.stop.is_none() && cancel.is_cancelled() {
                running.stop = Some(Stop::Cancelled);
            } else if running.stop.is_none() && over {
                running.stop = Some(Stop::Deadline);
            }
            if over && running.posted > 0 && now >= *deadline + *linger {
                self.fault.get_or_insert(LinkFault::Overdue);
            }
            if running.stop.is_some() && self.fault.is_none() {
                self.settle(index);
            }
        }
    }

    /// When `sweep` has something to do at the latest.
    pub(super) fn next_moment(&self) -> Option<Instant> {
        let moment = |running: &Running<W>| {
            let Terms { deadline, linger, .. } = running.job;
            // A stopped job is only waited for.
            if running.stop.is_some() { deadline + linger } else { deadline }
        };
        self.jobs.iter().flatten().map(moment).min()
    }

    /// Reports a job of which nothing is under way and nothing will be.
    fn settle(&mut self, index: usize) {
        let ended = self.jobs[index].take_if(|running| {
            let all = running.works.iter().all(|(works, start)| *start == works.len());
            running.posted == 0 && (all || running.stop.is_some())
        });
        if let Some(Running { works, stop, job, .. }) = ended {
            self.free.push(index);
            for lane in &mut self.lanes {
                lane.waiting.retain(|&waiting| waiting != index);
            }
            // They hold windows: whoever hears that it is over has the last say over those.
            drop(works);
            (job.report)(stop.map_or(Ok(()), Err));
        }
    }

    /// Reports all jobs that are left. Nothing is under way any more, or, if not `drained`, nobody
    /// knows.
    pub(super) fn finish(self, drained: bool) {
        let fault = self.fault.unwrap_or(LinkFault::Closed);
        for running in self.jobs.into_iter().flatten() {
            let Running { works, posted, failed, stop, job } = running;
            let all = works.iter().all(|(works, start)| *start == works.len());
            let outcome = if posted > 0 && !drained {
                Err(Stop::Stuck)
            } else if let Some(stop) = stop {
                Err(stop)
            } else if all && posted == 0 && !failed {
                Ok(())
            } else {
                Err(Stop::Link(fault))
            };
            drop(works);
            (job.report)(outcome);
        }
    }
}
