//! The rules by which one worker is preferred to another.

use super::fleet::{Fleet, Role, Worker};
use super::kv_aware::KvAware;
use super::{Ask, PREFILL_CANDIDATES_MAX, Rules, Scratch, mix, scatter};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What a policy decides on: a turn, the workers that it may go to, and what is known of them.
#[derive(Debug)]
pub struct Case<'a> {
    /// The turn.
    pub ask: &'a Ask,
    /// What is configured.
    pub rules: &'a Rules,
    /// The workers.
    pub fleet: &'a Fleet,
    /// Decode workers that may be chosen, by their place in [`Fleet::side`].
    pub eligible: &'a [u32],
    /// Whether those have room for the whole turn. Either all have, or none.
    pub room: bool,
    /// Prefill workers that may be asked, likewise.
    pub eligible_prefill: &'a [u32],
    held_decode: &'a [u32],
    held_prefill: &'a [u32],
    ready_decode: &'a [(u32, f64)],
    ready_prefill: &'a [(u32, f64)],
}

impl<'a> Case<'a> {
    pub(super) fn new(
        fleet: &'a Fleet,
        ask: &'a Ask,
        rules: &'a Rules,
        scratch: &'a Scratch,
    ) -> Self {
        Self {
            ask,
            rules,
            fleet,
            eligible: &scratch.decode,
            room: scratch.room,
            eligible_prefill: &scratch.prefill,
            held_decode: &scratch.held_decode,
            held_prefill: &scratch.held_prefill,
            ready_decode: &scratch.ready_decode,
            ready_prefill: &scratch.ready_prefill,
        }
    }

    /// Leading blocks of the prompt that a decode worker holds, or will.
    pub fn held(&self, decode: u32) -> u32 {
        self.held_decode[decode as usize]
    }

    /// In how many seconds it will hold them: some may be on their way to it.
    pub fn ready_s(&self, decode: u32) -> f64 {
        ready_s(self.ready_decode, decode)
    }

    /// Whether some of them are on their way.
    pub fn joins(&self, decode: u32) -> bool {
        self.ready_decode.iter().any(|(at, _)| *at == decode)
    }

    /// The same of a prefill worker.
    pub fn joins_prefill(&self, prefill: u32) -> bool {
        self.ready_prefill.iter().any(|(at, _)| *at == prefill)
    }

    /// In how many seconds a prefill worker will hold them.
    pub fn ready_prefill_s(&self, prefill: u32) -> f64 {
        ready_s(self.ready_prefill, prefill)
    }

    /// Leading blocks that a prefill worker holds, or will when what is in its queue is done.
    pub fn held_prefill(&self, prefill: u32) -> u32 {
        self.held_prefill[prefill as usize]
    }

    /// A decode worker by its place.
    pub fn decode(&self, decode: u32) -> &'a Worker {
        &self.fleet.side(Role::Decode)[decode as usize]
    }

    /// A prefill worker by its place.
    pub fn prefill(&self, prefill: u32) -> &'a Worker {
        &self.fleet.side(Role::Prefill)[prefill as usize]
    }

    /// Whether the configured rule lets prefill be asked for a turn of whose blocks so many are
    /// held.
    pub fn may_ask_prefill(&self, held: u32) -> bool {
        self.rules.may_ask_prefill(self.ask, held) && !self.eligible_prefill.is_empty()
    }
}

fn ready_s(ready: &[(u32, f64)], place: u32) -> f64 {
    ready.iter().find(|(at, _)| *at == place).map_or(0.0, |(_, ready_s)| *ready_s)
}

/// Ranks workers. The same case leads to the same ranks: chance is in [`Ask::spread`].
pub trait Policy: fmt::Debug + Send + Sync {
    /// What it is called.
    fn name(&self) -> PolicyName;

    /// Puts a score for each of [`Case::eligible`], in its order; the least is chosen. Never NaN.
    fn rank(&self, case: &Case<'_>, scores: &mut Vec<f64>);

    /// The same for [`Case::eligible_prefill`] once the decode worker is chosen.
    fn rank_prefill(&self, case: &Case<'_>, decode: u32, scores: &mut Vec<f64>);

    /// So many of the best prefill workers are asked, one after the other.
    fn prefill_max(&self) -> usize {
        PREFILL_CANDIDATES_MAX
    }

    /// Whether the decode worker computes the prompt although prefill may be asked; `best` is the
    /// score of the prefill worker that would be.
    fn computes_here(&self, _case: &Case<'_>, _decode: u32, _best: f64) -> bool {
        false
    }

    /// How probable each of [`Case::eligible`] is over the policy's own chance, in its order: what
    /// an off-policy comparison divides by. Those with the least score share it, unless the policy
    /// draws.
    fn probabilities(&self, _case: &Case<'_>, scores: &[f64]) -> Vec<f64> {
        let least = scores.iter().copied().fold(f64::INFINITY, f64::min);
        let is_least = |score: &f64| score.total_cmp(&least).is_eq();
        let ties = scores.iter().filter(|score| is_least(score)).count().max(1) as f64;
        scores.iter().map(|score| if is_least(score) { 1.0 / ties } else { 0.0 }).collect()
    }
}

/// The policies by name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyName {
    /// Least predicted time, with the harm done to others.
    #[default]
    KvAware,
    /// Fewest turns.
    LeastLoaded,
    /// The less loaded of two that are drawn.
    PowerOfTwo,
    /// One after the other.
    RoundRobin,
    /// A session's turns on one worker.
    SessionAffinity,
    /// A program beside the router; see [`super::external`].
    External,
}

/// No policy is called that.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no policy is called that; there are {}", PolicyName::list())]
pub struct UnknownPolicy;

impl PolicyName {
    /// All that are part of the router.
    pub const ALL: [Self; 5] = [
        Self::KvAware,
        Self::LeastLoaded,
        Self::PowerOfTwo,
        Self::RoundRobin,
        Self::SessionAffinity,
    ];

    /// The name in configurations, headers and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::KvAware => "kv-aware",
            Self::LeastLoaded => "least-loaded",
            Self::PowerOfTwo => "power-of-two",
            Self::RoundRobin => "round-robin",
            Self::SessionAffinity => "session-affinity",
            Self::External => "external",
        }
    }

    /// The policy; of an external one, that which decides where it does not.
    pub fn policy(self) -> &'static dyn Policy {
        match self {
            Self::KvAware | Self::External => &KvAware,
            Self::LeastLoaded => &LeastLoaded,
            Self::PowerOfTwo => &PowerOfTwo,
            Self::RoundRobin => &RoundRobin,
            Self::SessionAffinity => &SessionAffinity,
        }
    }

    /// The names, for messages.
    pub fn list() -> String {
        let names: Vec<_> = Self::named().map(Self::as_str).collect();
        names.join(", ")
    }

    /// All that may be named.
    fn named() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().chain([Self::External])
    }
}

impl FromStr for PolicyName {
    type Err = UnknownPolicy;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::named().find(|policy| policy.as_str() == name).ok_or(UnknownPolicy)
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Turns first, then the prompt tokens among equals: a whole turn outweighs any number of them.
fn load(worker: &Worker) -> f64 {
    let turns = f64::from(worker.load.queued) + f64::from(worker.running());
    let tokens = worker.pending_tokens() as f64;
    turns + tokens / (tokens + 1.0)
}

fn loads<'a>(
    workers: &'a [Worker],
    eligible: &'a [u32],
) -> impl ExactSizeIterator<Item = f64> + 'a {
    eligible.iter().map(|at| load(&workers[*at as usize]))
}

#[derive(Debug)]
struct LeastLoaded;

impl Policy for LeastLoaded {
    fn name(&self) -> PolicyName {
        PolicyName::LeastLoaded
    }

    fn rank(&self, case: &Case<'_>, scores: &mut Vec<f64>) {
        scores.extend(loads(case.fleet.side(Role::Decode), case.eligible));
    }

    fn rank_prefill(&self, case: &Case<'_>, _decode: u32, scores: &mut Vec<f64>) {
        scores.extend(loads(case.fleet.side(Role::Prefill), case.eligible_prefill));
    }
}

#[derive(Debug)]
struct PowerOfTwo;

impl PowerOfTwo {
    /// Everybody but two has an infinite score; where there are fewer than two, all are drawn.
    fn draw(spread: u64, loads: impl ExactSizeIterator<Item = f64>, scores: &mut Vec<f64>) {
        let count = loads.len() as u64;
        let one = mix(spread) % count.max(1);
        let other = (one + 1 + mix(!spread) % count.saturating_sub(1).max(1)) % count.max(1);
        let drawn = |at: u64| at == one || at == other;
        scores.extend(
            (0..).zip(loads).map(|(at, load)| if drawn(at) { load } else { f64::INFINITY }),
        );
    }
}

impl Policy for PowerOfTwo {
    fn name(&self) -> PolicyName {
        PolicyName::PowerOfTwo
    }

    fn rank(&self, case: &Case<'_>, scores: &mut Vec<f64>) {
        let loads = loads(case.fleet.side(Role::Decode), case.eligible);
        Self::draw(case.ask.spread, loads, scores);
    }

    fn rank_prefill(&self, case: &Case<'_>, _decode: u32, scores: &mut Vec<f64>) {
        let loads = loads(case.fleet.side(Role::Prefill), case.eligible_prefill);
        Self::draw(mix(case.ask.spread), loads, scores);
    }

    /// Of all pairs, those in which it is the less loaded, and half of those where both are equal.
    fn probabilities(&self, case: &Case<'_>, _scores: &[f64]) -> Vec<f64> {
        let loads: Vec<f64> = loads(case.fleet.side(Role::Decode), case.eligible).collect();
        let count = loads.len() as f64;
        let wins = |load: f64| {
            let more = loads.iter().filter(|other| **other > load).count() as f64;
            let same = loads.iter().filter(|other| other.total_cmp(&load).is_eq()).count() as f64;
            more + (same - 1.0) / 2.0
        };
        let pairs = count * (count - 1.0) / 2.0;
        loads.iter().map(|load| if count < 2.0 { 1.0 } else { wins(*load) / pairs }).collect()
    }
}

#[derive(Debug)]
struct RoundRobin;

impl RoundRobin {
    fn rotate(turn: u64, count: usize, scores: &mut Vec<f64>) {
        let count = count as u64;
        scores.extend((0..count).map(|at| ((at + count - turn % count) % count) as f64));
    }
}

impl Policy for RoundRobin {
    fn name(&self) -> PolicyName {
        PolicyName::RoundRobin
    }

    fn rank(&self, case: &Case<'_>, scores: &mut Vec<f64>) {
        Self::rotate(case.ask.turn, case.eligible.len(), scores);
    }

    fn rank_prefill(&self, case: &Case<'_>, _decode: u32, scores: &mut Vec<f64>) {
        Self::rotate(case.ask.turn, case.eligible_prefill.len(), scores);
    }

    /// Over the turns, everybody's share is the same.
    fn probabilities(&self, case: &Case<'_>, _scores: &[f64]) -> Vec<f64> {
        vec![1.0 / case.eligible.len() as f64; case.eligible.len()]
    }
}

/// The worker whose number, mixed with the session's, is the least: every router finds the same
/// one without being told, and when workers come or go only the sessions that must move do
/// (rendezvous hashing). Where no session is named, the least loaded worker.
#[derive(Debug)]
struct SessionAffinity;

impl SessionAffinity {
    fn rank(session: u64, workers: &[Worker], eligible: &[u32], scores: &mut Vec<f64>) {
        let rank = |at: &u32| scatter(session, workers[*at as usize].id) as f64;
        scores.extend(eligible.iter().map(rank));
    }
}

impl Policy for SessionAffinity {
    fn name(&self) -> PolicyName {
        PolicyName::SessionAffinity
    }

    fn rank(&self, case: &Case<'_>, scores: &mut Vec<f64>) {
        match case.ask.session {
            Some(session) => {
                Self::rank(session, case.fleet.side(Role::Decode), case.eligible, scores);
            }
            None => LeastLoaded.rank(case, scores),
        }
    }

    fn rank_prefill(&self, case: &Case<'_>, decode: u32, scores: &mut Vec<f64>) {
        match case.ask.session {
            Some(session) => {
                Self::rank(session, case.fleet.side(Role::Prefill), case.eligible_prefill, scores);
            }
            None => LeastLoaded.rank_prefill(case, decode, scores),
        }
    }
}
