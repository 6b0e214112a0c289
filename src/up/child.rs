//! A daemon that `baton up` has started.

use super::files::Role;
use baton_node::exit::{Exit, Failure};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{ChildStdout, Command};
use tokio::sync::mpsc;

/// How long a process may take to be gone when it is killed.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// What a child says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Said {
    /// So many bytes of so many are read.
    Progress { done: u64, total: u64 },
    /// It takes work at this address.
    Ready(String),
    /// Its output has ended, and so has it.
    Gone,
}

/// A started daemon; killed when dropped.
pub(super) struct Child {
    pub(super) role: Role,
    pub(super) name: String,
    process: tokio::process::Child,
}

impl Child {
    /// Starts a daemon that dies with this process, however that ends.
    pub(super) fn start(
        role: Role,
        name: &str,
        config: &Path,
        said: &mpsc::Sender<(String, Said)>,
    ) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| {
            Failure::new(Exit::Unavailable, format!("cannot start {name}: {error}"))
        };
        let program = std::env::current_exe().map_err(failed)?;
        let mut process = Command::new(program)
            .arg(role.as_str())
            .arg("--config")
            .arg(config)
            .arg("--announce")
            .arg("--parent")
            .arg(std::process::id().to_string())
            // Ctrl-C reaches this process alone, which then stops the others in order.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        if let Some(stdout) = process.stdout.take() {
            let (name, said) = (name.to_owned(), said.clone());
            #[expect(clippy::disallowed_methods, reason = "ends with the child's output")]
            tokio::spawn(async move { listen(name, stdout, said).await });
        }
        Ok(Self { role, name: name.to_owned(), process })
    }

    /// Asks it to go.
    pub(super) fn terminate(&self) {
        let pid = self.process.id().and_then(|id| rustix::process::Pid::from_raw(id as i32));
        if let Some(pid) = pid {
            // It may have gone by itself in between.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
    }

    /// Kills it. What the system cannot end at once is left to it.
    pub(super) async fn kill(mut self) {
        let _ = tokio::time::timeout(KILL_PATIENCE, self.process.kill()).await;
    }

    /// Waits for its end and returns its exit code, if it had one.
    pub(super) async fn wait(mut self) -> Option<i32> {
        self.process.wait().await.ok().and_then(|status| status.code())
    }
}

async fn listen(name: String, stdout: ChildStdout, said: mpsc::Sender<(String, Said)>) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some(what) = parse(&line)
            && said.send((name.clone(), what)).await.is_err()
        {
            return;
        }
    }
    // Nobody listens only while this process ends.
    let _ = said.send((name, Said::Gone)).await;
}

fn parse(line: &str) -> Option<Said> {
    let mut words = line.split_ascii_whitespace();
    match (words.next()?, words.next(), words.next()) {
        ("ready", Some(uri), None) => Some(Said::Ready(uri.to_owned())),
        ("progress", Some(done), Some(total)) => {
            Some(Said::Progress { done: done.parse().ok()?, total: total.parse().ok()? })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_childs_lines_are_understood_and_noise_is_ignored() {
        assert_eq!(parse("ready http://[::1]:7"), Some(Said::Ready("http://[::1]:7".into())));
        assert_eq!(parse("progress 3 9"), Some(Said::Progress { done: 3, total: 9 }));
        for noise in ["", "ready", "progress 3", "progress x 9", "hello world"] {
            assert_eq!(parse(noise), None, "{noise}");
        }
    }
}
