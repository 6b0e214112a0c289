//! A bucket of the table: one cache line that names its entries by number and by some bits of
//! their blocks' names, so that mostly one look at it tells whether a block is there, and where.
//!
//! A few entries have places; those that find none are linked with each other, behind the first.

use super::atomics::{AtomicU32, AtomicU64, FIRST_BUCKETS, Ordering, PLACES, fence};

/// Bits of an entry's number.
const NUMBER: u32 = 30;
/// In the word of the linked ones: there is more than one.
const MORE: u64 = 1 << NUMBER;
/// Above them the tag.
const TAG: u32 = NUMBER + 1;

/// One line. Its version is odd while it is changed.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Bucket {
    version: AtomicU64,
    places: [AtomicU64; PLACES],
    /// The first of the linked ones.
    linked: AtomicU64,
}

/// An entry's number with a tag: the bits of its name's spread that are not the same for all
/// entries of a bucket. 0 is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Tagged(u64);

/// Which entries a name may have, as its bucket tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Aim {
    /// None.
    #[default]
    Absent,
    /// This one, and hardly any other.
    Entry(u32),
    /// One of the linked ones, from this one on, if any.
    Linked(u32),
}

impl Tagged {
    pub(super) fn new(entry: u32, spread: u64) -> Self {
        Self(u64::from(entry) | spread >> FIRST_BUCKETS.ilog2() << TAG)
    }

    pub(super) fn entry(self) -> u32 {
        (self.0 & (MORE - 1)) as u32
    }

    /// The spread of its name, as far as it decides on the bucket, which is this one.
    pub(super) fn spread(self, bucket: u32) -> u64 {
        (self.0 >> TAG << FIRST_BUCKETS.ilog2()) | (u64::from(bucket) % FIRST_BUCKETS as u64)
    }

    /// Whether it may be the entry of a name with the spread of `other`.
    fn is_like(self, other: Self) -> bool {
        self.entry() != 0 && self.0 >> TAG == other.0 >> TAG
    }

    fn has_more(self) -> bool {
        self.0 & MORE != 0
    }

    fn with_more(self, more: bool) -> Self {
        Self(if more { self.0 | MORE } else { self.0 & !MORE })
    }
}

impl Bucket {
    /// Says whether the bucket was changed, before and after something is read.
    pub(super) fn version(&self, order: Ordering) -> u64 {
        self.version.load(order)
    }

    /// Where a name with this spread is, if it is there.
    pub(super) fn aim(&self, spread: u64) -> Aim {
        let wanted = Tagged::new(0, spread);
        for place in &self.places {
            let place = load(place);
            if place.is_like(wanted) {
                return Aim::Entry(place.entry());
            }
        }
        self.aim_at_linked(spread)
    }

    /// The same among the linked ones: where the first place that looked like it was not it.
    pub(super) fn aim_at_linked(&self, spread: u64) -> Aim {
        let linked = load(&self.linked);
        if linked.has_more() || linked.is_like(Tagged::new(0, spread)) {
            Aim::Linked(linked.entry())
        } else {
            Aim::Absent
        }
    }

    /// The places with a name like this one, in order.
    pub(super) fn places(&self, spread: u64) -> impl Iterator<Item = u32> + '_ {
        let wanted = Tagged::new(0, spread);
        self.places.iter().map(load).filter(move |at| at.is_like(wanted)).map(Tagged::entry)
    }
}

/// What the writer does, by way of each entry's link to the next one and tag.
pub(super) trait Entries {
    /// The link of an entry.
    fn link(&self, entry: u32) -> &AtomicU32;
    /// Number and tag of an entry.
    fn tagged(&self, entry: u32) -> Tagged;
}

impl Bucket {
    /// Changes the bucket. Readers look again, those that have begun and those that begin meanwhile.
    pub(super) fn change(&self, body: impl FnOnce()) {
        let before = self.version.load(Ordering::Relaxed);
        self.version.store(before + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        body();
        self.version.store(before + 2, Ordering::Release);
    }

    /// Puts an entry in; only within [`change`](Self::change), as all that follows.
    pub(super) fn put(&self, entries: &impl Entries, entry: Tagged) {
        if let Some(free) = self.places.iter().find(|place| load(place).entry() == 0) {
            store(free, entry);
            return;
        }
        let next = load(&self.linked).entry();
        entries.link(entry.entry()).store(next, Ordering::Relaxed);
        store(&self.linked, entry.with_more(next != 0));
    }

    /// Takes out an entry that is in. The only linked one gets its place; where there are more, to
    /// tell what the next one's tag is would take a look at it.
    pub(super) fn take(&self, entries: &impl Entries, entry: u32) {
        let first = load(&self.linked);
        if let Some(place) = self.places.iter().find(|place| load(place).entry() == entry) {
            let moves = if first.has_more() { Tagged::default() } else { first };
            store(place, moves);
            if moves != Tagged::default() {
                store(&self.linked, Tagged::default());
            }
            return;
        }
        let after = next(entries, entry);
        if first.entry() == entry {
            let second = if after == 0 { Tagged::default() } else { entries.tagged(after) };
            let more = after != 0 && next(entries, after) != 0;
            return store(&self.linked, second.with_more(more));
        }
        let mut before = first.entry();
        while next(entries, before) != entry {
            before = next(entries, before);
        }
        entries.link(before).store(after, Ordering::Relaxed);
        store(&self.linked, first.with_more(next(entries, first.entry()) != 0));
    }

    /// Moves to `other` what `goes`.
    pub(super) fn part(&self, entries: &impl Entries, other: &Self, goes: impl Fn(Tagged) -> bool) {
        for place in &self.places {
            let entry = load(place);
            if entry.entry() != 0 && goes(entry) {
                store(place, Tagged::default());
                other.put(entries, entry);
            }
        }
        let first = load(&self.linked);
        store(&self.linked, Tagged::default());
        let mut entry = first.with_more(false);
        while entry.entry() != 0 {
            let following = next(entries, entry.entry());
            if goes(entry) { other } else { self }.put(entries, entry);
            entry = if following == 0 { Tagged::default() } else { entries.tagged(following) };
        }
    }
}

fn next(entries: &impl Entries, entry: u32) -> u32 {
    entries.link(entry).load(Ordering::Relaxed)
}

fn load(word: &AtomicU64) -> Tagged {
    Tagged(word.load(Ordering::Relaxed))
}

fn store(word: &AtomicU64, tagged: Tagged) {
    word.store(tagged.0, Ordering::Relaxed);
}
