//! What a decode worker can ask for, and what a tenant cannot have whoever asks.

use super::*;
use baton_engine::api::Engine;
use baton_engine::witness::{Witness, WitnessSpec};
use baton_node::clock::Manual;
use baton_node::drain::Drain;
use baton_node::tenants::TenantsConfig;
use baton_proto::ids::TenantId;
use baton_proto::packed;
use tonic::Code;

/// A service whose events the test takes, with a tenants file of one tenant, `acme`.
fn service(dir: &tempfile::TempDir, lines: &str) -> (PrefillService, flume::Receiver<Event>) {
    let path = dir.path().join("tenants.toml");
    let key = "ab".repeat(32);
    let text = format!("[tenants.acme]\nkeys = [\"blake3:{key}\"]\n{lines}\n");
    std::fs::write(&path, text).unwrap();
    let (events, inbox) = flume::bounded(16);
    let engine = Witness::new(WitnessSpec::small()).unwrap();
    let service = PrefillService {
        callers: Callers::default(),
        events,
        spec: engine.spec().clone(),
        root: Arc::new(ChainRoot::new(&[1; 32], &[2; 32])),
        gate: Gate::open(&TenantsConfig { file: Some(path) }).unwrap(),
        clock: Arc::new(Manual::new()),
        tasks: Tasks::new(&Drain::new(Duration::from_secs(1)), 16),
        announcements_queued: 16,
    };
    (service, inbox)
}

/// What a decode worker sends that wants everything for that tenant.
fn greedy(tenant: &str) -> Request<pb::ComputeRequest> {
    Request::new(pb::ComputeRequest {
        request_id: vec![9; 16],
        token_ids: packed::pack(&[1, 2, 3]),
        tenant: tenant.to_owned(),
        strict_priority: 255,
        priority: i32::MAX,
        deadline_ms: 1000,
        ..pb::ComputeRequest::default()
    })
}

fn job(inbox: &flume::Receiver<Event>) -> JobRequest {
    match inbox.try_recv().unwrap() {
        Event::Compute(_, request) => *request,
        _ => panic!("a job was expected"),
    }
}

#[tokio::test]
async fn a_job_has_its_tenants_rights_whatever_the_message_says() {
    let dir = tempfile::tempdir().unwrap();
    let lines = "priority = 5\nstrict_priority = 1\nreuse = \"cluster\"";
    let (service, inbox) = service(&dir, lines);
    let _call = service.compute(greedy("acme")).await.unwrap();
    let job = job(&inbox);
    assert_eq!((job.precedence.strict_priority, job.precedence.priority), (1, 5));
    let tenant = &job.chain_key.tenant;
    assert_eq!((&*tenant.name.0, &*tenant.scope.0), ("acme", "scope/cluster"));
    for name in ["evil", "scope/cluster", ""] {
        let status = service.compute(greedy(name)).await.err().unwrap();
        assert_eq!(status.code(), Code::PermissionDenied);
        assert!(status.message().contains("tenants file"), "{status:?}");
    }
}

#[tokio::test]
async fn a_tenants_jobs_are_bounded_and_room_returns() {
    let dir = tempfile::tempdir().unwrap();
    let (service, inbox) = service(&dir, "quota.turns_per_worker = 1");
    let call = service.compute(greedy("acme")).await.unwrap();
    let status = service.compute(greedy("acme")).await.err().unwrap();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("`quota.turns_per_worker`"), "{status:?}");
    // The schedule forgets the job when its call ends.
    drop((call, job(&inbox)));
    assert_eq!(service.gate.turns(&TenantId("acme".into())), 0);
    assert!(service.compute(greedy("acme")).await.is_ok());
}
