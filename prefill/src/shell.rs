//! Carries out what the schedule wants: announcements to callers, and pulls.

use crate::job::{JobFailure, JobId, JobReport};
use crate::schedule::{Action, Event};
use baton_node::clock::Clock;
use baton_node::task::Tasks;
use baton_proto::internal as pb;
use baton_transfer::{Peer, Pull};
use baton_worker::engine_loop::Shell;
use baton_worker::links::{Ended, Links};
use baton_worker::wire::descriptor_to_wire;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tonic::Status;

/// What goes to one caller.
type EventSender = mpsc::Sender<Result<pb::ComputeEvent, Status>>;

/// The open calls.
#[derive(Clone, Debug, Default)]
pub struct Callers {
    inner: Arc<Mutex<CallerTable>>,
}

#[derive(Debug, Default)]
struct CallerTable {
    next: u64,
    senders: BTreeMap<JobId, EventSender>,
    /// The engine loop is gone: nobody would ever answer.
    closed: bool,
}

impl Callers {
    /// A call has come; `None` where nobody is left to answer it.
    pub fn open(&self, sender: EventSender) -> Option<JobId> {
        let mut table = self.lock();
        if table.closed {
            return None;
        }
        table.next += 1;
        let id = JobId(table.next);
        table.senders.insert(id, sender);
        Some(id)
    }

    /// The engine loop has ended: all calls end, and their callers go elsewhere.
    pub fn close_all(&self) {
        let mut table = self.lock();
        table.closed = true;
        table.senders.clear();
    }

    /// A call is over.
    pub fn close(&self, id: JobId) {
        self.lock().senders.remove(&id);
    }

    /// Sends if the caller keeps up; one that does not has its call ended, which cancels the job.
    fn send(&self, id: JobId, event: Result<pb::ComputeEvent, Status>) {
        let mut table = self.lock();
        let ends = event.is_err();
        let Some(sender) = table.senders.get(&id) else { return };
        if sender.try_send(event).is_err() || ends {
            table.senders.remove(&id);
        }
    }

    fn lock(&self) -> MutexGuard<'_, CallerTable> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Carries out actions on the engine's thread: sends what fits, starts tasks for the rest.
pub struct PrefillShell {
    /// Where announcements go.
    pub callers: Callers,
    /// Who brings blocks.
    pub links: Links,
    /// Where results go.
    pub events: flume::Sender<Event>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Where pulls run.
    pub tasks: Tasks,
    /// The runtime of those tasks: the engine's thread is not one of its own.
    pub runtime: tokio::runtime::Handle,
}

impl Shell<Action> for PrefillShell {
    fn deliver(&mut self, actions: &mut Vec<Action>) {
        if actions.is_empty() {
            return;
        }
        let runtime = self.runtime.clone();
        let _inside = runtime.enter();
        for action in actions.drain(..) {
            match action {
                Action::Announce(job, blocks) => {
                    let blocks = blocks.iter().map(descriptor_to_wire).collect();
                    self.callers.send(job, Ok(pb::ComputeEvent { blocks, done: None }));
                }
                Action::Done(job, report) => {
                    let done = Some(report_to_wire(&report));
                    self.callers.send(job, Ok(pb::ComputeEvent { blocks: Vec::new(), done }));
                }
                Action::Fail(job, failure) => self.callers.send(job, Err(to_status(failure))),
                Action::Pull(job, peer, pulls, deadline) => {
                    self.start_pull(job, &peer, pulls, deadline);
                }
            }
        }
    }
}

impl PrefillShell {
    fn start_pull(&self, job: JobId, peer: &Peer, pulls: Vec<Pull>, deadline: Duration) {
        let timeout = deadline.saturating_sub(self.clock.now());
        let (from, to) = ((&self.tasks, &self.events), (peer, pulls));
        self.links.start(from, to, timeout, move |ended| match ended {
            Ended::Settled(results) => Event::Settled(job, results),
            Ended::Lost(blocks) => Event::Lost(job, blocks),
        });
    }
}

fn report_to_wire(report: &JobReport) -> pb::ComputeDone {
    let us = |span: Duration| u32::try_from(span.as_micros()).unwrap_or(u32::MAX);
    pb::ComputeDone {
        cached_tokens: report.cached_tokens,
        pulled_tokens: report.pulled_tokens,
        computed_tokens: report.computed_tokens,
        queue_us: us(report.queue),
        compute_us: us(report.compute),
    }
}

fn to_status(failure: JobFailure) -> Status {
    let message = failure.to_string();
    match failure {
        JobFailure::Overloaded | JobFailure::NoLease | JobFailure::TooLarge { .. } => {
            Status::resource_exhausted(message)
        }
        JobFailure::Deadline => Status::deadline_exceeded(message),
    }
}
