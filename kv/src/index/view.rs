//! What readers do: find who holds a block, and how deep each worker holds a chain.
//!
//! A worker that is *closed* holds a leading part of any chain or nothing of it, so the depth is
//! where its membership ends, and one block that has it says so of all before. The chain is probed
//! at its ends and then, between two neighbours whose sets of holders differ, at evenly spread
//! points, until they stand side by side. A worker that is not closed is followed block by block.

use super::sets::{Changed, SetRef, SetRows, slots, tier_in};
use super::table::{Name, Table};
use crate::block::{BlockKey, Tier};
use baton_proto::ids::{GroupId, SequenceHash, WorkerId};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// Probes whose memory accesses overlap.
const BATCH: usize = 16;
/// Points between two neighbours, where few pairs are left to look between.
const POINTS_MAX: usize = 7;
/// How often a lookup starts again because workers came or went, before it settles for advice that
/// is a moment old.
const ATTEMPTS: usize = 16;

/// A worker that holds a block.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Holder {
    /// Which one.
    pub worker: WorkerId,
    /// Where it has it.
    pub tier: Tier,
}

/// A worker that holds the beginning of a chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Match {
    /// Which one.
    pub worker: WorkerId,
    /// How many of the chain's leading blocks, at least one.
    pub depth: usize,
    /// Where it has the last of them.
    pub tier: Tier,
}

/// The index as its readers see it. Cheap to clone; a lookup takes no lock.
#[derive(Clone, Debug)]
pub struct View(pub(super) Arc<Shared>);

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) table: Table,
    pub(super) rows: SetRows,
    /// The worker of each slot, plus one.
    pub(super) names: Box<[AtomicU64]>,
    /// A bit for each slot whose worker is not closed.
    pub(super) open: Box<[AtomicU64]>,
    /// Counts changes of `names`.
    pub(super) members: AtomicU64,
}

/// Arrays that one lookup leaves to the next.
#[derive(Debug, Default)]
struct Scratch {
    points: Vec<Point>,
    merged: Vec<Point>,
    wanted: Vec<usize>,
    /// Planes of two sets.
    near: Vec<u64>,
    far: Vec<u64>,
    seen: Vec<u64>,
    open: Vec<u64>,
    found: Vec<(u32, usize, Tier)>,
}

/// A block of the chain, and who holds it.
#[derive(Clone, Copy, Debug)]
struct Point {
    at: usize,
    set: SetRef,
}

impl View {
    pub(super) fn new(workers_max: usize) -> Self {
        let rows = SetRows::new(workers_max);
        let cells = |count| std::iter::repeat_with(AtomicU64::default).take(count).collect();
        let shared = Shared {
            names: cells(workers_max),
            open: cells(rows.words()),
            members: AtomicU64::new(0),
            table: Table::new(),
            rows,
        };
        Self(Arc::new(shared))
    }

    /// The workers that hold one block, in order.
    pub fn holders(&self, hash: &SequenceHash, group: GroupId) -> Vec<Holder> {
        let mut planes = self.0.rows.planes();
        let found = self.steady(|| {
            let set = self.0.probe(hash, group);
            self.0.rows.read(set, &mut planes)?;
            let members = slots(&planes[..self.0.rows.words()]);
            let holder = |slot| Some((slot, 1, tier_in(&planes, slot)?));
            Ok(self.0.named(members.filter_map(holder)))
        });
        let mut holders: Vec<_> =
            found.into_iter().map(|Match { worker, tier, .. }| Holder { worker, tier }).collect();
        holders.sort_unstable();
        holders
    }

    /// The workers that hold the beginning of `chain`, the deepest first. Exact for what is known
    /// of each worker. Of a worker whose blocks come or go meanwhile, the depth is one that lies
    /// between its least and its greatest during the call.
    pub fn matches(&self, chain: &[SequenceHash], group: GroupId) -> Vec<Match> {
        let mut scratch = Scratch::default();
        self.steady(|| {
            self.0.search(chain, group, &mut scratch)?;
            Ok(self.0.named(scratch.found.iter().copied()))
        })
    }

    /// How many of the chain's leading blocks a worker holds in each tier, by [`Tier::bits`]; a
    /// look at every one of them, for the few workers that are considered in earnest.
    pub fn tiers(
        &self,
        worker: WorkerId,
        chain: &[SequenceHash],
        group: GroupId,
    ) -> [usize; Tier::COUNT] {
        let name = u64::from(worker.0) + 1;
        let mut planes = self.0.rows.planes();
        self.steady(|| {
            let mut counts = [0; Tier::COUNT];
            let slot = self.0.names.iter().position(|slot| slot.load(Ordering::Relaxed) == name);
            let Some(slot) = slot else { return Ok(counts) };
            let mut last = None;
            for batch in chain.chunks(BATCH) {
                for set in self.0.probe_all(batch.iter(), group) {
                    if last != Some(set) {
                        self.0.rows.read(set, &mut planes)?;
                        last = Some(set);
                    }
                    let Some(tier) = tier_in(&planes, slot as u32) else { return Ok(counts) };
                    counts[tier.bits() as usize] += 1;
                }
            }
            Ok(counts)
        })
    }

    /// Runs `body` again where workers came or went meanwhile, or a set was replaced under it.
    fn steady<T>(&self, mut body: impl FnMut() -> Result<T, Changed>) -> T {
        let mut attempts = 0;
        loop {
            let before = self.0.members.load(Ordering::Acquire);
            let result = body();
            fence(Ordering::Acquire);
            attempts += 1;
            let same = self.0.members.load(Ordering::Relaxed) == before;
            match result {
                Ok(found) if same || attempts >= ATTEMPTS => return found,
                _ => std::hint::spin_loop(),
            }
        }
    }
}

impl Shared {
    fn named(&self, found: impl Iterator<Item = (u32, usize, Tier)>) -> Vec<Match> {
        let name = |slot: u32| self.names[slot as usize].load(Ordering::Relaxed).checked_sub(1);
        found
            .filter_map(|(slot, depth, tier)| {
                Some(Match { worker: WorkerId(name(slot)? as u32), depth, tier })
            })
            .collect()
    }

    fn probe(&self, hash: &SequenceHash, group: GroupId) -> SetRef {
        let probe = self.table.begin(Name::new(&BlockKey { hash: *hash, group }));
        self.table.find(&probe, &self.rows)
    }

    /// Looks up to [`BATCH`] blocks up at once.
    fn probe_all<'a>(
        &self,
        hashes: impl Iterator<Item = &'a SequenceHash>,
        group: GroupId,
    ) -> impl Iterator<Item = SetRef> {
        let mut sets = [SetRef::default(); BATCH];
        let mut probes = [None; BATCH];
        let mut count = 0;
        for (probe, hash) in probes.iter_mut().zip(hashes) {
            *probe = Some(self.table.begin(Name::new(&BlockKey { hash: *hash, group })));
            count += 1;
        }
        for probe in probes.iter().flatten() {
            std::hint::black_box(self.table.touch(probe));
        }
        for (set, probe) in sets.iter_mut().zip(probes.iter().flatten()) {
            *set = self.table.find(probe, &self.rows);
        }
        sets.into_iter().take(count)
    }

    /// Leaves in `scratch.found` slot, depth and tier of all workers that hold the beginning.
    fn search(
        &self,
        chain: &[SequenceHash],
        group: GroupId,
        scratch: &mut Scratch,
    ) -> Result<(), Changed> {
        scratch.found.clear();
        let Some(first) = chain.first() else { return Ok(()) };
        let words = self.rows.words();
        scratch.open.clear();
        scratch.open.extend(self.open.iter().map(|word| word.load(Ordering::Acquire)));
        let head = Point { at: 0, set: self.probe(first, group) };
        if head.set.is_empty() {
            return Ok(());
        }
        self.bracket(chain, group, head, scratch);
        fence(Ordering::Acquire);
        for (open, now) in scratch.open.iter_mut().zip(&self.open) {
            *open |= now.load(Ordering::Relaxed);
        }
        for planes in [&mut scratch.near, &mut scratch.far] {
            planes.resize(3 * words, 0);
        }
        // `seen`: who is done with. Whoever does not hold the first block holds no beginning, and
        // whoever is not closed comes afterwards.
        self.rows.read(head.set, &mut scratch.near)?;
        scratch.seen.clear();
        scratch.seen.extend(scratch.near[..words].iter().zip(&scratch.open).map(|(h, o)| !h | o));
        let followed = scratch.near[..words].iter().zip(&scratch.open).any(|(h, o)| h & o != 0);
        self.ends(scratch)?;
        if followed { self.walk(chain, group, head, scratch) } else { Ok(()) }
    }

    /// Probes until each two neighbours among the points have the same holders, or are neighbours
    /// in the chain.
    fn bracket(&self, chain: &[SequenceHash], group: GroupId, head: Point, scratch: &mut Scratch) {
        let last = chain.len() - 1;
        scratch.points.clear();
        scratch.points.push(head);
        if last > 0 {
            let set = self.probe(&chain[last], group);
            scratch.points.push(Point { at: last, set });
        }
        loop {
            let open = |pair: &&[Point]| pair[0].set != pair[1].set && pair[1].at - pair[0].at > 1;
            let pairs = scratch.points.windows(2).filter(open).count();
            if pairs == 0 {
                return;
            }
            let per_pair = (2 * BATCH / pairs).clamp(1, POINTS_MAX);
            scratch.wanted.clear();
            for pair in scratch.points.windows(2).filter(open) {
                let (from, gap) = (pair[0].at, pair[1].at - pair[0].at);
                let count = per_pair.min(gap - 1);
                scratch.wanted.extend((1..=count).map(|k| from + gap * k / (count + 1)));
            }
            scratch.merged.clear();
            let mut old = scratch.points.iter().copied().peekable();
            for batch in scratch.wanted.chunks(BATCH) {
                let sets = self.probe_all(batch.iter().map(|at| &chain[*at]), group);
                for (&at, set) in batch.iter().zip(sets) {
                    while let Some(point) = old.next_if(|point| point.at < at) {
                        scratch.merged.push(point);
                    }
                    scratch.merged.push(Point { at, set });
                }
            }
            scratch.merged.extend(old);
            std::mem::swap(&mut scratch.points, &mut scratch.merged);
        }
    }

    /// The depth of each closed worker: the last point that has it, the deepest first.
    fn ends(&self, scratch: &mut Scratch) -> Result<(), Changed> {
        let words = self.rows.words();
        let mut after = SetRef::default();
        for point in scratch.points.iter().rev() {
            if point.set == after {
                continue;
            }
            self.rows.read(point.set, &mut scratch.near)?;
            for word in 0..words {
                let mut ended = scratch.near[word] & !scratch.seen[word];
                scratch.seen[word] |= ended;
                while ended != 0 {
                    let slot = word as u32 * 64 + ended.trailing_zeros();
                    ended &= ended - 1;
                    let tier = tier_in(&scratch.near, slot).ok_or(Changed)?;
                    scratch.found.push((slot, point.at + 1, tier));
                }
            }
            after = point.set;
        }
        Ok(())
    }

    /// Follows the workers that are not closed, block by block, and puts them among the others.
    fn walk(
        &self,
        chain: &[SequenceHash],
        group: GroupId,
        head: Point,
        scratch: &mut Scratch,
    ) -> Result<(), Changed> {
        let words = self.rows.words();
        // `near`: the set at hand. `far`: the one before it. `seen`: who has come so far.
        self.rows.read(head.set, &mut scratch.far)?;
        scratch.seen.clear();
        scratch.seen.extend(scratch.far[..words].iter().zip(&scratch.open).map(|(h, o)| h & o));
        let mut before = head.set;
        let mut at = 1;
        for batch in chain[1..].chunks(BATCH) {
            for set in self.probe_all(batch.iter(), group) {
                if set != before {
                    self.rows.read(set, &mut scratch.near)?;
                    leave(scratch, words, at)?;
                    std::mem::swap(&mut scratch.near, &mut scratch.far);
                    before = set;
                }
                at += 1;
            }
            if scratch.seen.iter().all(|word| *word == 0) {
                break;
            }
        }
        scratch.near.fill(0);
        leave(scratch, words, chain.len())?;
        scratch.found.sort_by_key(|(_, depth, _)| std::cmp::Reverse(*depth));
        Ok(())
    }
}

/// Those that have come so far and are in `far` but not in `near` end at this depth.
fn leave(scratch: &mut Scratch, words: usize, depth: usize) -> Result<(), Changed> {
    for word in 0..words {
        let mut ended = scratch.seen[word] & !scratch.near[word];
        scratch.seen[word] &= scratch.near[word];
        while ended != 0 {
            let slot = word as u32 * 64 + ended.trailing_zeros();
            ended &= ended - 1;
            let tier = tier_in(&scratch.far, slot).ok_or(Changed)?;
            scratch.found.push((slot, depth, tier));
        }
    }
    Ok(())
}
