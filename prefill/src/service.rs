//! The `Prefill` service: decode workers call for blocks.

use crate::job::{JobId, JobRequest};
use crate::schedule::Event;
use crate::shell::Callers;
use baton_engine::api::ModelSpec;
use baton_kv::hash::ChainRoot;
use baton_node::clock::Clock;
use baton_node::task::Tasks;
use baton_proto::internal as pb;
use baton_proto::internal::prefill_server::Prefill;
use baton_proto::packed;
use baton_transfer::{Endpoints, Peer};
use baton_worker::queue::Precedence;
use baton_worker::sequence::ChainKey;
use baton_worker::tenancy::{Admitted, Gate};
use baton_worker::wire::{BadMessage, descriptors_from_wire};
use futures_util::Stream;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};

/// Answers decode workers.
#[derive(Clone)]
pub struct PrefillService {
    /// The open calls.
    pub callers: Callers,
    /// The engine loop's events.
    pub events: flume::Sender<Event>,
    /// The model.
    pub spec: ModelSpec,
    /// The root of its hash chain.
    pub root: Arc<ChainRoot>,
    /// Who is let in.
    pub gate: Gate,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Where the ends of calls are reported from.
    pub tasks: Tasks,
    /// Announcements that a caller may be behind.
    pub announcements_queued: usize,
}

#[tonic::async_trait]
impl Prefill for PrefillService {
    type ComputeStream = Announcements;

    async fn compute(
        &self,
        request: Request<pb::ComputeRequest>,
    ) -> Result<Response<Announcements>, Status> {
        if self.tasks.drain().is_draining() {
            return Err(Status::unavailable("the worker is draining"));
        }
        let request = request.into_inner();
        let admitted = self.gate.admit(&request.tenant)?;
        let request = self.read(request, admitted)?;
        let (sender, receiver) = mpsc::channel(self.announcements_queued);
        let gone = || Status::unavailable("the engine loop is gone");
        let id = self.callers.open(sender).ok_or_else(gone)?;
        // From here on the guard tells the schedule when the call ends, however it does.
        let guard = CallGuard { id, service: self.clone() };
        let event = Event::Compute(id, Box::new(request));
        self.events.send_async(event).await.map_err(|_| gone())?;
        Ok(Response::new(Announcements { receiver, _guard: guard }))
    }
}

impl PrefillService {
    fn read(
        &self,
        request: pb::ComputeRequest,
        admitted: Admitted,
    ) -> Result<JobRequest, BadMessage> {
        let bad = BadMessage::new;
        let (strict_priority, priority) =
            admitted.precedence(request.strict_priority, request.priority);
        let weight = admitted.weight();
        let (spec, now) = (&self.spec, self.clock.now());
        let tokens = packed::unpack(&request.token_ids);
        let tokens = tokens.ok_or(bad("token_ids", "is not 4 bytes for each id"))?;
        if tokens.len() > spec.context_tokens as usize {
            return Err(bad("token_ids", "exceeds the model's context"));
        }
        if tokens.iter().any(|id| *id >= spec.vocab_size) {
            return Err(bad("token_ids", "has an id outside the vocabulary"));
        }
        let held = descriptors_from_wire(&request.held)?;
        let held_by = match (request.held_endpoints, held.first()) {
            (Some(endpoints), Some(first)) => Some(Peer {
                worker: first.owner,
                incarnation: first.incarnation,
                endpoints: Endpoints::try_from(&endpoints)
                    .map_err(|_| bad("held_endpoints", "has an address that is none"))?,
            }),
            _ => None,
        };
        Ok(JobRequest {
            tokens,
            chain_key: ChainKey {
                root: Arc::clone(&self.root),
                block_tokens: spec.block_tokens,
                tenant: admitted.guest,
                public_blocks: request.public_blocks,
            },
            from_block: request.from_block as usize,
            weight,
            precedence: Precedence::from_wire(strict_priority, priority, request.wanted_ms, now),
            deadline: now + Duration::from_millis(u64::from(request.deadline_ms)),
            held: if held_by.is_some() { held } else { Vec::new() },
            held_by,
        })
    }
}

/// The stream of one call. Dropping it, which is what happens when the caller ends the call or
/// dies, cancels the job and releases its lease.
pub struct Announcements {
    receiver: mpsc::Receiver<Result<pb::ComputeEvent, Status>>,
    _guard: CallGuard,
}

impl Stream for Announcements {
    type Item = Result<pb::ComputeEvent, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.receiver.poll_recv(cx)
    }
}

struct CallGuard {
    id: JobId,
    service: PrefillService,
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        self.service.callers.close(self.id);
        let (events, id) = (self.service.events.clone(), self.id);
        if let Err(flume::TrySendError::Full(event)) = events.try_send(Event::Cancel(id)) {
            self.service.tasks.spawn("cancel", async move {
                // Nobody listens only at the end of the daemon.
                let _ = events.send_async(event).await;
            });
        }
    }
}

#[cfg(test)]
#[path = "service_tests.rs"]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
