//! Recorded traces: when a turn came, how long its prompt and its answer were, and which blocks the
//! prompt begins with. The format is Mooncake's: one JSON object a line.

use baton_node::exit::{Exit, Failure};
use serde::Deserialize;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

/// A file larger than that is no trace.
const FILE_BYTES_MAX: u64 = 1 << 30;
/// No prompt and no answer is longer.
const TOKENS_MAX: usize = 1 << 24;
/// A trace is no longer than that: about eleven days.
const MILLIS_MAX: f64 = 1e9;

/// A turn as it was recorded.
#[derive(Clone, PartialEq, Debug, Deserialize)]
pub(super) struct Recorded {
    /// Since the beginning, in milliseconds.
    pub(super) timestamp: f64,
    /// Tokens of the prompt.
    pub(super) input_length: usize,
    /// Tokens of the answer.
    pub(super) output_length: usize,
    /// The names of the prompt's blocks; equal names, equal beginnings.
    pub(super) hash_ids: Vec<u64>,
    /// The session, if the trace has it; Mooncake's has not.
    #[serde(default)]
    pub(super) session: Option<u64>,
}

impl Recorded {
    /// Since the beginning, when the trace runs so many times as fast.
    pub(super) fn at(&self, speed: f64) -> Duration {
        Duration::from_secs_f64(self.timestamp / 1e3 / speed)
    }

    /// Whole blocks before the last token.
    pub(super) fn chain(&self, block_tokens: usize) -> &[u64] {
        &self.hash_ids[..self.input_length.saturating_sub(1) / block_tokens]
    }
}

/// Reads a trace, in the order of time.
pub(super) fn read(path: &Path, block_tokens: usize) -> Result<Vec<Recorded>, Failure> {
    let unreadable = |error: std::io::Error| {
        Failure::new(Exit::Config, format!("cannot read {}: {error}", path.display()))
    };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(unreadable)?;
    parse(&text, block_tokens).map_err(|why| {
        Failure::new(Exit::Config, format!("{}: {why}", path.display())).with_hint(
            "expected lines like {\"timestamp\": 0, \"input_length\": 700, \"output_length\": 5, \"hash_ids\": [1, 2]}",
        )
    })
}

fn parse(text: &str, block_tokens: usize) -> Result<Vec<Recorded>, String> {
    let mut turns = Vec::new();
    for (line, number) in text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty()) {
        let turn: Recorded =
            serde_json::from_str(line).map_err(|error| format!("line {number}: {error}"))?;
        let refuse = |field: &str, expected: String| {
            Err(format!("line {number}: `{field}`: expected {expected}"))
        };
        if !(0.0..=MILLIS_MAX).contains(&turn.timestamp) {
            return refuse("timestamp", format!("milliseconds, 0 to {MILLIS_MAX}"));
        }
        for (field, tokens) in
            [("input_length", turn.input_length), ("output_length", turn.output_length)]
        {
            if !(1..=TOKENS_MAX).contains(&tokens) {
                return refuse(field, format!("1 to {TOKENS_MAX} tokens"));
            }
        }
        let blocks = (turn.input_length - 1) / block_tokens;
        if turn.hash_ids.len() < blocks {
            return refuse("hash_ids", format!("at least {blocks}, one for each whole block"));
        }
        turns.push(turn);
    }
    if turns.is_empty() {
        return Err("there is no turn in it".to_owned());
    }
    turns.sort_by(|a, b| a.timestamp.total_cmp(&b.timestamp));
    Ok(turns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_come_in_the_order_of_time() {
        let text = r#"{"timestamp": 9, "input_length": 1025, "output_length": 2, "hash_ids": [1, 2, 3]}

            {"timestamp": 3.5, "input_length": 1, "output_length": 1, "hash_ids": [], "other": 1}"#;
        let turns = parse(text, 512).expect("a trace");
        assert_eq!(turns[0].at(1.0), Duration::from_micros(3500));
        assert_eq!(
            (turns[1].chain(512), turns[1].at(9.0)),
            (&[1, 2][..], Duration::from_millis(1))
        );
    }

    #[test]
    fn what_is_no_trace_is_refused_with_its_line_and_field() {
        let line = |time: &str, input: &str, output: &str| {
            format!(
                "\n{{\"timestamp\": {time}, \"input_length\": {input}, \
                 \"output_length\": {output}, \"hash_ids\": [1]}}"
            )
        };
        for (text, word) in [
            (String::new(), "no turn"),
            ("\nhello".to_owned(), "line 2"),
            ("\n{}".to_owned(), "timestamp"),
            (line("-1", "1", "1"), "line 2: `timestamp`"),
            (line("1e99", "1", "1"), "`timestamp`"),
            (line("0", "0", "1"), "`input_length`"),
            (line("0", "-5", "1"), "-5"),
            (line("0", "1", "999999999"), "`output_length`"),
            (line("0", "1025", "1"), "`hash_ids`"),
        ] {
            let why = parse(&text, 512).expect_err("refused");
            assert!(why.contains(word), "`{why}` does not say `{word}`");
        }
    }
}
