//! Workers of one process that set up verbs with each other: calls instead of gRPC.

use super::*;
use crate::caller::lock;
use crate::verbs::{
    Adapter, Call, DeviceChoice, Server, SignalError, Signalling, Verbs, VerbsOptions,
};
use baton_proto::internal::{
    CloseReply, CloseRequest, OpenReply, OpenRequest, PairReply, PairRequest, PushReply,
    PushRequest,
};
use futures_util::future::BoxFuture;
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32};

/// Where the owner of a test is.
pub(crate) const HERE: &str = "verbs://here";
/// Where nobody is.
pub(crate) const NOWHERE: &str = "verbs://nowhere";
/// Where calls are taken and never answered.
pub(crate) const FROZEN: &str = "verbs://frozen";

/// The device that tests use, or `None`, which is said.
pub(crate) fn device() -> Option<String> {
    static SAID: std::sync::Once = std::sync::Once::new();
    let device = std::env::var("BATON_VERBS_DEVICE").ok().filter(|name| !name.is_empty());
    if device.is_none() {
        SAID.call_once(|| {
            use std::io::Write;
            // Past the capture of what tests print.
            let mut stderr = std::io::stderr();
            let _ = writeln!(
                stderr,
                "SKIPPED: the tests of verbs that need a device: set BATON_VERBS_DEVICE"
            );
        });
    }
    device
}

/// What tests use: the device named by the environment, and little patience.
pub(crate) fn options() -> VerbsOptions {
    let registrations_only =
        std::env::var("BATON_VERBS_REGISTRATIONS").is_ok_and(|value| value == "1");
    VerbsOptions {
        device: DeviceChoice { device: device(), ..DeviceChoice::default() },
        back_off: BackOff { first: Duration::from_millis(40), last: Duration::from_millis(50) },
        registrations_only,
        ..VerbsOptions::default()
    }
}

/// Who is where. Calls to it are those of a channel that has checked who calls.
#[derive(Default)]
pub(crate) struct Exchange {
    servers: Mutex<HashMap<String, (Server, CancellationToken)>>,
    pullers: AtomicU32,
    once_opened: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    /// What becomes of the next push.
    pub(super) trouble: Mutex<Option<Trouble>>,
    pairings: AtomicU32,
    /// The network carries calls, and nothing of RDMA.
    deaf: AtomicBool,
}

type Trouble = Box<dyn FnOnce(Server, PushRequest) -> BoxFuture<'static, PushReply> + Send>;

thread_local! {
    /// Whether what is made on this thread pulls by having the owner write.
    static BY_WRITE: Cell<bool> = const { Cell::new(false) };
}

/// Runs a case whose pulls are carried out by the owner.
pub(super) fn by_write(run: impl FnOnce()) {
    BY_WRITE.set(true);
    run();
    BY_WRITE.set(false);
}

/// The transport of a case on this thread.
pub(super) fn boxed(verbs: Verbs) -> Box<dyn Transport> {
    if BY_WRITE.get() { Box::new(ByWrite(verbs)) } else { Box::new(verbs) }
}

/// Pulls by having the owner write.
struct ByWrite(Verbs);

impl Transport for ByWrite {
    fn kind(&self) -> TransportKind {
        TransportKind::Verbs
    }

    fn pull(&self, peer: &Peer, pulls: Vec<Pull>, deadline: Duration) -> InFlight {
        self.0.pull_by_write(peer, pulls, deadline)
    }

    fn ready(&self, peer: &Peer) -> bool {
        self.0.ready(peer)
    }
}

impl Exchange {
    /// Does something once, between an owner's answer to `open` and its arrival.
    pub(super) fn once_opened(&self, what: impl FnOnce() + Send + 'static) {
        *lock(&self.once_opened) = Some(Box::new(what));
    }

    /// From now on the owner's queue pairs are broken as soon as they are set up, or not any more.
    pub(super) fn set_deaf(&self, deaf: bool) {
        self.deaf.store(deaf, Ordering::Relaxed);
    }

    /// Has the owner give all its connections up.
    pub(super) fn fail_owner(&self) {
        self.server().handles().iter().for_each(|handle| handle.fail(LinkFault::Device));
    }

    /// How often somebody has asked the owner to pair.
    pub(super) fn pairings(&self) -> u32 {
        self.pairings.load(Ordering::Relaxed)
    }

    /// The owner.
    pub(super) fn server(&self) -> Server {
        lock(&self.servers)[HERE].0.clone()
    }

    /// Breaks all queue pairs of the owner behind its back.
    pub(super) fn break_owner(&self) {
        self.server().adapter().break_pairs();
    }

    pub(super) fn serve(
        &self,
        context: ServeContext,
        limits: ServeLimits,
        guards: Guards,
        options: &VerbsOptions,
    ) {
        let adapter = Adapter::open(&context.arena, options).unwrap();
        let shutdown = context.shutdown.clone();
        let server = Server::guarded(context, adapter, limits, guards);
        lock(&self.servers).insert(HERE.to_owned(), (server, shutdown));
    }

    pub(super) fn transport(
        self: &Arc<Self>,
        local: Local,
        guards: Guards,
        options: &VerbsOptions,
    ) -> Verbs {
        let adapter = Adapter::open(&local.arena, options).unwrap();
        let worker = WorkerId(1000 + self.pullers.fetch_add(1, Ordering::Relaxed));
        let identity = Identity { worker, incarnation: Incarnation(1) };
        let calls = Arc::new(Calls { exchange: Arc::clone(self), token: local.token.clone() });
        Verbs::guarded(local, identity, adapter, calls, guards)
    }
}

/// One worker's channel to the others.
pub(crate) struct Calls {
    pub(crate) exchange: Arc<Exchange>,
    pub(crate) token: Token,
}

impl Calls {
    /// Has a server answer, unless there is none.
    fn call<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &self,
        uri: &str,
        answer: impl FnOnce(Server) -> F,
    ) -> Call<T> {
        if uri == FROZEN {
            return Box::pin(std::future::pending());
        }
        if !self.token.matches(token().bytes()) {
            return Box::pin(std::future::ready(Err(SignalError::Refused(Refused::Token))));
        }
        let server = lock(&self.exchange.servers).get(uri).cloned();
        match server.filter(|(_, shutdown)| !shutdown.is_cancelled()) {
            Some((server, _)) => {
                let answer = answer(server);
                Box::pin(async move { Ok(answer.await) })
            }
            None => Box::pin(std::future::ready(Err(SignalError::Unreachable {
                address: uri.to_owned(),
                kind: std::io::ErrorKind::ConnectionRefused,
            }))),
        }
    }
}

impl Signalling for Calls {
    fn pair(&self, uri: &str, request: PairRequest) -> Call<PairReply> {
        let exchange = Arc::clone(&self.exchange);
        exchange.pairings.fetch_add(1, Ordering::Relaxed);
        let answer = self.call(uri, |server| async move { server.pair(request).await });
        Box::pin(async move {
            let answer = answer.await;
            if exchange.deaf.load(Ordering::Relaxed) {
                exchange.break_owner();
            }
            answer
        })
    }

    fn open(&self, uri: &str, request: OpenRequest) -> Call<OpenReply> {
        let exchange = Arc::clone(&self.exchange);
        let answer = self.call(uri, |server| async move { server.open(request).await });
        Box::pin(async move {
            let answer = answer.await;
            let what = lock(&exchange.once_opened).take();
            if let Some(what) = what {
                what();
            }
            answer
        })
    }

    fn push(&self, uri: &str, request: PushRequest) -> Call<PushReply> {
        let trouble = lock(&self.exchange.trouble).take();
        self.call(uri, |server| async move {
            match trouble {
                None => server.push(request).await,
                Some(trouble) => trouble(server, request).await,
            }
        })
    }

    fn close(&self, uri: &str, request: CloseRequest) -> Call<CloseReply> {
        self.call(uri, |server| async move { server.close(request).await })
    }
}
