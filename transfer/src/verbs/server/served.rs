//! One connection as its owner sees it: grants, and the task that ends them in time.

use super::grants::Grants;
use super::{Host, Paired, Resolved, Seat};
use crate::caller::lock;
use crate::guards::Guard;
use crate::verbs::adapter::Domain;
use crate::verbs::driver::{Handle, Stop, Until};
use crate::verbs::lanes::{Memory, Order};
use crate::verbs::opening::{Opening, by, revoke, shut};
use crate::verbs::rdma::{DeviceError, Rights};
use crate::{Identity, LinkFault, Refused};
use baton_kv::lease::ReadPin;
use baton_proto::internal::{OpenReply, OpenRequest, Window};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long, at shutdown, callers may take to finish what they are reading.
const DRAIN: Duration = Duration::from_secs(1);

/// A connection with one caller.
pub(super) struct Served {
    pub(super) caller: Identity,
    pub(super) handle: Handle<Order>,
    /// Cancelled when nothing of it is left.
    pub(super) gone: CancellationToken,
    pub(super) domain: Domain,
    pub(super) lanes: usize,
    /// How many pushes there may be at once, beside grants, and who has a turn.
    most_pushes: usize,
    pushes: Arc<Semaphore>,
    grants: Mutex<Grants<Held>>,
    /// Windows on the slot records, open as long as the connection.
    records: Mutex<Opening>,
    used: Mutex<Instant>,
    /// Wakes the steward to look at the grants.
    wake: Notify,
}

/// A grant. The order of the fields is that of their end: what is open closes before a slot can be
/// reused.
pub(super) struct Held {
    opening: Opening,
    _pins: Vec<ReadPin>,
}

impl Served {
    pub(super) fn new(
        caller: Identity,
        paired: &Paired,
        domain: Domain,
        lanes: usize,
        grants: usize,
    ) -> Self {
        Self {
            caller,
            handle: paired.handle.clone(),
            gone: CancellationToken::new(),
            domain,
            lanes,
            most_pushes: grants.min(Semaphore::MAX_PERMITS),
            pushes: Arc::new(Semaphore::new(grants.min(Semaphore::MAX_PERMITS))),
            grants: Mutex::new(Grants::new(grants)),
            records: Mutex::default(),
            used: Mutex::new(Instant::now()),
            wake: Notify::new(),
        }
    }

    /// The connection is in use.
    pub(super) fn touch(&self) {
        *lock(&self.used) = Instant::now();
    }

    /// A turn to push, to be held until that is over. `None` if there are enough already.
    pub(super) fn turn(self: &Arc<Self>) -> Option<Turn> {
        let permit = Arc::clone(&self.pushes).try_acquire_owned().ok()?;
        Some(Turn { permit: Some(permit), served: Arc::clone(self) })
    }

    fn pushing(&self) -> bool {
        self.pushes.available_permits() < self.most_pushes
    }

    /// Opens the table of slot records to each queue pair.
    pub(super) async fn open_records(&self, host: &Host) -> Result<Vec<Window>, Refused> {
        let mut opening = Opening::default();
        let arena = &host.context.arena;
        let slots = arena.slots();
        let stretch = self.domain.region.map().records(0, slots).ok_or(Refused::SlotBytes)?;
        for lane in 0..self.lanes {
            let on = Memory::Arena(self.domain.region.clone());
            let what = (on, stretch, Rights::READ);
            opening.add(&self.domain, arena, what, lane, (0, slots)).map_err(|e| broken(&e))?;
        }
        let until = by(Instant::now() + host.adapter.options().connect);
        let opening = self.bind(opening, until).await?;
        let windows = opening.to_wire();
        *lock(&self.records) = opening;
        Ok(windows)
    }

    /// Has everything opened by the queue pairs.
    async fn bind<K>(&self, keep: K, until: Until) -> Result<K, Refused>
    where
        K: AsRef<Opening> + AsMut<Opening> + Send + 'static,
    {
        let orders = keep.as_ref().bind(self.lanes);
        match self.handle.run(orders, keep, until).await {
            Some((keep, Ok(()))) => return Ok(keep),
            Some((keep, Err(Stop::Stuck))) => std::mem::forget(keep),
            // No key has left this side. Windows that may not be bound must not be invalidated.
            Some((keep, Err(_))) => {
                if let Err(open) = shut(&self.handle, keep).await {
                    std::mem::forget(open);
                }
            }
            None => {}
        }
        Err(Refused::Connection)
    }

    /// Opens windows on pinned blocks for a while.
    pub(super) async fn grant(
        &self,
        host: &Host,
        resolved: Resolved,
        request: &OpenRequest,
        reply: OpenReply,
    ) -> Result<OpenReply, Refused> {
        if !lock(&self.grants).room() {
            return Err(Refused::Busy);
        }
        let extents = resolved.extents(&request.parts);
        let Resolved { pins, time, .. } = resolved;
        let (arena, lanes) = (&host.context.arena, 0..self.lanes);
        let opening = Opening::of_slots(&self.domain, arena, extents, lanes, Rights::READ);
        let opening = opening.map_err(|error| broken(&error))?;
        let pins = if host.guards.on(Guard::Pin) { pins } else { Vec::new() };
        // For so long the caller waits.
        let until = by(Instant::now() + host.adapter.options().answer);
        let held = self.bind(Held { opening, _pins: pins }, until).await?;
        let windows = held.opening.to_wire();
        let inserted = lock(&self.grants).insert(held, Instant::now() + time);
        let grant = match inserted {
            Ok(grant) => grant,
            Err(held) => {
                self.end(host, held).await;
                return Err(Refused::Busy);
            }
        };
        self.wake.notify_one();
        let remaining_ms = u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        Ok(OpenReply { grant, windows, remaining_ms, ..reply })
    }

    /// Ends the grant of this number, or waits until that has happened.
    pub(super) async fn close(&self, host: &Host, grant: u64) {
        self.touch();
        let (held, ending) = {
            let mut grants = lock(&self.grants);
            (grants.take(grant), grants.ending(grant))
        };
        match (held, ending) {
            (Some(held), _) => self.end_numbered(host, grant, held).await,
            (None, Some(ending)) => ending.cancelled().await,
            (None, None) => {}
        }
    }

    async fn end_numbered(&self, host: &Host, grant: u64, held: Held) {
        self.end(host, held).await;
        lock(&self.grants).over(grant);
        self.wake.notify_one();
    }

    /// Ends a grant: afterwards none of its keys opens anything, and its blocks are not pinned any
    /// more, unless the device does not let go of them.
    async fn end(&self, host: &Host, held: Held) {
        if !host.guards.on(Guard::Revocation) {
            // What follows is what tests have to find: keys that work after the pins are gone.
            let Held { opening, _pins } = held;
            lock(&self.records).absorb(opening);
            return;
        }
        // Nothing that others have posted before may take longer.
        let options = host.adapter.options();
        let until = by(Instant::now() + options.grant + options.connect);
        if let Err(Some(open)) = revoke(&self.handle, self.lanes, held, until).await {
            // Pinned for good: the card may read it, whenever and for whomever.
            std::mem::forget(open);
        }
    }
}

/// A push that is under way.
pub(super) struct Turn {
    permit: Option<OwnedSemaphorePermit>,
    served: Arc<Served>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        drop(self.permit.take());
        self.served.touch();
        self.served.wake.notify_one();
    }
}

impl AsRef<Opening> for Held {
    fn as_ref(&self) -> &Opening {
        &self.opening
    }
}

impl AsMut<Opening> for Held {
    fn as_mut(&mut self) -> &mut Opening {
        &mut self.opening
    }
}

fn broken(error: &DeviceError) -> Refused {
    tracing::warn!(%error, "windows could not be opened");
    Refused::Device
}

/// Looks after a connection until it ends: by itself, because nobody uses it, or at shutdown, when
/// its caller is given a moment.
pub(super) async fn steward(
    (host, served): (Arc<Host>, Arc<Served>),
    driving: JoinHandle<LinkFault>,
    number: u64,
    seat: Seat,
) {
    let tasks = host.context.tasks.clone();
    let mut drain_until = None;
    loop {
        let now = Instant::now();
        let idle_at = *lock(&served.used) + host.limits.idle;
        let (expired, next, empty) = {
            let mut grants = lock(&served.grants);
            (grants.expired(now), grants.next_moment(), grants.is_empty() && !served.pushing())
        };
        for (grant, held) in expired {
            let (host, served) = (Arc::clone(&host), Arc::clone(&served));
            let end = async move { served.end_numbered(&host, grant, held).await };
            tasks.spawn(end);
        }
        let drained = drain_until.is_some_and(|until| empty || until <= now);
        if drained || (empty && idle_at <= now) {
            break;
        }
        // While something is under way, its end wakes this.
        let idle = empty.then_some(idle_at);
        let moment = next.into_iter().chain(drain_until).chain(idle).min();
        tokio::select! {
            () = served.handle.ended() => break,
            () = served.wake.notified() => {}
            () = host.context.shutdown.cancelled(), if drain_until.is_none() => {
                lock(&served.grants).close();
                served.pushes.close();
                drain_until = Some(now + DRAIN);
            }
            () = tokio::time::sleep_until(moment.unwrap_or(now + host.limits.idle)) => {}
        }
    }
    let rest = {
        let mut grants = lock(&served.grants);
        grants.close();
        grants.drain()
    };
    served.pushes.close();
    served.handle.fail(LinkFault::Closed);
    if let Ok(fault) = driving.await
        && !matches!(fault, LinkFault::Closed | LinkFault::Peer)
    {
        tracing::info!(%fault, worker = %served.caller.worker, "an RDMA connection failed");
    }
    // The queue pairs carry out nothing any more; now the keys, and last the pins.
    drop(std::mem::take(&mut *lock(&served.records)));
    for (grant, held) in rest {
        served.end_numbered(&host, grant, held).await;
    }
    // Until here whoever closes it finds it, and waits.
    lock(&host.connections).remove(&number);
    drop(seat);
    served.gone.cancel();
}
