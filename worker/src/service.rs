//! The `Worker` service: who this is, which blocks it holds, and leases on them.

use crate::blocks::Blocks;
use crate::engine_loop::Status;
use crate::wire::{BadMessage, descriptor_to_wire, event_to_wire};
use baton_node::clock::Clock;
use baton_node::task::Tasks;
use baton_proto::ids::{EventSeq, LeaseId, SequenceHash};
use baton_proto::internal as pb;
use baton_proto::internal::worker_server::Worker;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response};

/// Events in one message.
const EVENTS_PER_BATCH: usize = 1024;
/// Messages that a slow watcher may be behind before its stream waits for it.
const BATCHES_QUEUED: usize = 16;
/// The load is told that often, also when no block changes.
const LOAD_INTERVAL: Duration = Duration::from_millis(200);
/// Blocks in one lease over this service.
const LEASE_BLOCKS_MAX: usize = 4096;
/// No lease is longer, whatever is asked for.
const LEASE_TTL_MAX: Duration = Duration::from_mins(1);

/// Answers for one worker.
#[derive(Clone)]
pub struct WorkerService {
    /// What `Describe` says.
    pub description: pb::WorkerDescription,
    /// What is held.
    pub blocks: Blocks,
    /// What the engine loop says.
    pub status: watch::Receiver<Status>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Where watchers' streams run.
    pub tasks: Tasks,
}

#[tonic::async_trait]
impl Worker for WorkerService {
    type WatchStream = ReceiverStream<Result<pb::WatchBatch, tonic::Status>>;

    async fn describe(
        &self,
        _request: Request<pb::DescribeRequest>,
    ) -> Result<Response<pb::WorkerDescription>, tonic::Status> {
        Ok(Response::new(self.description.clone()))
    }

    async fn watch(
        &self,
        request: Request<pb::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, tonic::Status> {
        let request = request.into_inner();
        let known = request.incarnation == self.description.incarnation;
        // A watcher of an earlier run knows nothing of this one: number 0 is never in the log.
        let from = if known { EventSeq(request.from_seq) } else { EventSeq(0) };
        let (sender, receiver) = mpsc::channel(BATCHES_QUEUED);
        let service = self.clone();
        self.tasks
            .try_spawn("watch", async move { service.feed(from, sender).await })
            .map_err(|full| tonic::Status::resource_exhausted(full.to_string()))?;
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn lease(
        &self,
        request: Request<pb::LeaseRequest>,
    ) -> Result<Response<pb::LeaseReply>, tonic::Status> {
        let request = request.into_inner();
        if request.hashes.len() > LEASE_BLOCKS_MAX {
            return Err(BadMessage::new("hashes", "has more than 4096 entries").into());
        }
        let hashes: Option<Vec<_>> =
            request.hashes.iter().map(|hash| SequenceHash::from_slice(hash)).collect();
        let hashes =
            hashes.ok_or(BadMessage::new("hashes", "has an entry that is not 16 bytes"))?;
        let ttl = Duration::from_millis(u64::from(request.ttl_ms)).min(LEASE_TTL_MAX);
        let pins = self.blocks.pin_prefix(&hashes);
        if pins.is_empty() {
            return Ok(Response::new(pb::LeaseReply::default()));
        }
        let lent = self.blocks.lend(&pins, None, ttl, self.clock.now());
        let (lease, blocks) =
            lent.ok_or_else(|| tonic::Status::resource_exhausted("too many leases are live"))?;
        let blocks = blocks.iter().map(descriptor_to_wire).collect();
        Ok(Response::new(pb::LeaseReply { blocks, lease: lease.0 }))
    }

    async fn release(
        &self,
        request: Request<pb::ReleaseRequest>,
    ) -> Result<Response<pb::ReleaseReply>, tonic::Status> {
        self.blocks.release(LeaseId(request.into_inner().lease));
        Ok(Response::new(pb::ReleaseReply {}))
    }
}

impl WorkerService {
    /// Sends what the watcher has not seen, then what happens, until it or the daemon goes.
    async fn feed(
        mut self,
        mut from: EventSeq,
        sender: mpsc::Sender<Result<pb::WatchBatch, tonic::Status>>,
    ) {
        let draining = self.tasks.drain().clone();
        loop {
            let (batch, caught_up) = self.next_batch(&mut from);
            let sent = tokio::select! {
                sent = sender.send(Ok(batch)) => sent,
                () = draining.draining() => return,
            };
            if sent.is_err() {
                return;
            }
            if caught_up {
                let news = self.status.wait_for(|status| from.0 < status.next_seq);
                tokio::select! {
                    _ = tokio::time::timeout(LOAD_INTERVAL, news) => {}
                    () = draining.draining() => return,
                    () = sender.closed() => return,
                }
            }
        }
    }

    fn next_batch(&self, from: &mut EventSeq) -> (pb::WatchBatch, bool) {
        let status = *self.status.borrow();
        let (batch, head) = {
            let pool = self.blocks.lock();
            (pool.watch(*from, EVENTS_PER_BATCH), pool.log().next_seq())
        };
        *from = batch.next_seq();
        let message = pb::WatchBatch {
            incarnation: self.description.incarnation,
            first_seq: batch.first_seq.0,
            snapshot: batch.snapshot,
            events: batch.events.iter().map(event_to_wire).collect(),
            load: Some(load_to_wire(&status)),
        };
        (message, *from == head)
    }
}

fn load_to_wire(status: &Status) -> pb::Load {
    pb::Load {
        queued: status.load.queued,
        running: status.load.running,
        free_slots: status.counts.free,
        evictable_slots: status.available - status.counts.free.min(status.available),
        pending_tokens: status.load.pending_tokens,
    }
}
