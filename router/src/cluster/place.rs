//! Placing a turn: what the index and the workers' loads say, put before a policy.

use super::link::Link;
use super::{Cluster, GROUP, Model, State};
use crate::choose::{Ask, Charge, Explanation, Observed, Plan, PolicyName, Rules};
use baton_kv::Tier;
use baton_proto::ids::{SequenceHash, WorkerId};
use baton_proto::internal::PeerAddress;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A turn that is to be placed.
pub(crate) struct Wanted<'a> {
    pub(crate) model: &'a Model,
    /// [`Ask::turn`] is filled in here.
    pub(crate) ask: Ask,
    pub(crate) chain: &'a [SequenceHash],
    pub(crate) policy: PolicyName,
    pub(crate) rules: Rules,
    /// Workers that are not asked again.
    pub(crate) tried: &'a [WorkerId],
    /// Whether the reasons are wanted.
    pub(crate) explain: bool,
}

/// Where a turn runs.
pub(crate) struct Placement {
    pub(crate) link: Arc<Link>,
    pub(crate) prefill: Vec<PeerAddress>,
    pub(crate) ticket: Ticket,
    /// The reasons, where they are wanted.
    pub(crate) why: Option<Explained>,
}

/// The reasons of a decision, for people.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Explained {
    pub(crate) explanation: Explanation,
    /// The names of the workers in it.
    pub(crate) names: BTreeMap<WorkerId, String>,
    /// In which tier how many of the prompt's leading blocks lie, where that was looked up.
    pub(crate) tiers: BTreeMap<WorkerId, [usize; Tier::COUNT]>,
}

/// What was decided about a turn.
struct Decided {
    ask: Ask,
    plan: Plan,
    link: Arc<Link>,
    why: Option<Explanation>,
}

/// What a turn counts for on the workers that it was sent to. Dropping it takes that back.
#[must_use = "dropping it says that the turn is over"]
pub(crate) struct Ticket {
    cluster: Arc<Cluster>,
    charge: Option<Charge>,
    started: bool,
}

impl Ticket {
    /// The first token is there, and this is what it took. Only the first word counts.
    pub(crate) fn started(&mut self, seen: &Observed) {
        if let Some(charge) = &mut self.charge
            && !std::mem::replace(&mut self.started, true)
        {
            self.cluster.lock().fleet.started(charge, seen);
        }
    }

    /// The turn is over; its tokens came at intervals of `step_s` on average.
    pub(crate) fn end(&mut self, tokens: u64, step_s: f64) {
        if let Some(charge) = self.charge.take() {
            self.cluster.lock().fleet.ended(charge, tokens, step_s);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.end(0, 0.0);
    }
}

impl Cluster {
    /// Places a turn on the workers that are left, by its policy. From now on it counts there.
    pub(crate) fn place(self: &Arc<Self>, wanted: &Wanted<'_>) -> Option<Placement> {
        let held = self.held(wanted);
        let mut state = self.lock();
        if !state.serves(wanted.model) {
            return None;
        }
        let Decided { ask, plan, link, why } = state.decide(wanted, &held)?;
        let prefill = plan.prefill.iter().filter_map(|worker| state.address(*worker)).collect();
        let charge = Some(state.fleet.charge(&ask, &plan));
        let why = why.map(|why| state.name(why));
        let ticket = Ticket { cluster: self.clone(), charge, started: false };
        Some(Placement { link, prefill, ticket, why })
    }

    /// What [`place`](Self::place) would decide, and why; nothing is sent, and nothing counts.
    pub(crate) fn explain(&self, wanted: &Wanted<'_>) -> Option<Explained> {
        let held = self.held(wanted);
        let why = {
            let mut state = self.lock();
            let turns = state.turns;
            let decided = state.serves(wanted.model).then(|| state.decide(wanted, &held));
            state.turns = turns;
            let why = decided??.why?;
            state.name(why)
        };
        Some(self.with_tiers(why, wanted.chain))
    }

    /// Adds in which tiers the named workers have what they have; a look at every block.
    pub(crate) fn with_tiers(&self, mut why: Explained, chain: &[SequenceHash]) -> Explained {
        let explanation = &why.explanation;
        let all = explanation.decode.iter().chain(&explanation.prefill);
        let holders = all.filter(|candidate| candidate.held_blocks > 0);
        let tiers = |worker| (worker, self.view.tiers(worker, chain, GROUP));
        why.tiers = holders.map(|candidate| tiers(candidate.worker)).collect();
        why
    }

    /// Tokens that the session's next answer will probably have, if anything is known of it.
    pub(crate) fn expected_answer(&self, session: u64) -> Option<u32> {
        self.lock().lengths.expected(session)
    }

    /// An answer of that session is complete.
    pub(crate) fn learn_answer(&self, session: u64, tokens: u64) {
        self.lock().lengths.observe(session, tokens);
    }

    fn held(&self, wanted: &Wanted<'_>) -> Vec<(WorkerId, usize)> {
        let matches = self.view.matches(wanted.chain, GROUP);
        matches.iter().map(|held| (held.worker, held.depth)).collect()
    }
}

impl State {
    /// A turn that was prepared for another model has the wrong hashes, and the wrong ids.
    fn serves(&self, model: &Model) -> bool {
        self.model.as_ref().is_some_and(|now| now.description.domain == model.description.domain)
    }

    fn decide(&mut self, wanted: &Wanted<'_>, held: &[(WorkerId, usize)]) -> Option<Decided> {
        let ask = Ask { turn: self.turns, ..wanted.ask };
        let (policy, rules, tried) = (wanted.policy.policy(), &wanted.rules, wanted.tried);
        loop {
            let held = held.iter().copied();
            let (plan, why) = if wanted.explain {
                let why = self.fleet.explain(policy, &ask, rules, held, tried)?;
                (why.plan.clone(), Some(why))
            } else {
                (self.fleet.choose(policy, &ask, rules, held, tried)?, None)
            };
            let link = self.members.get(&plan.decode)?.link.clone()?;
            if link.is_draining() {
                // The link has learned it before the list of workers has.
                self.fleet.set_draining(plan.decode);
                continue;
            }
            self.turns += 1;
            return Some(Decided { ask, plan, link, why });
        }
    }

    fn name(&self, explanation: Explanation) -> Explained {
        let name = |(_, worker)| Some((worker, self.members.get(&worker)?.name.clone()));
        let names = explanation.workers().filter_map(name).collect();
        Explained { explanation, names, tiers: BTreeMap::new() }
    }
}
