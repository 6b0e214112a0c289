//! A set of entry numbers, each with a count of 0 to 3. Blocks that are published one after the other
//! have numbers one after the other, so eight neighbours share one word, and what a batch of events
//! changes lies in few cache lines.
//!
//! The words are a hash table without a pointer: each is in the place that its page hashes to, or in
//! the first free one after that.

use super::prefetch::prefetch;

/// Entries of a page.
const PAGE: u32 = 8;
/// The bits of a word: eight that say which entries are there, two planes of their counts, and the
/// page's number above. A word of nobody is 0.
const NUMBER: u32 = 3 * PAGE;
/// Words of the smallest table.
const LEAST: usize = 8;

/// The set.
#[derive(Debug, Default)]
pub(super) struct Pages {
    words: Vec<u64>,
    /// Words in use.
    used: usize,
    /// Entries.
    len: usize,
}

impl Pages {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.words.iter().flat_map(|word| {
            let there = (0..PAGE).filter(move |at| word >> at & 1 == 1);
            there.map(move |at| (word >> NUMBER) as u32 * PAGE + at)
        })
    }

    /// Says that an entry will be looked up or changed.
    pub(super) fn expect(&self, entry: u32) {
        if !self.words.is_empty() {
            prefetch(&self.words[self.home(entry / PAGE)]);
        }
    }

    /// Adds an entry, or changes its count.
    pub(super) fn set(&mut self, entry: u32, count: u32) {
        self.make_room();
        let (page, at) = (entry / PAGE, entry % PAGE);
        let place = self.find(page);
        let word = &mut self.words[place];
        if *word == 0 {
            *word = u64::from(page) << NUMBER;
            self.used += 1;
        }
        self.len += usize::from(*word >> at & 1 == 0);
        *word = *word & !(mask() << at) | planes(count) << at;
    }

    /// Changes the count of an entry; returns what it was, or `None` if it is not in the set.
    pub(super) fn change(&mut self, entry: u32, to: impl FnOnce(u32) -> u32) -> Option<u32> {
        if self.words.is_empty() {
            return None;
        }
        let (place, at) = (self.find(entry / PAGE), entry % PAGE);
        let word = &mut self.words[place];
        let before = count(*word >> at)?;
        *word = *word & !(mask() << at) | planes(to(before)) << at;
        Some(before)
    }

    /// Takes an entry out; returns its count, or `None` if it is not in the set.
    pub(super) fn remove(&mut self, entry: u32) -> Option<u32> {
        if self.words.is_empty() {
            return None;
        }
        let (place, at) = (self.find(entry / PAGE), entry % PAGE);
        let word = &mut self.words[place];
        let count = count(*word >> at)?;
        *word &= !(mask() << at);
        self.len -= 1;
        if *word & ((1 << PAGE) - 1) == 0 {
            self.close(place);
            self.used -= 1;
        }
        Some(count)
    }

    /// Where a page is, or the free place for it. There is always a free one.
    fn find(&self, page: u32) -> usize {
        let mut place = self.home(page);
        loop {
            let word = self.words[place];
            if word == 0 || (word >> NUMBER) as u32 == page {
                return place;
            }
            place = self.after(place);
        }
    }

    fn home(&self, page: u32) -> usize {
        let hash = u64::from(page).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        ((hash * self.words.len() as u64) >> 32) as usize
    }

    fn after(&self, place: usize) -> usize {
        if place + 1 == self.words.len() { 0 } else { place + 1 }
    }

    /// Frees a place, and moves up those behind it that would not be found any more.
    fn close(&mut self, mut hole: usize) {
        let count = self.words.len();
        let mut place = self.after(hole);
        while self.words[place] != 0 {
            let home = self.home((self.words[place] >> NUMBER) as u32);
            let way = |from: usize| (place + count - from) % count;
            if way(home) >= way(hole) {
                self.words[hole] = self.words[place];
                hole = place;
            }
            place = self.after(place);
        }
        self.words[hole] = 0;
    }

    /// Grows by a half before more than four fifths are in use.
    fn make_room(&mut self) {
        if self.used * 5 < self.words.len() * 4 {
            return;
        }
        let count = (self.words.len() + self.words.len() / 2).max(LEAST);
        for word in std::mem::replace(&mut self.words, vec![0; count]) {
            if word != 0 {
                let place = self.find((word >> NUMBER) as u32);
                self.words[place] = word;
            }
        }
    }
}

/// The count of a page's first entry, if that is there.
fn count(word: u64) -> Option<u32> {
    let count = (word >> PAGE & 1) | (word >> (2 * PAGE) & 1) << 1;
    (word & 1 == 1).then_some(count as u32)
}

/// What a page's first entry with that count looks like.
fn planes(count: u32) -> u64 {
    1 | u64::from(count & 1) << PAGE | u64::from(count >> 1 & 1) << (2 * PAGE)
}

/// The bits of a page's first entry.
fn mask() -> u64 {
    1 | 1 << PAGE | 1 << (2 * PAGE)
}

#[cfg(test)]
mod tests {
    use super::super::model_tests::{Chance, rounds, seed};
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_set_is_what_a_map_is() {
        let mut chance = Chance(seed());
        for _ in 0..rounds(50, 2_000) {
            let range = 1 + chance.below(3_000);
            let (mut pages, mut map) = (Pages::default(), BTreeMap::new());
            for _ in 0..4_000 {
                let entry = chance.below(range) as u32 * 3 % 1_000_003;
                if chance.below(3) > 0 {
                    let count = chance.below(4) as u32;
                    pages.set(entry, count);
                    map.insert(entry, count);
                } else {
                    assert_eq!(pages.remove(entry), map.remove(&entry));
                }
                let (other, added) = (chance.below(range) as u32, chance.below(4) as u32);
                let changed = pages.change(other, |count| (count + added) % 4);
                assert_eq!(changed, map.get(&other).copied());
                map.entry(other).and_modify(|count| *count = (*count + added) % 4);
                assert_eq!(pages.len(), map.len());
            }
            let mut all: Vec<_> = pages.iter().collect();
            all.sort_unstable();
            assert!(all.into_iter().eq(map.keys().copied()));
            for entry in map.keys() {
                pages.remove(*entry);
            }
            assert_eq!((pages.len(), pages.used), (0, 0));
        }
    }
}
