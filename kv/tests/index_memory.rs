//! What the index costs per block, counted by the allocator, and that churn does not add to it.
//! Alone in its process: other tests would be counted too.

use baton_kv::events::{Batch, BlockEvent};
use baton_kv::index::{Index, IndexConfig};
use baton_kv::{BlockId, Tier};
use baton_proto::ids::{GroupId, Incarnation, SequenceHash, WorkerId};
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const RUN: Incarnation = Incarnation(1);
const CHAIN: u64 = 100;
const WORKERS: u32 = 8;

fn hash(block: u64) -> SequenceHash {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&block.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes());
    bytes[8..].copy_from_slice(&block.wrapping_mul(0xBF58_476D_1CE4_E5B9).to_le_bytes());
    SequenceHash(bytes)
}

/// Chains of a hundred blocks.
fn id(block: u64) -> BlockId {
    let parent = (!block.is_multiple_of(CHAIN)).then(|| hash(block - 1));
    BlockId { hash: hash(block), parent, group: GroupId(0) }
}

fn index(blocks_max: usize) -> Index {
    let mut index = Index::new(IndexConfig {
        workers_max: 64,
        blocks_per_worker_max: blocks_max,
        blocks_max,
        pending_max: 0,
    });
    (0..WORKERS).for_each(|worker| assert!(index.join(WorkerId(worker), RUN).is_ok()));
    index
}

/// Publishes or removes one whole chain.
fn tell(index: &mut Index, worker: u32, chain: u64, publish: bool) {
    let blocks = chain * CHAIN..(chain + 1) * CHAIN;
    let events = if publish {
        blocks.map(|block| BlockEvent::published(&id(block), Tier::Device)).collect()
    } else {
        blocks.rev().map(|block| BlockEvent::removed(&id(block).key())).collect()
    };
    let worker = WorkerId(worker);
    let Some((run, first_seq)) = index.position(worker) else { return };
    let batch = Batch { snapshot: false, first_seq, events };
    assert!(index.apply(worker, run, &batch).is_ok());
}

/// Bytes per distinct block after so many chains, each held by that many workers.
fn bytes_per_block(chains: u64, holders: u32) -> f64 {
    let mut index = index(1 << 24);
    let empty = ALLOCATOR.current_usage();
    for chain in 0..chains {
        let first = (chain % u64::from(WORKERS)) as u32;
        (first..first + holders).for_each(|w| tell(&mut index, w % WORKERS, chain, true));
    }
    assert_eq!(index.blocks() as u64, chains * CHAIN);
    (ALLOCATOR.current_usage() - empty) as f64 / (chains * CHAIN) as f64
}

#[test]
fn a_block_costs_what_the_documentation_says_and_churn_nothing() {
    // Around a doubling of everything, where the most is allocated in advance.
    for chains in [600, 1_000, 2_700] {
        let one = bytes_per_block(chains, 1);
        let two = bytes_per_block(chains, 2);
        println!(
            "{} blocks: {one:.1} bytes per block with one holder, {two:.1} with two",
            chains * CHAIN
        );
        assert!(one <= 61.0, "{one} bytes per block");
        assert!(two <= 64.0, "{two} bytes per block");
    }
    churn();
}

/// Workers take up and give up chains for a long time, always about as many as before.
fn churn() {
    let rounds = if std::env::var_os("BATON_LONG").is_some() { 50_000 } else { 1_500 };
    let mut index = index(1 << 20);
    let mut usage = Vec::new();
    for chain in 0..rounds {
        (0..3).for_each(|k| tell(&mut index, ((chain + k) % 8) as u32, chain, true));
        if chain >= 300 {
            let old = chain - 300;
            (0..3).for_each(|k| tell(&mut index, ((old + k) % 8) as u32, old, false));
        }
        if chain.is_multiple_of(300) {
            let worker = WorkerId((chain / 300 % 8) as u32);
            assert!(index.remove_worker(worker) && index.join(worker, RUN).is_ok());
        }
        usage.push(ALLOCATOR.current_usage());
    }
    let settled = usage[700..1_000].iter().max();
    let later = usage[1_000..].iter().max();
    println!("{settled:?} bytes at most in the first rounds, {later:?} in all later ones");
    assert!(later.zip(settled).is_some_and(|(later, settled)| later * 20 <= settled * 21));
}
