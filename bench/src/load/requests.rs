//! `baton bench requests`: how many small requests a server answers, one after the other on each of
//! some connections.

use super::cost::Cost;
use super::{failure, measured};
use crate::client::Client;
use crate::stats::{Sample, rounded};
use baton_node::clock::{Clock, Monotonic};
use baton_node::exit::Failure;
use clap::Args;
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use std::cell::Cell;
use std::sync::LazyLock;
use std::time::Duration;

/// `baton bench requests`
#[derive(Debug, Args)]
pub(crate) struct RequestsArgs {
    /// The server
    #[arg(long, value_name = "URL")]
    url: String,
    /// The server's process, whose time is counted
    #[arg(long, value_name = "PID")]
    pid: u32,
    /// The model to ask for
    #[arg(long, default_value = "witness")]
    model: String,
    /// Requests under way at a time
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// Bytes of a prompt
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(64..=1_000_000))]
    prompt_bytes: u32,
    /// Bytes that all prompts begin with
    #[arg(long, value_name = "N", default_value_t = 1536)]
    shared_bytes: u32,
    /// How long to ask, after a second that does not count
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Makes the prompts different from those of another run
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// What does not count.
const WARM_UP: Duration = Duration::from_secs(1);

/// Measures and prints one JSON object.
pub(crate) fn main(args: &RequestsArgs) -> Result<(), Failure> {
    println!("{}", measured(measure(args))?);
    Ok(())
}

async fn measure(args: &RequestsArgs) -> Result<Value, Failure> {
    let client = Client::new(&args.url).map_err(|error| failure(&error))?;
    let clock = Monotonic::process();
    let load = Load { args, client, clock, next: Cell::new(0), begun: clock.now() };
    let counted_from = load.begun + WARM_UP;
    let end = counted_from + Duration::from_secs(args.seconds.into());
    let asking = try_join_all((0..args.connections).map(|_| load.ask_until(counted_from, end)));
    let cost = async {
        tokio::time::sleep(WARM_UP).await;
        let before = Cost::of(args.pid)?;
        tokio::time::sleep(end.saturating_sub(clock.now())).await;
        Ok(Cost::of(args.pid)?.since(before))
    };
    let (times, cost) = tokio::try_join!(asking, cost)?;
    let times: Sample = times.into_iter().flatten().collect();
    let count = times.count() as f64;
    let each = |time: Duration| rounded(Some(1e6 * time.as_secs_f64() / count));
    Ok(json!({
        "requests_per_s": rounded(Some(count / f64::from(args.seconds))),
        "ms_p50": rounded(times.median()),
        "ms_p99": rounded(times.percentile(99.0)),
        "user_us_per_request": each(cost.user),
        "system_us_per_request": each(cost.system),
        "core": rounded(Some((cost.user + cost.system).as_secs_f64() / f64::from(args.seconds))),
    }))
}

struct Load<'a> {
    args: &'a RequestsArgs,
    client: Client,
    clock: Monotonic,
    /// The number of the next prompt.
    next: Cell<u64>,
    begun: Duration,
}

impl Load<'_> {
    /// Asks until `end`; the milliseconds of each request that was answered after `from`.
    async fn ask_until(&self, from: Duration, end: Duration) -> Result<Vec<f64>, Failure> {
        let mut times = Vec::new();
        loop {
            let sent = self.clock.now();
            if sent >= end {
                return Ok(times);
            }
            let number = self.next.replace(self.next.get() + 1);
            let request = json!({
                "model": self.args.model,
                "messages": [{"role": "user", "content": prompt(self.args, number)}],
                "max_tokens": 1,
                "temperature": 0,
            });
            let answer = self.client.post("/v1/chat/completions", &request).await;
            answer.map_err(|error| failure(&error))?;
            let now = self.clock.now();
            if (from..end).contains(&now) {
                times.push(now.saturating_sub(sent).as_secs_f64() * 1e3);
            }
        }
    }
}

/// A prompt of words: first those that all share, then its own.
fn prompt(args: &RequestsArgs, number: u64) -> String {
    let mut text = String::with_capacity(args.prompt_bytes as usize + 16);
    words(&mut text, args.seed, args.shared_bytes.min(args.prompt_bytes) as usize);
    let own = (args.seed << 32 | 0x8000_0000).wrapping_add(number);
    words(&mut text, own.wrapping_mul(0x9e37_79b9_7f4a_7c15), args.prompt_bytes as usize);
    text
}

/// Prose, for its words.
const PROSE: &str = include_str!("../../../docs/ARCHITECTURE.md");

/// By place in the prose: the word from there to its end, or the next one.
static WORDS: LazyLock<Vec<&str>> = LazyLock::new(|| {
    let (mut words, mut next) = (vec!["end"; PROSE.len()], "end");
    let mut end = None;
    for (at, byte) in PROSE.bytes().enumerate().rev() {
        if byte.is_ascii_alphabetic() {
            next = &PROSE[at..*end.get_or_insert(at + 1)];
        } else {
            end = None;
        }
        words[at] = next;
    }
    words
});

/// Appends words, drawn from prose, up to a length (xorshift64, Marsaglia 2003).
fn words(text: &mut String, seed: u64, bytes: usize) {
    let mut state = seed | 1;
    while text.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text.push_str(WORDS[state as usize % WORDS.len()]);
        text.push(' ');
    }
    text.truncate(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_share_what_they_should_and_nothing_else() {
        let args = RequestsArgs {
            url: String::new(),
            pid: 0,
            model: String::new(),
            connections: 1,
            prompt_bytes: 2048,
            shared_bytes: 1536,
            seconds: 1,
            seed: 7,
        };
        let (one, two) = (prompt(&args, 1), prompt(&args, 2));
        assert_eq!((one.len(), two.len()), (2048, 2048));
        assert_eq!(one[..1536], two[..1536]);
        assert_ne!(one[1536..1568], two[1536..1568]);
        let other = RequestsArgs { shared_bytes: 0, ..args };
        assert_ne!(prompt(&other, 1)[..32], prompt(&other, 2)[..32]);
    }
}
