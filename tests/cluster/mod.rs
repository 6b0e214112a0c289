//! A cluster of `baton up` under test: started, asked, hurt, and seen to end.
#![allow(dead_code, clippy::unwrap_used, clippy::disallowed_methods, reason = "shared by tests")]

use baton_bench::client::{Client, ClientError};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The program under test.
pub(crate) const BATON: &str = env!("CARGO_BIN_EXE_baton");
/// What the model in the binary is called.
pub(crate) const DEMO: &str = "baton-demo";
/// How long anything that is waited for may take.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// How long a cluster that nobody waits for may take to end before it is killed.
const DROPPED_MAX: Duration = Duration::from_secs(10);

/// The long form of a test, for `cargo xtask gate`.
pub(crate) fn scaled(short: usize, long: usize) -> usize {
    if std::env::var_os("BATON_LONG").is_some() { long } else { short }
}

/// A running `baton up`.
pub(crate) struct Cluster {
    process: Child,
    /// The routers' URLs.
    pub(crate) urls: Vec<String>,
}

impl Cluster {
    /// Starts a cluster on free ports and waits for its ready line.
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::await_ready(Self::command(args).spawn().expect("baton starts"), args)
    }

    /// Starts a cluster that logs at a level; the log can be had after its end.
    pub(crate) fn start_logging(level: &str, args: &[&str]) -> (Self, JoinHandle<String>) {
        let mut command = Self::command(args);
        command.env("BATON_LOG", level).stderr(Stdio::piped());
        let mut process = command.spawn().expect("baton starts");
        let mut stderr = process.stderr.take().expect("piped");
        // Read from the beginning: whoever writes to a full pipe waits.
        let log = std::thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).expect("text");
            text
        });
        (Self::await_ready(process, args), log)
    }

    fn command(args: &[&str]) -> Command {
        let mut command = Command::new(BATON);
        command.arg("up").args(["--listen", "127.0.0.1:0"]).args(args).stdout(Stdio::piped());
        command
    }

    fn await_ready(mut process: Child, args: &[&str]) -> Self {
        let routers = args.iter().position(|arg| *arg == "--routers");
        let routers = routers.map_or(1, |at| args[at + 1].parse().expect("a number"));
        let mut lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        let mut urls = Vec::new();
        while urls.len() < routers {
            let line = lines.next().expect("a ready line before the end").expect("text");
            let mut words = line.split_whitespace();
            if let (Some("ready:" | "also:"), Some(url)) = (words.next(), words.next()) {
                urls.push(url.to_owned());
            }
        }
        Self { process, urls }
    }

    /// The directory with the cluster's files.
    pub(crate) fn folder(&self) -> PathBuf {
        let pid = self.children()["decode-0"];
        let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("a child");
        let mut words = command.split('\0').map(Path::new);
        let config = words.find(|word| word.extension().is_some_and(|kind| kind == "toml"));
        config.and_then(Path::parent).expect("a file in a directory").to_owned()
    }

    /// The cluster's secret.
    pub(crate) fn secret(&self) -> String {
        let secret = self.folder().join("secret");
        std::fs::read_to_string(secret).expect("a secret").trim().to_owned()
    }

    /// The first router's URL.
    pub(crate) fn url(&self) -> &str {
        &self.urls[0]
    }

    /// A client of the first router.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.url()).expect("the ready line has a URL")
    }

    /// The process of `baton up`.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The processes that `baton up` has started, by the name of their configuration.
    pub(crate) fn children(&self) -> BTreeMap<String, u32> {
        children_of(self.pid())
    }

    /// Sends a signal to one process of the cluster.
    pub(crate) fn signal(&self, name: &str, signal: &str) {
        let pid = self.children()[name];
        kill(pid, signal);
    }

    fn has_ended(&mut self) -> bool {
        self.process.try_wait().is_ok_and(|status| status.is_some())
    }

    /// Asks the cluster to end and waits until it has.
    pub(crate) fn stop(mut self) -> Option<i32> {
        kill(self.pid(), "TERM");
        let begun = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().expect("our own child") {
                return status.code();
            }
            assert!(begun.elapsed() < PATIENCE, "the cluster does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Cluster {
    /// Asks it to end, so that it removes its files; one that does not is killed.
    fn drop(&mut self) {
        if !self.has_ended() {
            // Once: a second signal would mean that it may leave things behind.
            let pid = rustix::process::Pid::from_child(&self.process);
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let begun = Instant::now();
        while !self.has_ended() && begun.elapsed() < DROPPED_MAX {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Sends a signal by name.
pub(crate) fn kill(pid: u32, signal: &str) {
    let status = Command::new("kill").arg(format!("-{signal}")).arg(pid.to_string()).status();
    assert!(status.expect("kill runs").success(), "no process {pid}");
}

/// Child processes that run a daemon, by the name of their configuration.
pub(crate) fn children_of(parent: u32) -> BTreeMap<String, u32> {
    let mut children = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").expect("procfs").flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let read = |file| std::fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        let stat = read("stat");
        // After the command in parentheses: state, then the parent.
        let ppid =
            stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok());
        if ppid != Some(parent) {
            continue;
        }
        let command = read("cmdline");
        let config = command.split('\0').find_map(|arg| arg.strip_suffix(".toml"));
        if let Some(name) = config.and_then(|path| path.rsplit('/').next()) {
            children.insert(name.to_owned(), pid);
        }
    }
    children
}

/// Waits until something holds, polling: for the state of other processes, which tell nobody.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A figure of the whole cluster: the sum over all samples of `name` whose labels contain `labels`.
pub(crate) async fn metric(client: &Client, name: &str, labels: &str) -> f64 {
    let text = client.get_text("/metrics").await.expect("metrics");
    let samples = text.lines().filter(|line| {
        line.starts_with(name)
            && line[name.len()..].starts_with([' ', '{'])
            && line.contains(labels)
    });
    samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Waits until every worker holds its blocks for nobody.
pub(crate) async fn quiescent(client: &Client) {
    eventually("no block is pinned or written, nothing runs", async || {
        let busy = [
            metric(client, "baton_blocks", "state=\"pinned\"").await,
            metric(client, "baton_blocks", "state=\"draft\"").await,
            metric(client, "baton_blocks", "state=\"sealed\"").await,
            metric(client, "baton_running_requests", "").await,
            metric(client, "baton_queued_requests", "").await,
        ];
        busy.iter().all(|figure| *figure == 0.0)
    })
    .await;
    let lost = metric(client, "baton_blocks", "state=\"quarantined\"").await;
    assert!(lost == 0.0, "{lost} blocks are lost to writers that were never quiet");
}

/// The status of a failed call.
pub(crate) fn status(result: Result<Value, ClientError>) -> (u16, String) {
    match result {
        Err(ClientError::Status { status, message }) => (status.as_u16(), message),
        other => panic!("not refused: {other:?}"),
    }
}
