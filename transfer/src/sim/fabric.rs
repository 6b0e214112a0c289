//! Events in order of their time, and the task that waits for the next.

use super::chance::SplitMix;
use super::net::{Delivery, Link, NodeId, Sim};
use super::nic::Nic;
use super::owner::Owners;
use crate::caller::lock;
use crate::wire::{BlockHead, Fetch, Hello, Welcome};
use baton_kv::record::RECORD_BYTES;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Payload bytes of one packet.
pub(super) const PACKET: usize = 4096;

/// What goes wrong beside what the links do.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Faults {
    /// An owner does nothing for a while before it answers a request, in parts per million.
    pub stall_ppm: u32,
    /// For how long.
    pub stall: Duration,
    /// A card takes a packet for written without writing it, in parts per million: a short read
    /// that is reported as a whole one.
    pub short_ppm: u32,
    /// How long a card goes on writing, at most, after a request was aborted.
    pub late: Duration,
}

/// Cards and owners on one network. Clones are handles on the same.
#[derive(Clone)]
pub struct Fabric(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Notify,
    started: Instant,
}

/// Everything that is on the network.
pub(super) struct State {
    pub(super) timeline: Timeline,
    pub(super) nic: Nic,
    pub(super) owners: Owners,
    /// What waits for nodes that do nothing.
    frozen: BTreeMap<NodeId, Vec<Event>>,
}

/// What happens when, and to whom.
pub(super) struct Timeline {
    pub(super) net: Sim,
    pub(super) random: SplitMix,
    pub(super) faults: Faults,
    /// Bounded by what is posted: for each request one look, and for each of its attempts an answer,
    /// which is at most as many packets as the block has, twice.
    events: BTreeMap<(Duration, u64), Event>,
    sequence: u64,
    fingerprint: u64,
}

/// Something that happens.
pub(super) enum Event {
    /// A packet comes.
    Arrive(Delivery<Packet>),
    /// An owner sends the next packet of an answer.
    Send { owner: NodeId, answer: u64 },
    /// A card looks whether a request makes progress.
    Look(u64),
    /// A card has done with an aborted request.
    Quiet(u64),
}

/// What travels.
#[derive(Clone)]
pub(super) struct Packet {
    /// The dial or request to which it belongs.
    pub(super) flow: u64,
    pub(super) body: Body,
}

#[derive(Clone)]
pub(super) enum Body {
    Hello([u8; Hello::BYTES]),
    Welcome([u8; Welcome::BYTES]),
    Fetch([u8; Fetch::BYTES]),
    /// A stretch of the payload, and where in the block it lies.
    Data(u32, Arc<[u8]>),
    /// The end of an answer: its head, and the record as it was after the payload.
    Done([u8; BlockHead::BYTES], [u8; RECORD_BYTES]),
    /// The owner does not know the caller (any more).
    Reset,
}

impl Body {
    fn bytes(&self) -> u64 {
        let bytes = match self {
            Self::Hello(_) => Hello::BYTES,
            Self::Welcome(_) => Welcome::BYTES,
            Self::Fetch(_) => Fetch::BYTES,
            Self::Data(_, bytes) => bytes.len(),
            Self::Done(..) => BlockHead::BYTES + RECORD_BYTES,
            Self::Reset => 0,
        };
        bytes as u64
    }
}

impl Fabric {
    /// A network whose links are all like `link`. Its own task belongs to `tasks` and ends with
    /// `shutdown`; every request then fails. Has to be called inside a tokio runtime.
    pub fn new(
        seed: u64,
        link: Link,
        faults: Faults,
        tasks: &TaskTracker,
        shutdown: CancellationToken,
    ) -> Self {
        let timeline = Timeline {
            net: Sim::new(seed, link),
            random: SplitMix(!seed),
            faults,
            events: BTreeMap::new(),
            sequence: 0,
            fingerprint: 0,
        };
        let (nic, owners) = (Nic::default(), Owners::default());
        let state = Mutex::new(State { timeline, nic, owners, frozen: BTreeMap::new() });
        let shared = Arc::new(Shared { state, changed: Notify::new(), started: Instant::now() });
        tasks.spawn(run(Arc::clone(&shared), shutdown));
        Self(shared)
    }

    /// Replaces the link from one node to another.
    pub fn set_link(&self, from: NodeId, to: NodeId, link: Link) {
        self.with(|state, _| state.timeline.net.set_link(from, to, link));
    }

    /// Cuts or mends both directions between two nodes.
    pub fn set_cut(&self, one: NodeId, other: NodeId, cut: bool) {
        self.with(|state, _| state.timeline.net.set_cut(one, other, cut));
    }

    /// Ends a node's run in the middle of whatever it does.
    pub fn kill(&self, node: NodeId) {
        self.with(|state, _| {
            state.timeline.net.kill(node);
            state.owners.remove(node, None);
            state.frozen.remove(&node);
        });
    }

    /// Stops a node, as SIGSTOP does: what comes for it waits.
    pub fn freeze(&self, node: NodeId) {
        self.with(|state, _| {
            state.frozen.entry(node).or_default();
        });
    }

    /// Lets a frozen node go on.
    pub fn thaw(&self, node: NodeId) {
        self.with(|state, now| {
            for event in state.frozen.remove(&node).unwrap_or_default() {
                state.timeline.at(now, event);
            }
        });
    }

    /// A number that follows from everything that happened so far, in its order.
    pub fn fingerprint(&self) -> u64 {
        self.with(|state, _| state.timeline.fingerprint)
    }

    /// Does something now, and lets the network's task see what follows from it.
    pub(super) fn with<R>(&self, act: impl FnOnce(&mut State, Duration) -> R) -> R {
        let acted = act(&mut lock(&self.0.state), self.0.started.elapsed());
        self.0.changed.notify_one();
        acted
    }
}

impl fmt::Debug for Fabric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fabric")
    }
}

async fn run(shared: Arc<Shared>, shutdown: CancellationToken) {
    loop {
        let next = lock(&shared.state).run_until(shared.started.elapsed());
        let due = async {
            match next {
                Some(at) => tokio::time::sleep_until(shared.started + at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            () = shared.changed.notified() => {}
            () = due => {}
        }
    }
    lock(&shared.state).nic.close();
}

impl State {
    /// Handles what is due, each event at its own moment; says when the next is.
    fn run_until(&mut self, now: Duration) -> Option<Duration> {
        while let Some(first) = self.timeline.events.first_entry() {
            let at = first.key().0;
            if at > now {
                return Some(at);
            }
            let event = first.remove();
            self.handle(at, event);
        }
        None
    }

    fn handle(&mut self, now: Duration, event: Event) {
        let place = match &event {
            Event::Arrive(delivery) if !self.timeline.net.arrives(delivery) => return,
            Event::Arrive(delivery) => Some(delivery.to),
            Event::Send { owner, .. } => Some(*owner),
            Event::Look(_) | Event::Quiet(_) => None,
        };
        if let Some(waiting) = place.and_then(|node| self.frozen.get_mut(&node)) {
            waiting.push(event);
            return;
        }
        let Self { timeline, nic, owners, .. } = self;
        timeline.note(now, &event);
        match event {
            Event::Arrive(Delivery {
                from, to, message: Packet { flow, body }, flipped, ..
            }) => match body {
                Body::Hello(mut hello) => {
                    flip(&mut hello, flipped);
                    owners.greet(timeline, now, (from, to, flow), &hello);
                }
                Body::Fetch(mut fetch) => {
                    flip(&mut fetch, flipped);
                    owners.take(timeline, now, (from, to, flow), &fetch);
                }
                Body::Welcome(mut welcome) => {
                    flip(&mut welcome, flipped);
                    nic.welcome(flow, welcome);
                }
                Body::Data(offset, bytes) => {
                    nic.write(timeline, flow, offset, &bytes, flipped);
                }
                Body::Done(mut head, mut record) => {
                    let head_bits = head.len() as u64 * 8;
                    flip(&mut head, flipped.filter(|&bit| bit < head_bits));
                    flip(&mut record, flipped.and_then(|bit| bit.checked_sub(head_bits)));
                    nic.answered(flow, &head, record);
                }
                Body::Reset => nic.reset(flow),
            },
            Event::Send { answer, .. } => owners.send(timeline, now, answer),
            Event::Look(request) => nic.look(timeline, now, request),
            Event::Quiet(request) => nic.quiet(request),
        }
    }
}

impl Timeline {
    /// Lets something happen.
    pub(super) fn at(&mut self, at: Duration, event: Event) {
        self.sequence += 1;
        self.events.insert((at, self.sequence), event);
    }

    /// Puts a packet on the wire.
    pub(super) fn send(&mut self, now: Duration, from: NodeId, to: NodeId, packet: Packet) {
        let bytes = packet.body.bytes();
        for delivery in self.net.send(now, from, to, bytes, packet) {
            self.at(delivery.at, Event::Arrive(delivery));
        }
    }

    fn note(&mut self, now: Duration, event: &Event) {
        let what = match event {
            Event::Arrive(delivery) => {
                let Packet { flow, body } = &delivery.message;
                let ends = u64::from(delivery.from) << 32 | u64::from(delivery.to);
                ends ^ flow.rotate_left(17) ^ body.bytes() ^ delivery.flipped.unwrap_or(u64::MAX)
            }
            Event::Send { answer, .. } => answer ^ 1 << 60,
            Event::Look(request) => request ^ 1 << 61,
            Event::Quiet(request) => request ^ 1 << 62,
        };
        self.fingerprint = SplitMix(self.fingerprint ^ what ^ now.as_nanos() as u64).next();
    }
}

/// Flips a bit, if there is such a one.
pub(super) fn flip(bytes: &mut [u8], bit: Option<u64>) {
    let Some(bit) = bit else { return };
    if let Some(byte) = bytes.get_mut((bit / 8) as usize) {
        *byte ^= 1 << (bit % 8);
    }
}
