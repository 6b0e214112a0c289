//! `cargo xtask`: the project's own commands.
#![forbid(unsafe_code)]

mod failure;
#[cfg(feature = "gen")]
mod gen_proto;
mod source;
mod tidy;

use failure::Failure;
use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask tidy [--no-clippy]   the rules of the house, formatting and lints
cargo xtask gen                  the generated code of proto (needs `--features gen`)";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let root = root();
    let done = match words[..] {
        ["tidy"] => tidy::run(&root, true),
        ["tidy", "--no-clippy"] => tidy::run(&root, false),
        ["gen"] => generate(&root),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(64);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

/// The folder of the whole project, wherever the command was called.
fn root() -> PathBuf {
    let scripts = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    scripts.parent().map_or_else(|| PathBuf::from("."), PathBuf::from)
}

#[cfg(feature = "gen")]
fn generate(root: &std::path::Path) -> Result<(), Failure> {
    gen_proto::run(root).map_err(|error| Failure::new(format!("gen: {error}")))
}

#[cfg(not(feature = "gen"))]
fn generate(_root: &std::path::Path) -> Result<(), Failure> {
    let command = "cargo run --package xtask --features gen -- gen";
    Err(Failure::new(format!("gen: the protobuf compiler is not built in; run `{command}`")))
}
