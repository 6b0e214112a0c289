//! The `Decode` service: routers attach and submit turns.

use crate::event::{Event, Failure, News, Update};
use crate::shell::{FrameSender, Routers};
use crate::turn::RouterId;
use crate::wire::{Served, admit, refusal, update_to_wire};
use baton_node::clock::Clock;
use baton_node::task::Tasks;
use baton_proto::ids::RequestId;
use baton_proto::internal as pb;
use baton_proto::internal::decode_server::Decode;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

/// Answers routers.
#[derive(Clone)]
pub struct DecodeService {
    /// The attached routers.
    pub routers: Routers,
    /// The engine loop's events.
    pub events: flume::Sender<Event>,
    /// What turns are checked against.
    pub served: Served,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Where routers' streams are read.
    pub tasks: Tasks,
    /// Frames that a router may be behind.
    pub frames_queued: usize,
    /// Cancelled when the engine loop has ended: nothing can be answered any more.
    pub computing: CancellationToken,
}

#[tonic::async_trait]
impl Decode for DecodeService {
    type AttachStream = ReceiverStream<Result<pb::DecodeFrame, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<pb::RouterFrame>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let (sender, receiver) = mpsc::channel(self.frames_queued);
        let service = self.clone();
        let inbound = request.into_inner();
        self.tasks
            .try_spawn("router", async move { service.serve(inbound, sender).await })
            .map_err(|full| Status::resource_exhausted(full.to_string()))?;
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

impl DecodeService {
    async fn serve(&self, mut inbound: Streaming<pb::RouterFrame>, sender: FrameSender) {
        let (router, cut) = self.routers.attach(sender.clone());
        tracing::info!(router = router.0, "a router has attached");
        loop {
            let frame = tokio::select! {
                frame = inbound.message() => frame,
                () = sender.closed() => break,
                () = cut.cancelled() => break,
                () = self.computing.cancelled() => break,
            };
            let Ok(Some(frame)) = frame else { break };
            if self.take(router, frame, &sender).await.is_err() {
                break;
            }
        }
        self.routers.detach(router);
        tracing::info!(router = router.0, "a router has gone");
        // Nobody listens only at the end of the daemon.
        let _ = self.events.send_async(Event::RouterGone(router)).await;
    }

    /// Takes one frame in; an error means that nobody is there any more to take or to answer.
    async fn take(
        &self,
        router: RouterId,
        frame: pb::RouterFrame,
        sender: &FrameSender,
    ) -> Result<(), Gone> {
        use pb::router_frame::Frame;
        match frame.frame {
            Some(Frame::Submit(submit)) => self.submit(router, submit, sender).await,
            Some(Frame::Cancel(cancel)) => {
                let Some(request) = RequestId::from_slice(&cancel.request_id) else {
                    return Ok(());
                };
                let choice = cancel.choice.map(|choice| u16::try_from(choice).unwrap_or(u16::MAX));
                self.send(Event::Cancel(router, request, choice)).await
            }
            None => Ok(()),
        }
    }

    async fn submit(
        &self,
        router: RouterId,
        submit: pb::Submit,
        sender: &FrameSender,
    ) -> Result<(), Gone> {
        let request_id = submit.request_id.clone();
        let refused = match admit(router, submit, &self.served, self.clock.now()) {
            Ok(turn) if self.tasks.drain().is_draining() => {
                let news = News::Failed(Failure::Draining);
                update_to_wire(Update { request: turn.request, choice: 0, news })
            }
            Ok(turn) => return self.send(Event::Submit(Box::new(turn))).await,
            Err(failed) => refusal(request_id, failed),
        };
        let frame = pb::DecodeFrame { updates: vec![refused] };
        sender.send(Ok(frame)).await.map_err(|_| Gone)
    }

    async fn send(&self, event: Event) -> Result<(), Gone> {
        self.events.send_async(event).await.map_err(|_| Gone)
    }
}

/// The engine loop or the router is gone.
struct Gone;
