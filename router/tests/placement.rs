//! Where turns are placed, by what workers say they hold.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use baton_kv::hash::{ChainRoot, Salt};
use baton_node::config::Threshold;
use baton_proto::ids::{SequenceHash, TenantId};
use baton_proto::internal::block_event::Kind;
use baton_proto::internal::finished::Reason;
use baton_proto::internal::{BlockEvent, Role, WatchBatch};
use baton_router::config::Peer;
use common::worker::FakeWorker;
use common::{BLOCK_TOKENS, House, secret, within};
use serde_json::{Value, json};

/// Five whole blocks and one token.
fn prompt() -> Vec<u32> {
    (0..=5 * BLOCK_TOKENS).collect()
}

fn chain(prompt: &[u32]) -> Vec<SequenceHash> {
    let tenant = TenantId::anonymous();
    let root = ChainRoot::new(secret().expose(), &[3; 32]);
    root.chain(&Salt { tenant: &tenant, public_blocks: 0 }, BLOCK_TOKENS as usize, prompt)
}

fn batch(first_seq: u64, kind: Kind, hashes: &[SequenceHash]) -> WatchBatch {
    let parents = std::iter::once(Vec::new()).chain(hashes.iter().map(|hash| hash.0.to_vec()));
    let event = |(hash, parent): (&SequenceHash, Vec<u8>)| BlockEvent {
        kind: kind as i32,
        hash: hash.0.to_vec(),
        group: 0,
        parent,
        tier: 0,
    };
    let events = hashes.iter().zip(parents).map(event).collect();
    WatchBatch { incarnation: 77, first_seq, snapshot: false, events, load: None }
}

fn body(prompt: &[u32]) -> Value {
    json!({"model": "tiny", "prompt": prompt, "max_tokens": 1})
}

/// Plays a turn on whichever worker gets it.
async fn winner(house: &House, one: &FakeWorker, two: &FakeWorker) -> u32 {
    let body = body(&prompt());
    let play = async {
        tokio::select! {
            _ = one.play(&[4], Reason::Length) => one.id(),
            _ = two.play(&[4], Reason::Length) => two.id(),
        }
    };
    let (answer, winner) = tokio::join!(house.post("/v1/completions", &body), play);
    assert_eq!(answer.status, 200);
    winner
}

#[tokio::test]
async fn turns_follow_their_blocks_and_forget_removed_ones() {
    let (one, two) = (FakeWorker::start("d1").await, FakeWorker::start("d2").await);
    let house = House::open(&[&one, &two]).await;
    let chain = chain(&prompt());
    within(one.watched()).await;
    within(two.watched()).await;

    two.publish(batch(1, Kind::Published, &chain)).await;
    house.knows("d2", chain.len()).await;
    for _ in 0..10 {
        assert_eq!(winner(&house, &one, &two).await, two.id());
    }
    two.publish(batch(6, Kind::Removed, &chain)).await;
    one.publish(batch(1, Kind::Published, &chain[..1])).await;
    house.knows("d2", 0).await;
    house.knows("d1", 1).await;
    for _ in 0..10 {
        assert_eq!(winner(&house, &one, &two).await, one.id());
    }
}

#[tokio::test]
async fn missing_events_are_asked_for_again() {
    let worker = FakeWorker::start("d1").await;
    let _house = House::open(&[&worker]).await;
    assert_eq!(within(worker.watched()).await.from_seq, 1);
    worker.publish(batch(1, Kind::Published, &chain(&prompt())[..2])).await;
    // Events 3 to 8 never came.
    worker.publish(batch(9, Kind::Published, &chain(&prompt())[2..3])).await;
    let again = within(worker.watched()).await;
    assert_eq!((again.incarnation, again.from_seq), (77, 3));
}

#[tokio::test]
async fn prefill_workers_are_named_where_enough_is_missing() {
    let decode = FakeWorker::start("d1").await;
    let prefill = FakeWorker::start_with("p1", |description| {
        description.role = Role::Prefill as i32;
    })
    .await;
    let house = House::open_with(&[&decode], |config| {
        config.prefill = vec![Peer { uri: prefill.uri() }];
        config.placement.disaggregate_min_blocks = Threshold::At(5);
    })
    .await;
    within(prefill.watched()).await;
    let prompt = prompt();
    for (tokens, named) in [(prompt.len(), 1), (prompt.len() - 1, 0)] {
        let body = body(&prompt[..tokens]);
        let (answer, submit) =
            tokio::join!(house.post("/v1/completions", &body), decode.play(&[4], Reason::Length));
        assert_eq!((answer.status.as_u16(), submit.prefill.len()), (200, named));
        if let Some(address) = submit.prefill.first() {
            let expected = (prefill.id(), 77, prefill.uri());
            assert_eq!((address.worker, address.incarnation, address.uri.clone()), expected);
        }
    }
}

#[tokio::test]
async fn tenants_do_not_share_hashes() {
    let worker = FakeWorker::start("d1").await;
    let house = House::open(&[&worker]).await;
    let body = body(&prompt());
    let ask = house.post_as("/v1/completions", &body, "acme");
    let (answer, submit) = tokio::join!(ask, worker.play(&[4], Reason::Length));
    assert_eq!((answer.status.as_u16(), submit.tenant.as_str()), (200, "acme"));
}

#[tokio::test]
async fn whatever_numbers_an_event_stream_has_the_index_comes_back_to_the_truth() {
    let worker = FakeWorker::start("d1").await;
    let house = House::open(&[&worker]).await;
    let chain = chain(&prompt());
    assert_eq!(within(worker.watched()).await.from_seq, 1);
    worker.publish(batch(1, Kind::Published, &chain[..2])).await;
    house.knows("d1", 2).await;
    // From a run that is none, from the end of all numbers, from before the beginning, and again.
    let strange = [(78, 3), (77, u64::MAX), (77, u64::MAX - 1), (77, 0), (77, 1)];
    for (incarnation, first_seq) in strange {
        let strange = batch(first_seq, Kind::Removed, &chain[..1]);
        worker.publish(WatchBatch { incarnation, ..strange }).await;
    }
    let line = "baton_index_blocks{worker=\"d1\"} 4".to_owned();
    let told = async {
        // A stream that was begun anew has not seen the snapshot.
        loop {
            let snapshot = WatchBatch { snapshot: true, ..batch(9, Kind::Published, &chain[..4]) };
            worker.publish(snapshot).await;
            if house.shows(&line).await {
                return;
            }
        }
    };
    within(told).await;
    let body = body(&prompt());
    let (answer, _) =
        tokio::join!(house.post("/v1/completions", &body), worker.play(&[4], Reason::Length));
    assert_eq!(answer.status, 200);
}
