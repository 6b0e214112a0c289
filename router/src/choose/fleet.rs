//! The workers as the choice sees them: what they report, what this router has sent them since,
//! and how fast they have turned out to be.
//!
//! Kept as dense arrays, one per role, so that looking at a thousand workers is a walk through
//! memory in order, without a lookup and without an allocation.

use super::learn::{Learner, Line};
use super::{Ask, Assumed, Plan};
use baton_proto::ids::WorkerId;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A worker with fewer observations of its own is taken to be like the others of its role.
const OBSERVATIONS_MIN: usize = 3;
/// Prefill workers that one decode worker's links are remembered of.
const LINKS_MAX: usize = 64;
/// Of turns with more than so many times their own tokens ahead of them no speed is learned.
const AHEAD_MAX: u64 = 8;
/// Answers shorter than this say nothing about the time of a step.
const STEPS_MIN: u64 = 8;

/// What a worker does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Role {
    /// Blocks to tokens.
    Decode,
    /// Prompts to blocks.
    Prefill,
}

/// What a worker reports that it has to do, and the memory that it has left.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Load {
    /// Turns that wait.
    pub queued: u32,
    /// Turns that run.
    pub running: u32,
    /// Blocks that nobody uses.
    pub free_blocks: u32,
    /// Blocks that could be evicted.
    pub evictable_blocks: u32,
    /// Prompt tokens accepted and not yet computed.
    pub pending_tokens: u64,
}

/// What this router has sent to a worker and knows to be unfinished. A report may be a moment
/// old; this never is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Own {
    /// Turns.
    pub turns: u32,
    /// Prompt tokens to be computed there, of turns without a first token.
    pub pending_tokens: u64,
    /// Blocks that the turns will have at completion: what the worker promises them.
    pub blocks: u64,
}

/// A worker that can be given work.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Worker {
    /// Which one.
    pub id: WorkerId,
    /// Which of its runs, counted by this router.
    run: u64,
    /// What it reports.
    pub load: Load,
    /// Slots for blocks.
    pub slots: u32,
    /// One slot as a share of all.
    pub(super) slot: f64,
    /// What this router has sent.
    pub own: Own,
    /// It takes nothing new.
    pub draining: bool,
    fill: Option<Line>,
    step: Option<Line>,
}

impl Worker {
    /// Turns that it has, by its own word or by what was sent to it, whichever is more.
    pub fn running(&self) -> u32 {
        let Load { queued, running, .. } = self.load;
        running + self.own.turns.saturating_sub(queued.saturating_add(running))
    }

    /// Prompt tokens that it has to compute, likewise.
    pub fn pending_tokens(&self) -> u64 {
        self.load.pending_tokens.max(self.own.pending_tokens)
    }

    /// Blocks that are free or could be evicted.
    pub fn available_blocks(&self) -> u32 {
        self.load.free_blocks.saturating_add(self.load.evictable_blocks)
    }
}

/// What was sent, to be taken back when it is finished. There is one for every turn under way.
#[derive(Debug)]
#[must_use = "what was charged has to be ended"]
pub struct Charge {
    decode: (WorkerId, u64),
    blocks: u64,
    /// Who computes the prompt, and how much of it.
    computes: Option<((WorkerId, u64), u64)>,
    /// Tokens that were ahead of it there.
    ahead_tokens: u64,
    /// It waits for blocks that are made for others.
    joins: bool,
    block_tokens: u64,
    /// Running turns on the decode worker, with this one.
    running: u32,
}

/// What a turn's first token has shown.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Observed {
    /// Prompt tokens.
    pub prompt_tokens: u64,
    /// Found in a cache, on either side.
    pub cached_tokens: u64,
    /// Pulled from a prefill worker.
    pub pulled_tokens: u64,
    /// Computed by the decode worker.
    pub computed_tokens: u64,
    /// Blocks pulled.
    pub pulled_blocks: u64,
    /// From the last announcement to the first decoding step.
    pub handover_s: f64,
    /// From admission to the first token.
    pub prefill_s: f64,
    /// Who delivered.
    pub prefill_worker: Option<WorkerId>,
}

/// What is learned of a worker.
#[derive(Debug)]
struct Learned {
    fill: Learner,
    step: Learner,
}

/// What is learned of the way from a prefill to a decode worker.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) prefill: WorkerId,
    fetch: Learner,
    handover: Learner,
}

/// What holds for workers and links of which little is known: the cluster's own figures.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Common {
    /// A prefill worker's prompt tokens.
    pub prefill: Line,
    /// A decode worker's prompt tokens.
    pub local: Line,
    /// A decode step, by the turns in it.
    pub step: Line,
    /// A fetch, by blocks.
    pub fetch: Line,
    /// The hand-over.
    pub handover_s: f64,
}

/// All workers.
#[derive(Debug)]
pub struct Fleet {
    assumed: Assumed,
    pub(super) decode: Vec<Worker>,
    pub(super) prefill: Vec<Worker>,
    learned: [Vec<Learned>; 2],
    places: HashMap<WorkerId, (Role, usize), BuildHasherDefault<IdHasher>>,
    /// By decode worker.
    links: HashMap<WorkerId, Vec<Link>, BuildHasherDefault<IdHasher>>,
    all: Pools,
    pub(super) common: Common,
    runs: u64,
    pub(super) scratch: super::Scratch,
}

/// Observations of all workers together.
#[derive(Debug)]
struct Pools {
    prefill: Learner,
    local: Learner,
    step: Learner,
    fetch: Learner,
    handover: Learner,
}

impl Pools {
    fn new(assumed: &Assumed) -> Self {
        Self {
            prefill: Learner::new(assumed.prefill),
            local: Learner::new(assumed.local),
            step: Learner::new(assumed.step),
            fetch: Learner::new(assumed.fetch),
            handover: Learner::new(flat(assumed.handover_s)),
        }
    }

    fn common(&self) -> Common {
        Common {
            prefill: self.prefill.line(),
            local: self.local.line(),
            step: self.step.line(),
            fetch: self.fetch.line(),
            handover_s: self.handover.line().at(1.0),
        }
    }
}

/// The same whatever the size.
fn flat(seconds: f64) -> Line {
    Line { base_s: seconds, slope_s: 0.0 }
}

impl Fleet {
    /// Nobody, and this is assumed of whoever comes.
    pub fn new(assumed: Assumed) -> Self {
        let all = Pools::new(&assumed);
        Self {
            assumed,
            decode: Vec::new(),
            prefill: Vec::new(),
            learned: [Vec::new(), Vec::new()],
            places: HashMap::default(),
            links: HashMap::default(),
            common: all.common(),
            all,
            runs: 0,
            scratch: super::Scratch::default(),
        }
    }

    /// A worker can be given work from now on. One that was known starts anew: what was sent to
    /// its earlier run is gone, and how fast it is may have changed.
    pub fn join(&mut self, id: WorkerId, role: Role, slots: u32) {
        self.leave(id);
        self.runs += 1;
        let load = Load { free_blocks: slots, ..Load::default() };
        let worker = Worker {
            id,
            run: self.runs,
            load,
            slots,
            slot: 1.0 / f64::from(slots.max(1)),
            own: Own::default(),
            draining: false,
            fill: None,
            step: None,
        };
        let fill = match role {
            Role::Decode => self.assumed.local,
            Role::Prefill => self.assumed.prefill,
        };
        let learned = Learned { fill: Learner::new(fill), step: Learner::new(self.assumed.step) };
        self.places.insert(id, (role, self.side(role).len()));
        self.side_mut(role).push(worker);
        self.learned[role as usize].push(learned);
    }

    /// A worker is gone.
    pub fn leave(&mut self, id: WorkerId) {
        let Some((role, at)) = self.places.remove(&id) else { return };
        self.side_mut(role).swap_remove(at);
        self.learned[role as usize].swap_remove(at);
        if let Some(moved) = self.side(role).get(at).map(|worker| worker.id) {
            self.places.insert(moved, (role, at));
        }
        match role {
            Role::Decode => drop(self.links.remove(&id)),
            Role::Prefill => {
                self.links.values_mut().for_each(|links| links.retain(|link| link.prefill != id));
            }
        }
    }

    /// A worker has reported its load.
    pub fn set_load(&mut self, id: WorkerId, load: Load) {
        if let Some(worker) = self.worker_mut(id) {
            worker.load = load;
        }
    }

    /// A worker takes nothing new.
    pub fn set_draining(&mut self, id: WorkerId) {
        if let Some(worker) = self.worker_mut(id) {
            worker.draining = true;
        }
    }

    /// A worker, if it is known.
    pub fn worker(&self, id: WorkerId) -> Option<&Worker> {
        let (role, at) = *self.places.get(&id)?;
        self.side(role).get(at)
    }

    /// The workers of a role, in no particular order.
    pub fn side(&self, role: Role) -> &[Worker] {
        match role {
            Role::Decode => &self.decode,
            Role::Prefill => &self.prefill,
        }
    }

    pub(super) fn place(&self, id: WorkerId) -> Option<(Role, usize)> {
        self.places.get(&id).copied()
    }

    /// How long a worker takes to compute prompt tokens.
    pub fn fill(&self, role: Role, worker: &Worker) -> Line {
        worker.fill.unwrap_or(match role {
            Role::Decode => self.common.local,
            Role::Prefill => self.common.prefill,
        })
    }

    /// How long a decode worker's step takes, by the turns in it.
    pub fn step(&self, worker: &Worker) -> Line {
        worker.step.unwrap_or(self.common.step)
    }

    /// What holds for workers and links of which little is known.
    pub fn common(&self) -> &Common {
        &self.common
    }

    /// The links of a decode worker that something is known of.
    pub(super) fn links(&self, decode: WorkerId) -> &[Link] {
        self.links.get(&decode).map_or(&[], Vec::as_slice)
    }

    /// The way between two workers: a fetch by blocks, and the hand-over in seconds.
    pub fn link(&self, prefill: WorkerId, decode: WorkerId) -> (Line, f64) {
        let known = self.links(decode).iter().find(|link| link.prefill == prefill);
        let fetch =
            known.map_or(self.common.fetch, |link| known_or(&link.fetch, self.common.fetch));
        let handover = flat(self.common.handover_s);
        let handover = known.map_or(handover, |link| known_or(&link.handover, handover));
        (fetch, handover.at(1.0))
    }

    /// A turn has been sent as planned: from now on it counts.
    pub fn charge(&mut self, ask: &Ask, plan: &Plan) -> Charge {
        let computes = plan.prefill.first().copied().unwrap_or(plan.decode);
        let mut charge = Charge {
            decode: (plan.decode, 0),
            blocks: ask.blocks_at_completion() as u64,
            computes: None,
            ahead_tokens: 0,
            joins: plan.joins,
            block_tokens: ask.block_tokens as u64,
            running: 0,
        };
        if let Some(worker) = self.worker_mut(computes) {
            charge.ahead_tokens = worker.pending_tokens();
            worker.own.pending_tokens += plan.compute_tokens as u64;
            charge.computes = Some(((computes, worker.run), plan.compute_tokens as u64));
        }
        if let Some(worker) = self.worker_mut(plan.decode) {
            worker.own.turns += 1;
            worker.own.blocks += charge.blocks;
            charge.decode.1 = worker.run;
            charge.running = worker.running();
        }
        charge
    }

    /// In how many seconds a turn that has just been sent as planned will have its prompt's whole
    /// blocks: at the prefill worker that computes them, and at the decode worker.
    pub fn ready_s(&self, ask: &Ask, plan: &Plan) -> (f64, f64) {
        let pending_s = |role, id: WorkerId| {
            let worker = self.worker(id)?;
            let fill = self.fill(role, worker);
            Some(fill.at(worker.pending_tokens() as f64))
        };
        let here_s = pending_s(Role::Decode, plan.decode).unwrap_or(0.0);
        let Some(prefill) = plan.prefill.first() else { return (0.0, here_s) };
        let there_s = pending_s(Role::Prefill, *prefill).unwrap_or(0.0);
        let fetch = self.link(*prefill, plan.decode).0;
        (there_s, there_s.max(fetch.at(ask.whole_blocks() as f64)))
    }

    /// The turn's first token is there: its prompt has been computed, and this is what it took.
    /// Where it went otherwise than planned, part of the time was lost with those who failed, and
    /// nothing is learned from it. Prompts are computed one after the other, so the time is that of
    /// what was ahead as well. Whoever joins others waits for what these compute, and teaches
    /// nothing either.
    pub fn started(&mut self, charge: &mut Charge, seen: &Observed) {
        let planned = charge.computes.map(|((worker, _), _)| worker);
        self.settle_prompt(charge);
        let (decode, ahead) = (charge.decode.0, charge.ahead_tokens);
        // Workers let the urgent and the short go first: who was far behind says little.
        let own = seen.prompt_tokens.saturating_sub(seen.cached_tokens);
        if ahead > AHEAD_MAX * own {
            return;
        }
        let remote = seen.prefill_worker.filter(|_| seen.pulled_tokens > 0);
        if charge.joins || planned != Some(remote.unwrap_or(decode)) {
            return;
        }
        match remote {
            None => {
                let tokens = ahead.saturating_add(seen.computed_tokens);
                self.learn_fill(decode, tokens as f64, seen.prefill_s);
            }
            Some(prefill) if seen.computed_tokens <= charge.block_tokens => {
                self.learn_remote(prefill, decode, ahead, seen);
            }
            Some(_) => {}
        }
    }

    /// The turn is over. `step_s` is the mean time between `tokens` of its tokens.
    pub fn ended(&mut self, mut charge: Charge, tokens: u64, step_s: f64) {
        self.settle_prompt(&mut charge);
        let (decode, run) = charge.decode;
        let Some(worker) = self.worker_mut(decode).filter(|worker| worker.run == run) else {
            return;
        };
        let turns = f64::midpoint(f64::from(charge.running), f64::from(worker.running()));
        worker.own.turns = worker.own.turns.saturating_sub(1);
        worker.own.blocks = worker.own.blocks.saturating_sub(charge.blocks);
        if tokens >= STEPS_MIN {
            self.all.step.observe(turns, step_s);
            self.common = self.all.common();
            self.learn(decode, |learned| &mut learned.step, turns, step_s);
        }
    }

    fn settle_prompt(&mut self, charge: &mut Charge) {
        let Some(((id, run), tokens)) = charge.computes.take() else { return };
        if let Some(worker) = self.worker_mut(id).filter(|worker| worker.run == run) {
            worker.own.pending_tokens = worker.own.pending_tokens.saturating_sub(tokens);
        }
    }

    fn learn_fill(&mut self, id: WorkerId, tokens: f64, seconds: f64) {
        let Some((role, _)) = self.place(id) else { return };
        let pool = match role {
            Role::Decode => &mut self.all.local,
            Role::Prefill => &mut self.all.prefill,
        };
        pool.observe(tokens, seconds);
        self.common = self.all.common();
        self.learn(id, |learned| &mut learned.fill, tokens, seconds);
    }

    /// Where nothing had to be computed, the time was that of the fetch. Where the whole took less
    /// than the fetch was thought to take, the fetch took no longer either. Else the time was that
    /// of computing what was ahead and the turn's own.
    fn learn_remote(&mut self, prefill: WorkerId, decode: WorkerId, ahead: u64, seen: &Observed) {
        if !matches!(self.place(decode), Some((Role::Decode, _)))
            || !matches!(self.place(prefill), Some((Role::Prefill, _)))
        {
            return;
        }
        let found_here = seen
            .prompt_tokens
            .saturating_sub(seen.pulled_tokens)
            .saturating_sub(seen.computed_tokens);
        let found_there = seen.cached_tokens.saturating_sub(found_here).min(seen.pulled_tokens);
        let computed = seen.pulled_tokens - found_there;
        let blocks = seen.pulled_blocks as f64;
        if computed > 0 {
            let span_s = (seen.prefill_s - seen.handover_s).max(0.0);
            self.learn_fill(prefill, ahead.saturating_add(computed) as f64, span_s);
        }
        let known = self.link(prefill, decode).0.at(blocks);
        let fetch = computed == 0 || seen.prefill_s < known;
        let links = self.links.entry(decode).or_default();
        let at = links.iter().position(|link| link.prefill == prefill).unwrap_or_else(|| {
            if links.len() >= LINKS_MAX {
                links.remove(0);
            }
            links.push(Link {
                prefill,
                fetch: Learner::new(self.assumed.fetch),
                handover: Learner::new(flat(self.assumed.handover_s)),
            });
            links.len() - 1
        });
        let link = &mut links[at];
        if fetch {
            link.fetch.observe(blocks, seen.prefill_s);
            self.all.fetch.observe(blocks, seen.prefill_s);
        }
        link.handover.observe(1.0, seen.handover_s);
        self.all.handover.observe(1.0, seen.handover_s);
        self.common = self.all.common();
    }

    fn learn(
        &mut self,
        id: WorkerId,
        what: fn(&mut Learned) -> &mut Learner,
        size: f64,
        seconds: f64,
    ) {
        let Some((role, at)) = self.place(id) else { return };
        let learned = &mut self.learned[role as usize][at];
        what(learned).observe(size, seconds);
        let own = |learner: &Learner| {
            (learner.observations() >= OBSERVATIONS_MIN).then(|| learner.line())
        };
        let (fill, step) = (own(&learned.fill), own(&learned.step));
        let worker = &mut self.side_mut(role)[at];
        (worker.fill, worker.step) = (fill, step);
    }

    fn worker_mut(&mut self, id: WorkerId) -> Option<&mut Worker> {
        let (role, at) = self.place(id)?;
        self.side_mut(role).get_mut(at)
    }

    fn side_mut(&mut self, role: Role) -> &mut Vec<Worker> {
        match role {
            Role::Decode => &mut self.decode,
            Role::Prefill => &mut self.prefill,
        }
    }
}

fn known_or(learner: &Learner, common: Line) -> Line {
    if learner.observations() >= OBSERVATIONS_MIN { learner.line() } else { common }
}

/// Worker numbers are digests of names already; one multiplication spreads those of tests too.
#[derive(Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write_u32(&mut self, value: u32) {
        self.0 = super::mix(u64::from(value));
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = super::mix(self.0 ^ u64::from(*byte));
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
