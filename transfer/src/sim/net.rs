//! A network in virtual time: who gets what, when, and how damaged, from a seed.
//!
//! Nothing here waits or reads a clock. [`Sim::send`] takes a message at a moment and says when it
//! is delivered, if at all; the simulator keeps the deliveries in its queue of events and asks
//! [`Sim::arrives`] when their time has come.
//!
//! ```
//! use baton_transfer::sim::{Link, Sim};
//! use std::time::Duration;
//!
//! let mut sim = Sim::new(7, Link { delay: Duration::from_millis(1), ..Link::default() });
//! let sent = sim.send(Duration::ZERO, 1, 2, 64, "hello");
//! assert_eq!((sent[0].at, sent[0].message), (Duration::from_millis(1), "hello"));
//! sim.kill(2);
//! assert!(!sim.arrives(&sent[0]));
//! ```

use super::chance::SplitMix;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A node of the network, as the simulator numbers them.
pub type NodeId = u32;

/// What a one-way link does to messages. Probabilities are in parts per million.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Link {
    /// Time on the way.
    pub delay: Duration,
    /// Up to this much more, drawn for each message.
    pub jitter: Duration,
    /// Bytes per second; messages queue for it. `None`: without limit.
    pub bandwidth: Option<u64>,
    /// A message is lost.
    pub loss_ppm: u32,
    /// A message comes twice.
    pub duplicate_ppm: u32,
    /// One bit of a message is flipped.
    pub corrupt_ppm: u32,
    /// Later messages may overtake earlier ones; otherwise jitter holds up those behind.
    pub reorder: bool,
}

/// A message that is on its way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delivery<M> {
    /// When it arrives.
    pub at: Duration,
    /// Who sent it.
    pub from: NodeId,
    /// Who gets it.
    pub to: NodeId,
    /// What was sent.
    pub message: M,
    /// The number of a bit, below eight times the message's bytes, that the receiver finds
    /// flipped.
    pub flipped: Option<u64>,
    /// The receiver's run when it was sent.
    run: u64,
}

/// The network.
#[derive(Clone, Debug)]
pub struct Sim {
    random: SplitMix,
    link: Link,
    links: BTreeMap<(NodeId, NodeId), Link>,
    wires: BTreeMap<(NodeId, NodeId), Wire>,
    cut: BTreeSet<(NodeId, NodeId)>,
    dead: BTreeSet<NodeId>,
    runs: BTreeMap<NodeId, u64>,
}

/// What a link is doing.
#[derive(Clone, Copy, Default, Debug)]
struct Wire {
    busy_until: Duration,
    last_delivery: Duration,
}

impl Sim {
    /// A network in which every pair of nodes has a link like this. Equal seeds and equal calls
    /// give equal answers.
    pub fn new(seed: u64, link: Link) -> Self {
        Self {
            random: SplitMix(seed),
            link,
            links: BTreeMap::new(),
            wires: BTreeMap::new(),
            cut: BTreeSet::new(),
            dead: BTreeSet::new(),
            runs: BTreeMap::new(),
        }
    }

    /// Replaces the link from one node to another.
    pub fn set_link(&mut self, from: NodeId, to: NodeId, link: Link) {
        self.links.insert((from, to), link);
    }

    /// Cuts or mends both directions between two nodes. What is on its way still arrives.
    pub fn set_cut(&mut self, one: NodeId, other: NodeId, cut: bool) {
        for pair in [(one, other), (other, one)] {
            if cut {
                self.cut.insert(pair);
            } else {
                self.cut.remove(&pair);
            }
        }
    }

    /// Ends a node's run: it sends nothing more, and what is on its way to it never arrives. What
    /// it sent before still does, as late as it likes.
    pub fn kill(&mut self, node: NodeId) {
        if self.dead.insert(node) {
            *self.runs.entry(node).or_default() += 1;
        }
    }

    /// Begins a node's next run.
    pub fn revive(&mut self, node: NodeId) {
        self.dead.remove(&node);
    }

    /// Whether a node is alive.
    pub fn alive(&self, node: NodeId) -> bool {
        !self.dead.contains(&node)
    }

    /// Sends a message of so many bytes: none, one or two deliveries.
    pub fn send<M: Clone>(
        &mut self,
        now: Duration,
        from: NodeId,
        to: NodeId,
        bytes: u64,
        message: M,
    ) -> Vec<Delivery<M>> {
        let link = self.links.get(&(from, to)).copied().unwrap_or(self.link);
        // Always the same number of draws, so that a change of one probability changes as little
        // as possible of what else happens.
        let lost = self.random.hits(link.loss_ppm);
        let copies = 1 + usize::from(self.random.hits(link.duplicate_ppm));
        let draws = [self.draw(&link, bytes), self.draw(&link, bytes)];
        if lost || !self.alive(from) || !self.alive(to) || self.cut.contains(&(from, to)) {
            return Vec::new();
        }
        let run = self.run(to);
        let wire = self.wires.entry((from, to)).or_default();
        let deliver = |(jitter, flipped)| {
            let start = now.max(wire.busy_until);
            wire.busy_until = start + on_wire(bytes, link.bandwidth);
            let mut at: Duration = wire.busy_until + link.delay + jitter;
            if !link.reorder {
                at = at.max(wire.last_delivery);
                wire.last_delivery = at;
            }
            Delivery { at, from, to, message: message.clone(), flipped, run }
        };
        draws.into_iter().take(copies).map(deliver).collect()
    }

    /// Whether a delivery whose time has come reaches its receiver, who has to be in the same run
    /// as when it was sent.
    pub fn arrives<M>(&self, delivery: &Delivery<M>) -> bool {
        self.alive(delivery.to) && delivery.run == self.run(delivery.to)
    }

    /// When the wire from one node to another is free for the next message, `now` at the earliest.
    pub fn free_at(&self, now: Duration, from: NodeId, to: NodeId) -> Duration {
        self.wires.get(&(from, to)).map_or(now, |wire| wire.busy_until.max(now))
    }

    fn run(&self, node: NodeId) -> u64 {
        self.runs.get(&node).copied().unwrap_or(0)
    }

    /// Jitter and damage of one copy.
    fn draw(&mut self, link: &Link, bytes: u64) -> (Duration, Option<u64>) {
        let jitter = self.random.below(link.jitter.as_nanos() as u64 + 1);
        let corrupt = self.random.hits(link.corrupt_ppm) && bytes > 0;
        let bit = self.random.below((bytes * 8).max(1));
        (Duration::from_nanos(jitter), corrupt.then_some(bit))
    }
}

fn on_wire(bytes: u64, bandwidth: Option<u64>) -> Duration {
    let Some(bandwidth) = bandwidth else { return Duration::ZERO };
    let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(bandwidth.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
#[path = "../tests/net.rs"]
mod tests;
