//! The null provider behaves as a device would, as far as its users can see, and chains are what
//! they say.

use crate::verbs::rdma::null::{self, NullCompletions, NullPair, Strings};
use crate::verbs::rdma::{
    ArenaMap, Chain, Completing, Completion, Draining, Posted, RECEIVE, Remote, RemoteKey, Rights,
    Sending, Status, Work,
};
use baton_arena::{Layout, Shape};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

fn map() -> ArenaMap {
    null::map(Layout::of(Shape { slots: 64, slot_bytes: 1000 }).unwrap())
}

/// A chain of READs with these ids, whose last is signalled.
fn chain(ids: impl IntoIterator<Item = u64>) -> Chain {
    let mut chain = Chain::new(16);
    for id in ids {
        let into = map().slots(0, 0, 1000).unwrap();
        let from = Remote { address: 0, key: RemoteKey::from_wire(7) };
        assert!(chain.push(id, Work::Read { into, from, fenced: false }));
    }
    chain
}

fn polled(completions: &mut NullCompletions) -> Vec<(u64, Status)> {
    let mut all = [Completion::NONE; 64];
    let found = completions.poll(&mut all).unwrap();
    all[..found].iter().map(|end| (end.work, end.status)).collect()
}

fn rig() -> (NullPair, NullCompletions, Strings) {
    let (completions, strings) = null::completions(64);
    (strings.pair(5), completions, strings)
}

#[test]
fn the_last_request_of_a_chain_completes() {
    let (mut pair, mut completions, strings) = rig();
    let mut requests = chain(0..16);
    assert_eq!(requests.len(), requests.capacity());
    pair.post(&mut requests).unwrap();
    requests.clear();
    pair.post(&mut requests).unwrap();
    assert_eq!(requests.posted(), Posted { requests: 16, doorbells: 1 });
    assert_eq!(polled(&mut completions), [(15, Status::Done)]);
    assert_eq!(polled(&mut completions), []);
    assert_eq!((strings.posted(), strings.outstanding()), (16, 0));
}

#[test]
fn a_chain_that_was_cleared_keeps_nothing_of_its_signals() {
    let (mut pair, mut completions, _strings) = rig();
    let mut requests = chain([0]);
    pair.post(&mut requests).unwrap();
    requests.clear();
    let from = Remote { address: 0, key: RemoteKey::from_wire(7) };
    for id in 1..4 {
        let into = map().slots(0, 0, 10).unwrap();
        assert!(requests.push(id, Work::Read { into, from, fenced: true }));
    }
    pair.post(&mut requests).unwrap();
    assert_eq!(polled(&mut completions), [(0, Status::Done), (3, Status::Done)]);
}

#[test]
fn a_failing_request_takes_what_comes_behind_it_along() {
    let (mut pair, mut completions, strings) = rig();
    strings.fail_after(2, Status::RemoteAccess);
    pair.post(&mut chain(0..4)).unwrap();
    let flushed = |id| (id, Status::Flushed);
    let ends = [(2, Status::RemoteAccess), flushed(3)];
    assert_eq!(polled(&mut completions), ends, "nobody asked for a signal of 0 and 1");
    pair.post(&mut chain([9])).unwrap();
    assert_eq!(polled(&mut completions), [flushed(9)]);
}

#[test]
fn what_is_held_back_completes_late_or_is_flushed() {
    let (mut pair, mut completions, strings) = rig();
    let mut other = strings.pair(6);
    strings.hold();
    pair.post(&mut chain(0..3)).unwrap();
    other.post(&mut chain(10..12)).unwrap();
    assert_eq!((polled(&mut completions).len(), strings.outstanding()), (0, 5));
    pair.post_receives(1).unwrap();
    let mut failed = pair.fail().unwrap();
    failed.mark(77).unwrap();
    let flushed = |id| (id, Status::Flushed);
    let ends = [0, 1, 2, RECEIVE, 77].map(flushed);
    assert_eq!(polled(&mut completions), ends);
    strings.release();
    assert_eq!(polled(&mut completions), [(11, Status::Done)]);
    assert_eq!(strings.outstanding(), 0);
}

#[test]
fn a_refused_chain_says_how_far_it_got() {
    let (mut pair, mut completions, strings) = rig();
    strings.refuse_after(3);
    let mut requests = chain(0..8);
    let error = pair.post(&mut requests).unwrap_err();
    assert_eq!((error.posted, error.asked), (3, 8));
    assert_eq!(requests.posted(), Posted { requests: 3, doorbells: 1 });
    assert_eq!(polled(&mut completions), [], "none of the three was signalled");
}

#[test]
fn an_immediate_needs_a_receive() {
    let (mut pair, mut completions, strings) = rig();
    assert!(!strings.arrive(5, 1));
    pair.post_receives(1).unwrap();
    assert!(strings.arrive(5, 0xabcd));
    assert!(!strings.arrive(5, 2));
    let mut ends = [Completion::NONE; 2];
    assert_eq!(completions.poll(&mut ends).unwrap(), 1);
    assert_eq!((ends[0].work, ends[0].immediate), (RECEIVE, Some(0xabcd)));
}

#[test]
fn a_completion_wakes_who_armed_the_queue_before() {
    let (mut pair, mut completions, _strings) = rig();
    completions.arm().unwrap();
    pair.post(&mut chain([1])).unwrap();
    let mut context = Context::from_waker(Waker::noop());
    assert!(pin!(completions.readable()).poll(&mut context).is_ready());
    pair.post(&mut chain([2])).unwrap();
    let woken = pin!(completions.readable()).poll(&mut context);
    assert!(matches!(woken, Poll::Pending), "it is armed for one only");
}

#[test]
fn a_queue_that_overflows_is_broken() {
    let (mut completions, strings) = null::completions(2);
    let mut pair = strings.pair(5);
    for id in 0..3 {
        pair.post(&mut chain([id])).unwrap();
    }
    assert!(completions.poll(&mut [Completion::NONE; 4]).is_err());
}

#[test]
fn a_bind_gives_its_window_another_key() {
    let mut window = null::window(0x1234_5678);
    let region = &null::bindable();
    for _ in 0..100 {
        let old = window.key();
        let mut requests = Chain::new(1);
        let stretch = map().slots(1, 0, 10).unwrap();
        let bind = Work::Bind { window: &mut window, region, stretch, rights: Rights::READ };
        assert!(requests.push(0, bind));
        assert_ne!(window.key(), old);
        assert_eq!(window.key().to_wire() >> 8, 0x12_3456, "only the low byte is ours");
    }
}

#[test]
fn keys_are_not_shown() {
    let key = RemoteKey::from_wire(0x00c0_ffee);
    let remote = Remote { address: 1, key };
    let window = null::window(0x00c0_ffee);
    for shown in [format!("{key:?}"), format!("{remote:?}"), format!("{window:?}")] {
        let shown = shown.to_lowercase();
        assert!(!shown.contains("ffee") && !shown.contains("12648430"), "{shown}");
    }
}
