//! What a guest says on its status port, how it can end, and its output as others see it.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

/// A line on the status port.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// The RDMA device is there; the guest waits for leave to run the command.
    Ready,
    /// The command's exit status.
    Exit(u8),
}

impl Line {
    pub(super) fn parse(line: &str) -> Option<Self> {
        match line.trim().split_once(' ') {
            None if line.trim() == "ready" => Some(Self::Ready),
            Some(("exit", status)) => status.parse().ok().map(Self::Exit),
            _ => None,
        }
    }
}

/// How a guest's run ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Exited(u8),
    /// The machine ended, or was found dead, without an exit status.
    Died {
        node: usize,
        console: String,
    },
    NotBooted {
        node: usize,
        after: Duration,
        console: String,
    },
    TimedOut {
        node: usize,
        after: Duration,
    },
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "exit status {status}"),
            Self::Died { node, console } => {
                write!(f, "guest {node} ended without an exit status; its console:\n{console}")
            }
            Self::NotBooted { node, after, console } => {
                let seconds = after.as_secs();
                write!(f, "guest {node} did not boot within {seconds} s; its console:\n{console}")
            }
            Self::TimedOut { node, after } => {
                write!(f, "guest {node} was stopped after {} s, see --timeout", after.as_secs())
            }
        }
    }
}

/// The last lines of a console.
#[derive(Default)]
pub(super) struct Tail {
    lines: VecDeque<String>,
    open: Vec<u8>,
}

impl Tail {
    const LINES_MAX: usize = 60;
    const BYTES_MAX: usize = 500;

    pub(super) fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' || self.open.len() >= Self::BYTES_MAX {
                self.close();
            } else if !byte.is_ascii_control() || byte == b'\t' {
                self.open.push(byte);
            }
        }
    }

    fn close(&mut self) {
        if self.lines.len() == Self::LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(String::from_utf8_lossy(&self.open).into_owned());
        self.open.clear();
    }

    pub(super) fn text(&mut self) -> String {
        if !self.open.is_empty() {
            self.close();
        }
        let lines: Vec<String> = self.lines.iter().map(|line| format!("  {line}")).collect();
        if lines.is_empty() { "  (empty)".to_owned() } else { lines.join("\n") }
    }
}

/// The lines of one guest of a pair, each with its number before it.
pub(super) struct Prefixed {
    prefix: Option<usize>,
    open: Vec<u8>,
}

impl Prefixed {
    /// A line that does not end is passed on in pieces of this length.
    const BYTES_MAX: usize = 64 << 10;

    pub(super) fn new(prefix: Option<usize>) -> Self {
        Self { prefix, open: Vec::new() }
    }

    /// What can be shown after these bytes: whole lines, or, for a single guest, all at once.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        let Some(node) = self.prefix else { return bytes.to_vec() };
        let mut shown = Vec::new();
        for &byte in bytes {
            self.open.push(byte);
            if byte == b'\n' || self.open.len() >= Self::BYTES_MAX {
                shown.extend_from_slice(format!("{node}|").as_bytes());
                shown.append(&mut self.open);
                if byte != b'\n' {
                    shown.push(b'\n');
                }
            }
        }
        shown
    }

    /// What is left after the last byte.
    pub(super) fn end(&mut self) -> Vec<u8> {
        if self.open.is_empty() { Vec::new() } else { self.push(b"\n") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_status_lines_count() {
        let cases = [
            ("ready\n", Some(Line::Ready)),
            ("exit 0\n", Some(Line::Exit(0))),
            ("exit 255\r\n", Some(Line::Exit(255))),
            ("exit 256\n", None),
            ("exit\n", None),
            ("exit -1\n", None),
            ("ready 1\n", None),
            ("", None),
        ];
        for (line, expected) in cases {
            assert_eq!(Line::parse(line), expected, "{line:?}");
        }
    }

    #[test]
    fn the_console_shows_its_last_lines_without_control_characters() {
        let mut tail = Tail::default();
        assert_eq!(tail.text(), "  (empty)");
        for line in 0..100 {
            tail.push(format!("\x1b[0mline {line}\r\n").as_bytes());
        }
        tail.push(b"Kernel panic");
        let text = tail.text();
        assert_eq!(text.lines().count(), Tail::LINES_MAX);
        assert!(text.starts_with("  [0mline 41\n") && text.ends_with("\n  Kernel panic"), "{text}");
    }

    #[test]
    fn lines_of_a_pair_are_marked_and_never_mixed() {
        let mut out = Prefixed::new(Some(1));
        assert_eq!(out.push(b"a\nb"), b"1|a\n");
        assert_eq!(out.push(b"c\n\nd"), b"1|bc\n1|\n");
        assert_eq!(out.end(), b"1|d\n");
        assert_eq!(out.end(), b"");
        let long = vec![b'x'; Prefixed::BYTES_MAX];
        assert_eq!(out.push(&long).len(), long.len() + "1|\n".len());
        assert_eq!(Prefixed::new(None).push(b"a\nb"), b"a\nb");
    }
}
