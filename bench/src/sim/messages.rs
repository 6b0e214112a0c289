//! What workers want done becomes messages, and messages become what happens to workers.

use super::cluster::{Cluster, What};
use super::net::{Body, Compute, Message, PullId, Served, Status, StreamId};
use super::pulls::For;
use baton_decode::event::{self as decode, PrefillCall, Update};
use baton_decode::turn::{RouterId, TurnId};
use baton_prefill::job::{JobId, JobRequest};
use baton_prefill::schedule as prefill;
use baton_proto::ids::{Incarnation, WorkerId};
use baton_transfer::sim::{Delivery, NodeId};
use baton_transfer::{Endpoints, Peer, Pull, Refused, TransferError};
use baton_worker::plan::Schedule;
use std::collections::BTreeMap;
use std::time::Duration;

/// Time between the halves of a copy out of mapped memory, at most: a slot may be reused meanwhile.
const COPY_MAX: Duration = Duration::from_millis(3);

impl Cluster<'_> {
    pub(super) fn deliver_decode(&mut self, node: NodeId, actions: Vec<decode::Action>) {
        let mut frames: BTreeMap<RouterId, Vec<Update>> = BTreeMap::new();
        for action in actions {
            match action {
                decode::Action::Update(router, update) => {
                    frames.entry(router).or_default().push(update);
                }
                decode::Action::StartPrefill(turn, call) => self.start_call(node, turn, *call),
                decode::Action::StopPrefill(turn) => {
                    if let Some(stream) = self.calls.remove(&(node, turn)) {
                        self.callers.remove(&(node, stream));
                        let sent = self.net.end(self.now, stream, node);
                        self.follow(sent);
                    }
                }
                decode::Action::Pull(turn, peer, pulls, deadline) => {
                    self.start_pull(node, For::Turn(turn), &peer, pulls, deadline);
                }
            }
        }
        for (router, updates) in frames {
            self.trace(&[20, router.0, updates.len() as u64]);
            let sent = self.net.send(self.now, StreamId(router.0), node, Body::Frame(updates));
            self.follow(sent);
        }
    }

    pub(super) fn deliver_prefill(&mut self, node: NodeId, actions: Vec<prefill::Action>) {
        for action in actions {
            let (job, body) = match action {
                prefill::Action::Announce(job, blocks) => (job, Body::Announce(blocks)),
                prefill::Action::Done(job, report) => (job, Body::Done(report)),
                prefill::Action::Fail(job, _) => (job, Body::End),
                prefill::Action::Pull(job, peer, pulls, deadline) => {
                    self.start_pull(node, For::Job(job), &peer, pulls, deadline);
                    continue;
                }
            };
            let stream = StreamId(job.0);
            let sent = match body {
                Body::End => self.net.end(self.now, stream, node),
                body => self.net.send(self.now, stream, node, body),
            };
            self.follow(sent);
        }
    }

    fn start_call(&mut self, node: NodeId, turn: TurnId, call: PrefillCall) {
        let peer = &call.candidate.peer;
        let stream = self.net.open(node, peer.worker.0);
        self.calls.insert((node, turn), stream);
        self.callers.insert((node, stream), (turn, peer.worker, peer.incarnation));
        self.report.calls += 1;
        let compute = Compute {
            tokens: call.tokens,
            chain_key: call.chain_key,
            from_block: call.from_block,
            held: call.held,
            precedence: call.precedence,
            deadline: call.deadline,
        };
        let sent = self.net.send(self.now, stream, node, Body::Compute(Box::new(compute)));
        self.follow(sent);
    }

    fn start_pull(
        &mut self,
        node: NodeId,
        owner: For,
        peer: &Peer,
        pulls: Vec<Pull>,
        deadline: Duration,
    ) {
        self.trace(&[21, u64::from(node), pulls.len() as u64]);
        let (batch, asks) = self.pulls.start(node, owner, peer, pulls);
        let mapped = self.chance.hits(self.scenario.mapped_ppm);
        for (pull, block) in asks {
            if mapped {
                self.read_first_half(pull, peer, block.slot.0);
            } else {
                let ask = Message::PullAsk(pull, block);
                let sent = self.net.data(self.now, node, peer.worker.0, 64, ask);
                self.follow_deliveries(sent);
            }
        }
        // Settles what was refused at once, and gives up what never comes.
        let nothing_open = self.pulls.waiting((batch, 0)).is_none();
        let at = if nothing_open { self.now } else { deadline.max(self.now) };
        self.later(at, What::PullDeadline(batch));
    }

    /// Reads what another process on the host would see. It is alive, so its memory is mapped.
    fn read_first_half(&mut self, pull: PullId, peer: &Peer, slot: u32) {
        let mut first = Vec::new();
        self.with_memory(peer.worker, peer.incarnation, |memory| {
            first = vec![0; memory.shape().slot_bytes / 2];
            memory.copy_out(slot, 0, &mut first).expect("the slot exists");
        });
        let at = self.now + self.chance.span(COPY_MAX);
        self.later(at, What::Mapped(pull, peer.incarnation, first));
    }

    pub(super) fn read_second_half(&mut self, pull: PullId, run: Incarnation, first: &[u8]) {
        let Some((_, block)) = self.pulls.waiting(pull) else { return };
        let mut served = None;
        self.with_memory(block.owner, run, |memory| {
            let mut payload = first.to_vec();
            payload.resize(memory.shape().slot_bytes, 0);
            let half = first.len();
            memory.copy_out(block.slot.0, half, &mut payload[half..]).expect("the slot exists");
            let record = memory.record(block.slot.0).expect("the slot exists");
            served = Some(Served { payload, record });
        });
        let served = served.filter(|_| !first.is_empty());
        let result = served.as_ref().ok_or(TransferError::Refused(Refused::Incarnation));
        self.pull_arrives(pull, result);
    }

    fn with_memory(
        &mut self,
        worker: WorkerId,
        run: Incarnation,
        read: impl FnOnce(&baton_arena::PeerArena),
    ) {
        let node = worker.0;
        if let Some(owner) = self.decode(node).filter(|w| w.blocks.incarnation() == run) {
            read(&owner.memory);
        } else if let Some(owner) = self.prefill(node).filter(|w| w.blocks.incarnation() == run) {
            read(&owner.memory);
        }
    }

    pub(super) fn receive(&mut self, delivery: Delivery<Message>) {
        let Delivery { from, to, message, flipped, .. } = delivery;
        match message {
            Message::Stream(stream, body) => self.receive_body(stream, to, body),
            Message::Poll(asked) => self.answer_poll(from, to, asked),
            Message::Status(asked, status) => self.heard(to, from, asked, status),
            Message::Watch(seq) => {
                if let Some(worker) = self.decode(to) {
                    worker.watch(from, seq);
                } else if let Some(worker) = self.prefill(to) {
                    worker.watch(from, seq);
                }
                self.tell(to);
            }
            Message::Events(run, batch) => self.learn(to, WorkerId(from), run, &batch),
            Message::PullAsk(pull, block) => self.serve(pull, from, to, &block),
            Message::PullReply(pull, reply) => match reply {
                Ok(mut served) => {
                    if let Some(bit) = flipped {
                        served.payload[bit as usize / 8] ^= 1 << (bit % 8);
                    }
                    self.pull_arrives(pull, Ok(&served));
                }
                Err(refused) => self.pull_arrives(pull, Err(refused.into())),
            },
        }
    }

    fn receive_body(&mut self, stream: StreamId, to: NodeId, body: Body) {
        match body {
            Body::Frame(updates) => self.take_frame(stream, to, updates),
            Body::Submit(mut turn) => {
                turn.router = RouterId(stream.0);
                self.tell_decode(to, decode::Event::Submit(turn));
            }
            Body::Cancel(request, choice) => {
                let router = RouterId(stream.0);
                self.tell_decode(to, decode::Event::Cancel(router, request, choice));
            }
            Body::Compute(compute) => self.receive_call(stream, to, *compute),
            Body::Announce(blocks) => {
                let Some(&(turn, _, run)) = self.callers.get(&(to, stream)) else { return };
                if blocks.iter().any(|block| block.incarnation != run) {
                    let sent = self.net.end(self.now, stream, to);
                    self.follow(sent);
                    self.stream_ended(stream, to);
                } else {
                    self.tell_decode(to, decode::Event::Announced(turn, blocks));
                }
            }
            Body::Done(report) => {
                let Some(&(turn, from, _)) = self.callers.get(&(to, stream)) else { return };
                let done = decode::Event::PrefillDone(turn, from, report.cached_tokens);
                self.tell_decode(to, done);
            }
            Body::End => {
                self.net.shut(stream, to);
                self.stream_ended(stream, to);
            }
        }
    }

    fn receive_call(&mut self, stream: StreamId, to: NodeId, compute: Compute) {
        let held_by = compute.held.first().map(|first| Peer {
            worker: first.owner,
            incarnation: first.incarnation,
            endpoints: Endpoints::default(),
        });
        let request = JobRequest {
            tokens: compute.tokens,
            chain_key: compute.chain_key,
            from_block: compute.from_block,
            precedence: compute.precedence,
            weight: 1,
            deadline: compute.deadline,
            held: compute.held,
            held_by,
        };
        self.tell_prefill(to, prefill::Event::Compute(JobId(stream.0), Box::new(request)));
    }

    /// A stream is over at this end: the other side ended it, or it broke.
    pub(super) fn stream_ended(&mut self, stream: StreamId, end: NodeId) {
        if (end as usize) < self.scenario.routers {
            self.session_ended(end, stream);
        } else if let Some(&(turn, from, _)) = self.callers.get(&(end, stream)) {
            self.tell_decode(end, decode::Event::PrefillFailed(turn, from));
        } else if self.is_decode(end) {
            self.tell_decode(end, decode::Event::RouterGone(RouterId(stream.0)));
        } else {
            self.tell_prefill(end, prefill::Event::Cancel(JobId(stream.0)));
        }
    }

    fn tell_decode(&mut self, node: NodeId, event: decode::Event) {
        if let Some(worker) = self.decode(node) {
            worker.push(event);
            self.wake(node);
        }
    }

    fn tell_prefill(&mut self, node: NodeId, event: prefill::Event) {
        if let Some(worker) = self.prefill(node) {
            worker.push(event);
            self.wake(node);
        }
    }

    fn answer_poll(&mut self, router: NodeId, node: NodeId, asked: u64) {
        let status = if let Some(worker) = self.decode(node) {
            status(worker)
        } else if let Some(worker) = self.prefill(node) {
            status(worker)
        } else {
            return;
        };
        let sent = self.net.datagram(self.now, node, router, Message::Status(asked, status));
        self.follow_deliveries(sent);
    }

    /// Tells routers what happened to a worker's blocks.
    pub(super) fn tell(&mut self, node: NodeId) {
        let (run, news) = if let Some(worker) = self.decode(node) {
            (worker.blocks.incarnation(), worker.news())
        } else if let Some(worker) = self.prefill(node) {
            (worker.blocks.incarnation(), worker.news())
        } else {
            return;
        };
        for (router, batch) in news {
            let message = Message::Events(run, batch);
            let sent = self.net.datagram(self.now, node, router, message);
            self.follow_deliveries(sent);
        }
    }

    /// The owner of a block is asked for it.
    fn serve(
        &mut self,
        pull: PullId,
        puller: NodeId,
        node: NodeId,
        block: &baton_proto::block::BlockDescriptor,
    ) {
        let now = self.now;
        let blocks = if let Some(worker) = self.decode(node) {
            worker.blocks.clone()
        } else if let Some(worker) = self.prefill(node) {
            worker.blocks.clone()
        } else {
            return;
        };
        let reply = if block.incarnation == blocks.incarnation() {
            let pin = blocks.lock().resolve(block, now);
            pin.map_err(|_| Refused::Lease).map(|pin| {
                let slot = pin.slot().0;
                let payload = blocks.arena().read(slot).to_vec();
                Box::new(Served { payload, record: blocks.arena().record(slot) })
            })
        } else {
            Err(Refused::Incarnation)
        };
        let bytes = reply.as_ref().map_or(0, |served| served.payload.len()) as u64;
        let sent = self.net.data(now, node, puller, bytes, Message::PullReply(pull, reply));
        self.follow_deliveries(sent);
    }

    fn pull_arrives(&mut self, pull: PullId, result: Result<&Served, TransferError>) {
        let Some((node, _)) = self.pulls.waiting(pull) else { return };
        let arena = if let Some(worker) = self.decode(node) {
            worker.blocks.arena().clone()
        } else if let Some(worker) = self.prefill(node) {
            worker.blocks.arena().clone()
        } else {
            return;
        };
        self.pulls.arrive(pull, result, &arena);
        self.settle(pull.0);
    }
}

fn status<S: Schedule>(worker: &super::worker::Worker<S>) -> Status {
    let mut pool = worker.blocks.lock();
    Status {
        incarnation: worker.blocks.incarnation(),
        next: pool.log().next_seq(),
        load: worker.schedule.load(),
        available: pool.available(),
    }
}
