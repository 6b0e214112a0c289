//! `cargo xtask test`: all tests by nextest where it is installed, else by cargo's own runner.
//! The end-to-end tests, which start the built binary, are the root package's `tests/`.

use crate::failure::Failure;
use std::path::Path;
use std::process::{Command, Stdio};

/// Which part of the tests to run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Everything but the end-to-end tests.
    Rooms,
    /// The end-to-end tests.
    EndToEnd,
}

/// Runs one part of the tests to its end, also past a failure.
pub(crate) fn run(root: &Path, part: Part) -> Result<(), Failure> {
    let nextest = has_nextest();
    if !nextest {
        println!("cargo-nextest is not installed: using `cargo test`");
    }
    let arguments = arguments(part, nextest, std::env::var_os("BATON_LONG").is_some());
    let status = Command::new("cargo").args(&arguments).current_dir(root).status()?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(format!("`cargo {}` failed", arguments.join(" "))))
}

/// Both runners always take the whole workspace, or features would differ and crates be rebuilt.
fn arguments(part: Part, nextest: bool, long: bool) -> Vec<&'static str> {
    let mut words = Vec::new();
    if nextest {
        words.extend(["nextest", "run", "--workspace", "--no-fail-fast"]);
        if long {
            words.extend(["--profile", "gate"]);
        }
        words.extend(match part {
            Part::Rooms => ["-E", "not (package(=baton) & kind(test))"],
            Part::EndToEnd => ["-E", "package(=baton) & kind(test)"],
        });
    } else {
        words.extend(["test", "--workspace", "--no-fail-fast"]);
        // This runner cannot leave a package's tests out without changing features, so all
        // integration tests are in the second part.
        words.extend(match part {
            Part::Rooms => &["--lib", "--bins"] as &[&str],
            Part::EndToEnd => &["--test", "*"],
        });
    }
    words
}

fn has_nextest() -> bool {
    // Lets a machine that has nextest try what happens on one that has not.
    if std::env::var_os("BATON_NO_NEXTEST").is_some() {
        return false;
    }
    Command::new("cargo")
        .args(["nextest", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_parts_differ_only_in_what_they_select() {
        for nextest in [true, false] {
            let (rooms, e2e) = (Part::Rooms, Part::EndToEnd);
            let (rooms, e2e) = (arguments(rooms, nextest, false), arguments(e2e, nextest, false));
            assert_ne!(rooms, e2e);
            for always in ["--workspace", "--no-fail-fast"] {
                assert!(rooms.contains(&always) && e2e.contains(&always), "{rooms:?} {e2e:?}");
            }
        }
    }

    #[test]
    fn long_runs_get_the_patient_profile() {
        assert!(arguments(Part::Rooms, true, true).contains(&"gate"));
        assert!(!arguments(Part::Rooms, true, false).contains(&"gate"));
    }
}
