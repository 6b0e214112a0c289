//! What headers say, who decides, and what is clamped.

use super::*;
use baton_node::tenants::Rules;
use baton_proto::ids::TenantId;
use std::collections::HashMap;

const BOUNDS: Bounds = Bounds {
    hints: Switch::On,
    priority_max: 100,
    strict_priority_max: 7,
    request: Duration::from_mins(10),
    speculation: Switch::On,
    tenant: None,
};

/// The hints of these headers, and who decided the session.
fn told(headers: &[(&'static str, &str)]) -> (Hints, Vec<Applied>) {
    let headers: HashMap<_, _> = headers.iter().copied().collect();
    let said = Said::read(|name| headers.get(name).copied()).expect("well-formed headers");
    let mut reading = Reading::new(BOUNDS, true);
    said.tell(&mut reading);
    said.tell_identity(&mut reading);
    reading.finish()
}

fn session(headers: &[(&'static str, &str)]) -> (Option<String>, Option<String>) {
    let hints = told(headers).0;
    (hints.session, hints.parent)
}

fn pair(session: &str, parent: Option<&str>) -> (Option<String>, Option<String>) {
    (Some(session.to_owned()), parent.map(str::to_owned))
}

#[test]
fn who_speaks_is_known_from_what_harnesses_send_to_everybody() {
    let claude = ("x-claude-code-session-id", "s");
    assert_eq!(session(&[claude]), pair("s", None));
    let agent = ("x-claude-code-agent-id", "a");
    assert_eq!(session(&[claude, agent]), pair("s/a", Some("s")));
    let parent = ("x-claude-code-parent-agent-id", "b");
    assert_eq!(session(&[claude, agent, parent]), pair("s/a", Some("s/b")));

    let codex = [("session-id", "s"), ("thread-id", "t"), ("x-codex-parent-thread-id", "r")];
    assert_eq!(session(&codex), pair("t", Some("r")));
    assert_eq!(session(&codex[..1]), pair("s", None));
    let opencode =
        [("x-session-id", "s"), ("x-parent-session-id", "p"), ("x-session-affinity", "z")];
    assert_eq!(session(&opencode), pair("s", Some("p")));
    assert_eq!(session(&opencode[1..]), pair("z", Some("p")));

    let explicit = [("x-dynamo-session-id", "d"), ("x-dynamo-parent-session-id", "e"), claude];
    assert_eq!(session(&explicit), pair("d", Some("e")));
    assert_eq!(session(&[("x-parent-session-id", "p")]), (None, None));
    assert_eq!(session(&[("x-session-id", "")]), (None, None));
}

#[test]
fn numbers_out_of_bounds_are_clamped_and_said_so() {
    for (hint, said, value) in [
        (Hint::Priority, i64::MAX, 100),
        (Hint::Priority, i64::MIN, -100),
        (Hint::StrictPriority, -1, 0),
        (Hint::StrictPriority, 8, 7),
        (Hint::Osl, -5, 0),
        (Hint::DeadlineMs, -1, 0),
        (Hint::DeadlineMs, i64::MAX, 600_000),
    ] {
        let mut reading = Reading::new(BOUNDS, true);
        reading.number(hint, "x", said);
        let (hints, applied) = reading.finish();
        assert_eq!((applied[0].outcome, applied[0].value), (Outcome::Clamped, Some(value)));
        assert!(applied[0].why.is_some());
        let counts = match hint {
            Hint::Priority => i64::from(hints.priority),
            Hint::StrictPriority => i64::from(hints.strict_priority),
            Hint::Osl => i64::from(hints.osl.expect("said")),
            _ => hints.wanted_within.expect("said").as_millis() as i64,
        };
        assert_eq!(counts, value);
    }
}

#[test]
fn of_contradictory_hints_the_more_telling_place_decides() {
    let mut reading = Reading::new(BOUNDS, true);
    reading.number(Hint::Priority, "first", 3);
    reading.number(Hint::Priority, "second", 9);
    let (hints, applied) = reading.finish();
    assert_eq!(hints.priority, 3);
    let outcomes: Vec<_> = applied.iter().map(|applied| applied.outcome).collect();
    assert_eq!(outcomes, [Outcome::Used, Outcome::Ignored]);
    assert_eq!(applied[1].why.as_deref(), Some("first decides"));
}

#[test]
fn names_of_any_length_stay_apart_in_little_memory() {
    let long = |end: &str| format!("{}{end}", "s".repeat(1 << 20));
    let names = [long("1"), long("2")].map(|name| {
        let (hints, applied) = told(&[("x-session-id", &name)]);
        assert_eq!(applied[0].outcome, Outcome::Clamped);
        hints.session.expect("a session")
    });
    assert_ne!(names[0], names[1]);
    assert!(names.iter().all(|name| name.len() <= NAME_BYTES_MAX));
}

#[test]
fn unknown_fields_are_named_up_to_a_bound() {
    let mut reading = Reading::new(BOUNDS, true);
    for i in 0..10_000 {
        reading.unknown(&format!("intent.\u{e9}{i}"));
    }
    let applied = reading.finish().1;
    assert_eq!(applied.len(), UNKNOWN_NAMED_MAX);
    let warning = warning(&applied).expect("a warning");
    assert!(warning.starts_with("ignored unknown fields: intent.?0, intent.?1"), "{warning}");
    assert!(http::HeaderValue::try_from(warning).is_ok());
    assert_eq!(super::warning(&[]), None);
}

#[test]
fn headers_that_are_no_numbers_are_refused_by_name() {
    for (name, value) in [
        ("x-dynamo-request-priority", "high"),
        ("x-dynamo-request-strict-priority", "1.5"),
        ("x-dynamo-session-final", "maybe"),
    ] {
        let refused = Said::read(|header| (header == name).then_some(value)).expect_err("refused");
        assert_eq!(refused.param.as_deref(), Some(name));
    }
}

#[test]
fn a_wish_counts_where_it_is_served_and_is_answered_where_it_is_not() {
    for (mode, wished, outcome) in [
        (Switch::On, true, Outcome::Used),
        (Switch::Shadow, true, Outcome::Ignored),
        (Switch::Off, false, Outcome::Ignored),
    ] {
        let mut reading = Reading::new(Bounds { speculation: mode, ..BOUNDS }, true);
        reading.wish(Hint::SpeculativePrefill, "x", true);
        reading.wish(Hint::SpeculativePrefill, "y", false);
        let (hints, applied) = reading.finish();
        assert_eq!((hints.speculative_prefill, applied[0].outcome), (wished, outcome), "{mode:?}");
        assert_eq!(applied[1].why.as_deref(), Some("x decides"));
    }
    let mut reading = Reading::new(Bounds { speculation: Switch::Off, ..BOUNDS }, true);
    reading.wish(Hint::SpeculativePrefill, "x", false);
    let (hints, applied) = reading.finish();
    assert_eq!((hints.speculative_prefill, applied[0].outcome), (false, Outcome::Used));
    let mut reading = Reading::new(BOUNDS, false);
    reading.wish(Hint::SpeculativePrefill, "x", true);
    let (hints, applied) = reading.finish();
    assert_eq!((hints.speculative_prefill, applied[0].outcome), (false, Outcome::Ignored));
}

fn of_tenant(adjust: impl FnOnce(&mut Rules)) -> Bounds {
    let mut rules = Rules::default();
    adjust(&mut rules);
    let name = TenantId("acme".into());
    let tenant = Tenant { name: name.clone(), scope: name, rules };
    Bounds { tenant: Some(Arc::new(tenant)), ..BOUNDS }
}

#[test]
fn what_exceeds_a_tenants_right_is_clamped_and_its_limit_named() {
    let bounds = of_tenant(|rules| (rules.priority, rules.strict_priority) = (5, 1));
    for (hint, said, value, limit) in [
        (Hint::Priority, 5, 5, None),
        (Hint::Priority, 6, 5, Some("priority")),
        (Hint::Priority, -500, -100, None),
        (Hint::StrictPriority, 7, 1, Some("strict_priority")),
        (Hint::StrictPriority, -1, 0, None),
    ] {
        let mut reading = Reading::new(bounds.clone(), true);
        reading.number(hint, "x", said);
        let (hints, applied) = reading.finish();
        assert_eq!(applied[0].value, Some(value), "{hint:?} {said}");
        assert_eq!(hints.limited, Vec::from_iter(limit), "{hint:?} {said}");
        let why = applied[0].why.clone().unwrap_or_default();
        assert_eq!(why.contains("tenant `acme`"), limit.is_some(), "{why}");
    }
    // A tenant may have more than the router gives anybody, and less than what is ordinary.
    let generous = of_tenant(|rules| rules.priority = 500);
    assert_eq!(generous.range(Hint::Priority), Some((-100, 100)));
    let humble = of_tenant(|rules| rules.priority = -500);
    assert_eq!(humble.range(Hint::Priority), Some((-100, -100)));
    assert_eq!(Reading::new(humble, true).finish().0.priority, -100, "also where nothing is said");
}

#[test]
fn a_tenant_may_have_prompts_computed_ahead_never_when_asked_or_always() {
    for (right, said, mode, continues, computed) in [
        (Speculate::Off, Some(true), Switch::On, true, false),
        (Speculate::Asked, None, Switch::On, true, false),
        (Speculate::Asked, Some(true), Switch::On, true, true),
        (Speculate::Always, None, Switch::On, true, true),
        (Speculate::Always, Some(false), Switch::On, true, false),
        (Speculate::Always, None, Switch::Off, true, false),
        (Speculate::Always, None, Switch::On, false, false),
    ] {
        let bounds = of_tenant(|rules| rules.speculate = right);
        let mut reading = Reading::new(Bounds { speculation: mode, ..bounds }, continues);
        if let Some(said) = said {
            reading.wish(Hint::SpeculativePrefill, "x", said);
        }
        let (hints, applied) = reading.finish();
        assert_eq!(hints.speculative_prefill, computed, "{right:?} {said:?} {mode:?}");
        let denied = right == Speculate::Off;
        assert_eq!(hints.limited, Vec::from_iter(denied.then_some("speculate")));
        if denied {
            assert_eq!(applied[0].outcome, Outcome::Ignored);
            assert_eq!(applied[0].why.as_deref(), Some("`speculate` of tenant `acme` is off"));
        }
    }
}

#[test]
fn a_header_beyond_all_numbers_is_clamped_like_any_other() {
    let far = "123456789012345678901234567890";
    assert_eq!(told(&[("x-dynamo-request-priority", far)]).0.priority, 100);
    assert_eq!(told(&[("x-dynamo-request-priority", &format!("-{far}"))]).0.priority, -100);
}
