//! What has to be true when a run is over.

use super::cluster::Cluster;
use super::load::{Done, Outcome, Request};
use super::worker::Worker;
use baton_engine::witness::{WitnessSpec, expected};
use baton_kv::pool::Counts;
use baton_proto::ids::{Incarnation, WorkerId};
use baton_transfer::sim::NodeId;
use baton_worker::blocks::GROUP;
use baton_worker::plan::Schedule;

impl Cluster<'_> {
    /// Looks for everything that must not be.
    pub(super) fn judge(&mut self) {
        let mut found = Vec::new();
        for (index, request) in self.requests.iter().enumerate() {
            let clip = self.scenario.decode_slots * self.scenario.model.block_tokens;
            found.extend(
                judge_request(&self.scenario.model, clip, request)
                    .map(|what| format!("request {index}: {what}")),
            );
        }
        if !self.is_idle() {
            found.push("a worker is not idle at the end".to_owned());
        }
        if self.pulls.len() > 0 {
            found.push(format!("{} batches of pulls have not settled", self.pulls.len()));
        }
        for (index, worker) in self.prefills.iter().enumerate() {
            if let Some(worker) = worker {
                let node = self.prefill_node(index);
                let books = (worker.schedule.claimed(), worker.schedule.promised());
                found.extend(judge_blocks(worker, books).map(|w| format!("prefill {index}: {w}")));
                found.extend(self.judge_index(worker, node));
            } else {
                found.extend(self.judge_absence(self.prefill_node(index)));
            }
        }
        for (index, worker) in self.decodes.iter().enumerate() {
            if let Some(worker) = worker {
                let node = self.decode_node(index);
                let books = (worker.schedule.claimed(), worker.schedule.promised());
                found.extend(judge_blocks(worker, books).map(|w| format!("decode {index}: {w}")));
                found.extend(self.judge_index(worker, node));
            } else {
                found.extend(self.judge_absence(self.decode_node(index)));
            }
        }
        found.extend(self.judge_charges());
        self.report.violations.extend(found);
        self.report.broken_streams = self.net.broken;
        self.report.pulled_blocks = self.pulls.arrived;
        self.report.failed_pulls = self.pulls.failed;
        self.report.computed_tokens = self.computed();
        self.report.virtual_ms = self.now.as_millis() as u64;
    }

    /// Every router knows exactly what the worker holds.
    fn judge_index<S: Schedule>(&self, worker: &Worker<S>, node: NodeId) -> Vec<String> {
        let truth = worker.blocks.lock().snapshot();
        let run = worker.blocks.incarnation();
        let mut found = Vec::new();
        for (router, state) in self.routers.iter().enumerate() {
            let position: Option<(Incarnation, _)> = state.index.position(WorkerId(node));
            if position != Some((run, truth.first_seq)) {
                let at = truth.first_seq;
                found.push(format!("router {router} is at {position:?} of node {node}, not {at}"));
            }
            let known = state.index.blocks_of(WorkerId(node));
            let unknown = truth.events.iter().filter(|event| {
                let holders = state.index.holders(&event.hash, GROUP);
                !holders.iter().any(|holder| holder.worker == WorkerId(node))
            });
            let (unknown, held) = (unknown.count(), truth.events.len());
            if known != held || unknown != 0 {
                found.push(format!(
                    "router {router} knows {known} of {held} blocks of node {node}, {unknown} not"
                ));
            }
        }
        found
    }

    /// Nothing counts any more for turns that are over.
    fn judge_charges(&self) -> Vec<String> {
        let routers = self.routers.iter().enumerate();
        let charged = |(router, state): (usize, &super::router::Router)| {
            let left = |(worker, own)| format!("router {router} still counts {own:?} on {worker}");
            state.charged().map(left).collect::<Vec<_>>()
        };
        routers.flat_map(charged).collect()
    }

    /// No router believes that a dead worker holds anything.
    fn judge_absence(&self, node: NodeId) -> Vec<String> {
        let known = |(_, state): &(usize, &super::router::Router)| {
            state.index.position(WorkerId(node)).is_some()
        };
        let routers = self.routers.iter().enumerate().filter(known);
        routers.map(|(router, _)| format!("router {router} knows the dead node {node}")).collect()
    }
}

fn judge_request(
    model: &WitnessSpec,
    pool_tokens: u32,
    request: &Request,
) -> impl Iterator<Item = String> {
    let ask = &request.ask;
    let limit = ask.max_tokens.min(pool_tokens - ask.prompt.len() as u32) as usize;
    let mut found = Vec::new();
    if request.outcome.is_none() {
        found.push("it never ended".to_owned());
    }
    for (choice, answer) in request.answers.iter().enumerate() {
        let right = expected(model, &ask.prompt, ask.seed, choice as u16, limit);
        let whole = answer.done == Some(Done::Finished);
        if whole && answer.tokens != right || !right.starts_with(&answer.tokens) {
            let place = right.iter().zip(&answer.tokens).position(|(a, b)| a != b);
            found.push(format!(
                "choice {choice} has {} tokens, {} are right; the first wrong one is at {place:?}",
                answer.tokens.len(),
                right.len()
            ));
        }
    }
    if request.outcome == Some(Outcome::Lost) && !request.started() {
        found.push("it was given up although it could have been moved".to_owned());
    }
    found.into_iter()
}

/// Every slot is accounted for, and nothing is kept for anybody.
fn judge_blocks<S: Schedule>(
    worker: &Worker<S>,
    (claimed, promised): (usize, usize),
) -> impl Iterator<Item = String> {
    let slots = worker.blocks.arena().slots();
    let counts = worker.blocks.counts();
    let right = Counts {
        free: slots - counts.cached.min(slots),
        cached: counts.cached,
        ..Counts::default()
    };
    let mut found = Vec::new();
    if counts != right {
        found.push(format!("slots are not where they belong: {counts:?}"));
    }
    if worker.blocks.available() != slots {
        found.push(format!("{} of {slots} slots are available", worker.blocks.available()));
    }
    if worker.blocks.arena().guards() != 0 {
        found.push(format!("{} guards are held", worker.blocks.arena().guards()));
    }
    if (claimed, promised) != (0, 0) {
        found.push(format!("{claimed} blocks are claimed and {promised} promised"));
    }
    found.into_iter()
}
