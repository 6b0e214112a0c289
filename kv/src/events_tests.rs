//! What the event log must do: keep order, show gaps, and bound itself.

#![allow(clippy::unwrap_used)]

use super::*;

fn event(n: u8) -> BlockEvent {
    let id = BlockId { hash: SequenceHash([n; 16]), parent: None, group: GroupId(0) };
    BlockEvent::published(&id, Tier::Device)
}

fn log(kept_max: usize, events: u8) -> EventLog {
    let mut log = EventLog::new(kept_max);
    (1..=events).for_each(|n| log.push(event(n)));
    log
}

#[test]
fn the_first_event_is_number_1() {
    let events: Vec<_> = log(8, 2).since(EventSeq(1)).unwrap().collect();
    assert_eq!(events, [(EventSeq(1), event(1)), (EventSeq(2), event(2))]);
}

#[test]
fn only_the_newest_are_kept_and_older_ones_are_a_gap() {
    let log = log(3, 10);
    let from = |n| log.since(EventSeq(n)).map(|events| events.map(|(seq, _)| seq.0).collect());
    assert_eq!(from(8), Ok(vec![8, 9, 10]));
    assert_eq!(from(10), Ok(vec![10]));
    assert_eq!(from(11), Ok(vec![]));
    let gap = |n| Err(Gap { wanted: EventSeq(n), first_kept: EventSeq(8), next: EventSeq(11) });
    assert_eq!(from(7), gap(7));
    assert_eq!(from(0), gap(0));
    // Whoever has seen more than there is has seen another run.
    assert_eq!(from(12), gap(12));
    assert_eq!(from(u64::MAX), gap(u64::MAX));
}

#[test]
fn a_log_that_keeps_nothing_still_counts() {
    let log = log(0, 2);
    assert_eq!(log.next_seq(), EventSeq(3));
    assert!(log.since(EventSeq(2)).is_err());
    assert_eq!(log.since(EventSeq(3)).unwrap().count(), 0);
}

#[test]
fn a_snapshot_is_followed_by_the_event_it_names() {
    let events = vec![event(1), event(2)];
    let batch = Batch { snapshot: false, first_seq: EventSeq(5), events };
    assert_eq!(batch.next_seq(), EventSeq(7));
    assert_eq!(Batch { snapshot: true, ..batch }.next_seq(), EventSeq(5));
}
