//! The router's side of a turn: placed, moved, streamed, ended.

use super::chance::mix;
use super::cluster::Cluster;
use super::load::{Done, Outcome, request_id};
use super::net::{Body, Message, Status, StreamId};
use super::router::{Placement, TRIES_MAX};
use baton_decode::event::{Failure, News, Update};
use baton_decode::turn::{Candidate, Report, RouterId, StopRule, TurnRequest};
use baton_kv::events::Batch;
use baton_proto::ids::{Incarnation, WorkerId};
use baton_proto::ir::Sampling;
use baton_router::choose::{Observed, Role};
use baton_transfer::sim::NodeId;
use baton_transfer::{Endpoints, Peer};
use baton_worker::sequence::ChainKey;
use std::sync::Arc;
use std::time::Duration;

impl Cluster<'_> {
    /// Sends a turn to a worker that it was not tried on.
    pub(super) fn place(&mut self, index: usize) {
        let request = &self.requests[index];
        if request.outcome.is_some() {
            return;
        }
        let node = request.ask.router;
        let router = &mut self.routers[node as usize];
        let spread = mix(index as u64);
        let placement = if request.tried.len() < TRIES_MAX {
            router.place(self.scenario, &self.root, spread, request)
        } else {
            None
        };
        let Some(placement) = placement else {
            self.end_request(index, Outcome::Refused);
            return;
        };
        let to = placement.decode;
        self.trace(&[30, index as u64, u64::from(to), placement.prefill.len() as u64]);
        if !self.requests[index].tried.is_empty() {
            self.report.moved += 1;
        }
        let stream = self.session(node, to);
        self.requests[index].at = Some((to, stream));
        let turn = self.turn_request(index, &placement, stream);
        self.requests[index].charge = Some(placement.charge);
        let sent = self.net.send(self.now, stream, node, Body::Submit(Box::new(turn)));
        self.follow(sent);
    }

    fn session(&mut self, router: NodeId, decode: NodeId) -> StreamId {
        if let Some(stream) = self.routers[router as usize].sessions.get(&decode) {
            return *stream;
        }
        let stream = self.net.open(router, decode);
        self.routers[router as usize].sessions.insert(decode, stream);
        stream
    }

    fn turn_request(&self, index: usize, placement: &Placement, stream: StreamId) -> TurnRequest {
        let ask = &self.requests[index].ask;
        let candidate = |&(node, incarnation): &(NodeId, Incarnation)| Candidate {
            uri: format!("sim:{node}"),
            peer: Peer { worker: WorkerId(node), incarnation, endpoints: Endpoints::default() },
        };
        TurnRequest {
            router: RouterId(stream.0),
            request: request_id(index),
            tokens: ask.prompt.clone(),
            chain_key: ChainKey {
                root: Arc::clone(&self.root),
                block_tokens: self.scenario.model.block_tokens,
                tenant: ask.tenant.clone().into(),
                public_blocks: 0,
            },
            choices: ask.choices,
            sampling: Sampling { seed: ask.seed, ..Sampling::greedy() },
            stop: StopRule {
                max_tokens: ask.max_tokens,
                min_tokens: 0,
                end_ids: self.scenario.model.eos.clone(),
            },
            thinking: None,
            logprobs: None,
            raw_top: 0,
            precedence: ask.precedence,
            weight: 1,
            osl: ask.osl,
            deadline: ask.deadline,
            candidates: placement.prefill.iter().map(candidate).collect(),
        }
    }

    pub(super) fn take_frame(&mut self, stream: StreamId, router: NodeId, updates: Vec<Update>) {
        for Update { request, choice, news } in updates {
            let index = request.0 as usize - 1;
            let state = &self.requests[index];
            let here = state.at.is_some_and(|(_, at)| at == stream) && state.ask.router == router;
            if !here || state.outcome.is_some() {
                continue;
            }
            match news {
                News::Admitted { .. } => {}
                News::Drawn { drawn, report, .. } => {
                    self.prompt_computed(index, report.as_ref());
                    self.take_token(index, choice, drawn.token);
                }
                News::Finished(..) => self.finish(index, choice, Done::Finished),
                News::Failed(failure) => self.refused(index, failure),
            }
        }
    }

    /// The router learns from the first token what the prompt took.
    fn prompt_computed(&mut self, index: usize, report: Option<&Report>) {
        let request = &mut self.requests[index];
        let first = request.first_token_at.is_none();
        request.first_token_at.get_or_insert(self.now);
        let (Some(report), Some(charge), true) = (report, &mut request.charge, first) else {
            return;
        };
        let seen = Observed {
            prompt_tokens: request.ask.prompt.len() as u64,
            cached_tokens: u64::from(report.cached_tokens),
            pulled_tokens: u64::from(report.pulled_tokens),
            computed_tokens: u64::from(report.computed_tokens),
            pulled_blocks: u64::from(report.pulled_blocks),
            handover_s: report.handover.as_secs_f64(),
            prefill_s: report.prefill.as_secs_f64(),
            prefill_worker: (report.prefill_worker != 0).then_some(WorkerId(report.prefill_worker)),
        };
        self.routers[request.ask.router as usize].fleet.started(charge, &seen);
    }

    /// The turn counts no more where it was.
    pub(super) fn uncharge(&mut self, index: usize) {
        let request = &mut self.requests[index];
        let steps = request.answers[0].tokens.len().saturating_sub(1) as u64;
        let span =
            request.first_token_at.map_or(Duration::ZERO, |first| self.now.saturating_sub(first));
        let step_s = span.as_secs_f64() / steps.max(1) as f64;
        if let Some(charge) = request.charge.take() {
            self.routers[request.ask.router as usize].fleet.ended(charge, steps, step_s);
        }
    }

    fn take_token(&mut self, index: usize, choice: u16, token: u32) {
        self.trace(&[31, index as u64, u64::from(choice), u64::from(token)]);
        let request = &mut self.requests[index];
        let answer = &mut request.answers[usize::from(choice)];
        if answer.done == Some(Done::Finished) {
            self.report.violations.push(format!("request {index} goes on after its end"));
            return;
        }
        if answer.done.is_some() {
            return;
        }
        answer.tokens.push(token);
        if request.ask.stop == Some((choice, answer.tokens.len())) {
            self.finish(index, choice, Done::Stopped);
            self.cancel(index, Some(choice));
        }
    }

    fn finish(&mut self, index: usize, choice: u16, done: Done) {
        let request = &mut self.requests[index];
        let answer = &mut request.answers[usize::from(choice)];
        if answer.done.is_none() {
            answer.done = Some(done);
        } else if answer.done == Some(Done::Finished) {
            self.report.violations.push(format!("request {index} finished twice"));
        }
        if request.is_complete() && request.outcome.is_none() {
            self.cancel(index, None);
            self.end_request(index, Outcome::Answered);
        }
    }

    /// The worker does not take the turn, or ends it.
    fn refused(&mut self, index: usize, failure: Failure) {
        match failure {
            Failure::Deadline => self.end_request(index, Outcome::Deadline),
            Failure::TooLarge { .. } => self.end_request(index, Outcome::Refused),
            Failure::Overloaded | Failure::Draining => self.recover(index),
        }
    }

    /// Moves the turn if nothing of its answer is known yet.
    fn recover(&mut self, index: usize) {
        let request = &mut self.requests[index];
        if request.started() {
            self.end_request(index, Outcome::Lost);
            return;
        }
        let (node, _) = request.at.take().expect("a turn that is lost was somewhere");
        request.tried.push(node);
        self.uncharge(index);
        self.place(index);
    }

    pub(super) fn drop_request(&mut self, index: usize, outcome: Outcome) {
        if self.requests[index].outcome.is_none() {
            self.cancel(index, None);
            self.end_request(index, outcome);
        }
    }

    fn cancel(&mut self, index: usize, choice: Option<u16>) {
        let request = &self.requests[index];
        let Some((_, stream)) = request.at else { return };
        let body = Body::Cancel(request_id(index), choice);
        let sent = self.net.send(self.now, stream, request.ask.router, body);
        self.follow(sent);
    }

    /// A session with a decode worker is over: so is everything that ran in it.
    pub(super) fn session_ended(&mut self, router: NodeId, stream: StreamId) {
        self.routers[router as usize].sessions.retain(|_, session| *session != stream);
        for index in 0..self.requests.len() {
            let request = &self.requests[index];
            let here = request.at.is_some_and(|(_, at)| at == stream);
            if here && request.outcome.is_none() {
                self.recover(index);
            }
        }
    }

    pub(super) fn poll(&mut self, router: NodeId) {
        for node in self.routers[router as usize].forget_silent(self.now) {
            self.end_session(router, node);
        }
        let state = &mut self.routers[router as usize];
        state.asked += 1;
        let asked = state.asked;
        for node in self.prefill_node(0)..self.nodes() {
            let sent = self.net.datagram(self.now, router, node, Message::Poll(asked));
            self.follow_deliveries(sent);
        }
    }

    pub(super) fn heard(&mut self, router: NodeId, node: NodeId, asked: u64, status: Status) {
        let kind = if self.is_decode(node) {
            (Role::Decode, self.scenario.decode_slots)
        } else {
            (Role::Prefill, self.scenario.prefill_slots)
        };
        let state = &mut self.routers[router as usize];
        if state.asked != asked {
            return;
        }
        let (watch, restarted) = state.heard(self.now, node, kind, status);
        if restarted {
            self.end_session(router, node);
        }
        if let Some(from) = watch {
            let sent = self.net.datagram(self.now, router, node, Message::Watch(from));
            self.follow_deliveries(sent);
        }
    }

    fn end_session(&mut self, router: NodeId, node: NodeId) {
        if let Some(stream) = self.routers[router as usize].sessions.remove(&node) {
            let sent = self.net.end(self.now, stream, router);
            self.follow(sent);
            self.session_ended(router, stream);
        }
    }

    pub(super) fn learn(
        &mut self,
        router: NodeId,
        worker: WorkerId,
        run: Incarnation,
        batch: &Batch,
    ) {
        if let Err(need) = self.routers[router as usize].index.apply(worker, run, batch) {
            let message = Message::Watch(need.from);
            let sent = self.net.datagram(self.now, router, worker.0, message);
            self.follow_deliveries(sent);
        }
    }
}
