//! `baton bench`: its command line.

use crate::choose::{self, ChooseArgs};
use crate::load::{self, RequestsArgs, StreamsArgs, TrivialArgs, WritesArgs};
use crate::parse::{self, ParseArgs};
use crate::policies::{self, PoliciesArgs};
use crate::sim::command::{self as sim, SimArgs};
use crate::smoke::{self, HostArgs, SmokeArgs};
use baton_node::exit::Failure;
use clap::{Args, Subcommand};

/// `baton bench`
#[derive(Debug, Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

/// What is measured.
#[derive(Debug, Subcommand)]
enum What {
    /// Ask a cluster, or one started for it, and show latencies, speeds and what moved
    Smoke(SmokeArgs),
    /// Run the whole cluster in virtual time, from seeds, under storms
    Sim(SimArgs),
    /// Time the choice of a worker among many
    Choose(ChooseArgs),
    /// Time the parsers of model output
    Parse(ParseArgs),
    /// Try policies on a recorded trace
    Policies(PoliciesArgs),
    /// Read many streams at once from a server, and count what they cost it
    Streams(StreamsArgs),
    /// Send a server small requests, as many as it answers
    Requests(RequestsArgs),
    /// Write small events to many connections, and count what that costs
    #[command(hide = true)]
    Writes(WritesArgs),
    /// Be a model server that always says the same
    #[command(hide = true)]
    TrivialWorker(TrivialArgs),
    /// Be the cluster of a measurement, and die with it
    #[command(hide = true)]
    Host(HostArgs),
}

/// Measures.
pub fn main(args: &BenchArgs) -> Result<(), Failure> {
    match &args.what {
        What::Smoke(args) => smoke::main(args),
        What::Sim(args) => sim::main(args),
        What::Choose(args) => choose::main(args),
        What::Parse(args) => parse::main(args),
        What::Policies(args) => policies::main(args),
        What::Streams(args) => load::streams(args),
        What::Requests(args) => load::requests(args),
        What::Writes(args) => load::writes(args),
        What::TrivialWorker(args) => load::trivial(args),
        What::Host(args) => smoke::host(args),
    }
}
