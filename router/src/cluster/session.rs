//! One worker, for as long as the router lives: reach it, ask who it is, follow its events, and
//! for a decode worker hold the stream of requests.
//!
//! A lost stream of requests ends the session and fails what runs on it; lost events only mean
//! that the worker's blocks are not known until they are told again.

use super::link::Link;
use super::{Cluster, NotAccepted};
use crate::config::{Limits, Timeouts};
use baton_kv::Tier;
use baton_kv::events::{self, Batch, EventKind};
use baton_node::auth::ClientAuth;
use baton_proto::ids::{EventSeq, GroupId, Incarnation, SequenceHash, WorkerId};
use baton_proto::internal::decode_client::DecodeClient;
use baton_proto::internal::worker_client::WorkerClient;
use baton_proto::internal::{
    BlockEvent, DescribeRequest, Role, WatchBatch, WatchRequest, WorkerDescription, block_event,
};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// The first pause between attempts; each one doubles it.
const RECONNECT_FIRST: Duration = Duration::from_millis(50);
/// A frame carries a step's ids of all sequences of this router; a snapshot carries many hashes.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// How workers are reached.
#[derive(Clone)]
pub(crate) struct Connector {
    pub(crate) auth: ClientAuth,
    pub(crate) timeouts: Timeouts,
    pub(crate) limits: Limits,
    /// Ends all sessions.
    pub(crate) closed: CancellationToken,
}

type Authorised = InterceptedService<Channel, ClientAuth>;

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error("is not a valid address: {0}")]
    Address(tonic::transport::Error),
    #[error("cannot be reached: {0}")]
    Connect(String),
    #[error("{0}")]
    NotAccepted(#[from] NotAccepted),
    #[error("is a {found} worker, but the configuration lists it as a {expected} worker")]
    Role { expected: &'static str, found: &'static str },
    #[error("{call} failed: {status}")]
    Call { call: &'static str, status: String },
    #[error("did not answer {0} in time")]
    Timeout(&'static str),
    #[error("ended the stream")]
    Ended,
    #[error("was restarted")]
    Restarted,
    #[error("sent block events that make no sense")]
    Malformed,
}

/// Keeps the cluster's knowledge about one worker up to date until the connector is closed.
pub(crate) async fn follow(cluster: Arc<Cluster>, role: Role, uri: String, connector: Connector) {
    let mut pause = RECONNECT_FIRST;
    let mut last_error = String::new();
    loop {
        let mut joined = false;
        let session = session(&cluster, role, &uri, &connector, &mut joined);
        let error = tokio::select! {
            error = session => error,
            () = connector.closed.cancelled() => return,
        };
        if joined {
            pause = RECONNECT_FIRST;
        }
        // A worker that is still starting is not worth a line for every attempt.
        let error = error.to_string();
        if error != last_error {
            tracing::warn!(worker = %uri, role = role_name(role), "worker {error}");
            last_error = if joined { String::new() } else { error };
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = connector.closed.cancelled() => return,
        }
        pause = (pause * 2).min(connector.timeouts.reconnect_max.0);
    }
}

/// One session, from the connection to its loss.
async fn session(
    cluster: &Arc<Cluster>,
    role: Role,
    uri: &str,
    connector: &Connector,
    joined: &mut bool,
) -> SessionError {
    let (channel, description) = match reach(cluster, role, uri, connector).await {
        Ok(reached) => reached,
        Err(error) => return error,
    };
    let worker = WorkerId(description.worker);
    let incarnation = Incarnation(description.incarnation);
    let name = description.name.clone();
    let watch = watch(cluster, role, channel.clone(), (worker, incarnation), connector);
    if role == Role::Decode {
        let link = Link::new(worker, incarnation, name.clone(), connector.limits.submits_max);
        let attachment = Attachment { cluster, link: Arc::new(link) };
        tokio::select! {
            error = attachment.run(channel, description, uri, connector, joined) => error,
            error = watch => error,
        }
    } else {
        match cluster.join(description, uri, None) {
            Ok(()) => {
                *joined = true;
                tracing::info!(worker = %name, %uri, "prefill worker is ready");
                let _member = Membership { cluster, worker, incarnation };
                watch.await
            }
            Err(error) => error.into(),
        }
    }
}

/// Connects and asks the worker who it is.
async fn reach(
    cluster: &Cluster,
    role: Role,
    uri: &str,
    connector: &Connector,
) -> Result<(Channel, WorkerDescription), SessionError> {
    let timeouts = &connector.timeouts;
    let channel = Endpoint::from_shared(uri.to_owned())
        .map_err(SessionError::Address)?
        .connect_timeout(timeouts.connect.0)
        .http2_keep_alive_interval(timeouts.probe.0)
        .keep_alive_timeout(timeouts.probe_answer.0)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .connect()
        .await
        .map_err(|error| SessionError::Connect(root_cause(&error)))?;
    let mut client = WorkerClient::with_interceptor(channel.clone(), connector.auth.clone());
    let describe = client.describe(DescribeRequest {});
    let description = tokio::time::timeout(timeouts.connect.0, describe)
        .await
        .map_err(|_| SessionError::Timeout("Describe"))?
        .map_err(|status| call("Describe", &status))?
        .into_inner();
    if description.role() != role {
        let (expected, found) = (role_name(role), role_name(description.role()));
        return Err(SessionError::Role { expected, found });
    }
    cluster.check(&description)?;
    Ok((channel, description))
}

/// A decode worker's stream of requests. Dropping it fails what runs on it.
struct Attachment<'a> {
    cluster: &'a Cluster,
    link: Arc<Link>,
}

impl Attachment<'_> {
    async fn run(
        &self,
        channel: Channel,
        description: WorkerDescription,
        uri: &str,
        connector: &Connector,
        joined: &mut bool,
    ) -> SessionError {
        let mut client = DecodeClient::with_interceptor(channel, connector.auth.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let attach = client.attach(self.link.outgoing());
        let mut frames = match tokio::time::timeout(connector.timeouts.connect.0, attach).await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return call("Attach", &status),
            Err(_) => return SessionError::Timeout("Attach"),
        };
        let link = Some(self.link.clone());
        if let Err(error) = self.cluster.join(description, uri, link) {
            return error.into();
        }
        *joined = true;
        tracing::info!(worker = %self.link.name, %uri, "decode worker is ready");
        let mut drains = false;
        loop {
            match frames.message().await {
                Ok(Some(frame)) => {
                    self.link.deliver(frame);
                    if !drains && self.link.is_draining() {
                        drains = true;
                        tracing::info!(worker = %self.link.name, "decode worker drains");
                        self.cluster.note_drain(self.link.worker);
                    }
                }
                Ok(None) => return SessionError::Ended,
                Err(status) => return call("Attach", &status),
            }
        }
    }
}

impl Drop for Attachment<'_> {
    fn drop(&mut self) {
        self.cluster.leave(self.link.worker, self.link.incarnation);
        self.link.close(&format!("the connection to {} was lost", self.link.name));
    }
}

/// A prefill worker's place in the cluster.
struct Membership<'a> {
    cluster: &'a Cluster,
    worker: WorkerId,
    incarnation: Incarnation,
}

impl Drop for Membership<'_> {
    fn drop(&mut self) {
        self.cluster.leave(self.worker, self.incarnation);
    }
}

/// Follows a worker's block events. A prefill worker whose events are lost is lost itself; a decode
/// worker is judged by its stream of requests, and its events are asked for again.
async fn watch(
    cluster: &Cluster,
    role: Role,
    channel: Channel,
    (worker, incarnation): (WorkerId, Incarnation),
    connector: &Connector,
) -> SessionError {
    let mut client = WorkerClient::with_interceptor(channel, connector.auth.clone())
        .max_decoding_message_size(MESSAGE_BYTES_MAX);
    let mut pause = RECONNECT_FIRST;
    loop {
        match watch_once(cluster, &mut client, worker, incarnation).await {
            Watched::Gap => pause = RECONNECT_FIRST,
            Watched::Restarted => return SessionError::Restarted,
            Watched::Lost(error) if role == Role::Prefill => return error,
            Watched::Lost(error) => {
                cluster.forget_blocks(worker);
                tracing::warn!(%worker, "block events were lost: worker {error}");
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(connector.timeouts.reconnect_max.0);
    }
}

/// How a stream of events ended.
enum Watched {
    /// Events are missing; asking again brings them, or a snapshot.
    Gap,
    /// Another run of the worker answers.
    Restarted,
    Lost(SessionError),
}

async fn watch_once(
    cluster: &Cluster,
    client: &mut WorkerClient<Authorised>,
    worker: WorkerId,
    incarnation: Incarnation,
) -> Watched {
    let from = cluster.follow_from(worker, incarnation);
    let from_seq = from.map_or(0, |from| from.0);
    let request = Request::new(WatchRequest { incarnation: incarnation.0, from_seq });
    let mut batches = match client.watch(request).await {
        Ok(response) => response.into_inner(),
        Err(status) => return Watched::Lost(call("Watch", &status)),
    };
    loop {
        let batch = match batches.message().await {
            Ok(Some(batch)) => batch,
            Ok(None) => return Watched::Lost(SessionError::Ended),
            Err(status) => return Watched::Lost(call("Watch", &status)),
        };
        if batch.incarnation != incarnation.0 {
            return Watched::Restarted;
        }
        if let Some(load) = batch.load {
            cluster.set_load(worker, load);
        }
        if !batch.snapshot && batch.events.is_empty() {
            continue;
        }
        let Some(batch) = read_batch(&batch) else {
            return Watched::Lost(SessionError::Malformed);
        };
        if cluster.apply(worker, incarnation, &batch).is_err() {
            return Watched::Gap;
        }
    }
}

/// From the wire; `None` if an event makes no sense.
fn read_batch(batch: &WatchBatch) -> Option<Batch> {
    let event = |event: &BlockEvent| {
        let kind = match event.kind() {
            block_event::Kind::Published => EventKind::Published,
            block_event::Kind::Removed => EventKind::Removed,
            block_event::Kind::Unspecified => return None,
        };
        let hash = SequenceHash::from_slice(&event.hash)?;
        let group = GroupId(u16::try_from(event.group).ok()?);
        let parent = match event.parent[..] {
            [] => None,
            _ => Some(SequenceHash::from_slice(&event.parent)?),
        };
        let tier = (event.tier < Tier::COUNT as u32).then(|| Tier::from_bits(event.tier))?;
        Some(events::BlockEvent { kind, hash, group, parent, tier })
    };
    Some(Batch {
        snapshot: batch.snapshot,
        first_seq: EventSeq(batch.first_seq),
        events: batch.events.iter().map(event).collect::<Option<_>>()?,
    })
}

fn call(call: &'static str, status: &Status) -> SessionError {
    SessionError::Call { call, status: format!("{:?}: {}", status.code(), status.message()) }
}

/// The innermost reason: transport errors wrap it in layers that say nothing.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Prefill => "prefill",
        Role::Decode => "decode",
        Role::Unspecified => "nameless",
    }
}
