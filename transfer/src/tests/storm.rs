//! Pulls that are given up at any moment, by the thousand: no slot lost, none back too early, no
//! byte where it was not asked for, nothing left behind. Each storm runs in a process of its own,
//! in which its descriptors and threads can be counted.
//!
//! `BATON_SEED` replays one, `BATON_LONG` makes each 100,000 pulls long.

use super::*;
use crate::sim::{Faults, Link};
use baton_kv::lease::Draft;
use std::process::Command;

const PULLED: u64 = 32;
/// What lies in a slot while it is nobody's destination.
const REST: u8 = 0x5a;
/// What lies in a destination before it is pulled into.
const EMPTY: u8 = 0xc3;

/// SplitMix64.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// How a storm went.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Tally {
    /// Pulls that were given up.
    given_up: u64,
    /// Those of which something was cut off.
    cut: u64,
    arrived: u64,
    failed: u64,
}

/// A puller whose every second slot is never lent, so that destinations have watched neighbours.
pub(super) struct Storm {
    rig: Rig,
    blocks: Vec<BlockDescriptor>,
    right: Vec<Vec<u8>>,
    /// Lie between the others and belong to nobody.
    watched: Vec<Draft>,
    dice: Dice,
    tally: Tally,
    faults: bool,
}

impl Storm {
    pub(super) async fn new(place: Place, seed: u64, slot_bytes: usize, faults: bool) -> Self {
        let mut place = place;
        let store = Store::new(PULLED as u32, slot_bytes);
        let owner = Owner::start(&mut place, store, 1, Guards::default()).await;
        let store = Store::new(16, slot_bytes);
        let puller = Puller::with(&place, Guards::default(), store, token());
        let mut dice = Dice::new(seed);
        let lens: Vec<usize> =
            (0..PULLED).map(|_| 1 + dice.below(slot_bytes as u64) as usize).collect();
        let blocks = lens.iter().zip(1..).map(|(&len, tag)| owner.publish(tag, len)).collect();
        let right = lens.iter().zip(1..).map(|(&len, tag)| content(tag, len)).collect();
        let all: Vec<_> = {
            let mut pool = pool::lock(&puller.store.pool);
            (0..16).map(|_| pool.draft().unwrap().0).collect()
        };
        for draft in &all {
            puller.store.arena.write(draft.slot().0).fill(REST);
        }
        let watched = all.into_iter().filter(|draft| draft.slot().0 % 2 == 1).collect();
        let rig = Rig { place, owner, puller };
        Self { rig, blocks, right, watched, dice, tally: Tally::default(), faults }
    }

    fn assert_rests(&self, draft: &Draft) {
        let slot = draft.slot().0;
        let rests = self.rig.puller.store.arena.read(slot).iter().all(|&byte| byte == REST);
        assert!(rests, "slot {slot} was written while it was nobody's destination");
    }

    /// Free slots with nothing in them, paired with blocks or parts of them.
    fn pulls(&mut self) -> (Vec<usize>, Vec<Pull>) {
        let (mut chosen, mut pulls) = (Vec::new(), Vec::new());
        for _ in 0..=self.dice.below(8) {
            let draft = pool::lock(&self.rig.puller.store.pool).draft().unwrap().0;
            self.assert_rests(&draft);
            self.rig.puller.store.arena.write(draft.slot().0).fill(EMPTY);
            let block = self.dice.below(PULLED) as usize;
            let from = self.blocks[block];
            let mut pull = Pull::whole(from, draft.lend());
            if self.dice.below(2) == 0 {
                let offset = self.dice.below(u64::from(from.len)) as u32;
                let len = 1 + self.dice.below(u64::from(from.len - offset)) as u32;
                pull.span = Span { offset, len };
            }
            chosen.push(block);
            pulls.push(pull);
        }
        (chosen, pulls)
    }

    /// What a destination holds is right where it should be, and empty beside.
    fn judge(&mut self, settled: Settled, block: usize, span: Span) {
        let (arrived, lease) = match settled {
            Settled::Arrived { lease, .. } => (true, lease),
            Settled::Failed { lease, error, .. } => {
                let allowed = match error {
                    TransferError::Cancelled | TransferError::Deadline => true,
                    _ => self.faults,
                };
                assert!(allowed, "{error}");
                (false, lease)
            }
        };
        let draft = lease.settle();
        let mut guard = self.rig.puller.store.arena.write(draft.slot().0);
        let range = span.range();
        assert!(
            !arrived || guard[range.clone()] == self.right[block][range.clone()],
            "wrong bytes"
        );
        let (before, after) = (&guard[..range.start], &guard[range.end..]);
        assert!(before.iter().chain(after).all(|&byte| byte == EMPTY), "written beside {span:?}");
        guard.fill(REST);
        *(if arrived { &mut self.tally.arrived } else { &mut self.tally.failed }) += 1;
    }

    /// Waits a little, somewhere between nothing and about the length of a pull.
    async fn moment(&mut self) {
        if self.rig.place.kind == TransportKind::Sim {
            let wait = self.dice.below(12);
            return tokio::time::sleep(Duration::from_millis(wait)).await;
        }
        for _ in 0..self.dice.below(12) {
            tokio::task::yield_now().await;
        }
    }

    /// One pull, given up in one of the ways there are, or not at all.
    async fn round(&mut self) {
        let (blocks, pulls) = self.pulls();
        let spans: Vec<Span> = pulls.iter().map(|pull| pull.span).collect();
        let way = self.dice.below(5);
        let deadline = match way {
            0 => Duration::from_micros(self.dice.below(4000)),
            _ => SOON,
        };
        let flight = self.rig.puller.transport.pull(&self.rig.owner.peer, pulls, deadline);
        let settled = match way {
            0 | 1 => Some(flight.settle().await),
            2 => {
                self.moment().await;
                flight.cancel();
                Some(flight.settle().await)
            }
            3 => {
                self.moment().await;
                drop(flight);
                None
            }
            _ => {
                let settle = flight.settle();
                tokio::select! {
                    biased;
                    () = self.moment() => None,
                    settled = settle => Some(settled),
                }
            }
        };
        self.tally.given_up += u64::from(way != 1);
        let before = self.tally.failed;
        if let Some(settled) = settled {
            assert_eq!(settled.len(), blocks.len());
            for ((settled, block), span) in settled.into_iter().zip(blocks).zip(spans) {
                self.judge(settled, block, span);
            }
        } else {
            // They come back by themselves, and only when nothing writes them any more.
            self.rig.puller.quiesce().await;
            self.tally.failed += blocks.len() as u64;
            self.settle_free();
        }
        self.tally.cut += u64::from(way != 1 && self.tally.failed > before);
        let Counts { free, draft, quarantined, .. } = self.rig.puller.store.counts();
        assert_eq!((free, draft, quarantined), (8, 8, 0));
        assert_eq!(self.rig.puller.store.arena.guards(), 0);
    }

    /// Puts what is free to rest.
    fn settle_free(&mut self) {
        let mut pool = pool::lock(&self.rig.puller.store.pool);
        let free: Vec<_> = std::iter::from_fn(|| pool.draft().ok()).collect();
        for (draft, _) in &free {
            self.rig.puller.store.arena.write(draft.slot().0).fill(REST);
        }
    }

    /// So many pulls; then everything is where it was.
    pub(super) async fn run(mut self, pulls: u64) -> Tally {
        for round in 0..pulls {
            self.round().await;
            if round % 64 == 0 {
                self.watched.iter().for_each(|draft| self.assert_rests(draft));
            }
        }
        self.watched.iter().for_each(|draft| self.assert_rests(draft));
        self.watched.clear();
        self.rig.finish().await;
        self.tally
    }
}

/// A network on which much goes wrong, drawn from a seed.
pub(super) fn swarm(seed: u64) -> (Link, Faults) {
    let mut dice = Dice::new(seed);
    let mut ppm = |most: u64| dice.below(most + 1) as u32;
    let link = Link {
        delay: Duration::from_micros(u64::from(ppm(2000))),
        jitter: Duration::from_micros(u64::from(ppm(5000))),
        bandwidth: (ppm(3) > 0).then_some(100_000_000),
        loss_ppm: ppm(100_000),
        duplicate_ppm: ppm(100_000),
        corrupt_ppm: ppm(30_000),
        reorder: ppm(1) == 1,
    };
    let faults = Faults {
        stall_ppm: ppm(50_000),
        stall: Duration::from_millis(u64::from(ppm(80))),
        short_ppm: ppm(10_000),
        late: Duration::from_millis(u64::from(ppm(30))),
    };
    (link, faults)
}

fn seed() -> u64 {
    let seed = std::env::var("BATON_SEED").map_or(20_261, |seed| seed.parse().unwrap());
    println!("BATON_SEED={seed}");
    seed
}

fn long() -> bool {
    std::env::var_os("BATON_LONG").is_some()
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Bytes and pulls: more than what one transport copies at once, and what its storm may take.
fn scale(kind: TransportKind) -> (usize, u64) {
    let (slot_bytes, short) = match kind {
        TransportKind::Shm => (128 << 10, 300),
        TransportKind::Sim => (12 << 10, 2000),
        _ => (16 << 10, 500),
    };
    (slot_bytes, if long() { 127_000 } else { short })
}

fn storm(kind: TransportKind) {
    // What the process and its runtime open once is open after a first, short storm.
    let seed = seed();
    let (slot_bytes, pulls) = scale(kind);
    let one = |pulls| {
        wires::run(kind, async move {
            let storm = Storm::new(Place::new(kind), seed, slot_bytes, false).await;
            let tally = storm.run(pulls).await;
            println!("{kind}: {tally:?}");
            assert!(tally.cut * 20 > tally.given_up && tally.arrived > 0, "{tally:?}");
            assert!(!long() || pulls < 1000 || tally.given_up >= 100_000, "{tally:?}");
        });
    };
    one(60);
    let before = open_descriptors();
    one(pulls);
    assert_eq!(open_descriptors(), before, "descriptors were left open");
}

/// Runs a test of this binary alone in a process.
fn alone(test: &str) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    print!("{said}");
}

macro_rules! storms {
    ($($name:ident $inside:ident $kind:ident)*) => {
        $(#[test]
        fn $name() {
            alone(concat!("tests::storm::", stringify!($inside)));
        }

        #[test]
        #[ignore = "run by another test, in a process of its own"]
        fn $inside() {
            storm(TransportKind::$kind);
        })*
    };
}
storms! {
    pulls_given_up_over_shm_leave_nothing_behind inside_shm Shm
    pulls_given_up_over_tcp_leave_nothing_behind inside_tcp Tcp
    pulls_given_up_over_sim_leave_nothing_behind inside_sim Sim
}

/// Loss, duplicates, damage, stalls and late writes together, from many seeds.
#[test]
fn a_network_on_which_everything_goes_wrong_costs_time_only() {
    let first = seed();
    let (seeds, pulls) = if long() { (400, 1000) } else { (20, 500) };
    let mut total = Tally::default();
    for seed in first..first + seeds {
        wires::run(TransportKind::Sim, async {
            let (link, faults) = swarm(seed);
            let place = Place::rough(TransportKind::Sim, seed, link, faults);
            let storm = Storm::new(place, seed, 12 << 10, true).await;
            let tally = storm.run(pulls).await;
            total.arrived += tally.arrived;
            total.failed += tally.failed;
        });
    }
    println!("{total:?}");
    assert!(total.arrived * 5 > total.failed && total.failed > total.arrived / 20, "{total:?}");
}

#[test]
fn equal_seeds_give_equal_runs() {
    let run = |seed: u64| {
        let mut outcome = None;
        wires::run(TransportKind::Sim, async {
            let (link, faults) = swarm(seed);
            let place = Place::rough(TransportKind::Sim, seed, link, faults);
            let fabric = place.fabric().clone();
            let tally = Storm::new(place, seed, 12 << 10, true).await.run(100).await;
            outcome = Some((tally, fabric.fingerprint()));
        });
        outcome.unwrap()
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3).1, run(4).1);
}
