//! `baton up`: a whole cluster on this machine, as separate processes.

mod child;
mod files;
mod progress;

use crate::cli::{TransportArg, UpArgs};
use crate::model::Model;
use baton_node::exit::{Exit, Failure, tell};
use baton_worker::config::VerbsConfig;
use child::{Child, Said};
use files::{Role, Runtime};
use progress::Progress;
use std::io::Write;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// What a daemon gets to finish; a little more than its own grace.
const STOP_GRACE: Duration = Duration::from_secs(35);

/// Starts everything, waits for a signal, stops everything.
pub(crate) fn main(args: &UpArgs) -> Result<(), Failure> {
    check_transport(args.transport)?;
    // It may take long; nothing has to be undone yet.
    let model = args.model.as_deref().map(Model::find).transpose()?;
    // One thread: the kernel kills the children when the thread that started them ends.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Unavailable, format!("no runtime: {error}")))?;
    runtime.block_on(up(args, model))
}

async fn up(args: &UpArgs, model: Option<Model>) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let files = Runtime::prepare(args.engine, model)?;
    let (said, mut heard) = mpsc::channel(64);
    let mut cluster = Cluster::default();
    let result = tokio::select! {
        result = cluster.start(args, &files, &said, &mut heard) => result,
        () = signals.next() => Err(Failure::new(Exit::Runtime, "interrupted while starting")),
    };
    let result = match result {
        Ok(uris) => {
            greet(files.model_name(), &uris);
            cluster.watch(&mut heard, &mut signals).await
        }
        Err(failure) => Err(failure),
    };
    cluster.stop(&mut heard, &mut signals).await;
    result
}

/// Told once, by this process, instead of by every worker.
fn check_transport(transport: TransportArg) -> Result<(), Failure> {
    if transport != TransportArg::Verbs {
        return Ok(());
    }
    // As the workers' files have it.
    baton_worker::device::find(&VerbsConfig::default()).map_err(|error| {
        Failure::new(Exit::Unavailable, format!("--transport verbs: {error}"))
            .with_hint("`--transport shm` and `--transport tcp` need no RDMA device")
    })
}

/// The one line that says that all is well, and what to do next.
fn greet(model: &str, uris: &[String]) {
    let uri = &uris[0];
    let mut text = format!(
        "ready: {uri}  try: curl -N {uri}/v1/chat/completions -H 'content-type: application/json' \
         -d '{{\"model\":\"{model}\",\"messages\":[{{\"role\":\"user\",\"content\":\"hello\"}}],\
         \"max_tokens\":24,\"stream\":true}}'\n"
    );
    for uri in &uris[1..] {
        text.extend(["also: ", uri, "\n"]);
    }
    let mut out = std::io::stdout().lock();
    // Nobody may be reading; the cluster serves all the same.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[derive(Default)]
struct Cluster {
    children: Vec<Child>,
}

impl Cluster {
    /// Workers first, then routers that know their addresses; returns the routers' URIs.
    async fn start(
        &mut self,
        args: &UpArgs,
        files: &Runtime,
        said: &mpsc::Sender<(String, Said)>,
        heard: &mut mpsc::Receiver<(String, Said)>,
    ) -> Result<Vec<String>, Failure> {
        let workers = files::worker_names(args);
        let mut progress = Progress::new(workers.len());
        for (role, name) in &workers {
            let config = files.write_worker(args, *role, name)?;
            self.children.push(Child::start(*role, name, &config, said)?);
        }
        let uris = self.await_ready(workers.len(), heard, &mut progress).await?;
        progress.finish();
        let mut router_uris = Vec::new();
        for (index, name) in files::router_names(args).iter().enumerate() {
            let config = files.write_router(args, name, index, &uris)?;
            self.children.push(Child::start(Role::Router, name, &config, said)?);
            let ready = self.await_ready(1, heard, &mut Progress::new(0)).await?;
            router_uris.extend(ready.into_iter().map(|(_, uri)| uri));
        }
        Ok(router_uris)
    }

    /// Waits until `count` children are ready.
    async fn await_ready(
        &mut self,
        count: usize,
        heard: &mut mpsc::Receiver<(String, Said)>,
        progress: &mut Progress,
    ) -> Result<Vec<(String, String)>, Failure> {
        let mut ready = Vec::new();
        while ready.len() < count {
            let Some((name, said)) = heard.recv().await else { break };
            match said {
                Said::Progress { done, total } => progress.advance(&name, done, total),
                Said::Ready(uri) => ready.push((name, uri)),
                Said::Gone => return Err(self.lost(&name).await),
            }
        }
        Ok(ready)
    }

    /// A child that ended by itself has already said why, on stderr.
    async fn lost(&mut self, name: &str) -> Failure {
        let mut code = None;
        if let Some(index) = self.children.iter().position(|child| child.name == name) {
            code = self.children.remove(index).wait().await;
        }
        let exit = match code {
            Some(64) => Exit::Config,
            Some(69) => Exit::Unavailable,
            Some(77) => Exit::Permission,
            _ => Exit::Runtime,
        };
        Failure::new(exit, format!("{name} did not start"))
            .with_hint("the line above is its own; nothing was left running")
    }

    /// Serves until a signal comes. The loss of a worker is survived while its role has others.
    async fn watch(
        &mut self,
        heard: &mut mpsc::Receiver<(String, Said)>,
        signals: &mut Signals,
    ) -> Result<(), Failure> {
        loop {
            let name = tokio::select! {
                () = signals.next() => return Ok(()),
                said = heard.recv() => match said {
                    Some((name, Said::Gone)) => name,
                    Some(_) => continue,
                    None => return Ok(()),
                },
            };
            let Some(index) = self.children.iter().position(|child| child.name == name) else {
                continue;
            };
            let child = self.children.remove(index);
            let role = child.role;
            let code = child.wait().await;
            tell(&format_args!("warning: {name} has ended ({})", describe(code)));
            let vital = role != Role::Prefill;
            if vital && !self.children.iter().any(|child| child.role == role) {
                let message = format!("no {} is left", role.as_str());
                return Err(Failure::new(Exit::Runtime, message));
            }
        }
    }

    /// Routers first, so that nothing new comes; then workers. Whoever does not go is killed.
    async fn stop(&mut self, heard: &mut mpsc::Receiver<(String, Said)>, signals: &mut Signals) {
        if !self.children.is_empty() {
            tell(&"stopping; press Ctrl-C again to stop at once");
        }
        for router in [true, false] {
            let is_next = |child: &Child| (child.role == Role::Router) == router;
            self.children.iter().filter(|child| is_next(child)).for_each(Child::terminate);
            let leaving = async {
                while self.children.iter().any(is_next) {
                    match heard.recv().await {
                        Some((name, Said::Gone)) => self.gone(&name).await,
                        Some(_) => {}
                        None => return,
                    }
                }
            };
            tokio::select! {
                () = leaving => {}
                () = signals.next() => break,
                () = tokio::time::sleep(STOP_GRACE) => break,
            }
        }
        for child in self.children.drain(..) {
            child.kill().await;
        }
    }

    /// Its output has ended; waits until it has, too.
    async fn gone(&mut self, name: &str) {
        if let Some(index) = self.children.iter().position(|child| child.name == name) {
            self.children.remove(index).wait().await;
        }
    }
}

fn describe(code: Option<i32>) -> String {
    code.map_or_else(|| "killed by a signal".to_owned(), |code| format!("exit code {code}"))
}

/// Ctrl-C, a polite request to go, or a terminal that was closed.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let handler = |kind| {
            signal(kind).map_err(|error| {
                Failure::new(Exit::Unavailable, format!("no signal handlers: {error}"))
            })
        };
        Ok(Self {
            interrupt: handler(SignalKind::interrupt())?,
            terminate: handler(SignalKind::terminate())?,
            hangup: handler(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
