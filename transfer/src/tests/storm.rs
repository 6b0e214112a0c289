//! Pulls that are given up at any moment, by the thousand: no slot lost, none back too early, no
//! byte where it was not asked for, nothing left behind. Each storm runs in a process of its own,
//! in which its descriptors and threads can be counted.
//!
//! `BATON_SEED` replays one, `BATON_LONG` makes each 100,000 pulls long.

use super::*;
use crate::guards::Guard;
use crate::sim::{Faults, Link};
use baton_kv::lease::Draft;
use std::process::Command;
use tokio::time::Instant;

/// Blocks of the owner.
const HELD: u32 = 32;
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
    /// Those of which something had not come.
    cut: u64,
    arrived: u64,
    failed: u64,
}

/// What a storm is made of.
#[derive(Clone, Copy)]
pub(super) struct Weather {
    pub(super) seed: u64,
    pub(super) slot_bytes: usize,
    /// Errors other than those of whoever gives up are to be expected, and owners come and go.
    pub(super) rough: bool,
    pub(super) guards: Guards,
}

/// One destination of a pull.
#[derive(Clone, Copy)]
struct Aim {
    block: usize,
    span: Span,
    slot: u32,
}

/// A pull, and how it is given up.
struct Attempt {
    aims: Vec<Aim>,
    flight: InFlight,
    way: Way,
    wait: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Never,
    Deadline,
    Cancel,
    Drop,
    DropSettling,
}

/// A puller whose every second slot is never lent, so that destinations have watched neighbours.
pub(super) struct Storm {
    rig: Rig,
    weather: Weather,
    blocks: Vec<BlockDescriptor>,
    right: Vec<Vec<u8>>,
    /// Lie between the others and belong to nobody.
    watched: Vec<Draft>,
    dice: Dice,
    tally: Tally,
}

impl Storm {
    pub(super) async fn new(mut place: Place, weather: Weather) -> Self {
        let Weather { seed, slot_bytes, guards, .. } = weather;
        let owner = Owner::start(&mut place, Store::new(HELD, slot_bytes), 1, guards).await;
        let puller = Puller::with(&place, guards, Store::new(16, slot_bytes), token());
        let mut dice = Dice::new(seed);
        let lens = (0..HELD).map(|_| 1 + dice.below(slot_bytes as u64) as usize);
        let right: Vec<_> = lens.zip(1..).map(|(len, tag)| content(tag, len)).collect();
        let all: Vec<_> = {
            let mut pool = pool::lock(&puller.store.pool);
            (0..16).map(|_| pool.draft().unwrap().0).collect()
        };
        for draft in &all {
            puller.store.arena.write(draft.slot().0).fill(REST);
        }
        let watched = all.into_iter().filter(|draft| draft.slot().0 % 2 == 1).collect();
        let rig = Rig { place, owner, puller };
        let tally = Tally::default();
        let mut storm = Self { rig, weather, blocks: Vec::new(), right, watched, dice, tally };
        storm.publish();
        storm
    }

    fn publish(&mut self) {
        let owner = &self.rig.owner;
        let publish = |(right, tag): (&Vec<u8>, u64)| owner.publish_bytes(tag, right);
        self.blocks = self.right.iter().zip(1..).map(publish).collect();
    }

    fn assert_rests(&self, draft: &Draft) {
        let slot = draft.slot().0;
        let rests = self.rig.puller.store.arena.read(slot).iter().all(|&byte| byte == REST);
        assert!(rests, "slot {slot} was written while it was nobody's destination");
    }

    /// Begins to pull some blocks or parts of them into slots with nothing in them.
    fn attempt(&mut self) -> Attempt {
        let (mut aims, mut pulls) = (Vec::new(), Vec::new());
        for _ in 0..=self.dice.below(4) {
            let draft = pool::lock(&self.rig.puller.store.pool).draft().unwrap().0;
            self.assert_rests(&draft);
            let slot = draft.slot().0;
            self.rig.puller.store.arena.write(slot).fill(EMPTY);
            let block = self.dice.below(u64::from(HELD)) as usize;
            let from = self.blocks[block];
            let mut pull = Pull::whole(from, draft.lend());
            if self.dice.below(2) == 0 {
                let offset = self.dice.below(u64::from(from.len)) as u32;
                let len = 1 + self.dice.below(u64::from(from.len - offset)) as u32;
                pull.span = Span { offset, len };
            }
            aims.push(Aim { block, span: pull.span, slot });
            pulls.push(pull);
        }
        let way = match self.dice.below(5) {
            0 => Way::Deadline,
            1 => Way::Never,
            2 => Way::Cancel,
            3 => Way::Drop,
            _ => Way::DropSettling,
        };
        let deadline = match way {
            Way::Deadline => Duration::from_micros(self.dice.below(4000)),
            _ => SOON,
        };
        let wait = if self.dice.below(2) == 0 { 0 } else { self.dice.below(12) };
        let flight = self.rig.puller.transport.pull(&self.rig.owner.peer, pulls, deadline);
        Attempt { aims, flight, way, wait }
    }

    /// What a destination holds is empty beside what was asked for, and right there if it arrived.
    /// Says whether it did, and puts the slot to rest.
    fn judge(&self, aim: Aim, arrived: Option<bool>) -> bool {
        let Aim { block, span, slot } = aim;
        let mut guard = self.rig.puller.store.arena.write(slot);
        let range = span.range();
        let right = guard[range.clone()] == self.right[block][range.clone()];
        assert!(right || arrived != Some(true), "wrong bytes in slot {slot}");
        let (before, after) = (&guard[..range.start], &guard[range.end..]);
        assert!(before.iter().chain(after).all(|&byte| byte == EMPTY), "written beside {span:?}");
        guard.fill(REST);
        arrived.unwrap_or(right)
    }

    /// Whether a block arrived; an error has to be one that this weather brings.
    fn arrived(&self, settled: Settled) -> bool {
        match settled {
            Settled::Arrived { lease, .. } => {
                drop(lease.settle());
                true
            }
            Settled::Failed { lease, error, .. } => {
                let given_up = matches!(error, TransferError::Cancelled | TransferError::Deadline);
                // Only a queue pair in the error state gives back what was posted for a pull that
                // is out of time; what others had on the same connection is lost with it.
                let overdue = error == TransferError::LinkFailed { fault: LinkFault::Overdue };
                assert!(given_up || overdue || self.weather.rough, "{error}");
                drop(lease.settle());
                false
            }
        }
    }

    /// Up to two pulls side by side, each given up in its way, and perhaps an owner that dies.
    async fn round(&mut self) {
        let attempts: Vec<_> = (0..=self.dice.below(2)).map(|_| self.attempt()).collect();
        let kind = self.rig.place.kind;
        let aims: Vec<_> =
            attempts.iter().map(|attempt| (attempt.way, attempt.aims.clone())).collect();
        let ends = attempts.into_iter().map(|attempt| give_up(kind, attempt));
        let ends = futures_util::future::join_all(ends);
        let ends = if self.weather.rough && self.dice.below(40) == 0 {
            tokio::join!(ends, self.disturb()).0
        } else {
            ends.await
        };
        // What was dropped comes back by itself, and only when nothing writes it any more.
        let held: usize = ends.iter().flatten().map(Vec::len).sum();
        self.rig.puller.quiesce_but(8 + held as u32).await;
        for ((way, aims), settled) in aims.into_iter().zip(ends) {
            let mut outcomes = vec![None; aims.len()];
            if let Some(settled) = settled {
                assert_eq!(settled.len(), aims.len());
                outcomes = settled.into_iter().map(|one| Some(self.arrived(one))).collect();
            }
            let came = aims.iter().zip(outcomes).filter(|(aim, said)| self.judge(**aim, *said));
            let (came, all) = (came.count() as u64, aims.len() as u64);
            self.tally.arrived += came;
            self.tally.failed += all - came;
            self.tally.given_up += u64::from(way != Way::Never);
            self.tally.cut += u64::from(way != Way::Never && came < all);
        }
        let Counts { free, draft, quarantined, .. } = self.rig.puller.store.counts();
        assert_eq!((free, draft, quarantined), (8, 8, 0));
        assert_eq!(self.rig.puller.store.arena.guards(), 0);
    }

    /// The owner dies in the middle of it and comes back as another run, or does nothing for a
    /// while.
    async fn disturb(&mut self) {
        tokio::time::sleep(Duration::from_millis(self.dice.below(8))).await;
        let fabric = self.rig.place.fabric().clone();
        if self.dice.below(2) == 0 {
            fabric.freeze(wires::NODE);
            tokio::time::sleep(Duration::from_millis(self.dice.below(100))).await;
            return fabric.thaw(wires::NODE);
        }
        fabric.kill(wires::NODE);
        self.rig.owner.stop().await;
        let store = Store::new(HELD, self.weather.slot_bytes);
        let run = self.rig.owner.peer.incarnation.0 + 1;
        self.rig.owner = Owner::start(&mut self.rig.place, store, run, self.weather.guards).await;
        self.publish();
    }

    /// So many pulls, about; then everything is where it was.
    pub(super) async fn run(mut self, rounds: u64) -> Tally {
        for round in 0..rounds {
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

/// Ends a pull in its way; nothing where whoever asked does not get to hear of it.
async fn give_up(kind: TransportKind, attempt: Attempt) -> Option<Vec<Settled>> {
    let Attempt { flight, way, wait, .. } = attempt;
    // Somewhere between nothing and about the length of a pull.
    let moment = async {
        if kind == TransportKind::Sim {
            return tokio::time::sleep(Duration::from_millis(wait)).await;
        }
        for _ in 0..wait {
            tokio::task::yield_now().await;
        }
    };
    match way {
        Way::Never | Way::Deadline => Some(flight.settle().await),
        Way::Cancel => {
            moment.await;
            flight.cancel();
            Some(flight.settle().await)
        }
        Way::Drop => {
            moment.await;
            drop(flight);
            None
        }
        Way::DropSettling => {
            let settle = flight.settle();
            tokio::select! {
                biased;
                () = moment => None,
                settled = settle => Some(settled),
            }
        }
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

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Bytes of a slot, so that pulls take a while; and rounds.
fn scale(kind: TransportKind) -> (usize, u64) {
    let (slot_bytes, short) = match kind {
        TransportKind::Shm => (256 << 10, 150),
        TransportKind::Sim => (12 << 10, 1000),
        // More than 1000 pulls given up: what a real card would go on writing is the point of it.
        TransportKind::Verbs => (16 << 10, 900),
        TransportKind::Tcp => (16 << 10, 250),
    };
    (slot_bytes, if long() { 84_000 } else { short })
}

fn storm(kind: TransportKind) {
    // What the process and its runtime open once is open after a first, short storm.
    let seed = seed();
    let (slot_bytes, rounds) = scale(kind);
    let one = |rounds| {
        wires::run(kind, async move {
            let weather = Weather { seed, slot_bytes, rough: false, guards: Guards::default() };
            let storm = Storm::new(Place::new(kind), weather).await;
            let tally = storm.run(rounds).await;
            println!("{kind}: {tally:?}");
            assert!(tally.arrived > 0, "{tally:?}");
            assert!(rounds < 100 || tally.cut > 0, "{tally:?}");
            assert!(!long() || rounds < 1000 || tally.given_up >= 100_000, "{tally:?}");
        });
    };
    one(60);
    let before = (open_descriptors(), threads());
    one(rounds);
    assert_eq!(open_descriptors(), before.0, "descriptors were left open");
    // A thread that was joined may be listed for a moment.
    let until = Instant::now() + SOON;
    while threads() > before.1 {
        assert!(Instant::now() < until, "threads were left running");
        std::thread::yield_now();
    }
}

/// Runs a test of this binary alone in a process.
fn alone(test: &str) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{complained}");
    print!("{said}");
}

macro_rules! storms {
    ($($name:ident $inside:ident $kind:ident)*) => {
        $(#[test]
        fn $name() {
            if TransportKind::$kind == TransportKind::Verbs && fabric::device().is_none() {
                return;
            }
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
    pulls_given_up_over_verbs_leave_nothing_behind inside_verbs Verbs
}

/// A storm over a network on which much goes wrong, and what the network says of it.
fn rough(seed: u64, rounds: u64, guards: Guards) -> (Tally, u64) {
    let mut outcome = None;
    wires::run(TransportKind::Sim, async {
        let (link, faults) = swarm(seed);
        let place = Place::rough(TransportKind::Sim, seed, link, faults);
        let fabric = place.fabric().clone();
        let weather = Weather { seed, slot_bytes: 12 << 10, rough: true, guards };
        let tally = Storm::new(place, weather).await.run(rounds).await;
        outcome = Some((tally, fabric.fingerprint()));
    });
    outcome.unwrap()
}

/// Loss, duplicates, damage, stalls, late writes and owners that die, together, from many seeds.
#[test]
fn a_network_on_which_everything_goes_wrong_costs_time_only() {
    let first = seed();
    let (seeds, rounds) = if long() { (400, 600) } else { (20, 350) };
    let mut total = Tally::default();
    for seed in first..first + seeds {
        let (tally, _) = rough(seed, rounds, Guards::default());
        total.given_up += tally.given_up;
        total.cut += tally.cut;
        total.arrived += tally.arrived;
        total.failed += tally.failed;
    }
    println!("{total:?}");
    assert!(total.arrived * 5 > total.failed && total.failed > total.arrived / 20, "{total:?}");
}

#[test]
fn equal_seeds_give_equal_runs() {
    let run = |seed| rough(seed, 100, Guards::default());
    assert_eq!(run(3), run(3));
    assert_ne!(run(3).1, run(4).1);
}

/// Whether storms like these find out that a guard is missing.
fn noticed(guard: Guard) -> bool {
    let storm = |seed| rough(seed, 200, Guards::without(guard));
    // A test that panics as it should need not say so.
    let silent = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let noticed = (1..20).any(|seed| std::panic::catch_unwind(|| storm(seed)).is_err());
    std::panic::set_hook(silent);
    noticed
}

#[test]
#[ignore = "run by another test, in a process of its own"]
fn inside_unguarded() {
    assert!(noticed(Guard::Crc), "wrong bytes");
    assert!(noticed(Guard::Quiet), "slots that are back too early");
}

#[test]
fn storms_notice_a_missing_guard() {
    alone("tests::storm::inside_unguarded");
}
