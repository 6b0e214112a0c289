//! A target of one's own: this very program once more, for as long as the measurement takes.

use super::XferArgs;
use baton_node::exit::{Exit, Failure};
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

const START_PATIENCE: Duration = Duration::from_secs(30);
const STOP_PATIENCE: Duration = Duration::from_secs(30);

/// The process that holds the blocks; killed when dropped, and when this process dies.
pub(super) struct Target {
    process: Child,
    /// Where it listens.
    pub(super) address: SocketAddr,
}

impl Target {
    /// Starts one that may hold so many bytes, and uses the same device and as many queue pairs.
    pub(super) async fn spawn(memory: u64, args: &XferArgs) -> Result<Self, Failure> {
        let device = args.device.iter().flat_map(|name| ["--device".to_owned(), name.clone()]);
        let pairs = args.queue_pairs.iter();
        let pairs = pairs.flat_map(|count| ["--queue-pairs".to_owned(), count.to_string()]);
        let failed = |error: &dyn std::fmt::Display| {
            Failure::new(Exit::Unavailable, format!("cannot start the target: {error}"))
        };
        let mut process = Command::new(std::env::current_exe().map_err(|error| failed(&error))?)
            .args(["xfer-bench", "--serve", "127.0.0.1:0", "--memory", &memory.to_string()])
            .args(["--parent", &std::process::id().to_string()])
            .args(device.chain(pairs))
            // Ctrl-C reaches this process alone, which then ends the target.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(&error))?;
        let mut lines = BufReader::new(process.stdout.take().expect("piped above")).lines();
        let line = tokio::time::timeout(START_PATIENCE, lines.next_line()).await;
        let line = line.map_err(|_| failed(&"it does not get ready"))?;
        let line = line.map_err(|error| failed(&error))?;
        let address = line.as_deref().and_then(|line| line.strip_prefix("serving: "));
        let address = address.and_then(|address| address.parse().ok());
        let address = address.ok_or_else(|| failed(&"it ended before it was ready"))?;
        Ok(Self { process, address })
    }

    /// Waits until it has gone by itself, as it does when its caller has.
    pub(super) async fn stop(mut self) {
        if tokio::time::timeout(STOP_PATIENCE, self.process.wait()).await.is_err() {
            eprintln!("warning: the target does not end and is killed");
        }
    }
}
