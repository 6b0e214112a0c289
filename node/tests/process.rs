//! Signals and parents: what only a process of its own can show.
//!
//! The test runs this very binary again as a child, with a role in its environment.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use baton_node::clock::{Clock, Monotonic};
use baton_node::drain::{Cause, die_with_parent};
use baton_node::{Drain, Tasks};
use rustix::process::{Pid, Signal, kill_process};

const ROLE: &str = "BATON_TEST_ROLE";
const PARENT: &str = "BATON_TEST_PARENT";
/// Longer than any test waits: what ends before it was ended by the second signal.
const GRACE: Duration = Duration::from_secs(30);

/// Starts this binary in a role; its stdout is a pipe.
fn start(role: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "in_a_role", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .env(PARENT, std::process::id().to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Not a test of its own: what the children do.
#[test]
fn in_a_role() {
    match std::env::var(ROLE).as_deref() {
        Ok("daemon") => daemon(),
        Ok("parent") => {
            // Keeps its child's stdout open to the test: the pipe ends when both are gone.
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "in_a_role", "--nocapture", "--test-threads=1"])
                .env(ROLE, "child")
                .env(PARENT, std::process::id().to_string())
                .spawn()
                .unwrap();
            child.wait().unwrap();
        }
        Ok("child") => {
            let parent = std::env::var(PARENT).unwrap().parse().unwrap();
            die_with_parent(parent).unwrap();
            say("ready");
            // Killed in here. The limit only makes a failure end.
            std::thread::park_timeout(Duration::from_secs(20));
            say("outlived");
        }
        Ok("orphan") => {
            say(if die_with_parent(u32::MAX).is_err() { "refused" } else { "accepted" });
        }
        _ => {}
    }
}

fn daemon() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let drain = Drain::new(GRACE);
        let tasks = Tasks::new(&drain, 8);
        drain.watch_signals(&tasks).unwrap();
        tasks.spawn("endless", std::future::pending::<()>());
        let watched = drain.clone();
        tasks.spawn("witness", async move {
            watched.draining().await;
            say("draining");
        });
        say("ready");
        let drained = drain.conclude(&tasks).await;
        say(&format!("{:?} {:?}", drained.cause, drained.dropped));
    });
}

fn say(line: &str) {
    println!("\n> {line}");
    std::io::stdout().flush().unwrap();
}

/// The next line that a child says; the test runner's own lines are passed over.
fn hear(lines: &mut impl BufRead) -> String {
    let mut line = String::new();
    loop {
        line.clear();
        assert_ne!(lines.read_line(&mut line).unwrap(), 0, "the child has ended");
        if let Some(said) = line.strip_prefix("> ") {
            return said.trim().to_string();
        }
    }
}

fn kill(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

#[test]
fn the_first_signal_drains_and_the_second_ends() {
    for (signal, cause) in [(Signal::TERM, Cause::Terminated), (Signal::INT, Cause::Interrupted)] {
        let latest = Monotonic::process().now() + GRACE;
        let mut child = start("daemon");
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        assert_eq!(hear(&mut lines), "ready");
        kill(&child, signal);
        assert_eq!(hear(&mut lines), "draining");
        kill(&child, signal);
        assert_eq!(hear(&mut lines), format!("{cause:?} [(\"endless\", 1)]"));
        // The pipe is read to its end: a child must be able to write its last words.
        lines.read_to_string(&mut String::new()).unwrap();
        assert!(child.wait().unwrap().success());
        assert!(Monotonic::process().now() < latest, "the grace was waited for");
    }
}

#[test]
fn a_child_does_not_outlive_a_parent_that_was_killed() {
    let mut parent = start("parent");
    let mut lines = BufReader::new(parent.stdout.take().unwrap());
    assert_eq!(hear(&mut lines), "ready");
    kill(&parent, Signal::KILL);
    parent.wait().unwrap();
    // The child holds the other end of the pipe; it ends with the child.
    let mut last_words = String::new();
    lines.read_to_string(&mut last_words).unwrap();
    assert!(!last_words.contains("outlived"));
}

#[test]
fn a_child_whose_parent_is_gone_is_told() {
    let mut child = start("orphan");
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    assert_eq!(hear(&mut lines), "refused");
    lines.read_to_string(&mut String::new()).unwrap();
    child.wait().unwrap();
}
