//! One engine step of the decode schedule: who is in it, and what comes out of it.

use crate::event::{Action, News, Update};
use crate::schedule::{DecodeSchedule, Part};
use crate::thinking::NextToken;
use crate::turn::{Choice, Phase, Turn, TurnId};
use baton_engine::api::{Batch, Drawn, Item, ItemOutput, Sample, StepOutput};
use baton_kv::lease::WriteLease;
use baton_proto::ir::FinishReason;
use baton_worker::fill::Next;
use baton_worker::plan::{Plan, Segment};
use std::borrow::Cow;
use std::time::Duration;

impl DecodeSchedule {
    /// Every drawing choice first, one token each; then prompt positions, within the budget that
    /// bounds the others' inter-token latency.
    pub(crate) fn plan_step(&mut self, now: Duration, actions: &mut Vec<Action>) -> Option<Plan> {
        let mut plan = Plan::default();
        let mut budget = self.limits.batch_tokens;
        self.in_step.clear();
        let order = self.order(now, |turn| turn.admitted.is_some());
        let keeps_up = |id: &&TurnId| !self.lagging.contains(&self.turns[id].request.router);
        let drawn_for: Vec<TurnId> = order.iter().filter(keeps_up).copied().collect();
        for id in &drawn_for {
            for choice in 0..self.turns[id].choices.len() {
                self.plan_draw(*id, choice, now, &order, &mut budget, &mut plan);
            }
        }
        if !plan.segments.is_empty() {
            budget = budget.min(self.limits.local_fill_tokens);
        }
        for id in &order {
            // Whoever makes what this one waits for comes in its place.
            let maker = self.maker(*id).unwrap_or(*id);
            if self.turns[&maker].remote.is_some() || self.waits(maker, now, actions) {
                continue;
            }
            for choice in 0..self.turns[&maker].choices.len() {
                self.plan_fill(maker, choice, &mut budget, &mut plan);
            }
        }
        if plan.segments.is_empty() {
            self.make_room_for_fills(&order);
            return None;
        }
        Some(plan)
    }

    /// Where nothing can be computed because what is not drawn for holds all memory (the choices
    /// of routers that lag, beyond their credit), one of those gives way to the turns that wait.
    /// What the pool calls available does not tell: readers may have mapped it.
    fn make_room_for_fills(&mut self, order: &[TurnId]) {
        let waits = |turn: &Turn| {
            let short = |phase: &Phase| matches!(phase, Phase::Filling(fill) if fill.is_short());
            turn.choices.iter().any(|choice| short(&choice.phase))
        };
        if self.turns.values().any(waits) {
            self.preempt_one(order);
        }
    }

    fn plan_draw(
        &mut self,
        id: TurnId,
        choice: usize,
        now: Duration,
        order: &[TurnId],
        budget: &mut u32,
        plan: &mut Plan,
    ) {
        loop {
            let turn = self.turns.get_mut(&id).expect("ordered turns exist");
            let announced = turn.last_announced;
            let Phase::Decoding(sequence) = &mut turn.choices[choice].phase else { return };
            let count = sequence.tokens().len() as u32 - sequence.computed();
            if count > *budget {
                return;
            }
            if let Ok(drafts) = sequence.lend(count, &self.blocks) {
                if turn.choices[choice].drawn == 0
                    && let Some(announced) = announced
                    && turn.report.handover.is_zero()
                {
                    turn.report.handover = now.saturating_sub(announced);
                }
                *budget -= count;
                self.push_part(plan, Part { turn: id, choice, count }, drafts);
                return;
            }
            if !self.preempt_one(order) {
                return;
            }
        }
    }

    fn plan_fill(&mut self, id: TurnId, choice: usize, budget: &mut u32, plan: &mut Plan) {
        let limits = self.fill_limits(*budget);
        let turn = self.turns.get_mut(&id).expect("ordered turns exist");
        let Phase::Filling(fill) = &mut turn.choices[choice].phase else { return };
        if self.in_step.iter().any(|part| part.turn == id && part.choice == choice) {
            return;
        }
        let count = match fill.advance(&self.blocks, &mut self.claims, limits) {
            Next::Compute(count) => count,
            Next::Wait | Next::Done => return,
            Next::Pull(_) => unreachable!("offers come with a call, and are withdrawn with it"),
        };
        if count == 0 {
            return;
        }
        let Some(drafts) = fill.lend(count, &self.blocks) else {
            self.claims.release_all(fill.sequence().key());
            return;
        };
        *budget -= count;
        self.push_part(plan, Part { turn: id, choice, count }, drafts);
    }

    fn push_part(&mut self, plan: &mut Plan, part: Part, drafts: Vec<WriteLease>) {
        let seq = self.turns[&part.turn].choices[part.choice].seq().expect("a part has memory");
        plan.segments.push(Segment { seq, count: part.count, drafts });
        self.in_step.push(part);
    }

    /// Takes the memory of the least urgent drawing choice that is not in this step. Its sealed
    /// blocks stay findable, so that little is computed again. `false` where there is none.
    fn preempt_one(&mut self, order: &[TurnId]) -> bool {
        for id in order.iter().rev() {
            for choice in (0..self.turns[id].choices.len()).rev() {
                let in_step =
                    self.in_step.iter().any(|part| part.turn == *id && part.choice == choice);
                let turn = self.turns.get_mut(id).expect("ordered turns exist");
                let phase = &mut turn.choices[choice].phase;
                if in_step || !matches!(phase, Phase::Decoding(s) if s.computed() > 0) {
                    continue;
                }
                let Phase::Decoding(sequence) = std::mem::replace(phase, Phase::Ended) else {
                    unreachable!("just matched");
                };
                self.forgotten.push(sequence.key());
                *phase = Phase::Preempted(sequence.tokens().to_vec());
                self.credit_used -= std::mem::take(&mut turn.choices[choice].credit);
                return true;
            }
        }
        false
    }

    /// The engine's view of a plan.
    pub(crate) fn make_batch(&self, plan: Plan) -> Batch<'_> {
        let parts = plan.segments.into_iter().zip(&self.in_step);
        Batch { items: parts.map(|(segment, part)| self.item(segment, *part)).collect() }
    }

    fn item(&self, segment: Segment, part: Part) -> Item<'_> {
        let turn = &self.turns[&part.turn];
        match &turn.choices[part.choice].phase {
            Phase::Filling(fill) => fill.item(segment.count, segment.drafts),
            Phase::Decoding(sequence) => {
                let sample = sample(turn, part.choice);
                sequence.item(segment.count, segment.drafts, Some(sample))
            }
            Phase::Waiting | Phase::Preempted(_) | Phase::Ended => {
                unreachable!("only choices with memory are in a step")
            }
        }
    }

    /// Takes the step's output in.
    pub(crate) fn absorb_step(
        &mut self,
        output: StepOutput,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        let parts = std::mem::take(&mut self.in_step);
        for (item, part) in output.items.into_iter().zip(parts) {
            self.absorb_item(item, part, now, actions);
        }
    }

    fn absorb_item(
        &mut self,
        item: ItemOutput,
        part: Part,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        let turn = self.turns.get_mut(&part.turn).expect("no turn ends during a step");
        match &mut turn.choices[part.choice].phase {
            Phase::Filling(fill) => {
                fill.absorb(part.count, item.drafts, &self.blocks, &mut self.claims);
            }
            Phase::Decoding(sequence) => {
                sequence.absorb(part.count, item.drafts, &self.blocks);
                let drawn = item.drawn.expect("a drawing choice draws");
                sequence.push(drawn.token);
                self.drawn(part.turn, part.choice, drawn, now, actions);
            }
            Phase::Waiting | Phase::Preempted(_) | Phase::Ended => {
                unreachable!("only choices with memory are in a step")
            }
        }
    }

    fn drawn(
        &mut self,
        id: TurnId,
        choice: usize,
        drawn: Drawn,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        let turn = self.turns.get_mut(&id).expect("the caller has seen the turn");
        if turn.report.prefill.is_zero() {
            turn.report.prefill = now.saturating_sub(turn.admitted.unwrap_or(now));
        }
        let token = drawn.token;
        let state = &mut turn.choices[choice];
        state.drawn += 1;
        let count = state.drawn;
        if let (Some(rule), Some(thinking)) = (&turn.request.thinking, &mut state.thinking) {
            thinking.push(rule, token);
        }
        let report = (count == 1).then_some(turn.report);
        let router = turn.request.router;
        let mut send = |news| {
            let update = Update { request: turn.request.request, choice: choice as u16, news };
            actions.push(Action::Update(router, update));
        };
        let logprobs = turn.request.logprobs.is_some();
        send(News::Drawn { drawn, logprobs, report });
        let stop = &turn.request.stop;
        // Before `min_tokens` none is drawn; one that ends the thinking ends the answer nevertheless.
        let finish = if stop.end_ids.contains(&token) {
            Some(FinishReason::Stop)
        } else if count >= stop.max_tokens {
            Some(FinishReason::Length)
        } else {
            None
        };
        if let Some(reason) = finish {
            send(News::Finished(reason, turn.report));
            self.end_choice(id, choice, actions);
        }
    }
}

/// How this choice draws its next token.
fn sample(turn: &Turn, choice: usize) -> Sample<'_> {
    let request = &turn.request;
    let Choice { drawn, thinking, .. } = turn.choices[choice];
    let suppressed: &[u32] =
        if drawn < request.stop.min_tokens { &request.stop.end_ids } else { &[] };
    let mut suppressed = Cow::Borrowed(suppressed);
    let mut forced = None;
    if let (Some(rule), Some(thinking)) = (&request.thinking, thinking) {
        match thinking.next(rule) {
            NextToken::Free => {}
            NextToken::Not(token) => suppressed.to_mut().push(token),
            NextToken::Forced(token) => forced = Some(token),
        }
    }
    Sample {
        sampling: &request.sampling,
        choice: choice as u16,
        prompt_len: turn.prompt_len(),
        suppressed,
        forced,
        logprobs: request.logprobs,
        raw_top: if drawn == 0 { request.raw_top } else { 0 },
        last: drawn + 1 >= request.stop.max_tokens,
    }
}
