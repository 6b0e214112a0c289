//! A map that forgets: bounded by weight, shared by threads.
//!
//! What has not been asked for since the hand came by last goes first (second chance, the
//! approximation of "least recently used" that costs one bit per entry). Every call locks one of a
//! few shards, for a moment.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::sync::{Mutex, MutexGuard, PoisonError};

const SHARDS_MAX: usize = 16;

/// The map. Values are cloned out of it, so they are `Arc`s or small.
#[derive(Debug)]
pub(super) struct Cache<K, V> {
    shards: Vec<Mutex<Shard<K, V>>>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Shard<K, V> {
    places: HashMap<K, usize>,
    slots: Vec<Slot<K, V>>,
    /// The slot that is looked at next when room is needed.
    hand: usize,
    weight: usize,
    weight_max: usize,
}

#[derive(Debug)]
struct Slot<K, V> {
    key: K,
    value: V,
    weight: usize,
    /// It was asked for since the hand came by.
    used: bool,
}

impl<K: Copy + Eq + Hash, V: Clone> Cache<K, V> {
    /// An empty map whose entries weigh at most `weight_max` together. A shard is not made smaller
    /// than `shard_weight_min`: nothing heavier than a shard can be kept.
    pub(super) fn new(weight_max: usize, shard_weight_min: usize) -> Self {
        let shards = (weight_max / shard_weight_min).clamp(1, SHARDS_MAX);
        let shard = |_| Mutex::new(Shard::new(weight_max / shards));
        Self { shards: (0..shards).map(shard).collect(), hasher: RandomState::new() }
    }

    pub(super) fn get(&self, key: K) -> Option<V> {
        self.shard(key).get(key)
    }

    /// Keeps a value in place of what had the key before. One that is too heavy is not kept.
    pub(super) fn insert(&self, key: K, value: V, weight: usize) {
        self.shard(key).insert(Slot { key, value, weight, used: false });
    }

    pub(super) fn remove(&self, key: K) {
        let mut shard = self.shard(key);
        if let Some(place) = shard.places.get(&key).copied() {
            shard.remove(place);
        }
    }

    fn shard(&self, key: K) -> MutexGuard<'_, Shard<K, V>> {
        let at = self.hasher.hash_one(key) as usize % self.shards.len();
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Copy + Eq + Hash, V: Clone> Shard<K, V> {
    fn new(weight_max: usize) -> Self {
        Self { places: HashMap::new(), slots: Vec::new(), hand: 0, weight: 0, weight_max }
    }

    fn get(&mut self, key: K) -> Option<V> {
        let slot = &mut self.slots[*self.places.get(&key)?];
        slot.used = true;
        Some(slot.value.clone())
    }

    fn insert(&mut self, slot: Slot<K, V>) {
        if let Some(place) = self.places.get(&slot.key) {
            self.remove(*place);
        }
        if slot.weight > self.weight_max {
            return;
        }
        while self.weight + slot.weight > self.weight_max {
            self.make_room();
        }
        self.weight += slot.weight;
        self.places.insert(slot.key, self.slots.len());
        self.slots.push(slot);
    }

    /// Moves the hand by one; a slot that was not used goes. Within two rounds one is found.
    fn make_room(&mut self) {
        if self.hand >= self.slots.len() {
            self.hand = 0;
        }
        if !std::mem::take(&mut self.slots[self.hand].used) {
            // What takes its place is the newest, and waits for a whole round.
            self.remove(self.hand);
        }
        self.hand += 1;
    }

    /// The last slot takes the place of the one that goes.
    fn remove(&mut self, place: usize) {
        let gone = self.slots.swap_remove(place);
        self.places.remove(&gone.key);
        self.weight -= gone.weight;
        if let Some(moved) = self.slots.get(place) {
            self.places.insert(moved.key, place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_stays_and_the_weight_is_bounded() {
        let cache = Cache::new(1000, 1000);
        for key in 0..10_000_u32 {
            cache.insert(key, key + 1, 10);
            assert_eq!(cache.get(0), Some(1), "what is asked for stays");
            let shard = cache.shard(0);
            assert!(shard.places.contains_key(&key), "what came last is there");
            assert!(shard.weight <= 1000);
            assert_eq!(shard.weight, shard.slots.iter().map(|slot| slot.weight).sum::<usize>());
            assert_eq!(shard.places.len(), shard.slots.len());
        }
        assert_eq!(cache.shard(0).slots.len(), 100);
        assert_eq!(cache.get(5), None);
    }

    #[test]
    fn a_key_has_one_value_and_the_heavy_are_not_kept() {
        let cache = Cache::new(100, 100);
        cache.insert(1, 'a', 60);
        cache.insert(1, 'b', 70);
        assert_eq!((cache.get(1), cache.shard(1).weight), (Some('b'), 70));
        cache.insert(2, 'c', 101);
        assert_eq!((cache.get(1), cache.get(2)), (Some('b'), None));
        cache.insert(1, 'd', 101);
        assert_eq!((cache.get(1), cache.shard(1).weight), (None, 0));
        cache.insert(3, 'e', 50);
        cache.remove(3);
        cache.remove(3);
        assert_eq!((cache.get(3), cache.shard(3).weight), (None, 0));
        let nothing = Cache::new(0, 100);
        nothing.insert(1, 'a', 1);
        assert_eq!(nothing.get(1), None);
    }
}
