//! What clients see, and workers hear, when something goes wrong on the way.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use baton_node::config::Span;
use baton_proto::internal::failed::Kind;
use baton_proto::internal::finished::Reason;
use common::client::Answer;
use common::worker::{FakeWorker, admitted, failed, finished, first_tokens, tokens};
use common::{House, within};
use serde_json::{Value, json};

fn body() -> Value {
    json!({"model": "tiny", "prompt": [1, 2, 3], "max_tokens": 1000})
}

fn streamed() -> Value {
    let mut body = body();
    body["stream"] = json!(true);
    body
}

#[track_caller]
fn expect_error(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status.as_u16(), &answer.body["error"]["code"]), (status, &json!(code)));
}

#[tokio::test]
async fn a_client_that_leaves_before_admission_cancels_its_request() {
    let worker = FakeWorker::start("d1").await;
    let house = House::open(&[&worker]).await;
    let body = body();
    let mut asking = Box::pin(house.post("/v1/completions", &body));
    let submit = tokio::select! {
        _ = &mut asking => panic!("nobody answered"),
        submit = worker.submitted() => submit,
    };
    drop(asking);
    assert_eq!(worker.cancelled().await.request_id, submit.request_id);
}

#[tokio::test]
async fn a_client_that_leaves_mid_stream_cancels_its_request() {
    let worker = FakeWorker::start("d1").await;
    let house = House::open(&[&worker]).await;
    let body = streamed();
    let play = async {
        let submit = worker.submitted().await;
        worker.say(&submit, 0, [admitted(), first_tokens(&[4])]).await;
        submit
    };
    let (mut stream, submit) = tokio::join!(house.stream("/v1/completions", &body), play);
    assert_eq!(stream.next().await.unwrap()["choices"][0]["text"], " t4");
    drop(stream);
    assert_eq!(worker.cancelled().await.request_id, submit.request_id);
}

#[tokio::test]
async fn a_client_that_leaves_a_silent_stream_cancels_its_request() {
    let worker = FakeWorker::start("d1").await;
    let house = House::open(&[&worker]).await;
    let body = streamed();
    let play = async {
        let submit = worker.submitted().await;
        worker.say(&submit, 0, [admitted()]).await;
        submit
    };
    let (stream, submit) = tokio::join!(house.stream("/v1/completions", &body), play);
    drop(stream);
    assert_eq!(worker.cancelled().await.request_id, submit.request_id);
}

#[tokio::test]
async fn a_worker_lost_before_the_first_token_is_replaced() {
    let (one, two) = (FakeWorker::start("d1").await, FakeWorker::start("d2").await);
    let house = House::open(&[&one, &two]).await;
    let body = streamed();
    let play = async {
        let (first, second, submit) = tokio::select! {
            submit = one.submitted() => (&one, &two, submit),
            submit = two.submitted() => (&two, &one, submit),
        };
        // Admitted, so the head of the stream has been sent; the client notices nothing.
        first.say(&submit, 0, [admitted()]).await;
        first.die();
        let again = second.play(&[4, 5], Reason::Length).await;
        assert_eq!((again.request_id, again.token_ids), (submit.request_id, submit.token_ids));
        assert_eq!(again.sampling, submit.sampling, "the seed too");
    };
    let (stream, ()) = tokio::join!(house.stream("/v1/completions", &body), play);
    let text = within(stream.rest()).await;
    assert!(text.contains(" t4 t5") && text.ends_with("[DONE]"), "{text}");
}

#[tokio::test]
async fn without_another_worker_the_loss_is_a_typed_503() {
    let worker = FakeWorker::start("d1").await;
    let house = House::open(&[&worker]).await;
    let play = async {
        worker.submitted().await;
        worker.die();
    };
    let (answer, ()) = tokio::join!(house.post("/v1/completions", &body()), play);
    expect_error(&answer, 503, "worker_lost");
    assert!(answer.headers.contains_key("retry-after"));
    let answer = house.post("/v1/completions", &body()).await;
    expect_error(&answer, 503, "no_worker");
    assert_eq!(house.get("/ready").await.status, 503);
}

#[tokio::test]
async fn a_worker_lost_mid_stream_is_a_typed_event() {
    let worker = FakeWorker::start("d1").await;
    let house = House::open(&[&worker]).await;
    let play = async {
        let submit = worker.submitted().await;
        worker.say(&submit, 0, [admitted(), first_tokens(&[4])]).await;
    };
    let body = streamed();
    let (mut stream, ()) = tokio::join!(house.stream("/v1/completions", &body), play);
    assert_eq!(stream.next().await.unwrap()["choices"][0]["text"], " t4");
    worker.die();
    let event = stream.next().await.unwrap();
    assert_eq!(event["error"]["code"], "worker_lost");
    assert_eq!(stream.next().await, None, "a broken stream does not say that it is done");
}

#[tokio::test]
async fn an_overloaded_worker_is_passed_over_and_overload_everywhere_is_a_429() {
    let (one, two) = (FakeWorker::start("d1").await, FakeWorker::start("d2").await);
    let house = House::open(&[&one, &two]).await;
    let refuse = async |worker: &FakeWorker| {
        let submit = worker.submitted().await;
        worker.say(&submit, 0, [failed(Kind::Overloaded)]).await;
    };
    let (answer, (), ()) =
        tokio::join!(house.post("/v1/completions", &body()), refuse(&one), refuse(&two));
    expect_error(&answer, 429, "overloaded");
    assert!(answer.headers.contains_key("retry-after"));
    assert!(one.heard_nothing() && two.heard_nothing(), "a refused request is not cancelled");
}

#[tokio::test]
async fn a_draining_worker_is_left_for_free_and_not_asked_again() {
    let (one, two) = (FakeWorker::start("d1").await, FakeWorker::start("d2").await);
    // No move is allowed that would count as one.
    let house = House::open_with(&[&one, &two], |config| config.placement.moves_max = 0).await;
    let play = async {
        let (drains, stays, submit) = tokio::select! {
            submit = one.submitted() => (&one, &two, submit),
            submit = two.submitted() => (&two, &one, submit),
        };
        drains.say(&submit, 0, [failed(Kind::Draining)]).await;
        stays.play(&[4], Reason::Length).await;
        (drains, stays)
    };
    let body = body();
    let (answer, (drains, stays)) = tokio::join!(house.post("/v1/completions", &body), play);
    assert_eq!(answer.status, 200);
    for _ in 0..16 {
        let (answer, _) =
            tokio::join!(house.post("/v1/completions", &body), stays.play(&[4], Reason::Length));
        assert_eq!(answer.status, 200);
    }
    assert!(drains.heard_nothing());
    let metrics = house.get("/metrics").await.body;
    let line = "baton_workers{role=\"decode\"} 1";
    assert!(metrics.as_str().unwrap().lines().any(|found| found.starts_with(line)), "{metrics}");
}

#[tokio::test]
async fn when_the_only_worker_drains_the_router_is_not_ready() {
    let worker = FakeWorker::start("d1").await;
    let house = House::open(&[&worker]).await;
    let drain = async {
        let submit = worker.submitted().await;
        worker.say(&submit, 0, [failed(Kind::Draining)]).await;
    };
    let (answer, ()) = tokio::join!(house.post("/v1/completions", &body()), drain);
    expect_error(&answer, 503, "no_worker");
    within(async { while house.get("/ready").await.status != 503 {} }).await;
}

#[tokio::test]
async fn a_turn_whose_workers_die_takes_no_third_one_with_it() {
    let workers = [
        FakeWorker::start("d1").await,
        FakeWorker::start("d2").await,
        FakeWorker::start("d3").await,
    ];
    let [one, two, three] = &workers;
    let house = House::open(&[one, two, three]).await;
    let killed = async || {
        tokio::select! {
            _ = one.submitted() => one,
            _ = two.submitted() => two,
            _ = three.submitted() => three,
        }
        .die();
    };
    let kill = async {
        killed().await;
        killed().await;
    };
    let (answer, ()) = tokio::join!(house.post("/v1/completions", &body()), kill);
    expect_error(&answer, 503, "worker_lost");
    assert!(one.heard_nothing() && two.heard_nothing() && three.heard_nothing());
}

#[tokio::test]
async fn what_a_worker_refuses_for_good_is_not_tried_elsewhere() {
    let (one, two) = (FakeWorker::start("d1").await, FakeWorker::start("d2").await);
    let house = House::open(&[&one, &two]).await;
    for (kind, status, code) in [
        (Kind::TooLarge, 400, "request_too_large"),
        (Kind::Invalid, 400, "invalid_value"),
        (Kind::Deadline, 503, "deadline_exceeded"),
    ] {
        let refuse = async {
            let (worker, submit) = tokio::select! {
                submit = one.submitted() => (&one, submit),
                submit = two.submitted() => (&two, submit),
            };
            worker.say(&submit, 0, [failed(kind)]).await;
        };
        let (answer, ()) = tokio::join!(house.post("/v1/completions", &body()), refuse);
        expect_error(&answer, status, code);
    }
    assert!(one.heard_nothing() && two.heard_nothing());
}

#[tokio::test]
async fn a_worker_that_never_answers_costs_the_deadline_and_no_more() {
    let worker = FakeWorker::start("d1").await;
    let house =
        House::open_with(&[&worker], |config| config.timeouts.request = Span::millis(200)).await;
    let play = async {
        let submit = worker.submitted().await;
        assert!(submit.deadline_ms <= 200);
        worker.cancelled().await;
    };
    let (answer, ()) = tokio::join!(house.post("/v1/completions", &body()), play);
    expect_error(&answer, 503, "deadline_exceeded");
}

#[tokio::test]
async fn more_tokens_than_were_asked_for_end_the_request_not_the_router() {
    let worker = FakeWorker::start("d1").await;
    let house = House::open(&[&worker]).await;
    let play = async {
        let submit = worker.submitted().await;
        worker.say(&submit, 0, [admitted(), first_tokens(&vec![4; 5000])]).await;
        assert_eq!(worker.cancelled().await.request_id, submit.request_id);
    };
    let (answer, ()) = tokio::join!(house.post("/v1/completions", &body()), play);
    expect_error(&answer, 500, "internal_error");
    let (answer, _) =
        tokio::join!(house.post("/v1/completions", &body()), worker.play(&[4], Reason::Length));
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_stream_that_nobody_reads_is_cut() {
    const IDS: usize = 4_000_000;
    let worker = FakeWorker::start_with("d1", |description| {
        description.model.as_mut().unwrap().context_tokens = 2 * IDS as u32;
    })
    .await;
    let house = House::open_with(&[&worker], |config| {
        config.timeouts.slow_reader = Span::millis(100);
    })
    .await;
    let mut body = streamed();
    body["max_tokens"] = json!(IDS);
    let play = async {
        let submit = worker.submitted().await;
        worker.say(&submit, 0, [admitted()]).await;
        submit
    };
    let (mut unread, submit) = tokio::join!(house.stream("/v1/completions", &body), play);
    // More text than the buffers of two sockets hold.
    let feed = async {
        for _ in 0..IDS / 40_000 {
            worker.say(&submit, 0, [tokens(&vec![123; 40_000])]).await;
        }
    };
    let ((), cancel) = tokio::join!(feed, worker.cancelled());
    assert_eq!(cancel.request_id, submit.request_id);
    let counted = "baton_requests_total{api=\"completions\",code=\"408\"} 1";
    assert!(house.shows(counted).await);
    // Who reads on after all is told.
    let mut last = None;
    while let Some(event) = unread.raw().await {
        last = Some(event);
    }
    assert!(last.is_some_and(|event| event.contains("slow_reader")));
}

#[tokio::test]
async fn a_worker_with_another_model_gets_no_work() {
    let (one, other) = (
        FakeWorker::start("d1").await,
        FakeWorker::start_with("d2", |description| {
            description.model.as_mut().unwrap().domain = vec![4; 32];
        })
        .await,
    );
    let house = House::start(&[&one, &other], |_| {});
    within(house.router.ready()).await;
    // Whichever came first decides; the other one never hears anything.
    for _ in 0..8 {
        let play = async {
            tokio::select! {
                _ = one.play(&[4], Reason::Length) => "d1",
                _ = other.play(&[4], Reason::Length) => "d2",
            }
        };
        let (answer, _) = tokio::join!(house.post("/v1/completions", &body()), play);
        assert_eq!(answer.status, 200);
    }
    let metrics = house.get("/metrics").await.body;
    let line = "baton_workers{role=\"decode\"} 1";
    assert!(metrics.as_str().unwrap().lines().any(|found| found.starts_with(line)), "{metrics}");
}

#[tokio::test]
async fn a_drain_finishes_what_runs_and_takes_nothing_new() {
    let worker = FakeWorker::start("d1").await;
    let house = House::open(&[&worker]).await;
    let play = async {
        let submit = worker.submitted().await;
        worker.say(&submit, 0, [admitted()]).await;
        house.tasks.drain().trigger(baton_node::drain::Cause::Requested);
        worker.say(&submit, 0, [first_tokens(&[4]), finished(Reason::Length)]).await;
    };
    let (answer, ()) = tokio::join!(house.post("/v1/completions", &body()), play);
    assert_eq!(answer.body["choices"][0]["text"], " t4");
    within(house.tasks.idle()).await;
}
