//! `baton bench streams` and `baton bench requests`: what a server holds out under many clients at
//! once, and what that costs the process that serves them.

mod cost;
mod feed;
mod requests;
mod steps;
mod streams;
mod trivial;
mod writes;

pub(crate) use requests::{RequestsArgs, main as requests};
pub(crate) use streams::{StreamsArgs, main as streams};
pub(crate) use trivial::{TrivialArgs, main as trivial};
pub(crate) use writes::{WritesArgs, main as writes};

use crate::client::ClientError;
use crate::signals::interrupted;
use baton_node::exit::{Exit, Failure};
use serde_json::Value;
use std::fmt::Display;

/// Runs a measurement on one thread, so that the other core is the server's alone.
fn measured(work: impl Future<Output = Result<Value, Failure>>) -> Result<Value, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Unavailable, format!("no runtime: {error}")))?;
    runtime.block_on(async {
        let interrupted = interrupted()?;
        tokio::select! {
            figures = work => figures,
            failure = interrupted => Err(failure),
        }
    })
}

/// A request that failed fails the measurement: a server that refuses is quick.
fn failure(error: &ClientError) -> Failure {
    unavailable(error)
}

/// What a measurement cannot do without is not there.
fn unavailable(problem: &dyn Display) -> Failure {
    Failure::new(Exit::Unavailable, problem.to_string())
}
