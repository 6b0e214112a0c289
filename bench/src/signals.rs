//! Being asked to stop.

use baton_node::exit::{Exit, Failure};
use std::future::Future;
use tokio::signal::unix::{SignalKind, signal};

/// Ctrl-C, or a polite request to go.
pub(crate) fn interrupted() -> Result<impl Future<Output = Failure>, Failure> {
    let handler = |kind| {
        signal(kind).map_err(|error| {
            Failure::new(Exit::Unavailable, format!("no signal handlers: {error}"))
        })
    };
    let mut interrupt = handler(SignalKind::interrupt())?;
    let mut terminate = handler(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        Failure::new(Exit::Runtime, "interrupted before the end of the measurement")
    })
}
