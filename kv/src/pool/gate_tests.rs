//! What the pool must do about readers that only a gate knows.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::record::SlotRecord;
use proptest::prelude::*;
use std::collections::BTreeSet;

const GROUP: GroupId = GroupId(0);

/// Slots that somebody has mapped, and those that were closed.
#[derive(Clone, Default, Debug)]
pub(super) struct Readers(Arc<Mutex<State>>);

#[derive(Default, Debug)]
struct State {
    mapped: BTreeSet<SlotId>,
    asked: Vec<(SlotId, Option<SlotRecord>)>,
    over: bool,
}

impl Readers {
    pub(super) fn map(&self, slot: SlotId) {
        self.0.lock().unwrap().mapped.insert(slot);
    }

    pub(super) fn has(&self, slot: SlotId) -> bool {
        self.0.lock().unwrap().mapped.contains(&slot)
    }

    pub(super) fn unmap(&self, slot: SlotId) {
        self.0.lock().unwrap().mapped.remove(&slot);
    }

    fn asked(&self) -> Vec<(SlotId, Option<SlotRecord>)> {
        std::mem::take(&mut self.0.lock().unwrap().asked)
    }
}

impl SlotGate for Readers {
    fn close(&mut self, slot: SlotId, held: Option<&SlotRecord>) -> bool {
        let mut state = self.0.lock().unwrap();
        state.asked.push((slot, held.copied()));
        !state.mapped.contains(&slot)
    }

    fn is_over(&self) -> bool {
        self.0.lock().unwrap().over
    }
}

fn gated(slots: u32) -> (Pool, Readers) {
    let mut pool = Pool::new(PoolConfig { slots, events_kept: 64, leases_max: 2 });
    let readers = Readers::default();
    pool.add_gate(Box::new(readers.clone()));
    (pool, readers)
}

fn publish(pool: &mut Pool, n: u8) -> ReadPin {
    let (draft, _) = pool.draft().unwrap();
    let id = BlockId { hash: SequenceHash([n; 16]), parent: None, group: GROUP };
    let sealed = pool.seal(draft, id, 100, u32::from(n));
    pool.publish(sealed)
}

#[test]
fn a_mapped_block_stays_and_the_next_makes_room() {
    let (mut pool, readers) = gated(2);
    let (first, second) = (publish(&mut pool, 1), publish(&mut pool, 2));
    readers.map(first.slot());
    let (record, slot) = (first.record(), second.slot());
    let key = |n: u8| SequenceHash([n; 16]);
    drop((first, second));
    readers.asked();

    let (draft, evicted) = pool.draft().unwrap();
    assert_eq!((draft.slot(), evicted.unwrap().id.hash), (slot, key(2)));
    let asked = readers.asked();
    assert_eq!(asked.iter().map(|(slot, _)| slot.0).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(asked[0].1, Some(record));
    assert!(pool.pin(&key(1), GROUP).is_some());
    // The only other one is being written.
    let counts = pool.draft().unwrap_err().counts;
    assert_eq!(counts, Counts { draft: 1, cached: 1, ..Counts::default() });

    readers.unmap(SlotId(0));
    assert_eq!(pool.draft().unwrap().1.unwrap().id.hash, key(1));
}

#[test]
fn a_free_slot_that_is_mapped_is_set_aside_until_it_is_not() {
    let (mut pool, readers) = gated(2);
    readers.map(SlotId(0));
    let (draft, _) = pool.draft().unwrap();
    assert_eq!(draft.slot(), SlotId(1));
    let counts = pool.draft().unwrap_err().counts;
    assert_eq!(counts, Counts { draft: 1, set_aside: 1, ..Counts::default() });
    readers.unmap(SlotId(0));
    let (other, _) = pool.draft().unwrap();
    assert_eq!(other.slot(), SlotId(0));
    assert_eq!(pool.counts(), Counts { draft: 2, ..Counts::default() });
    drop((draft, other));
    assert_eq!(pool.counts(), Counts { free: 2, ..Counts::default() });
}

/// Whoever waits until enough is available drafts nothing meanwhile.
#[test]
fn slots_that_were_set_aside_are_available_again_without_a_draft() {
    let slots = 2 + gate::LOOKS as u32;
    let (mut pool, readers) = gated(slots);
    (0..slots).for_each(|slot| readers.map(SlotId(slot)));
    assert!(pool.draft().is_err());
    assert_eq!((pool.available(), pool.counts().set_aside), (0, slots));
    (0..slots).for_each(|slot| readers.unmap(SlotId(slot)));
    readers.asked();
    assert_eq!(pool.available(), gate::LOOKS as u32);
    assert_eq!(readers.asked().len(), gate::LOOKS);
    assert_eq!(pool.available(), slots);
    assert_eq!(pool.counts(), Counts { free: slots, ..Counts::default() });
}

#[test]
fn a_gate_that_has_ended_is_not_asked_once_another_comes() {
    let (mut pool, first) = gated(1);
    first.map(SlotId(0));
    assert!(pool.draft().is_err());
    first.0.lock().unwrap().over = true;
    pool.add_gate(Box::new(Readers::default()));
    assert!(pool.draft().is_ok());
}

#[test]
fn one_draft_looks_at_a_bounded_number_of_blocks() {
    let slots = 3 * gate::LOOKS as u32;
    let (mut pool, readers) = gated(slots);
    for n in 0..slots {
        drop(publish(&mut pool, n as u8));
        readers.map(SlotId(n));
    }
    readers.unmap(SlotId(slots - 1));
    for looked in [gate::LOOKS, gate::LOOKS] {
        readers.asked();
        assert!(pool.draft().is_err());
        assert_eq!(readers.asked().len(), looked);
    }
    // Those that were looked at count as used: it is found within as many looks as there are slots.
    assert_eq!(pool.draft().unwrap().0.slot(), SlotId(slots - 1));
}

proptest! {
    /// Slots are mapped and let go at random; what is handed out is never mapped, and nothing is
    /// lost.
    #[test]
    fn no_mapped_slot_is_handed_out(steps in prop::collection::vec((0..5u8, 0..6u32), 1..200)) {
        let (mut pool, readers) = gated(6);
        let mut drafts = Vec::new();
        let mut tag = 0u8;
        for (step, n) in steps {
            match step {
                0 => readers.map(SlotId(n)),
                1 => readers.unmap(SlotId(n)),
                2 | 3 => {
                    if let Ok((draft, _)) = pool.draft() {
                        prop_assert!(!readers.has(draft.slot()));
                        drafts.push(draft);
                    }
                }
                _ => {
                    if let Some(draft) = drafts.pop() {
                        tag = tag.wrapping_add(1);
                        let hash = SequenceHash([tag; 16]);
                        let id = BlockId { hash, parent: None, group: GROUP };
                        let sealed = pool.seal(draft, id, 1, 1);
                        drop(pool.publish(sealed));
                    }
                }
            }
            let Counts { free, draft, sealed, cached, pinned, set_aside, quarantined, .. } =
                pool.counts();
            prop_assert_eq!(free + draft + sealed + cached + pinned + set_aside + quarantined, 6);
            prop_assert_eq!(draft as usize, drafts.len());
            pool.forest.audit();
        }
        for n in 0..6 {
            readers.unmap(SlotId(n));
        }
        drop(drafts);
        let all: Vec<_> = (0..6).map(|_| pool.draft().unwrap().0).collect();
        prop_assert_eq!(all.iter().map(Draft::slot).collect::<BTreeSet<_>>().len(), 6);
    }
}
