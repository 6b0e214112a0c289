//! `baton bench`: its command line.

use crate::sim::command::{self as sim, SimArgs};
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
    /// Run the whole cluster in virtual time, from seeds, under storms
    Sim(SimArgs),
}

/// Measures.
pub fn main(args: &BenchArgs) -> Result<(), Failure> {
    match &args.what {
        What::Sim(args) => sim::main(args),
    }
}
