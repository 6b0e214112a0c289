//! Requests to the witness over every path while workers are killed and frozen: every stream that
//! ends well is the one the witness must give, every request ends, and nothing leaks.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod cluster;

use baton_engine::witness::{WitnessSpec, expected};
use baton_proto::v1::inference_client::InferenceClient;
use baton_proto::v1::{GenerateRequest, SamplingParams, StopParams, TokenIds, generate_request};
use cluster::{Cluster, metric, quiescent, scaled};
use futures_util::stream::{self, StreamExt};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use tonic::Code;
use tonic::transport::Channel;

/// Requests at a time.
const IN_FLIGHT: usize = 64;
/// Token ids of the cluster's witness.
const VOCAB: u32 = 32_000;

/// What is asked; everything follows from the number and the seed.
#[derive(Clone, Debug)]
struct Ask {
    prompt: Vec<u32>,
    seed: u64,
    max_tokens: u32,
}

fn mix(a: u64, b: u64) -> u64 {
    // SplitMix64 (Steele et al., 2014).
    let mut z = a.wrapping_add(b.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// One of a few shared beginnings, then an end of its own: as agents ask.
fn ask(seed: u64, number: usize) -> Ask {
    let draw = |what: u64| mix(mix(seed, number as u64), what);
    let family = draw(0) % 12;
    let shared = (mix(seed, 1_000 + family) % 700) as usize;
    let own = 1 + (draw(1) % 300) as usize;
    let token = |from: u64, index: usize| (mix(from, index as u64) % u64::from(VOCAB)) as u32;
    let mut prompt: Vec<u32> = (0..shared).map(|i| token(mix(seed, 2_000 + family), i)).collect();
    prompt.extend((0..own).map(|i| token(draw(2), i)));
    Ask { prompt, seed: draw(3), max_tokens: 1 + (draw(4) % 40) as u32 }
}

fn request(ask: &Ask) -> GenerateRequest {
    GenerateRequest {
        prompt: Some(generate_request::Prompt::Tokens(TokenIds { ids: ask.prompt.clone() })),
        max_tokens: ask.max_tokens,
        sampling: Some(SamplingParams { seed: Some(ask.seed), ..SamplingParams::default() }),
        stop: Some(StopParams { ignore_eos: true, ..StopParams::default() }),
        ..GenerateRequest::default()
    }
}

/// How a request ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum End {
    Right,
    /// A typed error before the first token.
    Refused,
    /// A typed error after it; what came before was right.
    BrokenOff,
}

async fn perform(mut client: InferenceClient<Channel>, ask: &Ask) -> End {
    let mut spec = WitnessSpec::small();
    spec.vocab = VOCAB;
    let right = expected(&spec, &ask.prompt, ask.seed, 0, ask.max_tokens as usize);
    let mut stream = match client.generate(request(ask)).await {
        Ok(stream) => stream.into_inner(),
        Err(status) => {
            assert_eq!(status.code(), Code::Unavailable, "{status:?}");
            return End::Refused;
        }
    };
    let mut ids = Vec::new();
    loop {
        match stream.message().await {
            Ok(Some(message)) => ids.extend(message.token_ids),
            Ok(None) => break,
            Err(status) => {
                assert_eq!(status.code(), Code::Unavailable, "{status:?}");
                assert_eq!(ids, right[..ids.len()], "wrong before it broke off: {ask:?}");
                return if ids.is_empty() { End::Refused } else { End::BrokenOff };
            }
        }
    }
    assert_eq!(ids, right, "wrong tokens: {ask:?}");
    End::Right
}

/// Runs requests over one path, all of them `rounds` times: cold, then with whatever is still held.
/// `hurt` is called each time one has ended, with how many have before it.
async fn storm(
    args: &[&str],
    seed: u64,
    numbers: std::ops::Range<usize>,
    rounds: usize,
    hurt: impl Fn(&Cluster, usize),
) -> BTreeMap<End, usize> {
    let mut all = vec!["--engine", "witness", "--routers", "2", "--kv-memory", "8 MiB"];
    all.extend(args);
    let cluster = Cluster::start(&all);
    let mut clients = Vec::new();
    for url in &cluster.urls {
        clients.push(InferenceClient::connect(url.clone()).await.unwrap());
    }
    let done = AtomicUsize::new(0);
    let first = numbers.start;
    let asked = std::iter::repeat_n(numbers, rounds).flatten().map(|number| {
        let client = clients[number % clients.len()].clone();
        let (cluster, hurt, done) = (&cluster, &hurt, &done);
        async move {
            let end = perform(client, &ask(seed, number)).await;
            hurt(cluster, done.fetch_add(1, Ordering::Relaxed));
            end
        }
    });
    let mut ends = BTreeMap::new();
    let mut results = stream::iter(asked).buffer_unordered(IN_FLIGHT);
    while let Some(end) = results.next().await {
        *ends.entry(end).or_insert(0) += 1;
    }
    println!("from {first}, {args:?}: {ends:?}");
    quiescent(&cluster.client()).await;
    if args.contains(&"0") && args.contains(&"--disaggregate-min-blocks") {
        let moved = metric(&cluster.client(), "baton_transfer_blocks_total", "op=\"pull\"").await;
        assert!(moved > 0.0, "no block has moved with {args:?}");
    }
    ends
}

fn seed() -> u64 {
    let seed = std::env::var("BATON_SEED").map_or(7, |seed| seed.parse().unwrap());
    println!("BATON_SEED={seed}");
    seed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_storm_over_every_path() {
    let seed = seed();
    let count = scaled(1_200, 4_000);
    let remote = "--disaggregate-min-blocks";
    let paths: [&[&str]; 3] = [
        &["--prefill", "1", "--decode", "2", remote, "inf"],
        &["--prefill", "2", "--decode", "2", remote, "0", "--transport", "shm"],
        &["--prefill", "2", "--decode", "2", remote, "0", "--transport", "tcp"],
    ];
    for args in paths {
        let ends = storm(args, seed, 0..count, 2, |_, _| {}).await;
        assert_eq!(ends, BTreeMap::from([(End::Right, 2 * count)]), "{args:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_storm_with_a_killed_and_a_frozen_prefill_worker() {
    let seed = seed();
    let count = scaled(1_000, 4_000);
    for transport in ["shm", "tcp"] {
        let args = [
            "--prefill",
            "3",
            "--decode",
            "2",
            "--disaggregate-min-blocks",
            "0",
            "--transport",
            transport,
        ];
        let ends = storm(&args, seed, 10_000..10_000 + count, 1, |cluster, done| {
            if done == count / 4 {
                cluster.signal("prefill-0", "KILL");
            }
            if done == count / 2 {
                cluster.signal("prefill-1", "STOP");
            }
            if done == count * 3 / 4 {
                cluster.signal("prefill-1", "CONT");
            }
        })
        .await;
        assert_eq!(ends, BTreeMap::from([(End::Right, count)]), "{transport}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_storm_with_a_killed_decode_worker() {
    let seed = seed();
    let count = scaled(1_000, 4_000);
    let args = ["--prefill", "2", "--decode", "3", "--disaggregate-min-blocks", "2"];
    let ends = storm(&args, seed, 20_000..20_000 + count, 1, |cluster, done| {
        if done == count / 2 {
            cluster.signal("decode-1", "KILL");
        }
    })
    .await;
    // What had no token yet is answered by another worker; only streams that had begun break off,
    // and no more of them than one worker had.
    let broken = ends.get(&End::BrokenOff).copied().unwrap_or(0);
    assert_eq!(ends.get(&End::Refused), None, "{ends:?}");
    assert!(broken <= IN_FLIGHT, "{ends:?}");
    assert_eq!(ends[&End::Right] + broken, count);
}
