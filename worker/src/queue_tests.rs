//! What the order of a worker's work promises.

use super::*;
use std::sync::Arc;

const SECOND: Duration = Duration::from_secs(1);

fn tenant(name: &str) -> TenantId {
    TenantId(Arc::from(name))
}

fn urgency(strict_priority: u8, priority: i32, arrived_s: u32) -> Urgency {
    let precedence = Precedence { strict_priority, priority, wanted: None };
    Urgency { precedence, arrived: arrived_s * SECOND, deadline: 1000 * SECOND }
}

fn entry(id: u64, tenant: &TenantId, urgency: Urgency, cost_tokens: u64) -> Entry<'_, u64> {
    Entry { id, tenant, weight: 1, urgency, cost_tokens }
}

fn order(shares: &Shares, entries: Vec<Entry<'_, u64>>) -> Vec<u64> {
    shares.order(entries, 100 * SECOND, SECOND)
}

#[test]
fn tiers_come_before_shares_and_what_nobody_waits_for_comes_last() {
    let (red, blue) = (tenant("red"), tenant("blue"));
    let mut shares = Shares::default();
    shares.enter(&red);
    shares.enter(&blue);
    shares.charge(&red, 1, 1_000_000);
    let entries = vec![
        entry(1, &blue, urgency(0, BACKGROUND_PRIORITY, 0), 1),
        entry(2, &blue, urgency(0, -100, 100), 1),
        entry(3, &red, urgency(0, 100, 0), 1),
        entry(4, &red, urgency(1, -100, 100), 1),
    ];
    assert_eq!(order(&shares, entries), [4, 2, 3, 1]);
}

#[test]
fn within_a_tenant_priority_and_age_then_the_wish_then_the_shortest_then_who_was_first() {
    let red = tenant("red");
    let wanted = |s: u32| {
        let mut urgency = urgency(0, 0, 100);
        urgency.precedence.wanted = Some(s * SECOND);
        urgency
    };
    let entries = vec![
        entry(1, &red, urgency(0, 0, 100), 4096),
        entry(2, &red, urgency(0, 0, 100), 100),
        // As good as equal to the one before, which came first.
        entry(3, &red, urgency(0, 0, 100), 70),
        entry(4, &red, wanted(300), 9999),
        entry(5, &red, wanted(200), 9999),
        entry(6, &red, urgency(0, 2, 100), 9999),
        // Three seconds of waiting.
        entry(7, &red, urgency(0, 0, 97), 9999),
    ];
    assert_eq!(order(&Shares::default(), entries), [7, 6, 5, 4, 2, 3, 1]);
}

/// Serves the first of the order again and again, both tenants always having work; the tokens that
/// each was given.
fn serve(weights: (u32, u32), costs: (u64, u64), grants: usize) -> (u64, u64) {
    let (red, blue) = (tenant("red"), tenant("blue"));
    let mut shares = Shares::default();
    shares.enter(&red);
    shares.enter(&blue);
    let mut given = (0, 0);
    for turn in 0..grants as u64 {
        // Blue floods: all of its work is old, urgent and short.
        let mut entries: Vec<_> =
            (0..50).map(|id| entry(id, &blue, urgency(0, 100, 0), costs.1)).collect();
        entries.push(entry(100 + turn, &red, urgency(0, 0, 100), costs.0));
        for entry in &mut entries {
            entry.weight = if *entry.tenant == red { weights.0 } else { weights.1 };
        }
        if order(&shares, entries)[0] >= 100 {
            shares.charge(&red, weights.0, costs.0);
            given.0 += costs.0;
        } else {
            shares.charge(&blue, weights.1, costs.1);
            given.1 += costs.1;
        }
    }
    given
}

#[test]
fn a_flood_of_old_urgent_work_gets_its_tenants_share_and_no_more() {
    let (red, blue) = serve((1, 1), (1000, 10), 4000);
    assert!(red.abs_diff(blue) <= 1000, "{red} and {blue}");
    let (red, blue) = serve((1, 3), (100, 100), 4000);
    assert!((3 * red).abs_diff(blue) <= 300, "{red} and {blue}");
}

#[test]
fn an_order_of_many_interleaves_tenants_by_what_each_will_have_been_given() {
    let (red, blue) = (tenant("red"), tenant("blue"));
    let mut shares = Shares::default();
    shares.enter(&red);
    shares.enter(&blue);
    shares.charge(&red, 1, 25);
    let entries = (0..4)
        .map(|id| entry(id, &red, urgency(0, 0, 0), 10))
        .chain((4..8).map(|id| entry(id, &blue, urgency(0, 0, 0), 10)))
        .collect();
    assert_eq!(order(&shares, entries), [4, 5, 6, 0, 7, 1, 2, 3]);
}

#[test]
fn nobody_saves_shares_up_and_leaving_for_a_moment_gains_nothing() {
    let (red, blue) = (tenant("red"), tenant("blue"));
    let mut shares = Shares::default();
    shares.enter(&blue);
    shares.charge(&blue, 1, 5000);
    // Red was away while blue was served, and begins beside it.
    shares.enter(&red);
    assert_eq!(shares.accounts[&red].given, shares.accounts[&blue].given);
    shares.charge(&red, 1, 700);
    let before = shares.accounts[&red].given;
    shares.leave(&red);
    shares.enter(&red);
    assert_eq!(shares.accounts[&red].given, before);
    shares.leave(&red);
    shares.leave(&blue);
    assert!(shares.accounts.is_empty(), "nothing is kept where nothing is to be done");
}

#[test]
fn accounts_of_tenants_that_are_gone_are_bounded() {
    let mut shares = Shares::default();
    let here = tenant("here");
    shares.enter(&here);
    for number in 0..3 * IDLE_ACCOUNTS_MAX {
        let guest = tenant(&format!("guest-{number}"));
        shares.enter(&guest);
        shares.charge(&guest, 1, 1 + number as u64);
        shares.leave(&guest);
    }
    assert_eq!(shares.accounts.len(), IDLE_ACCOUNTS_MAX + 1);
    let last = tenant(&format!("guest-{}", 3 * IDLE_ACCOUNTS_MAX - 1));
    assert!(shares.accounts.contains_key(&last), "those who were given most are remembered");
}

#[test]
fn the_last_in_the_order_give_way_first_and_none_where_all_are_not_enough() {
    let low = urgency(0, BACKGROUND_PRIORITY, 0);
    // The last one stands its ground.
    let order = [("a", low, 5), ("b", low, 1), ("c", low, 2), ("d", urgency(1, 0, 0), 9)];
    let displaced = |missing| {
        let times = (100 * SECOND, SECOND);
        Shares::default().displaced(&urgency(0, 0, 100), order.into_iter(), missing, times)
    };
    assert_eq!(displaced(2), Some(vec!["c"]));
    assert_eq!(displaced(3), Some(vec!["c", "b"]));
    assert_eq!(displaced(8), Some(vec!["c", "b", "a"]));
    assert_eq!(displaced(9), None);
}

#[test]
fn only_lower_tiers_and_less_than_ordinary_work_that_has_not_waited_gives_way() {
    let displaces = |one: Urgency, other: Urgency| one.displaces(&other, 100 * SECOND, SECOND);
    let ordinary = urgency(0, 0, 100);
    assert!(displaces(ordinary, urgency(0, BACKGROUND_PRIORITY, 0)));
    assert!(displaces(urgency(1, 0, 100), ordinary));
    assert!(displaces(ordinary, urgency(0, -5, 100)));
    assert!(!displaces(ordinary, urgency(0, -5, 90)), "it has waited for ten seconds");
    assert!(!displaces(urgency(0, 100, 0), ordinary));
    assert!(!displaces(urgency(0, -5, 100), urgency(0, -5, 100)));
    let background = urgency(0, BACKGROUND_PRIORITY, 0);
    assert!(!displaces(background, background));
}

#[test]
fn switched_off_the_order_is_that_of_arrival_and_in_shadow_it_is_counted_what_would_be() {
    let red = tenant("red");
    let entries = || vec![entry(2, &red, urgency(7, 0, 0), 1), entry(1, &red, urgency(0, 0, 0), 1)];
    let mut shares = Shares::default();
    let background = urgency(0, BACKGROUND_PRIORITY, 0);
    let displaces =
        |shares: &Shares| shares.displaces(&urgency(0, 0, 100), &background, 100 * SECOND, SECOND);
    assert_eq!((order(&shares, entries()), displaces(&shares)), (vec![2, 1], true));
    shares.set(Switch::Off);
    assert_eq!((order(&shares, entries()), displaces(&shares)), (vec![1, 2], false));
    assert_eq!(shares.shadow(), Shadow::default());
    shares.set(Switch::Shadow);
    assert_eq!((order(&shares, entries()), displaces(&shares)), (vec![1, 2], false));
    let alike = vec![entry(1, &red, urgency(0, 0, 0), 1), entry(2, &red, urgency(0, 0, 0), 1)];
    assert_eq!(order(&shares, alike), [1, 2]);
    assert_eq!(shares.shadow(), Shadow { same: 1, other: 1 });
}
