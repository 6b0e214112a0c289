//! A cluster of this build, for the length of a test.

use super::{binary, succeed};
use crate::failure::Failure;
use crate::process::Running;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

/// What `baton up` begins its one line with once requests are welcome.
const READY: &str = "ready: ";
/// The debug build loads the tiny checkpoint in a second or two.
const READY_MAX: Duration = Duration::from_mins(1);
/// An idle cluster has nothing to drain.
const DRAIN_MAX: Duration = Duration::from_secs(15);
/// The router answers from memory.
const METRICS_MAX: Duration = Duration::from_secs(10);
/// Far above what two workers' metrics take.
const METRICS_BYTES_MAX: u64 = 4 << 20;

/// A running `baton up`.
pub(super) struct Cluster {
    up: Running,
    /// Without a slash at the end.
    pub(super) url: String,
}

impl Cluster {
    /// Returns when requests are welcome; `more` are further arguments of `baton up`.
    pub(super) fn start(root: &Path, more: &[&OsStr]) -> Result<Self, Failure> {
        let mut child = Command::new(binary(root))
            .args(["up", "--listen", "127.0.0.1:0", "--prefill", "1", "--decode", "1"])
            .args(more)
            .current_dir(root)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let (found, url) = sync_channel(1);
        if let Some(out) = child.stdout.take() {
            // Reads to the end, so that the cluster never blocks on a full pipe.
            thread::spawn(move || {
                for line in BufReader::new(out).lines().map_while(Result::ok) {
                    println!("baton up: {line}");
                    if let Some(url) = ready(&line) {
                        let _ = found.try_send(url);
                    }
                }
            });
        }
        let up = Running::new(child);
        // Ends early, too, when the process has closed its output.
        let Ok(url) = url.recv_timeout(READY_MAX) else {
            let message = format!("`baton up` printed no `{READY}` line; its words are above");
            return Err(Failure::new(message));
        };
        Ok(Self { up, url })
    }

    /// What the router's `/metrics` says. HTTP 1.0, so that the answer ends with the connection.
    pub(super) fn metrics(&self) -> Result<String, Failure> {
        let address = self.url.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(METRICS_MAX))?;
        stream.write_all(format!("GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.take(METRICS_BYTES_MAX).read_to_string(&mut answer)?;
        match answer.split_once("\r\n\r\n") {
            Some((head, body)) if head.split(' ').nth(1) == Some("200") => Ok(body.to_owned()),
            _ => Err(Failure::new(format!("/metrics said:\n{answer}"))),
        }
    }

    /// Asks the cluster to drain, as Ctrl-C does, and waits for it.
    pub(super) fn stop(mut self) -> Result<(), Failure> {
        self.up.terminate();
        let seconds = DRAIN_MAX.as_secs();
        let late = || Failure::new(format!("`baton up` did not drain within {seconds} s"));
        let status = self.up.wait(DRAIN_MAX)?.ok_or_else(late)?;
        succeed("`baton up` after SIGTERM", status)
    }
}

/// The address in a ready line.
fn ready(line: &str) -> Option<String> {
    let url = line.strip_prefix(READY)?.split_whitespace().next()?;
    url.starts_with("http://").then(|| url.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_read_from_the_ready_line_only() {
        let line = "ready: http://127.0.0.1:8000  curl http://127.0.0.1:8000/v1/models";
        assert_eq!(ready(line).as_deref(), Some("http://127.0.0.1:8000"));
        assert_eq!(ready("not ready: http://127.0.0.1:8000"), None);
        assert_eq!(ready("ready: soon"), None);
    }
}
