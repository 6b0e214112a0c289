//! Asks a policy outside of this process, over gRPC: within its time, not about too many turns at
//! once, and not at all for a while after it has failed several times.

mod breaker;

use crate::choose::external::{Answer, Fallback, Told};
use crate::config::ExternalConfig;
use crate::error::clip;
use crate::switches::{Board, Switch};
use baton_node::clock::{Clock, Monotonic};
use baton_proto::policy::ChooseRequest;
use baton_proto::policy::policy_client::PolicyClient as Stub;
use breaker::{Breaker, Failed, Leave};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

/// An answer names a few workers and a reason.
const REPLY_BYTES_MAX: usize = 64 << 10;

/// The configured external policy.
pub(crate) struct PolicyClient {
    uri: String,
    timeout: Duration,
    board: Arc<Board>,
    candidates_max: usize,
    endpoint: Endpoint,
    /// Connects when it is needed, and again when the connection is lost.
    stub: Mutex<Stub<Channel>>,
    /// One for each turn that may be asked about at once.
    places: Semaphore,
    breaker: Mutex<Breaker>,
}

/// Leave to ask about one turn. Dropping it says that nobody waits for the answer any more.
pub(crate) struct Call<'a> {
    client: &'a PolicyClient,
    leave: Leave,
    over: bool,
    _place: SemaphorePermit<'a>,
}

impl PolicyClient {
    /// The policy that is configured, if one is. Must be called inside a runtime; nothing is sent
    /// before the first turn.
    pub(crate) fn new(
        config: &ExternalConfig,
        connect: Duration,
        board: Arc<Board>,
    ) -> io::Result<Option<Self>> {
        let Some(uri) = config.uri.clone() else { return Ok(None) };
        let endpoint = Endpoint::from_shared(uri.clone())
            .map_err(|error| {
                let message = format!("`placement.external.uri` is no address: {error}");
                io::Error::new(io::ErrorKind::InvalidInput, message)
            })?
            .connect_timeout(connect)
            .tcp_nodelay(true);
        Ok(Some(Self {
            uri,
            timeout: config.timeout.0,
            board,
            candidates_max: config.candidates_max,
            stub: Mutex::new(stub(&endpoint)),
            endpoint,
            places: Semaphore::new(config.in_flight_max.min(Semaphore::MAX_PERMITS)),
            breaker: Mutex::default(),
        }))
    }

    /// Candidates of each role that it is told of.
    pub(crate) fn candidates_max(&self) -> usize {
        self.candidates_max
    }

    /// Whether its word counts.
    pub(crate) fn acts(&self) -> bool {
        self.board.get().external != Switch::Shadow
    }

    /// Leave to ask, or why it is not asked now. This costs next to nothing, so that a policy which
    /// is gone costs no turn anything.
    pub(crate) fn enter(&self) -> Result<Call<'_>, Fallback> {
        if self.board.get().external == Switch::Off {
            return Err(Fallback::Off);
        }
        let place = self.places.try_acquire().map_err(|_| Fallback::Busy)?;
        let now = Monotonic::process().now();
        let leave = lock(&self.breaker).enter(now).ok_or(Fallback::Paused)?;
        Ok(Call { client: self, leave, over: false, _place: place })
    }
}

impl Call<'_> {
    /// Asks, and waits no longer than for the time-out.
    pub(crate) async fn ask(mut self, request: ChooseRequest) -> Told {
        let client = self.client;
        let begun = Monotonic::process().now();
        let mut request = Request::new(request);
        request.set_timeout(client.timeout);
        let mut stub = lock(&client.stub).clone();
        let reply = match tokio::time::timeout(client.timeout, stub.choose(request)).await {
            Ok(reply) => reply.map(tonic::Response::into_inner),
            Err(_) => Err(Status::deadline_exceeded("no answer in time")),
        };
        let now = Monotonic::process().now();
        match &reply {
            Ok(_) => self.answered(),
            Err(status) => self.failed(status, now),
        }
        let answer = reply.map(Answer::read).map_err(|status| fallback(&status));
        Told { acts: client.acts(), answer, took: Some(now.saturating_sub(begun)) }
    }

    fn answered(&mut self) {
        self.over = true;
        if lock(&self.client.breaker).answered() {
            tracing::info!(uri = %self.client.uri, "the external policy answers again");
        }
    }

    fn failed(&mut self, status: &Status, now: Duration) {
        self.over = true;
        let client = self.client;
        let failed = lock(&client.breaker).failed(self.leave, now);
        if failed == Failed::Asked {
            return;
        }
        // A connection that has gone quiet says nothing about who would take a new one.
        *lock(&client.stub) = stub(&client.endpoint);
        if failed == Failed::Gone {
            let (uri, why) = (&client.uri, fallback(status));
            let said = clip(status.message());
            tracing::warn!(%uri, %why, said, "the external policy fails, kv-aware decides");
        }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if !self.over {
            lock(&self.client.breaker).abandoned(self.leave);
        }
    }
}

fn stub(endpoint: &Endpoint) -> Stub<Channel> {
    Stub::new(endpoint.connect_lazy()).max_decoding_message_size(REPLY_BYTES_MAX)
}

/// What a call that failed counts as.
fn fallback(status: &Status) -> Fallback {
    match status.code() {
        // The transport watches the same time-out, and cancels.
        Code::DeadlineExceeded | Code::Cancelled => Fallback::Timeout,
        Code::Unavailable => Fallback::Unreachable,
        // Not the server's word, but the connection's.
        _ if std::error::Error::source(status).is_some() => Fallback::Unreachable,
        _ => Fallback::Error,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
