//! A router in virtual time: the real index and the real choice, and the rules of a turn's life
//! (moved while nothing of its answer is known, ended with a typed error afterwards).

use super::load::Request;
use super::net::{Status, StreamId};
use super::scenario::Scenario;
use baton_engine::witness::LatencyModel;
use baton_kv::hash::{ChainRoot, Salt};
use baton_kv::index::{Index, IndexConfig};
use baton_node::config::Threshold;
use baton_proto::ids::{EventSeq, Incarnation, WorkerId};
use baton_router::choose::{Ask, Assumed, Charge, Fleet, Line, Load, Own, Role, Rules};
use baton_router::config::PlacementConfig;
use baton_transfer::sim::NodeId;
use baton_worker::blocks::GROUP;
use std::collections::BTreeMap;
use std::time::Duration;

/// A worker that has not answered for so long is gone.
const SILENT_MAX: Duration = Duration::from_millis(250);
/// Workers that one turn is tried on.
pub(super) const TRIES_MAX: usize = 4;

/// What a router knows of a worker.
#[derive(Clone, Copy, Debug)]
struct Known {
    status: Status,
    heard: Duration,
}

/// A router.
pub(super) struct Router {
    pub(super) index: Index,
    pub(super) sessions: BTreeMap<NodeId, StreamId>,
    /// The known workers, as the choice sees them.
    pub(super) fleet: Fleet,
    known: BTreeMap<NodeId, Known>,
    turns: u64,
    /// The number of the latest question; only the answer to it counts.
    pub(super) asked: u64,
}

/// Where a turn goes.
pub(super) struct Placement {
    pub(super) decode: NodeId,
    /// Prefill workers to ask, with the run that is known.
    pub(super) prefill: Vec<(NodeId, Incarnation)>,
    /// What the turn counts for until it ends.
    pub(super) charge: Charge,
}

impl Router {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let config = IndexConfig {
            workers_max: 64,
            blocks_per_worker_max: 1 << 16,
            blocks_max: 1 << 22,
            pending_max: 1 << 16,
        };
        Self {
            index: Index::new(config),
            sessions: BTreeMap::new(),
            fleet: Fleet::new(assumed(&scenario.model.latency)),
            known: BTreeMap::new(),
            turns: 0,
            asked: 0,
        }
    }

    /// A worker has answered. Returns from where its events shall be watched, and whether it is
    /// another run than was known.
    pub(super) fn heard(
        &mut self,
        now: Duration,
        worker: NodeId,
        (role, slots): (Role, u32),
        status: Status,
    ) -> (Option<EventSeq>, bool) {
        let before = self.known.insert(worker, Known { status, heard: now });
        let restarted = before.is_some_and(|k| k.status.incarnation != status.incarnation);
        let next = self.index.join(WorkerId(worker), status.incarnation).expect("few workers");
        if before.is_none() || restarted {
            self.fleet.join(WorkerId(worker), role, slots);
        }
        self.fleet.set_load(WorkerId(worker), load(&status));
        // Also the first time: the worker does not know yet that we watch.
        let behind = before.is_none() || restarted || next != status.next;
        (behind.then_some(next), restarted)
    }

    /// Forgets the workers that are silent, and says which.
    pub(super) fn forget_silent(&mut self, now: Duration) -> Vec<NodeId> {
        let silent = |(_, known): &(&NodeId, &Known)| now > known.heard + SILENT_MAX;
        let gone: Vec<NodeId> = self.known.iter().filter(silent).map(|(node, _)| *node).collect();
        for node in &gone {
            self.known.remove(node);
            self.fleet.leave(WorkerId(*node));
            self.index.remove_worker(WorkerId(*node));
        }
        gone
    }

    /// Chooses for a turn among the workers that it was not tried on. From now on it counts there.
    pub(super) fn place(
        &mut self,
        scenario: &Scenario,
        root: &ChainRoot,
        spread: u64,
        request: &Request,
    ) -> Option<Placement> {
        let wanted = &request.ask;
        let block_tokens = scenario.model.block_tokens as usize;
        let salt = Salt { tenant: &wanted.tenant, public_blocks: 0 };
        let chain = root.chain(&salt, block_tokens, &wanted.prompt);
        let matches = self.index.matches(&chain, GROUP);
        let held = matches.iter().map(|held| (held.worker, held.depth));
        let ask = Ask {
            prompt_tokens: wanted.prompt.len(),
            answer_tokens: wanted.osl as usize,
            choices: usize::from(wanted.choices),
            block_tokens,
            spread,
            turn: self.turns,
            session: Some(wanted.seed),
        };
        let rules = Rules {
            disaggregate_min_blocks: Threshold::At(scenario.disaggregate_min_blocks),
            ..PlacementConfig::default().rules()
        };
        let tried: Vec<_> = request.tried.iter().copied().map(WorkerId).collect();
        let plan = self.fleet.choose(scenario.policy.policy(), &ask, &rules, held, &tried)?;
        self.turns += 1;
        let charge = self.fleet.charge(&ask, &plan);
        let run = |worker: &WorkerId| (worker.0, self.known[&worker.0].status.incarnation);
        let prefill = plan.prefill.iter().map(run).collect();
        Some(Placement { decode: plan.decode.0, prefill, charge })
    }

    /// Workers on which turns still count.
    pub(super) fn charged(&self) -> impl Iterator<Item = (WorkerId, Own)> + '_ {
        let all = [Role::Decode, Role::Prefill].map(|role| self.fleet.side(role)).into_iter();
        let own = all.flatten().map(|worker| (worker.id, worker.own));
        own.filter(|(_, own)| *own != Own::default())
    }
}

fn load(status: &Status) -> Load {
    Load {
        queued: status.load.queued,
        running: status.load.running,
        free_blocks: status.available,
        evictable_blocks: 0,
        pending_tokens: status.load.pending_tokens,
    }
}

/// About what the simulated engines take.
fn assumed(latency: &LatencyModel) -> Assumed {
    let line = |base_s, slope_s| Line { base_s, slope_s };
    let step_s = latency.step.as_secs_f64();
    let prefill = line(step_s, latency.prefill_token.as_secs_f64());
    Assumed {
        prefill,
        local: prefill,
        step: line(step_s, latency.decode_sequence.as_secs_f64()),
        fetch: line(0.002, 0.000_2),
        handover_s: 0.004,
    }
}
