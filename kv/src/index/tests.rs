//! The index against the truth: real pools whose batches get lost, doubled, reordered and outlive
//! restarts on their way.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::block::{BlockId, Tier};
use crate::events::EventKind;
use crate::pool::{Pool, PoolConfig};
use proptest::prelude::*;
use std::cmp::Reverse;
use std::collections::BTreeSet;

const GROUP: GroupId = GroupId(0);
const A: WorkerId = WorkerId(1);
const B: WorkerId = WorkerId(2);
const RUN: Incarnation = Incarnation(10);

fn config(workers_max: usize, blocks_per_worker_max: usize) -> IndexConfig {
    IndexConfig { workers_max, blocks_per_worker_max, blocks_max: 1000, pending_max: 4 }
}

/// An index that workers A, B and 3 have joined in their run [`RUN`].
fn index() -> Index {
    let mut index = Index::new(config(4, 100));
    for worker in [A, B, WorkerId(3)] {
        index.join(worker, RUN).unwrap();
    }
    index
}

fn hash(n: u8) -> SequenceHash {
    SequenceHash([n; 16])
}

/// Blocks 0, 1, 2 and so on are one chain.
fn id(n: u8) -> BlockId {
    BlockId { hash: hash(n), parent: n.checked_sub(1).map(hash), group: GROUP }
}

fn published(n: u8) -> BlockEvent {
    BlockEvent::published(&id(n), Tier::Device)
}

fn removed(n: u8) -> BlockEvent {
    BlockEvent::removed(&id(n).key())
}

fn batch(first: u64, events: &[BlockEvent]) -> Batch {
    Batch { snapshot: false, first_seq: EventSeq(first), events: events.to_vec() }
}

fn snapshot(next: u64, events: &[BlockEvent]) -> Batch {
    Batch { snapshot: true, first_seq: EventSeq(next), events: events.to_vec() }
}

fn held_by(index: &Index, n: u8) -> Vec<WorkerId> {
    index.holders(&hash(n), GROUP).into_iter().map(|holder| holder.worker).collect()
}

fn depths(index: &Index, chain: &[SequenceHash], group: GroupId) -> Vec<(WorkerId, usize)> {
    let mut all: Vec<_> =
        index.matches(chain, group).into_iter().map(|found| (found.worker, found.depth)).collect();
    assert!(all.is_sorted_by_key(|(_, depth)| Reverse(*depth)), "{all:?}");
    all.sort_by_key(|(worker, depth)| (Reverse(*depth), *worker));
    all
}

/// All that is known of a worker; the tests use blocks up to 12.
fn known_of(index: &Index, worker: WorkerId) -> BTreeSet<BlockKey> {
    let keys = (0..=12).map(|n| id(n).key());
    let known: BTreeSet<_> =
        keys.filter(|key| held_by(index, key.hash.0[0]).contains(&worker)).collect();
    assert_eq!(known.len(), index.blocks_of(worker));
    known
}

#[test]
fn matches_are_leading_depths_the_deepest_first() {
    let mut index = index();
    let chain = [hash(1), hash(2), hash(3)];
    index.apply(A, RUN, &batch(1, &[published(1), published(3)])).unwrap();
    index.apply(B, RUN, &batch(1, &[published(1), published(2)])).unwrap();
    index.apply(WorkerId(3), RUN, &batch(1, &[published(2), published(3)])).unwrap();
    assert_eq!(depths(&index, &chain, GROUP), [(B, 2), (A, 1)]);
    assert_eq!(depths(&index, &chain[1..], GROUP), [(WorkerId(3), 2), (B, 1)]);
    assert_eq!(depths(&index, &[], GROUP), []);
    assert_eq!(depths(&index, &chain, GroupId(1)), []);
}

#[test]
fn behind_a_gap_nothing_is_applied_until_it_is_filled() {
    let mut index = index();
    index.apply(A, RUN, &batch(1, &[published(1)])).unwrap();
    let gap = Err(NeedSnapshot { from: EventSeq(2) });
    assert_eq!(index.apply(A, RUN, &batch(3, &[published(3)])), gap);
    assert_eq!(index.blocks_of(A), 1);
    let filled = batch(2, &[removed(1), published(3)]);
    assert_eq!(index.apply(A, RUN, &filled), Ok(Applied::Advanced));
    assert_eq!(index.position(A), Some((RUN, EventSeq(4))));
    assert_eq!(held_by(&index, 3), [A]);
}

#[test]
fn a_gap_at_the_very_beginning_is_a_gap_too() {
    let result = index().apply(A, RUN, &batch(2, &[published(2)]));
    assert_eq!(result, Err(NeedSnapshot { from: EventSeq(1) }));
}

#[test]
fn one_absent_block_does_not_stop_the_batch() {
    let mut index = index();
    index.apply(A, RUN, &batch(1, &[removed(9), published(1), published(1)])).unwrap();
    assert_eq!((index.blocks_of(A), held_by(&index, 1)), (1, vec![A]));
}

#[test]
fn a_snapshot_replaces_and_an_older_one_is_ignored() {
    let mut index = index();
    index.apply(A, RUN, &batch(1, &[published(1), published(2)])).unwrap();
    assert_eq!(index.apply(A, RUN, &snapshot(6, &[published(3)])), Ok(Applied::Advanced));
    assert_eq!(held_by(&index, 1), []);
    assert_eq!(index.apply(A, RUN, &snapshot(5, &[published(1)])), Ok(Applied::Known));
    assert_eq!(index.apply(A, RUN, &batch(6, &[published(4)])), Ok(Applied::Advanced));
    assert_eq!(index.blocks_of(A), 2);
}

/// What an earlier run said about slots that no longer exist must not be believed. Without the
/// guard the late batch is taken for news of the present run.
#[test]
fn an_earlier_run_is_void() {
    let late = batch(2, &[published(2)]);
    let restarted = || {
        let mut index = index();
        index.apply(A, RUN, &batch(1, &[published(1)])).unwrap();
        assert_eq!(index.join(A, RUN), Ok(EventSeq(2)));
        assert_eq!(index.join(A, Incarnation(11)), Ok(EventSeq(1)));
        index.apply(A, Incarnation(11), &batch(1, &[published(3)])).unwrap();
        index
    };
    let mut index = restarted();
    assert_eq!(held_by(&index, 1), []);
    assert_eq!(index.apply(A, RUN, &late), Ok(Applied::Void));
    assert_eq!(held_by(&index, 2), []);

    let unguarded = Guard::Incarnation.without(|| {
        let mut index = restarted();
        index.apply(A, RUN, &late).unwrap();
        index
    });
    assert_eq!(held_by(&unguarded, 2), [A]);
}

#[test]
fn a_removed_worker_leaves_nothing_behind() {
    let mut index = index();
    index.apply(A, RUN, &batch(1, &[published(1), published(2)])).unwrap();
    index.apply(B, RUN, &batch(1, &[published(1)])).unwrap();
    assert!(index.remove_worker(A));
    assert!(!index.remove_worker(A));
    assert_eq!(index.apply(A, RUN, &batch(1, &[published(1)])), Ok(Applied::Void));
    assert_eq!(held_by(&index, 1), [B]);
    assert!(index.remove_worker(B) && index.remove_worker(WorkerId(3)));
    assert_eq!((index.blocks(), index.sets.rows_used(), index.slots.len()), (0, 0, 0));
}

#[test]
fn bounds_hold() {
    let mut index = Index::new(config(1, 2));
    index.join(A, RUN).unwrap();
    assert_eq!(index.join(B, RUN), Err(TooManyWorkers { max: 1 }));
    assert!(index.join(A, Incarnation(12)).is_ok() && index.join(A, RUN).is_ok());
    let three = [published(1), published(2), published(3)];
    index.apply(A, RUN, &batch(1, &three)).unwrap();
    assert_eq!((index.blocks_of(A), index.overflowed(A)), (2, 1));
    // What was not remembered can go, and room is used again.
    index.apply(A, RUN, &batch(4, &[removed(3), removed(1), published(4)])).unwrap();
    assert_eq!((index.blocks_of(A), held_by(&index, 4)), (2, vec![A]));
}

#[test]
fn absurd_numbers_are_survived() {
    let mut index = index();
    let last = u64::MAX;
    assert_eq!(index.apply(A, RUN, &batch(0, &[published(1)])), Ok(Applied::Known));
    assert!(index.apply(A, RUN, &batch(last, &[published(1)])).is_err());
    index.apply(A, RUN, &snapshot(last, &[published(1)])).unwrap();
    index.apply(A, RUN, &batch(last, &[published(2), published(3)])).unwrap();
    assert_eq!(index.position(A), Some((RUN, EventSeq(last))));
}

/// A worker with its true history, told from the first event of its present run.
struct Truth {
    pool: Pool,
    incarnation: Incarnation,
}

impl Truth {
    fn new(run: u64) -> Self {
        let pool = Pool::new(PoolConfig { slots: 4, events_kept: 5, leases_max: 1 });
        Self { pool, incarnation: Incarnation(run) }
    }

    fn publish(&mut self, n: u8) {
        let (draft, _) = self.pool.draft().unwrap();
        let sealed = self.pool.seal(draft, id(n), 1, 1);
        drop(self.pool.publish(sealed));
    }

    fn held(&self) -> BTreeSet<BlockKey> {
        let key = |e: &BlockEvent| BlockKey { hash: e.hash, group: e.group };
        self.pool.snapshot().events.iter().map(key).collect()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Publish(usize, u8),
    Restart(usize),
    /// A worker sends the events from so many before its last one.
    Send(usize, u64, usize),
    SendSnapshot(usize),
    /// A message of those under way arrives; it may arrive again.
    Arrive(usize),
    Lose(usize),
    /// A router connects to a worker.
    Join(usize),
    Forget(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let worker = 0..2_usize;
    prop_oneof![
        6 => (worker.clone(), 0..12_u8).prop_map(|(w, n)| Step::Publish(w, n)),
        1 => worker.clone().prop_map(Step::Restart),
        5 => (worker.clone(), 0..7_u64, 0..6_usize).prop_map(|(w, back, n)| Step::Send(w, back, n)),
        1 => worker.clone().prop_map(Step::SendSnapshot),
        8 => any::<usize>().prop_map(Step::Arrive),
        1 => any::<usize>().prop_map(Step::Lose),
        2 => worker.clone().prop_map(Step::Join),
        1 => worker.prop_map(Step::Forget),
    ]
}

type Message = (usize, Incarnation, Batch);
/// What a worker held in each run before each event.
type History = std::collections::HashMap<(usize, Incarnation, EventSeq), BTreeSet<BlockKey>>;

#[derive(Default)]
struct World {
    workers: Vec<Truth>,
    runs: u64,
    under_way: Vec<Message>,
    history: History,
}

impl World {
    fn run(&mut self, index: &mut Index, step: &Step) {
        match *step {
            Step::Publish(w, n) => self.workers[w].publish(n),
            Step::Restart(w) => {
                self.runs += 1;
                self.workers[w] = Truth::new(self.runs);
            }
            Step::Send(w, back, count) => {
                let worker = &self.workers[w];
                let from = worker.pool.log().next_seq().0.saturating_sub(back).max(1);
                let batch = worker.pool.watch(EventSeq(from), count);
                self.under_way.push((w, worker.incarnation, batch));
            }
            Step::SendSnapshot(w) => {
                let worker = &self.workers[w];
                self.under_way.push((w, worker.incarnation, worker.pool.snapshot()));
            }
            Step::Arrive(at) if !self.under_way.is_empty() => {
                let (w, run, batch) = &self.under_way[at % self.under_way.len()];
                // A gap is left as it is: the end of the test has to cope.
                let _ = index.apply(WorkerId(*w as u32), *run, batch);
            }
            Step::Lose(at) if !self.under_way.is_empty() => {
                self.under_way.swap_remove(at % self.under_way.len());
            }
            Step::Join(w) => {
                index.join(WorkerId(w as u32), self.workers[w].incarnation).unwrap();
            }
            Step::Forget(w) => {
                index.remove_worker(WorkerId(w as u32));
            }
            Step::Arrive(_) | Step::Lose(_) => {}
        }
        self.note();
    }

    /// An eviction and a publication are two events; the state between them is noted from the log.
    fn note(&mut self) {
        for (w, worker) in self.workers.iter().enumerate() {
            let next = worker.pool.log().next_seq();
            let held = worker.held();
            if let Ok(mut last) = worker.pool.log().since(EventSeq(next.0.saturating_sub(1).max(1)))
                && let Some((seq, event)) = last.next()
                && event.kind == EventKind::Published
            {
                let mut before = held.clone();
                before.remove(&BlockKey { hash: event.hash, group: event.group });
                self.history.entry((w, worker.incarnation, seq)).or_insert(before);
            }
            self.history.insert((w, worker.incarnation, next), held);
        }
    }

    /// The index is what each worker held at the point it says, in all queries.
    fn check(&self, index: &Index) {
        let mut holders: BTreeMap<BlockKey, Vec<WorkerId>> = BTreeMap::new();
        for w in 0..self.workers.len() {
            let id = WorkerId(w as u32);
            let Some((run, next)) = index.position(id) else {
                assert_eq!(index.blocks_of(id), 0);
                continue;
            };
            let truth = &self.history[&(w, run, next)];
            let known = known_of(index, id);
            assert_eq!(&known, truth, "worker {w} in run {run} before event {next}");
            for key in truth {
                holders.entry(*key).or_default().push(id);
            }
        }
        for n in 0..12 {
            let truth = holders.get(&id(n).key()).cloned().unwrap_or_default();
            assert_eq!(held_by(index, n), truth);
        }
        for start in 0..12 {
            let chain: Vec<_> = (start..12).map(hash).collect();
            assert_eq!(depths(index, &chain, GROUP), naive_matches(&holders, &chain));
        }
    }

    /// What a router does in the end: it watches each worker from where it stands.
    fn catch_up(&self, index: &mut Index) {
        for (w, worker) in self.workers.iter().enumerate() {
            let id = WorkerId(w as u32);
            let from = index.join(id, worker.incarnation).unwrap();
            let batch = worker.pool.watch(from, 100);
            index.apply(id, worker.incarnation, &batch).unwrap();
            assert_eq!(known_of(index, id), worker.held());
        }
    }
}

fn naive_matches(
    holders: &BTreeMap<BlockKey, Vec<WorkerId>>,
    chain: &[SequenceHash],
) -> Vec<(WorkerId, usize)> {
    let holds = |w: WorkerId, hash: &SequenceHash| {
        holders.get(&BlockKey { hash: *hash, group: GROUP }).is_some_and(|all| all.contains(&w))
    };
    let mut found: Vec<_> = (0..4)
        .map(WorkerId)
        .map(|w| (w, chain.iter().take_while(|hash| holds(w, hash)).count()))
        .filter(|(_, depth)| *depth > 0)
        .collect();
    found.sort_by_key(|(w, depth)| (Reverse(*depth), *w));
    found
}

proptest! {
    #[test]
    fn whatever_arrives_the_index_is_true_of_some_moment_and_catches_up(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut index = Index::new(config(2, 100));
        let mut world = World { workers: vec![Truth::new(1), Truth::new(2)], runs: 2, ..World::default() };
        world.note();
        for step in &steps {
            let before = [0, 1].map(|w| index.position(WorkerId(w)));
            world.run(&mut index, step);
            world.check(&index);
            for (w, before) in (0..).zip(before) {
                if let (Some((run, next)), Some(after)) = (before, index.position(WorkerId(w))) {
                    prop_assert!(after.0 != run || after.1 >= next, "{after:?} after event {next}");
                }
            }
        }
        world.catch_up(&mut index);
    }
}
