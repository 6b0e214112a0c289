//! The index against a naive model, over many interleavings of streams that lose, double, reorder
//! and outlive restarts. `BATON_SEED` replays one, `BATON_LONG` makes it a million.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::block::{BlockId, Tier};
use std::collections::BTreeMap;

const WORKERS: usize = 3;
/// Blocks of the tree.
const BLOCKS: usize = 12;
/// Each block in two groups, which have nothing to do with each other.
const NODES: usize = 2 * BLOCKS;

/// `SplitMix64`.
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

pub(super) fn seed() -> u64 {
    let seed = std::env::var("BATON_SEED").map_or(11, |seed| seed.parse().unwrap());
    println!("BATON_SEED={seed}");
    seed
}

pub(super) fn rounds(short: usize, long: usize) -> usize {
    if std::env::var_os("BATON_LONG").is_some() { long } else { short }
}

pub(super) fn hash(node: usize) -> SequenceHash {
    let mut bytes = [0; 16];
    bytes[..8]
        .copy_from_slice(&(node as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes());
    bytes[8..].copy_from_slice(&(node as u64).to_le_bytes());
    SequenceHash(bytes)
}

/// A tree: chains of three that fork.
fn parent(node: usize) -> Option<usize> {
    let block = node % BLOCKS;
    let parent = match block {
        0 => None,
        _ if block.is_multiple_of(3) => Some(block / 2),
        _ => Some(block - 1),
    };
    parent.map(|parent| parent + node - block)
}

fn group(node: usize) -> GroupId {
    GroupId((node / BLOCKS) as u16)
}

fn name(node: usize) -> BlockId {
    let hash = |node| hash(node % BLOCKS);
    BlockId { hash: hash(node), parent: parent(node).map(hash), group: group(node) }
}

/// The tier of each node that a worker holds.
type Held = BTreeMap<usize, Tier>;

/// A worker, with all that it has ever said in its present run.
#[derive(Default)]
struct Truth {
    run: u64,
    log: Vec<BlockEvent>,
    /// What was held after so many events.
    states: Vec<Held>,
}

impl Truth {
    fn new(run: u64) -> Self {
        Self { run, log: Vec::new(), states: vec![Held::new()] }
    }

    fn now(&self) -> &Held {
        self.states.last().unwrap()
    }

    fn say(&mut self, node: usize, tier: Option<Tier>) {
        let id = name(node);
        let mut held = self.now().clone();
        self.log.push(if let Some(tier) = tier {
            held.insert(node, tier);
            BlockEvent::published(&id, tier)
        } else {
            held.remove(&node);
            BlockEvent::removed(&id.key())
        });
        self.states.push(held);
    }

    /// Does what workers do, or now and then what none should: a child without its parent, or a
    /// parent that goes before its child.
    fn act(&mut self, chance: &mut Chance, tidy: bool) {
        let node = chance.below(NODES);
        let held = self.now();
        let rooted = parent(node).is_none_or(|parent| held.contains_key(&parent));
        let leaf = (0..NODES).all(|n| parent(n) != Some(node) || !held.contains_key(&n));
        if held.contains_key(&node) && chance.below(3) > 0 {
            if leaf || !tidy {
                self.say(node, None);
            }
        } else if rooted || !tidy {
            self.say(node, Some(Tier::from_bits(chance.below(4) as u32)));
        }
    }

    fn batch(&self, chance: &mut Chance) -> Batch {
        if chance.below(8) == 0 {
            return self.snapshot(chance);
        }
        let from = self.log.len().saturating_sub(chance.below(8));
        let to = from + chance.below(self.log.len() - from + 1);
        let events = self.log[from..to].to_vec();
        Batch { snapshot: false, first_seq: EventSeq(from as u64 + 1), events }
    }

    /// In any order.
    fn snapshot(&self, chance: &mut Chance) -> Batch {
        let mut nodes: Vec<_> = self.now().iter().map(|(node, tier)| (*node, *tier)).collect();
        for at in (1..nodes.len()).rev() {
            nodes.swap(at, chance.below(at + 1));
        }
        let event = |(node, tier): (usize, Tier)| BlockEvent::published(&name(node), tier);
        let events = nodes.into_iter().map(event).collect();
        Batch { snapshot: true, first_seq: EventSeq(self.log.len() as u64 + 1), events }
    }
}

/// What the index should know: for each worker the run, and its state at the index' position.
fn known(index: &Index, runs: &BTreeMap<(usize, u64), Truth>) -> Vec<Option<Held>> {
    let state = |w| {
        let (run, next) = index.position(WorkerId(w as u32))?;
        Some(runs[&(w, run.0)].states[next.0 as usize - 1].clone())
    };
    (0..WORKERS).map(state).collect()
}

fn check(index: &Index, known: &[Option<Held>], target: usize) {
    let mut nodes: Vec<_> = std::iter::successors(Some(target), |node| parent(*node)).collect();
    nodes.reverse();
    let chain: Vec<_> = nodes.iter().map(|node| name(*node).hash).collect();
    let group = group(target);
    let mut expected = Vec::new();
    for (w, held) in known.iter().enumerate() {
        let Some(held) = held else { continue };
        let depth = nodes.iter().take_while(|node| held.contains_key(node)).count();
        let worker = WorkerId(w as u32);
        if depth > 0 {
            expected.push(Match { worker, depth, tier: held[&nodes[depth - 1]] });
        }
        let mut tiers = [0; Tier::COUNT];
        nodes[..depth].iter().for_each(|node| tiers[held[node].bits() as usize] += 1);
        assert_eq!(index.tiers(worker, &chain, group), tiers);
        assert_eq!(index.blocks_of(worker), held.len());
    }
    let mut found = index.matches(&chain, group);
    assert!(found.is_sorted_by_key(|found| std::cmp::Reverse(found.depth)), "{found:?}");
    found.sort_by_key(|found| found.worker);
    assert_eq!(found, expected);
    let holder = |(w, held): (usize, &Option<Held>)| {
        let tier = *held.as_ref()?.get(&target)?;
        Some(Holder { worker: WorkerId(w as u32), tier })
    };
    let holders: Vec<_> = known.iter().enumerate().filter_map(holder).collect();
    assert_eq!(index.holders(&name(target).hash, group), holders);
}

/// One interleaving of everything, then a catching up, after which the index is the truth.
fn interleaving(index: &mut Index, chance: &mut Chance) {
    let tidy = chance.below(2) == 0;
    let mut last_run = 1;
    let mut current = [1; WORKERS];
    let mut runs: BTreeMap<(usize, u64), Truth> =
        (0..WORKERS).map(|w| ((w, 1), Truth::new(1))).collect();
    let mut under_way: Vec<(usize, Incarnation, Batch)> = Vec::new();
    for _ in 0..24 {
        let w = chance.below(WORKERS);
        let worker = WorkerId(w as u32);
        match chance.below(16) {
            0 => {
                last_run += 1;
                current[w] = last_run;
                runs.insert((w, last_run), Truth::new(last_run));
            }
            1..=5 => {
                let truth = runs.get_mut(&(w, current[w])).unwrap();
                (0..4).for_each(|_| truth.act(chance, tidy));
            }
            6..=9 => {
                let truth = &runs[&(w, current[w])];
                under_way.push((w, Incarnation(truth.run), truth.batch(chance)));
            }
            // It may arrive again.
            10..=12 if !under_way.is_empty() => {
                let (w, run, batch) = &under_way[chance.below(under_way.len())];
                let _ = index.apply(WorkerId(*w as u32), *run, batch);
            }
            13 if !under_way.is_empty() => {
                under_way.swap_remove(chance.below(under_way.len()));
            }
            14 => {
                index.remove_worker(worker);
            }
            _ => {
                index.join(worker, Incarnation(current[w])).unwrap();
            }
        }
        check(index, &known(index, &runs), chance.below(NODES));
    }
    for (w, run) in current.into_iter().enumerate() {
        let (worker, truth) = (WorkerId(w as u32), &runs[&(w, run)]);
        let from = index.join(worker, Incarnation(run)).unwrap().0 as usize - 1;
        let batch = if chance.below(2) == 0 {
            let events = truth.log[from..].to_vec();
            Batch { snapshot: false, first_seq: EventSeq(from as u64 + 1), events }
        } else {
            truth.snapshot(chance)
        };
        index.apply(worker, Incarnation(run), &batch).unwrap();
    }
    let truth: Vec<_> =
        current.iter().enumerate().map(|(w, run)| Some(runs[&(w, *run)].now().clone())).collect();
    (0..NODES).for_each(|target| check(index, &truth, target));
    for w in 0..WORKERS {
        index.remove_worker(WorkerId(w as u32));
    }
    assert_eq!((index.blocks(), index.sets.rows_used()), (0, 0));
    assert!(index.view.0.open.iter().all(|word| word.load(Ordering::Relaxed) == 0));
}

#[test]
fn any_interleaving_is_true_of_some_moment_and_converges_to_the_truth() {
    let mut chance = Chance(seed());
    let mut index = Index::new(IndexConfig {
        workers_max: WORKERS,
        blocks_per_worker_max: NODES,
        blocks_max: 2 * NODES,
        pending_max: 4,
    });
    for _ in 0..rounds(4_000, 1_000_000) {
        interleaving(&mut index, &mut chance);
    }
}

fn id(chain: usize, at: usize) -> BlockId {
    let name = |at: usize| hash(chain << 32 | at);
    BlockId { hash: name(at), parent: at.checked_sub(1).map(name), group: GroupId(1) }
}

fn blocks(chain: usize, range: std::ops::Range<usize>) -> Vec<BlockEvent> {
    range.map(|at| BlockEvent::published(&id(chain, at), Tier::Device)).collect()
}

/// Hundreds of workers with parts of long chains, some with holes.
#[test]
fn long_chains_are_matched_to_each_workers_depth() {
    const CHAINS: usize = 3;
    let mut chance = Chance(seed());
    for _ in 0..rounds(6, 200) {
        let workers = 1 + chance.below(200);
        let mut index = Index::new(IndexConfig {
            workers_max: workers,
            blocks_per_worker_max: 1 << 20,
            blocks_max: 1 << 20,
            pending_max: 0,
        });
        let lengths: Vec<_> = (0..CHAINS).map(|_| 1 + chance.below(600)).collect();
        let mut depths = vec![[0; CHAINS]; workers];
        for (w, depths) in depths.iter_mut().enumerate() {
            let (worker, run) = (WorkerId(7 * w as u32), Incarnation(1));
            let mut next = index.join(worker, run).unwrap();
            for (chain, &length) in lengths.iter().enumerate() {
                let held = chance.below(length + 1);
                let mut events = blocks(chain, 0..held);
                depths[chain] = held;
                if held > 0 && chance.below(5) == 0 {
                    let hole = chance.below(held);
                    events.remove(hole);
                    depths[chain] = hole;
                }
                let batch = Batch { snapshot: false, first_seq: next, events };
                let _ = index.apply(worker, run, &batch).unwrap();
                next = batch.next_seq();
            }
        }
        for (chain, &length) in lengths.iter().enumerate() {
            let hashes: Vec<_> = (0..length).map(|at| id(chain, at).hash).collect();
            let mut found = index.matches(&hashes, GroupId(1));
            found.sort_by_key(|found| found.worker);
            let expected = depths.iter().enumerate().filter(|(_, depths)| depths[chain] > 0);
            let expected: Vec<_> =
                expected.map(|(w, depths)| (WorkerId(7 * w as u32), depths[chain])).collect();
            assert!(found.iter().map(|found| (found.worker, found.depth)).eq(expected));
            assert_eq!(index.matches(&hashes, GroupId(0)), []);
        }
    }
}

/// A reader that looks while chains come and go sees depths that were true meanwhile, and never
/// one beyond a hole.
#[test]
fn readers_see_only_what_was_true_while_they_looked() {
    const LENGTH: usize = 200;
    let mut index = Index::new(IndexConfig {
        workers_max: 4,
        blocks_per_worker_max: 1 << 16,
        blocks_max: 1 << 16,
        pending_max: 0,
    });
    let run = Incarnation(1);
    let still = WorkerId(9);
    index.join(still, run).unwrap();
    let batch = Batch { snapshot: false, first_seq: EventSeq(1), events: blocks(0, 0..77) };
    index.apply(still, run, &batch).unwrap();
    churn(&mut index, WorkerId(1), &blocks(0, 0..50), &[]);
    let done = std::sync::atomic::AtomicBool::new(false);
    let view = index.view().clone();
    let chain: Vec<_> = (0..LENGTH).map(|at| id(0, at).hash).collect();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut lookups = 0;
            while !done.load(Ordering::Relaxed) || lookups == 0 {
                let found = view.matches(&chain, GroupId(1));
                let depth = |worker| found.iter().find(|m| m.worker == worker).map(|m| m.depth);
                assert_eq!(depth(still), Some(77));
                // Worker 1 has between 50 and 120 blocks at any time; worker 2 never block 30.
                assert!((50..=120).contains(&depth(WorkerId(1)).unwrap_or(0)), "{found:?}");
                assert!(depth(WorkerId(2)).is_none_or(|depth| depth <= 30), "{found:?}");
                lookups += 1;
            }
            lookups
        });
        let mut holed = blocks(0, 0..90);
        holed.remove(30);
        for round in 0..rounds(300, 20_000) as u32 {
            churn(&mut index, WorkerId(1), &[], &blocks(0, 50..120));
            churn(&mut index, WorkerId(2), &[], &holed);
            // Other blocks make the table grow, and its entries change hands.
            churn(&mut index, WorkerId(3), &[], &blocks(1 + round as usize % 3, 0..400));
            index.remove_worker(WorkerId(2 + round % 2));
        }
        done.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > 0);
    });
}

/// Publishes `first` and `then`, and removes `then` from its end.
fn churn(index: &mut Index, worker: WorkerId, first: &[BlockEvent], then: &[BlockEvent]) {
    let mut next = index.join(worker, Incarnation(1)).unwrap();
    let key = |event: &BlockEvent| BlockKey { hash: event.hash, group: event.group };
    let removed: Vec<_> = then.iter().rev().map(|event| BlockEvent::removed(&key(event))).collect();
    for events in [first, then, &removed] {
        let batch = Batch { snapshot: false, first_seq: next, events: events.to_vec() };
        index.apply(worker, Incarnation(1), &batch).unwrap();
        next = batch.next_seq();
    }
}

#[test]
fn announced_work_ends_with_its_publication_its_worker_or_its_time() {
    let (worker, run) = (WorkerId(1), Incarnation(1));
    let mut index = Index::new(IndexConfig {
        workers_max: 2,
        blocks_per_worker_max: 100,
        blocks_max: 100,
        pending_max: 4,
    });
    let ms = Duration::from_millis;
    let chain: Vec<_> = (0..8).map(|at| id(0, at).hash).collect();
    let key = |at| id(0, at).key();
    assert!(!index.announce(worker, key(0), ms(5), ms(0)), "it has not joined");
    index.join(worker, run).unwrap();
    index
        .apply(
            worker,
            run,
            &Batch { snapshot: false, first_seq: EventSeq(1), events: blocks(0, 0..2) },
        )
        .unwrap();
    assert!(!index.announce(worker, key(1), ms(5), ms(0)), "it holds that");
    assert!(!index.announce(worker, key(2), ms(5), ms(5)), "that is past");
    for at in 2..6 {
        assert!(index.announce(worker, key(at), ms(10 * at as u64), ms(0)));
    }
    assert!(!index.announce(worker, key(6), ms(60), ms(0)), "there is no room");
    let expected = |index: &Index, now| {
        let found = index.expected(&chain, GroupId(1), &index.matches(&chain, GroupId(1)), now);
        found.first().map(|expected| (expected.worker, expected.depth, expected.eta))
    };
    assert_eq!(expected(&index, ms(0)), Some((worker, 6, ms(50))));
    // Block 2 is published: what is held is not announced any more, and the rest follows it.
    let batch = Batch { snapshot: false, first_seq: EventSeq(3), events: blocks(0, 2..3) };
    index.apply(worker, run, &batch).unwrap();
    assert_eq!((index.pending_blocks(), expected(&index, ms(25))), (3, Some((worker, 6, ms(50)))));
    // Block 3 is late, and then too late.
    assert_eq!(expected(&index, ms(1059)), Some((worker, 6, ms(1059))));
    assert_eq!(expected(&index, ms(1060)), None);
    assert!(index.announce(worker, key(6), ms(1100), ms(1060)));
    assert!(index.announce(worker, key(7), ms(1110), ms(1060)), "what is past makes room");
    index.retract(worker, &key(7));
    index.expire(ms(1100));
    assert_eq!(index.pending_blocks(), 1);
    index.join(worker, Incarnation(2)).unwrap();
    assert_eq!(index.pending_blocks(), 0);
}
