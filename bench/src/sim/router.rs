//! A router in virtual time: the real index and the real choice, and the rules of a turn's life
//! (moved while nothing of its answer is known, ended with a typed error afterwards).

use super::load::Request;
use super::net::{Status, StreamId};
use super::scenario::Scenario;
use baton_kv::hash::{ChainRoot, Salt};
use baton_kv::index::{Index, IndexConfig};
use baton_node::config::Threshold;
use baton_proto::ids::{EventSeq, Incarnation, WorkerId};
use baton_router::choose::{Ask, Candidate, Load, choose};
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
    known: BTreeMap<NodeId, Known>,
    /// The number of the latest question; only the answer to it counts.
    pub(super) asked: u64,
}

/// Where a turn goes.
pub(super) struct Placement {
    pub(super) decode: NodeId,
    /// Prefill workers to ask, with the run that is known.
    pub(super) prefill: Vec<(NodeId, Incarnation)>,
}

impl Router {
    pub(super) fn new() -> Self {
        let config = IndexConfig {
            workers_max: 64,
            blocks_per_worker_max: 1 << 16,
            blocks_max: 1 << 22,
            pending_max: 1 << 16,
        };
        Self {
            index: Index::new(config),
            sessions: BTreeMap::new(),
            known: BTreeMap::new(),
            asked: 0,
        }
    }

    /// A worker has answered. Returns from where its events shall be watched, and whether it is
    /// another run than was known.
    pub(super) fn heard(
        &mut self,
        now: Duration,
        worker: NodeId,
        status: Status,
    ) -> (Option<EventSeq>, bool) {
        let before = self.known.insert(worker, Known { status, heard: now });
        let restarted = before.is_some_and(|k| k.status.incarnation != status.incarnation);
        let next = self.index.join(WorkerId(worker), status.incarnation).expect("few workers");
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
            self.index.remove_worker(WorkerId(*node));
        }
        gone
    }

    /// Chooses for a turn among the workers that it was not tried on.
    pub(super) fn place(
        &self,
        scenario: &Scenario,
        root: &ChainRoot,
        spread: u64,
        request: &Request,
        is_decode: impl Fn(NodeId) -> bool,
    ) -> Option<Placement> {
        let wanted = &request.ask;
        let block_tokens = scenario.model.block_tokens as usize;
        let salt = Salt { tenant: &wanted.tenant, public_blocks: 0 };
        let chain = root.chain(&salt, block_tokens, &wanted.prompt);
        let matches = self.index.matches(&chain, GROUP);
        let held: BTreeMap<_, _> = matches.iter().map(|held| (held.worker, held.depth)).collect();
        let ask = Ask {
            prompt_tokens: wanted.prompt.len(),
            answer_tokens: wanted.osl as usize * usize::from(wanted.choices),
            block_tokens,
            spread,
        };
        let (mut decode, mut prefill) = (Vec::new(), Vec::new());
        for (&node, known) in self.known.iter().filter(|(node, _)| !request.tried.contains(node)) {
            let worker = WorkerId(node);
            let held = held.get(&worker).copied().unwrap_or(0);
            let candidate = Candidate { worker, held, load: load(&known.status) };
            if is_decode(node) { &mut decode } else { &mut prefill }.push(candidate);
        }
        let threshold = Threshold::At(scenario.disaggregate_min_blocks);
        let plan = choose(&ask, &decode, &prefill, threshold)?;
        let run = |worker: &WorkerId| (worker.0, self.known[&worker.0].status.incarnation);
        Some(Placement { decode: plan.decode.0, prefill: plan.prefill.iter().map(run).collect() })
    }
}

fn load(status: &Status) -> Load {
    Load {
        queued: status.load.queued,
        running: status.load.running,
        available_blocks: status.available,
        pending_tokens: status.load.pending_tokens,
    }
}
