//! What a router can ask for, and what a tenant cannot have whoever asks.

use super::*;
use baton_engine::api::Engine;
use baton_engine::witness::{Witness, WitnessSpec};
use baton_node::tenants::TenantsConfig;
use baton_proto::ids::TenantId;
use baton_proto::packed;
use pb::failed::Kind;

const NOW: Duration = Duration::from_secs(7);

/// A worker with a tenants file of one tenant, `acme`.
fn served(dir: &tempfile::TempDir, lines: &str) -> Served {
    let path = dir.path().join("tenants.toml");
    let key = "ab".repeat(32);
    let text = format!("[tenants.acme]\nkeys = [\"blake3:{key}\"]\n{lines}\n");
    std::fs::write(&path, text).unwrap();
    let engine = Witness::new(WitnessSpec::small()).unwrap();
    Served {
        spec: engine.spec().clone(),
        root: Arc::new(ChainRoot::new(&[1; 32], &[2; 32])),
        gate: Gate::open(&TenantsConfig { file: Some(path) }).unwrap(),
    }
}

/// What a router sends that wants everything for that tenant.
fn greedy(tenant: &str) -> pb::Submit {
    pb::Submit {
        request_id: vec![9; 16],
        token_ids: packed::pack(&[1, 2, 3]),
        tenant: tenant.to_owned(),
        choices: 1,
        sampling: Some(pb::Sampling::default()),
        stop: Some(pb::StopRule { max_tokens: u32::MAX, min_tokens: 60, ..Default::default() }),
        strict_priority: 255,
        priority: i32::MAX,
        deadline_ms: 1000,
        ..pb::Submit::default()
    }
}

fn refusal(failed: pb::Failed) -> (Kind, String) {
    (failed.kind(), failed.message)
}

#[test]
fn a_router_cannot_lift_a_tenant_above_the_workers_own_file() {
    let dir = tempfile::tempdir().unwrap();
    let lines = "priority = 5\nstrict_priority = 1\nquota.answer_tokens = 50\nreuse = \"public\"";
    let turn = admit(RouterId(1), greedy("acme"), &served(&dir, lines), NOW).unwrap();
    assert_eq!((turn.precedence.strict_priority, turn.precedence.priority), (1, 5));
    assert_eq!((turn.stop.max_tokens, turn.stop.min_tokens, turn.osl), (50, 50, 0));
    let tenant = &turn.chain_key.tenant;
    assert_eq!((&*tenant.name.0, &*tenant.scope.0), ("acme", "scope/public"));
}

#[test]
fn a_tenants_turns_are_bounded_whichever_router_sends_them_and_room_returns() {
    let dir = tempfile::tempdir().unwrap();
    let served = served(&dir, "quota.turns_per_worker = 2");
    let submit = |router| admit(RouterId(router), greedy("acme"), &served, NOW);
    let held = [submit(1).unwrap(), submit(2).unwrap()];
    let (kind, message) = refusal(submit(3).unwrap_err());
    assert_eq!(kind, Kind::Overloaded);
    assert!(
        message.contains("`acme`") && message.contains("`quota.turns_per_worker`"),
        "{message}"
    );
    drop(held);
    assert!(submit(3).is_ok());
    let malformed = pb::Submit { choices: 0, ..greedy("acme") };
    for _ in 0..10 {
        let refused = admit(RouterId(1), malformed.clone(), &served, NOW).unwrap_err();
        assert_eq!(refusal(refused).0, Kind::Invalid);
    }
    assert_eq!(served.gate.turns(&TenantId("acme".into())), 0, "what is refused counts nowhere");
}

#[test]
fn a_tenant_that_the_worker_does_not_know_is_refused_with_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    let served = served(&dir, "");
    for name in ["evil", "anonymous", "", "scope/public"] {
        let (kind, message) = refusal(admit(RouterId(1), greedy(name), &served, NOW).unwrap_err());
        assert_eq!(kind, Kind::Internal);
        assert!(message.contains("tenants file") && message.contains("hint"), "{message}");
    }
}
