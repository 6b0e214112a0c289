//! Operations of another index's benchmark, out of a file: the same lookups and events, block by
//! block and deadline by deadline, and what a naive model says of them.
//!
//! Little endian: a mark, the window in nanoseconds, and for each operation its kind, its deadline
//! in nanoseconds, its worker, how many numbers follow, and these. Of a lookup they are the blocks'
//! own hashes; of blocks that were stored whether there is a block before them, that one, and each
//! block's name and own hash; of blocks that were removed their names.

use crate::chance::mix;
use crate::world::GROUP;
use baton_kv::events::{Batch, BlockEvent};
use baton_kv::index::Match;
use baton_kv::{BlockId, BlockKey, Tier};
use baton_proto::ids::{EventSeq, SequenceHash, WorkerId};
use std::collections::{BTreeMap, HashMap, HashSet};

const MARK: &[u8] = b"MOONOPS1";
/// Workers of a trace, at most.
const WORKERS_MAX: u32 = 4_096;

/// One operation.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) deadline_ns: u64,
    pub(super) worker: WorkerId,
    pub(super) what: What,
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum What {
    Lookup(Vec<SequenceHash>),
    Events(Batch),
}

/// All operations, by deadline.
#[derive(Debug, Default)]
pub(super) struct Trace {
    pub(super) operations: Vec<Operation>,
    pub(super) window_ns: u64,
    pub(super) workers: u32,
    pub(super) lookups: u64,
    pub(super) lookup_blocks: u64,
    pub(super) event_blocks: u64,
}

/// Numbers from a file.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (taken, rest) = self.0.split_first_chunk().ok_or("the file ends too early")?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u64(&mut self) -> Result<u64, String> {
        self.take().map(u64::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.take().map(u32::from_le_bytes)
    }
}

/// The chain's name after one more block.
fn next(parent: Option<SequenceHash>, block: u64) -> SequenceHash {
    let before = parent.map_or(0, |parent| u128::from_le_bytes(parent.0));
    let low = mix(before as u64 ^ block.rotate_left(17));
    let high = mix((before >> 64) as u64 ^ low ^ block);
    SequenceHash((u128::from(low) | u128::from(high) << 64).to_le_bytes())
}

/// Finds out what the blocks of the other index are called here.
#[derive(Default)]
struct Names {
    by_name: HashMap<u64, SequenceHash>,
    next_seq: BTreeMap<u32, u64>,
}

impl Names {
    fn known(&self, name: u64) -> Result<SequenceHash, String> {
        let known = self.by_name.get(&name).copied();
        known.ok_or_else(|| format!("block {name:x} was never stored"))
    }

    fn stored(&mut self, numbers: &[u64]) -> Result<Vec<BlockEvent>, String> {
        let ([has_parent, parent], blocks) =
            numbers.split_first_chunk().ok_or("blocks without a beginning")?;
        let mut parent = if *has_parent == 1 { Some(self.known(*parent)?) } else { None };
        let mut events = Vec::with_capacity(blocks.len() / 2);
        for pair in blocks.chunks_exact(2) {
            let hash = next(parent, pair[1]);
            if *self.by_name.entry(pair[0]).or_insert(hash) != hash {
                return Err(format!("two blocks are called {:x}", pair[0]));
            }
            let id = BlockId { hash, parent, group: GROUP };
            events.push(BlockEvent::published(&id, Tier::Device));
            parent = Some(hash);
        }
        Ok(events)
    }

    fn removed(&self, numbers: &[u64]) -> Result<Vec<BlockEvent>, String> {
        let event =
            |name| Ok(BlockEvent::removed(&BlockKey { hash: self.known(name)?, group: GROUP }));
        numbers.iter().map(|name| event(*name)).collect()
    }

    fn batch(&mut self, worker: u32, events: Vec<BlockEvent>) -> Batch {
        let next = self.next_seq.entry(worker).or_insert(1);
        let first_seq = EventSeq(*next);
        *next += events.len() as u64;
        Batch { snapshot: false, first_seq, events }
    }
}

impl Trace {
    pub(super) fn read(path: &str) -> Result<Self, String> {
        let file = std::fs::read(path).map_err(|error| format!("{path}: {error}"))?;
        let mut bytes = Bytes(file.strip_prefix(MARK).ok_or("the file has not the right mark")?);
        let mut trace = Trace { window_ns: bytes.u64()?.max(1), ..Trace::default() };
        let mut names = Names::default();
        while !bytes.0.is_empty() {
            trace.add(&mut bytes, &mut names)?;
        }
        Ok(trace)
    }

    fn add(&mut self, bytes: &mut Bytes<'_>, names: &mut Names) -> Result<(), String> {
        let ([kind], deadline_ns, worker) = (bytes.take()?, bytes.u64()?, bytes.u32()?);
        if worker >= WORKERS_MAX {
            return Err(format!("worker {worker} is beyond the first {WORKERS_MAX}"));
        }
        self.workers = self.workers.max(worker + 1);
        let count = bytes.u32()?;
        let numbers = (0..count).map(|_| bytes.u64()).collect::<Result<Vec<_>, _>>()?;
        let what = if kind == 0 {
            let chain = numbers.iter().scan(None, |before, block| {
                *before = Some(next(*before, *block));
                *before
            });
            self.lookups += 1;
            self.lookup_blocks += numbers.len() as u64;
            What::Lookup(chain.collect())
        } else {
            let events = match kind {
                1 => names.stored(&numbers)?,
                2 => names.removed(&numbers)?,
                _ => return Err(format!("operations of kind {kind} are not played")),
            };
            self.event_blocks += events.len() as u64;
            What::Events(names.batch(worker, events))
        };
        self.operations.push(Operation { deadline_ns, worker: WorkerId(worker), what });
        Ok(())
    }

    pub(super) fn chains(&self) -> impl Iterator<Item = &[SequenceHash]> {
        self.operations.iter().filter_map(|operation| match &operation.what {
            What::Lookup(chain) => Some(&chain[..]),
            What::Events(_) => None,
        })
    }

    /// What is held after all events, worker by worker.
    pub(super) fn truth(&self) -> Truth {
        let mut held = vec![HashSet::new(); self.workers as usize];
        for Operation { worker, what, .. } in &self.operations {
            let What::Events(batch) = what else { continue };
            let held = &mut held[worker.0 as usize];
            for event in &batch.events {
                match event.kind {
                    baton_kv::events::EventKind::Published => held.insert(event.hash.0),
                    baton_kv::events::EventKind::Removed => held.remove(&event.hash.0),
                };
            }
        }
        Truth(held)
    }
}

/// Each worker's blocks.
#[derive(Debug)]
pub(super) struct Truth(Vec<HashSet<[u8; 16]>>);

impl Truth {
    /// Who holds the beginning of a chain, by worker.
    pub(super) fn matches(&self, chain: &[SequenceHash]) -> Vec<Match> {
        let depth =
            |held: &HashSet<_>| chain.iter().take_while(|hash| held.contains(&hash.0)).count();
        let matches = (0..).map(WorkerId).zip(self.0.iter().map(depth));
        let matches = matches.filter(|(_, depth)| *depth > 0);
        matches.map(|(worker, depth)| Match { worker, depth, tier: Tier::Device }).collect()
    }

    /// Distinct blocks that are held.
    pub(super) fn blocks(&self) -> usize {
        self.0.iter().flatten().collect::<HashSet<_>>().len()
    }
}
