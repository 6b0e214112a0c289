//! One task per connection, which owns its queue pairs: it posts, waits, and reports.
//!
//! Whoever wants something moved hands over a [`Job`]: work requests and what has to live until
//! they are over, which comes back with the outcome. That is the promise all else rests on: a job
//! is reported only when every one of its work requests that was posted has completed, by success
//! or, with the queue pairs in the error state, by being flushed.

mod core;
#[cfg(test)]
mod tests;

use crate::caller::lock;
use crate::{LinkFault, TransferError};
use core::Core;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Jobs that wait for the driver to look at them.
const COMMANDS: usize = 64;
/// Jobs at once; more wait in the channel.
const JOBS: usize = 1024;
/// Completions taken at once.
const BATCH: usize = 64;
/// How long flushing a queue pair may take before it is called stuck.
const DRAIN: Duration = Duration::from_secs(10);
/// Between two looks while draining without being told of completions.
const DRAIN_PAUSE: Duration = Duration::from_millis(1);

/// What completed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Completion {
    /// Work requests of a queue pair, up to the one of this number.
    Sent {
        /// Which queue pair.
        lane: usize,
        /// The number that `post` gave it.
        number: u64,
        /// Why it did not succeed.
        fault: Option<LinkFault>,
    },
    /// A peer's write with an immediate; the receive that it took has been replaced.
    Received {
        /// The immediate.
        immediate: u32,
    },
    /// Everything that was posted on a queue pair that has failed.
    Ended {
        /// Which queue pair.
        lane: usize,
    },
    /// A receive that came back because its queue pair has failed by itself.
    Broken {
        /// What the receive said.
        fault: LinkFault,
    },
    /// A receive that came back without data from a queue pair that was given up.
    Nothing,
}

/// Queue pairs that are driven together, with one completion queue.
pub(crate) trait Provider: Send + 'static {
    /// A work request.
    type Work: Send + 'static;

    /// How many queue pairs there are.
    fn lanes(&self) -> usize;
    /// Posts work requests, numbered from `first` on, with one doorbell. The last one is signalled;
    /// one that fails completes in any case. On failure: how many were posted.
    fn post(&mut self, lane: usize, first: u64, works: &[Self::Work]) -> Result<(), usize>;
    /// Takes what has completed, up to as many as there is room for.
    fn poll(&mut self, into: &mut Vec<Completion>, most: usize) -> Result<(), LinkFault>;
    /// Asks to be woken by the next completion. What completed before may not wake anybody.
    fn arm(&mut self) -> Result<(), LinkFault>;
    /// Waits until the completion queue wakes. Dropping the future loses nothing.
    fn woken(&mut self) -> impl Future<Output = Result<(), LinkFault>> + Send;
    /// Moves all queue pairs to the error state: everything outstanding is flushed. False if the
    /// device does not do that for one of them, which then may still let its peer in.
    fn fail(&mut self) -> bool;
}

/// Why a job did not succeed. What was posted of it is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stop {
    /// Its token was cancelled.
    Cancelled,
    /// Its deadline passed.
    Deadline,
    /// The connection failed.
    Link(LinkFault),
    /// The connection failed and did not give back what was posted: the device may still use the
    /// job's memory, which therefore must never be used again.
    Stuck,
}

impl From<Stop> for TransferError {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Cancelled => Self::Cancelled,
            Stop::Deadline => Self::Deadline,
            Stop::Link(fault) => Self::LinkFailed { fault },
            Stop::Stuck => Self::LinkFailed { fault: LinkFault::Stuck },
        }
    }
}

/// Hears what became of a job.
type Report = Box<dyn FnOnce(Result<(), Stop>) + Send>;

/// Work requests that belong together.
struct Job<W> {
    /// For each queue pair, in order.
    works: Vec<Vec<W>>,
    /// Nothing further is posted once it is cancelled.
    cancel: CancellationToken,
    /// Nor after this moment.
    deadline: Instant,
    /// How long after the deadline what was posted may take to complete before the queue pairs
    /// are given up.
    linger: Duration,
    report: Report,
}

/// What ends a job before it is done.
#[derive(Clone, Debug)]
pub(crate) struct Until {
    /// Nothing further is posted once it is cancelled.
    pub(crate) cancel: CancellationToken,
    /// Nor after this moment.
    pub(crate) deadline: Instant,
    /// How long what was posted may take after the deadline before the connection is given up.
    pub(crate) linger: Duration,
}

/// What became of a job, with what was handed over.
pub(crate) type Outcome<K> = (K, Result<(), Stop>);

/// A way to a connection's driver. With the last one, the connection ends.
pub(crate) struct Handle<W> {
    jobs: mpsc::Sender<Job<W>>,
    shared: Arc<Shared>,
}

impl<W> Clone for Handle<W> {
    fn clone(&self) -> Self {
        Self { jobs: self.jobs.clone(), shared: Arc::clone(&self.shared) }
    }
}

#[derive(Default)]
struct Shared {
    /// Wakes the driver to look at cancellations.
    wake: Notify,
    /// Ends the connection, for this reason.
    fail: Mutex<Option<LinkFault>>,
    /// Set when nothing is accepted any more.
    ended: CancellationToken,
    /// Set when nothing drives its queue pairs any more.
    gone: CancellationToken,
    /// Whether it is certain by then that they do nothing.
    quiet: AtomicBool,
    expected: Mutex<HashMap<u32, oneshot::Sender<()>>>,
}

impl Shared {
    fn fail(&self, fault: LinkFault) {
        lock(&self.fail).get_or_insert(fault);
        self.wake.notify_one();
    }
}

/// Gives a connection up, without keeping it.
pub(crate) struct Breaker(Arc<Shared>);

impl Breaker {
    /// As [`Handle::fail`].
    pub(crate) fn fail(&self, fault: LinkFault) {
        self.0.fail(fault);
    }
}

impl<W: Send + 'static> Handle<W> {
    /// Has work requests posted, and waits until that is over. `keep` lives meanwhile.
    pub(crate) async fn run<K: Send + 'static>(
        &self,
        works: Vec<Vec<W>>,
        keep: K,
        until: Until,
    ) -> Option<Outcome<K>> {
        let (sender, outcome) = oneshot::channel();
        let Until { cancel, deadline, linger } = until;
        let room = tokio::select! {
            biased;
            () = self.shared.ended.cancelled() => None,
            room = self.jobs.reserve() => room.ok(),
            () = cancel.cancelled() => return Some((keep, Err(Stop::Cancelled))),
            () = tokio::time::sleep_until(deadline) => return Some((keep, Err(Stop::Deadline))),
        };
        let Some(room) = room else {
            return Some((keep, Err(Stop::Link(self.fault().unwrap_or(LinkFault::Closed)))));
        };
        // If nobody waits any more, `keep` ends here, after the work requests did.
        let report = Box::new(move |result| drop(sender.send((keep, result))));
        room.send(Job { works, cancel: cancel.clone(), deadline, linger, report });
        let mut outcome = outcome;
        tokio::select! {
            biased;
            outcome = &mut outcome => return outcome.ok(),
            () = cancel.cancelled() => self.shared.wake.notify_one(),
        }
        outcome.await.ok()
    }

    /// Tells when a write with this immediate has come. Forget it with [`Handle::forget`].
    pub(crate) fn expect(&self, immediate: u32) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        lock(&self.shared.expected).insert(immediate, sender);
        receiver
    }

    /// Nobody waits for this immediate any more.
    pub(crate) fn forget(&self, immediate: u32) {
        lock(&self.shared.expected).remove(&immediate);
    }

    /// Gives the connection up: its queue pairs fail, and with them all jobs.
    pub(crate) fn fail(&self, fault: LinkFault) {
        self.shared.fail(fault);
    }

    /// Why the connection was given up, if it was.
    pub(crate) fn fault(&self) -> Option<LinkFault> {
        *lock(&self.shared.fail)
    }

    /// Whether it still takes jobs.
    pub(crate) fn alive(&self) -> bool {
        self.fault().is_none() && !self.shared.ended.is_cancelled()
    }

    /// Waits until it takes no jobs any more.
    pub(crate) async fn ended(&self) {
        self.shared.ended.cancelled().await;
    }

    /// Waits until its queue pairs do nothing any more, neither what was posted nor what a peer
    /// asks of them. False if the device left that open.
    pub(crate) async fn gone(&self) -> bool {
        self.shared.gone.cancelled().await;
        self.shared.quiet.load(Ordering::Acquire)
    }
}

/// The task itself.
pub(crate) struct Driver<P: Provider> {
    provider: P,
    core: Core<P::Work>,
    jobs: mpsc::Receiver<Job<P::Work>>,
    shared: Arc<Shared>,
    spin: Duration,
    batch: Vec<Completion>,
}

impl<P: Provider> Driver<P> {
    /// A driver for connected queue pairs of `depth` work requests each, and the way to it.
    pub(crate) fn new(
        provider: P,
        depth: u32,
        chain: usize,
        spin: Duration,
    ) -> (Self, Handle<P::Work>) {
        let (sender, jobs) = mpsc::channel(COMMANDS);
        let shared = Arc::new(Shared::default());
        let core = Core::new(provider.lanes(), depth, chain);
        let batch = Vec::with_capacity(BATCH);
        let driver = Self { provider, core, jobs, shared: Arc::clone(&shared), spin, batch };
        (driver, Handle { jobs: sender, shared })
    }

    /// What gives the connection up.
    pub(crate) fn breaker(&self) -> Breaker {
        Breaker(Arc::clone(&self.shared))
    }

    /// Works until the last handle is gone or the connection fails. Says why.
    pub(crate) async fn run(mut self) -> LinkFault {
        // However this ends.
        let _gone = self.shared.gone.clone().drop_guard();
        self.serve().await;
        // Set before anything is reported: whoever hears of a failure finds the connection dead.
        let fault = self.core.fault().unwrap_or(LinkFault::Closed);
        lock(&self.shared.fail).get_or_insert(fault);
        self.shared.ended.cancel();
        let failed = self.provider.fail();
        let drained = self.drain().await;
        self.shared.quiet.store(failed && drained, Ordering::Release);
        self.jobs.close();
        while let Some(Job { works, report, .. }) = self.jobs.recv().await {
            drop(works);
            report(Err(Stop::Link(fault)));
        }
        lock(&self.shared.expected).clear();
        if !drained {
            tracing::error!("a queue pair did not give back what was posted; its slots are kept");
        }
        // First the queue pairs, as far as no window holds them: what hears of the end may unmap.
        let Self { provider, core, .. } = self;
        drop(provider);
        core.finish(drained);
        fault
    }

    async fn serve(&mut self) {
        let mut open = true;
        let mut quiet_since = Instant::now();
        while self.core.fault().is_none() {
            while self.core.running() < JOBS {
                match self.jobs.try_recv() {
                    Ok(job) => self.core.accept(job),
                    Err(error) => {
                        open = error == mpsc::error::TryRecvError::Empty;
                        break;
                    }
                }
            }
            if let Some(fault) = *lock(&self.shared.fail) {
                self.core.fail(fault);
            }
            if !open && self.core.running() == 0 {
                return;
            }
            self.core.sweep(Instant::now());
            self.core.post(&mut self.provider);
            if self.take() {
                quiet_since = Instant::now();
                // A busy connection leaves the others of this thread their turn.
                tokio::task::yield_now().await;
            } else if self.core.outstanding() && quiet_since.elapsed() < self.spin {
                std::hint::spin_loop();
            } else {
                self.sleep(open).await;
                quiet_since = Instant::now();
            }
        }
    }

    /// Takes completions; whether there were any.
    fn take(&mut self) -> bool {
        self.batch.clear();
        if let Err(fault) = self.provider.poll(&mut self.batch, BATCH) {
            self.core.fail(fault);
        }
        let taken = self.batch.len();
        for completion in self.batch.drain(..) {
            match completion {
                Completion::Sent { lane, number, fault } => {
                    self.core.completed(lane, number, fault);
                }
                Completion::Received { immediate } => {
                    let expected = lock(&self.shared.expected).remove(&immediate);
                    if let Some(waiting) = expected {
                        let _ = waiting.send(());
                    }
                }
                Completion::Ended { lane } => self.core.ended(lane),
                Completion::Broken { fault } => self.core.fail(fault),
                Completion::Nothing => {}
            }
        }
        taken > 0
    }

    /// Waits for whatever comes first: a completion, a job, a call, or a moment.
    async fn sleep(&mut self, open: bool) {
        if let Err(fault) = self.provider.arm() {
            return self.core.fail(fault);
        }
        // What completed before it was armed wakes nobody.
        if self.take() || self.core.fault().is_some() {
            return;
        }
        let moment = self.core.next_moment();
        let due = async {
            match moment {
                Some(moment) => tokio::time::sleep_until(moment).await,
                None => std::future::pending().await,
            }
        };
        let room = self.core.running() < JOBS;
        tokio::select! {
            woken = self.provider.woken() => if let Err(fault) = woken { self.core.fail(fault) },
            job = self.jobs.recv(), if open && room => if let Some(job) = job { self.core.accept(job) },
            () = self.shared.wake.notified() => {}
            () = due => {}
        }
    }

    /// Waits until everything posted was flushed; whether it was.
    async fn drain(&mut self) -> bool {
        let until = Instant::now() + DRAIN;
        while self.core.outstanding() {
            if self.take() {
                continue;
            }
            if Instant::now() >= until {
                return false;
            }
            tokio::time::sleep(DRAIN_PAUSE).await;
        }
        true
    }
}
