//! `cargo xtask clients`: other people's clients against a real cluster. Makes a virtual
//! environment with pinned packages, starts `baton up` on a free port, and runs tests/clients.

use crate::failure::{Failure, Stop};
use crate::process::Running;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

const TESTS: &str = "tests/clients";
/// What `baton up` begins its one line with once requests are welcome.
const READY: &str = "ready: ";
/// The debug build loads the tiny checkpoint in a second or two.
const READY_MAX: Duration = Duration::from_mins(1);
/// An idle cluster has nothing to drain.
const DRAIN_MAX: Duration = Duration::from_secs(15);

/// Runs all client tests.
pub(crate) fn run(root: &Path) -> Result<(), Stop> {
    let python = environment(root)?;
    // The same units with the same features as the tests, which have been built already in CI.
    let units = ["build", "--workspace", "--bins", "--tests"];
    succeed("cargo build", Command::new("cargo").args(units).current_dir(root).status()?)?;
    let cluster = Cluster::start(root)?;
    let tested = Command::new(python)
        .args(["-m", "pytest", "-q", "-p", "no:cacheprovider", TESTS])
        .current_dir(root)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("BASE_URL", &cluster.url)
        .env("BATON", binary(root))
        .env("GRPC_ADDRESS", cluster.url.trim_start_matches("http://"))
        .status()?;
    // How it stops is part of what is tested, but a failed test is the better message.
    let stopped = cluster.stop();
    succeed("the client tests", tested)?;
    stopped?;
    Ok(())
}

/// The interpreter of a virtual environment that has exactly what requirements.txt names.
fn environment(root: &Path) -> Result<PathBuf, Stop> {
    let wanted = std::fs::read_to_string(root.join(TESTS).join("requirements.txt"))?;
    let folder = target(root).join("clients-venv");
    let (python, stamp) = (folder.join("bin/python"), folder.join("installed.txt"));
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    println!("making a virtual environment for the client tests");
    let base = std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
    let made = Command::new(&base).args(["-m", "venv", "--clear"]).arg(&folder).output();
    match made {
        Ok(made) if made.status.success() => {}
        Ok(made) => {
            let said = String::from_utf8_lossy(&made.stdout).trim().to_owned();
            return Err(Stop::Skipped(format!("`python3 -m venv` does not work here: {said}")));
        }
        Err(error) => return Err(Stop::Skipped(format!("no python3 here: {error}"))),
    }
    let requirements = root.join(TESTS).join("requirements.txt");
    let installed = Command::new(&python)
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
        .args(["--retries", "2", "--requirement"])
        .arg(requirements)
        .output()?;
    if !installed.status.success() {
        let said = String::from_utf8_lossy(&installed.stderr).into_owned();
        if unreachable(&said) {
            return Err(Stop::Skipped("the Python package index cannot be reached".to_owned()));
        }
        return Err(Failure::new(format!("pip install failed:\n{said}")).into());
    }
    std::fs::write(stamp, wanted)?;
    Ok(python)
}

/// Whether pip failed for want of a network rather than of a package.
fn unreachable(said: &str) -> bool {
    let signs = ["connection broken", "Max retries exceeded", "Name or service not known"];
    let more = ["Temporary failure in name resolution", "NewConnectionError", "ProxyError"];
    signs.iter().chain(&more).any(|sign| said.contains(sign))
}

fn target(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from)
}

fn binary(root: &Path) -> PathBuf {
    target(root).join("debug/baton")
}

fn succeed(what: &str, status: ExitStatus) -> Result<(), Failure> {
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(format!("{what} failed: {status}")))
}

/// A running `baton up`.
struct Cluster {
    up: Running,
    url: String,
}

impl Cluster {
    fn start(root: &Path) -> Result<Self, Failure> {
        let mut child = Command::new(binary(root))
            .args(["up", "--listen", "127.0.0.1:0", "--prefill", "1", "--decode", "1"])
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

    /// Asks the cluster to drain, as Ctrl-C does, and waits for it.
    fn stop(mut self) -> Result<(), Failure> {
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

    #[test]
    fn a_missing_network_is_told_from_a_missing_package() {
        assert!(unreachable("WARNING: Retrying … Temporary failure in name resolution"));
        assert!(!unreachable("ERROR: No matching distribution found for openai==0.0.1"));
    }
}
