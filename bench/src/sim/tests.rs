//! The cluster holds under storms. `BATON_SEED=n` replays one seed, `BATON_LONG=1` runs many more.

use super::*;

fn seeds(short: u64) -> std::ops::Range<u64> {
    if let Some(seed) = std::env::var("BATON_SEED").ok().and_then(|seed| seed.parse().ok()) {
        return seed..seed + 1;
    }
    0..if std::env::var_os("BATON_LONG").is_some() { short * 40 } else { short }
}

/// Runs many seeds; every violation names the one that repeats it.
fn storm(short: u64, scenario: impl Fn(u64) -> Scenario) -> Vec<Report> {
    let reports: Vec<Report> = seeds(short).map(|seed| run(&scenario(seed), seed)).collect();
    let bad: Vec<&Report> = reports.iter().filter(|r| !r.violations.is_empty()).collect();
    if let Some(first) = bad.first() {
        let (seed, count) = (first.seed, bad.len());
        panic!("{count} seeds fail; BATON_SEED={seed} repeats the first: {:#?}", first.violations);
    }
    reports
}

fn sum(reports: &[Report], of: impl Fn(&Report) -> u64) -> u64 {
    reports.iter().map(of).sum()
}

#[test]
fn in_calm_weather_everything_is_answered() {
    let reports = storm(20, |_| Scenario::calm());
    for report in &reports {
        assert_eq!(report.answered, Scenario::calm().load.requests as u64, "{report:?}");
        assert_eq!(report.broken_streams, 0, "{report:?}");
    }
    assert!(sum(&reports, |report| report.pulled_blocks) > 0);
}

#[test]
fn in_a_storm_no_token_is_wrong_and_nothing_is_left_behind() {
    let reports = storm(60, |_| Scenario::storm());
    println!("{:?}", reports[0]);
    let requests = sum(&reports, |_| Scenario::storm().load.requests as u64);
    assert_eq!(sum(&reports, |report| report.late), 0, "nobody waits for the deadline");
    assert!(sum(&reports, |report| report.answered) * 10 > requests * 8);
    // The storm was one.
    for report in &reports {
        assert!(report.broken_streams > 0, "{report:?}");
    }
    assert!(sum(&reports, |report| report.failed_pulls) > 0);
    assert!(sum(&reports, |report| report.moved) > 0);
    assert!(sum(&reports, |report| report.lost) > 0);
}

#[test]
fn scarce_memory_costs_time_only() {
    let reports = storm(40, |_| Scenario::tight());
    println!("{:?}", reports[0]);
    for report in &reports {
        assert_eq!(report.answered, Scenario::tight().load.requests as u64, "{report:?}");
    }
}

#[test]
fn any_small_cluster_holds() {
    let reports = storm(150, Scenario::drawn);
    println!("{:?}", reports[0]);
    let late: Vec<u64> = reports.iter().filter(|r| r.late > 0).map(|r| r.seed).collect();
    assert_eq!(late, [0; 0], "nobody waits for the deadline");
}

#[test]
fn without_the_check_of_what_arrives_tokens_are_wrong() {
    let mut scenario = Scenario::storm();
    scenario.data.corrupt_ppm = 50_000;
    let found = |scenario: &Scenario| run(scenario, 1).violations;
    assert_eq!(found(&scenario), [""; 0]);
    scenario.verify_pulls = false;
    let violations = found(&scenario);
    assert!(violations.iter().any(|what| what.contains("the first wrong one")), "{violations:?}");
}

#[test]
fn equal_seeds_give_equal_runs() {
    for seed in seeds(5) {
        let (one, other) = (run(&Scenario::storm(), seed), run(&Scenario::storm(), seed));
        assert_eq!(one, other);
        assert_ne!(one.digest, run(&Scenario::storm(), seed + 1).digest);
    }
}
