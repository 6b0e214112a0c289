//! The closing lines of test runners: cargo test, nextest, pytest.

use std::fmt;
use std::ops::AddAssign;

/// How many tests a runner says it ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) passed: u64,
    pub(super) failed: u64,
}

impl Counts {
    /// What a runner's closing line says; nothing for any other line.
    pub(super) fn of_line(line: &str) -> Option<Self> {
        let plain = without_colour(line);
        let plain = plain.trim().trim_matches('=').trim();
        let closing = plain.starts_with("test result: ")
            || plain.starts_with("Summary [")
            || (plain.contains(" in ") && plain.starts_with(|c: char| c.is_ascii_digit()));
        let words: Vec<&str> = plain.split_whitespace().collect();
        let mut counts = Self::default();
        let mut found = false;
        for pair in words.windows(2) {
            let Ok(number) = pair[0].parse::<u64>() else { continue };
            match pair[1].trim_end_matches([',', ';']) {
                "passed" => counts.passed += number,
                "failed" | "timed" | "exec" | "error" | "errors" => counts.failed += number,
                _ => continue,
            }
            found = true;
        }
        (closing && found).then_some(counts)
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

fn without_colour(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            // `ESC [ … letter`
            chars.by_ref().find(char::is_ascii_alphabetic);
        } else {
            plain.push(c);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_of_three_runners_are_understood() {
        let cases = [
            ("test result: ok. 20 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out", 20, 1),
            (
                "     Summary [   1.2s] 7 tests run: 5 passed (1 slow), 1 failed, 1 timed out, 3 skipped",
                5,
                2,
            ),
            (
                "\u{1b}[32;1m     Summary\u{1b}[0m [   0.5s] 2 tests run: \u{1b}[1m2\u{1b}[0m \u{1b}[32mpassed\u{1b}[0m, 0 skipped",
                2,
                0,
            ),
            ("==== 5 passed, 1 skipped in 1.23s ====", 5, 0),
            ("1 failed, 4 passed in 0.10s", 4, 1),
        ];
        for (line, passed, failed) in cases {
            assert_eq!(Counts::of_line(line), Some(Counts { passed, failed }), "{line}");
        }
    }

    #[test]
    fn other_lines_report_nothing() {
        for line in
            ["", "3 passed the ball", "test a ... ok", "running 3 tests", "12 warnings in x"]
        {
            assert_eq!(Counts::of_line(line), None, "{line}");
        }
    }
}
