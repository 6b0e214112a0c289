//! The same prompts over every path give the same tokens and log-probabilities, bit for bit:
//! aggregated, disaggregated over shared memory and over tcp, each cold and with a warm prefix.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod cluster;

use baton_proto::v1::inference_client::InferenceClient;
use baton_proto::v1::{GenerateRequest, SamplingParams, StopParams, TokenIds, generate_request};
use cluster::{Cluster, metric, quiescent, scaled};
use futures_util::stream::{self, StreamExt};
use tonic::transport::Channel;

/// Answer tokens of each request.
const ANSWER: u32 = 12;
/// The block size that prompt lengths are chosen around.
const BLOCK: usize = 64;

/// What must not depend on the path.
#[derive(Clone, PartialEq, Debug)]
struct Answer {
    ids: Vec<u32>,
    logprob_bits: Vec<u32>,
}

/// A generator of prompts; its seed is printed when a test fails.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        // SplitMix64 (Steele et al., 2014).
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// Prompts of 1 to 3,000 tokens, among them those around the ends of blocks; half of them share
/// their beginning with an earlier one.
fn prompts(seed: u64, count: usize) -> Vec<Vec<u32>> {
    let mut random = Random(seed);
    let mut prompts: Vec<Vec<u32>> = Vec::new();
    for index in 0..count {
        let length = match index {
            0 => 1,
            1..=3 => BLOCK + index - 2,
            4..=6 => 4 * BLOCK + index - 5,
            7 => 3_000,
            _ if random.below(4) == 0 => 1 + random.below(3_000),
            _ => 1 + random.below(600),
        };
        let mut prompt = Vec::new();
        if index > 8 && random.below(2) == 0 {
            let earlier = &prompts[random.below(index)];
            prompt.extend(&earlier[..random.below(earlier.len()).min(length)]);
        }
        while prompt.len() < length {
            prompt.push(9 + random.below(4_000) as u32);
        }
        prompts.push(prompt);
    }
    prompts
}

fn request(index: usize, prompt: &[u32]) -> GenerateRequest {
    let sampled = index % 2 == 1;
    GenerateRequest {
        prompt: Some(generate_request::Prompt::Tokens(TokenIds { ids: prompt.to_vec() })),
        max_tokens: ANSWER,
        logprobs: Some(0),
        sampling: Some(SamplingParams {
            temperature: Some(if sampled { 0.8 } else { 0.0 }),
            seed: Some(index as u64),
            ..SamplingParams::default()
        }),
        stop: Some(StopParams { ignore_eos: true, ..StopParams::default() }),
        ..GenerateRequest::default()
    }
}

async fn ask(mut client: InferenceClient<Channel>, request: GenerateRequest) -> Answer {
    let mut stream = client.generate(request).await.unwrap().into_inner();
    let mut answer = Answer { ids: Vec::new(), logprob_bits: Vec::new() };
    while let Some(message) = stream.message().await.unwrap() {
        answer.ids.extend(message.token_ids);
        answer.logprob_bits.extend(message.logprobs.iter().map(|l| l.logprob.to_bits()));
    }
    assert_eq!(answer.ids.len(), ANSWER as usize);
    assert_eq!(answer.logprob_bits.len(), ANSWER as usize);
    answer
}

/// All prompts twice, so many at a time; returns the cold and the warm answers.
async fn run(
    args: &[&str],
    prompts: &[Vec<u32>],
    at_a_time: usize,
    moves: bool,
) -> (Vec<Answer>, Vec<Answer>) {
    let cluster = Cluster::start(args);
    let client = InferenceClient::connect(cluster.url().to_owned()).await.unwrap();
    let mut rounds = Vec::new();
    for _ in ["cold", "warm"] {
        let asked = prompts.iter().enumerate();
        let asked = asked.map(|(index, prompt)| ask(client.clone(), request(index, prompt)));
        let answers: Vec<Answer> = stream::iter(asked).buffered(at_a_time).collect().await;
        rounds.push(answers);
    }
    let http = cluster.client();
    let moved = metric(&http, "baton_transfer_blocks_total", "op=\"pull\"").await;
    assert_eq!(moved > 0.0, moves, "{moved} blocks have moved with {args:?}");
    quiescent(&http).await;
    let warm = rounds.pop().unwrap();
    (rounds.pop().unwrap(), warm)
}

async fn every_path_agrees(model: &str) {
    let seed = std::env::var("BATON_SEED").map_or(20_261, |seed| seed.parse().unwrap());
    println!("BATON_SEED={seed}");
    let prompts = prompts(seed, scaled(24, 300));
    let dir = format!("tests/models/{model}");
    let common = ["--model", &dir, "--kv-memory", "512 MiB"];
    let variant = |own: &[&'static str]| {
        let mut args: Vec<&str> = common.to_vec();
        args.extend(own);
        args
    };
    let alone = variant(&["--prefill", "0", "--threads", "2"]);
    let (reference, warm) = run(&alone, &prompts, 1, false).await;
    assert_eq!(reference, warm, "a warm prefix changed the answer");
    let remote = "--disaggregate-min-blocks";
    let paths = [
        (variant(&[remote, "inf", "--threads", "1"]), 8, false),
        (variant(&[remote, "0", "--transport", "shm", "--chunk-tokens", "192"]), 3, true),
        (variant(&[remote, "0", "--transport", "tcp", "--chunk-tokens", "64"]), 5, true),
        (variant(&[remote, "0", "--transport", "tcp", "--threads", "2"]), 1, true),
    ];
    for (args, at_a_time, moves) in paths {
        let (cold, warm) = run(&args, &prompts, at_a_time, moves).await;
        for (index, prompt) in prompts.iter().enumerate() {
            let length = prompt.len();
            assert_eq!(reference[index], cold[index], "{args:?}, cold, prompt {index} of {length}");
            assert_eq!(reference[index], warm[index], "{args:?}, warm, prompt {index} of {length}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_paths_agree_on_llama() {
    every_path_agrees("tiny-llama").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_paths_agree_on_qwen3() {
    every_path_agrees("tiny-qwen3").await;
}

#[test]
fn prompts_cover_the_ends_of_blocks() {
    let lengths: Vec<usize> = prompts(1, 12).iter().map(Vec::len).collect();
    for length in [1, BLOCK - 1, BLOCK, BLOCK + 1, 3_000] {
        assert!(lengths.contains(&length), "{length}");
    }
}
