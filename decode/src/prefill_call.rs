//! Calls of `Prefill.Compute`: what a prefill worker announces becomes events.

use crate::event::{Event, PrefillCall};
use crate::turn::TurnId;
use baton_node::clock::Clock;
use baton_proto::internal as pb;
use baton_proto::internal::prefill_client::PrefillClient;
use baton_proto::packed;
use baton_worker::daemon::MESSAGE_BYTES_MAX;
use baton_worker::peers::{PeerChannel, Peers};
use baton_worker::wire::{descriptor_to_wire, descriptors_from_wire};
use std::sync::Arc;

/// Calls prefill workers.
pub struct PrefillCaller {
    /// Connections to them.
    pub peers: Peers,
    /// Where a prefill worker can pull this worker's blocks from.
    pub own_endpoints: pb::Endpoints,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
}

impl PrefillCaller {
    /// Runs one call until it is complete or broken. A complete call is kept open, because its
    /// end is what releases the lease on the other side: drop the future to end it.
    pub async fn run(&self, turn: TurnId, call: PrefillCall, events: &flume::Sender<Event>) {
        let worker = call.candidate.peer.worker;
        let uri = call.candidate.uri.clone();
        match self.forward(turn, call, events).await {
            Ok(never) => match never {},
            Err(problem) => {
                tracing::warn!(%worker, %uri, %problem, "a prefill call failed; the turn is planned anew");
                // Nobody listens only at the end of the daemon.
                let _ = events.send_async(Event::PrefillFailed(turn, worker)).await;
            }
        }
    }

    async fn forward(
        &self,
        turn: TurnId,
        call: PrefillCall,
        events: &flume::Sender<Event>,
    ) -> Result<std::convert::Infallible, tonic::Status> {
        let channel: PeerChannel = self.peers.channel(&call.candidate.uri)?;
        let mut client = PrefillClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let (worker, expected) = (call.candidate.peer.worker, call.candidate.peer.incarnation);
        let mut stream = client.compute(self.request(&call)).await?.into_inner();
        let mut complete = false;
        loop {
            let Some(event) = stream.message().await? else {
                if complete {
                    std::future::pending::<()>().await;
                }
                return Err(tonic::Status::aborted("the stream ended before all was announced"));
            };
            let blocks = descriptors_from_wire(&event.blocks)?;
            if blocks.iter().any(|block| block.incarnation != expected) {
                return Err(tonic::Status::aborted("the worker has been restarted"));
            }
            let gone = |_| tonic::Status::cancelled("the engine loop is gone");
            if !blocks.is_empty() {
                events.send_async(Event::Announced(turn, blocks)).await.map_err(gone)?;
            }
            if let Some(done) = event.done {
                complete = true;
                let done = Event::PrefillDone(turn, worker, done.cached_tokens);
                events.send_async(done).await.map_err(gone)?;
            }
        }
    }

    fn request(&self, call: &PrefillCall) -> pb::ComputeRequest {
        let now = self.clock.now();
        let deadline = call.deadline.saturating_sub(now);
        pb::ComputeRequest {
            request_id: call.request.to_bytes().to_vec(),
            token_ids: packed::pack(&call.tokens),
            tenant: call.chain_key.tenant.name.0.to_string(),
            public_blocks: call.chain_key.public_blocks,
            from_block: call.from_block as u32,
            strict_priority: u32::from(call.precedence.strict_priority),
            priority: call.precedence.priority,
            wanted_ms: call.precedence.wanted_ms(now),
            deadline_ms: u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX),
            held: call.held.iter().map(descriptor_to_wire).collect(),
            held_endpoints: Some(self.own_endpoints.clone()),
        }
    }
}
