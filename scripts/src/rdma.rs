//! `cargo xtask rdma`: what talks to an RDMA card, run on soft-RoCE in a virtual machine: perftest
//! between two guests over a network that loses packets, the tests of `transfer` that want a device,
//! and a cluster whose blocks travel by RDMA.

use crate::failure::{Failure, Stop};
use crate::vm;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// A part of the tests.
struct Step {
    what: &'static str,
    /// The cargo package, and the target's name and kind in it.
    package: &'static str,
    target: (&'static str, &'static str),
    /// Words that the names of the tests begin with or contain.
    filter: &'static str,
    max: Duration,
}

const STEPS: [Step; 2] = [
    Step {
        what: "transfer's tests on a device",
        package: "transfer",
        target: ("baton_transfer", "lib"),
        filter: "verbs",
        max: Duration::from_mins(6),
    },
    Step {
        what: "a cluster over RDMA",
        package: "",
        target: ("smoke", "test"),
        filter: "verbs",
        max: Duration::from_mins(4),
    },
];
/// What the tests read: their long forms, and the random case to repeat.
const PASSED_ON: [&str; 2] = ["BATON_LONG", "BATON_SEED"];
/// Two guests boot side by side.
const SMOKE_MAX: Duration = Duration::from_mins(4);

/// Runs all parts up to the first that fails.
pub(crate) fn run(root: &Path) -> Result<(), Stop> {
    vm::prepare()?;
    let built = built(root)?;
    let mut runs = Vec::new();
    for step in &STEPS {
        let binary = executable(&built, step.target)
            .ok_or_else(|| Failure::new(format!("cargo built no test {}", step.target.0)))?;
        expect_tests(&binary, step.filter)?;
        runs.push((step, binary));
    }
    smoke(root)?;
    for (step, binary) in runs {
        let (binary, folder) = (text(&binary)?, text(&root.join(step.package))?);
        // One at a time: some count what the device has, or take its port down.
        let words = ["env", "-C", &folder, &binary, step.filter, "--test-threads=1"];
        let mut arguments = vm::Arguments::new(&words)
            .with_env("BATON_VERBS_DEVICE", "rxe0")
            .with_timeout(scaled(step.max));
        for name in PASSED_ON {
            if let Ok(value) = std::env::var(name) {
                arguments = arguments.with_env(name, &value);
            }
        }
        succeed(step.what, &arguments)?;
    }
    Ok(())
}

/// The device, the wire and the faults, without any code of ours.
fn smoke(root: &Path) -> Result<(), Stop> {
    let script = text(&root.join("scripts/vm/smoke.sh"))?;
    let arguments = vm::Arguments::new(&["bash", &script]).pair().with_timeout(SMOKE_MAX);
    succeed("perftest between two guests", &arguments)
}

fn succeed(what: &str, arguments: &vm::Arguments) -> Result<(), Stop> {
    println!("\n-- {what}");
    match vm::run(arguments)? {
        0 => Ok(()),
        status => Err(Failure::new(format!("{what}: exit status {status}")).into()),
    }
}

/// The tests' long forms take longer.
fn scaled(max: Duration) -> Duration {
    if std::env::var_os("BATON_LONG").is_some() { 20 * max } else { max }
}

fn text(path: &Path) -> Result<String, Failure> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| Failure::new(format!("{} is not UTF-8", path.display())))
}

/// What cargo says of each test binary of the workspace, built with the features of all stages.
fn built(root: &Path) -> Result<String, Failure> {
    let words = ["test", "--workspace", "--no-run", "--message-format", "json-render-diagnostics"];
    let built = Command::new("cargo")
        .args(words)
        .current_dir(root)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    if !built.status.success() {
        return Err(Failure::new(format!("`cargo {}` failed", words.join(" "))));
    }
    Ok(String::from_utf8_lossy(&built.stdout).into_owned())
}

/// One line of cargo's messages (https://doc.rust-lang.org/cargo/reference/external-tools.html).
#[derive(Deserialize)]
struct Artifact {
    target: Target,
    profile: Profile,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

/// The test binary of a target.
fn executable(messages: &str, (name, kind): (&str, &str)) -> Option<PathBuf> {
    messages.lines().find_map(|line| {
        // Other messages have no such fields.
        let artifact: Artifact = serde_json::from_str(line).ok()?;
        let target = artifact.target;
        let wanted = target.name == name && target.kind.iter().any(|has| has == kind);
        (wanted && artifact.profile.test).then_some(artifact.executable).flatten()
    })
}

/// A filter that fits no test would pass without a word.
fn expect_tests(binary: &Path, filter: &str) -> Result<(), Failure> {
    let listed = Command::new(binary).args(["--list", filter]).stdin(Stdio::null()).output()?;
    if String::from_utf8_lossy(&listed.stdout).lines().any(|line| line.ends_with(": test")) {
        return Ok(());
    }
    Err(Failure::new(format!("{} has no test `{filter}`", binary.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_binary_is_told_from_the_library_and_from_other_targets() {
        let line = |name: &str, kind: &str, test: bool, file: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","target":{{"kind":["{kind}"],"name":"{name}"}},"profile":{{"test":{test}}},"executable":{file}}}"#
            )
        };
        let messages = [
            line("baton_transfer", "lib", false, "null"),
            line("baton_transfer", "lib", true, "\"/t/a\""),
            line("smoke", "test", true, "\"/t/b\""),
            r#"{"reason":"build-finished","success":true}"#.to_owned(),
            "cargo says hello".to_owned(),
        ]
        .join("\n");
        let found = |target| executable(&messages, target);
        assert_eq!(found(("baton_transfer", "lib")), Some("/t/a".into()));
        assert_eq!(found(("smoke", "test")), Some("/t/b".into()));
        assert_eq!(found(("smoke", "lib")), None);
    }

    #[test]
    fn a_filter_that_fits_no_test_is_refused() -> Result<(), Failure> {
        let this = std::env::current_exe()?;
        expect_tests(&this, "a_filter_that_fits_no_test")?;
        let refused = expect_tests(&this, concat!("no_such", "_name"));
        assert!(refused.is_err_and(|failure| failure.to_string().contains("no_such_name")));
        Ok(())
    }
}
