//! A provider without a device: requests complete, nothing is moved.
//!
//! It measures what posting costs by itself, and stands in for a device where a driver is tested
//! on a machine that has none: completions can be held back, and requests can be made to fail.

use super::provider::{Completing, Draining, Sending};
use super::{ArenaMap, Chain, Completion, DeviceError, PostError, RECEIVE, ScratchMap, Status};
#[cfg(test)]
use super::{Bindable, MemoryWindow};
use baton_arena::Layout;
use std::collections::VecDeque;
use std::io;
#[cfg(test)]
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Where slots and records of an arena of this layout would be.
pub(crate) fn map(layout: Layout) -> ArenaMap {
    ArenaMap::new(layout, 0)
}

/// Where a scratch memory of so many bytes would be.
pub(crate) fn scratch(bytes: u64) -> ScratchMap {
    ScratchMap::new(bytes, 0)
}

/// What such windows are bound to.
#[cfg(test)]
pub(crate) fn bindable() -> Bindable {
    Bindable::NULL
}

/// A window that opens nothing.
#[cfg(test)]
pub(crate) fn window(key: u32) -> MemoryWindow {
    MemoryWindow::null(key, None)
}

/// The same, which cannot be freed as often as this says.
#[cfg(test)]
pub(crate) fn sticky_window(key: u32, refusals: Arc<AtomicUsize>) -> MemoryWindow {
    MemoryWindow::null(key, Some(refusals))
}

/// A completion queue for several queue pairs, which [`Strings::pair`] makes. It has room for
/// `depth` completions; more are lost, and break it, as a device's would.
pub(crate) fn completions(depth: usize) -> (NullCompletions, Strings) {
    let state = State {
        ready: VecDeque::with_capacity(depth),
        held: VecDeque::with_capacity(depth),
        depth,
        hold: false,
        fail_at: None,
        refuse_at: None,
        posted: 0,
        failed: Vec::new(),
        receives: Vec::new(),
        armed: false,
        overrun: false,
        unfailing: false,
    };
    let shared = Arc::new(Shared { state: Mutex::new(state), wake: Notify::new() });
    (NullCompletions(Arc::clone(&shared)), Strings(shared))
}

struct Shared {
    state: Mutex<State>,
    wake: Notify,
}

struct State {
    /// What polling finds.
    ready: VecDeque<Completion>,
    /// Posted and not completed, with whether a completion is due: only while `hold` is on.
    held: VecDeque<(Completion, bool)>,
    depth: usize,
    hold: bool,
    /// Requests to go until one fails, and how.
    fail_at: Option<(u64, Status)>,
    /// Requests to go until one is not accepted.
    refuse_at: Option<u64>,
    posted: u64,
    /// Queue pairs that carry out nothing any more.
    failed: Vec<u32>,
    /// Receives posted, per queue pair.
    receives: Vec<(u32, u32)>,
    armed: bool,
    overrun: bool,
    /// Queue pairs cannot be made to fail.
    unfailing: bool,
}

impl State {
    fn complete(&mut self, completion: Completion) {
        if self.ready.len() == self.depth {
            self.overrun = true;
        } else {
            self.ready.push_back(completion);
        }
    }

    /// Carries out one request of a queue pair, or does not.
    fn execute(&mut self, number: u32, id: u64, signalled: bool) {
        let ended =
            |status| Completion { work: id, status, queue_pair: number, ..Completion::NONE };
        if self.failed.contains(&number) {
            return self.give(ended(Status::Flushed), true);
        }
        match &mut self.fail_at {
            Some((0, status)) => {
                let status = *status;
                self.fail_at = None;
                self.failed.push(number);
                self.give(ended(status), true);
            }
            Some((to_go, _)) => {
                *to_go -= 1;
                self.give(ended(Status::Done), signalled);
            }
            None => self.give(ended(Status::Done), signalled),
        }
    }

    fn give(&mut self, completion: Completion, due: bool) {
        if self.hold {
            self.held.push_back((completion, due));
        } else if due {
            self.complete(completion);
        }
    }

    fn post(&mut self, number: u32, chain: &Chain) -> usize {
        let mut accepted = 0;
        for (id, signalled) in chain.linked() {
            match &mut self.refuse_at {
                Some(0) => {
                    self.refuse_at = None;
                    break;
                }
                Some(to_go) => *to_go -= 1,
                None => {}
            }
            self.execute(number, id, signalled);
            accepted += 1;
        }
        self.posted += accepted as u64;
        accepted
    }

    #[cfg(test)]
    fn release(&mut self) {
        while let Some((completion, due)) = self.held.pop_front() {
            if due {
                self.complete(completion);
            }
        }
    }

    /// Flushes what is outstanding on a queue pair.
    fn fail(&mut self, number: u32) {
        if !self.failed.contains(&number) {
            self.failed.push(number);
        }
        let held = std::mem::take(&mut self.held);
        for (completion, due) in held {
            if completion.queue_pair == number {
                let status = match completion.status {
                    Status::Done => Status::Flushed,
                    other => other,
                };
                self.complete(Completion { status, ..completion });
            } else {
                self.held.push_back((completion, due));
            }
        }
        let receives = self.receives.iter_mut().find(|(of, _)| *of == number);
        for _ in 0..receives.map_or(0, |(_, count)| std::mem::take(count)) {
            let (work, status) = (RECEIVE, Status::Flushed);
            self.complete(Completion { work, status, queue_pair: number, ..Completion::NONE });
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and wakes who waits for completions if there are some now.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let before = state.ready.len();
        let result = change(&mut state);
        if state.armed && state.ready.len() > before {
            state.armed = false;
            self.wake.notify_one();
        }
        result
    }
}

/// What a test pulls to have things happen.
#[derive(Clone)]
pub(crate) struct Strings(Arc<Shared>);

impl Strings {
    /// One more queue pair on the same completion queue.
    pub(crate) fn pair(&self, number: u32) -> NullPair {
        self.0.lock().receives.push((number, 0));
        NullPair { shared: Arc::clone(&self.0), number }
    }
}

#[cfg(test)]
impl Strings {
    /// From now on nothing completes until [`release`](Self::release), or until its queue pair is
    /// made to fail.
    pub(crate) fn hold(&self) {
        self.0.lock().hold = true;
    }

    /// Completes what was held back, and what comes from now on.
    pub(crate) fn release(&self) {
        self.0.change(|state| {
            state.hold = false;
            state.release();
        });
    }

    /// After `requests` more, one fails; it takes its queue pair with it.
    pub(crate) fn fail_after(&self, requests: u64, status: Status) {
        self.0.lock().fail_at = Some((requests, status));
    }

    /// After `requests` more, one is not accepted.
    pub(crate) fn refuse_after(&self, requests: u64) {
        self.0.lock().refuse_at = Some(requests);
    }

    /// Lets an immediate arrive; `false` if the queue pair has no receive for it.
    pub(crate) fn arrive(&self, number: u32, immediate: u32) -> bool {
        self.0.change(|state| {
            let receives =
                state.receives.iter_mut().find(|(of, count)| *of == number && *count > 0);
            let Some((_, count)) = receives else { return false };
            *count -= 1;
            let (work, immediate) = (RECEIVE, Some(immediate));
            state.complete(Completion { work, immediate, queue_pair: number, ..Completion::NONE });
            true
        })
    }

    /// From now on queue pairs cannot be made to fail.
    pub(crate) fn refuse_to_fail(&self) {
        self.0.lock().unfailing = true;
    }

    /// Requests that were accepted.
    pub(crate) fn posted(&self) -> u64 {
        self.0.lock().posted
    }

    /// Requests that were accepted and have neither completed nor been flushed.
    pub(crate) fn outstanding(&self) -> usize {
        self.0.lock().held.len()
    }
}

/// A queue pair that moves nothing.
pub(crate) struct NullPair {
    shared: Arc<Shared>,
    number: u32,
}

impl Sending for NullPair {
    type Failed = Self;

    fn number(&self) -> u32 {
        self.number
    }

    fn post(&mut self, chain: &mut Chain) -> Result<(), PostError> {
        let asked = chain.len();
        if chain.link().is_none() {
            return Ok(());
        }
        let posted = self.shared.change(|state| state.post(self.number, chain));
        drop(chain.count(posted));
        if posted == asked {
            return Ok(());
        }
        Err(PostError { posted, asked, source: io::ErrorKind::OutOfMemory.into() })
    }

    fn post_receives(&mut self, count: u32) -> Result<(), PostError> {
        let mut state = self.shared.lock();
        if let Some((_, posted)) = state.receives.iter_mut().find(|(of, _)| *of == self.number) {
            *posted += count;
        }
        Ok(())
    }

    fn fail(self) -> Result<Self, DeviceError> {
        if self.shared.lock().unfailing {
            let source = io::ErrorKind::InvalidInput.into();
            return Err(DeviceError::Call { call: "ibv_modify_qp to ERR", source });
        }
        self.shared.change(|state| state.fail(self.number));
        Ok(self)
    }
}

impl Draining for NullPair {
    fn mark(&mut self, id: u64) -> Result<(), PostError> {
        let (work, status, queue_pair) = (id, Status::Flushed, self.number);
        let marker = Completion { work, status, queue_pair, ..Completion::NONE };
        self.shared.change(|state| state.complete(marker));
        Ok(())
    }
}

/// The completion queue of such queue pairs.
pub(crate) struct NullCompletions(Arc<Shared>);

impl Completing for NullCompletions {
    fn poll(&mut self, into: &mut [Completion]) -> Result<usize, DeviceError> {
        let mut state = self.0.lock();
        if state.overrun {
            let source = io::Error::other("the completion queue is broken");
            return Err(DeviceError::Call { call: "ibv_poll_cq", source });
        }
        let found = state.ready.len().min(into.len());
        for (into, completion) in into.iter_mut().zip(state.ready.drain(..found)) {
            *into = completion;
        }
        Ok(found)
    }

    fn arm(&mut self) -> Result<(), DeviceError> {
        self.0.lock().armed = true;
        Ok(())
    }

    async fn readable(&mut self) -> Result<(), DeviceError> {
        self.0.wake.notified().await;
        Ok(())
    }
}
