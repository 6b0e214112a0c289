//! Messages between nodes: datagrams, and streams that deliver everything in order or break.

use super::chance::Chance;
use baton_decode::event::Update;
use baton_decode::turn::TurnRequest;
use baton_kv::events::Batch;
use baton_prefill::job::JobReport;
use baton_proto::block::BlockDescriptor;
use baton_proto::ids::{EventSeq, Incarnation, RequestId, TokenId};
use baton_transfer::Refused;
use baton_transfer::sim::{Delivery, Link, NodeId, Sim};
use baton_worker::plan::LoadReport;
use baton_worker::queue::Precedence;
use baton_worker::sequence::ChainKey;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a broken stream goes unnoticed at an end, at most.
const UNNOTICED_MAX: Duration = Duration::from_millis(150);

/// A stream between two nodes, numbered over the whole run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct StreamId(pub(super) u64);

/// A pull: its batch and its place there.
pub(super) type PullId = (u64, usize);

/// What travels.
#[derive(Clone, Debug)]
pub(super) enum Message {
    Stream(StreamId, Body),
    /// A router wants to know how a worker is; answers to earlier questions are stale.
    Poll(u64),
    Status(u64, Status),
    /// A router wants a worker's block events from there on.
    Watch(EventSeq),
    Events(Incarnation, Batch),
    PullAsk(PullId, BlockDescriptor),
    PullReply(PullId, Result<Box<Served>, Refused>),
}

/// How a worker is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Status {
    pub(super) incarnation: Incarnation,
    pub(super) next: EventSeq,
    pub(super) load: LoadReport,
    pub(super) available: u32,
}

/// A block as its owner sent it.
#[derive(Clone, Debug)]
pub(super) struct Served {
    pub(super) payload: Vec<u8>,
    pub(super) record: [u8; 64],
}

/// What travels in a stream.
#[derive(Clone, Debug)]
pub(super) enum Body {
    Submit(Box<TurnRequest>),
    Cancel(RequestId, Option<u16>),
    Frame(Vec<Update>),
    Compute(Box<Compute>),
    Announce(Vec<BlockDescriptor>),
    Done(JobReport),
    /// The other end has ended the stream.
    End,
}

/// A call of a prefill worker.
#[derive(Clone, Debug)]
pub(super) struct Compute {
    pub(super) tokens: Vec<TokenId>,
    pub(super) chain_key: ChainKey,
    pub(super) from_block: usize,
    pub(super) held: Vec<BlockDescriptor>,
    pub(super) precedence: Precedence,
    pub(super) deadline: Duration,
}

/// Something that will happen to a stream's end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Breaks {
    pub(super) at: Duration,
    pub(super) stream: StreamId,
    pub(super) end: NodeId,
}

/// What a send leads to.
#[derive(Debug, Default)]
pub(super) struct Sent {
    pub(super) deliveries: Vec<Delivery<Message>>,
    pub(super) breaks: Vec<Breaks>,
}

#[derive(Debug)]
struct Stream {
    ends: [(NodeId, bool); 2],
    /// Nothing gets through any more.
    cut: bool,
}

/// The network: one for calls, one for blocks.
#[derive(Debug)]
pub(super) struct Net {
    control: Sim,
    data: Sim,
    streams: BTreeMap<StreamId, Stream>,
    next: u64,
    chance: Chance,
    pub(super) broken: u64,
}

impl Net {
    pub(super) fn new(control: Link, data: Link, chance: &mut Chance) -> Self {
        Self {
            control: Sim::new(chance.next(), control),
            data: Sim::new(chance.next(), data),
            streams: BTreeMap::new(),
            next: 0,
            chance: Chance::new(chance.next()),
            broken: 0,
        }
    }

    /// Opens a stream. That nobody is there shows when something is sent.
    pub(super) fn open(&mut self, from: NodeId, to: NodeId) -> StreamId {
        self.next += 1;
        let id = StreamId(self.next);
        self.streams.insert(id, Stream { ends: [(from, true), (to, true)], cut: false });
        id
    }

    /// The other end of a stream, if this one is open.
    pub(super) fn other(&self, id: StreamId, end: NodeId) -> Option<NodeId> {
        let [a, b] = self.streams.get(&id)?.ends;
        let (own, other) = if a.0 == end { (a, b) } else { (b, a) };
        own.1.then_some(other.0)
    }

    /// Sends in a stream. What is lost breaks it: both ends notice sooner or later.
    pub(super) fn send(&mut self, now: Duration, id: StreamId, from: NodeId, body: Body) -> Sent {
        let Some(to) = self.other(id, from) else { return Sent::default() };
        if self.streams[&id].cut {
            return Sent::default();
        }
        let bytes = 64;
        let mut deliveries = self.control.send(now, from, to, bytes, Message::Stream(id, body));
        deliveries.truncate(1);
        let breaks = if deliveries.is_empty() { self.cut(now, id) } else { Vec::new() };
        Sent { deliveries, breaks }
    }

    /// Sends outside of streams: it may get lost, come twice or late.
    pub(super) fn datagram(
        &mut self,
        now: Duration,
        from: NodeId,
        to: NodeId,
        message: Message,
    ) -> Vec<Delivery<Message>> {
        self.control.send(now, from, to, 64, message)
    }

    /// Sends to or from another node's blocks.
    pub(super) fn data(
        &mut self,
        now: Duration,
        from: NodeId,
        to: NodeId,
        bytes: u64,
        message: Message,
    ) -> Vec<Delivery<Message>> {
        self.data.send(now, from, to, bytes, message)
    }

    /// Ends a stream at one end; the other end is told.
    pub(super) fn end(&mut self, now: Duration, id: StreamId, end: NodeId) -> Sent {
        let sent = self.send(now, id, end, Body::End);
        self.shut(id, end);
        sent
    }

    /// Notes that an end is closed; `false` where it was.
    pub(super) fn shut(&mut self, id: StreamId, end: NodeId) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else { return false };
        let mut open = false;
        for (node, up) in &mut stream.ends {
            if *node == end {
                open = std::mem::replace(up, false);
            }
        }
        if stream.ends.iter().all(|(_, up)| !up) {
            self.streams.remove(&id);
        }
        open
    }

    /// Whether a message reaches its receiver now.
    pub(super) fn arrives(&self, delivery: &Delivery<Message>) -> bool {
        match &delivery.message {
            Message::PullAsk(..) | Message::PullReply(..) => self.data.arrives(delivery),
            Message::Stream(id, _) => {
                self.control.arrives(delivery) && self.other(*id, delivery.to).is_some()
            }
            _ => self.control.arrives(delivery),
        }
    }

    /// A node's process ends; whoever has a stream to it notices.
    pub(super) fn kill(&mut self, now: Duration, node: NodeId) -> Vec<Breaks> {
        self.control.kill(node);
        self.data.kill(node);
        let touched = |stream: &Stream| stream.ends.iter().any(|(end, up)| *end == node && *up);
        let ids: Vec<StreamId> =
            self.streams.iter().filter(|(_, s)| touched(s)).map(|(id, _)| *id).collect();
        let breaks = ids.iter().flat_map(|id| self.cut(now, *id)).collect();
        for id in ids {
            self.shut(id, node);
        }
        breaks
    }

    pub(super) fn revive(&mut self, node: NodeId) {
        self.control.revive(node);
        self.data.revive(node);
    }

    pub(super) fn set_cut(&mut self, one: NodeId, other: NodeId, cut: bool) {
        self.control.set_cut(one, other, cut);
        self.data.set_cut(one, other, cut);
    }

    /// From now on nothing gets lost.
    pub(super) fn heal(&mut self, nodes: NodeId, control: Link) {
        let link = Link { loss_ppm: 0, ..control };
        for (from, to) in (0..nodes).flat_map(|from| (0..nodes).map(move |to| (from, to))) {
            self.control.set_link(from, to, link);
            self.set_cut(from, to, false);
        }
    }

    fn cut(&mut self, now: Duration, id: StreamId) -> Vec<Breaks> {
        let Some(stream) = self.streams.get_mut(&id) else { return Vec::new() };
        if std::mem::replace(&mut stream.cut, true) {
            return Vec::new();
        }
        self.broken += 1;
        let ends = stream.ends;
        let open = ends.into_iter().filter(|(_, up)| *up);
        open.map(|(end, _)| Breaks { at: now + self.chance.span(UNNOTICED_MAX), stream: id, end })
            .collect()
    }
}
