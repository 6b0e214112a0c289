//! A cluster in virtual time that is nothing but queues, caches and speeds: enough to see what a
//! policy does with a trace of an hour in seconds. Prefill workers compute one prompt after the
//! other; decode workers let turns in while memory can be promised, compute prompts of their own
//! one after the other, and share their steps among all answers.

use super::trace::Recorded;
use baton_proto::ids::WorkerId;
use baton_router::choose::{
    Ask, Assumed, Charge, Fleet, Line, Load, Observed, PolicyName, Role, Rules,
};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::time::Duration;

/// What all policies are tried on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    pub(super) decode: u32,
    pub(super) prefill: u32,
    /// Blocks that a worker has room for.
    pub(super) slots: u32,
    pub(super) block_tokens: usize,
    /// How many times as fast as recorded turns come.
    pub(super) speed: f64,
    pub(super) rules: Rules,
    /// How fast workers are; it is what the router assumes, too.
    pub(super) speeds: Assumed,
}

/// What a policy has made of a trace.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Outcome {
    /// Of each turn, in the order in which they end, in seconds.
    pub(super) ttft_s: Vec<f64>,
    /// From arrival to the last token.
    pub(super) total_s: Vec<f64>,
    /// Prompt tokens.
    pub(super) prompt_tokens: u64,
    /// Of those, computed by somebody.
    pub(super) computed_tokens: u64,
    /// Turns for which prefill was asked.
    pub(super) prefilled: u64,
}

/// The blocks that a worker holds. Each use renews a chain from its end to its beginning, so the
/// block that was not used for longest is never one that others build on.
#[derive(Debug, Default)]
struct Cache {
    /// When each was used last, and when it is computed.
    blocks: HashMap<u64, (u64, Duration)>,
    order: BTreeMap<u64, u64>,
    next: u64,
}

impl Cache {
    /// Leading blocks of a chain that are here by then, and since when.
    fn held(&self, chain: &[u64], by: Duration) -> (usize, Duration) {
        let ready = chain.iter().map_while(|block| self.blocks.get(block).map(|(_, ready)| *ready));
        ready
            .take_while(|ready| *ready <= by)
            .fold((0, Duration::ZERO), |(count, since), ready| (count + 1, since.max(ready)))
    }

    fn keep(&mut self, chain: &[u64], slots: usize, ready: Duration) {
        for block in chain.iter().rev() {
            let known = self.blocks.get(block).copied();
            if let Some((stamp, _)) = known {
                self.order.remove(&stamp);
            }
            let ready = known.map_or(ready, |(_, earlier)| earlier.min(ready));
            self.blocks.insert(*block, (self.next, ready));
            self.order.insert(self.next, *block);
            self.next += 1;
        }
        while self.blocks.len() > slots {
            let Some((_, block)) = self.order.pop_first() else { return };
            self.blocks.remove(&block);
        }
    }
}

#[derive(Debug, Default)]
struct Worker {
    cache: Cache,
    /// When the prompts that it has accepted are computed.
    free_at: Duration,
    /// Turns that wait for memory.
    waiting: VecDeque<usize>,
    promised: usize,
    admitted: u32,
    /// Turns that draw tokens, and how many they have left, as it was at `since`.
    drawing: Vec<(usize, f64)>,
    since: Duration,
    /// Counts the changes of `drawing`; an event of an earlier one means nothing.
    version: u64,
}

#[derive(Debug)]
struct Turn {
    decode: usize,
    prefill: Option<usize>,
    charge: Charge,
    needed: usize,
    admitted_at: Duration,
    first_at: Duration,
    seen: Observed,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Event {
    /// A prompt is computed.
    Prompt(usize),
    /// Perhaps an answer is complete.
    Answer {
        decode: usize,
        version: u64,
    },
    Arrival(usize),
}

/// Plays a trace by a policy.
pub(super) fn play(trace: &[Recorded], policy: PolicyName, setting: &Setting) -> Outcome {
    let mut house = House::new(trace, policy, setting);
    house.run();
    house.outcome
}

struct House<'a> {
    trace: &'a [Recorded],
    policy: PolicyName,
    setting: &'a Setting,
    fleet: Fleet,
    /// Decode workers, then prefill workers; the place is the number.
    workers: Vec<Worker>,
    turns: HashMap<usize, Turn>,
    events: BinaryHeap<Reverse<(Duration, Event)>>,
    outcome: Outcome,
}

impl<'a> House<'a> {
    fn new(trace: &'a [Recorded], policy: PolicyName, setting: &'a Setting) -> Self {
        let mut fleet = Fleet::new(setting.speeds);
        for id in 0..setting.decode + setting.prefill {
            let role = if id < setting.decode { Role::Decode } else { Role::Prefill };
            fleet.join(WorkerId(id), role, setting.slots);
        }
        let workers = (0..setting.decode + setting.prefill).map(|_| Worker::default()).collect();
        let arrivals = trace.iter().enumerate();
        let events =
            arrivals.map(|(at, turn)| Reverse((turn.at(setting.speed), Event::Arrival(at))));
        let (turns, events, outcome) = (HashMap::new(), events.collect(), Outcome::default());
        Self { trace, policy, setting, fleet, workers, turns, events, outcome }
    }

    fn run(&mut self) {
        while let Some(Reverse((now, event))) = self.events.pop() {
            match event {
                Event::Arrival(turn) => self.arrive(now, turn),
                Event::Prompt(turn) => self.begin(now, turn),
                Event::Answer { decode, version } if self.workers[decode].version == version => {
                    self.advance(now, decode);
                }
                Event::Answer { .. } => {}
            }
        }
    }

    fn chain(&self, turn: usize) -> &'a [u64] {
        self.trace[turn].chain(self.setting.block_tokens)
    }

    /// What workers say at this moment.
    fn report(&mut self, now: Duration) {
        let slots = self.setting.slots as usize;
        for (id, worker) in (0..).zip(&self.workers) {
            let fill = if id < self.setting.decode {
                self.setting.speeds.local
            } else {
                self.setting.speeds.prefill
            };
            let work_s = worker.free_at.saturating_sub(now).as_secs_f64();
            let free = slots.saturating_sub(worker.promised.max(worker.cache.blocks.len()));
            let load = Load {
                queued: worker.waiting.len() as u32,
                running: worker.admitted,
                free_blocks: free as u32,
                evictable_blocks: slots.saturating_sub(worker.promised + free) as u32,
                pending_tokens: (work_s / fill.slope_s.max(1e-9)) as u64,
            };
            self.fleet.set_load(WorkerId(id), load);
        }
    }

    fn arrive(&mut self, now: Duration, turn: usize) {
        self.report(now);
        let (recorded, chain) = (&self.trace[turn], self.chain(turn));
        let ask = Ask {
            prompt_tokens: recorded.input_length,
            answer_tokens: recorded.output_length,
            choices: 1,
            block_tokens: self.setting.block_tokens,
            spread: turn as u64,
            turn: turn as u64,
            session: recorded.session,
        };
        let held: Vec<_> = (0..)
            .zip(&self.workers)
            .map(|(id, worker)| (WorkerId(id), worker.cache.held(chain, now).0))
            .collect();
        let rules = &self.setting.rules;
        let plan = self.fleet.choose(self.policy.policy(), &ask, rules, held, &[]);
        let plan = plan.expect("decode workers do not leave");
        let charge = self.fleet.charge(&ask, &plan);
        let decode = plan.decode.0 as usize;
        let sent = Turn {
            decode,
            prefill: plan.prefill.first().map(|worker| worker.0 as usize),
            charge,
            needed: ask.blocks_at_completion().min(self.setting.slots as usize),
            admitted_at: now,
            first_at: now,
            seen: Observed::default(),
        };
        self.outcome.prefilled += u64::from(sent.prefill.is_some());
        self.turns.insert(turn, sent);
        self.workers[decode].waiting.push_back(turn);
        self.admit(now, decode);
    }

    /// Lets in those that memory can be promised, in their order.
    fn admit(&mut self, now: Duration, decode: usize) {
        while let Some(turn) = self.workers[decode].waiting.front().copied() {
            let needed = self.turns[&turn].needed;
            let worker = &mut self.workers[decode];
            if worker.promised + needed > self.setting.slots as usize {
                return;
            }
            worker.waiting.pop_front();
            worker.promised += needed;
            worker.admitted += 1;
            self.compute(now, turn);
        }
    }

    /// Computes a prompt, where it was planned.
    fn compute(&mut self, now: Duration, turn: usize) {
        let Setting { speeds, slots, block_tokens, .. } = self.setting;
        let chain = self.chain(turn);
        let prompt = self.trace[turn].input_length;
        let sent = self.turns.get_mut(&turn).expect("it was sent");
        let (held, _) = self.workers[sent.decode].cache.held(chain, now);
        let missing = chain.len() - held;
        let last = prompt - chain.len() * block_tokens;
        let took = |line: Line, size: usize| Duration::from_secs_f64(line.at(size as f64));
        let mut seen = Observed { prompt_tokens: prompt as u64, ..Observed::default() };
        let (mut computed, mut ready) = (0, now);
        match sent.prefill.filter(|_| missing > 0) {
            Some(prefill) => {
                let worker = &mut self.workers[prefill];
                // What is being computed for another turn is waited for.
                let (known, since) = worker.cache.held(chain, Duration::MAX);
                computed = chain.len().saturating_sub(known.max(held)) * block_tokens;
                let begun = if computed > 0 { now.max(worker.free_at) } else { now };
                let done = begun + took(speeds.prefill, computed);
                if computed > 0 {
                    worker.free_at = done;
                }
                worker.cache.keep(chain, *slots as usize, done);
                ready = done.max(begun + took(speeds.fetch, missing)).max(since);
                ready += Duration::from_secs_f64(speeds.handover_s);
                seen.pulled_blocks = missing as u64;
                seen.pulled_tokens = (missing * block_tokens) as u64;
                seen.handover_s = speeds.handover_s;
                seen.prefill_worker = Some(WorkerId(prefill as u32));
                seen.computed_tokens = last as u64;
            }
            None => seen.computed_tokens = (missing * block_tokens + last) as u64,
        }
        let here = seen.computed_tokens as usize;
        computed += here;
        let decode = &mut self.workers[sent.decode];
        if seen.prefill_worker.is_none() {
            ready = ready.max(decode.free_at);
        }
        ready += took(speeds.local, here);
        // The few last tokens of a prompt from elsewhere are computed beside the steps.
        if seen.prefill_worker.is_none() {
            decode.free_at = ready;
        }
        seen.cached_tokens = (prompt - computed) as u64;
        (sent.admitted_at, sent.seen) = (now, seen);
        self.outcome.prompt_tokens += prompt as u64;
        self.outcome.computed_tokens += computed as u64;
        self.events.push(Reverse((ready, Event::Prompt(turn))));
    }

    /// The first token is there.
    fn begin(&mut self, now: Duration, turn: usize) {
        let chain = self.chain(turn);
        let sent = self.turns.get_mut(&turn).expect("it was sent");
        sent.first_at = now;
        sent.seen.prefill_s = now.saturating_sub(sent.admitted_at).as_secs_f64();
        self.fleet.started(&mut sent.charge, &sent.seen);
        let (recorded, decode) = (&self.trace[turn], sent.decode);
        self.outcome.ttft_s.push(now.saturating_sub(recorded.at(self.setting.speed)).as_secs_f64());
        self.workers[decode].cache.keep(chain, self.setting.slots as usize, now);
        self.pass(now, decode);
        self.workers[decode].drawing.push((turn, (recorded.output_length - 1) as f64));
        self.advance(now, decode);
    }

    /// Brings what is left of the answers to this moment.
    fn pass(&mut self, now: Duration, decode: usize) {
        let step = self.setting.speeds.step;
        let worker = &mut self.workers[decode];
        let steps = now.saturating_sub(worker.since).as_secs_f64()
            / step.at(worker.drawing.len() as f64).max(1e-9);
        worker.drawing.iter_mut().for_each(|(_, left)| *left -= steps);
        worker.since = now;
    }

    /// Ends the answers that are complete, and says when the next one will be.
    fn advance(&mut self, now: Duration, decode: usize) {
        self.pass(now, decode);
        let worker = &mut self.workers[decode];
        let (done, drawing): (Vec<_>, Vec<_>) =
            worker.drawing.drain(..).partition(|(_, left)| *left <= 1e-6);
        worker.drawing = drawing;
        worker.version += 1;
        let least = worker.drawing.iter().map(|(_, left)| *left).reduce(f64::min);
        if let Some(left) = least {
            let seconds = left * self.setting.speeds.step.at(worker.drawing.len() as f64);
            // Rounded up: an event that comes too early would be followed by another at once.
            let at = now + Duration::from_secs_f64(seconds) + Duration::from_nanos(1);
            let version = worker.version;
            self.events.push(Reverse((at, Event::Answer { decode, version })));
        }
        for (turn, _) in done {
            let sent = self.turns.remove(&turn).expect("it was sent");
            let recorded = &self.trace[turn];
            let steps = recorded.output_length as u64 - 1;
            let span_s = now.saturating_sub(sent.first_at).as_secs_f64();
            self.fleet.ended(sent.charge, steps, span_s / steps.max(1) as f64);
            let total = now.saturating_sub(recorded.at(self.setting.speed));
            self.outcome.total_s.push(total.as_secs_f64());
            self.workers[decode].promised -= sent.needed;
            self.workers[decode].admitted -= 1;
        }
        self.admit(now, decode);
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
