//! How a process ends: typed exit codes, and errors that become one line with a hint.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

/// The exit codes of every `baton` command. Scripts and unit files rely on them:
/// `RestartPreventExitStatus=64` keeps a mistyped configuration from restarting for ever.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Exit {
    /// All went well.
    Ok = 0,
    /// Something failed while running.
    Runtime = 1,
    /// The command line makes no sense (`clap` uses the same code).
    Usage = 2,
    /// A configuration or a checkpoint is wrong: starting again will not help.
    Config = 64,
    /// Something needed is not available: a port is in use, a peer or memory is missing.
    Unavailable = 69,
    /// An invariant is broken; whatever the process knew can no longer be trusted.
    BrokenInvariant = 70,
    /// The system refused permission.
    Permission = 77,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error that knows what its reader can do about it.
pub trait Hint: Error {
    /// What to try next; a clause without a full stop.
    fn hint(&self) -> Option<Cow<'_, str>> {
        None
    }

    /// The code to exit with if the error ends the process.
    fn exit(&self) -> Exit {
        Exit::Runtime
    }
}

/// What ends a process: any [`Hint`] converts into it, so that `?` works all through a main.
///
/// It is not an [`Error`] itself: nothing handles it, it is only reported.
#[derive(Clone, PartialEq, Eq)]
pub struct Failure {
    exit: Exit,
    message: String,
    hint: Option<String>,
}

impl Failure {
    /// A failure without a typed error behind it.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None }
    }

    /// Adds what the reader can do.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The code to exit with.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// Writes the one line to stderr and returns the code for `main` to return.
    pub fn report(&self) -> ExitCode {
        tell(&format_args!("error: {self}"));
        self.exit.into()
    }
}

/// Writes a line for people to stderr, in one piece since processes share it. That nobody reads it
/// is no reason to fail.
pub fn tell(line: &dyn fmt::Display) {
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

impl<E: Hint> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            let text = inner.to_string();
            // Many libraries repeat their cause in their own text.
            if !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            cause = inner.source();
        }
        Self { exit: error.exit(), message, hint: error.hint().map(Cow::into_owned) }
    }
}

impl fmt::Display for Failure {
    /// One line, whatever the parts contain.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = self.message.clone();
        if let Some(hint) = &self.hint {
            line = format!("{line} (hint: {hint})");
        }
        f.write_str(&line.split_whitespace().collect::<Vec<_>>().join(" "))
    }
}

impl fmt::Debug for Failure {
    /// As `Display`: a `main` that returns `Result<(), Failure>` prints this.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The rooms in which a panic means that memory can no longer be trusted.
const ROOMS_THAT_MUST_NOT_PANIC: [&str; 3] = ["kv", "arena", "transfer"];

/// From now on a panic raised inside kv, arena or transfer ends the process with
/// [`Exit::BrokenInvariant`]: a block whose owner is unknown must not be served. The cluster
/// absorbs the loss of a worker, it cannot absorb a wrong token. Every other panic stays what it
/// was: the loss of one task.
pub fn end_on_broken_invariant() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        default(panic);
        if panic.location().is_some_and(|at| must_not_panic(at.file())) {
            tell(&"error: a broken invariant, the process ends with code 70");
            #[expect(clippy::exit, clippy::disallowed_methods, reason = "nothing may run on")]
            std::process::exit(Exit::BrokenInvariant as i32);
        }
    }));
}

/// Whether a source file (`kv/src/pool.rs`, or an absolute path to it) belongs to such a room.
fn must_not_panic(file: &str) -> bool {
    let parts: Vec<&str> = file.split(['/', '\\']).collect();
    parts.windows(2).any(|pair| ROOMS_THAT_MUST_NOT_PANIC.contains(&pair[0]) && pair[1] == "src")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer\nfailed")]
    struct Outer(#[source] std::num::ParseIntError);

    impl Hint for Outer {
        fn hint(&self) -> Option<Cow<'_, str>> {
            Some("write a number".into())
        }
        fn exit(&self) -> Exit {
            Exit::Config
        }
    }

    #[test]
    fn a_failure_is_one_line_with_cause_and_hint() {
        let failure = Failure::from(Outer("x".parse::<u8>().expect_err("not a number")));
        assert_eq!(failure.exit(), Exit::Config);
        assert_eq!(
            failure.to_string(),
            "outer failed: invalid digit found in string (hint: write a number)"
        );
    }

    #[test]
    fn only_the_rooms_that_own_memory_end_the_process() {
        assert!(must_not_panic("kv/src/pool.rs"));
        assert!(must_not_panic("/build/baton/transfer/src/tcp/server.rs"));
        assert!(!must_not_panic("router/src/kv/mod.rs"));
        assert!(!must_not_panic("kv/tests/pool.rs"));
    }
}
