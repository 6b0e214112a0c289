//! A decode worker that says what the test tells it to, over the real protocol.

use super::{BLOCK_TOKENS, secret, within};
use baton_node::auth::ServerAuth;
use baton_node::{Drain, Tasks};
use baton_proto::internal::decode_server::{Decode, DecodeServer};
use baton_proto::internal::sequence_update::Update;
use baton_proto::internal::worker_server::{Worker, WorkerServer};
use baton_proto::internal::{
    Admitted, Cancel, DecodeFrame, DescribeRequest, Endpoints, Failed, Finished, LeaseReply,
    LeaseRequest, ModelDescription, ReleaseReply, ReleaseRequest, Role, RouterFrame,
    SequenceUpdate, Submit, Tokens, TurnReport, WatchBatch, WatchRequest, WorkerDescription,
    failed, finished, router_frame,
};
use futures_util::StreamExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

/// Ids are below that; token `n` reads ` tn`.
pub const VOCAB: u32 = 1000;
/// The model's end token.
pub const EOS: u32 = 999;

/// A decode worker in the test's hands.
pub struct FakeWorker {
    name: &'static str,
    uri: String,
    inner: Arc<Inner>,
    frames: tokio::sync::Mutex<mpsc::Receiver<router_frame::Frame>>,
    watch_requests: tokio::sync::Mutex<mpsc::Receiver<WatchRequest>>,
}

struct Inner {
    description: WorkerDescription,
    alive: AtomicBool,
    frames: mpsc::Sender<router_frame::Frame>,
    /// The stream to the router, while one is attached.
    updates: Mutex<Option<mpsc::Sender<Result<DecodeFrame, Status>>>>,
    attached: Notify,
    watch: Mutex<Vec<mpsc::Sender<Result<WatchBatch, Status>>>>,
    watchers: mpsc::Sender<WatchRequest>,
    _tasks: Tasks,
}

impl FakeWorker {
    /// A worker of that name that serves the usual model.
    pub async fn start(name: &'static str) -> Self {
        Self::start_with(name, |_| {}).await
    }

    /// A worker that describes itself in another way.
    pub async fn start_with(
        name: &'static str,
        adjust: impl FnOnce(&mut WorkerDescription),
    ) -> Self {
        let mut description = WorkerDescription {
            worker: baton_node::identity::worker_id(name).unwrap().0,
            name: name.to_owned(),
            role: Role::Decode as i32,
            incarnation: 77,
            model: Some(ModelDescription {
                name: "tiny".to_owned(),
                vocab_size: VOCAB,
                context_tokens: 4096,
                block_tokens: BLOCK_TOKENS,
                domain: vec![3; 32],
                eos: vec![EOS],
                text_digest: Vec::new(),
            }),
            slots: 1000,
            endpoints: Some(Endpoints::default()),
        };
        adjust(&mut description);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}", listener.local_addr().unwrap());
        let (sender, frames) = mpsc::channel(64);
        let (watchers, watch_requests) = mpsc::channel(64);
        let tasks = Tasks::new(&Drain::new(Duration::from_secs(1)), 100);
        let inner = Arc::new(Inner {
            description,
            alive: AtomicBool::new(true),
            frames: sender,
            updates: Mutex::default(),
            attached: Notify::new(),
            watch: Mutex::default(),
            watchers,
            _tasks: tasks.clone(),
        });
        let (worker, decode) = (Service(inner.clone()), Service(inner.clone()));
        let auth = ServerAuth::new(&secret());
        let server = tonic::transport::Server::builder()
            .add_service(WorkerServer::with_interceptor(worker, auth.clone()))
            .add_service(DecodeServer::with_interceptor(decode, auth))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tasks.spawn("fake worker", async move {
            server.await.unwrap();
        });
        let watch_requests = tokio::sync::Mutex::new(watch_requests);
        Self { name, uri, inner, frames: tokio::sync::Mutex::new(frames), watch_requests }
    }

    pub fn uri(&self) -> String {
        self.uri.clone()
    }

    pub fn id(&self) -> u32 {
        self.inner.description.worker
    }

    /// Waits until a router holds a stream to this worker.
    pub async fn attached(&self) {
        loop {
            let notified = self.inner.attached.notified();
            if self.inner.updates.lock().unwrap().is_some() {
                return;
            }
            notified.await;
        }
    }

    /// The next thing the router says.
    pub async fn heard(&self) -> router_frame::Frame {
        within(async { self.frames.lock().await.recv().await.unwrap() }).await
    }

    /// The next request; the router must not say anything else before.
    pub async fn submitted(&self) -> Submit {
        match self.heard().await {
            router_frame::Frame::Submit(submit) => submit,
            router_frame::Frame::Cancel(cancel) => {
                panic!("{}: expected a request, heard {cancel:?}", self.name)
            }
        }
    }

    /// The next cancellation; the router must not say anything else before.
    pub async fn cancelled(&self) -> Cancel {
        match self.heard().await {
            router_frame::Frame::Cancel(cancel) => cancel,
            router_frame::Frame::Submit(submit) => {
                panic!("{}: expected a cancellation, heard {submit:?}", self.name)
            }
        }
    }

    /// Whether the router has said nothing further.
    pub fn heard_nothing(&self) -> bool {
        self.frames.try_lock().unwrap().try_recv().is_err()
    }

    /// One frame with news about a choice of a request.
    pub async fn say(&self, to: &Submit, choice: u32, updates: impl IntoIterator<Item = Update>) {
        let update = |update| SequenceUpdate {
            request_id: to.request_id.clone(),
            choice,
            update: Some(update),
        };
        let frame = DecodeFrame { updates: updates.into_iter().map(update).collect() };
        let stream = self.inner.updates.lock().unwrap().clone().expect("a router is attached");
        stream.send(Ok(frame)).await.expect("the router listens");
    }

    /// The whole life of a plain answer: admitted, these ids, the end.
    pub async fn play(&self, ids: &[u32], reason: finished::Reason) -> Submit {
        let submit = self.submitted().await;
        let all = [admitted(), first_tokens(ids), finished(reason)];
        self.say(&submit, 0, all).await;
        submit
    }

    /// Waits for the next request for events.
    pub async fn watched(&self) -> WatchRequest {
        self.watch_requests.lock().await.recv().await.unwrap()
    }

    /// Tells the watchers.
    pub async fn publish(&self, batch: WatchBatch) {
        let watchers = self.inner.watch.lock().unwrap().clone();
        for watcher in watchers {
            let _ = watcher.send(Ok(batch.clone())).await;
        }
    }

    /// The worker dies: its streams end, and it answers no more.
    pub fn die(&self) {
        self.inner.alive.store(false, Ordering::SeqCst);
        self.inner.updates.lock().unwrap().take();
        self.inner.watch.lock().unwrap().clear();
    }
}

pub fn admitted() -> Update {
    Update::Admitted(Admitted { held_tokens: 0 })
}

pub fn tokens(ids: &[u32]) -> Update {
    Update::Tokens(Tokens { ids: ids.to_vec(), ..Tokens::default() })
}

/// Tokens with the report that comes with the first ones.
pub fn first_tokens(ids: &[u32]) -> Update {
    let report = Some(report());
    Update::Tokens(Tokens { ids: ids.to_vec(), report, ..Tokens::default() })
}

pub fn report() -> TurnReport {
    TurnReport {
        cached_tokens: 2,
        computed_tokens: 1,
        queue_us: 1500,
        prefill_us: 2500,
        ..TurnReport::default()
    }
}

pub fn finished(reason: finished::Reason) -> Update {
    Update::Finished(Finished { reason: reason as i32, report: Some(report()) })
}

pub fn failed(kind: failed::Kind) -> Update {
    Update::Failed(Failed { kind: kind as i32, message: "as the test says".to_owned() })
}

struct Service(Arc<Inner>);

impl Service {
    fn check(&self) -> Result<(), Status> {
        if self.0.alive.load(Ordering::SeqCst) {
            return Ok(());
        }
        Err(Status::unavailable("dead"))
    }
}

#[tonic::async_trait]
impl Worker for Service {
    type WatchStream = ReceiverStream<Result<WatchBatch, Status>>;

    async fn describe(
        &self,
        _request: Request<DescribeRequest>,
    ) -> Result<Response<WorkerDescription>, Status> {
        self.check()?;
        Ok(Response::new(self.0.description.clone()))
    }

    async fn watch(
        &self,
        request: Request<WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.check()?;
        let (sender, stream) = mpsc::channel(64);
        self.0.watch.lock().unwrap().push(sender);
        let _ = self.0.watchers.try_send(request.into_inner());
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn lease(&self, _request: Request<LeaseRequest>) -> Result<Response<LeaseReply>, Status> {
        Err(Status::unimplemented("not asked by routers"))
    }

    async fn release(
        &self,
        _request: Request<ReleaseRequest>,
    ) -> Result<Response<ReleaseReply>, Status> {
        Err(Status::unimplemented("not asked by routers"))
    }
}

#[tonic::async_trait]
impl Decode for Service {
    type AttachStream = ReceiverStream<Result<DecodeFrame, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<RouterFrame>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        self.check()?;
        let (sender, stream) = mpsc::channel(64);
        *self.0.updates.lock().unwrap() = Some(sender);
        self.0.attached.notify_waiters();
        let (mut incoming, frames) = (request.into_inner(), self.0.frames.clone());
        self.0._tasks.spawn("fake attachment", async move {
            while let Some(Ok(RouterFrame { frame: Some(frame) })) = incoming.next().await {
                if frames.send(frame).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}
