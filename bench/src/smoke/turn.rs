//! One request, as its client sees it: when which tokens came, and what the server says it cost.

use crate::client::{Client, ClientError};
use baton_node::clock::Clock;
use serde_json::{Value, json};
use std::time::Duration;

/// What is asked.
#[derive(Clone, Debug)]
pub(super) struct Ask<'a> {
    pub(super) model: &'a str,
    /// Token ids.
    pub(super) prompt: &'a [u32],
    pub(super) max_tokens: u32,
}

impl Ask<'_> {
    /// The request. Log-probabilities are asked for because each event then says how many tokens
    /// it brings, also where these are not whole characters yet.
    fn to_json(&self) -> Value {
        json!({
            "model": self.model,
            "prompt": self.prompt,
            "max_tokens": self.max_tokens,
            "temperature": 0,
            "ignore_eos": true,
            "logprobs": 0,
            "stream": true,
            "stream_options": {"include_usage": true},
            "nvext": {"extra_fields": ["timing"]},
        })
    }

    /// Sends it and reads the answer to its end.
    pub(super) async fn send(&self, client: &Client, clock: &dyn Clock) -> Result<Turn, AskError> {
        let sent = clock.now();
        let mut events = client.stream("/v1/completions", &self.to_json()).await?;
        let mut turn = Turn { sent, ..Turn::default() };
        while let Some(event) = events.next().await? {
            let event = serde_json::from_str(&event).map_err(ClientError::from)?;
            turn.take(&event, clock.now())?;
        }
        Ok(turn)
    }
}

/// A request without a whole answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    /// The call failed.
    #[error(transparent)]
    Call(#[from] ClientError),
    /// The server ended the stream with an error.
    #[error("an answer broke off: {message}")]
    BrokenOff {
        /// The server's words.
        message: String,
    },
}

/// What came back.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Turn {
    sent: Duration,
    /// Times at which tokens came, and how many.
    arrivals: Vec<(Duration, u32)>,
    pub(super) cached_tokens: Option<u64>,
    pub(super) prompt_tokens: Option<u64>,
    /// From the last block's announcement to decoding; none if no block moved.
    pub(super) handover_ms: Option<f64>,
}

impl Turn {
    /// Takes an event of the stream in.
    fn take(&mut self, event: &Value, now: Duration) -> Result<(), AskError> {
        if let Some(message) = event["error"]["message"].as_str() {
            return Err(AskError::BrokenOff { message: message.to_owned() });
        }
        let choice = &event["choices"][0];
        let tokens = match choice["logprobs"]["tokens"].as_array() {
            Some(tokens) => tokens.len() as u32,
            None => u32::from(choice["text"].as_str().is_some_and(|text| !text.is_empty())),
        };
        if tokens > 0 {
            self.arrivals.push((now, tokens));
        }
        let usage = &event["usage"];
        let cached = usage["prompt_tokens_details"]["cached_tokens"].as_u64();
        self.cached_tokens = self.cached_tokens.or(cached);
        self.prompt_tokens = self.prompt_tokens.or(usage["prompt_tokens"].as_u64());
        self.handover_ms = self.handover_ms.or(event["nvext"]["timing"]["handover_ms"].as_f64());
        Ok(())
    }

    /// Tokens of the answer.
    pub(super) fn tokens(&self) -> u64 {
        self.arrivals.iter().map(|(_, count)| u64::from(*count)).sum()
    }

    /// When the first and the last token came.
    pub(super) fn span(&self) -> Option<(Duration, Duration)> {
        Some((self.arrivals.first()?.0, self.arrivals.last()?.0))
    }

    /// From sending the request to the first token, in milliseconds.
    pub(super) fn ttft_ms(&self) -> Option<f64> {
        Some(millis(self.span()?.0.saturating_sub(self.sent)))
    }

    /// Prompt tokens per second up to the first token.
    pub(super) fn prefill_tokens_per_s(&self) -> Option<f64> {
        let computed = self.prompt_tokens?.saturating_sub(self.cached_tokens.unwrap_or(0));
        Some(computed as f64 / self.ttft_ms()? * 1e3)
    }

    /// Times between tokens, in milliseconds. Tokens that came together share the time since
    /// those before them.
    pub(super) fn gaps_ms(&self) -> impl Iterator<Item = f64> {
        self.arrivals.windows(2).flat_map(|pair| {
            let count = pair[1].1;
            let gap = millis(pair[1].0.saturating_sub(pair[0].0)) / f64::from(count);
            std::iter::repeat_n(gap, count as usize)
        })
    }
}

/// Tokens per second of streams that ran at once, over the time in which all of them were being
/// answered: from the latest of the first tokens to the earliest of the last. `None` if there is
/// no such time.
pub(super) fn decode_tokens_per_s(turns: &[Turn]) -> Option<f64> {
    let begin = turns.iter().map(|turn| turn.span().map(|(first, _)| first)).max()??;
    let end = turns.iter().map(|turn| turn.span().map(|(_, last)| last)).min()??;
    // What came at the beginning was computed before it.
    let within = turns
        .iter()
        .flat_map(|turn| &turn.arrivals)
        .filter(|(at, _)| (begin + Duration::from_nanos(1)..=end).contains(at));
    let tokens: u64 = within.map(|(_, count)| u64::from(*count)).sum();
    let seconds = end.saturating_sub(begin).as_secs_f64();
    (tokens > 0 && seconds > 0.0).then(|| tokens as f64 / seconds)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::float_cmp, reason = "tests")]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn tokens(count: usize) -> Value {
        json!({"choices": [{"text": "x", "logprobs": {"tokens": vec!["x"; count]}}]})
    }

    fn turn(arrivals: &[(u32, usize)]) -> Turn {
        let mut turn = Turn::default();
        for (at, count) in arrivals {
            turn.take(&tokens(*count), MS * *at).unwrap();
        }
        turn
    }

    #[test]
    fn tokens_of_one_event_share_the_time_before_it() {
        let turn = turn(&[(10, 1), (14, 2), (17, 1)]);
        assert_eq!(turn.tokens(), 4);
        assert_eq!(turn.ttft_ms(), Some(10.0));
        assert_eq!(turn.gaps_ms().map(f64::round).collect::<Vec<_>>(), [2.0, 2.0, 3.0]);
    }

    #[test]
    fn a_token_counts_before_its_text_is_a_character_and_an_end_does_not() {
        let mut turn = Turn::default();
        let half = json!({"choices": [{"text": "", "logprobs": {"tokens": ["\u{fffd}"]}}]});
        let end = json!({"choices": [{"text": "", "logprobs": null, "finish_reason": "length"}]});
        turn.take(&half, MS).unwrap();
        turn.take(&end, 2 * MS).unwrap();
        assert_eq!((turn.tokens(), turn.span()), (1, Some((MS, MS))));
    }

    #[test]
    fn a_server_without_logprobs_brings_one_token_per_text() {
        let mut turn = Turn::default();
        turn.take(&json!({"choices": [{"text": "hello"}]}), MS).unwrap();
        assert_eq!(turn.tokens(), 1);
    }

    #[test]
    fn usage_and_timing_are_found_wherever_they_come() {
        let mut turn = turn(&[(500, 1)]);
        let last = json!({
            "choices": [{"text": "", "finish_reason": "length"}],
            "usage": null,
            "nvext": {"timing": {"handover_ms": 1.5}},
        });
        let usage = json!({
            "choices": [],
            "usage": {"prompt_tokens": 100, "prompt_tokens_details": {"cached_tokens": 64}},
        });
        turn.take(&last, 600 * MS).unwrap();
        turn.take(&usage, 600 * MS).unwrap();
        assert_eq!((turn.prompt_tokens, turn.cached_tokens), (Some(100), Some(64)));
        assert_eq!(turn.handover_ms, Some(1.5));
        assert_eq!(turn.prefill_tokens_per_s(), Some(72.0));
    }

    #[test]
    fn an_error_in_the_stream_is_an_error() {
        let error = json!({"error": {"message": "the worker is lost"}});
        let found = Turn::default().take(&error, MS).unwrap_err();
        assert!(found.to_string().contains("the worker is lost"), "{found}");
    }

    #[test]
    fn streams_at_once_are_counted_while_all_of_them_run() {
        // Both run from 200 to 700 ms; three and two tokens come after its beginning.
        let turns = [
            turn(&[(100, 1), (150, 7), (300, 1), (600, 2), (800, 9)]),
            turn(&[(200, 1), (500, 1), (700, 1)]),
        ];
        assert_eq!(decode_tokens_per_s(&turns), Some(10.0));
    }

    #[test]
    fn streams_that_never_ran_together_have_no_common_speed() {
        let turns = [turn(&[(100, 1), (200, 5)]), turn(&[(300, 1), (400, 5)])];
        assert_eq!(decode_tokens_per_s(&turns), None);
        assert_eq!(decode_tokens_per_s(&[turn(&[(100, 1)])]), None);
        assert_eq!(decode_tokens_per_s(&[turn(&[(100, 1), (200, 1)]), Turn::default()]), None);
        assert_eq!(decode_tokens_per_s(&[]), None);
    }
}
