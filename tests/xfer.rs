//! `baton xfer-bench` from outside: small measurements, two processes, and how they end.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

const BATON: &str = env!("CARGO_BIN_EXE_baton");
/// A measurement as small as it can be.
const SMALL: &[&str] =
    &["--block-size", "4K,64K", "--batch-bytes", "256K", "--working-set", "1M", "--rounds", "2"];

fn xfer(arguments: &[&str]) -> Command {
    let mut command = Command::new(BATON);
    command.arg("xfer-bench").args(arguments).stdin(Stdio::null());
    command
}

fn rows(stdout: &[u8]) -> (Value, Vec<Value>) {
    let text = std::str::from_utf8(stdout).unwrap();
    let report: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    let rows = report["rows"].as_array().unwrap().clone();
    (report, rows)
}

fn interrupt(process: &Child) {
    let pid = rustix::process::Pid::from_child(process);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
}

/// Children of a process, by their ids.
fn children(pid: u32) -> Vec<String> {
    let listed = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    listed.split_ascii_whitespace().map(str::to_owned).collect()
}

#[test]
fn every_transport_moves_what_was_published() {
    let mut arguments = SMALL.to_vec();
    let placement = ["--iterations", "2", "--threads", "2", "--streams", "2"];
    arguments.extend(placement);
    arguments.extend(["--placement", "random", "--load", "1", "--check", "--json"]);
    let output = xfer(&arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let (report, rows) = rows(&output.stdout);
    // 2 transports; for each size all blocks, before and after.
    assert_eq!(report["checked_blocks"], 2 * 2 * (256 + 16));
    // For each size 2 transports and mappings, these and memcpy once more under load, 2 limits, and
    // posting.
    assert_eq!(rows.len(), 2 * (3 + 4 + 2 + 1));
    let (mapped, rows): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row["op"] == "map");
    for row in mapped {
        assert!(row["us_per_descriptor"].as_f64().unwrap() > 0.0, "{row}");
        assert!(row["gb_per_s"].is_null() && row["cpu_s_per_gib"].is_null(), "{row}");
        // Rounds and iterations, on one task.
        assert_eq!(row["pulls"], 2 * 2, "{row}");
    }
    let (posted, rows): (Vec<_>, Vec<_>) =
        rows.into_iter().partition(|row| row["transport"] == "posting");
    for row in posted {
        assert!(row["us_per_descriptor"].as_f64().unwrap() > 0.0, "{row}");
        let [requests, doorbells] = ["work_requests", "doorbells"].map(|key| row[key].as_u64());
        let batch = row["batch"].as_u64().unwrap();
        // Rounds and iterations; each block is a request, and records come with more.
        assert!(
            requests >= Some(4 * batch) && doorbells < requests && doorbells > Some(0),
            "{row}"
        );
        assert!(row["gb_per_s"].is_null());
    }
    for row in &rows {
        assert!(row["gb_per_s"].as_f64().unwrap() > 0.0, "{row}");
        let transport = row["transport"].as_str().unwrap();
        let pulled = matches!(transport, "tcp" | "shm");
        if pulled {
            // Rounds, lanes and iterations; each as large as a batch.
            assert_eq!(row["pulls"], 2 * 2 * 2, "{row}");
            assert!(row["p50_us"].as_f64().unwrap() <= row["p999_us"].as_f64().unwrap(), "{row}");
            assert!(row["of_limit"].as_f64().unwrap() > 0.0, "{row}");
        }
        let threads = if pulled { 2 } else { 1 };
        assert_eq!(row["bytes"], 2 * 2 * threads * (256 << 10), "{row}");
        let quiet = row["load"] == false;
        assert_eq!(row["cpu_s_per_gib"].is_null(), !quiet, "{row}");
        assert_eq!(row["busy_p99_ratio"].is_null(), quiet, "{row}");
    }
}

#[test]
fn one_target_serves_callers_one_after_the_other() {
    let mut target =
        xfer(&["--serve", "127.0.0.1:0", "--memory", "1M"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(target.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("serving: ").unwrap();
    for transport in ["tcp", "shm"] {
        let arguments = ["--target", address, "--transport", transport, "--iterations", "1"];
        let output = xfer(&[SMALL, &arguments, &["--json"]].concat()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(rows(&output.stdout).1.iter().any(|row| row["transport"] == transport));
    }
    let too_much = ["--target", address, "--working-set", "2M", "--iterations", "1"];
    let output = xfer(&too_much).output().unwrap();
    assert_eq!(output.status.code(), Some(69));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("--memory allows 1048576"), "{said}");
    interrupt(&target);
    assert_eq!(target.wait().unwrap().code(), Some(0));
}

#[test]
fn an_interrupted_measurement_ends_with_its_target() {
    let dir = tempfile::tempdir().unwrap();
    let mut measuring = xfer(&[SMALL, &["--seconds", "60"]].concat())
        .env("TMPDIR", dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(measuring.stderr.take().unwrap()).lines();
    assert!(said.any(|line| line.unwrap().contains("round 1")));
    let targets = children(measuring.id());
    assert_eq!(targets.len(), 1);
    interrupt(&measuring);
    let last = said.map(Result::unwrap).last().unwrap();
    assert_eq!(last, "error: interrupted before the end of the measurement");
    assert_eq!(measuring.wait().unwrap().code(), Some(1));
    assert!(!std::path::Path::new(&format!("/proc/{}", targets[0])).exists());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_mistake_is_told_before_anything_is_started() {
    for (arguments, flag) in [
        (["--block-size", "4 apples"], "--block-size"),
        (["--seconds", "0"], "--seconds"),
        (["--transport", "carrier-pigeon"], "--transport"),
    ] {
        let output = xfer(&arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(flag), "{said}");
    }
    let output = xfer(&["--target", "127.0.0.1:1"]).output().unwrap();
    assert_eq!(output.status.code(), Some(69));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--serve"));
}
