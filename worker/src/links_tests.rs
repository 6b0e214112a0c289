//! What happens when the first choice of a transport cannot bring a block.

use super::*;
use crate::blocks::Blocks;
use baton_arena::{Arena, ArenaOptions};
use baton_kv::pool::PoolConfig;
use baton_kv::retention::Class;
use baton_node::drain::Drain;
use baton_proto::block::BlockDescriptor;
use baton_proto::ids::{Incarnation, SequenceHash, WorkerId};
use baton_transfer::{
    BackOff, Clock, Counters, Endpoints, Identity, LinkFault, Local, Mismatch, Op, Refused,
    ServeContext, ServeLimits, Token, TransferError, TransportKind, shm, tcp,
};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const SLOTS: u32 = 8;
const SLOT_BYTES: usize = 4096;
const OWNER: Identity = Identity { worker: WorkerId(1), incarnation: Incarnation(1) };
const TTL: Duration = Duration::from_mins(1);

fn blocks(of: Identity) -> Blocks {
    let options = ArenaOptions { slots: SLOTS, slot_bytes: SLOT_BYTES, name: "links" };
    let config = PoolConfig { slots: SLOTS, events_kept: 16, leases_max: 16 };
    Blocks::new(Arena::create(options).unwrap(), config, of.worker, of.incarnation)
}

/// A worker that holds blocks and serves them over tcp, and says that it also does over shm.
struct Owner {
    blocks: Blocks,
    peer: Peer,
}

impl Owner {
    async fn start() -> Self {
        let blocks = blocks(OWNER);
        let clock: Clock = Arc::new(|| Duration::ZERO);
        let context = ServeContext {
            arena: blocks.arena().clone(),
            pool: Arc::clone(blocks.pool()),
            identity: OWNER,
            token: Token::new([1; 32]),
            clock,
            counters: Counters::default(),
            tasks: TaskTracker::new(),
            shutdown: CancellationToken::new(),
        };
        let any_port = "127.0.0.1:0".parse().unwrap();
        let server = tcp::Server::bind(any_port, context, ServeLimits::default()).await.unwrap();
        let endpoints = Endpoints {
            tcp: Some(server.local_addr()),
            shm: Some("/nowhere/at-all.sock".into()),
            host: "here".into(),
            verbs: None,
            sim: None,
        };
        let Identity { worker, incarnation } = OWNER;
        Self { blocks, peer: Peer { worker, incarnation, endpoints } }
    }

    /// Publishes a block and lends it.
    fn publish(&self, tag: u8) -> BlockDescriptor {
        let draft = self.blocks.draft().unwrap();
        self.blocks.arena().write(draft.slot().0)[..].fill(tag);
        let pin =
            self.blocks.publish_computed(draft, SequenceHash([tag; 16]), None, Class::History);
        self.blocks.lend(&[pin], None, TTL, Duration::ZERO).unwrap().1[0]
    }
}

/// A transport whose pulls all end in one way; with nothing, their slots are lost to the device.
struct Fake(Option<TransferError>);

impl Transport for Fake {
    fn kind(&self) -> TransportKind {
        TransportKind::Verbs
    }

    fn pull(&self, _: &Peer, pulls: Vec<Pull>, _: Duration) -> InFlight {
        let fail = |Pull { from: block, into: lease, .. }| {
            let error = self.0.clone()?;
            Some(Settled::Failed { block, lease, error })
        };
        InFlight::ended(pulls.into_iter().filter_map(fail).collect())
    }
}

struct Puller {
    blocks: Blocks,
    counters: Counters,
    links: Links,
    tasks: Tasks,
}

impl Puller {
    fn new(prefer: Preferred) -> Self {
        let blocks = blocks(Identity { worker: WorkerId(2), incarnation: Incarnation(1) });
        let counters = Counters::default();
        let local = Local {
            arena: blocks.arena().clone(),
            token: Token::new([1; 32]),
            counters: counters.clone(),
            tasks: TaskTracker::new(),
            shutdown: CancellationToken::new(),
        };
        // The second attempt over shm finds the link in its back-off.
        let back_off = BackOff { first: TTL, last: TTL };
        let shm_options = shm::ShmOptions { back_off, ..shm::ShmOptions::default() };
        let links = Links {
            tcp: Arc::new(tcp::Tcp::new(local.clone(), tcp::TcpOptions::default())),
            shm: Some(Arc::new(shm::Shm::new(local, shm_options))),
            verbs: None,
            prefer,
            host: "here".into(),
        };
        Self { blocks, counters, links, tasks: Tasks::new(&Drain::new(TTL), 16) }
    }

    /// Its first choice fails like that.
    fn over(fake: Fake) -> Self {
        let mut puller = Self::new(Preferred::Verbs);
        puller.links.verbs = Some(Arc::new(fake));
        puller
    }

    /// Pulls as the schedules do, and gives the slots back.
    async fn pull(&self, peer: &Peer, block: BlockDescriptor) -> Result<Vec<u8>, TransferError> {
        let lease = self.blocks.draft().unwrap().lend();
        let (sender, events) = flume::bounded(1);
        let pulls = vec![Pull::whole(block, lease)];
        self.links.start((&self.tasks, &sender), (peer, pulls), TTL, |ended| ended);
        let Ended::Settled(mut results) = events.recv_async().await.unwrap() else {
            panic!("results come first")
        };
        match results.remove(0) {
            Settled::Arrived { lease, .. } => {
                let draft = lease.settle();
                Ok(self.blocks.arena().read(draft.slot().0)[..].to_vec())
            }
            Settled::Failed { lease, error, .. } => {
                drop(lease.settle());
                Err(error)
            }
        }
    }
}

#[tokio::test]
async fn tcp_brings_what_a_broken_link_cannot() {
    let (owner, puller) = (Owner::start().await, Puller::new(Preferred::Shm));
    for tag in [1, 2] {
        let block = owner.publish(tag);
        assert_eq!(puller.pull(&owner.peer, block).await.unwrap(), [tag; SLOT_BYTES]);
    }
    let tried = puller.counters.sample(TransportKind::Shm, Op::Pull);
    let brought = puller.counters.sample(TransportKind::Tcp, Op::Pull);
    assert_eq!((tried.blocks, tried.failed), (0, 2));
    assert_eq!((brought.blocks, brought.failed), (2, 0));
    assert_eq!(puller.blocks.counts().draft, 0);
}

#[tokio::test]
async fn what_the_owner_refuses_is_not_asked_for_twice() {
    let (mut owner, puller) = (Owner::start().await, Puller::new(Preferred::Tcp));
    let block = owner.publish(1);
    owner.blocks.release(block.lease);
    puller.pull(&owner.peer, block).await.unwrap_err();
    assert_eq!(puller.counters.sample(TransportKind::Tcp, Op::Pull).failed, 1);

    // Nor is a block of another run, whatever transport comes first.
    owner.peer.incarnation = Incarnation(2);
    let shm_first = Puller::new(Preferred::Shm);
    let error = shm_first.pull(&owner.peer, block).await.unwrap_err();
    assert!(matches!(error, TransferError::Foreign { .. }), "{error}");
    assert_eq!(shm_first.counters.sample(TransportKind::Tcp, Op::Pull).failed, 0);
}

/// Every way in which a transport can fail, and whether another is asked for the block.
#[tokio::test]
async fn tcp_stands_in_for_every_failure_of_a_link_and_for_no_other() {
    use TransferError as E;
    let mut owner = Owner::start().await;
    owner.peer.endpoints.verbs = Some("http://owner".into());
    let (address, kind) = ("owner".to_owned(), std::io::ErrorKind::TimedOut);
    let link = |fault| E::LinkFailed { fault };
    let of_the_link = [
        E::NoEndpoint { worker: OWNER.worker, kind: TransportKind::Verbs },
        E::Unreachable { address: address.clone(), kind },
        E::BackingOff { address, retry_in: TTL },
        E::TooManyPeers { limit: 1 },
        E::Lost { kind },
        E::Tls { why: String::new() },
        E::Protocol { what: "" },
        E::Device { problem: String::new() },
        link(LinkFault::Unanswered),
        link(LinkFault::RemoteAccess),
        link(LinkFault::Flushed),
        link(LinkFault::Overdue),
        link(LinkFault::Peer),
        link(LinkFault::Closed),
        Refused::Busy.into(),
        Refused::Tls.into(),
        Refused::Malformed.into(),
        Refused::Connection.into(),
        Refused::Device.into(),
    ];
    for (tag, error) in (1..).zip(of_the_link) {
        let (block, puller) = (owner.publish(tag), Puller::over(Fake(Some(error.clone()))));
        let brought = puller.pull(&owner.peer, block).await;
        assert_eq!(brought, Ok(vec![tag; SLOT_BYTES]), "after: {error}");
        owner.blocks.release(block.lease);
    }
    let of_the_block = [
        E::LeaseExpired,
        E::Deadline,
        E::Cancelled,
        E::Mismatch(Mismatch::Identity),
        Refused::Token.into(),
        Refused::Incarnation.into(),
        Refused::Lease.into(),
        Refused::Generation.into(),
    ];
    for error in of_the_block {
        let (block, puller) = (owner.publish(200), Puller::over(Fake(Some(error.clone()))));
        assert_eq!(puller.pull(&owner.peer, block).await, Err(error));
        owner.blocks.release(block.lease);
    }
}

#[tokio::test]
async fn blocks_that_a_device_keeps_are_told_as_lost() {
    let mut owner = Owner::start().await;
    owner.peer.endpoints.verbs = Some("http://owner".into());
    let (block, puller) = (owner.publish(1), Puller::over(Fake(None)));
    let pulls = vec![Pull::whole(block, puller.blocks.draft().unwrap().lend())];
    let (sender, events) = flume::bounded(1);
    puller.links.start((&puller.tasks, &sender), (&owner.peer, pulls), TTL, |ended| ended);
    drop(sender);
    let settled = events.recv_async().await.unwrap();
    assert!(matches!(&settled, Ended::Settled(results) if results.is_empty()), "{settled:?}");
    let lost = events.recv_async().await.unwrap();
    assert!(matches!(&lost, Ended::Lost(blocks) if *blocks == [block]), "{lost:?}");
    assert!(events.recv_async().await.is_err());
    assert_eq!(puller.blocks.counts().quarantined, 1);
}
