//! What readers do: find who holds a block, and how deep each worker holds a chain.
//!
//! A worker that is *closed* holds a leading part of any chain or nothing of it, so the depth is
//! where its membership ends, and one block that has it says so of all before. The chain is probed
//! at its beginning and at points that lie ever closer to its end, where a turn that extends a known
//! conversation ends to be known; then, between two neighbours whose sets of holders differ, at
//! evenly spread points, until they stand side by side. A worker that is not closed is followed
//! block by block.

use super::atomics::{AtomicU64, Ordering, fence, spin_loop};
use super::prefetch::prefetch;
use super::sets::{Changed, Part, SetRef, SetRows, tier_in};
use super::steps::Steps;
use super::table::{Aimed, Found, GroupMix, Probe, Table};
use crate::block::Tier;
use crate::guard::Guard;
use baton_proto::ids::{GroupId, SequenceHash, WorkerId};
use std::cell::RefCell;
use std::cmp::Reverse;
use std::sync::Arc;

/// Probes whose memory accesses overlap.
const BATCH: usize = 16;
/// Each point towards the end of a chain is closer to it by so many powers of two.
const CLOSER: u32 = 2;
/// Hashes in a cache line, and what is a short chain.
const LINE: usize = 4;
const SHORT: usize = 128;
/// Points between two neighbours, where few pairs are left to look between.
const POINTS_MAX: usize = 3;
/// How often a lookup starts again because workers came or went, or blocks of workers with holes,
/// before it settles for advice that mixes moments.
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
    /// Counts changes of `names`.
    pub(super) renames: AtomicU64,
    /// A bit for each slot whose worker is not closed.
    pub(super) open: Box<[AtomicU64]>,
    /// Counts changes of `names` and of `open`.
    pub(super) members: AtomicU64,
    /// Counts changes of what workers hold that are not closed.
    pub(super) steps: AtomicU64,
}

/// Arrays that one lookup leaves to the next of its thread.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Where something has yet to be found, before and after a round of probes.
    gaps: Vec<Gap>,
    narrower: Vec<Gap>,
    /// Blocks whose holders differ from those of the next one, and the last block.
    ends: Vec<Point>,
    wanted: Vec<Wanted>,
    probed: Vec<Found>,
    /// Planes of two sets.
    near: Vec<u64>,
    far: Vec<u64>,
    seen: Vec<u64>,
    open: Vec<u64>,
    pub(super) found: Steps,
}

/// A block of the chain, who holds it, and its entry.
#[derive(Clone, Copy, Debug)]
struct Point {
    at: usize,
    set: SetRef,
    entry: u32,
}

/// A block of the chain to look up, and what is probably its entry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Wanted {
    at: usize,
    guess: u32,
}

impl Point {
    fn new(at: usize, Found { set, entry }: Found) -> Self {
        Self { at, set, entry }
    }

    /// A later block, whose entry is guessed from this one's.
    fn ahead(&self, at: usize) -> Wanted {
        let guess =
            if self.entry == 0 { 0 } else { self.entry.wrapping_add((at - self.at) as u32) };
        Wanted { at, guess }
    }
}

/// Two blocks that are no neighbours and have different holders.
#[derive(Clone, Copy, Debug)]
struct Gap {
    from: Point,
    to: Point,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl View {
    pub(super) fn new(workers_max: usize) -> Self {
        let rows = SetRows::new(workers_max);
        let cells = |count| std::iter::repeat_with(AtomicU64::default).take(count).collect();
        let shared = Shared {
            names: cells(workers_max),
            open: cells(rows.words()),
            renames: AtomicU64::new(0),
            members: AtomicU64::new(0),
            steps: AtomicU64::new(0),
            table: Table::new(),
            rows,
        };
        Self(Arc::new(shared))
    }

    /// The workers that hold one block, in order.
    pub fn holders(&self, hash: &SequenceHash, group: GroupId) -> Vec<Holder> {
        let mut seen = vec![0; self.0.rows.words()];
        let mut holders = Vec::new();
        self.steady(|| {
            holders.clear();
            seen.fill(0);
            let set = self.0.probe(hash, GroupMix::new(group));
            self.0.rows.take(set, &mut seen, |part| {
                let names = part
                    .slots()
                    .filter_map(|(slot, tier)| Some(Holder { worker: self.0.name(slot)?, tier }));
                holders.extend(names);
            })?;
            Ok(Followed(false))
        });
        holders.sort_unstable();
        holders
    }

    /// The workers that hold the beginning of `chain`, the deepest first. Exact for what is known
    /// of each worker. Of a worker whose blocks come or go meanwhile, the depth is one that lies
    /// between its least and its greatest during the call.
    pub fn matches(&self, chain: &[SequenceHash], group: GroupId) -> Vec<Match> {
        let mut found = Vec::new();
        self.matches_into(chain, group, &mut found);
        found
    }

    /// [`matches`](Self::matches), in place of what `found` had: a list that is used again is not
    /// allocated again.
    pub fn matches_into(&self, chain: &[SequenceHash], group: GroupId, found: &mut Vec<Match>) {
        SCRATCH.with_borrow_mut(|scratch| {
            self.steady(|| {
                let followed = self.0.search(chain, GroupMix::new(group), scratch)?;
                found.clear();
                let named =
                    |(depth, slot, tier)| Some(Match { worker: self.0.name(slot)?, depth, tier });
                found.extend(scratch.found.iter().filter_map(named));
                Ok(followed)
            });
        });
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
        let group = GroupMix::new(group);
        let mut planes = self.0.rows.planes();
        let mut counts = [0; Tier::COUNT];
        self.steady(|| {
            counts.fill(0);
            let slot = self.0.names.iter().position(|slot| slot.load(Ordering::Relaxed) == name);
            let Some(slot) = slot else { return Ok(Followed(false)) };
            let mut last = None;
            for batch in chain.chunks(BATCH) {
                for Found { set, .. } in self.0.probe_all(batch.iter(), group) {
                    if last != Some(set) {
                        self.0.rows.read(set, &mut planes)?;
                        last = Some(set);
                    }
                    let Some(tier) = tier_in(&planes, slot as u32) else {
                        return Ok(Followed(true));
                    };
                    counts[tier.bits() as usize] += 1;
                }
            }
            Ok(Followed(true))
        });
        counts
    }

    /// Runs `body` again where workers came or went meanwhile, or a set was replaced under it, or
    /// what it followed block by block was changed.
    pub(super) fn steady(&self, mut body: impl FnMut() -> Result<Followed, Changed>) {
        let Shared { members, steps, .. } = &*self.0;
        let mut attempts = 0;
        loop {
            let before = (members.load(Ordering::Acquire), steps.load(Ordering::Acquire));
            let result = body();
            fence(Ordering::Acquire);
            attempts += 1;
            if let Ok(Followed(followed)) = result {
                let same = members.load(Ordering::Relaxed) == before.0
                    && (!followed || steps.load(Ordering::Relaxed) == before.1);
                if Guard::Members.passes(same) || attempts >= ATTEMPTS {
                    return;
                }
            }
            spin_loop();
        }
    }
}

/// Whether a lookup went block by block.
pub(super) struct Followed(bool);

impl Shared {
    /// Says whether a worker has to be followed block by block.
    pub(super) fn mark(&self, slot: u32, open: bool) {
        let (word, bit) = (&self.open[slot as usize / 64], 1 << (slot % 64));
        let before = word.load(Ordering::Relaxed);
        let after = if open { before | bit } else { before & !bit };
        if after != before {
            word.store(after, Ordering::Release);
            // Lookups that have begun look again.
            self.members.fetch_add(1, Ordering::Release);
        }
    }

    /// The worker of a slot, unless it has just gone.
    fn name(&self, slot: u32) -> Option<WorkerId> {
        worker(self.names[slot as usize].load(Ordering::Relaxed))
    }

    fn probe(&self, hash: &SequenceHash, group: GroupMix) -> SetRef {
        self.table.find(&self.table.aim(self.table.begin(group.name(hash))), &self.rows).set
    }

    /// Looks up to [`BATCH`] blocks up at once.
    fn probe_all<'a>(
        &self,
        hashes: impl Iterator<Item = &'a SequenceHash>,
        group: GroupMix,
    ) -> impl Iterator<Item = Found> {
        let mut probes = [Probe::default(); BATCH];
        let mut count = 0;
        for (probe, hash) in probes.iter_mut().zip(hashes) {
            *probe = self.table.begin(group.name(hash));
            count += 1;
        }
        meanwhile();
        let mut aimed = [Aimed::default(); BATCH];
        for (aimed, probe) in aimed.iter_mut().zip(&probes[..count]) {
            *aimed = self.table.aim(*probe);
        }
        meanwhile();
        let found = aimed.into_iter().take(count);
        found.map(move |aimed| {
            meanwhile();
            self.table.find(&aimed, &self.rows)
        })
    }

    /// Leaves in `scratch` all workers that hold the beginning.
    pub(super) fn search(
        &self,
        chain: &[SequenceHash],
        group: GroupMix,
        scratch: &mut Scratch,
    ) -> Result<Followed, Changed> {
        scratch.found.clear();
        scratch.open.clear();
        scratch.open.extend(self.open.iter().map(|word| word.load(Ordering::Acquire)));
        meanwhile();
        let Some(head) = self.bracket(chain, group, scratch) else { return Ok(Followed(false)) };
        meanwhile();
        fence(Ordering::Acquire);
        for (open, now) in scratch.open.iter_mut().zip(&self.open) {
            *open |= now.load(Ordering::Relaxed);
        }
        // `seen`: who is done with. Whoever does not hold the first block holds no beginning, and
        // whoever is not closed comes afterwards.
        scratch.seen.resize(self.rows.words(), 0);
        self.rows.members(head, &mut scratch.seen)?;
        let mut followed = false;
        for (seen, open) in scratch.seen.iter_mut().zip(&scratch.open) {
            followed |= *seen & open != 0;
            *seen = !*seen | open;
        }
        // The depth of each closed worker: the last end that has it, the deepest first.
        scratch.ends.sort_unstable_by_key(|end| Reverse(end.at));
        for end in &scratch.ends {
            let depth = end.at + 1;
            let found = &mut scratch.found;
            self.rows.take(end.set, &mut scratch.seen, |part| found.push(depth, &part))?;
        }
        if followed {
            self.walk(chain, group, head, scratch)?;
        }
        Ok(Followed(followed))
    }

    /// Finds the ends: probes until each two neighbours among the points have the same holders, or
    /// are neighbours in the chain. Returns the holders of the first block, if there are any.
    fn bracket(
        &self,
        chain: &[SequenceHash],
        group: GroupMix,
        scratch: &mut Scratch,
    ) -> Option<SetRef> {
        let last = chain.len().checked_sub(1)?;
        let Scratch { gaps, narrower, ends, wanted, probed, .. } = scratch;
        // A short chain is read at once; of a long one hardly anything will be needed.
        if last < SHORT {
            chain.iter().step_by(LINE).for_each(prefetch);
        }
        ends.clear();
        narrower.clear();
        first_points(last, wanted);
        self.probe_at(chain, group, wanted, probed);
        let mut from = Point::new(0, probed[0]);
        if from.set.is_empty() {
            return None;
        }
        let head = from.set;
        for (wanted, found) in wanted.iter().zip(&*probed).skip(1) {
            let to = Point::new(wanted.at, *found);
            compare(from, to, ends, narrower);
            from = to;
        }
        ends.push(from);
        while !narrower.is_empty() {
            self.follow_all(chain, group, narrower, ends, gaps);
            narrower.clear();
            wanted.clear();
            for Gap { from, to } in &*gaps {
                let (width, per_gap) =
                    (to.at - from.at, (2 * BATCH / gaps.len()).clamp(1, POINTS_MAX));
                let count = per_gap.min(width - 1);
                wanted.extend((1..=count).map(|k| from.ahead(from.at + width * k / (count + 1))));
            }
            self.probe_at(chain, group, wanted, probed);
            let mut points = wanted.iter().zip(&*probed).peekable();
            for &Gap { mut from, to } in &*gaps {
                while let Some((wanted, found)) = points.next_if(|(wanted, _)| wanted.at < to.at) {
                    let point = Point::new(wanted.at, *found);
                    compare(from, point, ends, narrower);
                    from = point;
                }
                compare(from, to, ends, narrower);
            }
        }
        Some(head)
    }

    /// Looks into each gap where its first set probably ends, and on from there as long as that is
    /// right. Leaves in `left` where nothing tells.
    fn follow_all(
        &self,
        chain: &[SequenceHash],
        group: GroupMix,
        gaps: &[Gap],
        ends: &mut Vec<Point>,
        left: &mut Vec<Gap>,
    ) {
        left.clear();
        for gap in gaps {
            let guess = self.end_of(gap).map_or(0, |end| gap.from.ahead(end).guess);
            self.table.expect_at(guess);
        }
        for gap in gaps {
            self.follow(chain, group, *gap, ends, left);
        }
    }

    fn follow(
        &self,
        chain: &[SequenceHash],
        group: GroupMix,
        Gap { mut from, to }: Gap,
        ends: &mut Vec<Point>,
        left: &mut Vec<Gap>,
    ) {
        let mut run = true;
        while from.set != to.set {
            let gap = Gap { from, to };
            // Where nothing else tells; but where the run goes on elsewhere, halving is better.
            let end = self
                .end_of(&gap)
                .or_else(|| std::mem::take(&mut run).then(|| self.end_of_run(chain, group, &gap)));
            let Some(end) = end.filter(|_| to.at - from.at > 1) else {
                return compare(from, to, ends, left);
            };
            let last =
                if end == from.at { from } else { self.probe_one(chain, group, from.ahead(end)) };
            if last.set != from.set {
                compare(from, last, ends, left);
                from = last;
                continue;
            }
            let next = end + 1;
            let next =
                if next == to.at { to } else { self.probe_one(chain, group, from.ahead(next)) };
            if next.set != last.set {
                ends.push(last);
            }
            from = next;
        }
    }

    /// Where the first set of a gap probably ends, inside of it.
    fn end_of(&self, Gap { from, to }: &Gap) -> Option<usize> {
        let latest = self.rows.latest(from.set);
        let distance = latest.checked_sub(from.entry)? as usize;
        (from.entry != 0 && distance < to.at - from.at).then_some(from.at + distance)
    }

    /// Up to where the entries that follow the first one's are those of the chain's next blocks, with
    /// the same holders: blocks that were published together lie side by side.
    #[inline(never)]
    fn end_of_run(&self, chain: &[SequenceHash], group: GroupMix, gap: &Gap) -> usize {
        let Gap { from, to } = gap;
        let (mut held, mut other) = (from.at, if from.entry == 0 { from.at } else { to.at });
        while other.saturating_sub(held) > 1 {
            let step = (other - held).div_ceil(BATCH);
            let points = (held..other).step_by(step).skip(1);
            points.clone().for_each(|at| self.table.expect_at(from.ahead(at).guess));
            let same = points.take_while(|&at| {
                let name = group.name(&chain[at]);
                let found = self.table.find_at(name, from.ahead(at).guess, &self.rows);
                found.is_some_and(|found| found.set == from.set)
            });
            held = same.last().unwrap_or(held);
            other = other.min(held + step);
        }
        held
    }

    fn probe_one(
        &self,
        chain: &[SequenceHash],
        group: GroupMix,
        Wanted { at, guess }: Wanted,
    ) -> Point {
        meanwhile();
        let name = group.name(&chain[at]);
        let found = Some(guess).filter(|guess| *guess != 0);
        let found = found.and_then(|guess| self.table.find_at(name, guess, &self.rows));
        let found = found.unwrap_or_else(|| {
            let probe = self.table.begin(name);
            meanwhile();
            self.table.find(&self.table.aim(probe), &self.rows)
        });
        Point::new(at, found)
    }

    /// Looks blocks up, those with a guess there first.
    fn probe_at(
        &self,
        chain: &[SequenceHash],
        group: GroupMix,
        wanted: &[Wanted],
        probed: &mut Vec<Found>,
    ) {
        probed.clear();
        for batch in wanted.chunks(BATCH) {
            for wanted in batch {
                self.table.expect_at(wanted.guess);
            }
            meanwhile();
            let (mut missed, mut count) = ([0; BATCH], 0);
            for &Wanted { at, guess } in batch {
                meanwhile();
                let name = group.name(&chain[at]);
                let found = Some(guess).filter(|guess| *guess != 0);
                let found = found.and_then(|guess| self.table.find_at(name, guess, &self.rows));
                if found.is_none() {
                    missed[count] = probed.len();
                    count += 1;
                }
                probed.push(found.unwrap_or_default());
            }
            let missed = &missed[..count];
            let hashes = missed.iter().map(|at| &chain[wanted[*at].at]);
            for (at, found) in missed.iter().zip(self.probe_all(hashes, group)) {
                probed[*at] = found;
            }
        }
    }

    /// Follows the workers that are not closed, block by block, and puts them among the others.
    fn walk(
        &self,
        chain: &[SequenceHash],
        group: GroupMix,
        head: SetRef,
        scratch: &mut Scratch,
    ) -> Result<(), Changed> {
        let words = self.rows.words();
        for planes in [&mut scratch.near, &mut scratch.far] {
            planes.resize(3 * words, 0);
        }
        // `near`: the set at hand. `far`: the one before it. `seen`: who has come so far.
        self.rows.read(head, &mut scratch.far)?;
        scratch.seen.clear();
        scratch.seen.extend(scratch.far[..words].iter().zip(&scratch.open).map(|(h, o)| h & o));
        let mut before = head;
        let mut at = 1;
        for batch in chain[1..].chunks(BATCH) {
            for Found { set, .. } in self.probe_all(batch.iter(), group) {
                if set != before {
                    self.rows.read(set, &mut scratch.near)?;
                    leave(scratch, at);
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
        leave(scratch, chain.len());
        scratch.found.sort();
        Ok(())
    }
}

/// Those that have come so far and are in `far` but not in `near` end at this depth.
fn leave(scratch: &mut Scratch, depth: usize) {
    let Scratch { near, far, seen, found, .. } = scratch;
    for (word, (seen, near)) in seen.iter_mut().zip(near).enumerate() {
        let ended = *seen & !*near;
        *seen &= *near;
        if let Some(part) = Part::of(far, word, ended) {
            found.push(depth, &part);
        }
    }
}

/// The worker that a slot is named after.
pub(super) fn worker(name: u64) -> Option<WorkerId> {
    Some(WorkerId(name.checked_sub(1)? as u32))
}

/// The blocks of a chain to look at before anything is known: the first, those at ever smaller
/// distances from the last, and that.
fn first_points(last: usize, wanted: &mut Vec<Wanted>) {
    wanted.clear();
    let mut add = |at| wanted.push(Wanted { at, guess: 0 });
    add(0);
    let far = last.checked_ilog2().unwrap_or(0) / CLOSER;
    let closer = (1..=far).rev().map(|k| last - (1 << (k * CLOSER)));
    closer.filter(|at| *at > 0).for_each(&mut add);
    if last > 0 {
        add(last);
    }
}

/// Whether something ends between two points: at the first of them, or in a gap to look at.
fn compare(from: Point, to: Point, ends: &mut Vec<Point>, narrower: &mut Vec<Gap>) {
    if from.set == to.set {
        return;
    }
    if to.at - from.at == 1 {
        ends.push(from);
    } else {
        narrower.push(Gap { from, to });
    }
}

/// Where a test lets the writer act in the midst of a lookup.
#[cfg(not(test))]
fn meanwhile() {}

#[cfg(test)]
pub(super) use meanwhile::{during, meanwhile};

#[cfg(test)]
mod meanwhile {
    use std::cell::RefCell;

    thread_local! {
        static WRITER: RefCell<Option<Box<dyn FnMut()>>> = const { RefCell::new(None) };
    }

    /// Runs `body`, whose lookups let `writer` act between their steps.
    pub(in super::super) fn during<T>(
        writer: impl FnMut() + 'static,
        body: impl FnOnce() -> T,
    ) -> T {
        WRITER.set(Some(Box::new(writer)));
        let result = body();
        WRITER.set(None);
        result
    }

    pub(in super::super) fn meanwhile() {
        let Some(mut writer) = WRITER.take() else { return };
        writer();
        WRITER.set(Some(writer));
    }
}
