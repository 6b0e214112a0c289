//! A cluster of one's own: `baton up` of this very program, for as long as the measurement takes.

use super::SmokeArgs;
use baton_node::drain::die_with_parent;
use baton_node::exit::{Exit, Failure};
use clap::Args;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

/// What the demo model needs to load, many times over.
const START_PATIENCE: Duration = Duration::from_mins(2);
/// More than `baton up` itself allows its daemons.
const STOP_PATIENCE: Duration = Duration::from_secs(40);

/// A running `baton up`; killed when dropped, and when this process dies.
pub(super) struct LocalCluster {
    process: Child,
    said: Lines<BufReader<ChildStdout>>,
    complaints: Lines<BufReader<ChildStderr>>,
}

impl LocalCluster {
    /// Starts it, on a free port.
    pub(super) fn spawn(args: &SmokeArgs) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| {
            Failure::new(Exit::Unavailable, format!("cannot start `baton up`: {error}"))
        };
        let mut process = Command::new(std::env::current_exe().map_err(failed)?)
            .args(["bench", "host", "--parent", &std::process::id().to_string(), "--"])
            .args(["--listen", "127.0.0.1:0"])
            .args(["--engine", args.engine.as_str(), "--transport", args.transport.as_str()])
            // Ctrl-C reaches this process alone, which then stops the cluster.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let said = lines(process.stdout.take().expect("piped above"));
        let complaints = lines(process.stderr.take().expect("piped above"));
        Ok(Self { process, said, complaints })
    }

    /// Works with the cluster's address as soon as it is ready; ends early if the cluster does.
    pub(super) async fn run<T>(
        &mut self,
        work: impl AsyncFnOnce(String) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let Self { process, said, complaints } = self;
        let working = async {
            let url = tokio::time::timeout(START_PATIENCE, ready(said)).await.map_err(|_| {
                let message = format!("the cluster is not ready after {START_PATIENCE:?}");
                Failure::new(Exit::Unavailable, message)
            })?;
            work(url).await
        };
        let complaint = tokio::select! {
            result = working => return result,
            complaint = last_words(complaints) => complaint,
        };
        let code = process.wait().await.ok().and_then(|status| status.code());
        Err(Failure::new(exit_of(code), complaint))
    }

    /// Asks it to go and waits until it has gone.
    pub(super) async fn stop(mut self) {
        let pid = self.process.id().and_then(|id| rustix::process::Pid::from_raw(id as i32));
        if let Some(pid) = pid {
            // It may have gone by itself in between.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        // Its farewell is read, so that it never waits for a reader, but shown to nobody.
        let gone = async {
            while let Ok(Some(_)) = self.complaints.next_line().await {}
            self.process.wait().await
        };
        if tokio::time::timeout(STOP_PATIENCE, gone).await.is_err() {
            eprintln!("warning: the cluster does not end and is killed");
        }
    }
}

fn lines<R: AsyncRead + Unpin>(pipe: R) -> Lines<BufReader<R>> {
    BufReader::new(pipe).lines()
}

/// The address in the ready line. Without such a line this never returns: the end of the process
/// is told by its stderr, with the reason.
async fn ready(said: &mut Lines<BufReader<ChildStdout>>) -> String {
    while let Ok(Some(line)) = said.next_line().await {
        if let Some(url) = ready_url(&line) {
            return url.to_owned();
        }
    }
    std::future::pending().await
}

fn ready_url(line: &str) -> Option<&str> {
    line.strip_prefix("ready: ")?.split_ascii_whitespace().next()
}

/// Shows what the cluster writes until it ends, and returns why it has: the first error is the
/// cause, further ones follow from it.
async fn last_words(complaints: &mut Lines<BufReader<ChildStderr>>) -> String {
    let mut cause = None;
    while let Ok(Some(line)) = complaints.next_line().await {
        match line.strip_prefix("error: ") {
            Some(error) if cause.is_none() => cause = Some(error.to_owned()),
            Some(_) => {}
            None => eprintln!("{line}"),
        }
    }
    cause.unwrap_or_else(|| "the cluster has ended".to_owned())
}

/// The cluster's own exit code, as far as it has a meaning.
fn exit_of(code: Option<i32>) -> Exit {
    let known = [Exit::Usage, Exit::Config, Exit::Unavailable, Exit::Permission];
    known.into_iter().find(|exit| code == Some(*exit as i32)).unwrap_or(Exit::Runtime)
}

/// `baton bench host`
#[derive(Debug, Args)]
pub(crate) struct HostArgs {
    /// Die with the process of this id, which must be the parent
    #[arg(long, value_name = "PID")]
    parent: u32,
    /// What `baton up` is to be told
    #[arg(last = true)]
    up: Vec<OsString>,
}

/// Becomes `baton up`. What the kernel has been asked for survives the change of program: the
/// cluster dies with the measurement, also when that is killed.
pub(crate) fn host(args: &HostArgs) -> Result<(), Failure> {
    die_with_parent(args.parent)?;
    let program = std::env::current_exe();
    let error = match program {
        Ok(program) => std::process::Command::new(program).arg("up").args(&args.up).exec(),
        Err(error) => error,
    };
    Err(Failure::new(Exit::Unavailable, format!("cannot start `baton up`: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_line_is_told_from_others() {
        let line = "ready: http://127.0.0.1:8080  try: curl -N http://127.0.0.1:8080/v1";
        assert_eq!(ready_url(line), Some("http://127.0.0.1:8080"));
        for other in ["", "ready:", "already: http://x", "also: http://127.0.0.1:1"] {
            assert_eq!(ready_url(other), None, "{other}");
        }
    }

    #[test]
    fn a_clusters_exit_code_is_passed_on_where_it_says_something() {
        assert_eq!(exit_of(Some(64)), Exit::Config);
        assert_eq!(exit_of(Some(69)), Exit::Unavailable);
        for other in [None, Some(0), Some(1), Some(139)] {
            assert_eq!(exit_of(other), Exit::Runtime, "{other:?}");
        }
    }
}
