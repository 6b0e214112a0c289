//! The pulling side's card: requests that were posted to it, and what it writes for them.

use super::fabric::{Body, Event, PACKET, Packet, Timeline, flip};
use super::net::NodeId;
use crate::wire::{BlockHead, Extent, Fetch, Welcome};
use crate::{Span, TransferError};
use baton_arena::{RECORD_BYTES, WriteGuard};
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// What was posted and has not completed.
#[derive(Default)]
pub(super) struct Nic {
    requests: BTreeMap<u64, Request>,
    dials: BTreeMap<u64, oneshot::Sender<[u8; Welcome::BYTES]>>,
    next: u64,
    closed: bool,
}

/// A request as it is posted.
pub(super) struct Post {
    /// The puller's node, and the owner's.
    pub(super) ends: (NodeId, NodeId),
    /// What the owner is asked.
    pub(super) fetch: Fetch,
    /// Where the bytes go: nobody else touches the slot until the completion.
    pub(super) guard: WriteGuard,
    /// Repeated after so long without progress, so often.
    pub(super) patience: (Duration, u32),
    /// Where the completion goes; has room for it.
    pub(super) done: mpsc::Sender<Completion>,
}

struct Request {
    post: Post,
    /// Which packets are there.
    packets: Vec<bool>,
    missing: usize,
    answer: Option<(Extent, [u8; RECORD_BYTES])>,
    progress: bool,
    attempts: u32,
}

/// The card does not touch the destination any more.
pub(super) struct Completion {
    pub(super) piece: usize,
    pub(super) guard: WriteGuard,
    /// What the owner said of the bytes, and its slot's record.
    pub(super) result: Result<(Extent, [u8; RECORD_BYTES]), TransferError>,
}

impl Nic {
    /// Says hello to a node; the answer may never come.
    pub(super) fn dial(
        &mut self,
        timeline: &mut Timeline,
        now: Duration,
        (from, to): (NodeId, NodeId),
        hello: Body,
    ) -> oneshot::Receiver<[u8; Welcome::BYTES]> {
        let (sender, receiver) = oneshot::channel();
        // Those that nobody waits for any more.
        self.dials.retain(|_, waiting| !waiting.is_closed());
        if !self.closed {
            self.next += 1;
            self.dials.insert(self.next, sender);
            timeline.send(now, from, to, Packet { flow: self.next, body: hello });
        }
        receiver
    }

    /// Takes a request on; says under which number.
    pub(super) fn post(&mut self, timeline: &mut Timeline, now: Duration, post: Post) -> u64 {
        self.next += 1;
        let packets = vec![false; (post.fetch.span.len as usize).div_ceil(PACKET)];
        let missing = packets.len();
        let request =
            Request { post, packets, missing, answer: None, progress: false, attempts: 0 };
        request.ask(timeline, now, self.next);
        self.requests.insert(self.next, request);
        if self.closed {
            self.close();
        }
        self.next
    }

    /// Asks to give requests up. They complete when the card has done with them, not before.
    pub(super) fn abort(&mut self, timeline: &mut Timeline, now: Duration, requests: &[u64]) {
        let late = timeline.faults.late.as_nanos() as u64;
        for request in requests.iter().filter(|request| self.requests.contains_key(request)) {
            let after = Duration::from_nanos(timeline.random.below(late + 1));
            timeline.at(now + after, Event::Quiet(*request));
        }
    }

    pub(super) fn welcome(&mut self, flow: u64, welcome: [u8; Welcome::BYTES]) {
        if let Some(waiting) = self.dials.remove(&flow) {
            let _ = waiting.send(welcome);
        }
    }

    /// Writes what came, aborted or not, if it lies within what was asked for.
    pub(super) fn write(
        &mut self,
        timeline: &mut Timeline,
        flow: u64,
        offset: u32,
        bytes: &[u8],
        flipped: Option<u64>,
    ) {
        let Some(request) = self.requests.get_mut(&flow) else { return };
        let Span { offset: start, len } = request.post.fetch.span;
        let Some(place) = offset.checked_sub(start).map(|place| place as usize) else { return };
        let end = place + bytes.len();
        if end > len as usize || place % PACKET != 0 {
            return;
        }
        if !timeline.random.hits(timeline.faults.short_ppm) {
            let into = &mut request.post.guard[start as usize..][place..end];
            into.copy_from_slice(bytes);
            flip(into, flipped);
        }
        request.progress = true;
        if !std::mem::replace(&mut request.packets[place / PACKET], true) {
            request.missing -= 1;
        }
        self.finish_if_whole(flow);
    }

    /// The owner has said all.
    pub(super) fn answered(
        &mut self,
        flow: u64,
        head: &[u8; BlockHead::BYTES],
        record: [u8; RECORD_BYTES],
    ) {
        let Some(request) = self.requests.get_mut(&flow) else { return };
        let asked = request.post.fetch;
        let head = match BlockHead::from_bytes(head) {
            Ok(head) => head,
            Err(garbled) => {
                return self.complete(flow, Err(TransferError::Protocol { what: garbled.0 }));
            }
        };
        let wrong = |what| Err(TransferError::Protocol { what });
        match head.result {
            _ if head.number != asked.number => {
                self.complete(flow, wrong("an answer to another request"));
            }
            Err(refused) => self.complete(flow, Err(refused.into())),
            Ok(extent) if extent.len != asked.span.len => {
                self.complete(flow, wrong("an answer of another length"));
            }
            Ok(extent) => {
                request.progress = true;
                request.answer = Some((extent, record));
                self.finish_if_whole(flow);
            }
        }
    }

    pub(super) fn reset(&mut self, flow: u64) {
        self.complete(flow, Err(lost(io::ErrorKind::ConnectionReset)));
    }

    /// An aborted request is over.
    pub(super) fn quiet(&mut self, flow: u64) {
        self.complete(flow, Err(TransferError::Cancelled));
    }

    /// Asks again if nothing came since the last look, a few times.
    pub(super) fn look(&mut self, timeline: &mut Timeline, now: Duration, flow: u64) {
        let Some(request) = self.requests.get_mut(&flow) else { return };
        if std::mem::take(&mut request.progress) {
            timeline.at(now + request.post.patience.0, Event::Look(flow));
        } else if request.attempts < request.post.patience.1 {
            request.attempts += 1;
            request.ask(timeline, now, flow);
        } else {
            self.complete(flow, Err(lost(io::ErrorKind::TimedOut)));
        }
    }

    /// Ends everything: there is no network any more.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.dials.clear();
        while let Some((&flow, _)) = self.requests.first_key_value() {
            self.complete(flow, Err(lost(io::ErrorKind::NetworkDown)));
        }
    }

    fn finish_if_whole(&mut self, flow: u64) {
        let Some(request) = self.requests.get(&flow) else { return };
        if let (Some(answer), 0) = (request.answer, request.missing) {
            self.complete(flow, Ok(answer));
        }
    }

    fn complete(&mut self, flow: u64, result: Result<(Extent, [u8; RECORD_BYTES]), TransferError>) {
        let Some(Request { post, .. }) = self.requests.remove(&flow) else { return };
        let completion =
            Completion { piece: post.fetch.number as usize, guard: post.guard, result };
        // If the puller's runtime is gone, so are its leases, to quarantine.
        let _ = post.done.try_send(completion);
    }
}

impl Request {
    fn ask(&self, timeline: &mut Timeline, now: Duration, flow: u64) {
        let (from, to) = self.post.ends;
        let body = Body::Fetch(self.post.fetch.to_bytes());
        timeline.send(now, from, to, Packet { flow, body });
        timeline.at(now + self.post.patience.0, Event::Look(flow));
    }
}

fn lost(kind: io::ErrorKind) -> TransferError {
    TransferError::Lost { kind }
}
