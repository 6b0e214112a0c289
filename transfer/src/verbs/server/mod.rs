//! The owner's side: pairs, opens windows on pinned blocks, and closes them before the pins go.
//!
//! Whatever a call sets in motion runs in a task of its own: a caller that leaves in the middle
//! must not take a pin away from under an open window.

mod grants;
mod push;
mod served;

use super::adapter::{Adapter, Paired};
use super::links::BLOCKS;
use super::plan::Extent;
use super::rdma::{DeviceError, RemoteEnd, Rights};
use super::signal::{end_to_wire, port_to_wire, remote_end, status};
use crate::caller::lock;
use crate::guards::{Guard, Guards};
use crate::serve::resolve;
use crate::{Identity, LinkFault, Op, Refused, ServeContext, ServeLimits, Span, TransportKind};
use baton_kv::lease::ReadPin;
use baton_kv::pool;
use baton_proto::block::BlockDescriptor;
use baton_proto::ids::{Incarnation, LeaseId, WorkerId};
use baton_proto::internal::{
    CloseReply, CloseRequest, Descriptor, OpenReply, OpenRequest, PairReply, PairRequest, Part,
    PushReply, PushRequest,
};
use served::Served;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Serves an arena's blocks to peers that are paired with it. The methods are what a service
/// `baton.internal.v1.Fabric` answers with, once it knows that the caller belongs to the cluster.
#[derive(Clone)]
pub struct Server {
    host: Arc<Host>,
}

struct Host {
    context: ServeContext,
    adapter: Adapter,
    limits: ServeLimits,
    guards: Guards,
    connections: Mutex<HashMap<u64, Arc<Served>>>,
    seats: Arc<Semaphore>,
}

/// A place for a connection, until nothing of it is left.
type Seat = OwnedSemaphorePermit;

/// The connections of one caller.
fn of_worker(connections: &HashMap<u64, Arc<Served>>, worker: WorkerId) -> Vec<Arc<Served>> {
    connections.values().filter(|served| served.caller.worker == worker).cloned().collect()
}

impl Server {
    /// A server of the context's arena, which has to be the adapter's. It serves until the
    /// context's `shutdown`.
    pub fn new(context: ServeContext, adapter: Adapter, limits: ServeLimits) -> Self {
        Self::guarded(context, adapter, limits, Guards::default())
    }

    pub(crate) fn guarded(
        context: ServeContext,
        adapter: Adapter,
        limits: ServeLimits,
        guards: Guards,
    ) -> Self {
        let seats = Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS)));
        let connections = Mutex::default();
        let host = Host { context, adapter, limits, guards, connections, seats };
        Self { host: Arc::new(host) }
    }

    #[cfg(test)]
    pub(crate) fn adapter(&self) -> &Adapter {
        &self.host.adapter
    }

    /// Pairs queue pairs with the caller's.
    pub async fn pair(&self, request: PairRequest) -> PairReply {
        let refused = |refused: Refused| PairReply {
            status: u32::from(refused.code()),
            ..PairReply::default()
        };
        let pairing = Arc::clone(&self.host).pair(request);
        let reply = self.host.context.tasks.spawn(pairing).await;
        reply.unwrap_or(Err(Refused::Busy)).unwrap_or_else(refused)
    }

    /// Pins blocks and opens windows on them.
    pub async fn open(&self, request: OpenRequest) -> OpenReply {
        let refused = |refused: Refused| OpenReply {
            status: u32::from(refused.code()),
            ..OpenReply::default()
        };
        let opening = Arc::clone(&self.host).open(request);
        let reply = self.host.context.tasks.spawn(opening).await;
        reply.unwrap_or(Err(Refused::Busy)).unwrap_or_else(refused)
    }

    /// Writes blocks into windows of the caller.
    pub async fn push(&self, request: PushRequest) -> PushReply {
        let refused = |refused: Refused| PushReply {
            status: u32::from(refused.code()),
            ..PushReply::default()
        };
        let pushing = Arc::clone(&self.host).push(request);
        let reply = self.host.context.tasks.spawn(pushing).await;
        reply.unwrap_or(Err(Refused::Busy)).unwrap_or_else(refused)
    }

    /// The connections' drivers.
    #[cfg(test)]
    pub(crate) fn handles(&self) -> Vec<super::driver::Handle<super::lanes::Order>> {
        lock(&self.host.connections).values().map(|served| served.handle.clone()).collect()
    }

    /// Ends a grant, or a connection. When it returns, no key of it works any more.
    pub async fn close(&self, request: CloseRequest) -> CloseReply {
        let closing = Arc::clone(&self.host).close(request);
        // It fails only if the runtime ends, and everything with it.
        let _ = self.host.context.tasks.spawn(closing).await;
        CloseReply {}
    }
}

/// Blocks of a request, as far as they are still what the caller thinks.
struct Resolved {
    pins: Vec<ReadPin>,
    /// For each block asked for.
    results: Vec<Result<(), Refused>>,
    part_crcs: Vec<u32>,
    /// How long they may be used: until the first of their leases ends.
    time: Duration,
}

impl Resolved {
    /// What may be read, and no more: of each block, or of the part that was asked for.
    fn extents(&self, parts: &[Part]) -> Vec<Extent> {
        let by_piece: HashMap<usize, &Part> =
            parts.iter().map(|part| (part.block as usize, part)).collect();
        let granted = (0..).zip(&self.results).filter(|(_, result)| result.is_ok());
        let extent = |((piece, _), pin): ((usize, _), &ReadPin)| {
            let whole = (0, u64::from(pin.len_bytes()));
            let part = |part: &&Part| {
                let start = u64::from(part.offset);
                (start, start + u64::from(part.bytes))
            };
            let (start, end) = by_piece.get(&piece).map_or(whole, part);
            Extent { slot: pin.slot().0, start, end }
        };
        granted.zip(&self.pins).map(extent).collect()
    }
}

impl Host {
    async fn pair(self: Arc<Self>, request: PairRequest) -> Result<PairReply, Refused> {
        let caller = self.judge(&request)?;
        // However many it names.
        let most = self.adapter.options().queue_pairs.max(1);
        let ends: Option<Vec<_>> = request.port.as_ref().and_then(|port| {
            request.queue_pairs.iter().take(most).map(|&pair| remote_end(port, pair)).collect()
        });
        let ends = ends.filter(|ends| !ends.is_empty()).ok_or(Refused::Malformed)?;
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|_| Refused::Busy)?;
        let number = u64::from_le_bytes(random);
        // Nothing is made for whom there is no place.
        let seat = self.seat(caller.worker).await?;
        let prepared = self.prepare(caller, ends).await;
        let (mut reply, served, paired) = prepared.map_err(|error| {
            tracing::warn!(%error, "a connection could not be set up");
            Refused::Device
        })?;
        reply.connection = number;
        if self.context.shutdown.is_cancelled() {
            return Err(Refused::Busy);
        }
        // A caller has one connection; what it had before is of a run or a failure that is over.
        let before = {
            let mut connections = lock(&self.connections);
            let before = of_worker(&connections, caller.worker);
            connections.insert(number, Arc::clone(&served));
            before
        };
        for served in before {
            served.handle.fail(LinkFault::Peer);
        }
        let driving = {
            let adapter = self.adapter.clone();
            self.context.tasks.spawn(async move { adapter.drive(paired).await })
        };
        let ours = (Arc::clone(&self), Arc::clone(&served));
        self.context.tasks.spawn(served::steward(ours, driving, number, seat));
        let records = served.open_records(&self).await;
        reply.records = records.inspect_err(|_| served.handle.fail(LinkFault::Closed))?;
        Ok(reply)
    }

    /// A place for one more connection. If there is none, a caller that has one gives that up.
    async fn seat(&self, worker: WorkerId) -> Result<Seat, Refused> {
        let take = || Arc::clone(&self.seats).try_acquire_owned().ok();
        if let Some(seat) = take() {
            return Ok(seat);
        }
        let before = of_worker(&lock(&self.connections), worker);
        for served in &before {
            served.handle.fail(LinkFault::Peer);
        }
        let gone = async {
            for served in &before {
                served.gone.cancelled().await;
            }
        };
        // If that takes long, the caller has lost its patience.
        let patience = self.adapter.options().connect;
        tokio::time::timeout(patience, gone).await.map_err(|_| Refused::Busy)?;
        take().ok_or(Refused::Busy)
    }

    /// Whether the caller may come in, and who it is.
    fn judge(&self, request: &PairRequest) -> Result<Identity, Refused> {
        let Identity { worker, incarnation } = self.context.identity;
        if request.peer_worker != worker.0 {
            return Err(Refused::Worker);
        }
        if self.guards.on(Guard::Incarnation) && request.peer_incarnation != incarnation.0 {
            return Err(Refused::Incarnation);
        }
        if request.slot_bytes != self.context.arena.slot_bytes() as u64 {
            return Err(Refused::SlotBytes);
        }
        Ok(Identity {
            worker: WorkerId(request.worker),
            incarnation: Incarnation(request.incarnation),
        })
    }

    /// Queue pairs that are connected to the caller's, and what the caller has to know of them.
    async fn prepare(
        &self,
        caller: Identity,
        mut ends: Vec<RemoteEnd>,
    ) -> Result<(PairReply, Arc<Served>, Paired), DeviceError> {
        let tasks = &self.context.tasks;
        let unpaired = self.adapter.unpaired(tasks, ends.len(), Rights::READ).await?;
        let lanes = unpaired.pairs.len().min(ends.len());
        ends.truncate(lanes);
        let layout = self.context.arena.layout();
        let reply = PairReply {
            worker: self.context.identity.worker.0,
            incarnation: self.context.identity.incarnation.0,
            slots: layout.shape.slots,
            slot_bytes: layout.shape.slot_bytes as u64,
            slot_stride: layout.stride,
            port: Some(port_to_wire(&unpaired.port, self.adapter.device().limits())),
            queue_pairs: unpaired.pairs.iter().take(lanes).map(end_to_wire).collect(),
            ..PairReply::default()
        };
        let domain = unpaired.domain.clone();
        let counters = self.context.counters.clone();
        let paired = self.adapter.connect(tasks, unpaired, ends, (counters, Op::Serve)).await?;
        let grants = self.adapter.options().grants;
        let served = Served::new(caller, &paired, domain, lanes, grants);
        Ok((reply, Arc::new(served), paired))
    }

    fn connection(&self, number: u64) -> Result<Arc<Served>, Refused> {
        let known = lock(&self.connections).get(&number).cloned();
        known.filter(|served| served.handle.alive()).ok_or(Refused::Connection)
    }

    async fn open(self: Arc<Self>, request: OpenRequest) -> Result<OpenReply, Refused> {
        let served = self.connection(request.connection)?;
        served.touch();
        let mut resolved = self.resolve(&request.blocks, &request.parts).await?;
        let statuses = resolved.results.iter().map(status).collect();
        let part_crcs = std::mem::take(&mut resolved.part_crcs);
        let reply = OpenReply { statuses, part_crcs, ..OpenReply::default() };
        if resolved.pins.is_empty() {
            return Ok(reply);
        }
        served.grant(&self, resolved, &request, reply).await
    }

    async fn close(self: Arc<Self>, request: CloseRequest) {
        // One that is dying, too: until it is gone its keys may work.
        let Some(served) = lock(&self.connections).get(&request.connection).cloned() else {
            return;
        };
        if request.grant == 0 {
            served.handle.fail(LinkFault::Peer);
            served.gone.cancelled().await;
        } else {
            served.close(&self, request.grant).await;
        }
    }

    /// Pins what a request names, as far as all of it still holds.
    async fn resolve(
        self: &Arc<Self>,
        blocks: &[Descriptor],
        parts: &[Part],
    ) -> Result<Resolved, Refused> {
        if blocks.len() > BLOCKS || parts.len() > blocks.len() {
            return Err(Refused::Malformed);
        }
        let own = self.context.identity.worker;
        let mut found = Vec::with_capacity(blocks.len());
        for block in blocks {
            let block = BlockDescriptor::try_from(block).map_err(|_| Refused::Malformed)?;
            let pin = if block.owner == own {
                resolve(&block, &self.context, self.guards)
            } else {
                Err(Refused::Worker)
            };
            found.push(pin);
        }
        for part in parts {
            let pin = found.get_mut(part.block as usize).ok_or(Refused::Malformed)?;
            let span = Span { offset: part.offset, len: part.bytes };
            let inside = |pin: &ReadPin| span.fits(pin.len_bytes());
            if self.guards.on(Guard::Span) && pin.as_ref().is_ok_and(|pin| !inside(pin)) {
                *pin = Err(Refused::Span);
            }
        }
        for result in &found {
            match result {
                Ok(pin) => {
                    let bytes = u64::from(pin.len_bytes());
                    self.context.counters.moved(TransportKind::Verbs, Op::Serve, bytes, bytes);
                }
                Err(_) => self.context.counters.failed(TransportKind::Verbs, Op::Serve, 1),
            }
        }
        let results = found.iter().map(|found| found.as_ref().map(drop).map_err(|e| *e)).collect();
        let part_crcs = if parts.is_empty() {
            Vec::new()
        } else {
            self.part_crcs(&found, parts.to_vec()).await?
        };
        let granted = blocks.iter().zip(&found).filter(|(_, found)| found.is_ok());
        let time = self.time(granted.map(|(block, _)| block));
        let pins = found.into_iter().flatten().collect();
        Ok(Resolved { pins, results, part_crcs, time })
    }

    /// How long granted blocks may be used: no longer than any of their leases lasts, by the
    /// caller's word and by the pool's.
    fn time<'a>(&self, granted: impl Iterator<Item = &'a Descriptor>) -> Duration {
        let mut time = self.adapter.options().grant;
        if !self.guards.on(Guard::Lease) {
            return time;
        }
        let mut leases = BTreeSet::new();
        for block in granted {
            time = time.min(Duration::from_millis(u64::from(block.lease_remaining_ms)));
            leases.insert(block.lease);
        }
        let now = (self.context.clock)();
        let pool = pool::lock(&self.context.pool);
        leases.into_iter().fold(time, |time, lease| {
            longest(time, |time| pool.lease_live(LeaseId(lease), now + time))
        })
    }

    /// The checksums of parts: the block's own says nothing about them.
    async fn part_crcs(
        self: &Arc<Self>,
        found: &[Result<ReadPin, Refused>],
        parts: Vec<Part>,
    ) -> Result<Vec<u32>, Refused> {
        let pins: Vec<_> =
            parts.iter().map(|part| found[part.block as usize].clone().ok()).collect();
        let arena = self.context.arena.clone();
        let sums = move || {
            let sum = |(pin, part): (&Option<ReadPin>, &Part)| {
                let Some(guard) = pin.as_ref().and_then(|pin| arena.try_read(pin.slot().0)) else {
                    return 0;
                };
                let span = Span { offset: part.offset, len: part.bytes };
                crc32c::crc32c(&guard[span.range()])
            };
            pins.iter().zip(&parts).map(sum).collect()
        };
        // The memory's speed, but it may be much memory.
        self.context.tasks.spawn_blocking(sums).await.map_err(|_| Refused::Busy)
    }
}

/// The longest time up to `most`, to the millisecond, of which `lasts` says that it lasts so long.
fn longest(most: Duration, lasts: impl Fn(Duration) -> bool) -> Duration {
    if lasts(most) {
        return most;
    }
    let (mut lasting, mut over) = (0, u64::try_from(most.as_millis()).unwrap_or(u64::MAX));
    while over - lasting > 1 {
        let middle = lasting + (over - lasting) / 2;
        if lasts(Duration::from_millis(middle)) {
            lasting = middle;
        } else {
            over = middle;
        }
    }
    Duration::from_millis(lasting)
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("adapter", &self.host.adapter).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_time_that_lasts_is_found_to_the_millisecond() {
        let ms = Duration::from_millis;
        for most in [0, 1, 2, 77, 30_000] {
            for end in [0, 1, 2, 3, 76, 77, 78, 29_999, 30_000, 30_001] {
                let found = longest(ms(most), |time| time < ms(end));
                assert_eq!(found, ms(most.min(u64::saturating_sub(end, 1))), "{most} {end}");
            }
        }
    }
}
