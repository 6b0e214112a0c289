//! Arenas of peers that are mapped here, and the sockets that tell whether their owners live.

use super::pins::Pins;
use super::{ShmOptions, fd};
use crate::caller::{Health, accept, lock};
use crate::guards::Guards;
use crate::wire::Hello;
use crate::{Identity, Local, Peer, Token, TransferError, TransportKind};
use baton_arena::{PeerArena, PeerArenaError, PeerBoard, Shape};
use baton_proto::ids::{Incarnation, WorkerId};
use rustix::net::RecvFlags;
use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

/// The mapped arenas of one puller.
#[derive(Debug)]
pub(super) struct Attachments {
    slot_bytes: usize,
    token: Token,
    options: ShmOptions,
    guards: Guards,
    peers: Mutex<HashMap<Key, Arc<Entry>>>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Key {
    worker: WorkerId,
    incarnation: Incarnation,
    path: PathBuf,
}

/// What is known of one run of one peer.
#[derive(Debug)]
struct Entry {
    key: Key,
    /// Held while attaching, so that pulls that start together attach once.
    attached: tokio::sync::Mutex<Option<Arc<Attached>>>,
    health: Mutex<Health>,
}

/// A peer's arena, for as long as its owner holds the other end of the socket.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) arena: PeerArena,
    pub(super) pins: Pins,
    socket: UnixStream,
}

impl Attached {
    /// Whether the owner is there: after a hello it says nothing, so anything but silence is its
    /// end. Its memory stays mapped, but nobody keeps promises about it any more.
    pub(super) fn alive(&self) -> Result<(), TransferError> {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        match rustix::net::recv(self.socket.as_fd(), &mut [0u8; 1], flags) {
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(TransferError::lost(&error.into())),
            Ok(_) => Err(TransferError::Lost { kind: io::ErrorKind::UnexpectedEof }),
        }
    }
}

impl Attachments {
    pub(super) fn new(local: &Local, options: ShmOptions, guards: Guards) -> Self {
        let (slot_bytes, token) = (local.arena.slot_bytes(), local.token.clone());
        Self { slot_bytes, token, options, guards, peers: Mutex::default() }
    }

    /// The peer's arena, mapped now if it was not.
    pub(super) async fn of(&self, peer: &Peer) -> Result<Arc<Attached>, TransferError> {
        let entry = self.entry(peer)?;
        let mut slot = entry.attached.lock().await;
        if let Some(attached) = slot.take().filter(|attached| attached.alive().is_ok()) {
            *slot = Some(Arc::clone(&attached));
            return Ok(attached);
        }
        lock(&entry.health).may_try(&entry.key.path.display())?;
        let late = || unreachable(&entry.key, io::ErrorKind::TimedOut);
        let attaching = tokio::time::timeout(self.options.connect, self.attach(&entry.key));
        match attaching.await.unwrap_or_else(|_| Err(late())) {
            Ok(attached) => {
                *lock(&entry.health) = Health::default();
                let attached = Arc::new(attached);
                *slot = Some(Arc::clone(&attached));
                Ok(attached)
            }
            Err(error) => {
                lock(&entry.health).failed(self.options.back_off);
                Err(error)
            }
        }
    }

    /// The peer's arena, if it is mapped already and nobody is at work on that.
    pub(super) fn at_hand(&self, peer: &Peer) -> Option<Arc<Attached>> {
        let entry = self.entry(peer).ok()?;
        let attached = entry.attached.try_lock().ok()?;
        attached.clone().filter(|attached| attached.alive().is_ok())
    }

    fn entry(&self, peer: &Peer) -> Result<Arc<Entry>, TransferError> {
        let path = peer
            .endpoints
            .shm
            .clone()
            .ok_or(TransferError::NoEndpoint { worker: peer.worker, kind: TransportKind::Shm })?;
        let key = Key { worker: peer.worker, incarnation: peer.incarnation, path };
        let mut peers = lock(&self.peers);
        if let Some(known) = peers.get(&key) {
            return Ok(Arc::clone(known));
        }
        // Another run of this worker is over, or soon will be: unmap its arena.
        peers.retain(|known, entry| known.worker != key.worker || Arc::strong_count(entry) > 1);
        if peers.len() >= self.options.peers {
            peers.retain(|_, entry| Arc::strong_count(entry) > 1);
        }
        if peers.len() >= self.options.peers {
            return Err(TransferError::TooManyPeers { limit: self.options.peers });
        }
        let entry = Arc::new(Entry {
            key: key.clone(),
            attached: tokio::sync::Mutex::default(),
            health: Mutex::default(),
        });
        peers.insert(key, Arc::clone(&entry));
        Ok(entry)
    }

    /// Connects, says hello, and maps what is handed over.
    async fn attach(&self, key: &Key) -> Result<Attached, TransferError> {
        let mut socket =
            UnixStream::connect(&key.path).await.map_err(|error| unreachable(key, error.kind()))?;
        let lost = |error: io::Error| TransferError::lost(&error);
        let expected = Identity { worker: key.worker, incarnation: key.incarnation };
        let (slot_bytes, token) = (self.slot_bytes, self.token.clone());
        let hello = Hello { peer: expected, slot_bytes: slot_bytes as u64, token };
        socket.write_all(&hello.to_bytes()).await.map_err(lost)?;
        let (welcome, fds) = fd::receive(&socket).await.map_err(lost)?;
        let slots = accept(&welcome, expected, slot_bytes, self.guards)?;
        if slots > self.options.peer_slots {
            return Err(TransferError::Protocol {
                what: "an arena of more slots than are allowed",
            });
        }
        let [arena, board] =
            fds.ok_or(TransferError::Protocol { what: "a welcome without an arena" })?;
        let broken = |error| TransferError::Protocol { what: why(&error) };
        let arena = PeerArena::open(arena.as_fd(), Shape { slots, slot_bytes }).map_err(broken)?;
        let board = PeerBoard::open(board.as_fd(), slots).map_err(broken)?;
        Ok(Attached { arena, pins: Pins::new(board, slots), socket })
    }
}

fn unreachable(key: &Key, kind: io::ErrorKind) -> TransferError {
    TransferError::Unreachable { address: key.path.display().to_string(), kind }
}

/// Which rule was broken.
fn why(error: &PeerArenaError) -> &'static str {
    match error {
        PeerArenaError::NotSealed => "its memory is not sealed against shrinking and holes",
        PeerArenaError::NotShared => "its memory is not a memfd of ordinary pages",
        PeerArenaError::Size { .. } => "its memory has another size than it said",
        PeerArenaError::Header { .. } => "its arena has another header than it said",
        PeerArenaError::Board { .. } => "its pin board has another header than it said",
        PeerArenaError::OutOfRange { .. } => "its arena ends early",
        PeerArenaError::System { .. } => "its memory cannot be mapped",
    }
}
