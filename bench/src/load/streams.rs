//! `baton bench streams`: many answers at once, each token of which is due at its time.
//!
//! A stream's tokens are due one step of the workers after the other; the schedule begins so that its
//! earliest token is in time. How late the others are counts whatever delays them on the way, this client
//! included, which reads the clock when it has the bytes. When the steps were is told by a few streams
//! over another router ([`super::steps`]); without one, a step is what it took on the average of all
//! streams, and how regular the workers are counts as well. Whether the server kept up is seen from the
//! share of a core that it used. All that counts only while all streams run.

use super::cost::Cost;
use super::feed::Feed;

use super::steps::Steps;
use super::{failure, measured};
use crate::client::Client;
use crate::stats::{Sample, rounded};
use baton_node::clock::{Clock, Monotonic};
use baton_node::exit::{Exit, Failure};
use clap::Args;
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use std::cell::Cell;
use std::time::Duration;
use tokio::sync::Notify;

/// `baton bench streams`
#[derive(Debug, Args)]
pub(crate) struct StreamsArgs {
    /// The server; its text has to be made up (`model.synthetic_vocab`), so that tokens can be counted
    #[arg(long, value_name = "URL")]
    url: String,
    /// Another router of the same workers, with nothing else to do: it tells when their steps were
    #[arg(long, value_name = "URL")]
    beside: Option<String>,
    /// The server's process, whose time and memory are counted
    #[arg(long, value_name = "PID")]
    pid: u32,
    /// Streams at once
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    streams: u32,
    /// Tokens of each
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    tokens: u32,
    /// What is asked: `chat` or `messages`
    #[arg(long, value_enum, default_value_t = Api::Chat)]
    api: Api,
}

/// An interface that streams.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Api {
    /// OpenAI's chat completions
    Chat,
    /// Anthropic's messages
    Messages,
}

impl Api {
    fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Messages => "/v1/messages",
        }
    }
}

/// What each token of a made-up text begins with, and nothing else in a stream has in it.
const TOKEN: &[u8] = b" t";

/// Measures and prints one JSON object.
pub(crate) fn main(args: &StreamsArgs) -> Result<(), Failure> {
    println!("{}", measured(measure(args))?);
    Ok(())
}

/// Streams over the router beside, and what they have more than the others: they begin before them and
/// end after them.
const WITNESSES: u32 = 12;
const WITNESS_MORE_TOKENS: u32 = 200;

/// What all streams see of each other.
struct Shared {
    clock: Monotonic,
    /// Streams that have their first token, tokens of all, and streams that have their last.
    begun: Cell<u32>,
    tokens: Cell<u64>,
    ended: Cell<u32>,
    changed: Notify,
}

async fn measure(args: &StreamsArgs) -> Result<Value, Failure> {
    let client = Client::new(&args.url).map_err(|error| failure(&error))?;
    // Whatever is made once for all is not the streams'.
    stream(&client, args, 0, 10, &Shared::new()).await?;
    let Some(url) = &args.beside else {
        return Ok(figures(args, &load(&client, args).await?, &Steps::default()));
    };
    let beside = Client::new(url).map_err(|error| failure(&error))?;
    let witnesses = Shared::new();
    let watch = try_join_all((0..WITNESSES).map(|n| {
        stream(&beside, args, args.streams + n, args.tokens + WITNESS_MORE_TOKENS, &witnesses)
    }));
    let load = async {
        until(&witnesses, || witnesses.begun.get() == WITNESSES).await;
        load(&client, args).await
    };
    let (watched, load) = tokio::try_join!(watch, load)?;
    let told = watched.iter().filter(|seen| seen.worker != 0);
    let steps = Steps::of(told.map(|seen| (seen.worker, &seen.arrivals[..])));
    Ok(figures(args, &load, &steps))
}

/// The streams that are measured.
async fn load(client: &Client, args: &StreamsArgs) -> Result<Load, Failure> {
    let shared = Shared::new();
    let before = Cost::of(args.pid)?;
    let streams =
        try_join_all((0..args.streams).map(|n| stream(client, args, n, args.tokens, &shared)));
    // A stream that fails ends the wait for the others, too.
    let (seen, window) = tokio::try_join!(streams, window(args, &shared))?;
    Ok(Load { seen, before, window })
}

/// What was measured.
struct Load {
    seen: Vec<Seen>,
    /// Before the streams.
    before: Cost,
    window: Window,
}

/// What was seen of one stream.
struct Seen {
    /// When each token came.
    arrivals: Vec<Duration>,
    /// The worker, where it was told.
    worker: u64,
}

impl Shared {
    fn new() -> Self {
        Self {
            clock: Monotonic::process(),
            begun: Cell::new(0),
            tokens: Cell::new(0),
            ended: Cell::new(0),
            changed: Notify::new(),
        }
    }
}

/// The time in which all streams run.
struct Window {
    began: Duration,
    length: Duration,
    tokens: u64,
    cost: Cost,
    /// At its end.
    resident_bytes: u64,
}

async fn window(args: &StreamsArgs, shared: &Shared) -> Result<Window, Failure> {
    until(shared, || shared.begun.get() == args.streams || shared.ended.get() > 0).await;
    let (began, first, tokens) = (shared.clock.now(), Cost::of(args.pid)?, shared.tokens.get());
    until(shared, || shared.ended.get() > 0).await;
    let last = Cost::of(args.pid)?;
    Ok(Window {
        began,
        length: shared.clock.now().saturating_sub(began),
        tokens: shared.tokens.get() - tokens,
        cost: last.since(first),
        resident_bytes: last.resident_bytes,
    })
}

async fn until(shared: &Shared, done: impl Fn() -> bool) {
    while !done() {
        shared.changed.notified().await;
    }
}

/// Reads one stream.
async fn stream(
    client: &Client,
    args: &StreamsArgs,
    number: u32,
    tokens: u32,
    shared: &Shared,
) -> Result<Seen, Failure> {
    let said = format!("stream {number}");
    let request = json!({
        "model": "witness",
        "messages": [{"role": "user", "content": said}],
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": true,
        "stream": true,
        "nvext": {"extra_fields": ["worker_id"]},
    });
    let broken = |error: Failure| Failure::new(error.exit(), format!("{said} broke off: {error}"));
    let mut feed = Feed::open(client, args.api.path(), &request).await.map_err(broken)?;
    let (mut arrivals, mut tail) = (Vec::with_capacity(tokens as usize), Vec::new());
    let (mut found, mut end) = (0, Vec::new());
    loop {
        let is_end = arrivals.len() + 1 >= tokens as usize;
        let read = feed.next(|bytes| {
            found = count(TOKEN, &mut tail, bytes);
            if is_end {
                end.extend_from_slice(bytes);
            }
        });
        if !read.await.map_err(broken)? {
            break;
        }
        if found > 0 {
            let now = shared.clock.now();
            if arrivals.is_empty() {
                shared.begun.set(shared.begun.get() + 1);
                shared.changed.notify_one();
            }
            arrivals.extend(std::iter::repeat_n(now, found));
            shared.tokens.set(shared.tokens.get() + found as u64);
        }
    }
    shared.ended.set(shared.ended.get() + 1);
    shared.changed.notify_one();
    if arrivals.len() != tokens as usize {
        let message = format!("{said} had {} tokens instead of {tokens}", arrivals.len());
        return Err(Failure::new(Exit::Unavailable, message));
    }
    Ok(Seen { arrivals, worker: worker(&end) })
}

/// The worker of a stream, from its last events; 0 where they do not tell it.
fn worker(end: &[u8]) -> u64 {
    let end = String::from_utf8_lossy(end);
    let found = end.split_once("\"decode_worker_id\":").map(|(_, rest)| rest);
    let digits = found.and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// How often the mark ends in these bytes; `tail` has what of it may have begun before.
fn count(mark: &[u8], tail: &mut Vec<u8>, bytes: &[u8]) -> usize {
    tail.extend_from_slice(bytes);
    let found = tail.windows(mark.len()).filter(|window| *window == mark).count();
    let keep = tail.len().min(mark.len() - 1);
    tail.drain(..tail.len() - keep);
    found
}

/// The time from one token to the next, over all streams.
fn step_ms(arrivals: &[&[Duration]]) -> f64 {
    let steps = arrivals.iter().filter_map(|one| {
        let (first, last) = (one.first()?, one.last()?);
        Some(ms(last.saturating_sub(*first)) / one.len().saturating_sub(1).max(1) as f64)
    });
    let all: Vec<f64> = steps.collect();
    all.iter().sum::<f64>() / all.len() as f64
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// How late each token was, in milliseconds, if a step always takes that long.
fn lateness(arrivals: &[Duration], interval_ms: f64) -> Sample {
    let plan = |(n, at): (usize, &Duration)| ms(*at) - n as f64 * interval_ms;
    let offsets: Vec<f64> = arrivals.iter().enumerate().map(plan).collect();
    let base = offsets.iter().copied().fold(f64::INFINITY, f64::min);
    offsets.into_iter().map(|offset| offset - base).collect()
}

fn figures(args: &StreamsArgs, load: &Load, steps: &Steps) -> Value {
    let Load { seen, before, window } = load;
    let end = window.began + window.length;
    let within = |one: &'_ Seen| {
        let from = one.arrivals.partition_point(|at| *at < window.began);
        from..one.arrivals.partition_point(|at| *at <= end)
    };
    let arrivals: Vec<_> = seen.iter().map(|one| &one.arrivals[within(one)]).collect();
    let step_ms = step_ms(&arrivals);
    let late = seen.iter().zip(&arrivals).map(|(one, arrivals)| {
        let counted = steps.lateness(one.worker, arrivals);
        counted.unwrap_or_else(|| lateness(arrivals, step_ms))
    });
    let late: Vec<_> = late.collect();
    let p99: Sample = late.iter().filter_map(|one| one.percentile(99.0)).collect();
    let worst: Sample = late.iter().filter_map(Sample::max).collect();
    let per_token = |time: Duration| 1e6 * time.as_secs_f64() / window.tokens as f64;
    let memory = window.resident_bytes.saturating_sub(before.resident_bytes);
    json!({
        "streams": args.streams,
        "tokens_per_s": rounded(Some(window.tokens as f64 / window.length.as_secs_f64())),
        "step_ms": rounded(Some(step_ms)),
        "step_ms_max": rounded(steps.longest_ms(window.began, end)),
        "core": rounded(Some((window.cost.user + window.cost.system).as_secs_f64() / window.length.as_secs_f64())),
        "window_s": rounded(Some(window.length.as_secs_f64())),
        "late_ms_p99_median_stream": rounded(p99.median()),
        "late_ms_p99_worst_stream": rounded(p99.max()),
        "late_ms_max": rounded(worst.max()),
        "user_us_per_token": rounded(Some(per_token(window.cost.user))),
        "system_us_per_token": rounded(Some(per_token(window.cost.system))),
        "cpu_us_per_token": rounded(Some(per_token(window.cost.user + window.cost.system))),
        "kib_per_stream": rounded(Some(memory as f64 / 1024.0 / f64::from(args.streams))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_counted_once_however_the_bytes_are_cut() {
        let text = b"xabcabcxxabc";
        for cut in 0..=text.len() {
            let mut tail = Vec::new();
            let (one, two) = text.split_at(cut);
            let found = count(b"abc", &mut tail, one) + count(b"abc", &mut tail, two);
            assert_eq!(found, 3, "{cut}");
        }
    }

    #[test]
    fn a_token_is_late_against_the_earliest_schedule_that_one_kept() {
        let at = [5, 27, 45, 100].map(Duration::from_millis);
        let late = lateness(&at, 20.0);
        assert_eq!(late.min(), Some(0.0));
        let other = [10, 40, 60, 80].map(Duration::from_millis);
        assert!((step_ms(&[&at[..], &other[..]]) - 27.5).abs() < 1e-6);
        assert!((late.max().unwrap_or(0.0) - 35.0).abs() < 1e-6);
    }

    #[test]
    fn the_last_events_tell_the_worker() {
        let end = br#"data: {"nvext":{"worker_id":{"prefill_worker_id":7,"decode_worker_id":1972680820}}}"#;
        assert_eq!((worker(end), worker(b"data: [DONE]")), (1_972_680_820, 0));
    }
}
