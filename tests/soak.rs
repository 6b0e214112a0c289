//! Conversations without end: what a router remembers of sessions, prompts, lengths, blocks on their
//! way and what it computed ahead is bounded, so its memory comes to rest.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod cluster;

use baton_bench::client::Client;
use cluster::{Cluster, metric, quiescent, scaled};
use futures_util::stream::{self, StreamExt};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Conversations at a time.
const IN_FLIGHT: usize = 32;
/// Turns of each.
const TURNS: usize = 4;
/// Beyond noise: what a router may grow by after its first fifth.
const GROWTH_BYTES_MAX: u64 = 32 << 20;

/// One conversation with its own session, tools and hints; every turn has to be answered.
async fn converse(client: &Client, number: usize, done: &AtomicUsize) {
    let mut messages = vec![json!({"role": "system", "content": "You are brief. ".repeat(12)})];
    for turn in 0..TURNS {
        let said = format!("question {turn} of conversation {number}");
        messages.push(json!({"role": "user", "content": said}));
        let intent = json!({
            "session": {"id": format!("session-{number}"), "parent": format!("p-{}", number % 97)},
            "priority": (number % 5) as i64 - 2,
            "speculative_prefill": number.is_multiple_of(8),
        });
        let body =
            json!({"model": "witness", "messages": messages, "max_tokens": 4, "intent": intent});
        let answer = client.post("/v1/chat/completions", &body).await.unwrap();
        let content = answer["choices"][0]["message"]["content"].clone();
        assert!(content.is_string(), "{answer}");
        messages.push(json!({"role": "assistant", "content": content}));
        done.fetch_add(1, Ordering::Relaxed);
    }
}

/// Memory that a process has to itself.
fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_routers_memory_comes_to_rest() {
    let conversations = scaled(1_000, 250_000);
    let args = ["--engine", "witness", "--prefill", "1", "--decode", "1", "--kv-memory", "8 MiB"];
    let cluster = Cluster::start(&args);
    let client = cluster.client();
    let router = cluster.children()["router-0"];
    let done = AtomicUsize::new(0);
    let mut after_a_fifth = 0;
    let talks = (0..conversations).map(|number| converse(&client, number, &done));
    let mut talks = stream::iter(talks).buffer_unordered(IN_FLIGHT);
    let mut ended = 0;
    while talks.next().await.is_some() {
        ended += 1;
        if ended == conversations / 5 {
            after_a_fifth = resident_bytes(router);
        }
        if ended % (conversations / 20) == 0 {
            println!("{} turns, {} MiB", TURNS * ended, resident_bytes(router) >> 20);
        }
    }
    assert_eq!(done.load(Ordering::Relaxed), TURNS * conversations);
    quiescent(&client).await;
    let at_the_end = resident_bytes(router);
    assert!(
        at_the_end <= after_a_fifth + GROWTH_BYTES_MAX,
        "{after_a_fifth} bytes after a fifth of the turns, {at_the_end} after all of them"
    );
    // What the router knows of its workers is what they hold.
    let slots = metric(&client, "baton_blocks", "").await;
    let known = metric(&client, "baton_index_blocks", "").await;
    assert!(known <= slots, "{known} blocks are known of {slots} slots");
    assert_eq!(client.get("/v1/models").await.unwrap()["object"], Value::from("list"));
}
