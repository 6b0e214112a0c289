//! What is measured upon: an index of agents' conversations, and one long chain that a thousand
//! workers hold to many depths. All of it follows from numbers; nothing is stored but the index.

use crate::chance::{Chance, mix};
use crate::measure::{Times, timed};
use baton_kv::events::{Batch, BlockEvent};
use baton_kv::index::{Index, IndexConfig, Match};
use baton_kv::{BlockId, Tier};
use baton_proto::ids::{GroupId, Incarnation, SequenceHash, WorkerId};
use std::collections::HashMap;
use std::time::Duration;

pub(super) const GROUP: GroupId = GroupId(0);
pub(super) const RUN: Incarnation = Incarnation(1);
/// Events that travel together: what a chunk of 2,048 tokens gives.
pub(super) const BATCH_EVENTS: usize = 32;
/// A system prompt with tools: 20,000 tokens in blocks of 64.
pub(super) const PROMPT_BLOCKS: usize = 312;
/// System prompts that the conversations share.
const PROMPTS: u64 = 16;
/// What is new in a turn: 700 tokens.
const TURN_BLOCKS: usize = 11;
/// The longest conversation: 128,000 tokens.
const LONGEST_BLOCKS: u64 = 2_000;
/// A prompt of 110,000 tokens.
pub(super) const LONG_BLOCKS: usize = 1_719;
/// So many conversations, out of which one asks for just that.
const ONE_IS_LONG: u64 = 4;
/// To how many distinct depths the one chain is held that all workers have.
pub(super) const DEPTHS: usize = 32;
/// Its number, beyond those of all conversations.
const DEEP: u64 = 1 << 40;

/// A chain of blocks, by its number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chain(pub(super) u64);

impl Chain {
    /// A random one of those that ask for [`LONG_BLOCKS`].
    pub(super) fn long(chains: u64, chance: &mut Chance) -> Self {
        Self(chance.below(chains.div_ceil(ONE_IS_LONG)) * ONE_IS_LONG)
    }

    /// How many blocks its conversation has so far.
    pub(super) fn blocks(self) -> usize {
        if self.0 == DEEP {
            return LONG_BLOCKS;
        }
        if self.0.is_multiple_of(ONE_IS_LONG) {
            return LONG_BLOCKS - TURN_BLOCKS;
        }
        let beyond = mix(self.0 ^ 0xC0FF_EE00) % (LONGEST_BLOCKS - PROMPT_BLOCKS as u64);
        PROMPT_BLOCKS + 1 + beyond as usize
    }

    fn hash(self, at: usize) -> SequenceHash {
        let shared = at < PROMPT_BLOCKS && self.0 != DEEP;
        let chain = if shared { self.0 % PROMPTS } else { self.0 + PROMPTS };
        let (low, high) = (mix(chain << 20 | at as u64), mix(mix(chain) ^ at as u64));
        SequenceHash((u128::from(low) | u128::from(high) << 64).to_le_bytes())
    }

    fn id(self, at: usize) -> BlockId {
        let parent = at.checked_sub(1).map(|before| self.hash(before));
        BlockId { hash: self.hash(at), parent, group: GROUP }
    }

    /// What a turn asks for: all so far, and what is new.
    pub(super) fn asked(self) -> Vec<SequenceHash> {
        let new = if self.0 == DEEP { 0 } else { TURN_BLOCKS };
        (0..self.blocks() + new).map(|at| self.hash(at)).collect()
    }
}

/// The index with its truth beside it, and the time that its writer took.
#[derive(Debug)]
pub(super) struct World {
    pub(super) index: Index,
    workers: u64,
    pub(super) chains: u64,
    /// How many of a conversation's leading blocks each of its two workers holds, where any.
    depths: HashMap<(u64, u32), usize>,
    /// Of each full batch that was applied.
    pub(super) batches: Times,
    /// In applying batches.
    pub(super) spent: Duration,
    /// Events applied.
    pub(super) events: u64,
}

impl World {
    /// An empty index that so many workers have joined.
    pub(super) fn new(workers: u64, chains: u64) -> Self {
        let mut index = Index::new(IndexConfig {
            workers_max: workers as usize,
            blocks_per_worker_max: 1 << 24,
            blocks_max: 1 << 28,
            pending_max: 0,
        });
        for worker in 0..workers {
            index.join(WorkerId(worker as u32), RUN).expect("there is room for each");
        }
        let (depths, batches) = (HashMap::new(), Times::default());
        Self { index, workers, chains, depths, batches, spent: Duration::ZERO, events: 0 }
    }

    /// The worker that decodes a conversation, or the one that prefilled it.
    pub(super) fn worker(&self, chain: Chain, side: u32) -> WorkerId {
        let first = mix(chain.0) % self.workers;
        WorkerId(((first + u64::from(side) * 7) % self.workers) as u32)
    }

    fn depth(&self, chain: Chain, side: u32) -> usize {
        self.depths.get(&(chain.0, side)).copied().unwrap_or(0)
    }

    /// Lets a conversation's worker hold that many leading blocks: publishes the missing ones in
    /// order, or removes from the end.
    pub(super) fn set_depth(&mut self, chain: Chain, side: u32, depth: usize) {
        let now = self.depth(chain, side);
        self.tell(self.worker(chain, side), chain, now, depth);
        self.depths.insert((chain.0, side), depth);
    }

    /// Grows or shrinks a random conversation at one of its workers.
    pub(super) fn churn(&mut self, chance: &mut Chance) {
        let chain = Chain(chance.below(self.chains));
        let depth = chance.between(PROMPT_BLOCKS as u64, chain.blocks() as u64);
        self.set_depth(chain, chance.below(2) as u32, depth as usize);
    }

    /// The decode worker holds all of each conversation, the prefill worker all but the last
    /// answer.
    pub(super) fn fill(&mut self) {
        for chain in (0..self.chains).map(Chain) {
            self.set_depth(chain, 0, chain.blocks());
        }
        for chain in (0..self.chains).map(Chain) {
            self.set_depth(chain, 1, chain.blocks() - 1);
        }
    }

    /// All workers hold the one long chain, each to one of the depths; returns who to which.
    pub(super) fn fill_deep(&mut self, chance: &mut Chance) -> (Chain, Vec<Match>) {
        let chain = Chain(DEEP);
        let mut depths: Vec<usize> = Vec::new();
        while depths.len() < DEPTHS {
            let depth = 1 + chance.below(LONG_BLOCKS as u64) as usize;
            if !depths.contains(&depth) {
                depths.push(depth);
            }
        }
        let mut all = Vec::new();
        for worker in (0..self.workers).map(|worker| WorkerId(worker as u32)) {
            let depth = depths[mix(u64::from(worker.0)) as usize % DEPTHS];
            self.tell(worker, chain, 0, depth);
            all.push(Match { worker, depth, tier: Tier::Device });
        }
        (chain, all)
    }

    /// A worker leaves with all it has, and joins again with nothing.
    pub(super) fn restart(&mut self, worker: WorkerId) {
        self.index.remove_worker(worker);
        self.index.join(worker, RUN).expect("its place is free");
        let gone: Vec<_> = self.depths.keys().copied().collect();
        for (chain, side) in gone {
            if self.worker(Chain(chain), side) == worker {
                self.depths.remove(&(chain, side));
            }
        }
    }

    fn tell(&mut self, worker: WorkerId, chain: Chain, from: usize, to: usize) {
        let events: Vec<_> = if to > from {
            (from..to).map(|at| BlockEvent::published(&chain.id(at), Tier::Device)).collect()
        } else {
            (to..from).rev().map(|at| BlockEvent::removed(&chain.id(at).key())).collect()
        };
        let (_, mut first_seq) = self.index.position(worker).expect("it has joined");
        for events in events.chunks(BATCH_EVENTS) {
            let batch = Batch { snapshot: false, first_seq, events: events.to_vec() };
            let (applied, took) = timed(|| self.index.apply(worker, RUN, &batch));
            applied.expect("there is no gap");
            if events.len() == BATCH_EVENTS {
                self.batches.add(took);
            }
            self.spent += took;
            first_seq = batch.next_seq();
        }
        self.events += events.len() as u64;
    }

    /// Whether a lookup of a conversation finds who holds it, each to its depth, the deepest first.
    pub(super) fn is_exact(&self, chain: Chain) -> bool {
        let found = self.index.matches(&chain.asked(), GROUP);
        let deepest_first = found.is_sorted_by_key(|found| std::cmp::Reverse(found.depth));
        let mut found: Vec<_> = found.iter().map(|found| (found.worker, found.depth)).collect();
        found.sort_unstable();
        deepest_first && found == self.truth(chain)
    }

    fn truth(&self, chain: Chain) -> Vec<(WorkerId, usize)> {
        let prompt = chain.0 % PROMPTS;
        let mut deepest: HashMap<WorkerId, usize> = HashMap::new();
        for other in (0..self.chains).filter(|other| other % PROMPTS == prompt).map(Chain) {
            for side in [0, 1] {
                let held = self.depth(other, side);
                let shared = if other.0 == chain.0 { held } else { held.min(PROMPT_BLOCKS) };
                let deepest = deepest.entry(self.worker(other, side)).or_default();
                *deepest = shared.max(*deepest);
            }
        }
        let mut all: Vec<_> = deepest.into_iter().filter(|(_, depth)| *depth > 0).collect();
        all.sort_unstable();
        all
    }
}
