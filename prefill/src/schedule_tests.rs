//! The prefill schedule over real blocks and the witness, step by step.
#![allow(clippy::unwrap_used)]

use super::*;
use baton_arena::{Arena, ArenaOptions};
use baton_engine::api::Engine;
use baton_engine::witness::{Witness, WitnessSpec};
use baton_kv::hash::ChainRoot;
use baton_kv::pool::{Counts, PoolConfig};
use baton_proto::ids::{Incarnation, TenantId, TokenId, WorkerId};
use baton_proto::ir::BACKGROUND_PRIORITY;
use baton_transfer::{Endpoints, TransferError};
use baton_worker::queue::Precedence;
use baton_worker::sequence::ChainKey;
use std::sync::Arc;

const BLOCK: usize = 16;
const SECOND: Duration = Duration::from_secs(1);

struct Rig {
    schedule: PrefillSchedule,
    engine: Witness,
    blocks: Blocks,
    now: Duration,
    actions: Vec<Action>,
    computed: u32,
}

impl Rig {
    fn new(slots: u32) -> Self {
        let limits = Limits {
            jobs_max: 8,
            chunk_tokens: 24,
            batch_tokens: 48,
            pull_window_blocks: 4,
            pull_timeout: SECOND,
            lease_ttl: SECOND,
            ageing: SECOND,
        };
        let spec = WitnessSpec { block_tokens: BLOCK as u32, ..WitnessSpec::small() };
        let engine = Witness::new(spec).unwrap();
        let slot_bytes = engine.spec().block_bytes;
        let arena = Arena::create(ArenaOptions { slots, slot_bytes, name: "prefill" }).unwrap();
        let config = PoolConfig { slots, events_kept: 1000, leases_max: 100 };
        let blocks = Blocks::new(arena, config, WorkerId(slots), Incarnation(1));
        let schedule = PrefillSchedule::new(blocks.clone(), limits);
        let (now, actions, computed) = (Duration::ZERO, Vec::new(), 0);
        Self { schedule, engine, blocks, now, actions, computed }
    }

    fn send(&mut self, event: Event) {
        self.schedule.step(event, self.now, &mut self.actions);
    }

    fn ask(&mut self, id: u64, request: JobRequest) {
        self.send(Event::Compute(JobId(id), Box::new(request)));
    }

    fn tick_at(&mut self, now: Duration) {
        self.now = now;
        self.schedule.tick(now, &mut self.actions);
    }

    /// One step; whether there was something to compute.
    fn step(&mut self) -> bool {
        self.step_for(Duration::ZERO)
    }

    /// One step that takes so long.
    fn step_for(&mut self, time: Duration) -> bool {
        let Some(plan) = self.schedule.plan(self.now, &mut self.actions) else { return false };
        self.computed += plan.segments.iter().map(|segment| segment.count).sum::<u32>();
        let output = self.engine.step(self.blocks.arena(), self.schedule.batch(plan));
        self.now += time;
        self.schedule.stepped(output, self.now, &mut self.actions);
        for seq in self.schedule.forgotten() {
            self.engine.forget(seq);
        }
        true
    }

    fn run(&mut self) {
        let steps = (0..10_000).take_while(|_| self.step()).count();
        assert!(steps < 10_000, "the schedule does not come to rest");
    }

    fn announced(&self, id: u64) -> Vec<BlockDescriptor> {
        let of = |action: &Action| match action {
            Action::Announce(job, blocks) if *job == JobId(id) => blocks.clone(),
            _ => Vec::new(),
        };
        self.actions.iter().flat_map(of).collect()
    }

    fn done(&self) -> Vec<u64> {
        let of = |action: &Action| match action {
            Action::Done(job, _) => Some(job.0),
            _ => None,
        };
        self.actions.iter().filter_map(of).collect()
    }

    fn failures(&self) -> Vec<(u64, JobFailure)> {
        let of = |action: &Action| match action {
            Action::Fail(job, failure) => Some((job.0, *failure)),
            _ => None,
        };
        self.actions.iter().filter_map(of).collect()
    }

    fn pulls(&mut self) -> Vec<(JobId, Vec<Pull>)> {
        let (pulls, rest) = std::mem::take(&mut self.actions)
            .into_iter()
            .partition(|a| matches!(a, Action::Pull(..)));
        self.actions = rest;
        let pull = |action| match action {
            Action::Pull(job, _, pulls, _) => (job, pulls),
            _ => unreachable!("partitioned"),
        };
        Vec::into_iter(pulls).map(pull).collect()
    }

    /// Nothing is under way, and nothing is kept for anybody.
    fn assert_empty(&self) {
        let counts = self.blocks.counts();
        let free = self.blocks.arena().slots() - counts.cached;
        assert_eq!(counts, Counts { free, cached: counts.cached, ..Counts::default() });
        assert_eq!((self.schedule.claimed(), self.schedule.promised()), (0, 0));
        assert!(self.schedule.is_idle());
    }
}

fn request(tokens: Vec<TokenId>) -> JobRequest {
    JobRequest {
        tokens,
        chain_key: ChainKey {
            root: Arc::new(ChainRoot::new(&[1; 32], &[2; 32])),
            block_tokens: BLOCK as u32,
            tenant: TenantId::anonymous().into(),
            public_blocks: 0,
        },
        from_block: 0,
        precedence: Precedence::default(),
        weight: 1,
        deadline: 100 * SECOND,
        held: Vec::new(),
        held_by: None,
    }
}

/// Whole blocks of a shared prefix, then some of its own, then one token.
fn prompt(shared: usize, own: usize, id: u32) -> Vec<TokenId> {
    let shared = (0..(shared * BLOCK) as u32).map(|token| 1 + token % 7);
    shared
        .chain((0..(own * BLOCK) as u32).map(|token| 100 + 50 * id + token % 50))
        .chain([9])
        .collect()
}

#[test]
fn jobs_with_a_shared_prefix_compute_it_once() {
    let mut rig = Rig::new(120);
    for id in 0..8 {
        rig.ask(id, request(prompt(10, 2, id as u32)));
    }
    rig.run();
    assert_eq!(rig.computed as usize, (10 + 8 * 2) * BLOCK);
    for id in 0..8 {
        assert_eq!(rig.announced(id).len(), 12, "job {id}");
    }
    assert_eq!(rig.done().len(), 8);
}

#[test]
fn the_block_of_the_last_token_is_left_to_decode() {
    let mut rig = Rig::new(20);
    let mut tokens = prompt(3, 0, 0);
    tokens.pop();
    rig.ask(1, request(tokens));
    rig.ask(2, request(vec![5; BLOCK]));
    rig.run();
    assert_eq!((rig.announced(1).len(), rig.announced(2).len()), (2, 0));
    assert_eq!(rig.done().len(), 2);
}

#[test]
fn whenever_a_job_is_cancelled_those_who_joined_it_get_their_blocks() {
    let steps = {
        let mut rig = Rig::new(40);
        rig.ask(1, request(prompt(6, 1, 1)));
        (0..100).take_while(|_| rig.step()).count()
    };
    for cancelled_after in 0..=steps + 1 {
        let mut rig = Rig::new(40);
        rig.ask(1, request(prompt(6, 1, 1)));
        rig.ask(2, request(prompt(6, 1, 2)));
        for _ in 0..cancelled_after {
            rig.step();
        }
        rig.send(Event::Cancel(JobId(1)));
        rig.run();
        assert_eq!(rig.announced(2).len(), 7, "cancelled after {cancelled_after} steps");
        assert!(rig.computed as usize <= 9 * BLOCK, "cancelled after {cancelled_after} steps");
        rig.send(Event::Cancel(JobId(2)));
        rig.assert_empty();
    }
}

#[test]
fn the_most_urgent_job_begins_first_and_waiting_makes_urgent() {
    // Room for one job at a time.
    let mut rig = Rig::new(4);
    let job = |priority, id| JobRequest {
        precedence: Precedence { priority, ..Precedence::default() },
        ..request(prompt(0, 4, id))
    };
    rig.ask(1, job(0, 1));
    rig.ask(2, job(0, 2));
    rig.now = SECOND / 2;
    rig.ask(3, job(2, 3));
    // Four seconds of waiting weigh as much as four steps of priority.
    rig.now = 4 * SECOND;
    rig.ask(4, job(3, 4));
    let mut order = Vec::new();
    for _ in 0..4 {
        rig.run();
        let done = *rig.done().last().unwrap();
        order.push(done);
        rig.send(Event::Cancel(JobId(done)));
    }
    assert_eq!(order, [1, 3, 2, 4]);
    rig.assert_empty();
}

#[test]
fn a_strict_priority_comes_before_any_age_and_a_wish_orders_the_rest() {
    let mut rig = Rig::new(4);
    let job = |strict_priority, wanted_s: Option<u32>, id| {
        let wanted = wanted_s.map(|s| s * SECOND);
        let precedence = Precedence { strict_priority, wanted, ..Precedence::default() };
        JobRequest { precedence, ..request(prompt(0, 4, id)) }
    };
    rig.ask(1, job(0, None, 1));
    rig.ask(2, job(0, Some(70), 2));
    rig.ask(3, job(0, Some(60), 3));
    rig.ask(4, job(0, None, 4));
    // The others have waited long enough for any priority.
    rig.now = 50 * SECOND;
    rig.ask(5, job(1, None, 5));
    let mut order = Vec::new();
    for _ in 0..5 {
        rig.run();
        let done = *rig.done().last().unwrap();
        order.push(done);
        rig.send(Event::Cancel(JobId(done)));
    }
    // The first one had begun, and gave way.
    assert_eq!(order, [5, 3, 2, 1, 4]);
    rig.assert_empty();
}

#[test]
fn what_cannot_be_done_is_refused_with_its_reason() {
    let mut rig = Rig::new(8);
    rig.ask(1, request(prompt(0, 9, 1)));
    rig.ask(2, JobRequest { deadline: Duration::ZERO, ..request(prompt(0, 1, 2)) });
    for id in 10..19 {
        rig.ask(id, request(prompt(0, 1, id as u32)));
    }
    let too_large = JobFailure::TooLarge { blocks: 9, slots: 8 };
    let refused = [(1, too_large), (2, JobFailure::Deadline), (18, JobFailure::Overloaded)];
    assert_eq!(rig.failures(), refused);
}

#[test]
fn a_deadline_ends_a_job_that_waits_computes_or_is_announced() {
    for steps in [0, 1, 100] {
        let mut rig = Rig::new(8);
        let late = |id| JobRequest { deadline: SECOND, ..request(prompt(0, 6, id)) };
        rig.ask(1, late(1));
        rig.ask(2, late(2));
        for _ in 0..steps {
            rig.step();
        }
        rig.tick_at(SECOND);
        assert_eq!(rig.failures(), [(1, JobFailure::Deadline), (2, JobFailure::Deadline)]);
        rig.assert_empty();
    }
}

#[test]
fn announced_blocks_are_kept_as_long_as_the_call_lasts() {
    let mut rig = Rig::new(8);
    rig.ask(1, request(prompt(0, 5, 1)));
    rig.run();
    let block = rig.announced(1)[0];
    for tenth in 1..50 {
        rig.tick_at(SECOND * tenth / 10);
        assert!(rig.blocks.lock().resolve(&block, rig.now).is_ok(), "after {:?}", rig.now);
    }
    // Nobody renews it: a loop that stands still does not keep blocks for ever.
    assert!(rig.blocks.lock().resolve(&block, rig.now + SECOND).is_err());
    rig.send(Event::Cancel(JobId(1)));
    assert!(rig.blocks.lock().resolve(&block, rig.now).is_err());
    rig.assert_empty();
}

#[test]
fn a_slow_step_does_not_cost_an_announced_block() {
    let mut rig = Rig::new(8);
    rig.ask(1, request(prompt(0, 7, 1)));
    // Only between steps can leases be renewed, and these take five times as long as a lease.
    while rig.step_for(5 * SECOND) {
        let now = rig.now + 5 * SECOND;
        for block in rig.announced(1) {
            assert!(rig.blocks.lock().resolve(&block, now).is_ok(), "at {:?}", rig.now);
        }
    }
    assert_eq!((rig.announced(1).len(), rig.failures()), (7, vec![]));
}

/// A caller that holds the first blocks of a prompt, and the descriptors that it sends along.
fn caller(tokens: Vec<TokenId>) -> (Rig, Vec<BlockDescriptor>) {
    let mut caller = Rig::new(9);
    caller.ask(1, request(tokens));
    caller.run();
    let held = caller.announced(1);
    (caller, held)
}

fn held_request(held: &[BlockDescriptor], tokens: Vec<TokenId>) -> JobRequest {
    let peer = Peer {
        worker: held[0].owner,
        incarnation: held[0].incarnation,
        endpoints: Endpoints::default(),
    };
    JobRequest {
        from_block: held.len(),
        held: held.to_vec(),
        held_by: Some(peer),
        ..request(tokens)
    }
}

#[test]
fn what_the_caller_holds_is_pulled_not_computed() {
    let (caller, held) = caller(prompt(5, 0, 0));
    let mut rig = Rig::new(20);
    rig.ask(1, held_request(&held, prompt(5, 2, 1)));
    for _ in 0..10 {
        rig.run();
        for (job, pulls) in rig.pulls() {
            let bring = |Pull { from, into, .. }: Pull| {
                let bytes = caller.blocks.arena().read(from.slot.0).to_vec();
                rig.blocks.arena().write(into.slot().0).copy_from_slice(&bytes);
                Settled::Arrived { block: from, lease: into }
            };
            let results = pulls.into_iter().map(bring).collect();
            rig.send(Event::Settled(job, results));
        }
    }
    assert_eq!(rig.computed as usize, 2 * BLOCK);
    assert_eq!(rig.announced(1).len(), 2, "only what the caller lacks is announced");
    rig.send(Event::Cancel(JobId(1)));
    rig.assert_empty();
}

#[test]
fn what_the_caller_cannot_deliver_is_computed() {
    let (_caller, held) = caller(prompt(5, 0, 0));
    let mut rig = Rig::new(20);
    rig.ask(1, held_request(&held, prompt(5, 2, 1)));
    for _ in 0..10 {
        rig.run();
        for (job, pulls) in rig.pulls() {
            let fail = |Pull { from, into, .. }: Pull| Settled::Failed {
                block: from,
                lease: into,
                error: TransferError::Deadline,
            };
            let results = pulls.into_iter().map(fail).collect();
            rig.send(Event::Settled(job, results));
        }
    }
    assert_eq!(rig.computed as usize, 7 * BLOCK);
    assert_eq!(rig.announced(1).len(), 2);
    rig.send(Event::Cancel(JobId(1)));
    rig.assert_empty();
}

#[test]
fn what_a_stuck_device_keeps_is_computed_and_its_slots_are_quarantined() {
    let (_caller, held) = caller(prompt(5, 0, 0));
    let mut rig = Rig::new(20);
    rig.ask(1, held_request(&held, prompt(5, 2, 1)));
    let mut lost = 0;
    for _ in 0..10 {
        rig.run();
        for (job, pulls) in rig.pulls() {
            // The leases fall with the pulls.
            let blocks: Vec<_> = pulls.into_iter().map(|pull| pull.from).collect();
            lost += blocks.len() as u32;
            rig.send(Event::Settled(job, Vec::new()));
            rig.send(Event::Lost(job, blocks));
        }
    }
    assert_eq!(rig.computed as usize, 7 * BLOCK);
    assert_eq!(rig.announced(1).len(), 2);
    rig.send(Event::Cancel(JobId(1)));
    let Counts { free, cached, quarantined, .. } = rig.blocks.counts();
    assert_eq!((quarantined, free + cached), (lost, 20 - lost));
    assert_eq!((rig.schedule.claimed(), rig.schedule.promised()), (0, 0));
    assert!(lost > 0 && rig.schedule.is_idle());
}

#[test]
fn pulls_of_a_cancelled_job_give_their_slots_back_when_they_end() {
    let (_caller, held) = caller(prompt(5, 0, 0));
    let mut rig = Rig::new(20);
    rig.ask(1, held_request(&held, prompt(5, 2, 1)));
    let pulls = rig.pulls();
    rig.send(Event::Cancel(JobId(1)));
    assert_eq!(rig.blocks.counts().draft, 4, "a transport may still write");
    for (job, pulls) in pulls {
        let arrive = |Pull { from, into, .. }: Pull| Settled::Arrived { block: from, lease: into };
        rig.send(Event::Settled(job, pulls.into_iter().map(arrive).collect()));
    }
    rig.assert_empty();
}

fn background(request: JobRequest) -> JobRequest {
    let precedence = Precedence { priority: BACKGROUND_PRIORITY, ..Precedence::default() };
    JobRequest { precedence, ..request }
}

#[test]
fn what_is_computed_ahead_waits_between_two_chunks_for_what_is_wanted() {
    let mut rig = Rig::new(60);
    rig.ask(1, background(request(prompt(0, 20, 1))));
    rig.step();
    rig.step();
    rig.ask(2, request(prompt(0, 4, 2)));
    // Four blocks are two chunks and a rest.
    let steps = (0..100).take_while(|_| rig.done().is_empty() && rig.step()).count();
    assert_eq!((rig.done(), steps), (vec![2], 4));
    rig.run();
    assert_eq!(rig.done(), [2, 1]);
}

#[test]
fn memory_of_what_is_computed_ahead_goes_to_what_is_wanted_and_nothing_is_lost() {
    let mut rig = Rig::new(12);
    rig.ask(1, background(request(prompt(0, 8, 1))));
    rig.step();
    rig.step();
    let before = rig.announced(1).len();
    assert!((1..=4).contains(&before), "{before} blocks are announced");
    rig.ask(2, request(prompt(0, 8, 2)));
    rig.run();
    assert_eq!(rig.done(), [2], "the first one waits for memory");
    rig.send(Event::Cancel(JobId(2)));
    rig.run();
    assert_eq!((rig.done(), rig.announced(1).len()), (vec![2, 1], 8));
    let report = rig.actions.iter().find_map(|action| match action {
        Action::Done(JobId(1), report) => Some(*report),
        _ => None,
    });
    let report = report.unwrap();
    assert_eq!((report.cached_tokens, report.computed_tokens as usize), (0, 8 * BLOCK));
    rig.send(Event::Cancel(JobId(1)));
    rig.assert_empty();
}

#[test]
fn a_job_that_gave_way_goes_on_though_a_larger_one_waits_before_it() {
    let mut rig = Rig::new(12);
    rig.ask(1, background(request(prompt(0, 8, 1))));
    rig.step();
    rig.step();
    rig.ask(2, request(prompt(0, 8, 2)));
    rig.run();
    rig.ask(3, request(prompt(0, 11, 3)));
    rig.send(Event::Cancel(JobId(2)));
    rig.run();
    assert_eq!(rig.done(), [2, 1], "it holds what the third one needs");
    rig.send(Event::Cancel(JobId(1)));
    rig.run();
    assert_eq!(rig.done(), [2, 1, 3]);
}

#[test]
fn nobody_gives_way_where_that_would_not_be_enough() {
    let mut rig = Rig::new(12);
    rig.ask(1, request(prompt(0, 6, 1)));
    rig.ask(2, background(request(prompt(0, 4, 2))));
    rig.step();
    rig.ask(3, request(prompt(0, 9, 3)));
    rig.run();
    assert_eq!(rig.done(), [2, 1]);
    rig.send(Event::Cancel(JobId(1)));
    rig.send(Event::Cancel(JobId(2)));
    rig.run();
    assert_eq!(rig.done(), [2, 1, 3]);
}

#[test]
fn who_makes_what_an_urgent_job_waits_for_is_as_urgent() {
    let mut rig = Rig::new(120);
    rig.ask(1, background(request(prompt(10, 0, 1))));
    rig.step();
    // Together these take whole batches, for a long time.
    rig.ask(3, request(prompt(0, 30, 3)));
    rig.ask(4, request(prompt(0, 30, 4)));
    let urgent = Precedence { priority: 5, ..Precedence::default() };
    rig.ask(2, JobRequest { precedence: urgent, ..request(prompt(10, 1, 2)) });
    rig.run();
    assert_eq!(&rig.done()[..2], [1, 2]);
    assert_eq!(rig.computed as usize, (11 + 30 + 30) * BLOCK, "nothing is computed twice");
}

#[test]
fn a_tenant_that_floods_a_worker_does_not_make_another_one_wait_for_all_of_it() {
    let mut rig = Rig::new(120);
    let of = |tenant: &str, request: JobRequest| {
        let tenant = TenantId(Arc::from(tenant));
        let tenant = tenant.into();
        JobRequest { chain_key: ChainKey { tenant, ..request.chain_key.clone() }, ..request }
    };
    for id in 0..6 {
        rig.ask(id, of("flood", request(prompt(0, 12, id as u32))));
    }
    for _ in 0..4 {
        rig.step();
    }
    rig.ask(7, of("guest", request(prompt(0, 12, 7))));
    rig.run();
    let place = rig.done().iter().position(|id| *id == 7).unwrap();
    assert!(place <= 2, "done: {:?}", rig.done());
}
