//! Who may join, and what is believed of those who have.

use super::*;
use baton_proto::internal::Role;
use std::sync::Barrier;

fn described(worker: u32, domain: u8) -> WorkerDescription {
    let model = ModelDescription {
        name: format!("model-{domain}"),
        vocab_size: 1000,
        context_tokens: 4096,
        block_tokens: 16,
        domain: vec![domain; 32],
        eos: vec![],
        text_digest: vec![],
    };
    WorkerDescription {
        worker,
        name: format!("w{worker}"),
        role: Role::Prefill as i32,
        incarnation: 1,
        model: Some(model),
        slots: 100,
        endpoints: None,
    }
}

fn with_text(mut description: WorkerDescription, digest: &[u8]) -> WorkerDescription {
    if let Some(model) = &mut description.model {
        model.text_digest = digest.to_vec();
    }
    description
}

fn cluster(text_digest: &[u8]) -> Cluster {
    let assumed = crate::config::AssumedConfig::default().lines();
    Cluster::new([1; 32], 4, assumed, text_digest.to_vec())
}

fn join(cluster: &Cluster, description: WorkerDescription) -> Result<(), NotAccepted> {
    let uri = format!("http://{}", description.name);
    cluster.join(description, &uri, None)
}

#[test]
fn of_two_models_that_come_at_once_one_is_refused() {
    for round in 0..2000 {
        let (cluster, barrier) = (cluster(&[]), Barrier::new(2));
        let come = |worker: u32| {
            barrier.wait();
            join(&cluster, described(worker, worker as u8)).is_ok()
        };
        let joined = std::thread::scope(|scope| {
            let other = scope.spawn(|| come(2));
            [come(1), other.join().expect("no panic")]
        });
        assert!(joined[0] != joined[1], "round {round}: {joined:?}");
    }
}

#[test]
fn the_first_model_is_served_for_as_long_as_the_router_lives() {
    let cluster = cluster(&[]);
    join(&cluster, described(1, 1)).expect("the first");
    cluster.leave(WorkerId(1), Incarnation(1));
    assert_eq!(cluster.counts(), (0, 0));
    let refused = join(&cluster, described(2, 2)).expect_err("another model");
    assert!(matches!(refused, NotAccepted::OtherModel { .. }), "{refused}");
    join(&cluster, described(3, 1)).expect("the same model");
}

#[test]
fn a_worker_with_another_tokenizer_is_refused_where_both_sides_have_one() {
    let (ours, other) = ([7; 32], [8; 32]);
    let refused = join(&cluster(&ours), with_text(described(1, 1), &other)).expect_err("another");
    let expected = NotAccepted::OtherText { ours: "07".repeat(6), theirs: "08".repeat(6) };
    assert_eq!(refused, expected);
    join(&cluster(&ours), with_text(described(1, 1), &ours)).expect("the same");
    join(&cluster(&ours), described(1, 1)).expect("an engine without a checkpoint");
    join(&cluster(&[]), with_text(described(1, 1), &other)).expect("a router without one");
}

#[test]
fn a_worker_that_does_not_know_its_load_yet_has_room() {
    let cluster = cluster(&[]);
    join(&cluster, described(1, 1)).expect("the first one");
    let room = || cluster.lock().fleet.worker(WorkerId(1)).expect("known").available_blocks();
    cluster.set_load(WorkerId(1), internal::Load::default());
    assert_eq!(room(), 100);
    let full = internal::Load { running: 1, ..internal::Load::default() };
    cluster.set_load(WorkerId(1), full);
    assert_eq!(room(), 0);
    let free = internal::Load { free_slots: 7, ..internal::Load::default() };
    cluster.set_load(WorkerId(1), free);
    assert_eq!(room(), 7);
    // Later, nothing free is what it means.
    cluster.set_load(WorkerId(1), internal::Load::default());
    assert_eq!(room(), 0);
}
