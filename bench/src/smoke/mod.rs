//! `baton bench smoke`: what a cluster does for one client and for four, in figures.

mod cluster;
mod moved;
mod report;
mod turn;

pub(crate) use cluster::{HostArgs, host};

use crate::client::{Client, ClientError};
use crate::signals::interrupted;
use baton_node::clock::{Monotonic, unix_time};
use baton_node::exit::{Exit, Failure};
use clap::{Args, ValueEnum};
use cluster::LocalCluster;
use futures_util::future::try_join_all;
use moved::Moved;
use report::Figures;
use std::time::Duration;
use turn::{Ask, AskError, Turn, decode_tokens_per_s};

/// Streams of the measurement with several.
const STREAMS: usize = 4;
/// How often that one is repeated.
const ROUNDS: usize = 5;
/// How much longer its answers are: streams begin one after the other, and only the time in which
/// all of them run counts.
const STREAMS_ANSWER: u32 = 4;
/// What any request may take; a stuck cluster must not hold a script for ever.
const REQUEST_PATIENCE: Duration = Duration::from_mins(5);
/// Prompts are made of these ids, which every vocabulary of a real model has.
const IDS: std::ops::Range<u64> = 256..1024;

/// `baton bench smoke`
#[derive(Debug, Args)]
pub(crate) struct SmokeArgs {
    /// A running cluster [default: one is started, and stopped at the end]
    #[arg(long, value_name = "URL", conflicts_with_all = ["engine", "transport"])]
    url: Option<String>,
    /// Who computes
    #[arg(long, value_enum, default_value_t = EngineArg::Auto)]
    engine: EngineArg,
    /// How blocks travel
    #[arg(long, value_enum, default_value_t = TransportArg::Shm)]
    transport: TransportArg,
    /// Prompts, each sent twice
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1000))]
    prompts: u32,
    /// Length of a prompt
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    prompt_tokens: u32,
    /// Length of an answer
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    max_tokens: u32,
    /// One JSON object on the last line of stdout
    #[arg(long)]
    json: bool,
}

/// Who computes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum EngineArg {
    /// The best engine that this machine allows
    Auto,
    /// The model, on the CPU
    Cpu,
    /// No model: what is left is everything around it
    Witness,
}

impl EngineArg {
    fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Cpu => "cpu",
            Self::Witness => "witness",
        }
    }
}

/// How blocks travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum TransportArg {
    /// Shared memory
    Shm,
    /// TCP
    Tcp,
    /// RDMA; needs a device
    Verbs,
}

impl TransportArg {
    fn as_str(self) -> &'static str {
        match self {
            Self::Shm => "shm",
            Self::Tcp => "tcp",
            Self::Verbs => "verbs",
        }
    }
}

/// Measures and prints.
pub(crate) fn main(args: &SmokeArgs) -> Result<(), Failure> {
    // One thread: the kernel kills the cluster when the thread that started it ends.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Unavailable, format!("no runtime: {error}")))?;
    let figures = runtime.block_on(smoke(args))?;
    if args.json {
        println!("{}", figures.to_json());
    } else {
        print!("{}", figures.to_table());
    }
    Ok(())
}

async fn smoke(args: &SmokeArgs) -> Result<Figures, Failure> {
    let interrupted = interrupted()?;
    if let Some(url) = &args.url {
        return tokio::select! {
            figures = measure(url, args) => figures,
            failure = interrupted => Err(failure),
        };
    }
    eprintln!("starting a cluster");
    let mut cluster = LocalCluster::spawn(args)?;
    let figures = tokio::select! {
        figures = cluster.run(async |url| measure(&url, args).await) => figures,
        failure = interrupted => Err(failure),
    };
    eprintln!("stopping the cluster");
    cluster.stop().await;
    figures
}

/// Everything that is measured, on a cluster that is ready.
async fn measure(url: &str, args: &SmokeArgs) -> Result<Figures, Failure> {
    let client = Client::new(url).map_err(|error| failure(&error))?;
    let models = client.get("/v1/models").await.map_err(|error| failure(&error))?;
    let model = models["data"][0]["id"].as_str();
    let model =
        model.ok_or_else(|| Failure::new(Exit::Unavailable, "the server lists no model"))?;
    let mut bench =
        Bench { client, clock: Monotonic::process(), model, args, prompts: Prompts::new() };
    eprintln!("warming up");
    let warm_up = bench.prompts.next(args.prompt_tokens);
    for _ in 0..2 {
        bench.ask(&warm_up, args.max_tokens).await?;
    }
    let (cold, warm, moved) = bench.one_stream().await?;
    let together = bench.several_streams().await?;
    Ok(Figures::new(args, url, model, &cold, &warm, &together, moved))
}

/// A measurement under way.
struct Bench<'a> {
    client: Client,
    clock: Monotonic,
    model: &'a str,
    args: &'a SmokeArgs,
    prompts: Prompts,
}

impl Bench<'_> {
    /// New prompts, one after the other, each of them twice; and what moved meanwhile.
    async fn one_stream(&mut self) -> Result<(Vec<Turn>, Vec<Turn>, Moved), Failure> {
        let before = self.moved().await?;
        let (mut cold, mut warm) = (Vec::new(), Vec::new());
        for index in 0..self.args.prompts {
            // A dozen lines at most.
            if index % self.args.prompts.div_ceil(8) == 0 {
                eprintln!("one stream: {index} of {} prompts", self.args.prompts);
            }
            let prompt = self.prompts.next(self.args.prompt_tokens);
            cold.push(self.ask(&prompt, self.args.max_tokens).await?);
            warm.push(self.ask(&prompt, self.args.max_tokens).await?);
        }
        Ok((cold, warm, self.moved().await?.since(before)))
    }

    /// Tokens per second of several streams together, round by round. Their prompts are known
    /// from a first round, so that answers alone are measured.
    async fn several_streams(&mut self) -> Result<Vec<f64>, Failure> {
        let prompts: Vec<_> =
            (0..STREAMS).map(|_| self.prompts.next(self.args.prompt_tokens)).collect();
        let tokens = self.args.max_tokens * STREAMS_ANSWER;
        let mut speeds = Vec::new();
        for round in 0..=ROUNDS {
            eprintln!("{STREAMS} streams: round {round} of {ROUNDS}");
            let turns = try_join_all(prompts.iter().map(|prompt| self.ask(prompt, tokens))).await?;
            if round > 0 {
                speeds.extend(decode_tokens_per_s(&turns));
            }
        }
        Ok(speeds)
    }

    async fn moved(&self) -> Result<Moved, Failure> {
        Moved::read(&self.client).await.map_err(|error| failure(&error))
    }

    async fn ask(&self, prompt: &[u32], max_tokens: u32) -> Result<Turn, Failure> {
        let ask = Ask { model: self.model, prompt, max_tokens };
        let answer = tokio::time::timeout(REQUEST_PATIENCE, ask.send(&self.client, &self.clock));
        let turn = answer.await.map_err(|_| {
            let message = format!("a request was not answered within {REQUEST_PATIENCE:?}");
            Failure::new(Exit::Unavailable, message)
        })?;
        let turn = turn.map_err(|error| match error {
            AskError::Call(error) => failure(&error),
            broken @ AskError::BrokenOff { .. } => Failure::new(Exit::Runtime, broken.to_string()),
        })?;
        if turn.tokens() == 0 {
            return Err(Failure::new(Exit::Runtime, "an answer came without a single token"));
        }
        Ok(turn)
    }
}

/// Prompts that no cluster has seen: the time of day is in each of their tokens.
struct Prompts {
    state: u64,
}

impl Prompts {
    fn new() -> Self {
        Self { state: unix_time().as_nanos() as u64 }
    }

    fn next(&mut self, tokens: u32) -> Vec<u32> {
        let id = |random: u64| (IDS.start + random % (IDS.end - IDS.start)) as u32;
        (0..tokens).map(|_| id(self.random())).collect()
    }

    /// SplitMix64.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn failure(error: &ClientError) -> Failure {
    let exit = match error {
        ClientError::Url { .. } => Exit::Usage,
        ClientError::Status { status, .. } if status.is_client_error() => Exit::Runtime,
        _ => Exit::Unavailable,
    };
    let failure = Failure::new(exit, error.to_string());
    match error {
        ClientError::Transport { .. } => {
            failure.with_hint("is a cluster running there? without --url one is started")
        }
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_prompts_share_their_beginning() {
        let mut prompts = Prompts { state: 7 };
        let (one, other) = (prompts.next(64), prompts.next(64));
        assert_eq!(one.len(), 64);
        assert_ne!(one[..8], other[..8]);
        assert!(one.iter().chain(&other).all(|id| IDS.contains(&u64::from(*id))));
        assert_eq!(Prompts { state: 7 }.next(64), one);
    }
}
