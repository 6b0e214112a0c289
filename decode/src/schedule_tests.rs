//! The decode schedule over real blocks and the witness, step by step.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::thinking::{NextToken, Thinking, ThinkingRule};
use crate::turn::{Candidate, StopRule};
use baton_arena::{Arena, ArenaOptions};
use baton_engine::api::Engine;
use baton_engine::witness::{Witness, WitnessSpec, expected_under};
use baton_kv::hash::ChainRoot;
use baton_kv::pool::{Counts, PoolConfig, SlotGate};
use baton_kv::record::SlotRecord;
use baton_proto::ids::{Incarnation, SlotId, TenantId, TokenId, WorkerId};
use baton_proto::ir::{BACKGROUND_PRIORITY, FinishReason, Sampling};
use baton_transfer::{Endpoints, Pull, TransferError};
use baton_worker::queue::Precedence;
use baton_worker::sequence::ChainKey;
use std::sync::Arc;

pub(super) const BLOCK: usize = 16;
pub(super) const SECOND: Duration = Duration::from_secs(1);

fn spec() -> WitnessSpec {
    WitnessSpec { block_tokens: BLOCK as u32, ..WitnessSpec::small() }
}

pub(super) struct Rig {
    pub(super) schedule: DecodeSchedule,
    engine: Witness,
    blocks: Blocks,
    pub(super) now: Duration,
    actions: Vec<Action>,
    pub(super) computed: u32,
    /// A choice waited for memory at some time.
    pub(super) preempted: bool,
}

impl Rig {
    pub(super) fn new(worker: u32, slots: u32) -> Self {
        let limits = Limits {
            turns_max: 8,
            batch_tokens: 64,
            local_fill_tokens: 24,
            pull_window_blocks: 4,
            pull_timeout: SECOND,
            lease_ttl: SECOND,
            prefill_attempts: 2,
            prefill_patience: Duration::from_mins(1),
            ageing: SECOND,
        };
        let engine = Witness::new(spec()).unwrap();
        let slot_bytes = engine.spec().block_bytes;
        let arena = Arena::create(ArenaOptions { slots, slot_bytes, name: "decode" }).unwrap();
        let config = PoolConfig { slots, events_kept: 1000, leases_max: 100 };
        let blocks = Blocks::new(arena, config, WorkerId(worker), Incarnation(u64::from(worker)));
        let schedule = DecodeSchedule::new(blocks.clone(), limits);
        let (now, actions) = (Duration::ZERO, Vec::new());
        Self { schedule, engine, blocks, now, actions, computed: 0, preempted: false }
    }

    pub(super) fn send(&mut self, event: Event) {
        self.schedule.step(event, self.now, &mut self.actions);
    }

    pub(super) fn submit(&mut self, turn: &TurnRequest) {
        self.send(Event::Submit(Box::new(turn.clone())));
    }

    pub(super) fn step(&mut self) -> bool {
        self.step_for(Duration::ZERO)
    }

    fn step_for(&mut self, time: Duration) -> bool {
        let Some(plan) = self.schedule.plan(self.now, &mut self.actions) else { return false };
        self.preempted |= self.schedule.turns.values().any(Turn::is_preempted);
        self.computed += plan.segments.iter().map(|segment| segment.count).sum::<u32>();
        let output = self.engine.step(self.blocks.arena(), self.schedule.batch(plan));
        self.now += time;
        self.schedule.stepped(output, self.now, &mut self.actions);
        for seq in self.schedule.forgotten() {
            self.engine.forget(seq);
        }
        true
    }

    pub(super) fn run(&mut self) {
        let steps = (0..20_000).take_while(|_| self.step()).count();
        assert!(steps < 20_000, "the schedule does not come to rest");
    }

    fn news(&self, request: u128) -> impl Iterator<Item = (u16, &News)> {
        self.actions.iter().filter_map(move |action| match action {
            Action::Update(_, update) if update.request == RequestId(request) => {
                Some((update.choice, &update.news))
            }
            _ => None,
        })
    }

    pub(super) fn tokens(&self, request: u128, choice: u16) -> Vec<TokenId> {
        let of = |(at, news): (u16, &News)| match news {
            News::Drawn { drawn, .. } if at == choice => Some(drawn.token),
            _ => None,
        };
        self.news(request).filter_map(of).collect()
    }

    fn failure(&self, request: u128) -> Option<Failure> {
        let of = |(_, news): (u16, &News)| match news {
            News::Failed(failure) => Some(*failure),
            _ => None,
        };
        self.news(request).find_map(of)
    }

    /// Every choice of a turn has ended, once, with the right stream.
    pub(super) fn assert_answered(&self, turn: &TurnRequest) {
        for choice in 0..turn.choices {
            let (seed, most) = (turn.sampling.seed, turn.stop.max_tokens as usize);
            let rule = |answer: &[TokenId]| laid_down(turn.thinking.as_ref(), answer);
            let right = expected_under(&spec(), &turn.tokens, seed, choice, most, rule);
            let id = turn.request.0;
            assert_eq!(self.tokens(id, choice), right, "request {id}, choice {choice}");
            let ended = |(at, news): &(u16, &News)| {
                *at == choice && matches!(news, News::Finished(FinishReason::Length, _))
            };
            assert_eq!(self.news(id).filter(ended).count(), 1, "request {id}, choice {choice}");
        }
    }

    pub(super) fn assert_empty(&self) {
        let counts = self.blocks.counts();
        let free = self.blocks.arena().slots() - counts.cached;
        assert_eq!(counts, Counts { free, cached: counts.cached, ..Counts::default() });
        assert_eq!((self.schedule.claimed(), self.schedule.promised()), (0, 0));
        assert!(self.schedule.is_idle() && self.schedule.names.is_empty());
    }

    /// The prefill workers that were called, and the calls that were ended.
    pub(super) fn calls(&self) -> (Vec<u32>, usize) {
        let started = |action: &Action| match action {
            Action::StartPrefill(_, call) => Some(call.candidate.peer.worker.0),
            _ => None,
        };
        let stopped = |action: &&Action| matches!(action, Action::StopPrefill(_));
        let started = self.actions.iter().filter_map(started).collect();
        (started, self.actions.iter().filter(stopped).count())
    }

    fn take_pulls(&mut self) -> Vec<(TurnId, Vec<Pull>)> {
        let mut pulls = Vec::new();
        for action in std::mem::take(&mut self.actions) {
            match action {
                Action::Pull(turn, _, batch, _) => pulls.push((turn, batch)),
                other => self.actions.push(other),
            }
        }
        pulls
    }

    fn fail_pulls(&mut self, pulls: Vec<(TurnId, Vec<Pull>)>) {
        for (turn, batch) in pulls {
            let fail = |Pull { from, into, .. }: Pull| Settled::Failed {
                block: from,
                lease: into,
                error: TransferError::Deadline,
            };
            let results = batch.into_iter().map(fail).collect();
            self.send(Event::Settled(turn, results));
        }
    }

    pub(super) fn bring_pulls(&mut self, owner: &Rig) {
        for (turn, batch) in self.take_pulls() {
            let bring = |Pull { from, into, .. }: Pull| {
                let bytes = owner.blocks.arena().read(from.slot.0).to_vec();
                self.blocks.arena().write(into.slot().0).copy_from_slice(&bytes);
                Settled::Arrived { block: from, lease: into }
            };
            let results = batch.into_iter().map(bring).collect();
            self.send(Event::Settled(turn, results));
        }
    }

    /// Computes a prompt and lends its blocks, as a prefill worker does.
    pub(super) fn lend(&mut self, turn: &TurnRequest) -> Vec<BlockDescriptor> {
        let alone = TurnRequest { candidates: Vec::new(), choices: 1, ..turn.clone() };
        self.submit(&alone);
        self.run();
        let key = &turn.chain_key;
        let sequence = Sequence::new(SeqKey(0), key.clone(), turn.tokens.clone());
        let goal = (turn.tokens.len() - 1) / BLOCK;
        let pins = self.blocks.pin_prefix(&sequence.chain()[..goal]);
        assert_eq!(pins.len(), goal);
        self.blocks.lend(&pins, None, 100 * SECOND, self.now).unwrap().1
    }
}

/// The token that is forced after so much of an answer, and those that are suppressed.
fn laid_down(rule: Option<&ThinkingRule>, answer: &[TokenId]) -> (Option<TokenId>, Vec<TokenId>) {
    let Some(rule) = rule else { return (None, Vec::new()) };
    let mut thinking = Thinking::new(rule);
    for token in answer {
        thinking.push(rule, *token);
    }
    match thinking.next(rule) {
        NextToken::Free => (None, Vec::new()),
        NextToken::Not(token) => (None, vec![token]),
        NextToken::Forced(token) => (Some(token), Vec::new()),
    }
}

pub(super) fn turn(id: u128, tokens: Vec<TokenId>) -> TurnRequest {
    TurnRequest {
        router: RouterId(1),
        request: RequestId(id),
        tokens,
        chain_key: ChainKey {
            root: Arc::new(ChainRoot::new(&[1; 32], &[2; 32])),
            block_tokens: BLOCK as u32,
            tenant: TenantId::anonymous().into(),
            public_blocks: 0,
        },
        choices: 1,
        sampling: Sampling { seed: id as u64, ..Sampling::greedy() },
        stop: StopRule { max_tokens: 20, min_tokens: 0, end_ids: spec().eos },
        thinking: None,
        logprobs: None,
        raw_top: 0,
        precedence: Precedence::default(),
        weight: 1,
        osl: 20,
        deadline: 100 * SECOND,
        candidates: Vec::new(),
    }
}

pub(super) fn with_candidates(turn: TurnRequest, workers: &[u32]) -> TurnRequest {
    let candidate = |worker: &u32| Candidate {
        uri: String::new(),
        peer: Peer {
            worker: WorkerId(*worker),
            incarnation: Incarnation(u64::from(*worker)),
            endpoints: Endpoints::default(),
        },
    };
    TurnRequest { candidates: workers.iter().map(candidate).collect(), ..turn }
}

/// Whole blocks of a shared prefix, then some of its own, then three tokens.
pub(super) fn prompt(shared: usize, own: usize, id: u32) -> Vec<TokenId> {
    let shared = (0..(shared * BLOCK) as u32).map(|token| 1 + token % 7);
    let own = (0..(own * BLOCK) as u32).map(|token| 100 + 50 * id + token % 50);
    shared.chain(own).chain([9, 8, 7]).collect()
}

#[test]
fn turns_with_a_shared_prefix_compute_it_once() {
    let mut rig = Rig::new(1, 120);
    let turns: Vec<_> = (0..8).map(|id| turn(id, prompt(6, 1, id as u32))).collect();
    for turn in &turns {
        rig.submit(turn);
    }
    rig.run();
    for turn in &turns {
        rig.assert_answered(turn);
    }
    // The prefix, and for each turn its own block, the tail and all drawn tokens but the last.
    assert_eq!(rig.computed as usize, 6 * BLOCK + 8 * (BLOCK + 3 + 19));
    rig.assert_empty();
}

#[test]
fn every_choice_has_its_own_stream_over_the_same_prompt() {
    let mut rig = Rig::new(1, 60);
    let five = TurnRequest { choices: 5, ..turn(1, prompt(4, 0, 0)) };
    rig.submit(&five);
    rig.run();
    rig.assert_answered(&five);
    assert_eq!(rig.computed as usize, 4 * BLOCK + 5 * (3 + 19));
    rig.assert_empty();
}

/// A reader in another process that keeps some slots.
#[derive(Debug)]
struct Reader(Vec<SlotId>);

impl SlotGate for Reader {
    fn close(&mut self, slot: SlotId, _: Option<&SlotRecord>) -> bool {
        !self.0.contains(&slot)
    }

    fn is_over(&self) -> bool {
        false
    }
}

/// A turn that is not drawn for holds all slots but one, whose cached block a reader has mapped: the
/// pool calls that one available, and cannot hand it out.
#[test]
fn a_turn_that_lags_gives_way_though_a_mapped_block_seems_available() {
    let mut rig = Rig::new(1, 6);
    let first = TurnRequest { router: RouterId(1), ..turn(1, prompt(0, 1, 1)) };
    let first = TurnRequest { stop: StopRule { max_tokens: 1, ..first.stop.clone() }, ..first };
    rig.submit(&first);
    rig.run();
    let chain_key = first.chain_key.clone();
    let sequence = Sequence::new(SeqKey(0), chain_key, first.tokens.clone());
    let cached = rig.blocks.pin(&sequence.chain()[0]).unwrap().slot();
    rig.blocks.lock().add_gate(Box::new(Reader(vec![cached])));

    let long = TurnRequest { osl: 1, ..turn(2, prompt(0, 1, 2)) };
    let long = TurnRequest { stop: StopRule { max_tokens: 48, ..long.stop.clone() }, ..long };
    rig.submit(&long);
    while rig.blocks.counts().free > 0 {
        assert!(rig.step());
    }
    rig.send(Event::Lag(RouterId(1), true));
    let other = TurnRequest { router: RouterId(2), ..turn(3, prompt(0, 1, 3)) };
    rig.submit(&other);
    assert_eq!(rig.blocks.available(), 1);
    for _ in 0..100 {
        // As the worker's clock does where there is nothing to compute.
        if !rig.step() {
            rig.schedule.tick(rig.now, &mut rig.actions);
        }
    }
    rig.assert_answered(&other);
    rig.send(Event::Lag(RouterId(1), false));
    rig.run();
    rig.assert_answered(&long);
    rig.assert_empty();
}

#[test]
fn answers_longer_than_announced_are_preempted_and_still_right() {
    for slots in 8..20 {
        let mut rig = Rig::new(1, slots);
        let long = |id: u128, choices| TurnRequest {
            osl: 0,
            choices,
            stop: StopRule { max_tokens: 60, ..turn(id, Vec::new()).stop },
            ..turn(id, prompt(1, 1 + id as usize % 2, id as u32))
        };
        let turns: Vec<_> = (0..6).map(|id| long(id, 1 + (id % 3) as u16)).collect();
        for turn in &turns {
            rig.submit(turn);
        }
        rig.run();
        assert!(rig.preempted, "{slots} slots");
        for turn in &turns {
            rig.assert_answered(turn);
        }
        rig.assert_empty();
    }
}

#[test]
fn scarce_memory_never_stops_all_turns() {
    for seed in 0..60_u32 {
        let slots = 7 + seed % 9;
        let mut rig = Rig::new(1, slots);
        let draw = |salt: u32, bound: u32| {
            (seed * 31 + salt).wrapping_mul(0x9e37_79b9).rotate_left(11).wrapping_mul(0x85eb_ca6b)
                % bound
        };
        let drawn = |id| {
            let tokens = prompt(0, draw(id + 20, 5) as usize, id);
            let room = slots * BLOCK as u32 - tokens.len() as u32;
            let max_tokens = room.min(1 + draw(id + 10, 70));
            let stop = StopRule { max_tokens, ..turn(0, Vec::new()).stop };
            let precedence = Precedence { priority: draw(id, 3) as i32, ..Precedence::default() };
            TurnRequest { osl: 0, precedence, stop, ..turn(u128::from(id), tokens) }
        };
        let turns: Vec<_> = (0..7).map(drawn).collect();
        for (id, turn) in turns.iter().enumerate() {
            rig.submit(turn);
            for _ in 0..draw(id as u32 + 30, 40) {
                rig.step();
            }
        }
        rig.run();
        for turn in &turns {
            rig.assert_answered(turn);
        }
        rig.assert_empty();
    }
}

#[test]
fn an_answer_may_fill_the_whole_pool() {
    let mut rig = Rig::new(1, 6);
    let whole = TurnRequest {
        osl: 0,
        stop: StopRule { max_tokens: 6 * BLOCK as u32 - 19, ..turn(1, Vec::new()).stop },
        ..turn(1, prompt(1, 0, 1))
    };
    let other = TurnRequest { osl: 0, ..turn(2, prompt(0, 2, 2)) };
    rig.submit(&whole);
    // The other one comes when there is hardly room for both.
    for _ in 0..60 {
        rig.step();
    }
    rig.submit(&other);
    rig.run();
    rig.assert_answered(&whole);
    rig.assert_answered(&other);
    rig.assert_empty();
}

#[test]
fn whenever_a_turn_is_cancelled_everything_is_given_back() {
    for steps in 0..40 {
        let mut rig = Rig::new(1, 14);
        let turns: Vec<_> = (0..4)
            .map(|id| TurnRequest { osl: 2, choices: 2, ..turn(id, prompt(2, 1, id as u32)) })
            .collect();
        for turn in &turns {
            rig.submit(turn);
        }
        for _ in 0..steps {
            rig.step();
        }
        rig.send(Event::Cancel(RouterId(1), RequestId(0), None));
        rig.send(Event::Cancel(RouterId(1), RequestId(1), Some(0)));
        rig.send(Event::Cancel(RouterId(1), RequestId(9), None));
        if steps % 2 == 0 {
            rig.run();
            for turn in &turns[2..] {
                rig.assert_answered(turn);
            }
        }
        rig.send(Event::RouterGone(RouterId(1)));
        rig.assert_empty();
    }
}

#[test]
fn the_most_urgent_turn_is_admitted_first_and_waiting_makes_urgent() {
    let mut rig = Rig::new(1, 6);
    let urgent = |id, priority| TurnRequest {
        precedence: Precedence { priority, ..Precedence::default() },
        ..turn(id, prompt(0, 4, id as u32))
    };
    rig.submit(&urgent(1, 0));
    rig.submit(&urgent(2, 0));
    rig.now = SECOND / 2;
    rig.submit(&urgent(3, 2));
    rig.now = 4 * SECOND;
    rig.submit(&urgent(4, 3));
    rig.run();
    let finished = |action: &Action| match action {
        Action::Update(_, Update { request, news: News::Finished(..), .. }) => Some(request.0),
        _ => None,
    };
    let order: Vec<u128> = rig.actions.iter().filter_map(finished).collect();
    assert_eq!(order, [1, 3, 2, 4]);
}

#[test]
fn what_cannot_be_done_is_refused_with_its_reason() {
    let mut rig = Rig::new(1, 8);
    rig.submit(&turn(1, prompt(0, 8, 1)));
    rig.submit(&TurnRequest { deadline: Duration::ZERO, ..turn(2, prompt(0, 1, 2)) });
    for id in 10..19 {
        rig.submit(&turn(id, prompt(0, 1, 3)));
    }
    assert_eq!(rig.failure(1), Some(Failure::TooLarge { blocks: 9, slots: 8 }));
    assert_eq!(rig.failure(2), Some(Failure::Deadline));
    assert_eq!((rig.failure(17), rig.failure(18)), (None, Some(Failure::Overloaded)));
    rig.step();
    rig.now = 100 * SECOND;
    rig.schedule.tick(rig.now, &mut rig.actions);
    assert_eq!(rig.failure(17), Some(Failure::Deadline));
    rig.assert_empty();
}

#[test]
fn announced_blocks_are_pulled_not_computed() {
    let mut owner = Rig::new(7, 40);
    let mut rig = Rig::new(1, 40);
    let wanted = with_candidates(turn(1, prompt(0, 6, 1)), &[7, 8]);
    let blocks = owner.lend(&wanted);
    rig.submit(&wanted);
    assert_eq!(rig.calls(), (vec![7], 0));
    for part in blocks.chunks(2) {
        rig.send(Event::Announced(TurnId(1), part.to_vec()));
        rig.bring_pulls(&owner);
    }
    rig.run();
    rig.assert_answered(&wanted);
    assert_eq!(rig.computed, 3 + 19);
    assert_eq!(rig.calls(), (vec![7], 1));
    rig.assert_empty();
}

#[test]
fn a_second_turn_takes_what_the_first_one_pulls() {
    let mut owner = Rig::new(7, 40);
    let mut rig = Rig::new(1, 40);
    let first = with_candidates(turn(1, prompt(6, 0, 0)), &[7]);
    let second = with_candidates(turn(2, prompt(6, 0, 0)), &[8]);
    let blocks = owner.lend(&first);
    rig.submit(&first);
    rig.submit(&second);
    rig.send(Event::Announced(TurnId(1), blocks.clone()));
    for _ in 0..3 {
        rig.bring_pulls(&owner);
    }
    rig.run();
    rig.assert_answered(&first);
    rig.assert_answered(&second);
    assert_eq!(rig.computed, 2 * (3 + 19));
    rig.assert_empty();
}

#[test]
fn a_call_that_fails_is_made_again_elsewhere_and_at_last_computed_here() {
    let mut rig = Rig::new(1, 40);
    let wanted = with_candidates(turn(1, prompt(0, 5, 1)), &[7, 8, 9]);
    rig.submit(&wanted);
    assert!(!rig.step(), "it waits for the prefill worker");
    rig.send(Event::PrefillFailed(TurnId(1), WorkerId(7)));
    assert_eq!(rig.calls(), (vec![7, 8], 1));
    rig.send(Event::PrefillFailed(TurnId(1), WorkerId(8)));
    rig.run();
    rig.assert_answered(&wanted);
    assert_eq!(rig.calls(), (vec![7, 8], 2), "two attempts");
    rig.assert_empty();
}

#[test]
fn what_a_stuck_device_keeps_is_asked_of_another_worker_and_at_last_computed_here() {
    let (mut first, mut second) = (Rig::new(7, 40), Rig::new(8, 40));
    let mut rig = Rig::new(1, 40);
    let wanted = with_candidates(turn(1, prompt(0, 4, 1)), &[7, 8]);
    let mut lost = 0;
    rig.submit(&wanted);
    for owner in [&mut first, &mut second] {
        rig.send(Event::Announced(TurnId(1), owner.lend(&wanted)));
        for (turn, batch) in rig.take_pulls() {
            // The leases fall with the pulls.
            let blocks: Vec<_> = batch.into_iter().map(|pull| pull.from).collect();
            lost += blocks.len() as u32;
            rig.send(Event::Settled(turn, Vec::new()));
            rig.send(Event::Lost(turn, blocks));
        }
    }
    assert_eq!(rig.calls(), (vec![7, 8], 2), "each is asked once");
    rig.run();
    rig.assert_answered(&wanted);
    assert_eq!(rig.computed as usize, 4 * BLOCK + 3 + 19);
    let Counts { free, cached, quarantined, .. } = rig.blocks.counts();
    assert_eq!((quarantined, free + cached), (lost, 40 - lost));
    assert!(lost > 0 && rig.schedule.is_idle());
    assert_eq!((rig.schedule.claimed(), rig.schedule.promised()), (0, 0));
}

#[test]
fn late_failures_of_one_prefill_worker_do_not_count_against_the_next() {
    let (mut first, mut second) = (Rig::new(7, 40), Rig::new(8, 40));
    let mut rig = Rig::new(1, 40);
    let wanted = with_candidates(turn(1, prompt(0, 4, 1)), &[7, 8]);
    let (dead, good) = (first.lend(&wanted), second.lend(&wanted));
    rig.submit(&wanted);
    rig.send(Event::Announced(TurnId(1), dead[..1].to_vec()));
    rig.send(Event::Announced(TurnId(1), dead[1..2].to_vec()));
    let pulls = rig.take_pulls();
    assert_eq!(pulls.len(), 2);
    // The first batch fails, then the second, then the call; all because of one death.
    rig.fail_pulls(pulls);
    rig.send(Event::Announced(TurnId(1), dead));
    assert!(rig.take_pulls().is_empty(), "what it announced is not asked of the second one");
    rig.send(Event::PrefillDone(TurnId(1), WorkerId(7), 0));
    rig.send(Event::PrefillFailed(TurnId(1), WorkerId(7)));
    assert_eq!(rig.calls(), (vec![7, 8], 1), "the second one is still asked");
    rig.send(Event::Announced(TurnId(1), good));
    rig.bring_pulls(&second);
    rig.run();
    rig.assert_answered(&wanted);
    assert_eq!(rig.computed, 3 + 19);
    rig.assert_empty();
}

#[test]
fn foreign_blocks_are_ignored_and_missing_ones_computed() {
    let mut owner = Rig::new(7, 60);
    let other = owner.lend(&turn(3, prompt(0, 5, 2)));
    let wanted = with_candidates(turn(1, prompt(0, 5, 1)), &[7]);
    let right = owner.lend(&wanted);
    // Another prompt's blocks, too few of the right ones, or none at all.
    for announced in [other, right[1..3].to_vec(), right[..2].to_vec(), Vec::new()] {
        let mut rig = Rig::new(1, 40);
        rig.submit(&wanted);
        rig.send(Event::Announced(TurnId(1), announced));
        rig.send(Event::PrefillDone(TurnId(1), WorkerId(7), 0));
        for _ in 0..3 {
            rig.bring_pulls(&owner);
        }
        rig.run();
        rig.assert_answered(&wanted);
        rig.assert_empty();
    }
}

#[test]
fn slots_of_a_cancelled_turn_come_back_when_its_transports_are_quiet() {
    let mut owner = Rig::new(7, 40);
    let mut rig = Rig::new(1, 12);
    let wanted = with_candidates(turn(1, prompt(0, 6, 1)), &[7]);
    let blocks = owner.lend(&wanted);
    rig.submit(&wanted);
    rig.send(Event::Announced(TurnId(1), blocks));
    rig.send(Event::Cancel(RouterId(1), RequestId(1), None));
    assert_eq!(rig.calls(), (vec![7], 1));
    assert_eq!(rig.blocks.counts().draft, 4, "a transport may still write");
    rig.bring_pulls(&owner);
    rig.assert_empty();
}

#[test]
fn a_slow_step_does_not_cost_a_lent_block() {
    let mut rig = Rig::new(1, 40);
    rig.submit(&turn(1, prompt(3, 0, 1)));
    // Only between steps can leases be renewed, and these take five times as long as a lease.
    rig.step_for(5 * SECOND);
    rig.run();
    rig.submit(&with_candidates(turn(2, prompt(3, 3, 2)), &[7]));
    let lent = rig.actions.iter().find_map(|action| match action {
        Action::StartPrefill(_, call) => Some(call.held[0]),
        _ => None,
    });
    let now = rig.now + 5 * SECOND;
    assert!(rig.blocks.lock().resolve(&lent.unwrap(), now).is_ok());
}

#[test]
fn blocks_lent_to_a_prefill_worker_are_kept_until_it_is_done() {
    let mut owner = Rig::new(7, 40);
    let mut rig = Rig::new(1, 40);
    rig.submit(&turn(1, prompt(3, 0, 1)));
    rig.run();
    let wanted = with_candidates(turn(2, prompt(3, 3, 2)), &[7]);
    let blocks = owner.lend(&wanted);
    rig.submit(&wanted);
    let held = rig.actions.iter().find_map(|action| match action {
        Action::StartPrefill(_, call) => Some((call.from_block, call.held.clone())),
        _ => None,
    });
    let (from_block, held) = held.unwrap();
    assert_eq!((from_block, held.len()), (3, 3));
    for half in 1..10 {
        rig.now = SECOND * half / 2;
        rig.schedule.tick(rig.now, &mut rig.actions);
        assert!(rig.blocks.lock().resolve(&held[0], rig.now).is_ok(), "after {:?}", rig.now);
    }
    rig.send(Event::Announced(TurnId(2), blocks[3..].to_vec()));
    rig.bring_pulls(&owner);
    assert!(rig.blocks.lock().resolve(&held[0], rig.now).is_err(), "it is done");
    rig.run();
    rig.assert_answered(&wanted);
    rig.assert_empty();
}

/// What nobody waits for: a prompt and one token.
pub(super) fn ahead(id: u128, tokens: Vec<TokenId>) -> TurnRequest {
    let stop = StopRule { max_tokens: 1, ..turn(id, Vec::new()).stop };
    let precedence = Precedence { priority: BACKGROUND_PRIORITY, ..Precedence::default() };
    TurnRequest { osl: 1, stop, precedence, ..turn(id, tokens) }
}

#[test]
fn memory_of_what_is_computed_ahead_goes_to_a_request_and_it_goes_on_later() {
    let mut rig = Rig::new(1, 10);
    let (first, second) = (ahead(1, prompt(0, 6, 1)), turn(2, prompt(0, 6, 2)));
    rig.submit(&first);
    rig.step();
    rig.submit(&second);
    let admitted = |rig: &Rig, id| {
        rig.news(id).filter(|(_, news)| matches!(news, News::Admitted { .. })).count()
    };
    assert_eq!((admitted(&rig, 1), admitted(&rig, 2)), (1, 1));
    rig.run();
    assert_eq!(admitted(&rig, 1), 1, "a router is told once");
    rig.assert_answered(&first);
    rig.assert_answered(&second);
    rig.assert_empty();
}

#[test]
fn who_gives_way_hangs_up_and_asks_again_when_it_is_its_turn() {
    let mut rig = Rig::new(1, 10);
    let first = with_candidates(ahead(1, prompt(0, 6, 1)), &[7]);
    rig.submit(&first);
    assert_eq!(rig.calls(), (vec![7], 0));
    let second = turn(2, prompt(0, 6, 2));
    rig.submit(&second);
    assert_eq!(rig.calls(), (vec![7], 1));
    rig.run();
    rig.assert_answered(&second);
    assert_eq!(rig.calls(), (vec![7, 7], 1));
    rig.send(Event::PrefillFailed(TurnId(1), WorkerId(7)));
    rig.run();
    rig.assert_answered(&first);
    rig.assert_empty();
}

#[test]
fn what_has_drawn_a_token_keeps_its_memory() {
    let mut rig = Rig::new(1, 10);
    let low = Precedence { priority: -9, ..Precedence::default() };
    let first = TurnRequest { precedence: low, ..turn(1, prompt(0, 6, 1)) };
    rig.submit(&first);
    while rig.tokens(1, 0).is_empty() {
        rig.step();
    }
    let urgent = Precedence { strict_priority: 3, ..Precedence::default() };
    let second = TurnRequest { precedence: urgent, ..turn(2, prompt(0, 6, 2)) };
    rig.submit(&second);
    rig.run();
    rig.assert_answered(&first);
    rig.assert_answered(&second);
    assert!(!rig.preempted);
    rig.assert_empty();
}

#[test]
fn a_preempted_turn_takes_the_memory_of_what_nobody_waits_for() {
    let (mut owner, mut rig) = (Rig::new(7, 40), Rig::new(1, 13));
    let of = |id, strict_priority| {
        let stop = StopRule { max_tokens: 60, ..turn(id, Vec::new()).stop };
        let precedence = Precedence { strict_priority, ..Precedence::default() };
        TurnRequest { osl: 0, stop, precedence, ..turn(id, prompt(0, 1, id as u32)) }
    };
    let wanted = [of(1, 1), of(2, 2)];
    let behind = with_candidates(ahead(3, prompt(0, 8, 3)), &[7]);
    let blocks = owner.lend(&behind);
    for turn in wanted.iter().chain([&behind]) {
        rig.submit(turn);
    }
    // The last of its blocks does not come.
    rig.send(Event::Announced(TurnId(3), blocks[..7].to_vec()));
    rig.bring_pulls(&owner);
    rig.bring_pulls(&owner);
    rig.run();
    assert!(rig.preempted, "there is not room for all");
    for turn in &wanted {
        rig.assert_answered(turn);
    }
    rig.send(Event::PrefillFailed(TurnId(3), WorkerId(7)));
    rig.run();
    rig.assert_answered(&behind);
    rig.assert_empty();
}
