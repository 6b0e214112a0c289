//! The router: HTTP and gRPC to tokens, and the choice of who, when and where.
//!
//! A request comes in through [`api`] or [`grpc`] as one internal request, is prepared on the
//! threads for text, placed by [`choose`] on what [`cluster`] knows, and lives as a [`turn`] until
//! its last token has been delivered or nobody wants it any more.
//!
//! Absent on purpose: KV bytes, transports, kernels. The router sees hashes and token ids only.
#![forbid(unsafe_code)]

mod ahead;
mod api;
mod audit;
mod bodies;
pub mod choose;
mod cluster;
pub mod config;
mod decisions;
mod error;
mod grpc;
pub mod intake;
mod intent;
mod metrics;
pub mod parse;
mod placing;
mod policy_client;
mod prompts;
mod readers;
mod record;
mod retry;
mod scrape;
#[cfg(test)]
mod seeded_tests;
mod service;
mod switches;
mod tenancy;
mod text_pool;
mod turn;

#[doc(hidden)]
pub use api::{Decoded, Decoder, Refused, decode};
pub use config::Config;

use baton_node::admin::{self, Health, State};
use baton_node::auth::{ClientAuth, ClusterSecret};
use baton_node::metrics::Metrics as Registry;
use baton_node::reload::Reload;
use baton_node::{Drain, Exit, Failure, Tasks, limits, serve};
use baton_proto::internal::Role;
use baton_text::TextModel;
use cluster::{Cluster, Connector};
use config::Switches;
use metrics::Metrics;
use service::Service;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tenancy::Tenancy;
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// Tasks beside those of requests and connections: accept loop, signals, sessions, readiness.
const TASKS_BESIDE_REQUESTS: usize = 256;

/// How long the announcement waits for workers beyond the first.
const COMPLETE: Duration = Duration::from_secs(2);
/// How often it looks.
const POLL: Duration = Duration::from_millis(10);

/// Runs a router until it is told to go: the daemon's story. The configuration has been checked
/// ([`config::load`]), and logging is set up. `ready` is told the address once requests can be
/// placed; `reread` gives the configuration as it is when it is asked.
pub async fn run(
    config: Config,
    reread: impl FnMut() -> Result<Config, Failure> + Send + 'static,
    ready: impl FnOnce(SocketAddr),
) -> Result<(), Failure> {
    let secret = secret(&config)?;
    limits::raise_fd_limit().map_err(|error| {
        Failure::new(Exit::Unavailable, format!("cannot raise the limit of open files: {error}"))
    })?;
    let drain = Drain::new(config.drain_grace.0);
    let tasks = Tasks::new(&drain, tasks_max(&config));
    drain.watch_signals(&tasks).map_err(|error| {
        Failure::new(Exit::Unavailable, format!("cannot watch for signals: {error}"))
    })?;
    let router = Router::start(config, &secret, &tasks)?;
    router.reread_switches(reread);
    router.reload.watch_signal(&tasks).map_err(|error| {
        Failure::new(Exit::Unavailable, format!("cannot watch for signals: {error}"))
    })?;
    tracing::info!(address = %router.local_addr(), "listening");
    tokio::select! {
        () = router.complete() => ready(router.local_addr()),
        () = drain.draining() => {}
    }
    drain.conclude(&tasks).await;
    Ok(())
}

/// A router that answers.
pub struct Router {
    local: SocketAddr,
    health: Health,
    cluster: Arc<Cluster>,
    /// Decode and prefill workers of the configuration.
    configured: (usize, usize),
    service: Arc<Service>,
    reload: Reload,
}

impl Router {
    /// Loads the text side of the model, binds the port, and starts to follow the workers. Must be
    /// called inside a runtime; everything ends with the drain of `tasks`.
    pub fn start(config: Config, secret: &ClusterSecret, tasks: &Tasks) -> Result<Self, Failure> {
        let text = Arc::new(load_text(&config)?);
        let text_digest = digest_text(&config)?;
        let registry = Registry::new();
        let health = Health::new(tasks.drain());
        let configured = (config.decode.len(), config.prefill.len());
        let workers_max = configured.0 + configured.1;
        let assumed = config.placement.assumed.lines();
        let cluster = Cluster::new(*secret.expose(), workers_max, assumed, text_digest);
        let cluster = Arc::new(cluster);
        let metrics = Metrics::new(&registry, &cluster);
        let (tenancy, reload) = (Tenancy::open(&config.tenants)?, Reload::new());
        tenancy.register(&reload);
        let listener = serve::bind(&config.serve)?;
        let local = listener.local_addr();
        let service = Service::new(config, tenancy, text, cluster.clone(), metrics, tasks.clone());
        let service = Arc::new(service.map_err(|error| {
            Failure::new(Exit::Unavailable, format!("cannot start threads: {error}"))
        })?);

        let (grpc, reporter) = grpc::routes(&service).map_err(|error| {
            Failure::new(Exit::Runtime, format!("the interface's description is broken: {error}"))
        })?;
        let routes = api::routes(service.clone())
            .merge(grpc)
            .merge(admin::health_routes(&health))
            .merge(scrape::routes(cluster.clone(), registry));
        follow_workers(&service, secret);
        tasks.spawn(
            "readiness",
            tell_readiness(cluster.clone(), health.clone(), reporter, tasks.drain().clone()),
        );
        listener.serve(routes, tasks).map_err(|error| {
            Failure::new(Exit::Unavailable, format!("cannot serve {local}: {error}"))
        })?;
        Ok(Self { local, health, cluster, configured, service, reload })
    }

    /// The address with the port that was taken.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// From now on the switches are read again with the rest that is.
    fn reread_switches(
        &self,
        mut reread: impl FnMut() -> Result<Config, Failure> + Send + 'static,
    ) {
        let service = self.service.clone();
        self.reload.register("switches", move || {
            let changed = service.set_switches(reread()?.switches);
            Ok(if changed.is_empty() {
                "nothing is different".to_owned()
            } else {
                changed.join(", ")
            })
        });
    }

    /// Sets which features act, for the requests to come; what changed.
    pub fn set_switches(&self, switches: Switches) -> Vec<String> {
        self.service.set_switches(switches)
    }

    /// What is read again while the router runs.
    pub fn reload(&self) -> &Reload {
        &self.reload
    }

    /// Waits until requests can be placed.
    pub async fn ready(&self) {
        self.health.ready().await;
    }
}

impl Router {
    /// Waits until requests can be placed and, for a moment longer, until every configured worker
    /// is there: a cluster that starts as a whole is announced as a whole.
    async fn complete(&self) {
        self.ready().await;
        let all = async {
            while self.cluster.counts() != self.configured {
                tokio::time::sleep(POLL).await;
            }
        };
        // Workers that are down are no reason to wait for ever.
        let _ = tokio::time::timeout(COMPLETE, all).await;
    }
}

/// How many tasks a router of this configuration may need.
fn tasks_max(config: &Config) -> usize {
    config.limits.requests_max
        + config.serve.connections_max as usize
        + config.speculation.running_max
        + TASKS_BESIDE_REQUESTS
}

fn secret(config: &Config) -> Result<ClusterSecret, Failure> {
    if let Some(path) = &config.cluster.secret_file {
        return Ok(ClusterSecret::from_file(path)?);
    }
    match ClusterSecret::from_environment() {
        Some(secret) => Ok(secret?),
        None => {
            Err(Failure::new(Exit::Config, "no cluster secret is configured").with_hint(format!(
                "write `secret_file` under `[cluster]`, or set {}",
                baton_node::auth::SECRET_VARIABLE
            )))
        }
    }
}

fn load_text(config: &Config) -> Result<TextModel, Failure> {
    match (&config.model.dir, config.model.synthetic_vocab) {
        (Some(dir), None) => {
            TextModel::load(dir).map_err(|error| Failure::new(Exit::Config, error.to_string()))
        }
        (None, Some(vocab)) => Ok(TextModel::synthetic(vocab)),
        _ => Err(Failure::new(
            Exit::Config,
            "expected exactly one of `model.dir` and `model.synthetic_vocab`",
        )),
    }
}

/// The digest of the tokenizer's file, to be compared with the workers'; empty without one.
fn digest_text(config: &Config) -> Result<Vec<u8>, Failure> {
    let Some(dir) = &config.model.dir else { return Ok(Vec::new()) };
    let path = dir.join("tokenizer.json");
    let mut hasher = blake3::Hasher::new();
    let read = std::fs::File::open(&path).and_then(|file| hasher.update_reader(file).map(|_| ()));
    read.map_err(|error| {
        Failure::new(Exit::Config, format!("cannot read {}: {error}", path.display()))
    })?;
    Ok(hasher.finalize().as_bytes().to_vec())
}

/// One task for each worker, until the drain has begun and no request is in the house.
fn follow_workers(service: &Arc<Service>, secret: &ClusterSecret) {
    let (config, tasks) = (service.config(), service.tasks());
    let connector = Connector {
        auth: ClientAuth::new(secret),
        timeouts: config.timeouts.clone(),
        limits: config.limits.clone(),
        closed: CancellationToken::new(),
    };
    let peers = |role, peers: &[config::Peer]| -> Vec<_> {
        peers.iter().map(|peer| (role, peer.uri.clone())).collect()
    };
    let all = [peers(Role::Prefill, &config.prefill), peers(Role::Decode, &config.decode)].concat();
    for (role, uri) in all {
        let follow = cluster::follow(service.cluster().clone(), role, uri, connector.clone());
        tasks.spawn("worker", follow);
    }
    let (drain, end) = (tasks.drain().clone(), End { service: service.clone(), connector });
    tasks.spawn("end", async move {
        drain.draining().await;
        end.service.empty().await;
        drop(end);
    });
}

/// Ends what the drain alone does not, when the last request has left or the grace is over.
struct End {
    service: Arc<Service>,
    connector: Connector,
}

impl Drop for End {
    fn drop(&mut self) {
        self.connector.closed.cancel();
        self.service.close();
    }
}

/// Says whether requests can be placed, at `/ready` and in the gRPC health service.
async fn tell_readiness(
    cluster: Arc<Cluster>,
    health: Health,
    reporter: HealthReporter,
    drain: Drain,
) {
    let mut decoders = cluster.decoders();
    loop {
        let count = *decoders.borrow_and_update();
        let (state, serving) = match count {
            0 => (State::Degraded("no decode worker".into()), ServingStatus::NotServing),
            _ => (State::Ready, ServingStatus::Serving),
        };
        health.set(state);
        for name in ["", grpc::INFERENCE] {
            reporter.set_service_status(name, serving).await;
        }
        tokio::select! {
            changed = decoders.changed() => if changed.is_err() { return },
            () = drain.draining() => break,
        }
    }
    for name in ["", grpc::INFERENCE] {
        reporter.set_service_status(name, ServingStatus::NotServing).await;
    }
}
