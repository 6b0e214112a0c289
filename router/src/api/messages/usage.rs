//! What a prompt has cost, in the words of this interface.

use crate::turn::{Breakpoint, Summary};
use baton_proto::ir::CacheTtl;
use serde_json::{Value, json};

/// The tokens of a prompt, each counted once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Usage {
    /// Behind the last breakpoint, and not found in a cache.
    input: usize,
    /// Before it, and not found: for five minutes, for an hour.
    creation: [usize; 2],
    /// Found in a cache, wherever the breakpoints are.
    read: usize,
}

impl Usage {
    /// Of a prompt of so many tokens, of which the first `cached` were found.
    pub(super) fn of(prompt: usize, cached: usize, breakpoints: &[Breakpoint]) -> Self {
        let read = cached.min(prompt);
        let (mut creation, mut at) = ([0; 2], read);
        for Breakpoint { tokens, ttl } in breakpoints {
            let end = (*tokens).clamp(at, prompt.max(at));
            creation[usize::from(*ttl == CacheTtl::Hour1)] += end - at;
            at = end;
        }
        Self { input: prompt - at, creation, read }
    }

    /// As it is written, with what is known of the answer.
    pub(super) fn json(&self, output_tokens: u64) -> Value {
        let [minutes, hour] = self.creation;
        json!({
            "input_tokens": self.input,
            "cache_creation_input_tokens": minutes + hour,
            "cache_read_input_tokens": self.read,
            "cache_creation": {
                "ephemeral_5m_input_tokens": minutes,
                "ephemeral_1h_input_tokens": hour,
            },
            "output_tokens": output_tokens,
        })
    }
}

/// The usage of a turn up to now.
pub(super) fn usage(summary: &Summary, breakpoints: &[Breakpoint]) -> Value {
    let usage = Usage::of(summary.prompt_tokens, summary.cached_tokens, breakpoints);
    usage.json(summary.completion_tokens)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seeded_tests::{Draws, rounds};

    fn at(tokens: usize, ttl: CacheTtl) -> Breakpoint {
        Breakpoint { tokens, ttl }
    }

    #[test]
    fn each_token_is_counted_where_it_belongs() {
        let (minutes, hour) = (CacheTtl::Minutes5, CacheTtl::Hour1);
        let points = [at(30, hour), at(50, hour), at(80, minutes)];
        let usage = |cached| {
            let Usage { input, creation, read } = Usage::of(100, cached, &points);
            (input, creation, read)
        };
        assert_eq!(usage(0), (20, [30, 50], 0));
        assert_eq!(usage(40), (20, [30, 10], 40));
        assert_eq!(usage(64), (20, [16, 0], 64));
        // What lies behind the last breakpoint may have been found as well.
        assert_eq!(usage(96), (4, [0, 0], 96));
        assert_eq!(usage(1000), (0, [0, 0], 100));
        let plain = Usage::of(100, 64, &[]);
        assert_eq!((plain.input, plain.creation, plain.read), (36, [0, 0], 64));
    }

    #[test]
    fn no_token_is_lost_or_counted_twice() {
        let mut draws = Draws::announced();
        for _ in 0..rounds(2000) {
            let (prompt, cached) = (draws.place(200), draws.place(220));
            let mut ends: Vec<_> = (0..draws.below(5)).map(|_| draws.place(220)).collect();
            ends.sort_unstable();
            let ttls = [CacheTtl::Hour1, CacheTtl::Minutes5];
            let points: Vec<_> =
                ends.into_iter().map(|end| at(end, ttls[draws.place(2)])).collect();
            let usage = Usage::of(prompt, cached, &points);
            assert_eq!(usage.input + usage.creation.iter().sum::<usize>() + usage.read, prompt);
            assert_eq!(usage.read, cached.min(prompt));
        }
    }
}
