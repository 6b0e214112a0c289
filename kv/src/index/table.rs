//! The blocks: a hash table with one writer and any number of readers, who take no lock.
//!
//! The table grows by one bucket at a time (linear hashing), so there is no pause and never an old
//! table beside a new one. The writer makes a bucket's version odd while it changes which entries
//! are in it, and a reader that saw an odd version, or another one afterwards, or a bucket that has
//! been split meanwhile, looks again.
//!
//! Who holds a block is one word of its entry, changed at once.

use super::atomics::{AtomicU32, AtomicU64, FIRST_BUCKETS, FULL, Ordering, fence, spin_loop};
use super::bucket::{Aim, Bucket, Entries, Tagged};
use super::prefetch::prefetch;
use super::segments::Segments;
use super::sets::{Changed, EMPTY, SetRef, SetRows};
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

/// A name that the writer looks for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sought {
    pub(super) name: Name,
    spread: u64,
}

impl Sought {
    pub(super) fn new(key: &BlockKey) -> Self {
        Self::named(GroupMix::new(key.group).name(&key.hash))
    }

    pub(super) fn named(name: Name) -> Self {
        Self { name, spread: name.spread() }
    }
}

impl Name {
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
    /// The set of holders.
    set: AtomicU32,
    /// The next of the linked ones of its bucket; of the free entries, the next free one.
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
    buckets: Segments<Bucket>,
    /// Buckets in use.
    count: AtomicU32,
}

/// A name on its way through the table.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Probe {
    name: Name,
    spread: u64,
    /// Its bucket, and the version of that before anything was read.
    bucket: u32,
    version: u64,
}

/// A name of which its bucket has said where it is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Aimed {
    probe: Probe,
    aim: Aim,
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
        let buckets = Segments::new(1);
        (0..FIRST_BUCKETS as u32).for_each(|bucket| buckets.add(bucket));
        Self { entries: Segments::new(1), buckets, count: AtomicU32::new(FIRST_BUCKETS as u32) }
    }

    /// Says that a name will be looked for.
    pub(super) fn expect(&self, sought: &Sought) {
        prefetch(self.own_bucket(sought.spread));
    }

    /// The same once more, when the bucket has come. Returns the entry that the name has, probably,
    /// or 0.
    pub(super) fn expect_entry(&self, sought: &Sought) -> u32 {
        let aim = self.own_bucket(sought.spread).aim(sought.spread);
        let (Aim::Entry(entry) | Aim::Linked(entry)) = aim else { return 0 };
        prefetch(own(self, entry));
        entry
    }

    /// Begins to look for a name: reads the first word of its bucket. Do so for several names before
    /// the first [`aim`](Self::aim), and aim at all before the first [`find`](Self::find): the memory
    /// accesses of one phase do not depend on each other, so the processor overlaps them.
    pub(super) fn begin(&self, name: Name) -> Probe {
        let spread = name.spread();
        let bucket = bucket(spread, self.count.load(Ordering::Acquire));
        // A bucket that this thread does not see yet has an odd version, as if it were changed.
        let version = self.buckets.cell(bucket).map_or(1, |cell| cell.version(Ordering::Acquire));
        Probe { name, spread, bucket, version }
    }

    /// Reads where the bucket says that the name is, and asks for the entry.
    #[inline]
    pub(super) fn aim(&self, probe: Probe) -> Aimed {
        let bucket = self.buckets.cell(probe.bucket);
        let aim = bucket.map_or(Aim::Absent, |bucket| bucket.aim(probe.spread));
        if let Aim::Entry(entry) | Aim::Linked(entry) = aim {
            self.expect_at(entry);
        }
        Aimed { probe, aim }
    }

    /// Says that [`find_at`](Self::find_at) will look at an entry, if it exists.
    pub(super) fn expect_at(&self, entry: u32) {
        if let Some(entry) = self.entries.cell(entry) {
            prefetch(entry);
        }
    }

    /// A held block whose entry is probably this one: blocks that were published one after the
    /// other have entries one after the other. `None` where it is another one's, or nobody's.
    #[inline]
    pub(super) fn find_at(&self, name: Name, entry: u32, rows: &SetRows) -> Option<Found> {
        let guess = self.entries.cell(entry)?;
        // An entry gets a name after it has lost its holders: whoever sees the name sees that.
        if guess.name() != name {
            return None;
        }
        let set = guess.set(rows)?;
        // If the set is that of a block which has got the entry meanwhile, the name is that one's.
        let same = Guard::Name.passes(guess.name() == name);
        // What nobody holds may be an entry that is not in use.
        (same && !set.is_empty()).then_some(Found { set, entry })
    }

    /// The block, as it is at one moment.
    pub(super) fn find(&self, aimed: &Aimed, rows: &SetRows) -> Found {
        let mut aimed = *aimed;
        loop {
            if Guard::Odd.passes(aimed.probe.version & 1 == 0)
                && let Ok(found) = self.look(&aimed, rows)
                && self.is_steady(&aimed.probe)
            {
                return found;
            }
            // A change takes nanoseconds, except where the writer loses its core in the midst of
            // one: then this one waits for the scheduler.
            spin_loop();
            aimed = self.aim(self.begin(aimed.probe.name));
        }
    }

    /// Whether the probe's bucket is still its own, and has not been changed.
    fn is_steady(&self, probe: &Probe) -> bool {
        fence(Ordering::Acquire);
        let Some(cell) = self.buckets.cell(probe.bucket) else { return false };
        let same = cell.version(Ordering::Acquire) == probe.version;
        let now = bucket(probe.spread, self.count.load(Ordering::Relaxed));
        Guard::Version.passes(same) && Guard::Bucket.passes(now == probe.bucket)
    }

    /// What was seen may make no sense, because it is being changed.
    fn look(&self, Aimed { probe, aim }: &Aimed, rows: &SetRows) -> Result<Found, Changed> {
        match *aim {
            Aim::Absent => Ok(Found::default()),
            Aim::Linked(first) => self.follow(first, probe.name, rows),
            Aim::Entry(at) => match self.read(at, probe.name, rows)? {
                Some(found) => Ok(found),
                None => self.look_around(probe, rows),
            },
        }
    }

    /// Where the bucket has an entry of another name that looks like this one.
    fn look_around(&self, probe: &Probe, rows: &SetRows) -> Result<Found, Changed> {
        let cell = self.buckets.cell(probe.bucket).ok_or(Changed)?;
        for at in cell.places(probe.spread) {
            if let Some(found) = self.read(at, probe.name, rows)? {
                return Ok(found);
            }
        }
        match cell.aim_at_linked(probe.spread) {
            Aim::Linked(first) => self.follow(first, probe.name, rows),
            _ => Ok(Found::default()),
        }
    }

    /// Looks among linked entries, from this one on.
    fn follow(&self, first: u32, name: Name, rows: &SetRows) -> Result<Found, Changed> {
        let mut at = first;
        for _ in 0..HOPS_MAX {
            if at == 0 {
                return Ok(Found::default());
            }
            if let Some(found) = self.read(at, name, rows)? {
                return Ok(found);
            }
            at = self.entries.cell(at).ok_or(Changed)?.next.load(Ordering::Relaxed);
        }
        // Few are linked: a long way is a loop through entries that were moved.
        Err(Changed)
    }

    /// An entry, if it is that of a name.
    fn read(&self, at: u32, name: Name, rows: &SetRows) -> Result<Option<Found>, Changed> {
        let entry = self.entries.cell(at).ok_or(Changed)?;
        if entry.name() != name {
            return Ok(None);
        }
        Ok(Some(Found { set: entry.set(rows).ok_or(Changed)?, entry: at }))
    }

    /// Makes so many rows before they are needed.
    #[cfg(test)]
    #[allow(dead_code, reason = "for the model checker's copy of this file")]
    pub(super) fn add_rows(&self, rows: u32) {
        (0..=rows).for_each(|row| {
            self.entries.add(row);
            self.buckets.add(row);
        });
    }

    /// The bucket of a name that the writer looks for.
    fn own_bucket(&self, spread: u64) -> &Bucket {
        let bucket = bucket(spread, self.count.load(Ordering::Relaxed));
        self.buckets.cell(bucket).expect("buckets in use exist")
    }
}

impl Entry {
    fn name(&self) -> Name {
        let [low, high] = &self.name;
        let low = u128::from(low.load(Ordering::Acquire));
        Name(low | u128::from(high.load(Ordering::Acquire)) << 64)
    }

    /// Its holders; `None` if they are just being changed.
    fn set(&self, rows: &SetRows) -> Option<SetRef> {
        let raw = self.set.load(Ordering::Acquire);
        let set = rows.refer(raw)?;
        // A set that nothing refers to any more may have become another one before its version was
        // read.
        let same = self.set.load(Ordering::Relaxed) == raw;
        Guard::Set.passes(same).then_some(set)
    }
}

impl Entries for Table {
    fn link(&self, entry: u32) -> &AtomicU32 {
        &own(self, entry).next
    }

    fn tagged(&self, entry: u32) -> Tagged {
        Tagged::new(entry, own(self, entry).name().spread())
    }
}

/// The bucket among `count`: those that have been split in this round count one bit more.
fn bucket(spread: u64, count: u32) -> u32 {
    let bits = count.ilog2();
    let low = |bits: u32| (spread & ((1 << bits) - 1)) as u32;
    let wide = low(bits + 1);
    if wide < count { wide } else { low(bits) }
}

/// The bucket of a name among so many.
#[cfg(test)]
#[allow(dead_code, reason = "for the model checker's copy of this file")]
pub(super) fn bucket_of(name: Name, count: u32) -> u32 {
    bucket(name.spread(), count)
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
    pub(super) fn find<'a>(table: &'a Table, sought: &Sought) -> Option<Block<'a>> {
        let bucket = table.own_bucket(sought.spread);
        if bucket.aim(sought.spread) == Aim::Absent {
            return None;
        }
        for at in bucket.places(sought.spread) {
            let block = Self::at(table, at);
            if block.is(sought.name) {
                return Some(block);
            }
        }
        let Aim::Linked(mut at) = bucket.aim_at_linked(sought.spread) else { return None };
        while at != 0 {
            let block = Self::at(table, at);
            if block.is(sought.name) {
                return Some(block);
            }
            at = block.entry.next.load(Ordering::Relaxed);
        }
        None
    }

    /// The entry of a name, if it is this one.
    pub(super) fn find_at(table: &Table, name: Name, guess: u32) -> Option<Block<'_>> {
        let block = Block { id: guess, entry: table.entries.cell(guess)? };
        (guess != 0 && block.is_now(name)).then_some(block)
    }

    /// An entry that exists.
    pub(super) fn at(table: &Table, id: u32) -> Block<'_> {
        Block { id, entry: own(table, id) }
    }

    /// The entry that the next new name gets, probably.
    pub(super) fn upcoming(&self) -> u32 {
        if self.free == 0 { self.top + 1 } else { self.free }
    }

    /// A new entry for a name that has none: without holders, parent or children. Needs room.
    pub(super) fn add<'a>(&mut self, table: &'a Table, sought: &Sought) -> Block<'a> {
        assert!(self.has_room(1), "room is checked before");
        let block = self.take(table);
        let Block { id, entry } = block;
        let Name(name) = sought.name;
        let bucket = table.own_bucket(sought.spread);
        bucket.change(|| {
            entry.set.store(EMPTY, Ordering::Relaxed);
            entry.name[0].store(name as u64, Ordering::Release);
            entry.name[1].store((name >> 64) as u64, Ordering::Release);
            bucket.put(table, Tagged::new(id, sought.spread));
        });
        entry.parent.store(0, Ordering::Relaxed);
        entry.children.store(0, Ordering::Relaxed);
        self.used += 1;
        let mut count = table.count.load(Ordering::Relaxed);
        while self.used * 2 > count as usize * FULL {
            split(table, count);
            count += 1;
        }
        block
    }

    /// Gives up what a block that has lost its last holder occupies: its link, and then every
    /// entry that neither a holder nor a child needs.
    pub(super) fn unlink(&mut self, table: &Table, block: Block<'_>) {
        let parent = block.entry.parent.swap(0, Ordering::Relaxed);
        self.free_unneeded(table, block);
        if parent != 0 {
            let parent = Self::at(table, parent);
            let children = &parent.entry.children;
            children.store(children.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
            self.free_unneeded(table, parent);
        }
    }

    /// Gives up an entry that neither a holder nor a child needs.
    fn free_unneeded(&mut self, table: &Table, block: Block<'_>) {
        if block.is_needed() {
            return;
        }
        let bucket = table.own_bucket(block.entry.name().spread());
        bucket.change(|| {
            bucket.take(table, block.id);
            block.entry.next.store(self.free, Ordering::Relaxed);
        });
        self.free = block.id;
        self.used -= 1;
    }

    fn take<'a>(&mut self, table: &'a Table) -> Block<'a> {
        if self.free != 0 {
            let block = Self::at(table, self.free);
            self.free = block.entry.next.load(Ordering::Relaxed);
            return block;
        }
        self.top += 1;
        table.entries.add(self.top);
        Self::at(table, self.top)
    }
}

/// An entry in the writer's hands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block<'a> {
    pub(super) id: u32,
    entry: &'a Entry,
}

impl Block<'_> {
    /// Whether it is that name's, or was: one that is not in use keeps its last name.
    fn is(self, name: Name) -> bool {
        self.entry.name() == name
    }

    /// Whether it is that name's.
    pub(super) fn is_now(self, name: Name) -> bool {
        self.is(name) && self.is_needed()
    }

    /// The set of its holders.
    pub(super) fn set(self) -> u32 {
        self.entry.set.load(Ordering::Relaxed)
    }

    pub(super) fn replace_set(self, set: u32) {
        self.entry.set.store(set, Ordering::Release);
    }

    /// The entry of the block before it, of a block that somebody holds.
    pub(super) fn parent(self) -> Option<u32> {
        Some(self.entry.parent.load(Ordering::Relaxed)).filter(|parent| *parent != 0)
    }

    /// A block that gets its first holder is linked with the one before it.
    pub(super) fn link(self, parent: Self) {
        self.entry.parent.store(parent.id, Ordering::Relaxed);
        let children = &parent.entry.children;
        children.store(children.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Whether it has a holder or a child.
    fn is_needed(self) -> bool {
        self.set() != EMPTY || self.entry.children.load(Ordering::Relaxed) > 0
    }
}

fn own(table: &Table, id: u32) -> &Entry {
    table.entries.cell(id).expect("an entry that is referred to exists")
}

/// Adds bucket number `count` and moves to it what belongs there, out of the one bucket that has it.
fn split(table: &Table, count: u32) {
    table.buckets.add(count);
    let from = count - (1 << count.ilog2());
    let old = table.buckets.cell(from).expect("an earlier bucket exists");
    let new = table.buckets.cell(count).expect("it was just added");
    let goes = |entry: Tagged| bucket(entry.spread(from), count + 1) == count;
    let part = || {
        table.count.store(count + 1, Ordering::Release);
        old.part(table, new, goes);
    };
    old.change(|| new.change(part));
}
