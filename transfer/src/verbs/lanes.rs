//! The queue pairs of one connection, as the driver sees them.

use super::driver::{Completion, Provider};
use super::rdma::{
    self, ArenaRegion, Bindable, Chain, Completing, Draining, Local, MemoryWindow, Posted, RECEIVE,
    Remote, Rights, Scratch, Sending, Status,
};
use crate::caller::lock;
use crate::{Counters, LinkFault, Op, TransportKind};
use std::sync::{Arc, Mutex};

/// A window that whoever opened it and the work requests about it share.
pub(crate) type SharedWindow = Arc<Mutex<MemoryWindow>>;

/// A work request that can wait.
pub(crate) enum Order {
    /// See [`rdma::Work`].
    Read {
        into: Local,
        from: Remote,
        fenced: bool,
    },
    Write {
        from: Local,
        into: Remote,
    },
    WriteImmediate {
        from: Local,
        into: Remote,
        immediate: u32,
    },
    Bind {
        window: SharedWindow,
        on: Bindable,
        stretch: Local,
        rights: Rights,
    },
    /// Closes the window under the key that it has when this is posted.
    Invalidate {
        window: SharedWindow,
    },
}

impl Order {
    /// Bytes that it moves.
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Self::Read { into, .. } => u64::from(into.bytes()),
            Self::Write { from, .. } | Self::WriteImmediate { from, .. } => u64::from(from.bytes()),
            Self::Bind { .. } | Self::Invalidate { .. } => 0,
        }
    }
}

/// What a window is opened on.
#[derive(Clone)]
pub(crate) enum Memory {
    Arena(ArenaRegion),
    Scratch(Scratch),
}

impl Memory {
    pub(crate) fn bindable(&self) -> Bindable {
        match self {
            Self::Arena(region) => region.bindable(),
            Self::Scratch(scratch) => scratch.bindable(),
        }
    }
}

/// Queue pairs that share a completion queue.
pub(crate) struct Lanes<S: Sending, C> {
    chain: Chain,
    pairs: Vec<Pair<S>>,
    completions: C,
    buffer: Vec<rdma::Completion>,
    counted: Posted,
    counters: Counters,
    op: Op,
}

enum Pair<S: Sending> {
    Ready(S),
    /// `None` if the device did not even do that, and the queue pair is destroyed.
    Failed {
        _rest: Option<S::Failed>,
    },
}

/// The number in a work request's id; above it is the queue pair's.
const NUMBER_BITS: u32 = 48;
/// Marks the end of what was posted on a queue pair that has failed.
const MARK: u64 = (1 << NUMBER_BITS) - 1;

impl<S: Sending, C: Completing> Lanes<S, C> {
    /// Takes connected queue pairs over; chains have up to `chain` work requests. What is posted is
    /// counted as `op`.
    pub(crate) fn new(
        pairs: Vec<S>,
        completions: C,
        chain: usize,
        counters: Counters,
        op: Op,
    ) -> Self {
        Self {
            chain: Chain::new(chain.max(1)),
            pairs: pairs.into_iter().map(Pair::Ready).collect(),
            completions,
            buffer: Vec::new(),
            counted: Posted::default(),
            counters,
            op,
        }
    }

    fn understood(&mut self, completion: &rdma::Completion) -> Completion {
        if completion.work == RECEIVE {
            let pair = self.pairs.iter_mut().find_map(|pair| match pair {
                Pair::Ready(pair) if pair.number() == completion.queue_pair => Some(pair),
                _ => None,
            });
            if let Some(fault) = fault(completion) {
                // Of a queue pair that should be well: the peer did what it must not, and for that
                // no other completion need ever come.
                return pair.map_or(Completion::Nothing, |_| Completion::Broken { fault });
            }
            if let Some(Err(error)) = pair.map(|pair| pair.post_receives(1)) {
                tracing::warn!(%error, "a receive could not be replaced");
            }
            return completion
                .immediate
                .map_or(Completion::Nothing, |immediate| Completion::Received { immediate });
        }
        let lane = (completion.work >> NUMBER_BITS) as usize;
        match completion.work & MARK {
            MARK => Completion::Ended { lane },
            number => Completion::Sent { lane, number, fault: fault(completion) },
        }
    }
}

/// What a status means for the connection.
fn fault(completion: &rdma::Completion) -> Option<LinkFault> {
    Some(match completion.status {
        Status::Done => return None,
        Status::Flushed => LinkFault::Flushed,
        Status::RemoteAccess => LinkFault::RemoteAccess,
        Status::RetriesExceeded => LinkFault::Unanswered,
        Status::ReceiverNotReady => LinkFault::NotReady,
        Status::LocalProtection => LinkFault::LocalProtection,
        Status::Bind => LinkFault::Bind,
        Status::RemoteRefused => LinkFault::RemoteRefused,
        Status::Other(status) => LinkFault::Status { status, vendor: completion.vendor },
    })
}

impl<S: Sending, C: Completing> Provider for Lanes<S, C> {
    type Work = Order;

    fn lanes(&self) -> usize {
        self.pairs.len()
    }

    fn post(&mut self, lane: usize, first: u64, works: &[Order]) -> Result<(), usize> {
        let Pair::Ready(pair) = &mut self.pairs[lane] else { return Err(0) };
        let lane = (lane as u64) << NUMBER_BITS;
        self.chain.clear();
        for (work, number) in works.iter().zip(first..) {
            let id = lane | number;
            let fits = match work {
                &Order::Read { into, from, fenced } => {
                    self.chain.push(id, rdma::Work::Read { into, from, fenced })
                }
                &Order::Write { from, into } => {
                    self.chain.push(id, rdma::Work::Write { from, into })
                }
                &Order::WriteImmediate { from, into, immediate } => {
                    self.chain.push(id, rdma::Work::WriteImmediate { from, into, immediate })
                }
                Order::Bind { window, on, stretch, rights } => {
                    let (window, region) = (&mut *lock(window), on);
                    let (stretch, rights) = (*stretch, *rights);
                    self.chain.push(id, rdma::Work::Bind { window, region, stretch, rights })
                }
                Order::Invalidate { window } => {
                    let key = lock(window).key();
                    self.chain.push(id, rdma::Work::Invalidate { key })
                }
            };
            assert!(fits, "a chain is not longer than it was made for");
        }
        let posted = pair.post(&mut self.chain).map_err(|error| {
            tracing::warn!(%error, "work requests were not accepted");
            error.posted
        });
        let Posted { requests, doorbells } = self.chain.posted();
        let new = (requests - self.counted.requests, doorbells - self.counted.doorbells);
        self.counted = self.chain.posted();
        self.counters.posted(TransportKind::Verbs, self.op, new.0, new.1);
        posted
    }

    fn poll(&mut self, into: &mut Vec<Completion>, most: usize) -> Result<(), LinkFault> {
        self.buffer.resize(most, rdma::Completion::NONE);
        let mut buffer = std::mem::take(&mut self.buffer);
        let found = self.completions.poll(&mut buffer);
        if let Ok(found) = found {
            into.extend(buffer[..found].iter().map(|completion| self.understood(completion)));
        }
        self.buffer = buffer;
        found.map(drop).map_err(|error| {
            tracing::warn!(%error, "completions cannot be read");
            LinkFault::Completions
        })
    }

    fn arm(&mut self) -> Result<(), LinkFault> {
        self.completions.arm().map_err(|_| LinkFault::Completions)
    }

    async fn woken(&mut self) -> Result<(), LinkFault> {
        self.completions.readable().await.map_err(|_| LinkFault::Completions)
    }

    fn fail(&mut self) -> bool {
        let mut all = true;
        for (lane, pair) in self.pairs.iter_mut().enumerate() {
            let ready = std::mem::replace(pair, Pair::Failed { _rest: None });
            if let Pair::Ready(ready) = ready {
                let rest = ready.fail().inspect_err(|error| {
                    tracing::warn!(%error, "a queue pair does not fail; it is destroyed");
                });
                let mut rest = rest.ok();
                all &= rest.is_some();
                if let Some(failed) = &mut rest
                    && let Err(error) = failed.mark((lane as u64) << NUMBER_BITS | MARK)
                {
                    // What was posted is flushed one by one all the same.
                    tracing::debug!(%error, "the end of a queue pair could not be marked");
                }
                *pair = Pair::Failed { _rest: rest };
            }
        }
        all
    }
}
