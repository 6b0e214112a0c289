//! `baton bench`: its command line.

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
enum What {}

/// Measures.
pub fn main(args: &BenchArgs) -> Result<(), Failure> {
    match args.what {}
}
