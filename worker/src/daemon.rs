//! What the mains of both worker daemons are made of.

use crate::config::{self, Common};
use crate::data_plane;
use crate::engine_loop::{EngineLoop, Shell, Status};
use crate::fabric;
use crate::grounds::Grounds;
use crate::metrics;
use crate::plan::Schedule;
use crate::service::WorkerService;
use crate::tenancy::Gate;
use baton_engine::api::{Engine, ModelSpec};
use baton_node::admin::{self, Health, State};
use baton_node::auth::{ClusterSecret, ServerAuth};
use baton_node::drain::{Cause, Drain};
use baton_node::exit::{Exit, Failure};
use baton_node::metrics::Metrics;
use baton_node::reload::Reload;
use baton_node::serve::{self, Listener, ServeConfig};
use baton_node::switch::Switch;
use baton_node::task::Tasks;
use baton_node::telemetry::{self, LogConfig};
use baton_proto::internal as pb;
use baton_proto::internal::worker_server::WorkerServer;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::service::interceptor::InterceptedService;

/// Events that may wait for the engine loop; senders wait beyond that.
pub const EVENTS_QUEUED: usize = 4096;
/// Largest message between daemons: a prompt of some million tokens, or a large snapshot.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Tasks that come with load: streams of routers and watchers.
const TASKS_MAX: usize = 65_536;

/// Tells whoever started the daemon how far it is: lines on stdout, for `baton up` and scripts.
#[derive(Clone, Debug, Default)]
pub struct Announce {
    /// Whether anybody reads them.
    pub enabled: bool,
    last_percent: Arc<Mutex<Option<u64>>>,
}

impl Announce {
    /// Lines are written if `enabled`.
    pub fn new(enabled: bool) -> Self {
        Self { enabled, last_percent: Arc::default() }
    }

    /// Weights are being read: so many bytes of so many. Written at every full percent.
    pub fn progress(&self, done: u64, total: u64) {
        let percent = done * 100 / total.max(1);
        let mut last = self.last_percent.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if last.replace(percent) != Some(percent) {
            self.line(&format!("progress {done} {total}"));
        }
    }

    /// The daemon takes work at this address.
    pub fn ready(&self, uri: &str) {
        self.line(&format!("ready {uri}"));
    }

    fn line(&self, text: &str) {
        if self.enabled {
            let mut out = std::io::stdout().lock();
            // Whoever reads may have gone; the daemon serves all the same.
            let _ = writeln!(out, "{text}").and_then(|()| out.flush());
        }
    }
}

/// Threads that carry what waits; what computes has its own.
const THREADS_MAX: usize = 2;

/// The first lines of a main: logs, limits, crypto-free runtime.
pub fn begin(log: &LogConfig) -> Result<tokio::runtime::Runtime, Failure> {
    telemetry::init(log)?;
    baton_node::exit::end_on_broken_invariant();
    if let Err(error) = baton_node::limits::raise_fd_limit() {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    // On one core a second thread is only something to switch to.
    let threads =
        std::thread::available_parallelism().map_or(THREADS_MAX, usize::from).min(THREADS_MAX);
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(threads)
        .build()
        .map_err(|error| Failure::new(Exit::Unavailable, format!("no runtime: {error}")))
}

/// What can be said before the weights are read, so that nobody waits for them to hear it.
pub fn preflight(common: &Common<'_>) -> Result<(), Failure> {
    for caution in config::cautions(common) {
        tracing::warn!("{caution}");
    }
    data_plane::preflight(common.transfer)
}

/// A worker daemon whose model is loaded and whose ports are bound.
pub struct Daemon {
    /// Memory, blocks, transports.
    pub grounds: Grounds,
    /// Everything that runs.
    pub tasks: Tasks,
    /// Cancelled when the engine loop has ended.
    pub computing: CancellationToken,
    /// Who is let in.
    pub gate: Gate,
    reload: Reload,
    drain: Drain,
    listener: Listener,
    auth: ServerAuth,
    status: watch::Sender<Status>,
    metrics: Metrics,
    health: Health,
}

impl Daemon {
    /// Takes memory and binds ports. Call it inside a runtime.
    pub fn open(
        role: pb::Role,
        common: &Common<'_>,
        spec: &ModelSpec,
        secret_file: &Path,
        serve: &ServeConfig,
        grace: Duration,
    ) -> Result<Self, Failure> {
        let secret = cluster_secret(secret_file)?;
        let (gate, reload) = (Gate::open(common.tenants)?, Reload::new());
        gate.register(&reload);
        let drain = Drain::new(grace);
        let tasks = Tasks::new(&drain, TASKS_MAX);
        let listener = serve::bind(serve)?;
        let grounds = tokio::runtime::Handle::current().block_on(Grounds::open(
            role,
            common,
            spec,
            &secret,
            listener.local_addr(),
        ))?;
        let metrics = Metrics::new();
        let health = Health::new(&drain);
        Ok(Self {
            grounds,
            tasks,
            computing: CancellationToken::new(),
            gate,
            reload,
            drain,
            listener,
            auth: ServerAuth::new(&secret),
            status: watch::Sender::default(),
            metrics,
            health,
        })
    }

    /// Starts the thread that computes.
    pub fn start_engine<S>(
        &self,
        name: &'static str,
        schedule: S,
        engine: Box<dyn Engine>,
        events: flume::Receiver<S::Event>,
        shell: Box<dyn Shell<S::Action>>,
    ) -> Result<(), Failure>
    where
        S: Schedule + Send + 'static,
    {
        let drain = self.drain.clone();
        let engine_loop = EngineLoop {
            schedule,
            engine,
            blocks: self.grounds.blocks.clone(),
            clock: Arc::clone(&self.grounds.clock),
            events,
            shell,
            status: self.status.clone(),
            draining: Box::new(move || drain.is_draining()),
        };
        let ended = self.computing.clone().drop_guard();
        self.tasks
            .spawn_thread(name, move || {
                let _ended = ended;
                engine_loop.run();
            })
            .map_err(|error| Failure::new(Exit::Unavailable, format!("no thread: {error}")))
    }

    /// Tells the schedule whether its order acts: now, and whenever that is read again. `event` is
    /// how it is told.
    pub fn switch_order<E: Send + 'static>(
        &self,
        now: Switch,
        mut reread: impl FnMut() -> Result<Switch, Failure> + Send + 'static,
        events: &flume::Sender<E>,
        event: fn(Switch) -> E,
    ) -> Result<(), Failure> {
        let events = events.clone();
        let tell = move |switch: Switch| {
            let gone = |_| Failure::new(Exit::Unavailable, "the engine loop is gone");
            events.send(event(switch)).map_err(gone)?;
            Ok(format!("queue is {}", switch.as_str()))
        };
        tell(now)?;
        self.reload.register("switches", move || tell(reread()?));
        Ok(())
    }

    /// A service that only daemons of the cluster may call.
    pub fn guarded<S>(&self, service: S) -> InterceptedService<S, ServerAuth> {
        InterceptedService::new(service, self.auth.clone())
    }

    /// Answers until a signal comes and what was accepted has ended.
    pub async fn serve_until_told_to_go(
        self,
        routes: Routes,
        announce: &Announce,
    ) -> Result<(), Failure> {
        let no_signals =
            |error| Failure::new(Exit::Unavailable, format!("no signal handlers: {error}"));
        self.drain.watch_signals(&self.tasks).map_err(no_signals)?;
        self.reload.watch_signal(&self.tasks).map_err(no_signals)?;
        let worker = WorkerServer::new(WorkerService {
            description: self.grounds.description.clone(),
            blocks: self.grounds.blocks.clone(),
            status: self.status.subscribe(),
            clock: Arc::clone(&self.grounds.clock),
            tasks: self.tasks.clone(),
        });
        metrics::register(&self.metrics, &self.grounds.counters, &self.status.subscribe());
        let mut routes = routes.add_service(self.guarded(worker));
        if let Some(service) = self.grounds.fabric.clone() {
            routes = routes.add_service(fabric::guarded(service, &self.auth));
        }
        let router = routes.into_axum_router().merge(admin::routes(&self.health, &self.metrics));
        let uri = format!("http://{}", self.listener.local_addr());
        let Self { listener, tasks, drain, .. } = self;
        listener.serve(router, &tasks).map_err(|error| {
            Failure::new(Exit::Unavailable, format!("cannot serve at {uri}: {error}"))
        })?;
        self.health.set(State::Ready);
        let identity = &self.grounds.identity;
        let slots = self.grounds.blocks.arena().slots();
        tracing::info!(name = identity.name, worker = %identity.worker, uri, slots, "ready");
        announce.ready(&uri);
        drain.conclude(&tasks).await;
        self.grounds.shutdown.cancel();
        fate(drain.cause())
    }
}

/// A drain that no signal began means that the engine is gone.
fn fate(cause: Option<Cause>) -> Result<(), Failure> {
    let Some(Cause::TaskEnded(task)) = cause else { return Ok(()) };
    let message = format!("`{task}` ended before the daemon was told to go");
    Err(Failure::new(Exit::BrokenInvariant, message)
        .with_hint("the log line before this one says why; report it"))
}

/// From the file, or from the environment.
pub fn cluster_secret(file: &Path) -> Result<ClusterSecret, Failure> {
    if !file.as_os_str().is_empty() {
        return Ok(ClusterSecret::from_file(file)?);
    }
    match ClusterSecret::from_environment() {
        Some(secret) => Ok(secret?),
        None => Err(Failure::new(Exit::Config, "no cluster secret is configured")
            .with_hint("set `secret_file` to a file with 64 hexadecimal digits")),
    }
}
