//! The pool against a model that is too simple to be wrong: lists, searched from end to end.
#![allow(clippy::unwrap_used)]

use super::gate_tests::Readers;
use super::*;
use crate::events::EventKind;
use crate::lease::WriteLease;
use crate::retention::Retention;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashSet};

const SLOTS: u32 = 6;
const BLOCKS: u8 = 14;
const LEASES_MAX: usize = 3;
const OWNER: WorkerId = WorkerId(1);
const RUN: Incarnation = Incarnation(2);

#[derive(Clone, Debug)]
enum Step {
    Draft,
    DropDraft(usize),
    Lend(usize),
    Settle(usize),
    /// Now and then a writer is never heard of again.
    Lose(usize),
    Seal(usize, u8),
    DropSealed(usize),
    Publish(usize),
    Pin(u8),
    PinPrefix(u8),
    Clone(usize),
    DropPin(usize),
    Lease(usize, usize, u64),
    Extend(usize, usize, u64),
    Release(usize),
    Expire(u64),
    Resolve(usize),
    /// A reader that the pool does not know begins to use a slot.
    Map(u32),
    Unmap(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let any_one = any::<usize>();
    let ttl = 0..5_u64;
    prop_oneof![
        6 => Just(Step::Draft),
        1 => any_one.prop_map(Step::DropDraft),
        1 => any_one.prop_map(Step::Lend),
        1 => any_one.prop_map(Step::Settle),
        6 => (any_one, 1..BLOCKS).prop_map(|(at, n)| Step::Seal(at, n)),
        1 => any_one.prop_map(Step::DropSealed),
        6 => any_one.prop_map(Step::Publish),
        2 => (1..BLOCKS).prop_map(Step::Pin),
        2 => (1..BLOCKS).prop_map(Step::PinPrefix),
        1 => any_one.prop_map(Step::Clone),
        8 => any_one.prop_map(Step::DropPin),
        1 => (any_one, 0..3_usize, ttl.clone()).prop_map(|(at, n, ttl)| Step::Lease(at, n, ttl)),
        1 => (any_one, any_one, ttl.clone()).prop_map(|(at, id, ttl)| Step::Extend(at, id, ttl)),
        1 => any_one.prop_map(Step::Release),
        1 => ttl.prop_map(Step::Expire),
        1 => any_one.prop_map(Step::Resolve),
        1 => (0..SLOTS).prop_map(Step::Map),
        2 => (0..SLOTS).prop_map(Step::Unmap),
    ]
}

/// Mostly ordinary steps, a lost writer once in a while.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let rare = prop_oneof![200 => step(), 1 => any::<usize>().prop_map(Step::Lose)];
    prop::collection::vec(rare, 1..200)
}

/// Block `n` of a forest in which `n` continues `n / 2` if that is in the same of two groups.
fn id(n: u8) -> BlockId {
    let group = |n: u8| GroupId(u16::from(n.is_multiple_of(5)));
    let parent = (n > 1 && group(n) == group(n / 2)).then(|| hash(n / 2));
    BlockId { hash: hash(n), parent, group: group(n) }
}

fn hash(n: u8) -> SequenceHash {
    SequenceHash([n; 16])
}

fn chain_to(n: u8) -> Vec<SequenceHash> {
    let mut chain: Vec<_> =
        std::iter::successors(Some(n), |n| Some(n / 2).filter(|n| *n > 0)).collect();
    chain.reverse();
    chain.into_iter().map(hash).collect()
}

/// A held block as the model knows it.
#[derive(Debug)]
struct Held {
    id: BlockId,
    slot: SlotId,
    /// Handles alive, clones and those in leases included.
    handles: usize,
    last_use: u64,
}

#[derive(Debug)]
struct LeaseModel {
    id: LeaseId,
    deadline: Duration,
    slots: BTreeMap<SlotId, BlockKey>,
}

/// The pool, the handles that are out, and what they ought to mean.
struct World {
    pool: Pool,
    drafts: Vec<Draft>,
    lent: Vec<WriteLease>,
    sealed: Vec<Sealed>,
    pins: Vec<ReadPin>,
    now: Duration,
    /// Whether blocks are published only after their parents.
    in_order: bool,
    /// Whether it is asked after each step what is available.
    asks: bool,
    readers: Readers,

    held: Vec<Held>,
    leases: Vec<LeaseModel>,
    log: Vec<BlockEvent>,
    generations: BTreeMap<SlotId, u64>,
    quarantined: HashSet<SlotId>,
    uses: u64,
}

/// Takes one of `all`, if there is any.
fn pick<T>(all: &mut Vec<T>, at: usize) -> Option<T> {
    if all.is_empty() { None } else { Some(all.swap_remove(at % all.len())) }
}

impl World {
    fn new(in_order: bool, asks: bool) -> Self {
        let config = PoolConfig { slots: SLOTS, events_kept: 10_000, leases_max: LEASES_MAX };
        let (mut pool, readers) = (Pool::new(config), Readers::default());
        pool.add_gate(Box::new(readers.clone()));
        Self {
            pool,
            drafts: vec![],
            lent: vec![],
            sealed: vec![],
            pins: vec![],
            now: Duration::ZERO,
            in_order,
            asks,
            readers,
            held: vec![],
            leases: vec![],
            log: vec![],
            generations: BTreeMap::new(),
            quarantined: HashSet::new(),
            uses: 0,
        }
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Draft => self.draft(),
            Step::DropDraft(at) => drop(pick(&mut self.drafts, at)),
            Step::Lend(at) => self.lent.extend(pick(&mut self.drafts, at).map(Draft::lend)),
            Step::Settle(at) => {
                self.drafts.extend(pick(&mut self.lent, at).map(WriteLease::settle));
            }
            Step::Lose(at) => {
                self.quarantined.extend(pick(&mut self.lent, at).map(|lease| lease.slot()));
            }
            Step::Seal(at, n) => {
                if let Some(draft) = pick(&mut self.drafts, at) {
                    self.sealed.push(self.pool.seal(draft, id(n), u32::from(n), 1));
                }
            }
            Step::DropSealed(at) => drop(pick(&mut self.sealed, at)),
            Step::Publish(at) => self.publish(at),
            Step::Pin(n) => self.pin(n),
            Step::PinPrefix(n) => self.pin_prefix(n),
            Step::Clone(at) => {
                if !self.pins.is_empty() {
                    let pin = self.pins[at % self.pins.len()].clone();
                    self.handle_added(pin.id().key());
                    self.pins.push(pin);
                }
            }
            Step::DropPin(at) => {
                if let Some(pin) = pick(&mut self.pins, at) {
                    self.handle_dropped(pin.id().key());
                }
            }
            Step::Lease(at, count, ttl) => self.lease(at, count, Duration::from_secs(ttl)),
            Step::Extend(at, lease, ttl) => self.extend(at, lease, Duration::from_secs(ttl)),
            Step::Release(at) => {
                if let Some(lease) = pick(&mut self.leases, at) {
                    assert!(self.pool.release(lease.id));
                    self.lease_ended(&lease);
                }
            }
            Step::Expire(seconds) => {
                self.now += Duration::from_secs(seconds);
                let expired = self.expired();
                assert_eq!(self.pool.expire(self.now), expired);
            }
            Step::Resolve(at) => self.resolve(at),
            Step::Map(slot) => self.readers.map(SlotId(slot)),
            Step::Unmap(slot) => self.readers.unmap(SlotId(slot)),
        }
    }

    fn draft(&mut self) {
        let idle = self.idle();
        let free = idle.iter().any(|slot| !self.readers.has(*slot));
        let victim = if free { None } else { self.make_room() };
        match self.pool.draft() {
            Err(exhausted) => {
                assert!(!free && victim.is_none());
                assert_eq!(exhausted.counts, self.counts(idle.len() as u32));
            }
            Ok((draft, evicted)) => {
                assert!(!self.readers.has(draft.slot()), "a mapped slot was handed out");
                assert!(!free || idle.contains(&draft.slot()));
                let victim = victim.map(|at| self.held.remove(at));
                assert_eq!(
                    evicted,
                    victim
                        .as_ref()
                        .map(|held| Evicted { id: held.id, retention: Retention::default() })
                );
                if let Some(held) = victim {
                    assert_eq!(draft.slot(), held.slot);
                    self.note(EventKind::Removed, held.id);
                }
                let generation = self.generations.entry(draft.slot()).or_default();
                *generation += 1;
                assert_eq!(draft.generation(), Generation(*generation));
                self.drafts.push(draft);
            }
        }
    }

    fn publish(&mut self, at: usize) {
        let Some(sealed) = pick(&mut self.sealed, at) else { return };
        let id = sealed.id();
        if self.in_order && id.parent_key().is_some_and(|parent| self.find(parent).is_none()) {
            return;
        }
        let slot = sealed.slot();
        let pin = self.pool.publish(sealed);
        if self.find(id.key()).is_none() {
            self.held.push(Held { id, slot, handles: 0, last_use: 0 });
            self.note(EventKind::Published, id);
        }
        self.handle_added(id.key());
        self.pins.push(pin);
    }

    fn pin(&mut self, n: u8) {
        let id = id(n);
        let pin = self.pool.pin(&id.hash, id.group);
        assert_eq!(pin.is_some(), self.find(id.key()).is_some());
        if let Some(pin) = pin {
            self.handle_added(id.key());
            self.pins.push(pin);
        }
    }

    fn pin_prefix(&mut self, n: u8) {
        let (chain, group) = (chain_to(n), id(n).group);
        let keys = chain.iter().map(|hash| BlockKey { hash: *hash, group });
        let expected: Vec<_> = keys.take_while(|key| self.find(*key).is_some()).collect();
        assert_eq!(self.pool.held(&chain, group), expected.len());
        let pins = self.pool.pin_prefix(&chain, group);
        assert_eq!(pins.iter().map(|pin| pin.id().key()).collect::<Vec<_>>(), expected);
        for key in expected {
            self.handle_added(key);
        }
        self.pins.extend(pins);
    }

    fn lease(&mut self, at: usize, count: usize, ttl: Duration) {
        let pins: Vec<_> = (0..count).filter_map(|_| pick(&mut self.pins, at)).collect();
        let keys: Vec<_> = pins.iter().map(|pin| (pin.slot(), pin.id().key())).collect();
        if self.leases.len() == LEASES_MAX {
            self.expired();
        }
        let granted = self.pool.lease(pins, ttl, self.now);
        assert_eq!(granted.is_ok(), self.leases.len() < LEASES_MAX);
        if let Ok(id) = granted {
            let deadline = self.now + ttl;
            self.leases.push(LeaseModel { id, deadline, slots: BTreeMap::new() });
            self.cover(self.leases.len() - 1, keys);
        } else {
            for (_, key) in keys {
                self.handle_dropped(key);
            }
        }
    }

    fn extend(&mut self, at: usize, lease: usize, ttl: Duration) {
        if self.leases.is_empty() {
            return;
        }
        let lease = lease % self.leases.len();
        let pins: Vec<_> = pick(&mut self.pins, at).into_iter().collect();
        let keys: Vec<_> = pins.iter().map(|pin| (pin.slot(), pin.id().key())).collect();
        let LeaseModel { id, deadline, .. } = self.leases[lease];
        let live = self.now < deadline;
        assert_eq!(self.pool.extend_lease(id, pins, ttl, self.now), live);
        if live {
            self.leases[lease].deadline = deadline.max(self.now + ttl);
            self.cover(lease, keys);
        } else {
            for (_, key) in keys {
                self.handle_dropped(key);
            }
        }
    }

    /// A lease keeps one handle per slot.
    fn cover(&mut self, lease: usize, keys: Vec<(SlotId, BlockKey)>) {
        for (slot, key) in keys {
            if self.leases[lease].slots.insert(slot, key).is_some() {
                self.handle_dropped(key);
            }
        }
    }

    fn resolve(&mut self, at: usize) {
        let pairs: Vec<_> = self
            .leases
            .iter()
            .flat_map(|l| l.slots.keys().map(|slot| (l.id, l.deadline, *slot)))
            .collect();
        let (Some((lease, deadline, slot)), Some(pin)) = (
            pairs.get(at % pairs.len().max(1)).copied(),
            self.pins.get(at % self.pins.len().max(1)),
        ) else {
            return;
        };
        let d = self.pool.descriptor(pin, OWNER, RUN, lease, Duration::ZERO);
        let served = self.pool.resolve(&BlockDescriptor { slot, ..d }, self.now);
        assert_eq!(served.is_ok(), self.now < deadline && pin.slot() == slot, "{served:?}");
    }

    /// Ends the model's leases whose time is up, the earliest first; how many.
    fn expired(&mut self) -> usize {
        let now = self.now;
        let mut ended: Vec<_> = self.leases.extract_if(.., |lease| lease.deadline <= now).collect();
        ended.sort_by_key(|lease| (lease.deadline, lease.id));
        for lease in &ended {
            self.lease_ended(lease);
        }
        ended.len()
    }

    fn lease_ended(&mut self, lease: &LeaseModel) {
        lease.slots.values().for_each(|key| self.handle_dropped(*key));
    }

    fn find(&self, key: BlockKey) -> Option<usize> {
        self.held.iter().position(|held| held.id.key() == key)
    }

    fn handle_added(&mut self, key: BlockKey) {
        let at = self.find(key).unwrap();
        self.held[at].handles += 1;
    }

    fn handle_dropped(&mut self, key: BlockKey) {
        let at = self.find(key).unwrap();
        self.held[at].handles -= 1;
        if self.held[at].handles == 0 {
            self.uses += 1;
            self.held[at].last_use = self.uses;
        }
    }

    fn note(&mut self, kind: EventKind, id: BlockId) {
        self.log.push(match kind {
            EventKind::Published => BlockEvent::published(&id, Tier::Device),
            EventKind::Removed => BlockEvent::removed(&id.key()),
        });
    }

    /// The unpinned leaf that was used least recently.
    fn victim(&self) -> Option<usize> {
        let gone = HashSet::new();
        let at = (0..self.held.len()).filter(|at| self.evictable(*at, &gone));
        at.min_by_key(|at| self.held[*at].last_use)
    }

    /// The first that nobody has mapped; those that were looked at in vain count as used.
    fn make_room(&mut self) -> Option<usize> {
        for _ in 0..gate::LOOKS {
            let at = self.victim()?;
            if !self.readers.has(self.held[at].slot) {
                return Some(at);
            }
            self.uses += 1;
            self.held[at].last_use = self.uses;
        }
        None
    }

    /// Whether a block could go if those of `gone` went before.
    fn evictable(&self, at: usize, gone: &HashSet<usize>) -> bool {
        let block = &self.held[at];
        let mut others = self.held.iter().enumerate().filter(|(other, _)| !gone.contains(other));
        block.handles == 0
            && !others.any(|(_, other)| other.id.parent_key() == Some(block.id.key()))
    }

    /// How many blocks could go one after the other.
    fn reclaimable(&self) -> u32 {
        let mut gone = HashSet::new();
        while let Some(at) =
            (0..self.held.len()).find(|at| !gone.contains(at) && self.evictable(*at, &gone))
        {
            gone.insert(at);
        }
        gone.len() as u32
    }

    /// Slots that hold nothing, mapped or not.
    fn idle(&self) -> Vec<SlotId> {
        let owned: HashSet<_> = self.owned().collect();
        (0..SLOTS).map(SlotId).filter(|slot| !owned.contains(slot)).collect()
    }

    /// Slots of all handles and blocks, and those that are lost.
    fn owned(&self) -> impl Iterator<Item = SlotId> {
        let owned = self.drafts.iter().map(Draft::slot);
        let owned = owned.chain(self.lent.iter().map(WriteLease::slot));
        let owned = owned.chain(self.sealed.iter().map(Sealed::slot));
        let owned = owned.chain(self.held.iter().map(|held| held.slot));
        owned.chain(self.quarantined.iter().copied())
    }

    /// What there is, with so many of the idle slots set aside.
    fn counts(&self, set_aside: u32) -> Counts {
        let pinned = self.held.iter().filter(|held| held.handles > 0).count() as u32;
        Counts {
            free: self.idle().len() as u32 - set_aside,
            draft: (self.drafts.len() + self.lent.len()) as u32,
            sealed: self.sealed.len() as u32,
            cached: self.held.len() as u32 - pinned,
            pinned,
            set_aside,
            quarantined: self.quarantined.len() as u32,
            leases: self.leases.len() as u32,
        }
    }

    fn check(&mut self) {
        let counts = self.pool.counts();
        assert_eq!(counts, self.counts(counts.set_aside));
        let Counts { free, draft, sealed, cached, pinned, set_aside, quarantined, .. } = counts;
        assert_eq!(free + draft + sealed + cached + pinned + set_aside + quarantined, SLOTS);
        if self.asks {
            // What stays aside is mapped.
            let available = self.pool.available();
            let set_aside = self.pool.counts().set_aside;
            let idle = self.idle();
            let mapped = idle.iter().filter(|slot| self.readers.has(**slot)).count();
            assert!(set_aside as usize <= mapped, "{set_aside} set aside, {mapped} mapped");
            assert_eq!(available, idle.len() as u32 - set_aside + self.reclaimable());
        }

        let mut owners = HashSet::new();
        for slot in self.owned() {
            assert!(slot.0 < SLOTS && owners.insert(slot), "slot {slot} has two owners");
        }
        for pin in &self.pins {
            let held = &self.held[self.find(pin.id().key()).unwrap()];
            assert_eq!((held.slot, self.generations[&held.slot]), (pin.slot(), pin.generation().0));
        }
        if self.in_order {
            for held in &self.held {
                let parent = held.id.parent_key();
                assert!(parent.is_none_or(|parent| self.find(parent).is_some()), "{held:?}");
            }
        }
        let log = self.pool.log().since(EventSeq(1)).unwrap();
        assert!(log.map(|(_, event)| event).eq(self.log.iter().copied()));
        let snapshot = self.pool.snapshot();
        let told: HashSet<_> = snapshot.events.iter().map(|e| (e.hash, e.group)).collect();
        assert_eq!(told, self.held.iter().map(|held| (held.id.hash, held.id.group)).collect());
        self.pool.forest.audit();
    }

    /// Everybody lets go: what was not quarantined can be handed out again.
    fn end(mut self) {
        self.drafts.clear();
        self.drafts.extend(self.lent.drain(..).map(WriteLease::settle));
        self.drafts.clear();
        self.sealed.clear();
        self.pins.clear();
        self.pool.expire(Duration::MAX);
        (0..SLOTS).for_each(|slot| self.readers.unmap(SlotId(slot)));
        let usable = SLOTS - self.quarantined.len() as u32;
        assert_eq!(self.pool.available(), usable);
        let all: Vec<_> = (0..usable).map(|_| self.pool.draft().unwrap().0).collect();
        assert!(self.pool.draft().is_err());
        assert!(all.iter().all(|draft| !self.quarantined.contains(&draft.slot())));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_pool_does_what_the_model_does(in_order: bool, asks: bool, steps in steps()) {
        let mut world = World::new(in_order, asks);
        for step in &steps {
            world.run(step);
            world.check();
        }
        world.end();
    }
}
