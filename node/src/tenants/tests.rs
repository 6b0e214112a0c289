//! What a file says, what is wrong with one, and what is counted.

#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::config::Span;
use std::time::Duration;

fn digest(key: &str) -> String {
    KeyDigest::of(key.as_bytes()).to_string()
}

fn parse(text: &str) -> Result<Tenants, String> {
    let tenants = Tenants::parse(Path::new("tenants.toml"), text);
    tenants.map_err(|error| crate::Failure::from(error).to_string())
}

/// A tenant with one key and these further lines.
fn one(name: &str, key: &str, lines: &str) -> String {
    format!("[tenants.{name}]\nkeys = [\"{}\"]\n{lines}\n", digest(key))
}

fn id(name: &str) -> TenantId {
    TenantId(Arc::from(name))
}

#[test]
fn a_tenant_has_what_its_section_says_and_the_least_of_what_it_does_not() {
    let lines = "priority = 10\nspeculate = \"always\"\nttl_max = \"5 m\"\nreuse = \"public\"\n\
        coldest.reasoning = \"device\"\nquota.requests = 32\nweight = 7";
    let tenants = parse(&one("acme", "k", lines)).unwrap();
    let acme = tenants.named("acme").unwrap();
    let coldest = Coldest { reasoning: Tier::Device, ..Coldest::default() };
    let quota = Quota { requests: Threshold::At(32), ..Quota::default() };
    let rules = Rules {
        keys: vec![KeyDigest::of(b"k")],
        priority: 10,
        speculate: Speculate::Always,
        ttl_max: Span::secs(300),
        reuse: Reuse::Public,
        coldest,
        quota,
        weight: 7,
        ..Rules::default()
    };
    assert_eq!(acme.rules, rules);
    let least = Rules::default();
    assert_eq!((least.priority, least.strict_priority, least.reuse), (0, 0, Reuse::Tenant));
    assert!(tenants.anonymous().is_none() && tenants.named("anonymous").is_none());
}

#[test]
fn a_key_has_one_holder_and_others_have_none() {
    let tenants = parse(&(one("a", "one", "") + &one("b", "two", ""))).unwrap();
    assert_eq!(tenants.holder(b"one").unwrap().name, id("a"));
    assert_eq!(tenants.holder(b"two").unwrap().name, id("b"));
    for stranger in [&b"three"[..], b"", b"on", digest("one").as_bytes()] {
        assert!(tenants.holder(stranger).is_none(), "{stranger:?}");
    }
    let (one, other) = (keys::generate().unwrap(), keys::generate().unwrap());
    assert!(one != other && one.len() == "baton-".len() + 64, "{one}");
}

#[test]
fn tenants_share_a_scope_where_they_say_the_same() {
    let text = ["tenant", "tenant", "cluster", "cluster", "public"].iter().zip('a'..);
    let text = text.map(|(reuse, name)| {
        one(&name.to_string(), &name.to_string(), &format!("reuse = \"{reuse}\""))
    });
    let tenants = parse(&text.collect::<String>()).unwrap();
    let scope = |name| tenants.named(name).unwrap().scope.clone();
    assert_eq!((scope("a"), scope("b")), (id("a"), id("b")));
    assert_eq!((scope("c"), scope("d")), (id("scope/cluster"), id("scope/cluster")));
    assert_eq!(scope("e"), id("scope/public"));
}

#[test]
fn what_is_malformed_is_named_with_file_line_and_path() {
    for (line, key) in [
        ("priority = \"high\"", "tenants.acme.priority"),
        ("strict_priority = 256", "tenants.acme.strict_priority"),
        ("speculate = \"sometimes\"", "tenants.acme.speculate"),
        ("ttl_max = 60", "tenants.acme.ttl_max"),
        ("coldest.reasoning = \"tape\"", "tenants.acme.coldest.reasoning"),
        ("coldest.thoughts = \"device\"", "tenants.acme.coldest.thoughts"),
        ("reuse = \"all\"", "tenants.acme.reuse"),
        ("weight = 0", "tenants.acme.weight"),
        ("weight = 1001", "tenants.acme.weight"),
        ("quota.requests = 0", "tenants.acme.quota.requests"),
        ("quota.requests = -1", "tenants.acme.quota.requests"),
        ("quota.turns_per_worker = 0", "tenants.acme.quota.turns_per_worker"),
        ("quota.prompt_tokens_per_minute = \"1k\"", "quota.prompt_tokens_per_minute"),
        ("quota.answer_tokens = 0", "tenants.acme.quota.answer_tokens"),
        ("quota.tokens = 5", "tenants.acme.quota.tokens"),
        ("prority = 1", "did you mean `priority`?"),
    ] {
        let error = parse(&one("acme", "k", line)).expect_err(line);
        assert!(error.starts_with("tenants.toml:3:"), "{error}");
        assert!(error.contains(key), "{key} is not in: {error}");
    }
}

#[test]
fn keys_that_are_none_are_refused_and_never_repeated() {
    let twice = one("a", "k", "") + &one("b", "k", "");
    for (text, words) in [
        ("[tenants.acme]\npriority = 1\n", ["tenants.toml:1:", "`tenants.acme`"]),
        ("[tenants.acme]\nkeys = [\"canary-key\"]\n", ["tenants.toml:2:", "`tenants.acme.keys`"]),
        ("[tenants.acme]\nkeys = \"canary-key\"\n", ["tenants.toml:2:", "`tenants.acme.keys`"]),
        ("[tenants.acme]\nkeys = [5]\n", ["tenants.toml:2:", "`tenants.acme.keys`"]),
        (
            "[tenants.acme]\nkeys = [\"blake3:canary\"]\n",
            ["tenants.toml:2:", "`tenants.acme.keys`"],
        ),
        (&twice, ["`tenants.b.keys`", "`tenants.a.keys`"]),
        (
            &format!("[anonymous]\nkeys = [\"{}\"]\n", digest("canary")),
            ["tenants.toml:2:", "`anonymous.keys`"],
        ),
    ] {
        let error = parse(text).expect_err(text);
        assert!(words.iter().all(|word| error.contains(word)), "{words:?} are not in: {error}");
        assert!(!error.contains("canary") && !error.contains(&digest("k")[7..]), "{error}");
    }
    let shown = format!("{:?}", parse(&one("a", "k", "")).unwrap());
    assert!(!shown.contains(&digest("k")[7..]), "{shown}");
}

#[test]
fn names_that_could_be_taken_for_others_are_refused() {
    let long = "x".repeat(129);
    for name in ["anonymous", "\"\"", "\"a b\"", "\"scope/public\"", "\"caf\\u00e9\"", &long] {
        let error = parse(&one(name, "k", "")).expect_err(name);
        assert!(error.contains("tenants.toml:1:") && error.contains("`tenants."), "{error}");
    }
    let error = parse("").expect_err("nobody is served");
    assert!(error.contains("`tenants`") && error.contains("[anonymous]"), "{error}");
    assert!(parse("[anonymous]\n").unwrap().anonymous().is_some());
    let many: String =
        (0..=TENANTS_MAX).map(|n| one(&format!("t{n}"), &n.to_string(), "")).collect();
    assert!(parse(&many).expect_err("too many").contains("at most 1024 tenants"));
}

#[test]
fn an_invalid_file_leaves_the_old_rules_in_force() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tenants.toml");
    std::fs::write(&path, one("a", "k", "") + &one("b", "l", "")).unwrap();
    let live = LiveTenants::open(&path).unwrap();
    let clone = live.clone();
    std::fs::write(&path, one("a", "k", "weight = 0")).unwrap();
    let error = live.reload().expect_err("a weight of nothing").to_string();
    assert!(error.contains("tenants.toml:3:1: `tenants.a.weight`"), "{error}");
    assert!(live.current().holder(b"l").is_some());
    std::fs::write(&path, one("a", "new", "") + &one("c", "m", "")).unwrap();
    assert_eq!(live.reload().unwrap(), "2 tenants, 2 new or changed, 1 gone");
    let now = clone.current();
    assert!(now.holder(b"k").is_none() && now.holder(b"l").is_none(), "old keys are void");
    assert!(now.holder(b"new").is_some() && now.holder(b"m").is_some());
}

#[test]
fn seats_come_back_and_leave_nothing_behind() {
    let seats = Seats::default();
    let (a, b) = (id("a"), id("b"));
    let held: Vec<_> = (0..2).map(|_| seats.take(&a, Threshold::At(2)).unwrap()).collect();
    assert!(seats.take(&a, Threshold::At(2)).is_none());
    assert!(seats.take(&b, Threshold::At(2)).is_some(), "another tenant has seats of its own");
    assert_eq!((seats.taken(&a), seats.tenants()), (2, 1));
    // A quota that has become smaller takes nothing away, and gives nothing more.
    assert!(seats.take(&a, Threshold::At(1)).is_none());
    drop(held);
    assert_eq!((seats.taken(&a), seats.tenants()), (0, 0));
    for n in 0..10_000 {
        drop(seats.take(&id(&n.to_string()), Threshold::Never).unwrap());
    }
    assert_eq!(seats.tenants(), 0);
}

#[test]
fn a_budget_wears_off_evenly_and_says_when_there_is_room() {
    let (mut budgets, a) = (Budgets::default(), id("a"));
    let at = Duration::from_secs;
    assert_eq!(budgets.spend(&a, 400, 600, at(100)), Ok(()));
    assert_eq!(budgets.spend(&a, 200, 600, at(100)), Ok(()));
    // Ten tokens wear off in a second.
    assert_eq!(budgets.spend(&a, 30, 600, at(101)), Err(at(2)));
    assert_eq!(budgets.spend(&a, 30, 600, at(103)), Ok(()));
    assert_eq!(budgets.spend(&id("b"), 600, 600, at(103)), Ok(()), "another has its own");
    // What no minute can hold is had after a minute of nothing, and is worn off before the next.
    assert_eq!(budgets.spend(&a, 1200, 600, at(103)), Err(at(60)));
    assert_eq!(budgets.spend(&a, 1200, 600, at(163)), Ok(()));
    assert_eq!(budgets.spend(&a, 1, 600, at(223)).unwrap_err().as_millis(), 100);
    assert_eq!(budgets.tenants(), 2);
    budgets.retain(|tenant| *tenant == a);
    assert_eq!(budgets.tenants(), 1);
}
