//! The `baton` command: thin, it calls the crates.
#![forbid(unsafe_code)]

#[cfg(not(target_os = "linux"))]
compile_error!("Baton runs on Linux: it needs memfd, pidfd and the like");

mod chat;
mod cli;
mod daemons;
mod explain;
mod model;
mod run;
mod tenants;
mod up;

use clap::Parser;
use cli::{Cli, Command};
use mimalloc::MiMalloc;
use std::process::ExitCode;

/// Tokenising makes many small allocations, which glibc spends a third of its time on.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Up(args) => up::main(&args),
        Command::Router(args) => daemons::router(&args),
        Command::Prefill(args) => daemons::prefill(&args),
        Command::Decode(args) => daemons::decode(&args),
        Command::Run(args) => run::main(&args),
        Command::Chat(args) => chat::main(&args),
        Command::Explain(args) => explain::main(&args),
        Command::Tenants(args) => tenants::main(&args),
        Command::XferBench(args) => baton_bench::xfer(&args),
        Command::Bench(args) => baton_bench::main(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
