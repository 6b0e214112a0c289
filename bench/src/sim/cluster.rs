//! The cluster: its nodes, and the queue of what happens next.

use super::chance::{Chance, mix};
use super::load::{self, Outcome, Request};
use super::net::{Breaks, Message, Net, PullId, Sent, StreamId};
use super::pulls::{For, Pulls};
use super::report::Report;
use super::router::Router;
use super::scenario::{Fault, Scenario};
use super::worker::{Decode, Prefill};
use baton_decode::turn::TurnId;
use baton_engine::api::Engine;
use baton_engine::witness::Witness;
use baton_kv::hash::{ChainRoot, domain_digest};
use baton_proto::ids::{Incarnation, WorkerId};
use baton_transfer::sim::{Delivery, NodeId};
use baton_worker::plan::Schedule;
use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

/// As the engine loop's.
const TICK: Duration = Duration::from_millis(20);
/// How often a router asks workers how they are.
const POLL: Duration = Duration::from_millis(50);
/// What is left to settle when the last request has ended and nothing breaks any more.
const REST: Duration = Duration::from_secs(2);
/// More happenings than any scenario needs: something goes round in circles.
const HAPPENINGS_MAX: u64 = 5_000_000;

/// Something that happens.
#[derive(Debug)]
pub(super) enum What {
    Arrives(Box<Delivery<Message>>),
    Breaks(StreamId, NodeId),
    Tick(NodeId, Incarnation),
    Stepped(NodeId, Incarnation),
    PullDeadline(u64),
    /// A pull from mapped memory has got as far as its second half.
    Mapped(PullId, Incarnation, Vec<u8>),
    Request(usize),
    Deadline(usize),
    ClientGone(usize),
    Poll(NodeId),
    Fault(Fault),
    /// Everything has ended and had time to settle.
    End,
}

struct Happening {
    at: Duration,
    /// Tells apart what happens at one time: first scheduled, first served.
    tie: u64,
    what: What,
}

impl Happening {
    fn key(&self) -> (Duration, u64) {
        (self.at, self.tie)
    }
}

impl PartialEq for Happening {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Happening {}

impl PartialOrd for Happening {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Happening {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

/// The cluster and everything under way in it.
pub(super) struct Cluster<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) now: Duration,
    pub(super) chance: Chance,
    pub(super) net: Net,
    pub(super) pulls: Pulls,
    pub(super) routers: Vec<Router>,
    pub(super) prefills: Vec<Option<Prefill>>,
    pub(super) decodes: Vec<Option<Decode>>,
    pub(super) requests: Vec<Request>,
    /// Calls of prefill workers, at the calling end.
    pub(super) calls: BTreeMap<(NodeId, TurnId), StreamId>,
    pub(super) callers: BTreeMap<(NodeId, StreamId), (TurnId, WorkerId, Incarnation)>,
    pub(super) root: Arc<ChainRoot>,
    pub(super) report: Report,
    queue: BinaryHeap<Reverse<Happening>>,
    ties: u64,
    open_requests: usize,
    open_faults: usize,
}

impl<'a> Cluster<'a> {
    pub(super) fn new(scenario: &'a Scenario, seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let asks = load::draw(scenario, &mut chance);
        let net = Net::new(scenario.control, scenario.data, &mut chance);
        let model = Witness::new(scenario.model.clone()).expect("the scenario's model can be");
        let spec = model.spec();
        let domain = domain_digest(
            &spec.weights_digest,
            &spec.kv_format,
            spec.block_tokens,
            &spec.numerics_class,
        );
        let mut cluster = Self {
            scenario,
            now: Duration::ZERO,
            net,
            pulls: Pulls::new(scenario.verify_pulls),
            routers: (0..scenario.routers).map(|_| Router::new(scenario)).collect(),
            prefills: (0..scenario.prefills).map(|_| None).collect(),
            decodes: (0..scenario.decodes).map(|_| None).collect(),
            open_requests: asks.len(),
            requests: asks.into_iter().map(Request::new).collect(),
            calls: BTreeMap::new(),
            callers: BTreeMap::new(),
            root: Arc::new(ChainRoot::new(&[7; 32], &domain)),
            report: Report::new(scenario.name, seed),
            queue: BinaryHeap::new(),
            ties: 0,
            open_faults: scenario.faults.len(),
            chance,
        };
        cluster.begin();
        cluster
    }

    /// Runs until everything has ended, and judges it.
    pub(super) fn run(mut self) -> Report {
        while let Some(Reverse(happening)) = self.queue.pop() {
            self.now = happening.at;
            self.report.happenings += 1;
            if matches!(happening.what, What::End) {
                break;
            }
            if self.report.happenings > HAPPENINGS_MAX {
                self.report.violations.push("the run does not end".to_owned());
                break;
            }
            self.happen(happening.what);
        }
        self.judge();
        self.report
    }

    pub(super) fn later(&mut self, at: Duration, what: What) {
        self.ties += 1;
        self.queue.push(Reverse(Happening { at, tie: self.ties, what }));
    }

    /// Puts into the queue what a send leads to.
    pub(super) fn follow(&mut self, sent: Sent) {
        self.follow_deliveries(sent.deliveries);
        self.follow_breaks(sent.breaks);
    }

    pub(super) fn follow_deliveries(&mut self, deliveries: Vec<Delivery<Message>>) {
        for delivery in deliveries {
            self.later(delivery.at, What::Arrives(Box::new(delivery)));
        }
    }

    fn follow_breaks(&mut self, breaks: Vec<Breaks>) {
        for Breaks { at, stream, end } in breaks {
            self.later(at, What::Breaks(stream, end));
        }
    }

    /// Adds to the digest of everything that happened.
    pub(super) fn trace(&mut self, words: &[u64]) {
        let now = self.now.as_nanos() as u64;
        for word in [now].iter().chain(words) {
            self.report.digest = mix(self.report.digest.rotate_left(5) ^ word);
        }
    }

    pub(super) fn prefill_node(&self, index: usize) -> NodeId {
        (self.scenario.routers + index) as NodeId
    }

    pub(super) fn decode_node(&self, index: usize) -> NodeId {
        (self.scenario.routers + self.scenario.prefills + index) as NodeId
    }

    pub(super) fn nodes(&self) -> NodeId {
        self.decode_node(self.scenario.decodes)
    }

    pub(super) fn is_decode(&self, node: NodeId) -> bool {
        node >= self.decode_node(0)
    }

    pub(super) fn prefill(&mut self, node: NodeId) -> Option<&mut Prefill> {
        let index = (node as usize).checked_sub(self.scenario.routers)?;
        self.prefills.get_mut(index)?.as_mut()
    }

    pub(super) fn decode(&mut self, node: NodeId) -> Option<&mut Decode> {
        let index = node.checked_sub(self.decode_node(0))?;
        self.decodes.get_mut(index as usize)?.as_mut()
    }

    /// A request has ended, for good.
    pub(super) fn end_request(&mut self, index: usize, outcome: Outcome) {
        let request = &mut self.requests[index];
        if let Some(before) = request.outcome {
            let what = format!("request {index} ended twice: {before:?}, then {outcome:?}");
            self.report.violations.push(what);
            return;
        }
        if self.now > request.ask.deadline {
            self.report.violations.push(format!("request {index} ended after its deadline"));
        }
        request.outcome = Some(outcome);
        self.uncharge(index);
        self.report.count(outcome);
        self.trace(&[10, index as u64, outcome as u64]);
        self.open_requests -= 1;
        self.end_soon();
    }

    fn begin(&mut self) {
        for index in 0..self.scenario.prefills {
            self.start_prefill(index);
        }
        for index in 0..self.scenario.decodes {
            self.start_decode(index);
        }
        for router in 0..self.scenario.routers {
            let at = self.chance.span(POLL);
            self.later(at, What::Poll(router as NodeId));
        }
        for index in 0..self.requests.len() {
            let ask = &self.requests[index].ask;
            let (at, deadline, gone_at) = (ask.at, ask.deadline, ask.gone_at);
            self.later(at, What::Request(index));
            self.later(deadline, What::Deadline(index));
            if let Some(gone_at) = gone_at {
                self.later(gone_at, What::ClientGone(index));
            }
        }
        for (at, fault) in self.scenario.faults.clone() {
            let at = at + self.chance.span(at / 2);
            self.later(at, What::Fault(fault));
        }
        self.end_soon();
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Arrives(delivery) => {
                if self.net.arrives(&delivery) {
                    self.receive(*delivery);
                }
            }
            What::Breaks(stream, end) => {
                if self.net.shut(stream, end) {
                    self.trace(&[1, stream.0, u64::from(end)]);
                    self.stream_ended(stream, end);
                }
            }
            What::Tick(node, run) => self.tick(node, run),
            What::Stepped(node, run) => self.stepped(node, run),
            What::PullDeadline(batch) => {
                self.pulls.give_up(batch);
                self.settle(batch);
            }
            What::Mapped(pull, run, first) => self.read_second_half(pull, run, &first),
            What::Request(index) => self.place(index),
            What::Deadline(index) => self.drop_request(index, Outcome::Deadline),
            What::ClientGone(index) => self.drop_request(index, Outcome::Cancelled),
            What::Poll(router) => {
                self.poll(router);
                self.later(self.now + POLL, What::Poll(router));
            }
            What::Fault(fault) => {
                self.befall(fault);
                self.open_faults -= 1;
                self.end_soon();
            }
            What::End => {}
        }
    }

    fn end_soon(&mut self) {
        if self.open_requests == 0 && self.open_faults == 0 {
            self.net.heal(self.nodes(), self.scenario.control);
            self.later(self.now + REST, What::End);
        }
    }

    fn befall(&mut self, fault: Fault) {
        match fault {
            Fault::KillPrefill(index) => {
                self.prefills[index] = None;
                self.kill(self.prefill_node(index));
            }
            Fault::KillDecode(index) => {
                self.decodes[index] = None;
                self.kill(self.decode_node(index));
            }
            Fault::StartPrefill(index) if self.prefills[index].is_none() => {
                self.start_prefill(index);
            }
            Fault::StartDecode(index) if self.decodes[index].is_none() => self.start_decode(index),
            Fault::StartPrefill(_) | Fault::StartDecode(_) => {}
            Fault::Cut(prefill, decode) | Fault::Mend(prefill, decode) => {
                let cut = matches!(fault, Fault::Cut(..));
                let (one, other) = (self.prefill_node(prefill), self.decode_node(decode));
                self.net.set_cut(one, other, cut);
            }
        }
    }

    fn kill(&mut self, node: NodeId) {
        self.trace(&[2, u64::from(node)]);
        let breaks = self.net.kill(self.now, node);
        self.follow_breaks(breaks);
        self.pulls.forget(node);
        self.calls.retain(|(caller, _), _| *caller != node);
        self.callers.retain(|(caller, _), _| *caller != node);
    }

    fn start_prefill(&mut self, index: usize) {
        let node = self.prefill_node(index);
        let run = self.revive(node);
        self.prefills[index] = Some(Prefill::prefill(self.scenario, WorkerId(node), run));
    }

    fn start_decode(&mut self, index: usize) {
        let node = self.decode_node(index);
        let run = self.revive(node);
        self.decodes[index] = Some(Decode::decode(self.scenario, WorkerId(node), run));
    }

    fn revive(&mut self, node: NodeId) -> Incarnation {
        self.net.revive(node);
        let run = Incarnation(self.chance.next());
        self.trace(&[3, u64::from(node), run.0]);
        let at = self.now + self.chance.span(TICK);
        self.later(at, What::Tick(node, run));
        run
    }

    fn run_of(&mut self, node: NodeId) -> Option<Incarnation> {
        if self.is_decode(node) {
            self.decode(node).map(|worker| worker.blocks.incarnation())
        } else {
            self.prefill(node).map(|worker| worker.blocks.incarnation())
        }
    }

    fn tick(&mut self, node: NodeId, run: Incarnation) {
        if self.run_of(node) != Some(run) {
            return;
        }
        if let Some(worker) = self.decode(node) {
            worker.tick();
        } else if let Some(worker) = self.prefill(node) {
            worker.tick();
        }
        self.later(self.now + TICK, What::Tick(node, run));
        self.wake(node);
    }

    fn stepped(&mut self, node: NodeId, run: Incarnation) {
        if self.run_of(node) != Some(run) {
            return;
        }
        let now = self.now;
        self.trace(&[4, u64::from(node)]);
        if let Some(actions) = self.decode(node).map(|worker| worker.stepped(now)) {
            self.deliver_decode(node, actions);
        } else if let Some(actions) = self.prefill(node).map(|worker| worker.stepped(now)) {
            self.deliver_prefill(node, actions);
        }
        self.wake(node);
    }

    /// A worker's loop takes a turn, if it is not computing.
    pub(super) fn wake(&mut self, node: NodeId) {
        let now = self.now;
        let busy = if let Some(worker) = self.decode(node) {
            let turned = worker.turn(now);
            self.deliver_decode(node, turned.actions);
            turned.busy
        } else if let Some(worker) = self.prefill(node) {
            let turned = worker.turn(now);
            self.deliver_prefill(node, turned.actions);
            turned.busy
        } else {
            None
        };
        if let (Some(busy), Some(run)) = (busy, self.run_of(node)) {
            self.later(now + busy, What::Stepped(node, run));
        }
        self.tell(node);
    }

    /// All pulls of a batch may have ended.
    pub(super) fn settle(&mut self, batch: u64) {
        let Some((node, owner, settled)) = self.pulls.take_settled(batch) else { return };
        self.trace(&[5, u64::from(node), settled.len() as u64]);
        match owner {
            For::Turn(turn) => {
                let worker = self.decode(node).expect("its pulls are forgotten with it");
                worker.push(baton_decode::event::Event::Settled(turn, settled));
            }
            For::Job(job) => {
                let worker = self.prefill(node).expect("its pulls are forgotten with it");
                worker.push(baton_prefill::schedule::Event::Settled(job, settled));
            }
        }
        self.wake(node);
    }

    /// Positions computed by the workers that are alive.
    pub(super) fn computed(&self) -> u64 {
        let prefill = self.prefills.iter().flatten().map(|worker| worker.computed);
        let decode = self.decodes.iter().flatten().map(|worker| worker.computed);
        prefill.chain(decode).sum()
    }

    /// Whether every live worker has nothing left to do.
    pub(super) fn is_idle(&self) -> bool {
        self.prefills.iter().flatten().all(|worker| worker.schedule.is_idle())
            && self.decodes.iter().flatten().all(|worker| worker.schedule.is_idle())
    }
}
