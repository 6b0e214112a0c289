//! The index in a storm: batches that get lost, come late, twice or out of order, from runs that are
//! over and from strangers, with numbers that make no sense. Its memory stays what it was, counted
//! by the allocator, and in the end it is the truth. `BATON_SEED` replays one, `BATON_LONG` makes it
//! ten million events. Alone in its process: other tests would be counted too.

#[path = "../examples/index/chance.rs"]
mod chance;

use baton_kv::events::{Batch, BlockEvent};
use baton_kv::index::{Applied, Index, IndexConfig};
use baton_kv::{BlockId, BlockKey, Tier};
use baton_proto::ids::{EventSeq, GroupId, Incarnation, SequenceHash, WorkerId};
use chance::{Chance, mix};
use peak_alloc::PeakAlloc;
use std::collections::VecDeque;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const WORKERS: usize = 8;
const CHAINS: usize = 64;
const LENGTH: usize = 64;
const BLOCKS: usize = CHAINS * LENGTH;
/// Events that a worker remembers.
const KEPT: usize = 512;
const GROUP: GroupId = GroupId(0);
const PARTS: usize = 5;

fn hash(block: usize) -> SequenceHash {
    let low = mix(block as u64 + 1);
    SequenceHash((u128::from(low) | u128::from(mix(low)) << 64).to_le_bytes())
}

/// A worker, and what it really holds.
#[derive(Debug)]
struct Worker {
    name: WorkerId,
    run: u64,
    held: Vec<bool>,
    log: VecDeque<BlockEvent>,
    /// The number of the next event.
    next: u64,
}

impl Worker {
    fn new(name: usize) -> Self {
        let name = WorkerId(name as u32);
        Self {
            name,
            run: 1,
            held: vec![false; BLOCKS],
            log: VecDeque::with_capacity(KEPT),
            next: 1,
        }
    }

    /// Loses everything, and joins again or is found out only later.
    fn restart(&mut self) {
        self.run += 1;
        self.held.fill(false);
        self.log.clear();
        self.next = 1;
    }

    fn depth(&self, chain: usize) -> usize {
        (0..LENGTH).take_while(|at| self.held[chain * LENGTH + at]).count()
    }

    fn say(&mut self, block: usize, held: bool) {
        self.held[block] = held;
        let parent = (!block.is_multiple_of(LENGTH)).then(|| hash(block - 1));
        let id = BlockId { hash: hash(block), parent, group: GROUP };
        let event = if held {
            BlockEvent::published(&id, Tier::Device)
        } else {
            BlockEvent::removed(&BlockKey { hash: id.hash, group: GROUP })
        };
        if self.log.len() == KEPT {
            self.log.pop_front();
        }
        self.log.push_back(event);
        self.next += 1;
    }

    /// Lets a chain grow or shrink at its end or, now and then, anywhere.
    fn act(&mut self, chance: &mut Chance) {
        let chain = chance.below(CHAINS as u64) as usize;
        if chance.below(16) == 0 {
            let block = chain * LENGTH + chance.below(LENGTH as u64) as usize;
            return self.say(block, !self.held[block]);
        }
        let (depth, wanted) = (self.depth(chain), chance.below(LENGTH as u64) as usize);
        (depth..wanted).for_each(|at| self.say(chain * LENGTH + at, true));
        (wanted..depth).rev().for_each(|at| self.say(chain * LENGTH + at, false));
    }

    /// The events from a number on, or a snapshot where they are not remembered.
    fn since(&self, from: u64) -> Batch {
        let first = self.next - self.log.len() as u64;
        if from < first || from > self.next {
            return self.snapshot();
        }
        let events = self.log.iter().skip((from - first) as usize).copied().collect();
        Batch { snapshot: false, first_seq: EventSeq(from), events }
    }

    fn snapshot(&self) -> Batch {
        let mut copy = Self::new(0);
        let mut events = Vec::with_capacity(BLOCKS);
        for block in (0..BLOCKS).filter(|block| self.held[*block]) {
            copy.say(block, true);
            events.extend(copy.log.pop_back());
        }
        Batch { snapshot: true, first_seq: EventSeq(self.next), events }
    }
}

/// All workers, the index that listens to them, and how many events it has been told.
struct Storm {
    chance: Chance,
    workers: Vec<Worker>,
    index: Index,
    told: u64,
}

impl Storm {
    fn new(seed: u64) -> Self {
        let index = Index::new(IndexConfig {
            workers_max: WORKERS,
            blocks_per_worker_max: BLOCKS,
            blocks_max: 2 * BLOCKS,
            pending_max: 16,
        });
        let workers = (0..WORKERS).map(Worker::new).collect();
        Self { chance: Chance(seed), workers, index, told: 0 }
    }

    fn tell(&mut self, worker: WorkerId, run: u64, batch: &Batch) -> Option<Applied> {
        self.told += batch.events.len() as u64;
        self.index.apply(worker, Incarnation(run), batch).ok()
    }

    fn step(&mut self) {
        let at = self.chance.below(WORKERS as u64) as usize;
        self.workers[at].act(&mut self.chance);
        let (name, run, next) = {
            let worker = &self.workers[at];
            (worker.name, worker.run, worker.next)
        };
        match self.chance.below(32) {
            // Lost.
            0..8 => {}
            // Twice, or late.
            8..12 => {
                let back = self.chance.between(0, KEPT as u64);
                let mut batch = self.workers[at].since(next.saturating_sub(back).max(1));
                batch.events.truncate(self.chance.below(64) as usize);
                if !batch.snapshot {
                    self.tell(name, run, &batch);
                    self.tell(name, run, &batch);
                }
            }
            12 => self.absurd(at),
            13 => {
                self.workers[at].restart();
            }
            14 => {
                self.index.remove_worker(name);
            }
            // From a run that is over.
            15 => {
                let batch = self.workers[at].since(next - self.workers[at].log.len() as u64);
                assert_eq!(self.tell(name, run + 1, &batch), Some(Applied::Void));
            }
            _ => self.catch_up(at),
        }
    }

    /// What no worker should say.
    fn absurd(&mut self, at: usize) {
        let (name, run) = (self.workers[at].name, self.workers[at].run);
        let mut batch = self.workers[at].snapshot();
        batch.events.truncate(16);
        batch.snapshot = false;
        let stranger = WorkerId(u32::MAX);
        assert_eq!(self.tell(stranger, run, &batch), Some(Applied::Void));
        batch.first_seq = EventSeq(u64::MAX);
        self.tell(name, run, &batch);
        // These go back, or begin before the first event: they are known.
        batch.first_seq = EventSeq(0);
        batch.events.truncate(1);
        self.tell(name, run, &batch);
        batch.snapshot = true;
        self.tell(name, run, &batch);
        if self.chance.below(4) == 0 {
            // Nothing can come after the last number: the worker has to restart.
            batch.first_seq = EventSeq(u64::MAX);
            self.tell(name, run, &batch);
            self.workers[at].restart();
        }
    }

    fn catch_up(&mut self, at: usize) {
        let (name, run) = (self.workers[at].name, self.workers[at].run);
        let from = self.index.join(name, Incarnation(run)).map_or(0, |from| from.0);
        let batch = self.workers[at].since(from);
        self.tell(name, run, &batch);
    }

    fn check(&mut self) {
        (0..WORKERS).for_each(|at| self.catch_up(at));
        for worker in &self.workers {
            let held = worker.held.iter().filter(|held| **held).count();
            assert_eq!(self.index.blocks_of(worker.name), held, "of {:?}", worker.name);
        }
        for chain in 0..CHAINS {
            let hashes: Vec<_> = (0..LENGTH).map(|at| hash(chain * LENGTH + at)).collect();
            let mut found: Vec<_> =
                self.index.matches(&hashes, GROUP).iter().map(|m| (m.worker, m.depth)).collect();
            found.sort_unstable();
            let truth = self.workers.iter().map(|worker| (worker.name, worker.depth(chain)));
            assert!(found.into_iter().eq(truth.filter(|(_, depth)| *depth > 0)), "chain {chain}");
        }
    }
}

#[test]
fn memory_stays_what_it_was_whatever_arrives() {
    let seed = std::env::var("BATON_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(5);
    println!("BATON_SEED={seed}");
    let events = if std::env::var_os("BATON_LONG").is_some() { 10_000_000 } else { 1_000_000 };
    let mut storm = Storm::new(seed);
    let mut most = Vec::with_capacity(PARTS);
    for part in 1..=PARTS as u64 {
        let mut bytes = 0;
        while storm.told < events * part / PARTS as u64 {
            storm.step();
            bytes = bytes.max(ALLOCATOR.current_usage());
        }
        storm.check();
        most.push(bytes);
    }
    println!("{} events; at most so many bytes in each fifth: {most:?}", storm.told);
    // A rarer coincidence may let one of the maps double once more. A byte per hundred events that
    // were forgotten would be more than that.
    assert!(most.iter().all(|bytes| bytes * 10 <= most[0] * 11), "{most:?}");
}
