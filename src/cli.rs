//! The command line. Every default is stated where it is defined, so that `--help` is complete.

use baton_bench::{BenchArgs, XferArgs};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Serves large language models to agents.
#[derive(Debug, Parser)]
#[command(name = "baton", version, about, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a whole cluster on this machine: router, prefill and decode workers
    Up(UpArgs),
    /// Run a router
    Router(DaemonArgs),
    /// Run a prefill worker
    Prefill(DaemonArgs),
    /// Run a decode worker
    Decode(DaemonArgs),
    /// Answer one request in this process, without a network
    Run(RunArgs),
    /// Talk to a running cluster
    Chat(ChatArgs),
    /// Show where a running cluster would place a request, and why; nothing is started
    Explain(ExplainArgs),
    /// Make keys for clients, check a tenants file
    Tenants(TenantsArgs),
    /// Measure how fast blocks move between two processes or hosts
    XferBench(XferArgs),
    /// Measure
    Bench(BenchArgs),
}

/// `baton up`
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// Checkpoint directory in Hugging Face format, or a model there, from the local cache or
    /// downloaded: ORG/NAME[@REVISION] [default: the demo model in the binary]
    #[arg(long, value_name = "DIR|NAME")]
    pub(crate) model: Option<PathBuf>,
    /// Prefill workers; 0: decode workers compute prompts themselves
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) prefill: u16,
    /// Decode workers
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) decode: u16,
    /// Address for HTTP and gRPC; port 0 takes any free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,
    /// How blocks travel
    #[arg(long, value_enum, default_value_t = TransportArg::Shm)]
    pub(crate) transport: TransportArg,
    /// Who computes
    #[arg(long, value_enum, default_value_t = EngineArg::Auto)]
    pub(crate) engine: EngineArg,
    /// What the scripted engine plays
    #[arg(long, value_name = "FILE", required_if_eq("engine", "scripted"))]
    pub(crate) script: Option<PathBuf>,
    /// Memory for KV blocks, per worker
    #[arg(long, value_name = "SIZE", default_value = "256 MiB")]
    pub(crate) kv_memory: String,
    /// Tokens per KV block: a power of two, 16 to 256
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) block_tokens: u32,
    /// Missing blocks from which on a prompt is prefilled remotely: 0 always, "inf" never
    #[arg(long, value_name = "N", default_value = "4")]
    pub(crate) disaggregate_min_blocks: String,
    /// A placement policy of your own, for requests with the header `x-baton-policy: external`
    #[arg(long, value_name = "URL")]
    pub(crate) policy: Option<String>,
    /// Threads that compute, per worker [default: the cores shared out]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Prompt tokens of one request computed in one step of a prefill worker
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub(crate) chunk_tokens: u32,
    /// Routers, each with a port of its own after the first
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..), hide = true)]
    pub(crate) routers: u16,
}

/// How blocks travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum TransportArg {
    /// Shared memory
    Shm,
    /// TCP
    Tcp,
    /// RDMA; needs a device
    Verbs,
}

/// Who computes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum EngineArg {
    /// The best engine that this machine and the checkpoint allow
    Auto,
    /// The model, on the CPU
    Cpu,
    /// Tokens that prove which bytes were read; needs no model
    Witness,
    /// Given tokens, for protocol tests
    Scripted,
}

/// `baton router|prefill|decode`
#[derive(Debug, Args)]
pub(crate) struct DaemonArgs {
    /// Configuration file (TOML) [default: none; every key has a default]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print the effective values and where each came from, and exit
    #[arg(long)]
    pub(crate) check: bool,
    /// Write progress and the bound address to stdout
    #[arg(long)]
    pub(crate) announce: bool,
    /// Die with the process of this id, which must be the parent
    #[arg(long, value_name = "PID", hide = true)]
    pub(crate) parent: Option<u32>,
}

/// `baton run`
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("input").required(true))]
pub(crate) struct RunArgs {
    /// Checkpoint directory in Hugging Face format, or a model there, from the local cache or
    /// downloaded: ORG/NAME[@REVISION] [default: the demo model in the binary]
    #[arg(long, value_name = "DIR|NAME")]
    pub(crate) model: Option<PathBuf>,
    /// Raw text to continue; special tokens in it are recognised
    #[arg(long, group = "input", value_name = "TEXT")]
    pub(crate) prompt: Option<String>,
    /// A user's message, rendered with the chat template
    #[arg(long, group = "input", value_name = "TEXT")]
    pub(crate) chat: Option<String>,
    /// Token ids to continue
    #[arg(long, group = "input", value_name = "IDS", value_delimiter = ',')]
    pub(crate) prompt_ids: Option<Vec<u32>>,
    /// Answer tokens at most
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub(crate) max_tokens: u32,
    /// Randomness; 0 is greedy
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    pub(crate) temperature: f32,
    /// Equal seed, equal answer
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Go on after the model's end tokens
    #[arg(long)]
    pub(crate) ignore_eos: bool,
    /// The K largest raw logits at the last prompt position
    #[arg(long, value_name = "K", default_value_t = 0)]
    pub(crate) top_logits: u16,
    /// Threads that compute [default: one per core]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub(crate) threads: usize,
    /// Tokens per KV block: a power of two, 16 to 256
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) block_tokens: u32,
    /// One JSON object on the last line of stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// `baton chat`
#[derive(Debug, Args)]
pub(crate) struct ChatArgs {
    /// The cluster's address
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub(crate) url: String,
    /// The model [default: the first one served]
    #[arg(long, value_name = "NAME")]
    pub(crate) model: Option<String>,
    /// Instructions for the model
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// Answer tokens at most
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub(crate) max_tokens: u32,
    /// Randomness; 0 is greedy [default: the model's own]
    #[arg(long, value_name = "T")]
    pub(crate) temperature: Option<f32>,
}

/// `baton tenants`
#[derive(Debug, Args)]
pub(crate) struct TenantsArgs {
    #[command(subcommand)]
    pub(crate) command: TenantsCommand,
}

/// What to do about tenants.
#[derive(Debug, Subcommand)]
pub(crate) enum TenantsCommand {
    /// Print a new key for a client, and the line with its digest for the tenants file
    Key,
    /// Say what is wrong with a tenants file, or what it grants
    Check {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// `baton explain`
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The body of a request, as for /v1/chat/completions or, without `messages`, /v1/completions;
    /// `-` is stdin
    #[arg(value_name = "FILE.json")]
    pub(crate) file: PathBuf,
    /// The cluster's address
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub(crate) url: String,
    /// The policy, where the router lets clients choose [default: the router's]
    #[arg(long, value_name = "NAME")]
    pub(crate) policy: Option<String>,
    /// The tenant whose blocks are looked up [default: nobody's]
    #[arg(long, value_name = "NAME")]
    pub(crate) tenant: Option<String>,
    /// The decision as one JSON object on the last line of stdout
    #[arg(long)]
    pub(crate) json: bool,
}
