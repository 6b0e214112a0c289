//! Features that are off, in shadow, and switched while the router runs.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use baton_node::config::Threshold;
use baton_proto::internal::finished::Reason;
use baton_proto::internal::{Load, Submit, WatchBatch};
use baton_router::config::{Switch, Switches};
use common::worker::{FakeWorker, admitted, finished, first_tokens};
use common::{House, within};
use serde_json::{Value, json};

const PATH: &str = "/v1/completions";
const CHAT: &str = "/v1/chat/completions";

fn body() -> Value {
    body_of(100)
}

fn body_of(tokens: u32) -> Value {
    let prompt: Vec<_> = (0..tokens).map(|at| 1 + at % 900).collect();
    json!({"model": "tiny", "prompt": prompt, "max_tokens": 50, "intent": {"priority": 7}})
}

async fn open(workers: &[&FakeWorker], switches: Switches) -> House {
    let house = House::open_with(workers, |config| {
        config.switches = switches;
        config.placement.disaggregate_min_blocks = Threshold::Never;
    })
    .await;
    for worker in workers {
        within(worker.watched()).await;
    }
    house
}

async fn decision(house: &House) -> Value {
    let answer = house.post_with(PATH, &body(), "x-baton-explain", &[b"dry-run"]).await;
    answer.body["decision"].clone()
}

/// Says how many turns and tokens wait, and waits until the router has heard it.
async fn reports(house: &House, worker: &FakeWorker, queued: u32, pending_tokens: u64) {
    let free = Load { free_slots: 900, evictable_slots: 100, ..Load::default() };
    let load = Load { queued, pending_tokens, ..free };
    let batch =
        WatchBatch { incarnation: 77, first_seq: 1, load: Some(load), ..WatchBatch::default() };
    worker.publish(batch).await;
    let heard = async || {
        let decision = decision(house).await;
        let candidates = decision["decode_candidates"].as_array().unwrap();
        let it =
            |c: &&Value| c["worker_id"] == worker.id() && c["pending_tokens"] == pending_tokens;
        candidates.iter().any(|candidate| it(&candidate))
    };
    within(async { while !heard().await {} }).await;
}

/// The one of the two that gets a turn, and what it was asked.
async fn winner(house: &House, one: &FakeWorker, two: &FakeWorker) -> (u32, Submit, Value) {
    let body = body();
    let play = async {
        tokio::select! {
            submit = one.play(&[4], Reason::Length) => (one.id(), submit),
            submit = two.play(&[4], Reason::Length) => (two.id(), submit),
        }
    };
    let (answer, (worker, submit)) = tokio::join!(house.post(PATH, &body), play);
    assert_eq!(answer.status, 200, "{}", answer.body);
    (worker, submit, answer.body)
}

#[tokio::test]
async fn with_everything_off_the_least_loaded_worker_gets_a_turn_without_hints() {
    let (one, two) = (FakeWorker::start("d1").await, FakeWorker::start("d2").await);
    let house = open(&[&one, &two], Switches::all(Switch::Off)).await;
    // One turn waits here, and there none, but far more tokens.
    reports(&house, &one, 1, 10).await;
    reports(&house, &two, 0, 100_000).await;
    let (worker, submit, answer) = winner(&house, &one, &two).await;
    assert_eq!((worker, submit.priority), (two.id(), 0));
    let applied = &answer["nvext"]["applied"][0];
    assert_eq!(applied["outcome"], "ignored", "{answer}");
    assert!(applied["why"].as_str().unwrap().contains("switches.hints"), "{answer}");
    assert_eq!(decision(&house).await["policy"], "least-loaded");
    let capabilities = house.get("/v1/capabilities").await.body;
    let switches = capabilities["switches"].as_object().unwrap();
    assert!(switches.len() == 6 && switches.values().all(|state| state == "off"), "{switches:?}");

    // Switched on as it runs.
    let changed = house.router.set_switches(Switches::default());
    assert_eq!(changed.len(), 6);
    assert!(changed.contains(&"kv_aware: off -> on".to_owned()), "{changed:?}");
    assert_eq!(decision(&house).await["policy"], "kv-aware");
    let (_, submit, answer) = winner(&house, &one, &two).await;
    assert_eq!(submit.priority, 7);
    assert_eq!(answer["nvext"]["applied"][0]["outcome"], "used", "{answer}");
    assert!(house.router.set_switches(Switches::default()).is_empty());
}

#[tokio::test]
async fn what_is_in_shadow_is_counted_and_changes_nothing() {
    let (one, two) = (FakeWorker::start("d1").await, FakeWorker::start("d2").await);
    let house = open(&[&one, &two], Switches::all(Switch::Shadow)).await;
    reports(&house, &one, 1, 10).await;
    reports(&house, &two, 0, 100_000).await;
    let (worker, submit, _) = winner(&house, &one, &two).await;
    assert_eq!((worker, submit.priority), (two.id(), 0));
    let same = |feature, same| {
        format!("baton_shadow_decisions_total{{feature=\"{feature}\",same=\"{same}\"}} 1")
    };
    assert!(house.shows(&same("kv_aware", false)).await);
    assert!(house.shows(&same("fan_out", true)).await);
}

/// Of two equal chats: whether no prompt token was known, and whether both were only compared.
async fn reused(switches: Switches) -> (bool, bool) {
    let worker = FakeWorker::start("d1").await;
    let house = open(&[&worker], switches).await;
    let messages = [json!({"role": "user", "content": "hello there ".repeat(40)})];
    for _ in 0..2 {
        let body = json!({"model": "tiny", "messages": messages, "max_tokens": 4});
        let (answer, _) = tokio::join!(house.post(CHAT, &body), worker.play(&[4], Reason::Length));
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    let line = "baton_prompt_tokens_total{kind=\"reused\"} 0";
    let shadow = "baton_shadow_decisions_total{feature=\"prompt_cache\",same=\"true\"} 2";
    (house.shows(line).await, house.shows(shadow).await)
}

#[tokio::test]
async fn the_prompt_cache_can_be_left_out_and_be_tried() {
    assert_eq!(reused(Switches::default()).await, (false, false));
    let with = |prompt_cache| Switches { prompt_cache, ..Switches::default() };
    assert_eq!(reused(with(Switch::Off)).await, (true, false));
    assert_eq!(reused(with(Switch::Shadow)).await, (true, true));
}

#[tokio::test]
async fn a_turn_goes_where_equal_work_is_under_way_unless_that_is_off() {
    for (switch, joined) in [(Switch::On, true), (Switch::Off, false)] {
        let (one, two) = (FakeWorker::start("d1").await, FakeWorker::start("d2").await);
        let house = open(&[&one, &two], Switches { fan_out: switch, ..Switches::default() }).await;
        let (body, again) = (body_of(3000), body_of(3000));
        let play = async {
            let (first, submit) = tokio::select! {
                submit = one.submitted() => (&one, submit),
                submit = two.submitted() => (&two, submit),
            };
            let later = house.post(PATH, &again);
            let play = async {
                let worker = tokio::select! {
                    _ = one.play(&[4], Reason::Length) => one.id(),
                    _ = two.play(&[4], Reason::Length) => two.id(),
                };
                (worker == first.id(), decision(&house).await)
            };
            let (answer, seen) = tokio::join!(later, play);
            assert_eq!(answer.status, 200);
            first.say(&submit, 0, [admitted(), first_tokens(&[4]), finished(Reason::Length)]).await;
            seen
        };
        let (answer, (same, decision)) = tokio::join!(house.post(PATH, &body), play);
        assert_eq!((answer.status.as_u16(), same), (200, joined), "{decision}");
    }
}
