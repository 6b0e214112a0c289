//! Policies by name, decisions with their reasons, and their record.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use baton_node::config::Threshold;
use baton_node::scratch::Scratch;
use baton_proto::internal::finished::Reason;
use baton_proto::internal::{Load, Role, Submit, WatchBatch, failed};
use baton_router::choose::PolicyName;
use baton_router::config::Peer;
use common::client::Answer;
use common::worker::{FakeWorker, admitted, failed, finished, first_tokens, tokens};
use common::{House, within};
use serde_json::{Value, json};

const PATH: &str = "/v1/completions";

fn body() -> Value {
    let prompt: Vec<_> = (1..=100).collect();
    json!({"model": "tiny", "prompt": prompt, "max_tokens": 50})
}

async fn explained(house: &House, body: &Value, how: &[u8]) -> Answer {
    house.post_with(PATH, body, "x-baton-explain", &[how]).await
}

/// Whichever of the two gets the turn plays it.
async fn play(one: &FakeWorker, two: &FakeWorker) -> u32 {
    tokio::select! {
        _ = one.play(&[4], Reason::Length) => one.id(),
        _ = two.play(&[4], Reason::Length) => two.id(),
    }
}

fn load(queued: u32) -> WatchBatch {
    let load = Load { queued, free_slots: 900, evictable_slots: 100, ..Load::default() };
    WatchBatch { incarnation: 77, first_seq: 1, load: Some(load), ..WatchBatch::default() }
}

/// Waits until the router knows that so many turns wait at a worker.
async fn reported(house: &House, worker: &str, queued: u32) {
    let told = async {
        loop {
            let decision = explained(house, &body(), b"dry-run").await.body;
            let candidates = decision["decision"]["decode_candidates"].as_array().unwrap().clone();
            if candidates.iter().any(|c| c["worker"] == worker && c["queued"] == queued) {
                return;
            }
        }
    };
    within(told).await;
}

#[tokio::test]
async fn a_dry_run_tells_the_decision_and_spends_nothing() {
    let (one, two) = (FakeWorker::start("d1").await, FakeWorker::start("d2").await);
    let prefill = FakeWorker::start_with("p1", |d| d.role = Role::Prefill as i32).await;
    let house = House::open_with(&[&one, &two], |config| {
        config.prefill = vec![Peer { uri: prefill.uri() }];
        config.placement.disaggregate_min_blocks = Threshold::At(1);
    })
    .await;
    for worker in [&one, &two, &prefill] {
        within(worker.watched()).await;
    }
    one.publish(load(3)).await;
    reported(&house, "d1", 3).await;
    for _ in 0..20 {
        let answer = explained(&house, &body(), b"dry-run").await;
        assert_eq!(
            (answer.status.as_u16(), &answer.body["object"]),
            (200, &json!("baton.decision"))
        );
        let decision = &answer.body["decision"];
        assert_eq!((&decision["decode"], &decision["prefill"]), (&json!("d2"), &json!(["p1"])));
        assert_eq!(
            (&decision["policy"], &decision["prompt_tokens"], &decision["answer_tokens"]),
            (&json!("kv-aware"), &json!(100), &json!(50))
        );
        assert_eq!(
            (&decision["compute_tokens"], &decision["queue_position"]),
            (&json!(96), &json!(1))
        );
        let candidates = decision["decode_candidates"].as_array().unwrap();
        assert_eq!(candidates.len(), 2);
        let cost = |at: usize, term| candidates[at]["cost_ms"][term].as_f64().unwrap();
        assert_eq!((&candidates[0]["worker"], &candidates[1]["queued"]), (&json!("d2"), &json!(3)));
        assert!(cost(0, "queue") < 1e-9 && cost(1, "queue") > 0.0, "{decision}");
        assert!(cost(0, "compute") > 0.0 && cost(0, "decode") > 0.0, "{decision}");
        assert!((cost(0, "total") - decision["predicted_ms"].as_f64().unwrap()).abs() < 1e-9);
        for candidate in candidates {
            assert_eq!(
                (&candidate["sent_turns"], &candidate["promised_blocks"]),
                (&json!(0), &json!(0))
            );
        }
    }
    assert!(one.heard_nothing() && two.heard_nothing() && prefill.heard_nothing());
}

#[tokio::test]
async fn an_answer_carries_its_reasons_where_they_are_asked_for() {
    let worker = FakeWorker::start("d1").await;
    let house = House::open(&[&worker]).await;
    let body = body();
    let (answer, _) =
        tokio::join!(explained(&house, &body, b"1"), worker.play(&[4], Reason::Length));
    let explain = &answer.body["nvext"]["explain"];
    assert_eq!((answer.status.as_u16(), &explain["decode"]), (200, &json!("d1")));
    let chosen = &explain["decode_candidates"][0];
    assert_eq!((&chosen["probability"], &chosen["with_prefill"]), (&json!(1.0), &Value::Null));
    for how in [&b"0"[..], b""] {
        let header: &[&[u8]] = if how.is_empty() { &[] } else { &[how] };
        let ask = house.post_with(PATH, &body, "x-baton-explain", header);
        let (answer, _) = tokio::join!(ask, worker.play(&[4], Reason::Length));
        assert_eq!((answer.status.as_u16(), &answer.body["nvext"]), (200, &Value::Null));
    }
}

#[tokio::test]
async fn a_stream_carries_its_reasons_in_its_last_piece_only() {
    let worker = FakeWorker::start("d1").await;
    let house = House::open(&[&worker]).await;
    let mut body = body();
    body["stream"] = json!(true);
    let play = async {
        let submit = worker.submitted().await;
        worker.say(&submit, 0, [admitted(), first_tokens(&[4])]).await;
        submit
    };
    let ask = house.stream_with(PATH, &body, "x-baton-explain", b"1");
    let (mut stream, submit) = tokio::join!(ask, play);
    assert_eq!(stream.next().await.unwrap()["nvext"], Value::Null);
    worker.say(&submit, 0, [tokens(&[5]), finished(Reason::Length)]).await;
    let rest = within(stream.rest()).await;
    let explained: Vec<_> = rest.lines().filter(|line| line.contains("\"explain\"")).collect();
    assert_eq!(explained.len(), 1, "{rest}");
    assert!(
        explained[0].contains("\"decode\":\"d1\"")
            && explained[0].contains("\"finish_reason\":\"length\"")
    );
}

#[tokio::test]
async fn a_header_names_the_policy_where_that_is_allowed() {
    let (one, two) = (FakeWorker::start("d1").await, FakeWorker::start("d2").await);
    let house =
        House::open_with(&[&one, &two], |config| config.placement.policy_header = true).await;
    within(one.watched()).await;
    within(two.watched()).await;
    one.publish(load(9)).await;
    reported(&house, "d1", 9).await;
    let name = "x-baton-policy";
    let by = async |policy: &'static [u8]| {
        let (body, policies) = (body(), [policy]);
        let ask = house.post_with(PATH, &body, name, &policies);
        let (answer, winner) = tokio::join!(ask, play(&one, &two));
        assert_eq!(answer.status, 200);
        winner
    };
    for policy in [&b"kv-aware"[..], b"least-loaded", b"power-of-two"] {
        assert_eq!(by(policy).await, two.id());
    }
    let round = [by(b"round-robin").await, by(b"round-robin").await];
    assert!(round.contains(&one.id()) && round.contains(&two.id()), "{round:?}");

    let answer = house.post_with(PATH, &body(), name, &[b"random"]).await;
    let error = &answer.body["error"];
    assert_eq!((answer.status.as_u16(), &error["param"]), (400, &json!(name)));
    for policy in PolicyName::ALL {
        assert!(error["message"].as_str().unwrap().contains(policy.as_str()), "{error}");
    }
    assert!(one.heard_nothing() && two.heard_nothing());
}

#[tokio::test]
async fn no_policy_chooses_or_considers_a_worker_that_drains() {
    let (one, two) = (FakeWorker::start("d1").await, FakeWorker::start("d2").await);
    let house = House::open_with(&[&one, &two], |config| {
        config.placement.policy_header = true;
        config.placement.moves_max = 0;
    })
    .await;
    let mut body = body();
    body["prompt_cache_key"] = json!("a session");
    let moved = async {
        let (drains, stays, submit) = tokio::select! {
            submit = one.submitted() => (&one, &two, submit),
            submit = two.submitted() => (&two, &one, submit),
        };
        drains.say(&submit, 0, [failed(failed::Kind::Draining)]).await;
        stays.play(&[4], Reason::Length).await;
        (drains, stays)
    };
    let (answer, (drains, stays)) = tokio::join!(house.post(PATH, &body), moved);
    assert_eq!(answer.status, 200);
    let decision = explained(&house, &body, b"dry-run").await.body["decision"].clone();
    let candidates = decision["decode_candidates"].as_array().unwrap();
    assert_eq!((candidates.len(), &candidates[0]["worker_id"]), (1, &json!(stays.id())));
    for policy in PolicyName::ALL {
        for _ in 0..4 {
            let header = [policy.as_str().as_bytes()];
            let ask = house.post_with(PATH, &body, "x-baton-policy", &header);
            let (answer, _) = tokio::join!(ask, stays.play(&[4], Reason::Length));
            assert_eq!(answer.status, 200, "{policy}");
        }
    }
    assert!(drains.heard_nothing());
}

#[tokio::test]
async fn a_header_that_is_not_allowed_is_refused_and_never_ignored() {
    let house = House::start(&[], |config| config.placement.explain_header = false);
    for (name, value) in [("x-baton-policy", &b"kv-aware"[..]), ("x-baton-explain", b"1")] {
        let answer = house.post_with(PATH, &body(), name, &[value]).await;
        let error = &answer.body["error"];
        assert_eq!((answer.status.as_u16(), &error["code"]), (400, &json!("header_not_allowed")));
    }
}

#[tokio::test]
async fn sessions_stay_where_the_configuration_says_so() {
    let (one, two) = (FakeWorker::start("d1").await, FakeWorker::start("d2").await);
    let house = House::open_with(&[&one, &two], |config| {
        config.placement.policy = PolicyName::SessionAffinity;
    })
    .await;
    let mut hosts = Vec::new();
    for session in 0..12 {
        let mut body = body();
        body["prompt_cache_key"] = json!(format!("s{session}"));
        let once = async || tokio::join!(house.post(PATH, &body), play(&one, &two)).1;
        let host = once().await;
        assert_eq!((once().await, once().await), (host, host), "session {session}");
        hosts.push(host);
    }
    assert!(hosts.contains(&one.id()) && hosts.contains(&two.id()), "{hosts:?}");
}

#[tokio::test]
async fn a_turn_counts_while_it_runs_and_no_longer() {
    let worker = FakeWorker::start("d1").await;
    let house = House::open(&[&worker]).await;
    let candidate = async || {
        let decision = explained(&house, &body(), b"dry-run").await.body;
        decision["decision"]["decode_candidates"][0].clone()
    };
    let sent = |candidate: &Value| {
        let field = |name: &str| candidate[name].as_u64().unwrap();
        [field("sent_turns"), field("sent_pending_tokens"), field("promised_blocks")]
    };
    let during = async {
        let submit: Submit = worker.submitted().await;
        assert_eq!(sent(&candidate().await), [1, 100, 10], "150 tokens in blocks of 16");
        worker.say(&submit, 0, [admitted(), first_tokens(&[4])]).await;
        // The report is taken in before the answer ends.
        worker.say(&submit, 0, [finished(Reason::Length)]).await;
    };
    let body = body();
    let (answer, ()) = tokio::join!(house.post(PATH, &body), during);
    assert_eq!(answer.status, 200);
    let ended = async { while sent(&candidate().await) != [0, 0, 0] {} };
    within(ended).await;
    // A turn that is refused counts no longer either.
    let refuse = async {
        let submit = worker.submitted().await;
        worker.say(&submit, 0, [failed(failed::Kind::Invalid)]).await;
    };
    let (answer, ()) = tokio::join!(house.post(PATH, &body), refuse);
    assert_eq!(answer.status, 400);
    let ended = async { while sent(&candidate().await) != [0, 0, 0] {} };
    within(ended).await;
}

#[tokio::test]
async fn the_length_of_a_sessions_answers_is_learned() {
    let worker = FakeWorker::start("d1").await;
    let house = House::open(&[&worker]).await;
    let ids: Vec<_> = (1..=40).collect();
    let mut told = Vec::new();
    for session in ["a", "a", "b"] {
        let body = json!({"model": "tiny", "prompt": [1], "max_tokens": 1000,
                          "prompt_cache_key": session});
        let (answer, submit) =
            tokio::join!(house.post(PATH, &body), worker.play(&ids, Reason::Length));
        assert_eq!(answer.status, 200);
        told.push(submit.osl);
    }
    assert_eq!(told, [512, 60, 512], "40 and half of it for a session that is known");
}

#[tokio::test]
async fn decisions_are_recorded_with_what_came_of_them_and_without_content() {
    let folder = Scratch::new("record").unwrap();
    let file = folder.path().join("decisions.jsonl");
    let worker = FakeWorker::start("d1").await;
    let house = House::open_with(&[&worker], |config| {
        config.decisions.file = Some(file.clone());
    })
    .await;
    let lines = async |count: usize| {
        let read = async {
            loop {
                let text = std::fs::read_to_string(&file).unwrap();
                if text.lines().count() >= count && text.ends_with('\n') {
                    return text;
                }
                tokio::task::yield_now().await;
            }
        };
        within(read).await
    };
    let prompt = "canary ".repeat(20);
    let body = json!({"model": "tiny", "prompt": prompt, "max_tokens": 9,
                      "prompt_cache_key": "canary-session"});
    let (answer, _) = tokio::join!(house.post(PATH, &body), worker.play(&[4, 5], Reason::Length));
    assert_eq!(answer.status, 200);
    lines(1).await;
    let refuse = async {
        let submit = worker.submitted().await;
        worker.say(&submit, 0, [failed(failed::Kind::Invalid)]).await;
    };
    let (answer, ()) = tokio::join!(house.post(PATH, &body), refuse);
    assert_eq!(answer.status, 400);
    lines(2).await;
    let mut asking = Box::pin(house.post(PATH, &body));
    tokio::select! {
        _ = &mut asking => panic!("nobody answered"),
        _ = worker.submitted() => {}
    }
    drop(asking);
    let text = lines(3).await;
    assert!(!text.contains("canary"), "{text}");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let endings: Vec<_> = lines.iter().map(|line| &line["outcome"]["ending"]).collect();
    assert_eq!(endings, ["answered", "failed", "cancelled"]);
    let outcome = &lines[0]["outcome"];
    assert_eq!((&outcome["cached_tokens"], &outcome["completion_tokens"]), (&json!(2), &json!(2)));
    assert!(outcome["ttft_ms"].as_f64().unwrap() > 0.0, "{outcome}");
    assert_eq!(lines[0]["session"], lines[2]["session"]);
    let candidate = &lines[0]["decision"]["decode_candidates"][0];
    assert_eq!((&candidate["worker"], &candidate["probability"]), (&json!("d1"), &json!(1.0)));
    assert!(candidate["cost_ms"]["total"].as_f64().unwrap() > 0.0);
}
