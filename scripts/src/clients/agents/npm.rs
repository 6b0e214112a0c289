//! The agents as npm installs them.

use super::super::target;
use crate::failure::{Failure, Stop};
use crate::process::output;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Names the packages and their exact versions.
const WANTED: &str = "tests/agents/package.json";
/// More than a gigabyte is unpacked.
const INSTALL_MAX: Duration = Duration::from_mins(10);
/// How npm says that it has no network.
const UNREACHABLE: [&str; 7] = [
    "EAI_AGAIN",
    "ENOTFOUND",
    "ECONNREFUSED",
    "ECONNRESET",
    "ENETUNREACH",
    "ETIMEDOUT",
    "ERR_SOCKET_TIMEOUT",
];

/// Where the installed programs are.
pub(super) fn programs(root: &Path) -> io::Result<PathBuf> {
    Ok(folder(root)?.join("node_modules/.bin"))
}

/// Sees to it that exactly what package.json names is installed.
pub(super) fn install(root: &Path) -> Result<(), Stop> {
    let wanted = std::fs::read_to_string(root.join(WANTED))?;
    let folder = folder(root)?;
    let stamp = folder.join("installed.json");
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    if let Err(error) = Command::new("npm").arg("--version").output() {
        return Err(Stop::Skipped(format!("no npm here: {error}")));
    }
    println!("installing the agents: some 1.1 GB under {}", folder.display());
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("package.json"), &wanted)?;
    let mut npm = Command::new("npm");
    npm.args(["install", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"])
        .args(["--fetch-retries=1", "--fetch-retry-mintimeout=1000"])
        .current_dir(&folder);
    let installed = output(&mut npm, &folder, INSTALL_MAX)?;
    if installed.success() {
        std::fs::write(stamp, wanted)?;
        return Ok(());
    }
    if unreachable(&installed.stderr) {
        return Err(Stop::Skipped("the npm registry cannot be reached".to_owned()));
    }
    Err(Failure::new(format!("npm install failed:\n{}", installed.stderr)).into())
}

fn folder(root: &Path) -> io::Result<PathBuf> {
    std::path::absolute(target(root).join("agents"))
}

/// Whether npm failed for want of a network rather than of a package.
fn unreachable(said: &str) -> bool {
    UNREACHABLE.iter().any(|sign| said.contains(sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_network_is_told_from_a_missing_package() {
        assert!(unreachable("npm error code EAI_AGAIN\nnpm error syscall getaddrinfo"));
        assert!(!unreachable("npm error code ETARGET\nnpm error No matching version found"));
    }
}
