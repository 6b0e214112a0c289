//! Clients that go away at every byte of what they send, and all along what they are sent: the turn ends
//! at the worker, and nothing of it stays behind. `BATON_SEED` says where the cuts begin, `BATON_LONG=1`
//! cuts at every byte of the answer, too.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use baton_proto::internal::finished::Reason;
use common::stage::{CHAT, MESSAGES, RESPONSES, with};
use common::worker::{FakeWorker, admitted, finished, first_tokens, tokens};
use common::{House, raw, within};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const TEXT: &str = "/v1/completions";
const TOKENIZE: &str = "/tokenize";
/// Requests that the router takes at a time, so that one place lost at each cut would be noticed.
const PLACES: usize = 8;

fn body(path: &str) -> Value {
    let messages = json!([{"role": "user", "content": "hi"}]);
    match path {
        CHAT => json!({"model": "tiny", "messages": messages}),
        MESSAGES => json!({"model": "tiny", "messages": messages, "max_tokens": 9}),
        RESPONSES => json!({"model": "tiny", "input": "hi"}),
        _ => json!({"model": "tiny", "prompt": "hi"}),
    }
}

async fn open() -> (FakeWorker, House) {
    let worker = FakeWorker::start("d1").await;
    let house = House::open_with(&[&worker], |config| {
        config.limits.requests_max = PLACES;
        config.serve.connections_max = PLACES as u32;
    })
    .await;
    (worker, house)
}

/// Whether there is a connection, or a stream on one.
fn busy(house: &House) -> bool {
    let names = house.tasks.names();
    names.iter().any(|(name, running)| ["connection", "stream"].contains(name) && *running > 0)
}

/// A connection on which these bytes have been sent.
async fn sent(house: &House, bytes: &[u8]) -> TcpStream {
    let mut client = house.connect().await;
    client.write_all(bytes).await.unwrap();
    within(async {
        while !busy(house) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    client
}

/// Waits until no connection and no stream is left.
async fn empty(house: &House) {
    within(async {
        while busy(house) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// All places of the router are free: as many turns run at once as it takes.
async fn all_places_are_free(worker: &FakeWorker, house: &House) {
    let body = body(TEXT);
    let asks = (0..PLACES - 1).map(|_| house.post(TEXT, &body));
    let play = async {
        let mut turns = Vec::new();
        while turns.len() < PLACES - 1 {
            turns.push(worker.submitted().await);
        }
        for turn in turns {
            worker.say(&turn, 0, [admitted(), first_tokens(&[4]), finished(Reason::Length)]).await;
        }
    };
    let (answers, ()) = tokio::join!(futures_util::future::join_all(asks), play);
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert!(worker.heard_nothing());
}

#[tokio::test]
async fn at_every_byte_of_the_request() {
    let (worker, house) = open().await;
    for path in [CHAT, TEXT, MESSAGES, RESPONSES, TOKENIZE] {
        let request = raw::request(path, body(path).to_string().as_bytes());
        for end in 0..request.len() {
            drop(sent(&house, &request[..end]).await);
            empty(&house).await;
            assert!(worker.heard_nothing(), "{path} after {end} bytes");
        }
        if path != TOKENIZE {
            let client = sent(&house, &request).await;
            let submit = worker.submitted().await;
            drop(client);
            assert_eq!(worker.cancelled().await.request_id, submit.request_id, "{path}");
            empty(&house).await;
        }
    }
    all_places_are_free(&worker, &house).await;
}

/// Every so many bytes of an answer.
fn step() -> usize {
    if std::env::var_os("BATON_LONG").is_some() { 1 } else { 23 }
}

/// Where the cuts begin, below a step.
fn first() -> usize {
    let seed = std::env::var("BATON_SEED").map_or(11, |seed| seed.parse().expect("a number"));
    println!("BATON_SEED={seed}");
    seed % step()
}

#[tokio::test]
async fn all_along_a_stream() {
    let (worker, house) = open().await;
    for path in [CHAT, TEXT, MESSAGES, RESPONSES] {
        let body = with(body(path), &json!({"stream": true})).to_string();
        let request = raw::request(path, body.as_bytes());
        let mut cut_at = first();
        loop {
            let mut client = sent(&house, &request).await;
            let submit = worker.submitted().await;
            // The turn has not ended when the client goes.
            worker.say(&submit, 0, [admitted(), first_tokens(&[4])]).await;
            worker.say(&submit, 0, [tokens(&[5, 6])]).await;
            let (mut read, mut over) = (Vec::new(), false);
            within(async {
                while read.len() < cut_at && !over {
                    let mut piece = vec![0; cut_at - read.len()];
                    let bytes = client.read(&mut piece).await.unwrap();
                    read.extend_from_slice(&piece[..bytes]);
                    over = String::from_utf8_lossy(&read).contains("t6");
                }
            })
            .await;
            drop(client);
            assert_eq!(worker.cancelled().await.request_id, submit.request_id, "{path} {cut_at}");
            empty(&house).await;
            if over {
                break;
            }
            cut_at += step();
        }
        assert!(cut_at > 300, "{path}: the stream is longer than {cut_at} bytes");
    }
    all_places_are_free(&worker, &house).await;
}

#[tokio::test]
async fn all_along_a_whole_answer() {
    let (worker, house) = open().await;
    for path in [CHAT, TEXT, MESSAGES, RESPONSES] {
        let request = raw::request(path, body(path).to_string().as_bytes());
        let whole = async |cut_at: usize| {
            let mut client = sent(&house, &request).await;
            worker.play(&[4, 5, 6], Reason::Length).await;
            let mut read = vec![0; cut_at];
            let read = within(client.read_exact(&mut read)).await.is_ok();
            drop(client);
            empty(&house).await;
            read
        };
        let mut cut_at = first();
        while whole(cut_at).await {
            cut_at += 4 * step();
        }
        assert!(cut_at > 300, "{path}: the answer is longer than {cut_at} bytes");
        assert!(worker.heard_nothing(), "{path}: what is complete needs no cancellation");
    }
    all_places_are_free(&worker, &house).await;
}
