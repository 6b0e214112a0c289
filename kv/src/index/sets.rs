//! Sets of holders, each distinct one stored once.
//!
//! Blocks of one conversation have the same holders, so a block refers to its set by a number, and
//! two blocks with the same number have the same holders without a look at them. Most blocks have
//! one holder: such a set *is* its number. Larger ones are rows of bits: a plane of holders and two
//! planes that spell their tiers.

use super::atomics::{AtomicU64, Ordering, fence};
use super::segments::Segments;
use crate::block::{KeyHasher, Tier};
use crate::guard::Guard;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// The set without members.
pub(super) const EMPTY: u32 = 0;
const STORED: u32 = 1 << 31;
/// In a row's first cell, above its version: all members have it in the first tier.
const PLAIN: u64 = 1 << 32;
/// The plane of holders and two planes for the tier.
const PLANES: usize = 3;

/// The number of a set, together with the version of its row: equal references mean equal sets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct SetRef {
    pub(super) raw: u32,
    version: u32,
}

impl SetRef {
    pub(super) fn is_empty(self) -> bool {
        self.raw == EMPTY
    }
}

/// What readers see: the rows.
#[derive(Debug)]
pub(super) struct SetRows {
    /// 64-bit words per plane.
    words: usize,
    rows: Segments<AtomicU64>,
}

/// Members whose slots share a word, and two planes that spell their tiers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) word: u32,
    pub(super) members: u64,
    pub(super) tiers: [u64; 2],
}

impl Part {
    /// Those of a set's planes whose bits are among `members`; `None` if there are none.
    pub(super) fn of(planes: &[u64], word: usize, members: u64) -> Option<Self> {
        let words = planes.len() / PLANES;
        let plane = |plane: usize| planes[plane * words + word] & members;
        (plane(0) != 0).then(|| {
            let tiers = [plane(1), plane(2)];
            Self { word: word as u32, members: plane(0), tiers }
        })
    }

    /// The slots, in order.
    pub(super) fn slots(self) -> impl Iterator<Item = (u32, Tier)> {
        let mut rest = self.members;
        // Mostly all of them have it in the first tier.
        let first = self.tiers == [0, 0];
        std::iter::from_fn(move || {
            if rest == 0 {
                return None;
            }
            let bit = rest.trailing_zeros();
            rest &= rest - 1;
            let plane = |plane: u64| (plane >> bit & 1) as u32;
            let [low, high] = self.tiers;
            let tier = if first { 0 } else { plane(low) | plane(high) << 1 };
            Some((self.word * 64 + bit, Tier::from_bits(tier)))
        })
    }
}

/// What was looked at has been used for something else meanwhile; look again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Changed;

impl SetRows {
    pub(super) fn new(workers_max: usize) -> Self {
        let words = workers_max.div_ceil(64).max(1);
        // A version, the planes, and the entry that got the set last.
        Self { words, rows: Segments::new(1 + PLANES * words + 1) }
    }

    /// The entry that got a set of several members last, or 0: probably the last one of its chain
    /// that has it.
    pub(super) fn latest(&self, set: SetRef) -> u32 {
        let row = if set.raw & STORED == 0 { None } else { self.rows.row(set.raw & !STORED) };
        row.and_then(|row| row.last()).map_or(0, |latest| latest.load(Ordering::Relaxed) as u32)
    }

    /// Takes note of the latest entry of a set. Whoever reads it takes it for a guess.
    pub(super) fn note_latest(&self, raw: u32, entry: u32) {
        let row = if raw & STORED == 0 { None } else { self.rows.row(raw & !STORED) };
        if let Some(latest) = row.and_then(|row| row.last()) {
            latest.store(u64::from(entry), Ordering::Relaxed);
        }
    }

    /// Words that hold one bit per worker.
    pub(super) fn words(&self) -> usize {
        self.words
    }

    /// Refers to the set with that number; for as long as a block is seen to have it.
    pub(super) fn refer(&self, raw: u32) -> Option<SetRef> {
        if raw & STORED == 0 {
            return Some(SetRef { raw, version: 0 });
        }
        let version = self.rows.cell(raw & !STORED)?.load(Ordering::Acquire);
        Some(SetRef { raw, version: version as u32 })
    }

    /// Writes the set's planes to `planes`.
    pub(super) fn read(&self, set: SetRef, planes: &mut [u64]) -> Result<(), Changed> {
        planes.fill(0);
        if set.raw & STORED == 0 {
            if let Some((slot, tier)) = single(set.raw) {
                put(planes, self.words, slot, Some(tier));
            }
            return Ok(());
        }
        let row = self.rows.row(set.raw & !STORED).ok_or(Changed)?;
        for (word, from) in planes.iter_mut().zip(&row[1..]) {
            *word = from.load(Ordering::Relaxed);
        }
        unchanged(row, set)
    }

    /// Writes to `members` who is in the set.
    pub(super) fn members(&self, set: SetRef, members: &mut [u64]) -> Result<(), Changed> {
        members.fill(0);
        if set.raw & STORED == 0 {
            if let Some((slot, _)) = single(set.raw) {
                members[slot as usize / 64] = 1 << (slot % 64);
            }
            return Ok(());
        }
        let row = self.rows.row(set.raw & !STORED).ok_or(Changed)?;
        for (word, from) in members.iter_mut().zip(&row[1..]) {
            *word = from.load(Ordering::Relaxed);
        }
        unchanged(row, set)
    }

    /// Gives `body` the members that are not among `seen`, and adds them there. Of what it has
    /// given nothing counts if the set has changed.
    pub(super) fn take(
        &self,
        set: SetRef,
        seen: &mut [u64],
        mut body: impl FnMut(Part),
    ) -> Result<(), Changed> {
        if set.raw & STORED == 0 {
            if let Some((slot, tier)) = single(set.raw) {
                let (seen, bit) = (&mut seen[slot as usize / 64], 1 << (slot % 64));
                if *seen & bit == 0 {
                    *seen |= bit;
                    let plane = |plane: u32| if tier.bits() & plane == 0 { 0 } else { bit };
                    body(Part { word: slot / 64, members: bit, tiers: [plane(1), plane(2)] });
                }
            }
            return Ok(());
        }
        let row = self.rows.row(set.raw & !STORED).ok_or(Changed)?;
        let plain = row[0].load(Ordering::Relaxed) & PLAIN != 0;
        let (members, tiers) = row[1..].split_at(self.words);
        for (word, (members, seen)) in members.iter().zip(seen).enumerate() {
            let members = members.load(Ordering::Relaxed) & !*seen;
            if members == 0 {
                continue;
            }
            *seen |= members;
            let tier = |plane: usize| {
                if plain {
                    0
                } else {
                    tiers[plane * self.words + word].load(Ordering::Relaxed) & members
                }
            };
            body(Part { word: word as u32, members, tiers: [tier(0), tier(1)] });
        }
        unchanged(row, set)
    }

    /// An array for [`read`](Self::read).
    pub(super) fn planes(&self) -> Vec<u64> {
        vec![0; PLANES * self.words]
    }
}

/// Whether the row is still that set's, after it was read.
fn unchanged(row: &[AtomicU64], set: SetRef) -> Result<(), Changed> {
    fence(Ordering::Acquire);
    let same = row[0].load(Ordering::Relaxed) as u32 == set.version;
    if Guard::Row.passes(same) { Ok(()) } else { Err(Changed) }
}

/// The one member of a set that has one.
fn single(raw: u32) -> Option<(u32, Tier)> {
    let code = raw.checked_sub(1)?;
    Some((code / 4, Tier::from_bits(code)))
}

/// The set that has one member.
fn code(slot: u32, tier: Tier) -> u32 {
    1 + (slot * 4 + tier.bits())
}

/// Says in which tier a worker is a member, if any.
fn put(planes: &mut [u64], words: usize, slot: u32, tier: Option<Tier>) {
    let (word, bit) = (slot as usize / 64, 1 << (slot % 64));
    let bits = tier.map_or(0, Tier::bits);
    let values = [tier.is_some(), bits & 1 != 0, bits & 2 != 0];
    for (plane, value) in values.into_iter().enumerate() {
        let word = &mut planes[plane * words + word];
        *word = if value { *word | bit } else { *word & !bit };
    }
}

/// The tier of a worker in a set's planes; `None` if it is no member.
pub(super) fn tier_in(planes: &[u64], slot: u32) -> Option<Tier> {
    let words = planes.len() / PLANES;
    let (word, bit) = (slot as usize / 64, slot % 64);
    let plane = |plane: usize| (planes[plane * words + word] >> bit & 1) as u32;
    (plane(0) == 1).then(|| Tier::from_bits(plane(1) | plane(2) << 1))
}

/// The slots whose bits are set.
pub(super) fn slots(bits: &[u64]) -> impl Iterator<Item = u32> + '_ {
    bits.iter().enumerate().flat_map(|(at, &word)| {
        let rest = std::iter::successors(Some(word), |word| Some(word & word.wrapping_sub(1)));
        rest.take_while(|word| *word != 0).map(move |word| at as u32 * 64 + word.trailing_zeros())
    })
}

/// The writer's side: which rows are in use, and by how many blocks.
#[derive(Debug, Default)]
pub(super) struct SetWriter {
    by_content: HashMap<u64, u32, BuildHasherDefault<KeyHasher>>,
    /// Blocks that refer to each row.
    uses: Vec<u32>,
    free: Vec<u32>,
    planes: Vec<u64>,
    last: Option<Step>,
}

/// How one set became another: the blocks of a chain, which come and go together, all take the
/// same step.
#[derive(Clone, Copy, Debug)]
struct Step {
    from: SetRef,
    slot: u32,
    tier: Option<Tier>,
    to: SetRef,
}

impl SetWriter {
    /// The tier of a worker in a set.
    pub(super) fn tier_of(rows: &SetRows, raw: u32, slot: u32) -> Option<Tier> {
        if raw & STORED == 0 {
            return single(raw).filter(|(member, _)| *member == slot).map(|(_, tier)| tier);
        }
        let row = rows.rows.row(raw & !STORED).expect("a set that is referred to exists");
        let (word, bit) = (1 + slot as usize / 64, slot % 64);
        let plane = |plane: usize| {
            (row[plane * rows.words + word].load(Ordering::Relaxed) >> bit & 1) as u32
        };
        (plane(0) == 1).then(|| Tier::from_bits(plane(1) | plane(2) << 1))
    }

    /// The set like `raw` with a worker in that tier, or without it. The caller refers to it from
    /// now on, and still to the old one.
    pub(super) fn with(&mut self, rows: &SetRows, raw: u32, slot: u32, tier: Option<Tier>) -> u32 {
        let alone = raw & STORED == 0 && single(raw).is_none_or(|(member, _)| member == slot);
        if alone {
            return tier.map_or(EMPTY, |tier| code(slot, tier));
        }
        let from = rows.refer(raw).expect("a set that is referred to exists");
        if let Some(known) = self.again(rows, from, slot, tier) {
            return known;
        }
        let raw = self.changed(rows, raw, slot, tier);
        let to = rows.refer(raw).expect("it was just found or stored");
        self.last = Some(Step { from, slot, tier, to });
        raw
    }

    /// What the last step led to, if this is the same one and its result is still in use.
    fn again(
        &mut self,
        rows: &SetRows,
        from: SetRef,
        slot: u32,
        tier: Option<Tier>,
    ) -> Option<u32> {
        let Step { to, .. } =
            self.last.filter(|s| s.from == from && s.slot == slot && s.tier == tier)?;
        if to.raw & STORED != 0 {
            let uses = &mut self.uses[(to.raw & !STORED) as usize];
            if *uses == 0 || rows.refer(to.raw) != Some(to) {
                return None;
            }
            *uses += 1;
        }
        Some(to.raw)
    }

    fn changed(&mut self, rows: &SetRows, raw: u32, slot: u32, tier: Option<Tier>) -> u32 {
        self.load(rows, raw);
        put(&mut self.planes, rows.words, slot, tier);
        let mut members = slots(&self.planes[..rows.words]);
        match (members.next(), members.next()) {
            (None, _) => EMPTY,
            (Some(slot), None) => code(slot, tier_in(&self.planes, slot).unwrap_or_default()),
            _ => {
                drop(members);
                self.store(rows)
            }
        }
    }

    /// One block less refers to a set.
    pub(super) fn release(&mut self, rows: &SetRows, raw: u32) {
        if raw & STORED == 0 {
            return;
        }
        let row = raw & !STORED;
        self.uses[row as usize] -= 1;
        if self.uses[row as usize] == 0 {
            self.load(rows, raw);
            let digest = digest(&self.planes);
            if self.by_content.get(&digest) == Some(&row) {
                self.by_content.remove(&digest);
            }
            self.free.push(row);
        }
    }

    /// Rows in use.
    #[cfg(test)]
    pub(super) fn rows_used(&self) -> usize {
        self.uses.len() - self.free.len()
    }

    fn load(&mut self, rows: &SetRows, raw: u32) {
        self.planes.resize(PLANES * rows.words, 0);
        let own = rows.refer(raw).and_then(|set| rows.read(set, &mut self.planes).ok());
        own.expect("the writer's own rows do not change by themselves");
    }

    /// The row with the content of `planes`, made if there is none.
    fn store(&mut self, rows: &SetRows) -> u32 {
        let digest = digest(&self.planes);
        let known = self.by_content.get(&digest).copied();
        if let Some(row) = known.filter(|row| self.has_content(rows, *row)) {
            self.uses[row as usize] += 1;
            return row | STORED;
        }
        let row = self.free.pop().unwrap_or_else(|| {
            self.uses.push(0);
            self.uses.len() as u32 - 1
        });
        rows.rows.add(row);
        let cells = rows.rows.row(row).expect("it was just added");
        let version = cells[0].load(Ordering::Relaxed);
        // Whoever sees it sees as well that nothing refers to the row any more.
        cells[0].store(u64::from((version as u32).wrapping_add(1)), Ordering::Release);
        fence(Ordering::Release);
        for (cell, word) in cells[1..].iter().zip(&self.planes) {
            cell.store(*word, Ordering::Relaxed);
        }
        let plain = self.planes[rows.words..].iter().all(|word| *word == 0);
        let next = u64::from((version as u32).wrapping_add(2));
        cells[0].store(next | if plain { PLAIN } else { 0 }, Ordering::Release);
        self.uses[row as usize] = 1;
        // Of two sets with one digest, which is hardly possible, the second is stored unshared.
        self.by_content.entry(digest).or_insert(row);
        row | STORED
    }

    fn has_content(&self, rows: &SetRows, row: u32) -> bool {
        let cells = rows.rows.row(row).expect("a known row exists");
        let planes = &cells[1..=self.planes.len()];
        planes.iter().map(|cell| cell.load(Ordering::Relaxed)).eq(self.planes.iter().copied())
    }
}

fn digest(planes: &[u64]) -> u64 {
    let mut hasher = KeyHasher::default();
    for word in planes {
        hasher.write_u64(*word);
    }
    hasher.finish()
}
