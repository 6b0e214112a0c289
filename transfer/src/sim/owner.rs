//! The owners' side: who may come in, and answers that go out packet by packet.

use super::Fabric;
use super::fabric::{Body, Event, PACKET, Packet, Timeline};
use super::net::NodeId;
use crate::guards::{Guard, Guards};
use crate::serve::{Seat, Seats, ServeLimits, judge, resolve};
use crate::wire::{BlockHead, Extent, Fetch, Hello, Welcome};
use crate::{Op, Refused, ServeContext, Span, TransportKind};
use baton_arena::RECORD_BYTES;
use baton_kv::lease::ReadPin;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Where a packet comes from and goes to, and what it belongs to.
type Way = (NodeId, NodeId, u64);

/// An arena that is served on a network. It is until its context's `shutdown`.
#[derive(Clone, Copy, Debug)]
pub struct Server {
    node: NodeId,
}

impl Server {
    /// Starts to serve an arena at a node, beginning the node's next run if it was killed.
    pub fn bind(
        fabric: &Fabric,
        node: NodeId,
        context: ServeContext,
        limits: ServeLimits,
    ) -> io::Result<Self> {
        Self::guarded(fabric, node, context, limits, Guards::default())
    }

    pub(crate) fn guarded(
        fabric: &Fabric,
        node: NodeId,
        context: ServeContext,
        limits: ServeLimits,
        guards: Guards,
    ) -> io::Result<Self> {
        let (tasks, shutdown) = (context.tasks.clone(), context.shutdown.clone());
        let owner =
            Owner { context, guards, seats: Seats::new(&limits), callers: BTreeMap::new(), run: 0 };
        let run = fabric.with(|state, _| {
            let run = state.owners.insert(node, owner)?;
            state.timeline.net.revive(node);
            Ok::<_, io::Error>(run)
        })?;
        let fabric = fabric.clone();
        tasks.spawn(async move {
            shutdown.cancelled().await;
            fabric.with(|state, _| state.owners.remove(node, Some(run)));
        });
        Ok(Self { node })
    }

    /// Where it serves.
    pub fn node(&self) -> NodeId {
        self.node
    }
}

/// All owners, and what they are sending.
#[derive(Default)]
pub(super) struct Owners {
    nodes: BTreeMap<NodeId, Owner>,
    answers: BTreeMap<u64, Answer>,
    next: u64,
}

struct Owner {
    context: ServeContext,
    guards: Guards,
    seats: Seats,
    callers: BTreeMap<NodeId, Seat>,
    run: u64,
}

/// An answer under way.
struct Answer {
    way: Way,
    number: u32,
    slot: u32,
    span: Span,
    /// Of the span.
    crc: u32,
    /// Payload that was sent.
    sent: usize,
    /// Keeps the block in place until its record is sent.
    _pin: Option<ReadPin>,
}

impl Owners {
    fn insert(&mut self, node: NodeId, mut owner: Owner) -> io::Result<u64> {
        if self.nodes.contains_key(&node) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        self.next += 1;
        owner.run = self.next;
        self.nodes.insert(node, owner);
        Ok(self.next)
    }

    /// Removes an owner, if it is still in that run, and what it is sending.
    pub(super) fn remove(&mut self, node: NodeId, run: Option<u64>) {
        let held = self.nodes.get(&node).map(|owner| owner.run);
        if held.is_some() && (run.is_none() || run == held) {
            self.nodes.remove(&node);
            self.answers.retain(|_, answer| answer.way.0 != node);
        }
    }

    /// A caller is gone: others may have its seats.
    pub(super) fn forget(&mut self, caller: NodeId) {
        for owner in self.nodes.values_mut() {
            owner.callers.remove(&caller);
        }
    }

    /// Answers a hello.
    pub(super) fn greet(
        &mut self,
        timeline: &mut Timeline,
        now: Duration,
        (from, to, flow): Way,
        hello: &[u8; Hello::BYTES],
    ) {
        let Some(owner) = self.nodes.get_mut(&to) else { return };
        let seat = owner.callers.remove(&from).or_else(|| owner.seats.take());
        let Some(seat) = seat else { return };
        let welcome = match judge(hello, &seat, &owner.context, owner.guards) {
            Ok(welcome) => {
                owner.callers.insert(from, seat);
                welcome
            }
            Err(refused) => Welcome::Declined(refused),
        };
        let body = Body::Welcome(welcome.to_bytes());
        timeline.send(now, to, from, Packet { flow, body });
    }

    /// Takes a request.
    pub(super) fn take(
        &mut self,
        timeline: &mut Timeline,
        now: Duration,
        (from, to, flow): Way,
        fetch: &[u8; Fetch::BYTES],
    ) {
        let Some(owner) = self.nodes.get(&to) else { return };
        let worker = owner.context.identity.worker;
        let fetch = Fetch::from_bytes(fetch, worker).ok();
        // A request that cannot be read ends the connection, as it does over tcp.
        let Some(Fetch { number, block, span, .. }) =
            fetch.filter(|_| owner.callers.contains_key(&from))
        else {
            return timeline.send(now, to, from, Packet { flow, body: Body::Reset });
        };
        let guards = owner.guards;
        let pin = resolve(&block, &owner.context, guards).and_then(|pin| {
            let fits = !guards.on(Guard::Span) || span.fits(pin.len_bytes());
            fits.then_some(pin).ok_or(Refused::Span)
        });
        let pin = match pin {
            Ok(pin) => pin,
            Err(refused) => {
                owner.context.counters.failed(TransportKind::Sim, Op::Serve, 1);
                let head = BlockHead { number, result: Err(refused) }.to_bytes();
                let body = Body::Done(head, [0; RECORD_BYTES]);
                return timeline.send(now, to, from, Packet { flow, body });
            }
        };
        let slot = pin.slot().0;
        let crc = if span.is_whole(&block) {
            pin.crc()
        } else {
            crc32c::crc32c(&owner.context.arena.read(slot)[span.range()])
        };
        let stalled = timeline.random.hits(timeline.faults.stall_ppm);
        let start = if stalled { now + timeline.faults.stall } else { now };
        self.next += 1;
        let pin = guards.on(Guard::Pin).then_some(pin);
        let answer = Answer { way: (to, from, flow), number, slot, span, crc, sent: 0, _pin: pin };
        self.answers.insert(self.next, answer);
        timeline.at(start, Event::Send { owner: to, answer: self.next });
    }

    /// Sends the next packet of an answer, as the arena reads now; or its end.
    pub(super) fn send(&mut self, timeline: &mut Timeline, now: Duration, id: u64) {
        let Some(answer) = self.answers.get_mut(&id) else { return };
        let (node, to, flow) = answer.way;
        let Some(owner) = self.nodes.get(&node) else { return };
        let ServeContext { arena, counters, .. } = &owner.context;
        let Span { len, .. } = answer.span;
        let range = answer.span.range();
        let end = (range.start + answer.sent + PACKET).min(range.end);
        let next = range.start + answer.sent..end;
        if next.is_empty() {
            let record = arena.record(answer.slot);
            let extent = Extent { len, crc: answer.crc };
            let head = BlockHead { number: answer.number, result: Ok(extent) }.to_bytes();
            timeline.send(now, node, to, Packet { flow, body: Body::Done(head, record) });
            counters.moved(TransportKind::Sim, Op::Serve, u64::from(len), u64::from(len));
            self.answers.remove(&id);
            return;
        }
        let bytes: Arc<[u8]> = arena.read(answer.slot)[next.clone()].into();
        answer.sent += next.len();
        timeline.send(now, node, to, Packet { flow, body: Body::Data(next.start as u32, bytes) });
        let free = timeline.net.free_at(now, node, to);
        timeline.at(free, Event::Send { owner: node, answer: id });
    }
}
