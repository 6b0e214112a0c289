//! The decode schedule: turns get their credit, their blocks, and then a token a step.
//!
//! A pure core. Turns are served in the order of [`baton_worker::queue`]. A turn waits for a counted
//! credit over its prompt and expected answer; where one of a higher tier lacks it, what is computed
//! ahead, and what is less than ordinary, gives way until its first token. Then its whole blocks
//! come together, from the pool, from a prefill worker that it has called, or by
//! computing them here between the steps of others. What is missing, late or refused costs time
//! only: the next candidate is asked, and at last the blocks are computed here.

use crate::event::{Action, Event, Failure, News, PrefillCall, Update};
use crate::turn::{Phase, Remote, RouterId, Turn, TurnId, TurnRequest};
use baton_engine::api::{Batch, StepOutput};
use baton_proto::block::BlockDescriptor;
use baton_proto::ids::{RequestId, SeqKey};
use baton_transfer::{Peer, Settled};
use baton_worker::blocks::Blocks;
use baton_worker::claims::Claims;
use baton_worker::fill::{Fill, FillLimits, Next};
use baton_worker::plan::{LoadReport, Pace, Plan, Schedule};
use baton_worker::queue::Shares;
use baton_worker::sequence::Sequence;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Bounds and sizes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Turns accepted at a time.
    pub turns_max: usize,
    /// Positions in one step.
    pub batch_tokens: u32,
    /// Prompt positions computed here in a step that also draws for others: what bounds their
    /// inter-token latency.
    pub local_fill_tokens: u32,
    /// Blocks a turn pulls at a time.
    pub pull_window_blocks: usize,
    /// A pull that takes longer has failed.
    pub pull_timeout: Duration,
    /// How long this worker's own blocks are kept for a prefill worker without a renewal.
    pub lease_ttl: Duration,
    /// Prefill workers asked for one turn, at most.
    pub prefill_attempts: usize,
    /// A prefill worker that announces nothing for that long is given up for the turn.
    pub prefill_patience: Duration,
    /// Waiting that long counts as one step of priority.
    pub ageing: Duration,
}

/// A sequence's part in the step under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) turn: TurnId,
    pub(crate) choice: usize,
    pub(crate) count: u32,
}

/// The schedule.
#[derive(Debug)]
pub struct DecodeSchedule {
    pub(crate) blocks: Blocks,
    pub(crate) claims: Claims,
    pub(crate) limits: Limits,
    pub(crate) turns: BTreeMap<TurnId, Turn>,
    pub(crate) shares: Shares,
    names: BTreeMap<(RouterId, RequestId), TurnId>,
    /// Routers for which nothing is drawn.
    pub(crate) lagging: BTreeSet<RouterId>,
    /// Blocks promised to admitted turns.
    pub(crate) credit_used: usize,
    next_turn: u64,
    next_seq: u64,
    pub(crate) in_step: Vec<Part>,
    pub(crate) forgotten: Vec<SeqKey>,
    pace: Pace,
}

impl Schedule for DecodeSchedule {
    type Event = Event;
    type Action = Action;

    fn step(&mut self, event: Event, now: Duration, actions: &mut Vec<Action>) {
        match event {
            Event::Submit(request) => self.submit(*request, now, actions),
            Event::Cancel(router, request, choice) => self.cancel(router, request, choice, actions),
            Event::Lag(router, true) => drop(self.lagging.insert(router)),
            Event::Lag(router, false) => drop(self.lagging.remove(&router)),
            Event::RouterGone(router) => self.router_gone(router, actions),
            Event::Order(switch) => self.shares.set(switch),
            Event::Announced(id, blocks) => {
                self.announced(id, &blocks, now);
            }
            Event::PrefillDone(id, from, cached_tokens) => {
                if let Some(turn) = self.turns.get_mut(&id)
                    && let Some(remote) = &mut turn.remote
                    && remote.candidate.peer.worker == from
                {
                    remote.done = true;
                    turn.remote_cached_tokens = cached_tokens;
                }
            }
            Event::PrefillFailed(id, from) => {
                if self.asks(id, |peer| peer.worker == from) {
                    self.replan(id, now, actions);
                }
            }
            Event::Settled(id, results) => self.settled(id, results, now, actions),
            Event::Lost(id, blocks) => self.lost(id, &blocks, now, actions),
        }
        self.pump(now, actions);
    }

    fn plan(&mut self, now: Duration, actions: &mut Vec<Action>) -> Option<Plan> {
        self.pace.begin(now);
        self.plan_step(now, actions)
    }

    fn batch(&self, plan: Plan) -> Batch<'_> {
        self.make_batch(plan)
    }

    fn stepped(&mut self, output: StepOutput, now: Duration, actions: &mut Vec<Action>) {
        self.pace.end(now);
        self.absorb_step(output, now, actions);
        self.pump(now, actions);
    }

    fn tick(&mut self, now: Duration, actions: &mut Vec<Action>) {
        self.blocks.expire(now);
        let late = |(id, turn): (&TurnId, &Turn)| (turn.request.deadline <= now).then_some(*id);
        let late: Vec<TurnId> = self.turns.iter().filter_map(late).collect();
        for id in late {
            self.fail(id, Failure::Deadline, actions);
        }
        let silent = |(id, turn): (&TurnId, &Turn)| {
            turn.is_silent(now, self.limits.prefill_patience).then_some(*id)
        };
        let silent: Vec<TurnId> = self.turns.iter().filter_map(silent).collect();
        for id in silent {
            self.replan(id, now, actions);
        }
        for turn in self.turns.values() {
            if let Some(lease) = turn.remote.as_ref().and_then(|remote| remote.lease) {
                self.blocks.renew(lease, self.pace.outlast(self.limits.lease_ttl), now);
            }
        }
        self.pump(now, actions);
    }

    fn forgotten(&mut self) -> Vec<SeqKey> {
        std::mem::take(&mut self.forgotten)
    }

    fn load(&self) -> LoadReport {
        let mut load = LoadReport { order: self.shares.shadow(), ..LoadReport::default() };
        for turn in self.turns.values() {
            if turn.admitted.is_none() {
                load.queued += 1;
                load.pending_tokens += u64::from(turn.prompt_len());
            } else {
                load.running += 1;
            }
        }
        load
    }

    fn is_idle(&self) -> bool {
        self.turns.is_empty()
    }
}

impl DecodeSchedule {
    /// An empty schedule over a worker's blocks.
    pub fn new(blocks: Blocks, limits: Limits) -> Self {
        Self {
            blocks,
            claims: Claims::default(),
            limits,
            turns: BTreeMap::new(),
            shares: Shares::default(),
            names: BTreeMap::new(),
            lagging: BTreeSet::new(),
            credit_used: 0,
            next_turn: 1,
            next_seq: 1,
            in_step: Vec::new(),
            forgotten: Vec::new(),
            pace: Pace::default(),
        }
    }

    /// Blocks that turns have claimed; none where nothing is under way.
    pub fn claimed(&self) -> usize {
        self.claims.len()
    }

    /// Blocks promised to admitted turns; none where nothing is under way.
    pub fn promised(&self) -> usize {
        self.credit_used
    }

    fn slots(&self) -> usize {
        self.blocks.usable_slots()
    }

    fn submit(&mut self, mut request: TurnRequest, now: Duration, actions: &mut Vec<Action>) {
        let slots = self.slots();
        let prompt_blocks = request.tokens.len() / request.chain_key.block_tokens as usize + 1;
        let failure = if prompt_blocks > slots {
            Some(Failure::TooLarge { blocks: prompt_blocks, slots })
        } else if self.turns.len() >= self.limits.turns_max {
            Some(Failure::Overloaded)
        } else if request.deadline <= now {
            Some(Failure::Deadline)
        } else {
            None
        };
        if let Some(failure) = failure {
            let news = News::Failed(failure);
            let update = Update { request: request.request, choice: 0, news };
            actions.push(Action::Update(request.router, update));
            return;
        }
        let id = TurnId(self.next_turn);
        self.next_turn += 1;
        if let Some(earlier) = self.names.insert((request.router, request.request), id) {
            self.end_turn(earlier, actions);
            self.names.insert((request.router, request.request), id);
        }
        // What exceeds the pool cannot be drawn: alone on this worker, a turn always fits.
        let all = slots as u64 * u64::from(request.chain_key.block_tokens);
        let room = all.saturating_sub(request.tokens.len() as u64);
        request.stop.max_tokens =
            request.stop.max_tokens.min(u32::try_from(room).unwrap_or(u32::MAX));
        self.shares.enter(&request.chain_key.tenant);
        self.turns.insert(id, Turn::new(request, slots, now));
    }

    fn cancel(
        &mut self,
        router: RouterId,
        request: RequestId,
        choice: Option<u16>,
        actions: &mut Vec<Action>,
    ) {
        let Some(id) = self.names.get(&(router, request)).copied() else { return };
        match choice {
            None => self.end_turn(id, actions),
            Some(choice) if self.turns[&id].choices.len() > usize::from(choice) => {
                self.end_choice(id, usize::from(choice), actions);
            }
            Some(_) => {}
        }
    }

    fn router_gone(&mut self, router: RouterId, actions: &mut Vec<Action>) {
        self.lagging.remove(&router);
        let gone: Vec<TurnId> = self
            .names
            .range((router, RequestId(0))..=(router, RequestId(u128::MAX)))
            .map(|(_, id)| *id)
            .collect();
        for id in gone {
            self.end_turn(id, actions);
        }
    }

    /// Begins and continues what there is credit for, and moves on whatever can be moved on
    /// without computing. What is new and what was preempted wait in one line.
    fn pump(&mut self, now: Duration, actions: &mut Vec<Action>) {
        for id in self.order(now, |turn| turn.admitted.is_none() || turn.is_preempted()) {
            let turn = &self.turns[&id];
            if turn.admitted.is_some() {
                let resumed = self.resume_preempted(id)
                    || (self.make_room(id, self.missing_to_resume(id), now, actions)
                        && self.resume_preempted(id));
                if !resumed {
                    break;
                }
                continue;
            }
            let missing = (self.credit_used + turn.credit()).saturating_sub(self.slots());
            if missing > 0 && !self.make_room(id, missing, now, actions) {
                break;
            }
            self.admit(id, now, actions);
        }
        for id in self.order(now, |turn| turn.admitted.is_some()) {
            self.progress(id, now, actions);
        }
    }

    fn admit(&mut self, id: TurnId, now: Duration, actions: &mut Vec<Action>) {
        let key = self.mint_seq();
        let turn = self.turns.get_mut(&id).expect("listed turns exist");
        self.credit_used += turn.credit();
        turn.admitted = Some(now);
        turn.report.queue = now.saturating_sub(turn.arrived);
        let told = std::mem::replace(&mut turn.told, true);
        if !told {
            let (tokens, weight) = (turn.credit_tokens(), turn.request.weight);
            self.shares.charge(&turn.request.chain_key.tenant, weight, tokens);
        }
        let request = &turn.request;
        let sequence = Sequence::new(key, request.chain_key.clone(), request.tokens.clone());
        let block_tokens = request.chain_key.block_tokens;
        let goal = (request.tokens.len() - 1) / block_tokens as usize;
        let mut fill = Fill::new(sequence, goal, 0);
        let limits = self.fill_limits(0);
        fill.advance(&self.blocks, &mut self.claims, limits);
        let held = fill.have();
        let news = News::Admitted { held_tokens: held as u32 * block_tokens };
        let turn = self.turns.get_mut(&id).expect("listed turns exist");
        let update = Update { request: turn.request.request, choice: 0, news };
        if !told {
            actions.push(Action::Update(turn.request.router, update));
        }
        turn.choices[0].phase = Phase::Filling(fill);
        if held < goal {
            self.ask_prefill(id, now, actions);
        }
    }

    /// Has turns give way to one that lacks so many blocks; `false`, and none does, where that
    /// would not be enough.
    fn make_room(
        &mut self,
        id: TurnId,
        missing: usize,
        now: Duration,
        actions: &mut Vec<Action>,
    ) -> bool {
        let (urgency, times) = (self.turns[&id].urgency(), (now, self.limits.ageing));
        let others = self.order(now, Turn::can_give_way).into_iter().map(|other| {
            let turn = &self.turns[&other];
            (other, turn.urgency(), turn.credit())
        });
        let chosen = self.shares.displaced(&urgency, others, missing, times);
        for other in chosen.iter().flatten() {
            self.give_way(*other, actions);
        }
        chosen.is_some()
    }

    /// A turn of which nothing is drawn yet waits again. What it has sealed stays in the pool.
    fn give_way(&mut self, id: TurnId, actions: &mut Vec<Action>) {
        self.hang_up(id, actions);
        let turn = self.turns.get_mut(&id).expect("the caller has seen the turn");
        self.credit_used -= turn.credit();
        turn.admitted = None;
        turn.asked = 0;
        if let Some(seq) = turn.choices[0].seq() {
            self.claims.release_all(seq);
            self.forgotten.push(seq);
        }
        turn.choices[0].phase = Phase::Waiting;
    }

    /// Calls the next candidate, if there is one; otherwise the turn computes here.
    pub(crate) fn ask_prefill(&mut self, id: TurnId, now: Duration, actions: &mut Vec<Action>) {
        let ttl = self.pace.outlast(self.limits.lease_ttl);
        let turn = self.turns.get_mut(&id).expect("the caller has seen the turn");
        let attempts = self.limits.prefill_attempts.min(turn.request.candidates.len());
        let Phase::Filling(fill) = &turn.choices[0].phase else { return };
        if turn.asked >= attempts {
            return;
        }
        let candidate = turn.request.candidates[turn.asked].clone();
        turn.asked += 1;
        let pins = fill.sequence().pins();
        let lent = if pins.is_empty() { None } else { self.blocks.lend(pins, None, ttl, now) };
        let (lease, held) = lent.map_or((None, Vec::new()), |(id, held)| (Some(id), held));
        turn.remote = Some(Remote { candidate: candidate.clone(), asked: now, done: false, lease });
        turn.last_announced = None;
        let call = PrefillCall {
            candidate,
            request: turn.request.request,
            tokens: turn.request.tokens.clone(),
            chain_key: turn.request.chain_key.clone(),
            from_block: pins.len(),
            held,
            precedence: turn.request.precedence,
            deadline: turn.request.deadline,
        };
        actions.push(Action::StartPrefill(id, Box::new(call)));
    }

    /// The prefill call is of no use any more: done, failed, or the turn is over.
    fn hang_up(&mut self, id: TurnId, actions: &mut Vec<Action>) {
        let Some(turn) = self.turns.get_mut(&id) else { return };
        let Some(remote) = turn.remote.take() else { return };
        if let Some(lease) = remote.lease {
            self.blocks.release(lease);
        }
        if let Some(fill) = turn.lead() {
            fill.withdraw_offers();
        }
        actions.push(Action::StopPrefill(id));
    }

    /// Whether the prefill call under way is one of such a worker: news of an earlier call may
    /// still come when the next candidate has been asked.
    fn asks(&self, id: TurnId, is_it: impl FnOnce(&Peer) -> bool) -> bool {
        let remote = self.turns.get(&id).and_then(|turn| turn.remote.as_ref());
        remote.is_some_and(|remote| is_it(&remote.candidate.peer))
    }

    fn announced(&mut self, id: TurnId, blocks: &[BlockDescriptor], now: Duration) {
        if !blocks.iter().all(|block| self.asks(id, |peer| owns(peer, block))) {
            return;
        }
        let turn = self.turns.get_mut(&id).expect("it asks");
        turn.last_announced = Some(now);
        if let Some(fill) = turn.lead() {
            fill.offer(blocks);
        }
    }

    /// The prefill worker cannot deliver: the next one, or here.
    fn replan(&mut self, id: TurnId, now: Duration, actions: &mut Vec<Action>) {
        if self.turns.get(&id).is_some_and(|turn| turn.remote.is_some()) {
            self.hang_up(id, actions);
            self.ask_prefill(id, now, actions);
        }
    }

    fn settled(
        &mut self,
        id: TurnId,
        results: Vec<Settled>,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        let Some(fill) = self.turns.get_mut(&id).and_then(Turn::lead) else {
            results.into_iter().for_each(Settled::give_back);
            return;
        };
        let mut failed = Vec::new();
        for result in results {
            let block = *result.block();
            if !fill.settled(result, &mut self.claims) {
                failed.push(block);
            }
        }
        self.not_delivered(id, &failed, now, actions);
    }

    fn lost(
        &mut self,
        id: TurnId,
        blocks: &[BlockDescriptor],
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        let Some(fill) = self.turns.get_mut(&id).and_then(Turn::lead) else { return };
        for block in blocks {
            fill.lost(block, &mut self.claims);
        }
        self.not_delivered(id, blocks, now, actions);
    }

    /// Only a failure of the worker that is asked now says something about that worker.
    fn not_delivered(
        &mut self,
        id: TurnId,
        failed: &[BlockDescriptor],
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        if failed.iter().any(|block| self.asks(id, |peer| owns(peer, block))) {
            self.replan(id, now, actions);
        }
    }

    /// Takes in what has become available; a filled choice begins to decode.
    fn progress(&mut self, id: TurnId, now: Duration, actions: &mut Vec<Action>) {
        let limits = self.fill_limits(0);
        let choices = self.turns[&id].choices.len();
        for choice in 0..choices {
            loop {
                let turn = self.turns.get_mut(&id).expect("progress does not end turns");
                let Phase::Filling(fill) = &mut turn.choices[choice].phase else { break };
                match fill.advance(&self.blocks, &mut self.claims, limits) {
                    Next::Done => self.filled(id, choice, actions),
                    Next::Pull(pulls) => {
                        let remote = turn.remote.as_ref().expect("offers come from a call");
                        let peer = remote.candidate.peer.clone();
                        let deadline = turn.request.deadline.min(now + self.limits.pull_timeout);
                        actions.push(Action::Pull(id, peer, pulls, deadline));
                    }
                    Next::Wait | Next::Compute(_) => {
                        if self.is_stranded(id) {
                            self.replan(id, now, actions);
                        }
                        break;
                    }
                }
            }
        }
    }

    /// Whether the prefill worker says that it has announced everything, and yet a block that
    /// nobody is working on is missing.
    fn is_stranded(&self, id: TurnId) -> bool {
        let turn = &self.turns[&id];
        let Phase::Filling(fill) = &turn.choices[0].phase else { return false };
        turn.remote.as_ref().is_some_and(|remote| remote.done)
            && fill.is_waiting_for_offer(&self.claims)
    }

    fn filled(&mut self, id: TurnId, choice: usize, actions: &mut Vec<Action>) {
        let turn = self.turns.get_mut(&id).expect("the caller has seen the turn");
        let phase = std::mem::replace(&mut turn.choices[choice].phase, Phase::Ended);
        let Phase::Filling(fill) = phase else { panic!("only a filling choice is filled") };
        let report = fill.report();
        let sequence = fill.into_sequence();
        if !std::mem::replace(&mut turn.filled, true) {
            let block_tokens = sequence.block_tokens();
            // What the other side found counts only as far as it came from there.
            let pulled_tokens = report.pulled_blocks * block_tokens;
            turn.report.cached_tokens =
                report.found_blocks * block_tokens + turn.remote_cached_tokens.min(pulled_tokens);
            turn.report.pulled_tokens = pulled_tokens;
            turn.report.pulled_blocks = report.pulled_blocks;
            turn.report.pulled_bytes = report.pulled_bytes;
            turn.report.computed_tokens = sequence.tokens().len() as u32
                - (report.found_blocks + report.pulled_blocks) * block_tokens;
            if let Some(remote) = &turn.remote {
                turn.report.prefill_worker = remote.candidate.peer.worker.0;
            }
            for other in 1..turn.choices.len() {
                if matches!(turn.choices[other].phase, Phase::Waiting) {
                    let key = SeqKey(self.next_seq);
                    self.next_seq += 1;
                    turn.choices[other].phase = Phase::Decoding(sequence.fork(key));
                }
            }
        }
        turn.choices[choice].phase = Phase::Decoding(sequence);
        if choice == 0 {
            self.hang_up(id, actions);
        }
    }

    /// Preempted choices continue where there is room, and credit, for all they have and a block
    /// more: filling choices are not preempted, so they must never wait for each other's memory.
    /// `false` where one has to wait.
    fn resume_preempted(&mut self, id: TurnId) -> bool {
        let slots = self.slots();
        for choice in 0..self.turns[&id].choices.len() {
            let turn = &self.turns[&id];
            let Phase::Preempted(tokens) = &turn.choices[choice].phase else { continue };
            let chain_key = turn.request.chain_key.clone();
            let block_tokens = chain_key.block_tokens as usize;
            let needed = blocks_to_resume(tokens.len(), block_tokens, slots);
            if self.credit_used + needed > slots || needed > self.blocks.available() as usize {
                return false;
            }
            self.credit_used += needed;
            let goal = (tokens.len() - 1) / block_tokens;
            let tokens = tokens.clone();
            let sequence = Sequence::new(self.mint_seq(), chain_key, tokens);
            let turn = self.turns.get_mut(&id).expect("the caller has seen the turn");
            turn.choices[choice].credit = needed;
            turn.choices[choice].phase = Phase::Filling(Fill::new(sequence, goal, 0));
        }
        true
    }

    /// Blocks that the first of its preempted choices lacks to continue.
    fn missing_to_resume(&self, id: TurnId) -> usize {
        let (turn, slots) = (&self.turns[&id], self.slots());
        let block_tokens = turn.request.chain_key.block_tokens as usize;
        let preempted = turn.choices.iter().find_map(|choice| match &choice.phase {
            Phase::Preempted(tokens) => Some(tokens.len()),
            _ => None,
        });
        let needed = preempted.map_or(0, |count| blocks_to_resume(count, block_tokens, slots));
        let credit = (self.credit_used + needed).saturating_sub(slots);
        credit.max(needed.saturating_sub(self.blocks.available() as usize))
    }

    /// Ends a turn with a typed failure.
    pub(crate) fn fail(&mut self, id: TurnId, failure: Failure, actions: &mut Vec<Action>) {
        let Some(turn) = self.turns.get(&id) else { return };
        let news = News::Failed(failure);
        let update = Update { request: turn.request.request, choice: 0, news };
        actions.push(Action::Update(turn.request.router, update));
        self.end_turn(id, actions);
    }

    /// Ends a choice; the turn, where it was the last one.
    pub(crate) fn end_choice(&mut self, id: TurnId, choice: usize, actions: &mut Vec<Action>) {
        let Some(turn) = self.turns.get_mut(&id) else { return };
        if turn.choices.iter().any(|choice| matches!(choice.phase, Phase::Waiting)) {
            // Nothing is drawn yet, so a router has no reason to end one choice, and the first
            // one is bringing the blocks of all.
            return;
        }
        let choice = &mut turn.choices[choice];
        if let Some(seq) = choice.seq() {
            self.claims.release_all(seq);
            self.forgotten.push(seq);
        }
        choice.phase = Phase::Ended;
        self.credit_used -= std::mem::take(&mut choice.credit);
        if turn.is_over() {
            self.end_turn(id, actions);
        }
    }

    /// Ends a turn in whatever phase it is. What it sealed stays in the pool.
    fn end_turn(&mut self, id: TurnId, actions: &mut Vec<Action>) {
        self.hang_up(id, actions);
        let Some(turn) = self.turns.remove(&id) else { return };
        self.names.remove(&(turn.request.router, turn.request.request));
        self.shares.leave(&turn.request.chain_key.tenant);
        if turn.admitted.is_some() {
            self.credit_used -= turn.credit();
        }
        for seq in turn.choices.iter().filter_map(crate::turn::Choice::seq) {
            self.claims.release_all(seq);
            self.forgotten.push(seq);
        }
    }

    pub(crate) fn fill_limits(&self, compute_tokens: u32) -> FillLimits {
        FillLimits { window_blocks: self.limits.pull_window_blocks, compute_tokens }
    }

    fn mint_seq(&mut self) -> SeqKey {
        let key = SeqKey(self.next_seq);
        self.next_seq += 1;
        key
    }

    /// Turns that fit, in the order in which they are served.
    pub(crate) fn order(&self, now: Duration, fits: impl Fn(&Turn) -> bool) -> Vec<TurnId> {
        let turns = self.turns.iter().filter(|(_, turn)| fits(turn));
        let entries = turns.map(|(id, turn)| turn.entry(*id)).collect();
        self.shares.order(entries, now, self.limits.ageing)
    }
}

/// A preempted choice continues where there is room for all it has and a block more.
fn blocks_to_resume(tokens: usize, block_tokens: usize, slots: usize) -> usize {
    (tokens / block_tokens + 2).min(slots)
}

/// Whether a block is that run's of that worker.
fn owns(peer: &Peer, block: &BlockDescriptor) -> bool {
    (peer.worker, peer.incarnation) == (block.owner, block.incarnation)
}

#[cfg(test)]
#[path = "join_tests.rs"]
mod join_tests;
#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
#[cfg(test)]
#[path = "schedule_thinking_tests.rs"]
mod thinking_tests;
