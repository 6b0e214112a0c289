//! A caller that pairs as it should and then READs what it likes, with whatever key it likes: for
//! tests of what an owner's keys open, and for how long.
#![allow(clippy::unwrap_used)]

use super::VerbsOptions;
pub(crate) use super::rdma::Status;
use super::rdma::{
    ArenaRegion, Chain, Completion, CompletionQueue, Device, PairOptions, ProtectionDomain,
    QueuePair, Ready, Remote, RemoteKey, Rights, Work,
};
use super::signal::{Signalling, end_to_wire, judged, port_to_wire, remote_end};
use crate::Peer;
use baton_arena::Arena;
use baton_proto::block::BlockDescriptor;
use baton_proto::ids::WorkerId;
use baton_proto::internal::{CloseRequest, OpenReply, OpenRequest, PairRequest, Part, Window};
use std::sync::Arc;
use std::time::Duration;

/// What lies where a READ goes to before it.
const EMPTY: u8 = 0xee;

/// The caller, with one connection.
pub(crate) struct Raw {
    calls: Arc<dyn Signalling>,
    uri: String,
    connection: u64,
    arena: Arena,
    region: ArenaRegion,
    completions: CompletionQueue,
    chain: Chain,
    pairs: Vec<QueuePair<Ready>>,
    /// The owner's slot records, per queue pair.
    pub(crate) records: Vec<Window>,
}

impl Raw {
    /// Pairs with an owner. READs go to slot 0 of `arena`, whose slots are as large as the owner's.
    pub(crate) async fn pair(
        calls: Arc<dyn Signalling>,
        peer: &Peer,
        worker: WorkerId,
        arena: Arena,
        options: &VerbsOptions,
    ) -> Self {
        let device = Device::open(&options.device).unwrap();
        let pd = ProtectionDomain::new(&device).unwrap();
        let region = ArenaRegion::register(&pd, &arena, false).unwrap();
        let port = device.port();
        let completions = CompletionQueue::new(&device, 64).unwrap();
        let wanted = PairOptions { sends: 8, receives: 1, rights: Rights::NONE };
        let pairs: Vec<_> =
            (0..2).map(|_| QueuePair::new(&pd, &completions, wanted).unwrap()).collect();
        let request = PairRequest {
            worker: worker.0,
            incarnation: 1,
            peer_worker: peer.worker.0,
            peer_incarnation: peer.incarnation.0,
            slot_bytes: arena.slot_bytes() as u64,
            port: Some(port_to_wire(&port, device.limits())),
            queue_pairs: pairs.iter().map(end_to_wire).collect(),
        };
        let uri = peer.endpoints.verbs.clone().unwrap();
        let reply = calls.pair(&uri, request).await.unwrap();
        judged(reply.status).unwrap();
        let theirs = reply.port.unwrap();
        let ends = reply.queue_pairs.iter().map(|&end| remote_end(&theirs, end).unwrap());
        let pairs =
            pairs.into_iter().zip(ends).map(|(pair, end)| pair.connect(&port, &end).unwrap());
        let (pairs, connection, records) = (pairs.collect(), reply.connection, reply.records);
        let chain = Chain::new(1);
        Self { calls, uri, connection, arena, region, completions, chain, pairs, records }
    }

    /// Has the owner open blocks.
    pub(crate) async fn open(&self, blocks: &[BlockDescriptor]) -> OpenReply {
        self.open_parts(blocks, Vec::new()).await
    }

    /// The same, of some blocks only parts.
    pub(crate) async fn open_parts(
        &self,
        blocks: &[BlockDescriptor],
        parts: Vec<Part>,
    ) -> OpenReply {
        let blocks = blocks.iter().map(Into::into).collect();
        let request = OpenRequest { connection: self.connection, blocks, parts };
        let reply = self.calls.open(&self.uri, request).await.unwrap();
        judged(reply.status).unwrap();
        reply.statuses.iter().for_each(|&status| judged(status).unwrap());
        reply
    }

    /// Has the owner end a grant, or with 0 the connection.
    pub(crate) async fn close(&self, grant: u64) {
        let request = CloseRequest { connection: self.connection, grant };
        self.calls.close(&self.uri, request).await.unwrap();
    }

    /// READs from `offset` bytes behind a window's start on, which may well lie beyond its end.
    /// What is refused must bring nothing.
    pub(crate) async fn read(
        &mut self,
        window: &Window,
        offset: u64,
        bytes: usize,
    ) -> Result<Vec<u8>, Status> {
        self.arena.write(0).fill(EMPTY);
        let into = self.region.map().slots(0, 0, bytes as u64).unwrap();
        let key = RemoteKey::from_wire(window.rkey);
        let from = Remote { address: window.address + offset, key };
        self.chain.clear();
        assert!(self.chain.push(1, Work::Read { into, from, fenced: false }));
        self.pairs[window.queue_pair as usize].post(&mut self.chain).unwrap();
        let status = tokio::time::timeout(Duration::from_secs(10), self.completed()).await.unwrap();
        let slot = self.arena.read(0);
        if status == Status::Done {
            return Ok(slot[..bytes].to_vec());
        }
        assert!(slot.iter().all(|&byte| byte == EMPTY), "a refused READ brought something");
        Err(status)
    }

    async fn completed(&mut self) -> Status {
        let mut end = [Completion::NONE];
        while self.completions.poll(&mut end).unwrap() == 0 {
            tokio::task::yield_now().await;
        }
        end[0].status
    }
}
