//! Who is served, at what rights, and who finds whose blocks, where a tenants file says so.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use baton_kv::hash::{ChainRoot, Salt};
use baton_node::config::Span;
use baton_node::scratch::Scratch;
use baton_node::tenants::KeyDigest;
use baton_proto::ids::TenantId;
use baton_proto::internal::block_event::Kind;
use baton_proto::internal::finished::Reason;
use baton_proto::internal::{BlockEvent, Submit, WatchBatch};
use baton_proto::v1::inference_client::InferenceClient;
use baton_proto::v1::{GenerateRequest, ListModelsRequest, TokenIds, generate_request};
use baton_router::config::Config;
use common::client::Answer;
use common::worker::FakeWorker;
use common::{BLOCK_TOKENS, House, secret, within};
use serde_json::{Value, json};
use std::path::PathBuf;
use tonic::Code;
use tonic::transport::Endpoint;

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";

/// A router with a tenants file, and a worker.
struct Realm {
    house: House,
    worker: FakeWorker,
    folder: Scratch,
}

/// A tenant whose key is `NAME-canary`, and these further lines.
fn tenant(name: &str, lines: &str) -> String {
    let key = KeyDigest::of(format!("{name}-canary").as_bytes());
    format!("[tenants.{name}]\nkeys = [\"{key}\"]\n{lines}\n")
}

impl Realm {
    async fn open(tenants: &str) -> Self {
        Self::open_with(tenants, |_, _| {}).await
    }

    async fn open_with(tenants: &str, adjust: impl FnOnce(&mut Config, PathBuf)) -> Self {
        let folder = Scratch::new("tenants").unwrap();
        std::fs::write(folder.path().join("tenants.toml"), tenants).unwrap();
        let worker = FakeWorker::start("d1").await;
        let house = House::open_with(&[&worker], |config| {
            config.tenants.file = Some(folder.path().join("tenants.toml"));
            adjust(config, folder.path().to_owned());
        })
        .await;
        Self { house, worker, folder }
    }

    /// A short answer for that tenant, and what the worker was asked.
    async fn answer(&self, name: &str, path: &str, body: &Value) -> (Answer, Submit) {
        let key = format!("Bearer {name}-canary");
        let headers = [("authorization", &*key)];
        let ask = self.house.post_said(path, body, &headers);
        let (answer, submit) = tokio::join!(ask, self.worker.play(&[4], Reason::Length));
        assert_eq!(answer.status, 200, "{}", answer.body);
        (answer, submit)
    }
}

fn text(prompt: &[u32]) -> Value {
    json!({"model": "tiny", "prompt": prompt, "max_tokens": 1})
}

/// A refusal's status and code; it says back nothing that was sent.
fn refused(answer: &Answer) -> (u16, &str) {
    let error = &answer.body["error"];
    assert!(!answer.body.to_string().contains("canary"), "{}", answer.body);
    assert!(error["message"].as_str().is_some_and(|text| text.lines().count() == 1), "{error}");
    (answer.status.as_u16(), error["code"].as_str().unwrap())
}

#[tokio::test]
async fn strangers_are_refused_and_anonymous_ones_where_nothing_else_is_said() {
    let realm = Realm::open(&tenant("acme", "")).await;
    for headers in [
        &[][..],
        &[("x-baton-tenant", "acme")],
        &[("authorization", "Bearer canary")],
        &[("x-api-key", "canary")],
    ] {
        let answer = realm.house.post_said(TEXT, &text(&[1]), headers).await;
        assert_eq!(refused(&answer), (401, "invalid_api_key"), "{headers:?}");
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
        assert_eq!(answer.body["error"]["type"], "invalid_request_error");
    }
    for path in ["/v1/models", "/v1/models/tiny", "/v1/capabilities"] {
        assert_eq!(refused(&realm.house.get(path).await), (401, "invalid_api_key"), "{path}");
    }
    assert!(realm.worker.heard_nothing());
    let (_, submit) = realm.answer("acme", TEXT, &text(&[1])).await;
    assert_eq!(submit.tenant, "acme");

    let open = Realm::open(&(tenant("acme", "") + "[anonymous]\npriority = 3\n")).await;
    let body = text(&[1]);
    let ask = open.house.post(TEXT, &body);
    let (answer, submit) = tokio::join!(ask, open.worker.play(&[4], Reason::Length));
    assert_eq!((answer.status.as_u16(), submit.tenant.as_str()), (200, "anonymous"));
    let capabilities = open.house.get("/v1/capabilities").await.body;
    assert_eq!(capabilities["tenant"]["priority"], 3, "{capabilities}");
    let wrong = open.house.post_said(TEXT, &body, &[("x-api-key", "canary")]).await;
    assert_eq!(refused(&wrong), (401, "invalid_api_key"), "a wrong key is not no key");
}

#[tokio::test]
async fn the_tenant_follows_from_the_key_alone() {
    let realm = Realm::open(&(tenant("acme", "") + &tenant("evil", ""))).await;
    let key = ("x-api-key", "evil-canary");
    let headers = [key, ("x-baton-tenant", "acme")];
    let answer = realm.house.post_said(TEXT, &text(&[1]), &headers).await;
    assert_eq!(refused(&answer), (400, "invalid_value"));
    let error = &answer.body["error"];
    assert_eq!(error["param"], "x-baton-tenant");
    assert!(error["message"].as_str().unwrap().contains("`acme`"), "{error}");
    assert!(realm.worker.heard_nothing());
    let headers = [key, ("x-baton-tenant", "evil")];
    let body = text(&[1]);
    let ask = realm.house.post_said(TEXT, &body, &headers);
    let (_, submit) = tokio::join!(ask, realm.worker.play(&[4], Reason::Length));
    assert_eq!(submit.tenant, "evil");
}

#[tokio::test]
async fn a_quota_of_requests_is_named_and_room_returns() {
    let lines = "quota.requests = 1";
    let realm = Realm::open(&(tenant("acme", lines) + &tenant("other", lines))).await;
    let (body, acme) = (text(&[1]), [("x-api-key", "acme-canary")]);
    let mut first = Box::pin(realm.house.post_said(TEXT, &body, &acme));
    tokio::select! {
        _ = &mut first => panic!("nobody answered"),
        _ = realm.worker.submitted() => {}
    }
    let second = realm.house.post_said(TEXT, &body, &acme).await;
    assert_eq!(refused(&second), (429, "quota_exceeded"));
    assert_eq!(second.headers["retry-after"], "1");
    let message = second.body["error"]["message"].as_str().unwrap();
    assert!(message.contains("`quota.requests` is 1") && message.contains("`acme`"), "{message}");
    realm.answer_while(first).await;
}

impl Realm {
    /// Another tenant is served meanwhile, and the first one again once it has left.
    async fn answer_while(&self, first: impl Future<Output = Answer>) {
        self.answer("other", TEXT, &text(&[1])).await;
        drop(first);
        self.worker.cancelled().await;
        self.answer("acme", TEXT, &text(&[1])).await;
    }
}

#[tokio::test]
async fn a_quota_of_prompt_tokens_is_named_and_only_what_is_placed_counts() {
    let lines = "quota.prompt_tokens_per_minute = 60";
    let realm = Realm::open(&tenant("acme", lines)).await;
    let acme = ("x-api-key", "acme-canary");
    let long: Vec<u32> = (0..59).collect();
    let dry = [acme, ("x-baton-explain", "dry-run")];
    assert_eq!(realm.house.post_said(TEXT, &text(&long), &dry).await.status, 200);
    realm.answer("acme", TEXT, &text(&long)).await;
    let answer = realm.house.post_said(TEXT, &text(&long), &[acme]).await;
    assert_eq!(refused(&answer), (429, "quota_exceeded"));
    let message = answer.body["error"]["message"].as_str().unwrap();
    assert!(message.contains("`quota.prompt_tokens_per_minute` is 60"), "{message}");
    let after: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((30..=58).contains(&after), "{after}");
    assert!(realm.worker.heard_nothing());
}

#[tokio::test]
async fn what_exceeds_a_right_is_clamped_and_the_answer_says_so() {
    let lines = "priority = 5\nstrict_priority = 1\nspeculate = \"off\"\nquota.answer_tokens = 40";
    let realm = Realm::open(&tenant("acme", lines)).await;
    let intent = json!({"priority": 50, "strict_priority": 6, "speculative_prefill": true});
    let messages = json!([{"role": "user", "content": "hi"}]);
    let body = json!({"model": "tiny", "messages": messages, "max_tokens": 100, "intent": intent});
    let (answer, submit) = realm.answer("acme", CHAT, &body).await;
    assert_eq!((submit.priority, submit.strict_priority), (5, 1));
    assert_eq!(submit.stop.unwrap().max_tokens, 40);
    let applied = answer.body["nvext"]["applied"].as_array().unwrap();
    let outcome = |hint: &str| {
        let entry = applied.iter().find(|entry| entry["hint"] == hint).unwrap();
        assert!(entry["why"].as_str().unwrap().contains("tenant `acme`"), "{entry}");
        (entry["outcome"].clone(), entry["value"].clone())
    };
    assert_eq!(outcome("intent.priority"), (json!("clamped"), json!(5)));
    assert_eq!(outcome("intent.strict_priority"), (json!("clamped"), json!(1)));
    assert_eq!(outcome("max_tokens"), (json!("clamped"), json!(40)));
    assert_eq!(outcome("intent.speculative_prefill").0, json!("ignored"));
    let body = json!({"model": "tiny", "messages": messages});
    let (_, submit) = realm.answer("acme", CHAT, &body).await;
    assert_eq!(submit.stop.unwrap().max_tokens, 40, "also where the client names no length");
}

#[tokio::test]
async fn tenants_find_each_others_blocks_where_their_scopes_say_so_and_nowhere_else() {
    let cluster = "reuse = \"cluster\"";
    let tenants = tenant("acme", "") + &tenant("evil", "") + &tenant("one", cluster);
    let realm = Realm::open(&(tenants + &tenant("two", cluster))).await;
    within(realm.worker.watched()).await;
    let prompt: Vec<u32> = (0..=5 * BLOCK_TOKENS).collect();
    let root = ChainRoot::new(secret().expose(), &[3; 32]);
    // What the worker has computed for `acme`, 5 blocks, and for `one`, of which 2 are left.
    for (salt, blocks, first_seq) in [("acme", 5, 1), ("scope/cluster", 2, 6)] {
        let tenant = TenantId(salt.into());
        let salt = Salt { tenant: &tenant, public_blocks: 0 };
        let chain = root.chain(&salt, BLOCK_TOKENS as usize, &prompt);
        let event = |hash: &baton_proto::ids::SequenceHash| BlockEvent {
            kind: Kind::Published as i32,
            hash: hash.0.to_vec(),
            ..BlockEvent::default()
        };
        let events = chain[..blocks].iter().map(event).collect();
        let batch = WatchBatch { incarnation: 77, first_seq, events, ..WatchBatch::default() };
        realm.worker.publish(batch).await;
    }
    realm.house.knows("d1", 7).await;
    let mut held = Vec::new();
    for name in ["acme", "evil", "one", "two"] {
        let key = format!("{name}-canary");
        let headers = [("x-api-key", &*key), ("x-baton-explain", "dry-run")];
        let answer = realm.house.post_said(TEXT, &text(&prompt), &headers).await;
        let candidate = &answer.body["decision"]["decode_candidates"][0];
        held.push(candidate["held_tokens"].as_u64().unwrap() / u64::from(BLOCK_TOKENS));
    }
    assert_eq!(held, [5, 0, 2, 2]);
    let (_, submit) = realm.answer("two", TEXT, &text(&prompt)).await;
    assert_eq!(submit.tenant, "two", "workers are told who asks, and know the scope themselves");
}

#[tokio::test]
async fn grpc_knows_the_same_keys() {
    let realm = Realm::open(&tenant("acme", "priority = 5")).await;
    let endpoint = Endpoint::from_shared(format!("http://{}", realm.house.address)).unwrap();
    let mut client = InferenceClient::new(within(endpoint.connect()).await.unwrap());
    let request = |headers: &[(&'static str, &'static str)], tenant: &str| {
        let prompt = Some(generate_request::Prompt::Tokens(TokenIds { ids: vec![1] }));
        let tenant = tenant.to_owned();
        let mut request = tonic::Request::new(GenerateRequest {
            prompt,
            tenant,
            max_tokens: 1,
            ..GenerateRequest::default()
        });
        for (name, value) in headers {
            request.metadata_mut().insert(*name, value.parse().unwrap());
        }
        request
    };
    for (headers, tenant, code, word) in [
        (&[][..], "", Code::Unauthenticated, "API key"),
        (&[], "acme", Code::Unauthenticated, "API key"),
        (&[("x-api-key", "canary")], "", Code::Unauthenticated, "API key"),
        (&[("authorization", "Bearer acme-canary")], "evil", Code::InvalidArgument, "`evil`"),
    ] {
        let status = within(client.generate(request(headers, tenant))).await.unwrap_err();
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(word) && !status.message().contains("canary"));
    }
    let status = within(client.list_models(ListModelsRequest {})).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    for (headers, tenant) in
        [(("authorization", "Bearer acme-canary"), ""), (("x-api-key", "acme-canary"), "acme")]
    {
        let ask = client.generate(request(&[headers], tenant));
        let (stream, submit) = tokio::join!(ask, realm.worker.play(&[4], Reason::Length));
        stream.unwrap();
        assert_eq!(submit.tenant, "acme");
    }
}

#[tokio::test]
async fn rules_that_are_read_again_hold_from_the_next_request_on() {
    let realm = Realm::open(&tenant("acme", "priority = 5")).await;
    let file = realm.folder.path().join("tenants.toml");
    let hurry =
        json!({"model": "tiny", "prompt": [1], "max_tokens": 1, "intent": {"priority": 50}});
    assert_eq!(realm.answer("acme", TEXT, &hurry).await.1.priority, 5);
    std::fs::write(&file, tenant("acme", "priority = \"high\"")).unwrap();
    let outcome = &realm.house.router.reload().run()[0];
    let failure = outcome.outcome.as_ref().expect_err("no number").to_string();
    assert!(failure.contains("tenants.toml:3:") && failure.contains("`tenants.acme.priority`"));
    assert_eq!(realm.answer("acme", TEXT, &hurry).await.1.priority, 5);
    std::fs::write(&file, tenant("acme", "priority = 9") + &tenant("new", "")).unwrap();
    let outcome = &realm.house.router.reload().run()[0];
    assert_eq!(outcome.outcome.as_deref(), Ok("2 tenants, 2 new or changed, 0 gone"));
    assert_eq!(realm.answer("acme", TEXT, &hurry).await.1.priority, 9);
    assert_eq!(realm.answer("new", TEXT, &hurry).await.1.priority, 0);
}

#[tokio::test]
async fn what_was_granted_is_recorded_without_content_and_without_keys() {
    let lines = "speculate = \"always\"\nreuse = \"public\"\npriority = 5";
    let realm = Realm::open_with(&tenant("acme", lines), |config, folder| {
        config.audit.file = Some(folder.join("audit.jsonl"));
        config.speculation.patience = Span::secs(20);
    })
    .await;
    let messages = json!([{"role": "user", "content": "canary"}]);
    let body = json!({"model": "tiny", "messages": messages, "prompt_cache_key": "canary-session",
                      "intent": {"priority": 50}});
    let ids: Vec<u32> = (100..120).collect();
    let headers = [("x-api-key", "acme-canary")];
    let ask = realm.house.post_said(CHAT, &body, &headers);
    let (answer, submit) = tokio::join!(ask, realm.worker.play(&ids, Reason::Length));
    assert_eq!(answer.status, 200);
    // What is computed ahead for a tenant that always has it so.
    let ahead = realm.worker.play(&[7], Reason::Length).await;
    assert_eq!((ahead.priority, ahead.tenant.as_str()), (i32::MIN, "acme"));
    let file = realm.folder.path().join("audit.jsonl");
    let read = async {
        loop {
            let text = std::fs::read_to_string(&file).unwrap();
            if text.lines().count() >= 2 && text.ends_with('\n') {
                return text;
            }
            tokio::task::yield_now().await;
        }
    };
    let text = within(read).await;
    assert!(!text.contains("canary"), "{text}");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |kind: &str| lines.iter().find(|line| line["kind"] == kind).unwrap();
    for (kind, outcome) in [("placement", "answered"), ("speculation", "computed")] {
        let line = of(kind);
        assert_eq!((&line["tenant"], &line["scope"]), (&json!("acme"), &json!("scope/public")));
        assert_eq!((&line["outcome"], &line["decode"]), (&json!(outcome), &json!("d1")));
        assert_eq!((&line["version"], &line["limited"]), (&json!(1), &json!(["priority"])));
        assert_eq!(line["session"].as_str().map(str::len), Some(16), "{line}");
        let id = u128::from_le_bytes(submit.request_id.clone().try_into().unwrap());
        assert_eq!(line["request"], format!("{id:032x}"), "of the turn in both");
    }
}
