//! Connections to owners: one per peer, paired when it is first wanted and again after it failed,
//! with increasing patience.

use super::adapter::{Adapter, Domain, Paired, Unpaired};
use super::driver::{Handle, Stop, Until};
use super::lanes::Order;
use super::rdma::{DeviceError, Rights, Scratch};
use super::route::Door;
use super::signal::{Signalling, end_to_wire, judged, port_to_wire, remote_end};
use crate::caller::{Health, lock};
use crate::guards::{Guard, Guards};
use crate::{Identity, LinkFault, Local, Op, Peer, Refused, TransferError, TransportKind};
use baton_arena::RECORD_BYTES;
use baton_proto::ids::{Incarnation, WorkerId};
use baton_proto::internal::{CloseRequest, PairReply, PairRequest};
use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Blocks of one request to an owner.
pub(crate) const BLOCKS: usize = 1024;
/// Scratch memories that are kept for later pulls, per connection.
const SCRATCHES: usize = 8;

/// The connections of one puller.
pub(super) struct Links {
    pub(super) local: Local,
    pub(super) identity: Identity,
    pub(super) adapter: Adapter,
    pub(super) signalling: Arc<dyn Signalling>,
    pub(super) guards: Guards,
    peers: Mutex<HashMap<Key, Arc<PeerLink>>>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    worker: WorkerId,
    incarnation: Incarnation,
    uri: String,
}

/// What is known of one run of one peer.
struct PeerLink {
    key: Key,
    current: Mutex<Option<Arc<Link>>>,
    /// Held while pairing: whoever else wants a connection waits for that one.
    pairing: Arc<tokio::sync::Mutex<()>>,
    health: Mutex<Health>,
    wanted: Mutex<Option<Instant>>,
    /// A task tries to pair in the background.
    again: AtomicBool,
}

/// A connection to an owner.
pub(super) struct Link {
    pub(super) uri: String,
    /// The owner's name for it.
    pub(super) connection: u64,
    pub(super) handle: Handle<Order>,
    pub(super) domain: Domain,
    /// The owner's slot records, per queue pair.
    pub(super) records: Vec<Door>,
    scratches: Mutex<Vec<Scratch>>,
    immediates: AtomicU32,
}

/// A push that is under way.
pub(super) struct Expected<'a> {
    link: &'a Link,
    /// Comes with its last write; no other that is under way has it.
    pub(super) immediate: u32,
    /// Hears when it has come.
    pub(super) arrival: oneshot::Receiver<()>,
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        self.link.handle.forget(self.immediate);
    }
}

impl Link {
    pub(super) fn lanes(&self) -> usize {
        self.records.len()
    }

    /// Memory for as many slot records as one request can ask for.
    pub(super) fn scratch(&self) -> Result<Scratch, DeviceError> {
        if let Some(scratch) = lock(&self.scratches).pop() {
            return Ok(scratch);
        }
        Scratch::new(&self.domain.pd, BLOCKS * RECORD_BYTES, self.domain.windows)
    }

    /// Keeps it for later. Nothing may write to it any more.
    pub(super) fn keep(&self, scratch: Scratch) {
        let mut kept = lock(&self.scratches);
        if kept.len() < SCRATCHES {
            kept.push(scratch);
        }
    }

    /// Expects a push.
    pub(super) fn expect(&self) -> Expected<'_> {
        let immediate = self.immediates.fetch_add(1, Ordering::Relaxed);
        Expected { link: self, immediate, arrival: self.handle.expect(immediate) }
    }
}

impl Links {
    pub(super) fn new(
        local: Local,
        identity: Identity,
        adapter: Adapter,
        signalling: Arc<dyn Signalling>,
        guards: Guards,
    ) -> Self {
        Self { local, identity, adapter, signalling, guards, peers: Mutex::default() }
    }

    /// A connection to the peer; paired now, if there is none.
    pub(super) async fn open(self: &Arc<Self>, peer: &Peer) -> Result<Arc<Link>, TransferError> {
        let known = self.peer(peer)?;
        *lock(&known.wanted) = Some(Instant::now());
        if let Some(link) = known.alive() {
            return Ok(link);
        }
        lock(&known.health).may_try(&known.key.uri)?;
        let turn = Arc::clone(&known.pairing).lock_owned().await;
        if let Some(link) = known.alive() {
            return Ok(link);
        }
        lock(&known.health).may_try(&known.key.uri)?;
        // A task of its own: whoever asked may lose interest, others may wait for the same.
        let pairing = {
            let (links, known) = (Arc::clone(self), Arc::clone(&known));
            self.local.tasks.spawn(async move {
                let outcome = links.pair(&known).await;
                drop(turn);
                outcome
            })
        };
        // It fails only when the runtime ends under it.
        pairing.await.unwrap_or(Err(TransferError::Cancelled))
    }

    /// Whether a pull from this peer need not wait for a connection that could not be had lately.
    /// Asking keeps the connection wanted.
    pub(super) fn ready(self: &Arc<Self>, peer: &Peer) -> bool {
        let Ok(known) = self.peer(peer) else { return false };
        let was_wanted = lock(&known.wanted).replace(Instant::now());
        if known.alive().is_some() {
            return true;
        }
        if was_wanted.is_none() {
            return true;
        }
        let failed = lock(&known.current).as_ref().and_then(|link| link.handle.fault());
        let healthy = failed.is_none_or(LinkFault::is_harmless) && lock(&known.health).is_new();
        if !healthy {
            self.pair_again(&known);
        }
        healthy
    }

    fn peer(&self, peer: &Peer) -> Result<Arc<PeerLink>, TransferError> {
        let kind = TransportKind::Verbs;
        let uri = peer.endpoints.verbs.clone();
        let uri = uri.ok_or(TransferError::NoEndpoint { worker: peer.worker, kind })?;
        let key = Key { worker: peer.worker, incarnation: peer.incarnation, uri };
        let mut peers = lock(&self.peers);
        if let Some(known) = peers.get(&key) {
            return Ok(Arc::clone(known));
        }
        let limit = self.adapter.options().peers;
        if peers.len() >= limit {
            // A connection is only closed for another if nobody uses it.
            peers.retain(|_, link| Arc::strong_count(link) > 1 || link.alive().is_some());
        }
        if peers.len() >= limit {
            let idle = peers.iter().filter(|(_, link)| link.is_idle());
            let longest =
                idle.min_by_key(|(_, link)| *lock(&link.wanted)).map(|(key, _)| key.clone());
            if let Some(link) = longest.and_then(|key| peers.remove(&key)) {
                link.close(LinkFault::Closed);
            }
        }
        if peers.len() >= limit {
            return Err(TransferError::TooManyPeers { limit });
        }
        let known = Arc::new(PeerLink {
            key: key.clone(),
            current: Mutex::default(),
            pairing: Arc::default(),
            health: Mutex::default(),
            wanted: Mutex::default(),
            again: AtomicBool::default(),
        });
        peers.insert(key, Arc::clone(&known));
        Ok(known)
    }

    /// Another run of this worker is over, now that this one has answered. Not before: whoever asks
    /// for a run may be behind the times.
    fn close_other_runs(&self, key: &Key) {
        let others: Vec<_> = {
            let mut peers = lock(&self.peers);
            peers.extract_if(|known, _| known.worker == key.worker && known != key).collect()
        };
        for (_, link) in others {
            link.close(LinkFault::Closed);
        }
    }

    /// Pairs queue pairs with the peer, within the time for that, and keeps the connection.
    async fn pair(self: &Arc<Self>, known: &Arc<PeerLink>) -> Result<Arc<Link>, TransferError> {
        let options = self.adapter.options();
        let outcome = tokio::select! {
            biased;
            () = self.local.shutdown.cancelled() => return Err(TransferError::Cancelled),
            outcome = tokio::time::timeout(options.connect, self.try_pair(&known.key)) => outcome,
        };
        let late = || TransferError::Unreachable {
            address: known.key.uri.clone(),
            kind: io::ErrorKind::TimedOut,
        };
        match outcome.unwrap_or_else(|_| Err(late())) {
            Ok((link, paired)) => {
                let link = Arc::new(link);
                let (links, watching) = (Arc::clone(self), Arc::clone(known));
                let watched = Arc::clone(&link);
                self.local
                    .tasks
                    .spawn(async move { links.watch(&watching, watched, paired).await });
                if let Err(error) = self.probe(&link).await {
                    lock(&known.health).failed(options.back_off);
                    link.handle.fail(LinkFault::Closed);
                    // Whoever watches its end cannot know whether it has been counted already.
                    self.pair_again(known);
                    return Err(error);
                }
                *lock(&known.current) = Some(Arc::clone(&link));
                *lock(&known.health) = Health::default();
                self.close_other_runs(&known.key);
                Ok(link)
            }
            Err(error) => {
                lock(&known.health).failed(options.back_off);
                Err(error)
            }
        }
    }

    /// READs a slot record over each queue pair. That both sides could set them up says nothing
    /// about the network between the devices: it may drop RoCE and carry the calls.
    async fn probe(&self, link: &Link) -> Result<(), TransferError> {
        let until = Until {
            cancel: self.local.shutdown.child_token(),
            deadline: Instant::now() + self.adapter.options().connect,
            linger: Duration::ZERO,
        };
        let scratch = link.scratch().map_err(device)?;
        let map = scratch.map();
        let read = |(lane, door): (usize, &Door)| {
            let from = door.records(0, 1)?;
            let into = map.at((lane * RECORD_BYTES) as u64, RECORD_BYTES as u32)?;
            Some(vec![Order::Read { into, from, fenced: false }])
        };
        let orders: Option<Vec<_>> = link.records.iter().enumerate().map(read).collect();
        let orders = orders.ok_or(TransferError::Protocol { what: "a window without records" })?;
        match link.handle.run(orders, scratch, until).await {
            Some((scratch, Ok(()))) => {
                link.keep(scratch);
                Ok(())
            }
            Some((_, Err(Stop::Deadline))) => {
                Err(TransferError::LinkFailed { fault: LinkFault::Unanswered })
            }
            Some((_, Err(stop))) => Err(stop.into()),
            None => Err(TransferError::Cancelled),
        }
    }

    async fn try_pair(&self, key: &Key) -> Result<(Link, Paired), TransferError> {
        let options = self.adapter.options();
        // The owner writes where a window lets it.
        let tasks = &self.local.tasks;
        let unpaired = self.adapter.unpaired(tasks, options.queue_pairs, Rights::WRITE).await;
        let unpaired = unpaired.map_err(device)?;
        let layout = self.local.arena.layout();
        let request = PairRequest {
            worker: self.identity.worker.0,
            incarnation: self.identity.incarnation.0,
            peer_worker: key.worker.0,
            peer_incarnation: key.incarnation.0,
            slot_bytes: layout.shape.slot_bytes as u64,
            port: Some(port_to_wire(&unpaired.port, self.adapter.device().limits())),
            queue_pairs: unpaired.pairs.iter().map(end_to_wire).collect(),
        };
        let reply = self.signalling.pair(&key.uri, request).await?;
        judged(reply.status)?;
        let connection = reply.connection;
        let connected = self.connected(key, &reply, unpaired).await;
        if connected.is_err() {
            self.tell_close(&key.uri, connection, 0);
        }
        connected
    }

    /// Checks what the owner answered, and connects to it.
    async fn connected(
        &self,
        key: &Key,
        reply: &PairReply,
        unpaired: Unpaired,
    ) -> Result<(Link, Paired), TransferError> {
        let broken = |what| TransferError::Protocol { what };
        let layout = self.local.arena.layout();
        if reply.worker != key.worker.0 {
            return Err(Refused::Worker.into());
        }
        if self.guards.on(Guard::Incarnation) && reply.incarnation != key.incarnation.0 {
            return Err(Refused::Incarnation.into());
        }
        let bytes = (reply.slot_bytes, reply.slot_stride);
        if bytes != (layout.shape.slot_bytes as u64, layout.stride) {
            return Err(Refused::SlotBytes.into());
        }
        let lanes = reply.queue_pairs.len();
        if lanes == 0 || lanes > unpaired.pairs.len() || reply.records.len() != lanes {
            return Err(broken("a pairing with another number of queue pairs"));
        }
        let port = reply.port.as_ref().ok_or(broken("a pairing without a port"))?;
        let ends: Option<Vec<_>> =
            reply.queue_pairs.iter().map(|&pair| remote_end(port, pair)).collect();
        let ends = ends.ok_or(broken("a pairing with a port that is none"))?;
        let doors: Option<Vec<_>> =
            reply.records.iter().map(|window| Door::from_wire(window, lanes)).collect();
        let records = doors.ok_or(broken("a window that is none"))?;
        if records.iter().enumerate().any(|(lane, door)| door.lane != lane) {
            return Err(broken("windows in another order than the queue pairs"));
        }
        let domain = unpaired.domain.clone();
        let counted = (self.local.counters.clone(), Op::Pull);
        let paired = self.adapter.connect(&self.local.tasks, unpaired, ends, counted).await;
        let paired = paired.map_err(device)?;
        let link = Link {
            uri: key.uri.clone(),
            connection: reply.connection,
            handle: paired.handle.clone(),
            domain,
            records,
            scratches: Mutex::default(),
            immediates: AtomicU32::new(1),
        };
        Ok((link, paired))
    }

    /// Runs a connection to its end, and sees to it that there is another one if it is wanted.
    async fn watch(self: &Arc<Self>, known: &Arc<PeerLink>, link: Arc<Link>, paired: Paired) {
        let idle = self.adapter.options().idle;
        let (uri, connection) = (link.uri.clone(), link.connection);
        let driving = self.adapter.drive(paired);
        tokio::pin!(driving);
        let fault = loop {
            tokio::select! {
                fault = &mut driving => break fault,
                () = self.local.shutdown.cancelled(), if link.handle.alive() => {
                    link.handle.fail(LinkFault::Closed);
                }
                () = tokio::time::sleep(idle), if link.handle.alive() => {
                    let unused = lock(&known.wanted).is_none_or(|wanted| wanted.elapsed() >= idle);
                    if unused {
                        link.handle.fail(LinkFault::Closed);
                    }
                }
            }
        };
        // Before it is forgotten: nobody may find neither a connection nor a failure.
        if !fault.is_harmless() {
            tracing::info!(%fault, peer = %uri, "an RDMA connection failed");
            lock(&known.health).failed(self.adapter.options().back_off);
        }
        lock(&known.current).take_if(|current| Arc::ptr_eq(current, &link));
        drop(link);
        self.tell_close(&uri, connection, 0);
        if fault != LinkFault::Closed && !lock(&known.health).is_new() {
            self.pair_again(known);
        }
    }

    /// Tries again in the background, for as long as the connection was wanted lately.
    fn pair_again(self: &Arc<Self>, known: &Arc<PeerLink>) {
        if known.again.swap(true, Ordering::AcqRel) {
            return;
        }
        let (links, known) = (Arc::clone(self), Arc::clone(known));
        let lately = links.adapter.options().wanted;
        let again = async move {
            let wanted = || lock(&known.wanted).is_some_and(|wanted| wanted.elapsed() < lately);
            while known.alive().is_none() && wanted() {
                let wait = lock(&known.health).wait();
                tokio::select! {
                    () = links.local.shutdown.cancelled() => break,
                    () = tokio::time::sleep(wait) => {}
                }
                let _turn = known.pairing.lock().await;
                if known.alive().is_none() && lock(&known.health).may_try(&known.key.uri).is_ok() {
                    // Why it failed is of interest only to whoever asks for blocks.
                    let _ = links.pair(&known).await;
                }
            }
            known.again.store(false, Ordering::Release);
        };
        self.local.tasks.spawn(again);
    }

    /// Tells an owner that a grant, or with 0 the connection, is not needed any more.
    pub(super) fn tell_close(&self, uri: &str, connection: u64, grant: u64) {
        let call = self.signalling.close(uri, CloseRequest { connection, grant });
        let patience = self.adapter.options().connect;
        self.local.tasks.spawn(async move {
            // If it does not hear of it, the grant runs out by itself.
            let _ = tokio::time::timeout(patience, call).await;
        });
    }

    /// A peer does not know the connection any more, or cannot be asked.
    pub(super) fn lost(&self, peer: &Peer, link: &Link, error: &TransferError) {
        if let (TransferError::Unreachable { .. }, Ok(known)) = (error, self.peer(peer)) {
            lock(&known.health).failed(self.adapter.options().back_off);
        }
        link.handle.fail(LinkFault::Peer);
    }
}

impl PeerLink {
    fn alive(&self) -> Option<Arc<Link>> {
        lock(&self.current).clone().filter(|link| link.handle.alive())
    }

    /// Whether nobody but the list and the connection's own tasks knows it.
    fn is_idle(&self) -> bool {
        let lately = Duration::from_secs(1);
        lock(&self.wanted).is_none_or(|wanted| wanted.elapsed() > lately)
    }

    fn close(&self, fault: LinkFault) {
        if let Some(link) = &*lock(&self.current) {
            link.handle.fail(fault);
        }
    }
}

/// A device's refusal as that of a pull.
#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
pub(crate) fn device(error: DeviceError) -> TransferError {
    TransferError::Device { problem: error.to_string() }
}
