//! The blocks: a hash table with one writer and any number of readers, who take no lock.
//!
//! Buckets are chains of entries. The table grows by one bucket at a time (linear hashing), so
//! there is no pause and never an old table beside a new one. Each bucket belongs to one of
//! [`STRIPES`] stripes, and stays in it when it is split; the writer makes a stripe's version odd
//! while it changes one of its chains, and a reader that saw an odd version, or another one
//! afterwards, looks again.

use super::atomics::{AtomicU32, AtomicU64, BUCKETS, Ordering, STRIPES, fence, spin_loop};
use super::segments::Segments;
use super::sets::{EMPTY, SetRef, SetRows};
use crate::block::BlockKey;
use crate::guard::Guard;
use baton_proto::ids::{GroupId, SequenceHash};

/// A reader that has followed so many entries was led astray by a change.
const HOPS_MAX: u32 = 256;
/// Entries are numbered from 1 to this.
pub(super) const ENTRIES_MAX: usize = (1 << 30) - 1;

/// A block's name in 128 bits: the hash is one, and the group, nearly always 0, is mixed in. As
/// unlikely to coincide for two blocks as the hash is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Name(u128);

/// What a group adds to the names of its blocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct GroupMix(u128);

impl GroupMix {
    pub(super) fn new(group: GroupId) -> Self {
        Self(u128::from(group.0).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835))
    }

    pub(super) fn name(self, hash: &SequenceHash) -> Name {
        Name(u128::from_le_bytes(hash.0) ^ self.0)
    }
}

impl Name {
    pub(super) fn new(key: &BlockKey) -> Self {
        GroupMix::new(key.group).name(&key.hash)
    }

    /// Hashes are evenly spread already; those of tests are not.
    fn spread(self) -> u64 {
        let low = self.0 as u64 ^ 0x243F_6A88_85A3_08D3;
        let high = (self.0 >> 64) as u64 ^ 0x9E37_79B9_7F4A_7C15;
        let product = u128::from(low) * u128::from(high | 1);
        product as u64 ^ (product >> 64) as u64 ^ high
    }
}

/// 32 bytes: two entries share a cache line, none is in two.
#[derive(Debug, Default)]
#[repr(align(32))]
struct Entry {
    name: [AtomicU64; 2],
    /// The set of holders, and the next entry of the bucket (of the free ones, the next free one).
    set: AtomicU32,
    next: AtomicU32,
    /// The entry of the block before it; of a block that nobody holds, 0.
    parent: AtomicU32,
    /// Entries that name this one as their parent.
    children: AtomicU32,
}

/// What readers see.
#[derive(Debug)]
pub(super) struct Table {
    entries: Segments<Entry>,
    heads: Segments<AtomicU32>,
    /// Buckets in use.
    buckets: AtomicU32,
    versions: Box<[AtomicU64]>,
}

/// A name on its way through the table.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Probe {
    name: Name,
    spread: u64,
    /// The version of its stripe before anything was read.
    version: u64,
    /// The first entry of the bucket.
    first: u32,
}

/// A block that was looked for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found {
    /// Its holders, as they were at one moment.
    pub(super) set: SetRef,
    /// Its entry, or 0.
    pub(super) entry: u32,
}

impl Table {
    pub(super) fn new() -> Self {
        let heads = Segments::new(1);
        (0..STRIPES as u32).for_each(|bucket| heads.add(bucket));
        Self {
            entries: Segments::new(1),
            heads,
            buckets: AtomicU32::new(STRIPES as u32),
            versions: std::iter::repeat_with(AtomicU64::default).take(STRIPES).collect(),
        }
    }

    /// Begins to look for a name: reads the head of its bucket. Do so for several names before the
    /// first [`touch`](Self::touch), and touch all before the first [`find`](Self::find): the
    /// memory accesses of one phase do not depend on each other, so the processor overlaps them.
    pub(super) fn begin(&self, name: Name) -> Probe {
        let spread = name.spread();
        let version = self.versions[stripe(spread)].load(Ordering::Acquire);
        let first = self.head(spread).map_or(0, |head| head.load(Ordering::Relaxed));
        Probe { name, spread, version, first }
    }

    /// Reads the first entry of the bucket, so that it is in the cache; returns what it read.
    pub(super) fn touch(&self, probe: &Probe) -> u32 {
        self.touch_entry(probe.first)
    }

    /// Reads the first entries of the buckets that will be split next, as [`touch`](Self::touch).
    pub(super) fn touch_splits(&self, count: usize) {
        let buckets = self.buckets.load(Ordering::Relaxed);
        let first = buckets - (1 << buckets.ilog2());
        for bucket in (first..).take(count) {
            let head = self.heads.cell(bucket).map_or(0, |head| head.load(Ordering::Relaxed));
            std::hint::black_box(self.touch_entry(head));
        }
    }

    /// The first entry of the bucket, if it is that of the name; after [`touch`](Self::touch).
    pub(super) fn first(&self, probe: &Probe) -> Option<u32> {
        let entry = self.entries.cell(probe.first)?;
        (entry.name() == probe.name).then_some(probe.first)
    }

    /// Reads an entry, before [`find_at`](Self::find_at).
    pub(super) fn touch_entry(&self, entry: u32) -> u32 {
        self.entries.cell(entry).map_or(0, |entry| entry.set.load(Ordering::Relaxed))
    }

    /// A held block whose entry is probably this one: blocks that were published one after the
    /// other have entries one after the other. `None` where it is another one's, or nobody's.
    pub(super) fn find_at(&self, name: Name, entry: u32, rows: &SetRows) -> Option<Found> {
        let guess = self.entries.cell(entry)?;
        if guess.name() != name {
            return None;
        }
        let version = &self.versions[stripe(name.spread())];
        let before = version.load(Ordering::Acquire);
        let set = rows.refer(guess.set.load(Ordering::Acquire))?;
        // If the set is that of a block which has got the entry meanwhile, the name is that one's
        // too; the version says nothing of it where that block is in another stripe.
        let same = Guard::Name.passes(guess.name() == name);
        fence(Ordering::Acquire);
        let steady = Guard::Version.passes(version.load(Ordering::Relaxed) == before);
        // What nobody holds may be an entry that is not in use. An entry gets another name only
        // then, so that its name and its set are of one block in the midst of a change too.
        (same && steady && !set.is_empty()).then_some(Found { set, entry })
    }

    /// The block, as it is at one moment.
    pub(super) fn find(&self, probe: &Probe, rows: &SetRows) -> Found {
        let mut probe = *probe;
        loop {
            if Guard::Odd.passes(probe.version & 1 == 0)
                && let Some(found) = self.look(&probe, rows)
            {
                fence(Ordering::Acquire);
                let now = self.versions[stripe(probe.spread)].load(Ordering::Relaxed);
                if Guard::Version.passes(now == probe.version) {
                    return found;
                }
            }
            // A change takes nanoseconds, except where the writer loses its core in the midst of
            // one: then this one waits for the scheduler.
            spin_loop();
            probe = self.begin(probe.name);
        }
    }

    /// `None` if what was seen makes no sense, because it is being changed.
    fn look(&self, probe: &Probe, rows: &SetRows) -> Option<Found> {
        let mut at = probe.first;
        for _ in 0..HOPS_MAX {
            if at == 0 {
                return Some(Found::default());
            }
            let entry = self.entries.cell(at)?;
            if entry.name() == probe.name {
                let set = rows.refer(entry.set.load(Ordering::Relaxed))?;
                return Some(Found { set, entry: at });
            }
            at = entry.next.load(Ordering::Relaxed);
        }
        // Chains are short: a long one is a loop through entries that were moved.
        None
    }

    /// Makes so many rows before they are needed.
    #[cfg(test)]
    #[allow(dead_code, reason = "for the model checker's copy of this file")]
    pub(super) fn add_rows(&self, rows: u32) {
        (0..=rows).for_each(|row| {
            self.entries.add(row);
            self.heads.add(row);
        });
    }

    fn head(&self, spread: u64) -> Option<&AtomicU32> {
        self.heads.cell(bucket(spread, self.buckets.load(Ordering::Relaxed)))
    }
}

impl Entry {
    fn name(&self) -> Name {
        let [low, high] = &self.name;
        let low = u128::from(low.load(Ordering::Relaxed));
        Name(low | u128::from(high.load(Ordering::Relaxed)) << 64)
    }
}

fn stripe(spread: u64) -> usize {
    spread as usize % STRIPES
}

/// The bucket among `buckets`: those that have been split in this round count one bit more.
fn bucket(spread: u64, buckets: u32) -> u32 {
    let bits = buckets.ilog2();
    let low = |bits: u32| (spread & ((1 << bits) - 1)) as u32;
    let wide = low(bits + 1);
    if wide < buckets { wide } else { low(bits) }
}

/// The bucket of a name among so many.
#[cfg(test)]
#[allow(dead_code, reason = "for the model checker's copy of this file")]
pub(super) fn bucket_of(name: Name, buckets: u32) -> u32 {
    bucket(name.spread(), buckets)
}

/// The writer's side: which entries are in use.
#[derive(Debug)]
pub(super) struct TableWriter {
    entries_max: usize,
    /// Entries ever used.
    top: u32,
    /// The first of the free ones.
    free: u32,
    used: usize,
}

impl TableWriter {
    pub(super) fn new(entries_max: usize) -> Self {
        Self { entries_max: entries_max.min(ENTRIES_MAX), top: 0, free: 0, used: 0 }
    }

    /// Whether so many more entries fit.
    pub(super) fn has_room(&self, more: usize) -> bool {
        self.used + more <= self.entries_max
    }

    /// Entries in use.
    pub(super) fn used(&self) -> usize {
        self.used
    }

    /// The entry of a name.
    pub(super) fn find(table: &Table, name: Name) -> Option<u32> {
        let head = table.head(name.spread()).expect("buckets in use exist");
        let mut at = head.load(Ordering::Relaxed);
        while at != 0 {
            let entry = own(table, at);
            if entry.name() == name {
                return Some(at);
            }
            at = entry.next.load(Ordering::Relaxed);
        }
        None
    }

    /// The entry of a name, if it is this one.
    pub(super) fn find_at(table: &Table, name: Name, guess: u32) -> Option<u32> {
        let entry = table.entries.cell(guess)?;
        // One that is not in use keeps its last name.
        (entry.name() == name && is_needed(entry)).then_some(guess)
    }

    /// The entry that the next new name gets, probably.
    pub(super) fn upcoming(&self) -> u32 {
        if self.free == 0 { self.top + 1 } else { self.free }
    }

    /// A new entry for a name that has none: without holders, parent or children. Needs room.
    pub(super) fn add(&mut self, table: &Table, name: Name) -> u32 {
        assert!(self.has_room(1), "room is checked before");
        let id = self.take(table);
        let entry = own(table, id);
        let head = table.head(name.spread()).expect("buckets in use exist");
        change(table, name.spread(), || {
            entry.name[0].store(name.0 as u64, Ordering::Relaxed);
            entry.name[1].store((name.0 >> 64) as u64, Ordering::Relaxed);
            entry.set.store(EMPTY, Ordering::Relaxed);
            entry.next.store(head.load(Ordering::Relaxed), Ordering::Relaxed);
            head.store(id, Ordering::Relaxed);
        });
        entry.parent.store(0, Ordering::Relaxed);
        entry.children.store(0, Ordering::Relaxed);
        self.used += 1;
        let mut buckets = table.buckets.load(Ordering::Relaxed);
        while self.used * BUCKETS > buckets as usize {
            split(table, buckets);
            buckets += 1;
        }
        id
    }

    pub(super) fn set(table: &Table, id: u32) -> u32 {
        own(table, id).set.load(Ordering::Relaxed)
    }

    pub(super) fn replace_set(table: &Table, id: u32, set: u32) {
        let entry = own(table, id);
        change(table, entry.name().spread(), || entry.set.store(set, Ordering::Relaxed));
    }

    /// The entry of the block before it, of a block that somebody holds.
    pub(super) fn parent(table: &Table, id: u32) -> Option<u32> {
        Some(own(table, id).parent.load(Ordering::Relaxed)).filter(|parent| *parent != 0)
    }

    /// A block that gets its first holder is linked with the one before it.
    pub(super) fn link(table: &Table, id: u32, parent: u32) {
        own(table, id).parent.store(parent, Ordering::Relaxed);
        let children = &own(table, parent).children;
        children.store(children.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Gives up what a block that has lost its last holder occupies: its link, and then every
    /// entry that neither a holder nor a child needs.
    pub(super) fn unlink(&mut self, table: &Table, id: u32) {
        let parent = own(table, id).parent.swap(0, Ordering::Relaxed);
        self.free_unneeded(table, id);
        if parent != 0 {
            let children = &own(table, parent).children;
            children.store(children.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
            self.free_unneeded(table, parent);
        }
    }

    /// Gives up an entry that neither a holder nor a child needs.
    pub(super) fn free_unneeded(&mut self, table: &Table, id: u32) {
        let entry = own(table, id);
        if is_needed(entry) {
            return;
        }
        let spread = entry.name().spread();
        let mut link = table.head(spread).expect("buckets in use exist");
        while link.load(Ordering::Relaxed) != id {
            link = &own(table, link.load(Ordering::Relaxed)).next;
        }
        change(table, spread, || {
            link.store(entry.next.load(Ordering::Relaxed), Ordering::Relaxed);
            entry.next.store(self.free, Ordering::Relaxed);
        });
        self.free = id;
        self.used -= 1;
    }

    fn take(&mut self, table: &Table) -> u32 {
        if self.free != 0 {
            let id = self.free;
            self.free = own(table, id).next.load(Ordering::Relaxed);
            return id;
        }
        self.top += 1;
        table.entries.add(self.top);
        self.top
    }
}

/// Whether an entry has a holder or a child.
fn is_needed(entry: &Entry) -> bool {
    entry.set.load(Ordering::Relaxed) != EMPTY || entry.children.load(Ordering::Relaxed) > 0
}

fn own(table: &Table, id: u32) -> &Entry {
    table.entries.cell(id).expect("an entry that is referred to exists")
}

/// Makes a change in the chains of one stripe.
fn change(table: &Table, spread: u64, body: impl FnOnce()) {
    let version = &table.versions[stripe(spread)];
    let before = version.load(Ordering::Relaxed);
    version.store(before + 1, Ordering::Relaxed);
    fence(Ordering::Release);
    body();
    version.store(before + 2, Ordering::Release);
}

/// Adds bucket number `buckets` and moves to it what belongs there, out of the one bucket that
/// has it.
fn split(table: &Table, buckets: u32) {
    table.heads.add(buckets);
    let old = table.heads.cell(buckets - (1 << buckets.ilog2())).expect("an earlier bucket exists");
    let new = table.heads.cell(buckets).expect("it was just added");
    change(table, u64::from(buckets), || {
        table.buckets.store(buckets + 1, Ordering::Relaxed);
        new.store(0, Ordering::Relaxed);
        let mut link = old;
        loop {
            let id = link.load(Ordering::Relaxed);
            if id == 0 {
                return;
            }
            let entry = own(table, id);
            if bucket(entry.name().spread(), buckets + 1) == buckets {
                link.store(entry.next.load(Ordering::Relaxed), Ordering::Relaxed);
                entry.next.store(new.load(Ordering::Relaxed), Ordering::Relaxed);
                new.store(id, Ordering::Relaxed);
            } else {
                link = &entry.next;
            }
        }
    });
}
