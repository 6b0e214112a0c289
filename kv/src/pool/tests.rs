//! What the pool must do over a life of a block: leases, sealing, pins, eviction.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::lease::WriteLease;
use crate::retention::{Class, Retention};

const GROUP: GroupId = GroupId(0);
const SECOND: Duration = Duration::from_secs(1);

fn pool(slots: u32) -> Pool {
    Pool::new(PoolConfig { slots, events_kept: 64, leases_max: 2 })
}

fn hash(n: u8) -> SequenceHash {
    SequenceHash([n; 16])
}

/// Block `n`, which follows block `n - 1`; block 1 is the first.
fn id(n: u8) -> BlockId {
    BlockId { hash: hash(n), parent: (n > 1).then(|| hash(n - 1)), group: GROUP }
}

fn publish(pool: &mut Pool, n: u8) -> ReadPin {
    let (draft, _) = pool.draft().unwrap();
    let draft = draft.lend().settle();
    let sealed = pool.seal(draft, id(n), 100 + u32::from(n), u32::from(n));
    pool.publish(sealed)
}

#[test]
fn a_block_lives_its_life() {
    let mut pool = pool(3);
    let (draft, evicted) = pool.draft().unwrap();
    assert_eq!((draft.generation(), evicted), (Generation(1), None));
    assert_eq!(pool.counts(), Counts { free: 2, draft: 1, ..Counts::default() });

    let lease = draft.lend();
    assert_eq!(pool.counts().draft, 1);
    let sealed = pool.seal(lease.settle(), id(1), 40, 7);
    assert_eq!(pool.counts(), Counts { free: 2, sealed: 1, ..Counts::default() });
    assert_eq!(pool.held(&[hash(1)], GROUP), 0);

    let record = sealed.record();
    let pin = pool.publish(sealed);
    assert_eq!((pin.record(), record.len, record.crc), (record, 40, 7));
    assert_eq!(pool.held(&[hash(1), hash(2)], GROUP), 1);
    assert_eq!(pool.held(&[hash(1)], GroupId(1)), 0);
    assert_eq!(pool.counts(), Counts { free: 2, pinned: 1, ..Counts::default() });

    drop(pin);
    assert_eq!(pool.counts(), Counts { free: 2, cached: 1, ..Counts::default() });
    assert_eq!(pool.available(), 3);
}

#[test]
fn a_lost_write_lease_costs_its_slot_for_good() {
    let mut pool = pool(2);
    let (lost, _) = pool.draft().unwrap();
    drop(lost.lend());
    assert_eq!(pool.counts(), Counts { free: 1, quarantined: 1, ..Counts::default() });
    for _ in 0..10 {
        let (draft, _) = pool.draft().unwrap();
        assert_eq!(draft.slot(), SlotId(1));
        let exhausted = pool.draft().unwrap_err();
        assert_eq!(exhausted.counts, Counts { draft: 1, quarantined: 1, ..Counts::default() });
    }
}

#[test]
fn the_same_block_twice_is_held_once() {
    let mut pool = pool(3);
    let first = publish(&mut pool, 1);
    let second = publish(&mut pool, 1);
    assert_eq!(first.slot(), second.slot());
    assert_eq!(pool.counts(), Counts { free: 2, pinned: 1, ..Counts::default() });
    assert_eq!(pool.log().next_seq(), EventSeq(2));
    drop(first);
    assert_eq!(pool.counts().pinned, 1);
}

#[test]
fn what_makes_room_tells_why_it_might_have_been_kept() {
    let answer = Retention { class: Class::Answer, priority: 3, ttl: Some(SECOND) };
    let mut pool = pool(1);
    let draft = pool.draft().unwrap().0;
    let sealed = pool.seal(draft, id(1), 40, 7);
    drop(pool.publish_as(sealed, answer));
    assert_eq!(pool.counts().cached, 1);
    let evicted = pool.draft().unwrap().1;
    assert_eq!(evicted, Some(Evicted { id: id(1), retention: answer }));
}

#[test]
fn a_parent_outlives_its_children_and_the_removal_is_told_first() {
    let mut pool = pool(3);
    let pins: Vec<_> = (1..=3).map(|n| publish(&mut pool, n)).collect();
    drop(pins);
    // Block 1 was used least recently, but 2 continues it and 3 continues 2.
    for n in (1..=3).rev() {
        let next = pool.log().next_seq();
        let (draft, evicted) = pool.draft().unwrap();
        let removed = BlockEvent::removed(&id(n).key());
        assert_eq!(pool.log().since(next).unwrap().collect::<Vec<_>>(), [(next, removed)]);
        assert_eq!(
            (evicted, draft.generation()),
            (Some(Evicted { id: id(n), retention: Retention::default() }), Generation(2))
        );
        let _: WriteLease = draft.lend();
    }
}

#[test]
fn what_lies_under_a_pinned_block_is_not_available() {
    let mut pool = pool(4);
    let mut pins: Vec<_> = (1..=3).map(|n| publish(&mut pool, n)).collect();
    let last = pins.pop();
    drop(pins);
    assert_eq!((pool.counts().cached, pool.available()), (2, 1));
    drop(last);
    assert_eq!(pool.available(), 4);
}

#[test]
fn a_prefix_is_pinned_as_far_as_it_is_held() {
    let mut pool = pool(4);
    for n in [1, 2, 4] {
        drop(publish(&mut pool, n));
    }
    let chain: Vec<_> = (1..=4).map(hash).collect();
    let pins = pool.pin_prefix(&chain, GROUP);
    assert_eq!(pins.iter().map(ReadPin::hash).collect::<Vec<_>>(), chain[..2]);
    assert_eq!(pool.counts().pinned, 2);
    assert!(pool.pin(&hash(3), GROUP).is_none());
}

/// So no more than one report per slot and living handle can wait in the bin.
#[test]
fn pins_on_one_block_are_one_report() {
    let mut pool = pool(1);
    let pin = publish(&mut pool, 1);
    let more: Vec<_> = (0..100).map(|_| pool.pin(&hash(1), GROUP).unwrap()).collect();
    drop((pin, more));
    let mut reports = vec![];
    pool.bin.take(&mut reports);
    assert_eq!(reports.len(), 1);
}

/// A drop that needed the pool's lock would hang here.
#[test]
fn handles_are_dropped_while_the_pool_is_locked() {
    let shared = SharedPool::new(Mutex::new(pool(4)));
    let pin = publish(&mut lock(&shared), 1);
    let (draft, _) = lock(&shared).draft().unwrap();
    let (lent, _) = lock(&shared).draft().unwrap();
    let lent = lent.lend();
    let mut guard = lock(&shared);
    std::thread::spawn(move || drop((pin, draft, lent))).join().unwrap();
    let counts = Counts { free: 2, cached: 1, quarantined: 1, ..Counts::default() };
    assert_eq!(guard.counts(), counts);
}

#[test]
fn clones_and_drops_on_many_threads_add_up() {
    let shared = SharedPool::new(Mutex::new(pool(2)));
    drop(publish(&mut lock(&shared), 1));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..500 {
                    let pin = lock(&shared).pin(&hash(1), GROUP).unwrap();
                    let clone = pin.clone();
                    drop(pin);
                    assert_eq!(clone.hash(), hash(1));
                }
            });
        }
    });
    assert_eq!(lock(&shared).counts(), Counts { free: 1, cached: 1, ..Counts::default() });
}

#[test]
#[should_panic(expected = "its books cannot be trusted")]
fn a_poisoned_pool_is_a_broken_invariant() {
    let shared = SharedPool::new(Mutex::new(pool(1)));
    let inside = Arc::clone(&shared);
    let panicked = std::thread::spawn(move || {
        let _guard = lock(&inside);
        panic!("on purpose");
    });
    assert!(panicked.join().is_err());
    drop(lock(&shared));
}

#[test]
#[should_panic(expected = "belongs to another pool")]
fn a_draft_of_another_pool_is_refused() {
    let (draft, _) = pool(1).draft().unwrap();
    drop(pool(1).seal(draft, id(1), 1, 1));
}

#[test]
#[should_panic(expected = "belongs to another pool")]
fn a_pin_of_another_pool_is_refused() {
    let pin = publish(&mut pool(1), 1);
    let _ = pool(1).lease(vec![pin], SECOND, SECOND);
}

#[test]
fn a_lease_keeps_its_blocks_until_its_time_is_up() {
    let mut pool = pool(2);
    let pin = publish(&mut pool, 1);
    let id = pool.lease(vec![pin.clone(), pin], SECOND, SECOND).unwrap();
    assert_eq!((pool.counts().pinned, pool.counts().leases), (1, 1));

    let end = 2 * SECOND;
    let before = end.checked_sub(Duration::from_nanos(1)).unwrap();
    assert!(pool.lease_live(id, before) && !pool.lease_live(id, end));
    assert_eq!((pool.expire(before), pool.expire(end)), (0, 1));
    assert_eq!(pool.counts(), Counts { free: 1, cached: 1, ..Counts::default() });
    assert!(!pool.release(id));
}

#[test]
fn a_lease_is_extended_but_never_cut_short() {
    let mut pool = pool(2);
    let id = pool.lease(Vec::new(), 3 * SECOND, Duration::ZERO).unwrap();
    let pin = publish(&mut pool, 1);
    assert!(pool.extend_lease(id, vec![pin], SECOND, SECOND));
    assert!(pool.lease_live(id, 2 * SECOND));
    assert!(pool.extend_lease(id, Vec::new(), 3 * SECOND, SECOND));
    assert!(pool.lease_live(id, 3 * SECOND));
    assert_eq!((pool.expire(3 * SECOND), pool.counts().pinned), (0, 1));
    // Its time is up: it cannot come back, even though nobody has cleaned up yet.
    assert!(!pool.extend_lease(id, Vec::new(), SECOND, 4 * SECOND));
    assert!(pool.release(id) && !pool.release(id));
    assert_eq!((pool.counts().pinned, pool.counts().leases), (0, 0));
    assert!(!pool.extend_lease(LeaseId(9), Vec::new(), SECOND, SECOND));
}

#[test]
fn leases_are_bounded_and_those_whose_time_is_up_make_room() {
    let mut pool = pool(1);
    let pin = publish(&mut pool, 1);
    let mut ids = vec![];
    for ttl in [1, 2] {
        ids.push(pool.lease(vec![pin.clone()], ttl * SECOND, Duration::ZERO).unwrap());
    }
    let full = pool.lease(vec![pin.clone()], SECOND, Duration::ZERO);
    assert_eq!(full, Err(TooManyLeases { max: 2 }));
    ids.push(pool.lease(vec![pin], Duration::MAX, SECOND).unwrap());
    assert_ne!(ids[0], ids[2]);
    assert!(!pool.lease_live(ids[0], SECOND) && pool.lease_live(ids[2], 1000 * SECOND));
}

/// Blocks 1 and 2 under a lease that ends after one second, and the descriptor of block 1.
fn leased() -> (Pool, BlockDescriptor) {
    let mut pool = pool(4);
    let pins: Vec<_> = (1..=2).map(|n| publish(&mut pool, n)).collect();
    let lease = pool.lease(pins.clone(), SECOND, Duration::ZERO).unwrap();
    let d = pool.descriptor(&pins[0], WorkerId(5), Incarnation(6), lease, SECOND);
    (pool, d)
}

#[test]
fn a_descriptor_says_what_a_reader_has_to_know() {
    let (mut pool, d) = leased();
    let expected = BlockDescriptor {
        owner: WorkerId(5),
        incarnation: Incarnation(6),
        lease: LeaseId(1),
        lease_remaining_ms: 1000,
        slot: SlotId(0),
        generation: Generation(1),
        hash: hash(1),
        group: GROUP,
        len: 101,
        crc: 1,
    };
    assert_eq!(d, expected);
    let pin = pool.resolve(&d, Duration::ZERO).unwrap();
    assert_eq!((pin.hash(), pin.slot()), (d.hash, d.slot));
    let forever = pool.descriptor(&pin, d.owner, d.incarnation, d.lease, Duration::MAX);
    assert_eq!(forever.lease_remaining_ms, u32::MAX);
}

/// What `guard` refuses, and that nothing else would have.
fn refused_by(guard: Guard, alter: impl Fn(&mut BlockDescriptor), now: Duration) -> Refusal {
    let (mut pool, mut d) = leased();
    alter(&mut d);
    let unguarded = guard.without(|| pool.resolve(&d, now));
    assert_eq!(unguarded.unwrap().hash(), hash(1), "{guard:?} is not what refuses this");
    pool.resolve(&d, now).unwrap_err()
}

#[test]
fn nothing_is_served_after_the_lease() {
    let refusal = refused_by(Guard::Lease, |_| (), SECOND);
    assert_eq!(refusal, Refusal::Lease(LeaseId(1)));
    let (mut pool, d) = leased();
    pool.release(d.lease);
    assert_eq!(pool.resolve(&d, Duration::ZERO).unwrap_err(), refusal);
}

#[test]
fn an_older_generation_is_refused() {
    let refusal = refused_by(Guard::Generation, |d| d.generation.0 -= 1, Duration::ZERO);
    assert_eq!(refusal, Refusal::Generation { asked: Generation(0), held: Generation(1) });
}

#[test]
fn another_block_is_refused() {
    for alter in
        [|d: &mut BlockDescriptor| d.hash = hash(2), |d: &mut BlockDescriptor| d.group = GroupId(1)]
    {
        assert_eq!(refused_by(Guard::Identity, alter, Duration::ZERO), Refusal::Identity);
    }
}

#[test]
fn another_content_is_refused() {
    for alter in [|d: &mut BlockDescriptor| d.len += 1, |d: &mut BlockDescriptor| d.crc += 1] {
        assert_eq!(refused_by(Guard::Content, alter, Duration::ZERO), Refusal::Content);
    }
}

#[test]
fn a_slot_outside_the_lease_is_refused() {
    let (mut pool, mut d) = leased();
    let other = publish(&mut pool, 3);
    let lease = d.lease;
    for slot in [other.slot(), SlotId(3), SlotId(u32::MAX)] {
        d = BlockDescriptor { slot, hash: other.hash(), ..d };
        let refusal = pool.resolve(&d, Duration::ZERO).unwrap_err();
        assert_eq!(refusal, Refusal::Slot { lease, slot });
    }
}

#[test]
fn a_reference_to_a_reused_slot_is_refused() {
    let mut pool = pool(1);
    let pin = publish(&mut pool, 1);
    let lease = pool.lease(vec![pin.clone()], SECOND, Duration::ZERO).unwrap();
    let stale = pool.descriptor(&pin, WorkerId(5), Incarnation(6), lease, SECOND);
    drop(pin);
    pool.release(lease);
    let pin = publish(&mut pool, 9);
    let lease = pool.lease(vec![pin], SECOND, Duration::ZERO).unwrap();
    assert!(pool.resolve(&stale, Duration::ZERO).is_err());
    // Even under a lease that is live and covers the slot.
    let stale = BlockDescriptor { lease, ..stale };
    let refusal = pool.resolve(&stale, Duration::ZERO).unwrap_err();
    assert_eq!(refusal, Refusal::Generation { asked: Generation(1), held: Generation(2) });
}

#[test]
fn a_watcher_gets_events_or_a_snapshot() {
    let mut pool = Pool::new(PoolConfig { slots: 4, events_kept: 2, leases_max: 0 });
    let published = |n| BlockEvent::published(&id(n), Tier::Device);
    for n in 1..=3 {
        drop(publish(&mut pool, n));
    }
    let events = vec![published(2)];
    let batch = Batch { snapshot: false, first_seq: EventSeq(2), events };
    assert_eq!(pool.watch(EventSeq(2), 1), batch);
    let events = (1..=3).map(published).collect();
    let snapshot = Batch { snapshot: true, first_seq: EventSeq(4), events };
    assert_eq!(pool.watch(EventSeq(1), 1), snapshot);
}
