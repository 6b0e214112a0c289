//! A policy outside of the router: it decides, and whatever goes wrong with it, kv-aware does.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use baton_node::config::{Span, Threshold};
use baton_node::scratch::Scratch;
use baton_node::{Drain, Tasks};
use baton_proto::internal::finished::Reason;
use baton_proto::internal::{Load, Role, WatchBatch, failed};
use baton_proto::policy::policy_server::{Policy, PolicyServer};
use baton_proto::policy::{ChooseReply, ChooseRequest};
use baton_router::choose::PolicyName;
use baton_router::config::{Config, Peer, Switch};
use common::worker::{FakeWorker, failed};
use common::{House, PATIENCE, within};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

const PATH: &str = "/v1/completions";

/// What the policy does with a question; `None`: it never answers.
type Rule = dyn Fn(&ChooseRequest) -> Option<Result<ChooseReply, Status>> + Send + Sync;

/// A policy in the test's hands; dropped, it is gone.
struct Outside {
    address: SocketAddr,
    inner: Arc<Inner>,
    tasks: Tasks,
}

struct Inner {
    rule: Mutex<Arc<Rule>>,
    asked: Mutex<Vec<ChooseRequest>>,
}

struct Service(Arc<Inner>);

#[tonic::async_trait]
impl Policy for Service {
    async fn choose(
        &self,
        request: Request<ChooseRequest>,
    ) -> Result<Response<ChooseReply>, Status> {
        let request = request.into_inner();
        let rule = self.0.rule.lock().unwrap().clone();
        let answer = rule(&request);
        self.0.asked.lock().unwrap().push(request);
        match answer {
            Some(answer) => answer.map(Response::new),
            None => std::future::pending().await,
        }
    }
}

impl Outside {
    async fn start(
        rule: impl Fn(&ChooseRequest) -> Option<Result<ChooseReply, Status>> + Send + Sync + 'static,
    ) -> Self {
        let inner = Inner { rule: Mutex::new(Arc::new(rule)), asked: Mutex::default() };
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::listen(address, Arc::new(inner)).await
    }

    async fn listen(address: SocketAddr, inner: Arc<Inner>) -> Self {
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let tasks = Tasks::new(&Drain::new(Duration::from_secs(1)), 10);
        let server = tonic::transport::Server::builder()
            .add_service(PolicyServer::new(Service(inner.clone())))
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), {
                let drain = tasks.drain().clone();
                async move { drain.draining().await }
            });
        tasks.spawn("policy", async move {
            server.await.unwrap();
        });
        Self { address, inner, tasks }
    }

    /// Answers with these workers, with a reason.
    async fn choosing(decode: u32, prefill: &[u32]) -> Self {
        let prefill = prefill.to_vec();
        Self::start(move |_| Some(Ok(reply(decode, &prefill)))).await
    }

    fn set(
        &self,
        rule: impl Fn(&ChooseRequest) -> Option<Result<ChooseReply, Status>> + Send + Sync + 'static,
    ) {
        *self.inner.rule.lock().unwrap() = Arc::new(rule);
    }

    fn asked(&self) -> Vec<ChooseRequest> {
        self.inner.asked.lock().unwrap().clone()
    }

    /// The router is to ask it about every turn, and has time.
    fn configure(&self, config: &mut Config) {
        config.placement.policy = PolicyName::External;
        config.placement.external.uri = Some(format!("http://{}", self.address));
        config.placement.external.timeout = Span(PATIENCE / 2);
    }

    /// Ends it, with its connections.
    async fn go(self) -> (SocketAddr, Arc<Inner>) {
        let Self { address, inner, tasks } = self;
        tasks.drain().trigger(baton_node::drain::Cause::Requested);
        within(tasks.drain().conclude(&tasks)).await;
        (address, inner)
    }
}

fn reply(decode: u32, prefill: &[u32]) -> ChooseReply {
    ChooseReply {
        decode_worker_id: decode,
        prefill_worker_ids: prefill.to_vec(),
        probability: Some(0.5),
        reason: "as the test says".to_owned(),
    }
}

fn body() -> Value {
    let prompt: Vec<_> = (1..=100).collect();
    json!({"model": "tiny", "prompt": prompt, "max_tokens": 50, "prompt_cache_key": "a session"})
}

/// What would be decided now.
async fn decision(house: &House) -> Value {
    let answer = house.post_with(PATH, &body(), "x-baton-explain", &[b"dry-run"]).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body["decision"].clone()
}

/// Waits until a decision is as it should be.
async fn until(house: &House, is: impl Fn(&Value) -> bool) -> Value {
    let found = async {
        loop {
            let decision = decision(house).await;
            if is(&decision) {
                return decision;
            }
            tokio::task::yield_now().await;
        }
    };
    within(found).await
}

/// Asks for a decision and does not wait for it.
async fn asked_again(house: &House) {
    let _ = tokio::time::timeout(Duration::from_millis(50), decision(house)).await;
}

async fn counted(house: &House, outcome: &str) -> u64 {
    let metrics = house.get("/metrics").await.body;
    let name = format!("baton_policy_calls_total{{outcome=\"{outcome}\"}} ");
    let lines = metrics.as_str().unwrap().lines();
    lines.filter_map(|line| line.strip_prefix(&name)).map(|n| n.parse::<u64>().unwrap()).sum()
}

/// Two decode workers of which kv-aware prefers the second: many turns wait at the first.
async fn two(adjust: impl FnOnce(&mut Config, u32)) -> (FakeWorker, FakeWorker, House) {
    let (busy, idle) = (FakeWorker::start("d1").await, FakeWorker::start("d2").await);
    let house = House::open_with(&[&busy, &idle], |config| adjust(config, busy.id())).await;
    within(busy.watched()).await;
    within(idle.watched()).await;
    publish(&busy, Load { queued: 9, free_slots: 900, ..Load::default() }).await;
    until(&house, |d| d["decode_candidates"].as_array().unwrap().iter().any(|c| c["queued"] == 9))
        .await;
    (busy, idle, house)
}

async fn publish(worker: &FakeWorker, load: Load) {
    let load = Some(load);
    worker
        .publish(WatchBatch { incarnation: 77, first_seq: 1, load, ..WatchBatch::default() })
        .await;
}

#[tokio::test]
async fn it_decides_and_the_answer_says_so() {
    let policy = Outside::choosing(0, &[]).await;
    let (busy, _idle, house) = two(|config, _| policy.configure(config)).await;
    let named = busy.id();
    policy.set(move |_| Some(Ok(reply(named, &[]))));
    let body = body();
    let ask = house.post_with(PATH, &body, "x-baton-explain", &[b"1"]);
    let (answer, _) = tokio::join!(ask, busy.play(&[4], Reason::Length));
    let explain = &answer.body["nvext"]["explain"];
    assert_eq!((&explain["policy"], &explain["decode"]), (&json!("external"), &json!("d1")));
    assert_eq!(explain["fallback"], Value::Null);
    assert_eq!(explain["decode_candidates"][0]["probability"], 0.5);
    assert_eq!(explain["decode_candidates"][1]["probability"], Value::Null, "it did not say");
    let external = &explain["external"];
    assert_eq!((&external["acts"], &external["outcome"]), (&json!(true), &json!("answered")));
    assert_eq!((&external["decode"], &external["prefill"]), (&json!("d1"), &json!([])));
    assert_eq!(external["reason"], "as the test says");
    assert!(external["took_ms"].as_f64().unwrap() > 0.0);
    assert!(counted(&house, "answered").await >= 1);
}

#[tokio::test]
async fn it_is_told_of_the_turn_and_of_the_workers_and_of_no_content() {
    let policy = Outside::choosing(0, &[]).await;
    let (busy, idle, house) = two(|config, _| {
        policy.configure(config);
        config.placement.external.candidates_max = 1;
    })
    .await;
    let mut body = body();
    body["intent"] = json!({"priority": 3});
    let (answer, _) = tokio::join!(house.post(PATH, &body), idle.play(&[4], Reason::Length));
    assert_eq!(answer.status, 200);
    let asked = policy.asked().pop().unwrap();
    let turn = asked.turn.as_ref().unwrap();
    assert!(asked.version == 1 && !asked.request_id.is_empty() && !asked.shadow);
    assert_eq!((turn.prompt_tokens, turn.answer_tokens, turn.choices), (100, 50, 1));
    assert_eq!((turn.block_tokens, turn.priority), (16, 3));
    assert!(turn.session.is_some() && turn.parent.is_none());
    assert_eq!((asked.decode.len(), asked.decode_total, asked.prefill.len()), (1, 2, 0));
    let best = &asked.decode[0];
    assert_eq!((best.worker_id, &*best.name, best.slots), (idle.id(), "d2", 1000));
    assert!(best.fits && !best.may_ask_prefill && best.cost.as_ref().unwrap().total_ms > 0.0);
    assert_eq!(asked.kv_aware.unwrap().decode_worker_id, idle.id());
    assert!(busy.heard_nothing());
}

#[tokio::test]
async fn it_names_prefill_workers_in_order() {
    let decode = FakeWorker::start("d1").await;
    let prefill = |name| FakeWorker::start_with(name, |d| d.role = Role::Prefill as i32);
    let (one, two) = (prefill("p1").await, prefill("p2").await);
    let policy = Outside::choosing(decode.id(), &[two.id(), one.id()]).await;
    let house = House::open_with(&[&decode], |config| {
        config.prefill = [&one, &two].map(|worker| Peer { uri: worker.uri() }).into();
        policy.configure(config);
        config.placement.disaggregate_min_blocks = Threshold::At(1);
    })
    .await;
    within(one.watched()).await;
    within(two.watched()).await;
    let found = until(&house, |decision| decision["policy"] == "external").await;
    assert_eq!(found["prefill"], json!(["p2", "p1"]));
    let body = body();
    let (_, submit) = tokio::join!(house.post(PATH, &body), decode.play(&[4], Reason::Length));
    let asked: Vec<_> = submit.prefill.iter().map(|peer| peer.worker).collect();
    assert_eq!(asked, [two.id(), one.id()]);
}

#[tokio::test]
async fn what_it_says_wrong_leaves_the_choice_to_kv_aware() {
    let policy = Outside::choosing(0, &[]).await;
    let (busy, idle, house) = two(|config, _| policy.configure(config)).await;
    let (busy_id, idle_id) = (busy.id(), idle.id());
    for (reply, fallback) in [
        (Ok(reply(4711, &[])), "unknown_worker"),
        (Ok(reply(busy_id, &[idle_id])), "wrong_role"),
        (Err(Status::internal("a mistake")), "error"),
        (Err(Status::unavailable("not now")), "unreachable"),
    ] {
        policy.set(move |_| Some(reply.clone()));
        let found = decision(&house).await;
        assert_eq!((&found["policy"], &found["decode"]), (&json!("kv-aware"), &json!("d2")));
        assert_eq!(found["fallback"], fallback);
        assert_eq!(found["external"]["outcome"], fallback);
        assert!(counted(&house, fallback).await >= 1, "{fallback}");
    }
    publish(&busy, Load { queued: 9, running: 1, ..Load::default() }).await;
    policy.set(move |_| Some(Ok(reply(busy_id, &[]))));
    let found = until(&house, |decision| decision["fallback"] == "no_room").await;
    assert_eq!((&found["policy"], &found["decode"]), (&json!("kv-aware"), &json!("d2")));
}

#[tokio::test]
async fn who_did_not_take_the_turn_is_not_asked_again_though_it_is_named() {
    let policy = Outside::choosing(0, &[]).await;
    let (busy, idle, house) = two(|config, _| policy.configure(config)).await;
    let named = busy.id();
    policy.set(move |_| Some(Ok(reply(named, &[]))));
    let before = policy.asked().len();
    let body = body();
    let play = async {
        let submit = busy.submitted().await;
        busy.say(&submit, 0, [failed(failed::Kind::Overloaded)]).await;
        idle.play(&[4], Reason::Length).await
    };
    let (answer, _) = tokio::join!(house.post(PATH, &body), play);
    assert_eq!(answer.status, 200);
    let asked = policy.asked();
    assert_eq!(asked.len() - before, 2, "asked again for the second attempt");
    let last: Vec<_> = asked.last().unwrap().decode.iter().map(|worker| worker.worker_id).collect();
    assert_eq!(last, [idle.id()]);
    assert_eq!(counted(&house, "tried").await, 1);
}

#[tokio::test]
async fn too_late_is_too_late_and_then_it_is_left_alone() {
    let policy = Outside::start(|_| None).await;
    let (_busy, idle, house) = two(|config, _| {
        policy.configure(config);
        config.placement.external.timeout = Span::millis(50);
    })
    .await;
    let found = until(&house, |decision| decision["fallback"] == "paused").await;
    assert_eq!((&found["policy"], &found["decode"]), (&json!("kv-aware"), &json!("d2")));
    assert_eq!(found["external"]["took_ms"], Value::Null, "it was not asked");
    assert!(counted(&house, "timeout").await >= 5);
    let body = body();
    let (answer, _) = tokio::join!(house.post(PATH, &body), idle.play(&[4], Reason::Length));
    assert_eq!(answer.status, 200);
    // The pause ends, and one turn tries.
    let named = idle.id();
    policy.set(move |_| Some(Ok(reply(named, &[]))));
    until(&house, |decision| decision["policy"] == "external").await;
}

#[tokio::test]
async fn what_is_gone_is_not_asked_until_it_is_back() {
    let policy = Outside::choosing(0, &[]).await;
    let (busy, _idle, house) = two(|config, _| policy.configure(config)).await;
    let named = busy.id();
    policy.set(move |_| Some(Ok(reply(named, &[]))));
    until(&house, |decision| decision["policy"] == "external").await;
    let (address, inner) = policy.go().await;
    let found = until(&house, |decision| decision["fallback"] == "paused").await;
    assert_eq!((&found["policy"], &found["decode"]), (&json!("kv-aware"), &json!("d2")));
    assert!(counted(&house, "unreachable").await >= 5);
    let _policy = Outside::listen(address, inner).await;
    let found = until(&house, |decision| decision["policy"] == "external").await;
    assert_eq!(found["decode"], "d1");
}

#[tokio::test]
async fn it_is_asked_about_so_many_turns_at_once_and_no_more() {
    let policy = Outside::start(|_| None).await;
    let worker = FakeWorker::start("d1").await;
    let house = House::open_with(&[&worker], |config| {
        policy.configure(config);
        config.placement.external.in_flight_max = 1;
    })
    .await;
    let mut waiting = Box::pin(decision(&house));
    let asked = async {
        while policy.asked().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = &mut waiting => panic!("nobody answered"),
        () = within(asked) => {}
    }
    assert_eq!(decision(&house).await["fallback"], "busy");
    assert_eq!((counted(&house, "busy").await, policy.asked().len()), (1, 1));
    drop(waiting);
    // The place is free again when nobody waits any more.
    let free = async {
        while policy.asked().len() < 2 {
            asked_again(&house).await;
        }
    };
    within(free).await;
}

#[tokio::test]
async fn a_shadow_is_asked_and_recorded_and_does_not_act() {
    let folder = Scratch::new("shadow").unwrap();
    let file = folder.path().join("decisions.jsonl");
    let policy = Outside::choosing(0, &[]).await;
    let (busy, idle, house) = two(|config, _| {
        policy.configure(config);
        config.switches.external = Switch::Shadow;
        config.decisions.file = Some(file.clone());
    })
    .await;
    let named = busy.id();
    policy.set(move |_| Some(Ok(reply(named, &[]))));
    let body = body();
    let (answer, _) = tokio::join!(house.post(PATH, &body), idle.play(&[4], Reason::Length));
    assert_eq!(answer.status, 200);
    assert!(policy.asked().last().unwrap().shadow);
    let line = async {
        loop {
            let text = std::fs::read_to_string(&file).unwrap();
            if text.ends_with('\n') {
                return serde_json::from_str::<Value>(&text).unwrap();
            }
            tokio::task::yield_now().await;
        }
    };
    let record = within(line).await;
    let found = &record["decision"];
    assert_eq!((&found["policy"], &found["decode"]), (&json!("kv-aware"), &json!("d2")));
    assert_eq!(found["fallback"], Value::Null, "nothing went wrong");
    let external = &found["external"];
    assert_eq!((&external["acts"], &external["decode"]), (&json!(false), &json!("d1")));
    assert_eq!((&external["outcome"], &external["probability"]), (&json!("answered"), &json!(0.5)));
    assert_eq!(record["request"], json!(policy.asked().last().unwrap().request_id));
}

#[tokio::test]
async fn a_header_names_it_where_it_is_configured_and_is_refused_where_it_is_not() {
    let name = "x-baton-policy";
    let worker = FakeWorker::start("d1").await;
    let policy = Outside::choosing(worker.id(), &[]).await;
    let house = House::open_with(&[&worker], |config| {
        policy.configure(config);
        config.placement.policy = PolicyName::KvAware;
        config.placement.policy_header = true;
    })
    .await;
    assert_eq!(decision(&house).await["external"], Value::Null, "nobody named it");
    assert!(policy.asked().is_empty());
    let body = body();
    let ask = house.post_with(PATH, &body, name, &[b"external"]);
    let (answer, _) = tokio::join!(ask, worker.play(&[4], Reason::Length));
    assert_eq!((answer.status.as_u16(), policy.asked().len()), (200, 1));

    let house = House::start(&[], |config| config.placement.policy_header = true);
    let answer = house.post_with(PATH, &body, name, &[b"external"]).await;
    let error = &answer.body["error"];
    assert_eq!((answer.status.as_u16(), &error["param"]), (400, &json!(name)));
    assert!(error["message"].as_str().unwrap().contains("placement.external.uri"), "{error}");
}

#[tokio::test]
async fn what_is_switched_off_is_not_asked() {
    let policy = Outside::choosing(1, &[]).await;
    let worker = FakeWorker::start("d1").await;
    let house = House::open_with(&[&worker], |config| {
        policy.configure(config);
        config.switches.external = Switch::Off;
    })
    .await;
    let found = decision(&house).await;
    assert_eq!((&found["policy"], &found["fallback"]), (&json!("kv-aware"), &json!("off")));
    assert!(policy.asked().is_empty());
}
