//! Computing ahead, with workers whose every word the test speaks. The text of an answer has other
//! ids here than were drawn, so there is always something to compute.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use baton_node::config::Span;
use baton_proto::internal::finished::Reason;
use baton_proto::internal::{Submit, failed as failure};
use baton_router::config::{Config, Switch};
use common::client::Answer;
use common::worker::{FakeWorker, admitted, failed};
use common::{House, within};
use serde_json::{Value, json};

const PATH: &str = "/v1/chat/completions";

struct Talk {
    house: House,
    worker: FakeWorker,
    messages: Vec<Value>,
}

impl Talk {
    async fn begin(adjust: impl FnOnce(&mut Config)) -> Self {
        let worker = FakeWorker::start("d1").await;
        let house = House::open_with(&[&worker], adjust).await;
        Self { house, worker, messages: Vec::new() }
    }

    /// One turn that wants its next one to be prepared for; what the worker was asked, and the
    /// answer.
    async fn turn(&mut self, said: &str) -> (Submit, Answer) {
        self.messages.push(json!({"role": "user", "content": said}));
        let intent = json!({"speculative_prefill": true});
        let body = json!({"model": "tiny", "messages": self.messages, "intent": intent});
        let ids: Vec<u32> = (100..120).collect();
        let (submit, answer) =
            tokio::join!(self.worker.play(&ids, Reason::Length), self.house.post(PATH, &body));
        assert_eq!(answer.status.as_u16(), 200, "{}", answer.body);
        self.messages.push(answer.body["choices"][0]["message"].clone());
        (submit, answer)
    }

    /// Waits until that has come of a turn.
    async fn came(&self, outcome: &str) {
        let line = format!("baton_speculations_total{{outcome=\"{outcome}\"}} 1");
        within(async { while !self.house.shows(&line).await {} }).await;
    }
}

#[tokio::test]
async fn the_history_with_the_answer_is_computed_and_its_token_is_nobodys() {
    let mut talk = Talk::begin(|_| {}).await;
    let (first, _) = talk.turn("hello").await;
    let ahead = talk.worker.play(&[7], Reason::Length).await;
    assert_eq!(ahead.priority, i32::MIN);
    assert_eq!((ahead.choices, ahead.stop.unwrap().max_tokens), (1, 1));
    assert!(ahead.token_ids.len() > first.token_ids.len());
    assert!(ahead.token_ids.starts_with(&first.token_ids), "it begins with the turn's prompt");
    talk.came("computed").await;

    let (second, answer) = talk.turn("and now?").await;
    assert!(second.token_ids.starts_with(&ahead.token_ids), "nothing of it was a guess");
    let bought = &answer.body["nvext"]["speculation"];
    assert!(bought["hit_tokens"].as_u64() >= Some(16), "{}", answer.body);
    assert_eq!(bought["wasted_tokens"], 0, "{}", answer.body);
}

#[tokio::test]
async fn what_a_worker_refuses_costs_nothing_but_the_bet() {
    let mut talk = Talk::begin(|_| {}).await;
    talk.turn("hello").await;
    let ahead = talk.worker.submitted().await;
    talk.worker.say(&ahead, 0, [failed(failure::Kind::Overloaded)]).await;
    talk.came("failed").await;
    assert!(talk.worker.heard_nothing(), "there is no second try");
    let (_, answer) = talk.turn("and now?").await;
    assert_eq!(answer.body["nvext"]["speculation"], Value::Null, "{}", answer.body);
}

#[tokio::test]
async fn what_takes_too_long_is_cancelled_and_gives_its_memory_back() {
    let mut talk = Talk::begin(|config| config.speculation.patience = Span::secs(1)).await;
    talk.turn("hello").await;
    let ahead = talk.worker.submitted().await;
    talk.worker.say(&ahead, 0, [admitted()]).await;
    assert_eq!(talk.worker.cancelled().await.request_id, ahead.request_id);
    talk.came("failed").await;
}

#[tokio::test]
async fn a_shadow_decides_and_asks_nobody() {
    let mut talk = Talk::begin(|config| config.switches.speculation = Switch::Shadow).await;
    let (_, answer) = talk.turn("hello").await;
    assert_eq!(answer.body["nvext"]["applied"][0]["outcome"], "ignored", "{}", answer.body);
    talk.came("shadow").await;
    assert!(talk.worker.heard_nothing());
}

#[tokio::test]
async fn who_has_no_room_for_it_says_so_and_answers_all_the_same() {
    let mut talk = Talk::begin(|config| config.speculation.running_max = 0).await;
    talk.turn("hello").await;
    talk.came("skipped").await;
    assert!(talk.worker.heard_nothing());
}
