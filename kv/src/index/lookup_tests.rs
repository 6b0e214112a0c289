//! Lookups between whose steps the writer acts, on one thread: every run is the same for a seed,
//! and the naive model knows each moment that a lookup may speak of.
#![allow(clippy::unwrap_used)]

use super::model_tests::{Chance, hash, rounds, seed};
use super::view::during;
use super::*;
use crate::block::{BlockId, Tier};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

const GROUP: GroupId = GroupId(3);
const LENGTH: usize = 24;
const SLOTS: usize = 3;
/// Fewer than a lookup tries again.
const ACTS: usize = 12;

/// The index, the truth beside it, and what a lookup may say.
struct World {
    index: Index,
    chance: Chance,
    /// What each worker that has joined holds of the chain.
    held: BTreeMap<WorkerId, BTreeMap<usize, Tier>>,
    /// The least and the greatest depth of each worker since the lookup began, and the tiers that
    /// the last block of that depth had.
    since: BTreeMap<WorkerId, Vec<(usize, Option<Tier>)>>,
    next_worker: u32,
    acts: usize,
}

fn id(at: usize) -> BlockId {
    BlockId { hash: hash(at), parent: at.checked_sub(1).map(hash), group: GROUP }
}

impl World {
    fn new(chance: Chance) -> Self {
        let index = Index::new(IndexConfig {
            workers_max: SLOTS,
            blocks_per_worker_max: LENGTH,
            blocks_max: 2 * LENGTH,
            pending_max: 0,
        });
        let (held, since) = (BTreeMap::new(), BTreeMap::new());
        Self { index, chance, held, since, next_worker: 0, acts: 0 }
    }

    fn say(&mut self, worker: WorkerId, events: Vec<BlockEvent>) {
        let (run, first_seq) = self.index.position(worker).unwrap();
        self.index.apply(worker, run, &Batch { snapshot: false, first_seq, events }).unwrap();
        self.note();
    }

    /// A worker does one thing: grows or shrinks its beginning of the chain, moves a block to
    /// another tier, or makes a hole; or it goes, and another one comes in its place.
    fn act(&mut self) {
        let place = self.chance.below(SLOTS);
        let Some(worker) = self.held.keys().nth(place).copied() else {
            return self.join();
        };
        let held = &self.held[&worker];
        let depth = (0..LENGTH).take_while(|at| held.contains_key(at)).count();
        let at = self.chance.below(LENGTH);
        let tier = Tier::from_bits(self.chance.below(4) as u32);
        match self.chance.below(16) {
            0 => {
                self.index.remove_worker(worker);
                self.held.remove(&worker);
                self.note();
            }
            1..=6 if depth < LENGTH => self.publish(worker, depth, tier),
            1..=10 if depth > 0 => self.remove(worker, depth - 1),
            11 => self.publish(worker, at, tier),
            12 => self.remove(worker, at),
            _ if depth > 0 => self.publish(worker, at % depth, tier),
            _ => {}
        }
    }

    fn join(&mut self) {
        let worker = WorkerId(self.next_worker);
        self.next_worker += 1;
        self.index.join(worker, Incarnation(1)).unwrap();
        self.held.insert(worker, BTreeMap::new());
        self.note();
    }

    fn publish(&mut self, worker: WorkerId, at: usize, tier: Tier) {
        self.held.get_mut(&worker).unwrap().insert(at, tier);
        self.say(worker, vec![BlockEvent::published(&id(at), tier)]);
    }

    fn remove(&mut self, worker: WorkerId, at: usize) {
        self.held.get_mut(&worker).unwrap().remove(&at);
        self.say(worker, vec![BlockEvent::removed(&id(at).key())]);
    }

    /// Adds this moment to those that a lookup may speak of.
    fn note(&mut self) {
        for worker in (0..self.next_worker).map(WorkerId) {
            let held = self.held.get(&worker);
            let depth =
                |held: &BTreeMap<_, _>| (0..LENGTH).take_while(|at| held.contains_key(at)).count();
            let depth = held.map_or(0, depth);
            let tier = depth.checked_sub(1).map(|at| held.unwrap()[&at]);
            self.since.entry(worker).or_default().push((depth, tier));
        }
    }

    /// What a lookup found has to be true of some moment, worker by worker; between two depths
    /// of a worker all others count, since a lookup sees its blocks one after the other.
    fn judge(&self, found: &[Match]) {
        assert!(found.is_sorted_by_key(|m| std::cmp::Reverse(m.depth)), "{found:?}");
        for (worker, moments) in &self.since {
            let matches: Vec<_> = found.iter().filter(|m| m.worker == *worker).collect();
            assert!(matches.len() <= 1, "twice: {found:?}");
            let depth = matches.first().map_or(0, |m| m.depth);
            let least = moments.iter().map(|(depth, _)| *depth).min().unwrap();
            let greatest = moments.iter().map(|(depth, _)| *depth).max().unwrap();
            assert!(
                (least..=greatest).contains(&depth),
                "not a depth of any moment: {worker:?} at {depth}, of {moments:?}"
            );
        }
        let known = |m: &Match| self.since.contains_key(&m.worker);
        assert!(found.iter().all(known), "strangers: {found:?}");
    }
}

/// A world in some state, and a lookup of a chain during which it goes on.
fn lookups(count: usize) {
    let mut chance = Chance(seed());
    for _ in 0..count {
        let mut world = World::new(Chance(chance.next()));
        (0..chance.below(120)).for_each(|_| world.act());
        world.since.clear();
        world.note();
        world.acts = chance.below(ACTS);
        let view = world.index.view().clone();
        let chain: Vec<_> = (0..=chance.below(LENGTH)).map(hash).collect();
        let world = Rc::new(RefCell::new(world));
        let writer = {
            let world = Rc::clone(&world);
            move || {
                let mut world = world.borrow_mut();
                if world.acts > 0 && world.chance.below(3) == 0 {
                    world.acts -= 1;
                    world.act();
                }
            }
        };
        let found = during(writer, || view.matches(&chain, GROUP));
        let mut world = world.borrow_mut();
        for moments in world.since.values_mut() {
            for (depth, _) in moments {
                *depth = (*depth).min(chain.len());
            }
        }
        world.judge(&found);
    }
}

#[test]
fn a_lookup_in_the_midst_of_changes_is_true_of_each_worker_at_some_moment() {
    lookups(rounds(20_000, 2_000_000));
}

#[test]
#[should_panic(expected = "not a depth of any moment")]
fn without_the_look_whether_members_changed_a_lookup_is_wrong() {
    Guard::Members.without(|| lookups(20_000));
}
