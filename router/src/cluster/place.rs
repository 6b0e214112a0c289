//! Placing a turn: what the index and the workers' loads say, put before a policy.

use super::link::Link;
use super::{Cluster, GROUP, Model, State};
use crate::choose::external::{Answer, Fallback, Told};
use crate::choose::{Ask, Charge, Explanation, Held, Observed, Plan, Policy, PolicyName, Rules};
use crate::switches::{Switch, Switches};
use baton_kv::index::Match;
use baton_kv::{BlockKey, Tier};
use baton_node::clock::{Clock, Monotonic};
use baton_proto::ids::{SequenceHash, WorkerId};
use baton_proto::internal::PeerAddress;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A turn that is to be placed.
pub(crate) struct Wanted<'a> {
    pub(crate) model: &'a Model,
    /// [`Ask::turn`] is filled in here.
    pub(crate) ask: Ask,
    pub(crate) chain: &'a [SequenceHash],
    pub(crate) policy: PolicyName,
    /// What an external policy has said about it, where one was to be asked.
    pub(crate) told: Option<&'a Told>,
    pub(crate) rules: Rules,
    pub(crate) switches: Switches,
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
    /// Why an external policy's word does not count, or would not.
    pub(crate) fallback: Option<Fallback>,
    /// The reasons, where they are wanted.
    pub(crate) why: Option<Explained>,
    /// What features in shadow would have done: whether it is the same.
    pub(crate) shadows: Vec<(&'static str, bool)>,
}

/// The reasons of a decision, for people.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Explained {
    pub(crate) explanation: Explanation,
    /// The names of the workers in it.
    pub(crate) names: BTreeMap<WorkerId, String>,
    /// In which tier how many of the prompt's leading blocks lie, where that was looked up.
    pub(crate) tiers: BTreeMap<WorkerId, [usize; Tier::COUNT]>,
    /// What an external policy has said, where one was to be asked, and why it does not count.
    pub(crate) told: Option<(Told, Option<Fallback>)>,
}

/// What was decided about a turn.
struct Decided {
    ask: Ask,
    plan: Plan,
    link: Arc<Link>,
    /// What counted as held.
    known: Vec<Held>,
    fallback: Option<Fallback>,
    why: Option<Explanation>,
    shadows: Vec<(&'static str, bool)>,
}

impl Wanted<'_> {
    /// The policy that acts; of an external one, that which acts where it does not.
    fn acting(&self) -> PolicyName {
        match (self.policy, self.switches.kv_aware) {
            (PolicyName::KvAware | PolicyName::External, Switch::Off | Switch::Shadow) => {
                PolicyName::LeastLoaded
            }
            (policy, _) => policy,
        }
    }
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
        let decided = state.decide(wanted, &held)?;
        let Decided { ask, plan, link, known, fallback, why, shadows } = decided;
        let prefill = plan.prefill.iter().filter_map(|worker| state.address(*worker)).collect();
        let charge = Some(state.fleet.charge(&ask, &plan));
        if wanted.switches.fan_out != Switch::Off {
            state.announce(wanted.chain, &ask, &plan, &known);
        }
        let why = why.map(|why| state.name(why, wanted.told.map(|told| (told, fallback))));
        let ticket = Ticket { cluster: self.clone(), charge, started: false };
        Some(Placement { link, prefill, ticket, fallback, why, shadows })
    }

    /// What [`place`](Self::place) would decide, and why; nothing is sent, and nothing counts.
    pub(crate) fn explain(&self, wanted: &Wanted<'_>) -> Option<Explained> {
        let held = self.held(wanted);
        let why = {
            let mut state = self.lock();
            let turns = state.turns;
            let decided = state.serves(wanted.model).then(|| state.decide(wanted, &held));
            state.turns = turns;
            let Decided { why, fallback, .. } = decided??;
            state.name(why?, wanted.told.map(|told| (told, fallback)))
        };
        Some(self.with_tiers(why, wanted.chain))
    }

    /// What the default policy would decide, with the candidates that an external one is told of.
    pub(crate) fn consult(&self, wanted: &Wanted<'_>, candidates_max: usize) -> Option<Explained> {
        let held = self.held(wanted);
        let Wanted { ask, rules, tried, .. } = wanted;
        let mut state = self.lock();
        if !state.serves(wanted.model) {
            return None;
        }
        let prospects = state.known(wanted, &held, wanted.switches.fan_out == Switch::On);
        let why = state.fleet.consult(ask, rules, prospects, tried, candidates_max)?;
        Some(state.name(why, None))
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

    /// Tokens that an answer will probably have, by the first of these names of which anything is
    /// known.
    pub(crate) fn expected_answer(&self, keys: &[u64]) -> Option<u32> {
        let state = self.lock();
        keys.iter().find_map(|key| state.lengths.expected(*key))
    }

    /// An answer is complete.
    pub(crate) fn learn_answer(&self, keys: &[u64], tokens: u64) {
        let mut state = self.lock();
        for key in keys {
            state.lengths.observe(*key, tokens);
        }
    }

    fn held(&self, wanted: &Wanted<'_>) -> Vec<Match> {
        self.view.matches(wanted.chain, GROUP)
    }
}

impl State {
    /// A turn that was prepared for another model has the wrong hashes, and the wrong ids.
    fn serves(&self, model: &Model) -> bool {
        self.model.as_ref().is_some_and(|now| now.description.domain == model.description.domain)
    }

    /// What counts as held: what is, and, where turns join others, what is on its way for those
    /// that were placed before. Who needs the same may go there and wait for it.
    fn known(&self, wanted: &Wanted<'_>, held: &[Match], joins: bool) -> Vec<Held> {
        let mut prospects: Vec<Held> =
            held.iter().map(|held| Held::from((held.worker, held.depth))).collect();
        if !joins {
            return prospects;
        }
        let now = Monotonic::process().now();
        for expected in self.index.expected(wanted.chain, GROUP, held, now) {
            let ready_s = expected.eta.saturating_sub(now).as_secs_f64();
            let (worker, blocks) = (expected.worker, expected.depth);
            prospects.retain(|prospect| prospect.worker != worker);
            prospects.push(Held { worker, blocks, ready_s: Some(ready_s) });
        }
        prospects
    }

    /// Takes note that the prompt's blocks are on their way to those who were chosen for it, as far
    /// as they were not `known` to be before.
    fn announce(&mut self, chain: &[SequenceHash], ask: &Ask, plan: &Plan, known: &[Held]) {
        let now = Monotonic::process().now();
        let (there_s, here_s) = self.fleet.ready_s(ask, plan);
        let depth = |worker| known.iter().find(|k| k.worker == worker).map_or(0, |k| k.blocks);
        let to = plan.prefill.first().map(|prefill| (*prefill, there_s));
        for (worker, ready_s) in to.into_iter().chain([(plan.decode, here_s)]) {
            let eta = now + Duration::try_from_secs_f64(ready_s).unwrap_or_default();
            let whole = chain.len().min(ask.whole_blocks());
            for hash in chain.get(depth(worker)..whole).unwrap_or_default() {
                let block = BlockKey { hash: *hash, group: GROUP };
                if !self.index.announce(worker, block, eta, now) {
                    break;
                }
            }
        }
    }

    fn decide(&mut self, wanted: &Wanted<'_>, held: &[Match]) -> Option<Decided> {
        let known = self.known(wanted, held, wanted.switches.fan_out == Switch::On);
        let ask = Ask { turn: self.turns, ..wanted.ask };
        let (rules, tried) = (&wanted.rules, wanted.tried);
        loop {
            let prospects = known.iter().copied();
            let told = wanted.told;
            let heeded =
                told.map(|told| self.fleet.heed(told, &ask, rules, prospects.clone(), tried));
            let policy: &dyn Policy = match &heeded {
                Some(Ok(heeded)) if told.is_some_and(|told| told.acts) => heeded,
                _ => wanted.acting().policy(),
            };
            let (plan, why) = if wanted.explain {
                let why = self.fleet.explain(policy, &ask, rules, prospects, tried)?;
                (why.plan.clone(), Some(why))
            } else {
                (self.fleet.choose(policy, &ask, rules, prospects, tried)?, None)
            };
            let link = self.members.get(&plan.decode)?.link.clone()?;
            if link.is_draining() {
                // The link has learned it before the list of workers has.
                self.fleet.set_draining(plan.decode);
                continue;
            }
            self.turns += 1;
            let fallback = heeded.and_then(Result::err);
            let shadows = self.shadows(wanted, &ask, held, &plan);
            return Some(Decided { ask, plan, link, known, fallback, why, shadows });
        }
    }

    /// What features in shadow would have decided about a turn.
    fn shadows(
        &mut self,
        wanted: &Wanted<'_>,
        ask: &Ask,
        held: &[Match],
        plan: &Plan,
    ) -> Vec<(&'static str, bool)> {
        let Switches { kv_aware, fan_out, .. } = wanted.switches;
        let features = [("kv_aware", kv_aware), ("fan_out", fan_out)];
        let mut shadows = Vec::new();
        for (feature, _) in features.into_iter().filter(|(_, state)| *state == Switch::Shadow) {
            let policy = if feature == "kv_aware" { wanted.policy } else { wanted.acting() };
            let joins = feature == "fan_out" || fan_out == Switch::On;
            let prospects = self.known(wanted, held, joins);
            let (rules, tried) = (&wanted.rules, wanted.tried);
            let other = self.fleet.choose(policy.policy(), ask, rules, prospects, tried);
            let same = other.is_some_and(|other| {
                (other.decode, other.prefill.first()) == (plan.decode, plan.prefill.first())
            });
            shadows.push((feature, same));
        }
        shadows
    }

    fn name(&self, explanation: Explanation, told: Option<(&Told, Option<Fallback>)>) -> Explained {
        let name = |worker| Some((worker, self.members.get(&worker)?.name.clone()));
        let said = told.and_then(|(told, _)| told.answer.as_ref().ok());
        let said = said.into_iter().flat_map(Answer::workers);
        let names = explanation.workers().map(|(_, worker)| worker).chain(said);
        let names = names.filter_map(name).collect();
        let told = told.map(|(told, fallback)| (told.clone(), fallback));
        Explained { explanation, names, tiers: BTreeMap::new(), told }
    }
}
