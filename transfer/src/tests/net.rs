//! The link in virtual time: what it promises, and that it is the same every time.
#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn rough() -> Link {
    Link {
        delay: ms(5),
        jitter: ms(20),
        bandwidth: Some(1_000_000),
        loss_ppm: 100_000,
        duplicate_ppm: 200_000,
        corrupt_ppm: 50_000,
        reorder: false,
    }
}

#[test]
fn a_message_takes_its_bytes_and_the_delay() {
    let link = Link { delay: ms(5), bandwidth: Some(1_000_000), ..Link::default() };
    let mut sim = Sim::new(1, link);
    let at = |sent: Vec<Delivery<u32>>| sent.iter().map(|d| d.at).collect::<Vec<_>>();
    assert_eq!(at(sim.send(ms(0), 1, 2, 10_000, 0)), [ms(15)]);
    // The second waits for the first, the other direction and other nodes do not.
    assert_eq!(at(sim.send(ms(0), 1, 2, 10_000, 0)), [ms(25)]);
    assert_eq!(at(sim.send(ms(0), 2, 1, 10_000, 0)), [ms(15)]);
    assert_eq!(at(sim.send(ms(0), 1, 3, 10_000, 0)), [ms(15)]);
    assert_eq!(at(sim.send(ms(100), 1, 2, 0, 0)), [ms(105)]);
}

#[test]
fn certain_faults_happen_and_impossible_ones_do_not() {
    let all = 1_000_000;
    let mut sim = Sim::new(2, Link { loss_ppm: all, ..Link::default() });
    assert!((0..100).all(|i| sim.send(ms(0), 1, 2, 8, i).is_empty()));
    let mut sim = Sim::new(2, Link { duplicate_ppm: all, corrupt_ppm: all, ..Link::default() });
    for i in 0..100 {
        let sent = sim.send(ms(0), 1, 2, 8, i);
        assert_eq!(sent.len(), 2);
        assert!(sent.iter().all(|d| d.flipped.is_some_and(|bit| bit < 64)));
    }
    let mut sim = Sim::new(2, Link::default());
    for i in 0..100 {
        let sent = sim.send(ms(0), 1, 2, 8, i);
        assert!(sent.len() == 1 && sent[0].flipped.is_none() && sent[0].message == i);
    }
    // There is no bit to flip in nothing.
    let mut sim = Sim::new(2, Link { corrupt_ppm: all, ..Link::default() });
    assert_eq!(sim.send(ms(0), 1, 2, 0, 0)[0].flipped, None);
}

#[test]
fn the_dead_get_nothing_and_the_revived_only_what_is_new() {
    let mut sim = Sim::new(3, Link { delay: ms(5), ..Link::default() });
    let to_old = sim.send(ms(0), 1, 2, 8, "to the old run");
    let from_old = sim.send(ms(0), 2, 1, 8, "from the old run");
    sim.kill(2);
    assert!(!sim.alive(2));
    assert!(sim.send(ms(1), 1, 2, 8, "to the dead").is_empty());
    assert!(sim.send(ms(1), 2, 1, 8, "from the dead").is_empty());
    sim.kill(2);
    sim.revive(2);
    let to_new = sim.send(ms(2), 1, 2, 8, "to the new run");
    assert!(!sim.arrives(&to_old[0]));
    assert!(sim.arrives(&from_old[0]), "what was sent before still travels");
    assert!(sim.arrives(&to_new[0]));
}

#[test]
fn a_cut_separates_two_nodes_only() {
    let mut sim = Sim::new(4, Link::default());
    sim.set_cut(1, 2, true);
    assert!(sim.send(ms(0), 1, 2, 8, ()).is_empty() && sim.send(ms(0), 2, 1, 8, ()).is_empty());
    assert_eq!(sim.send(ms(0), 1, 3, 8, ()).len(), 1);
    sim.set_cut(2, 1, false);
    assert_eq!(sim.send(ms(0), 1, 2, 8, ()).len(), 1);
}

#[test]
fn one_direction_can_have_a_link_of_its_own() {
    let mut sim = Sim::new(5, Link::default());
    sim.set_link(1, 2, Link { delay: ms(9), ..Link::default() });
    assert_eq!(sim.send(ms(0), 1, 2, 8, ())[0].at, ms(9));
    assert_eq!(sim.send(ms(0), 2, 1, 8, ())[0].at, ms(0));
}

#[test]
fn faults_are_as_frequent_as_asked() {
    let mut sim = Sim::new(6, Link { reorder: true, bandwidth: None, ..rough() });
    let sent: Vec<_> = (0..100_000).map(|i| sim.send(ms(i), 1, 2, 8, ())).collect();
    let lost = sent.iter().filter(|s| s.is_empty()).count();
    let twice = sent.iter().filter(|s| s.len() == 2).count();
    let arrived = sent.iter().map(Vec::len).sum::<usize>();
    let flipped = sent.iter().flatten().filter(|d| d.flipped.is_some()).count();
    assert!((9_500..10_500).contains(&lost), "{lost}");
    assert!((17_500..18_500).contains(&twice), "{twice}");
    assert!((0.047..0.053).contains(&(flipped as f64 / arrived as f64)), "{flipped} of {arrived}");
}

proptest! {
    #[test]
    fn equal_seeds_give_equal_networks(seed: u64, sends in prop::collection::vec((0u64..50, 0u32..4, 0u32..4, 0u64..5000), 1..60)) {
        let run = || {
            let mut sim = Sim::new(seed, rough());
            sends.iter().map(|&(at, from, to, bytes)| sim.send(ms(at), from, to, bytes, at))
                .collect::<Vec<_>>()
        };
        prop_assert_eq!(run(), run());
    }

    #[test]
    fn without_reordering_messages_stay_in_line(seed: u64, gaps in prop::collection::vec(0u64..5, 1..60)) {
        let mut sim = Sim::new(seed, rough());
        let (mut now, mut last) = (0, Duration::ZERO);
        for (i, gap) in gaps.into_iter().enumerate() {
            now += gap;
            for delivery in sim.send(ms(now), 1, 2, 100, i) {
                prop_assert!(delivery.at >= ms(now) + ms(5) && delivery.at >= last);
                last = delivery.at;
            }
        }
    }
}
