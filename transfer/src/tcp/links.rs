//! Connections to peers: a few per peer, kept between pulls, made anew with increasing patience.

use super::TcpOptions;
use super::stream::Stream;
use super::tls::TlsIdentity;
use crate::caller::{Health, accept, lock};
use crate::guards::Guards;
use crate::wire::{Hello, Welcome};
use crate::{Identity, Peer, Token, TransferError, TransportKind};
use baton_proto::ids::{Incarnation, WorkerId};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The connections of one puller.
#[derive(Debug)]
pub(super) struct Links {
    token: Token,
    options: TcpOptions,
    tls: Option<TlsIdentity>,
    guards: Guards,
    peers: Mutex<HashMap<Key, Arc<PeerLinks>>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Key {
    worker: WorkerId,
    incarnation: Incarnation,
    address: SocketAddr,
}

/// What is known of one run of one peer.
#[derive(Debug)]
struct PeerLinks {
    key: Key,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Stream>>,
    health: Mutex<Health>,
}

/// A connection that has been accepted by the peer, in exclusive use. Dropping it closes it: bytes
/// of an unfinished answer may still come. After a complete answer it can be kept.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) stream: Stream,
    /// Whether it served an earlier pull, so that it may have died since.
    pub(super) reused: bool,
    peer: Arc<PeerLinks>,
    permit: OwnedSemaphorePermit,
}

/// One of a peer's connections may be used, or made.
#[derive(Debug)]
pub(super) struct Turn {
    peer: Arc<PeerLinks>,
    permit: OwnedSemaphorePermit,
}

impl Link {
    /// Makes the connection available to other pulls.
    pub(super) fn keep(self) {
        lock(&self.peer.idle).push(self.stream);
        drop(self.permit);
    }
}

impl Links {
    pub(super) fn new(
        token: Token,
        options: TcpOptions,
        tls: Option<TlsIdentity>,
        guards: Guards,
    ) -> Self {
        Self { token, options, tls, guards, peers: Mutex::default() }
    }

    /// A turn to connect to the peer, waiting while as many as allowed are in use.
    pub(super) async fn turn(&self, peer: &Peer) -> Result<Turn, TransferError> {
        let peer = self.peer(peer)?;
        let permit = Arc::clone(&peer.permits)
            .acquire_owned()
            .await
            .expect("this semaphore is never closed");
        Ok(Turn { peer, permit })
    }

    /// A connection to the peer. `fresh`: none that was used before.
    pub(super) async fn open(
        &self,
        Turn { peer, permit }: Turn,
        slot_bytes: usize,
        fresh: bool,
    ) -> Result<Link, TransferError> {
        loop {
            let Some(stream) = lock(&peer.idle).pop() else { break };
            if !fresh && stream.is_quiet() {
                return Ok(Link { stream, reused: true, peer, permit });
            }
        }
        lock(&peer.health).may_try(&peer.key.address)?;
        let connected = tokio::time::timeout(self.options.connect, self.connect(&peer, slot_bytes));
        match connected.await.unwrap_or_else(|_| Err(unreachable(&peer, io::ErrorKind::TimedOut))) {
            Ok(stream) => {
                *lock(&peer.health) = Health::default();
                Ok(Link { stream, reused: false, peer, permit })
            }
            Err(error) => {
                lock(&peer.health).failed(self.options.back_off);
                Err(error)
            }
        }
    }

    fn peer(&self, peer: &Peer) -> Result<Arc<PeerLinks>, TransferError> {
        let address = peer
            .endpoints
            .tcp
            .ok_or(TransferError::NoEndpoint { worker: peer.worker, kind: TransportKind::Tcp })?;
        let key = Key { worker: peer.worker, incarnation: peer.incarnation, address };
        let mut peers = lock(&self.peers);
        if let Some(known) = peers.get(&key) {
            return Ok(Arc::clone(known));
        }
        // Another run of this worker is over, or soon will be; its idle connections close here.
        peers.retain(|known, links| known.worker != key.worker || Arc::strong_count(links) > 1);
        if peers.len() >= self.options.peers {
            peers.retain(|_, links| Arc::strong_count(links) > 1);
        }
        if peers.len() >= self.options.peers {
            return Err(TransferError::TooManyPeers { limit: self.options.peers });
        }
        let permits = Arc::new(Semaphore::new(self.options.connections_per_peer.max(1)));
        let links =
            Arc::new(PeerLinks { key, permits, idle: Mutex::default(), health: Mutex::default() });
        peers.insert(key, Arc::clone(&links));
        Ok(links)
    }

    /// Connects and says hello.
    async fn connect(&self, peer: &PeerLinks, bytes: usize) -> Result<Stream, TransferError> {
        let Key { worker, incarnation, address } = peer.key;
        let stream =
            TcpStream::connect(address).await.map_err(|error| unreachable(peer, error.kind()))?;
        let lost = |error: io::Error| TransferError::lost(&error);
        stream.set_nodelay(true).map_err(lost)?;
        let mut stream =
            Stream::calling(stream, address.ip(), self.tls.as_ref()).await.map_err(lost)?;
        let expected = Identity { worker, incarnation };
        let hello = Hello { peer: expected, slot_bytes: bytes as u64, token: self.token.clone() };
        stream.write_all(&hello.to_bytes()).await.map_err(lost)?;
        let mut welcome = [0; Welcome::BYTES];
        stream.read_exact(&mut welcome).await.map_err(lost)?;
        accept(&welcome, expected, bytes, self.guards)?;
        Ok(stream)
    }
}

fn unreachable(peer: &PeerLinks, kind: io::ErrorKind) -> TransferError {
    TransferError::Unreachable { address: peer.key.address.to_string(), kind }
}
