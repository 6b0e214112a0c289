//! `cargo xtask`: the project's own commands.
#![forbid(unsafe_code)]

mod ci;
mod clients;
mod failure;
#[cfg(feature = "gen")]
mod gen_proto;
mod process;
mod rdma;
mod source;
mod test;
mod tidy;
mod vm;

use failure::{Failure, Stop};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask ci                   everything that must pass before a merge, stage by stage
cargo xtask gate                 the same with the tests' long forms, before a release
cargo xtask tidy [--no-clippy]   the rules of the house, formatting and lints
cargo xtask test [--e2e]         the tests of all crates, or those that start whole clusters
cargo xtask clients              the Python clients against a cluster of this build
cargo xtask clients --agents     a tool loop of each coding agent from npm, on the scripted engine
cargo xtask rdma                 what talks to an RDMA card, on soft-RoCE in a virtual machine
cargo xtask vm -- COMMAND        a command in a virtual machine with an RDMA device (`vm --help`)
cargo xtask gen [--check]        the generated code of proto (needs `--features gen`)";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let root = root();
    let done = match words[..] {
        ["ci"] => ci::run(&root, ci::Length::Ci),
        ["gate"] => ci::run(&root, ci::Length::Gate),
        ["tidy"] => tidy::run(&root, true),
        ["tidy", "--no-clippy"] => tidy::run(&root, false),
        ["test"] => test::run(&root, test::Part::Rooms),
        ["test", "--e2e"] => test::run(&root, test::Part::EndToEnd),
        ["clients"] => return or_skipped("the client tests", clients::python::run(&root)),
        ["clients", "--agents"] => return or_skipped("the agents", clients::agents::run(&root)),
        // What it runs itself, in a network of its own.
        ["clients", clients::agents::INSIDE] => clients::agents::inside(&root),
        ["rdma"] => return or_skipped("the RDMA tests", rdma::run(&root)),
        ["vm", "--help" | "-h"] => {
            println!("{}", vm::USAGE);
            Ok(())
        }
        ["vm", ref words @ ..] => return machine(words),
        ["gen"] => generate(&root, false),
        ["gen", "--check"] => generate(&root, true),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(64);
        }
    };
    code(done)
}

fn code(done: Result<(), Failure>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

/// For the commands that may find that the machine lacks what they need.
fn or_skipped(what: &str, done: Result<(), Stop>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop::Skipped(reason)) => {
            println!("SKIPPED {what}: {reason}");
            ExitCode::from(ci::SKIPPED)
        }
        Err(Stop::Failed(failure)) => code(Err(failure)),
    }
}

/// A command in a virtual machine; its exit status is ours.
fn machine(words: &[&str]) -> ExitCode {
    let arguments = match vm::Arguments::parse(words) {
        Ok(arguments) => arguments,
        Err(wrong) => {
            eprintln!("vm: {wrong}\n\n{}", vm::USAGE);
            return ExitCode::from(64);
        }
    };
    match vm::run(&arguments) {
        Ok(status) => ExitCode::from(status),
        Err(stop) => or_skipped("the virtual machine", Err(stop)),
    }
}

/// The folder of the whole project, wherever the command was called.
fn root() -> PathBuf {
    let scripts = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    scripts.parent().map_or_else(|| PathBuf::from("."), PathBuf::from)
}

#[cfg(feature = "gen")]
fn generate(root: &Path, check: bool) -> Result<(), Failure> {
    let done = if check { gen_proto::check(root) } else { gen_proto::write(root) };
    done.map_err(|error| Failure::new(format!("gen: {error}")))
}

#[cfg(not(feature = "gen"))]
fn generate(_root: &Path, check: bool) -> Result<(), Failure> {
    let check = if check { " --check" } else { "" };
    let command = format!("cargo run --package xtask --features gen -- gen{check}");
    Err(Failure::new(format!("gen: the protobuf compiler is not built in; run `{command}`")))
}
