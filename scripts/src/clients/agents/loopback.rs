//! A network that has nothing but loopback, so that an agent that needs more than Baton fails.

use std::process::{Command, Output};

/// The first argument is a command, the others are its.
const UP: &str = "ip link set lo up && exec \"$@\"";

/// What runs the command that is added to it in such a network; or why this machine has none.
pub(super) fn alone() -> Result<Command, String> {
    let tried = enter().arg("true").output().map_err(|error| format!("`unshare`: {error}"))?;
    refused(&tried).map_or_else(|| Ok(enter()), Err)
}

fn enter() -> Command {
    let mut command = Command::new("unshare");
    // A user namespace too: without one, only root could do it.
    command.args(["--map-root-user", "--net", "--", "sh", "-c", UP, "sh"]);
    command
}

fn refused(tried: &Output) -> Option<String> {
    let said = || String::from_utf8_lossy(&tried.stderr).trim().to_owned();
    (!tried.status.success()).then(said)
}
