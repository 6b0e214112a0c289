//! The Python clients: makes a virtual environment with pinned packages, starts a cluster, and runs
//! tests/clients.

use super::cluster::Cluster;
use super::{binary, succeed, target};
use crate::failure::{Failure, Stop};
use std::path::{Path, PathBuf};
use std::process::Command;

const TESTS: &str = "tests/clients";

/// Runs all client tests.
pub(crate) fn run(root: &Path) -> Result<(), Stop> {
    let python = environment(root)?;
    // The same units with the same features as the tests, which have been built already in CI.
    let units = ["build", "--workspace", "--bins", "--tests"];
    succeed("cargo build", Command::new("cargo").args(units).current_dir(root).status()?)?;
    let cluster = Cluster::start(root, &[])?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_network_is_told_from_a_missing_package() {
        assert!(unreachable("WARNING: Retrying … Temporary failure in name resolution"));
        assert!(!unreachable("ERROR: No matching distribution found for openai==0.0.1"));
    }
}
