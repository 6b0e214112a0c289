//! A worker in virtual time: the real schedule, blocks and engine, driven as the engine loop does.

use super::scenario::Scenario;
use baton_arena::{Arena, ArenaOptions, PeerArena};
use baton_decode::schedule::DecodeSchedule;
use baton_engine::api::{Engine, StepOutput};
use baton_engine::witness::Witness;
use baton_kv::events::Batch;
use baton_kv::pool::PoolConfig;
use baton_prefill::schedule::PrefillSchedule;
use baton_proto::ids::{EventSeq, Incarnation, WorkerId};
use baton_transfer::sim::NodeId;
use baton_worker::blocks::Blocks;
use baton_worker::plan::Schedule;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Leases that a worker grants at a time.
const LEASES_MAX: usize = 1024;
/// Events that a router is told at a time.
const EVENTS_MAX: usize = 64;

/// One run of a worker.
pub(super) struct Worker<S: Schedule> {
    pub(super) schedule: S,
    pub(super) blocks: Blocks,
    /// The worker's memory, as another process on its host sees it.
    pub(super) memory: PeerArena,
    /// Positions computed.
    pub(super) computed: u64,
    engine: Witness,
    inbox: VecDeque<S::Event>,
    stepping: Option<StepOutput>,
    tick_due: bool,
    watchers: BTreeMap<NodeId, EventSeq>,
}

/// What a turn of the loop leads to.
pub(super) struct Turned<A> {
    pub(super) actions: Vec<A>,
    /// The engine is busy for so long.
    pub(super) busy: Option<Duration>,
}

pub(super) type Prefill = Worker<PrefillSchedule>;
pub(super) type Decode = Worker<DecodeSchedule>;

impl Prefill {
    pub(super) fn prefill(scenario: &Scenario, worker: WorkerId, incarnation: Incarnation) -> Self {
        let blocks = blocks(scenario, scenario.prefill_slots, worker, incarnation);
        let schedule = PrefillSchedule::new(blocks.clone(), scenario.prefill_limits);
        Self::new(scenario, schedule, blocks)
    }
}

impl Decode {
    pub(super) fn decode(scenario: &Scenario, worker: WorkerId, incarnation: Incarnation) -> Self {
        let blocks = blocks(scenario, scenario.decode_slots, worker, incarnation);
        let schedule = DecodeSchedule::new(blocks.clone(), scenario.decode_limits);
        Self::new(scenario, schedule, blocks)
    }
}

impl<S: Schedule> Worker<S> {
    fn new(scenario: &Scenario, schedule: S, blocks: Blocks) -> Self {
        let arena = blocks.arena();
        let memory = PeerArena::open(arena.fd(), arena.shape()).expect("its own arena can be read");
        Self {
            schedule,
            memory,
            computed: 0,
            engine: Witness::new(scenario.model.clone()).expect("the scenario's model can be"),
            inbox: VecDeque::new(),
            stepping: None,
            tick_due: false,
            watchers: BTreeMap::new(),
            blocks,
        }
    }

    pub(super) fn push(&mut self, event: S::Event) {
        self.inbox.push_back(event);
    }

    pub(super) fn tick(&mut self) {
        self.tick_due = true;
    }

    /// One turn of the engine loop, unless a step is under way.
    pub(super) fn turn(&mut self, now: Duration) -> Turned<S::Action> {
        let mut actions = Vec::new();
        if self.stepping.is_some() {
            return Turned { actions, busy: None };
        }
        for event in self.inbox.drain(..) {
            self.schedule.step(event, now, &mut actions);
        }
        if std::mem::take(&mut self.tick_due) {
            self.schedule.tick(now, &mut actions);
        }
        let plan = self.schedule.plan(now, &mut actions);
        let busy = plan.map(|plan| {
            self.computed += plan.segments.iter().map(|s| u64::from(s.count)).sum::<u64>();
            let output = self.engine.step(self.blocks.arena(), self.schedule.batch(plan));
            let busy = output.modelled;
            self.stepping = Some(output);
            busy
        });
        if busy.is_none() {
            self.forget();
        }
        Turned { actions, busy }
    }

    /// The step under way is over.
    pub(super) fn stepped(&mut self, now: Duration) -> Vec<S::Action> {
        let mut actions = Vec::new();
        let output = self.stepping.take().expect("a step that is over was under way");
        self.schedule.stepped(output, now, &mut actions);
        self.forget();
        actions
    }

    /// A router wants events from there on.
    pub(super) fn watch(&mut self, router: NodeId, from: EventSeq) {
        self.watchers.insert(router, from);
    }

    /// What routers have not been told yet.
    pub(super) fn news(&mut self) -> Vec<(NodeId, Batch)> {
        let pool = self.blocks.lock();
        let mut news = Vec::new();
        for (router, next) in &mut self.watchers {
            while *next != pool.log().next_seq() {
                let batch = pool.watch(*next, EVENTS_MAX);
                *next = batch.next_seq();
                news.push((*router, batch));
            }
        }
        news
    }

    fn forget(&mut self) {
        for seq in self.schedule.forgotten() {
            self.engine.forget(seq);
        }
    }
}

fn blocks(scenario: &Scenario, slots: u32, worker: WorkerId, incarnation: Incarnation) -> Blocks {
    let model = Witness::new(scenario.model.clone()).expect("the scenario's model can be");
    let slot_bytes = model.spec().block_bytes;
    let arena = Arena::create(ArenaOptions { slots, slot_bytes, name: "sim" })
        .expect("a simulated worker's arena is small");
    let config = PoolConfig { slots, events_kept: scenario.events_kept, leases_max: LEASES_MAX };
    Blocks::new(arena, config, worker, incarnation)
}
