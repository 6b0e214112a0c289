//! `cargo xtask clients`: other people's clients against a real cluster of this build. The Python
//! packages are part of CI; the coding agents are asked for by `--agents`.

pub(crate) mod agents;
mod cluster;
pub(crate) mod python;

use crate::failure::Failure;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

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
