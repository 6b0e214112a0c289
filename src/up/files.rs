//! The directory that a cluster of `baton up` lives in, and the files that it is told by. They
//! are ordinary configuration files: the same cluster can be started by hand from copies of them.

use crate::cli::{EngineArg, TransportArg, UpArgs};
use crate::model::Model;
use baton_node::auth::ClusterSecret;
use baton_node::exit::{Exit, Failure};
use baton_node::scratch::Scratch;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// What a daemon is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    Router,
    Prefill,
    Decode,
}

impl Role {
    /// The subcommand that runs it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Role::Router => "router",
            Role::Prefill => "prefill",
            Role::Decode => "decode",
        }
    }
}

/// Token ids of the witness, whose text is made up.
const WITNESS_VOCAB: u32 = 32_000;

/// The workers that were asked for.
pub(super) fn worker_names(args: &UpArgs) -> Vec<(Role, String)> {
    let prefill = (0..args.prefill).map(|index| (Role::Prefill, format!("prefill-{index}")));
    let decode = (0..args.decode).map(|index| (Role::Decode, format!("decode-{index}")));
    prefill.chain(decode).collect()
}

/// The routers that were asked for.
pub(super) fn router_names(args: &UpArgs) -> Vec<String> {
    (0..args.routers).map(|index| format!("router-{index}")).collect()
}

/// The files of one cluster.
pub(super) struct Runtime {
    scratch: Scratch,
    /// The checkpoint; none for the witness.
    model: Option<Model>,
}

impl Runtime {
    /// Makes the directory, the cluster's secret and, where none is named, the model.
    pub(super) fn prepare(engine: EngineArg, model: Option<Model>) -> Result<Self, Failure> {
        let mut runtime = Self { scratch: Scratch::new("up")?, model };
        ClusterSecret::generate()?.write_new(&runtime.secret())?;
        if runtime.model.is_none() && engine != EngineArg::Witness {
            runtime.model = Some(Model::built_in(runtime.scratch.path())?);
        }
        Ok(runtime)
    }

    /// The model's name in the API.
    pub(super) fn model_name(&self) -> &str {
        self.model.as_ref().map_or("witness", |model| &model.name)
    }

    fn secret(&self) -> PathBuf {
        self.scratch.path().join("secret")
    }

    /// Writes a worker's file.
    pub(super) fn write_worker(
        &self,
        args: &UpArgs,
        role: Role,
        name: &str,
    ) -> Result<PathBuf, Failure> {
        let mut text = String::new();
        let (engine, prefer) = (engine_name(args.engine), transport_name(args.transport));
        let dir = self.model.as_ref().map_or_else(String::new, |model| quoted(&model.dir));
        let workers = usize::from(args.prefill) + usize::from(args.decode);
        let threads = args.threads.unwrap_or_else(|| threads_per_worker(workers));
        let mut line = |args: std::fmt::Arguments<'_>| {
            writeln!(text, "{args}").expect("a String takes all writes");
        };
        line(format_args!("name = \"{name}\""));
        line(format_args!("[cluster]\nsecret_file = {}", quoted(&self.secret())));
        line(format_args!("[model]\nname = {:?}\nengine = \"{engine}\"", self.model_name()));
        if !dir.is_empty() {
            line(format_args!("dir = {dir}"));
        }
        line(format_args!("block_tokens = {}\nthreads = {threads}", args.block_tokens));
        if let Some(script) = &args.script {
            let script = std::fs::canonicalize(script).map_err(|error| {
                Failure::new(Exit::Config, format!("--script {}: {error}", script.display()))
            })?;
            line(format_args!("script = {}", quoted(&script)));
        }
        line(format_args!("[kv]\nmemory = {:?}", args.kv_memory));
        line(format_args!(
            "[transfer]\nprefer = \"{prefer}\"\nshm_dir = {}",
            quoted(self.scratch.path())
        ));
        if args.transport == TransportArg::Verbs {
            line(format_args!("verbs.mode = \"required\""));
        }
        if role == Role::Prefill {
            line(format_args!("[limits]\nchunk_tokens = {}", args.chunk_tokens));
        }
        line(format_args!("[log]\nfilter = \"warn\""));
        self.write(name, &text)
    }

    /// Writes a router's file; `workers` are names with the addresses that they said.
    pub(super) fn write_router(
        &self,
        args: &UpArgs,
        name: &str,
        index: usize,
        workers: &[(String, String)],
    ) -> Result<PathBuf, Failure> {
        let mut text = String::new();
        let mut line = |args: std::fmt::Arguments<'_>| {
            writeln!(text, "{args}").expect("a String takes all writes");
        };
        let listen = if index == 0 { args.listen } else { any_port(args.listen) };
        line(format_args!("[serve]\nlisten = \"{listen}\""));
        line(format_args!("[cluster]\nsecret_file = {}", quoted(&self.secret())));
        line(format_args!("[model]\nname = {:?}", self.model_name()));
        match &self.model {
            Some(model) => line(format_args!("dir = {}", quoted(&model.dir))),
            None => line(format_args!("synthetic_vocab = {WITNESS_VOCAB}")),
        }
        let threshold = args.disaggregate_min_blocks.trim();
        let threshold =
            if threshold == "inf" { "\"inf\"".to_owned() } else { threshold.to_owned() };
        line(format_args!("[placement]\ndisaggregate_min_blocks = {threshold}"));
        if let Some(uri) = &args.policy {
            line(format_args!("policy_header = true\nexternal.uri = {uri:?}"));
        }
        line(format_args!("[log]\nfilter = \"warn\""));
        for (worker, uri) in workers {
            let role = if worker.starts_with("prefill") { "prefill" } else { "decode" };
            line(format_args!("[[{role}]]\nuri = \"{uri}\""));
        }
        self.write(name, &text)
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf, Failure> {
        let path = self.scratch.path().join(format!("{name}.toml"));
        std::fs::write(&path, text).map_err(|error| {
            Failure::new(Exit::Unavailable, format!("cannot write {}: {error}", path.display()))
        })?;
        Ok(path)
    }
}

/// Cores shared out; every worker gets one at least.
fn threads_per_worker(workers: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (cores / workers.max(1)).max(1)
}

fn any_port(mut address: SocketAddr) -> SocketAddr {
    address.set_port(0);
    address
}

/// A TOML string.
fn quoted(path: &Path) -> String {
    toml::Value::from(path.to_string_lossy().into_owned()).to_string()
}

fn engine_name(engine: EngineArg) -> &'static str {
    match engine {
        EngineArg::Auto => "auto",
        EngineArg::Cpu => "cpu",
        EngineArg::Witness => "witness",
        EngineArg::Scripted => "scripted",
    }
}

fn transport_name(transport: TransportArg) -> &'static str {
    match transport {
        TransportArg::Shm => "shm",
        TransportArg::Tcp => "tcp",
        TransportArg::Verbs => "verbs",
    }
}
