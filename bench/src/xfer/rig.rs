//! Everything that can have a turn, for blocks of one size.

use super::args::{Contestant, OpArg, Shape, Turn, XferArgs};
use super::control::{Channel, Published};
use super::cpu_seconds;
use super::fabric::{self, ByWrite};
use super::lane::{Lane, Moved, Pace};
use super::raw::Sink;
use super::report::Sample;
use super::store::Store;
use baton_kv::lease::Draft;
use baton_node::clock::{Clock, Monotonic};
use baton_node::exit::{Exit, Failure};
use baton_transfer::shm::{Shm, ShmOptions};
use baton_transfer::tcp::{Tcp, TcpOptions};
use baton_transfer::verbs::{Posting, Verbs, VerbsOptions};
use baton_transfer::{Counters, Local, Op, Peer, Token, TransferError, Transport, TransportKind};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// How long what was started may take to end.
const END_PATIENCE: Duration = Duration::from_secs(20);
/// What mapping a batch for the first time may take: all of it is read.
const MAP_PATIENCE: Duration = Duration::from_mins(1);

/// The pulling side.
pub(super) struct Rig {
    shape: Shape,
    turn: Turn,
    store: Store,
    /// The source of memcpy; made when it is first needed.
    second: Option<Store>,
    lanes: Vec<Lane>,
    published: Published,
    peer: Arc<Peer>,
    local: Local,
    /// Whatever still runs ends when this is dropped.
    _guard: DropGuard,
    tcp: Arc<dyn Transport>,
    shm: Arc<Shm>,
    verbs: Option<Verbs>,
    /// The receiving ends of plain sockets; connected when first needed.
    sinks: Vec<Sink>,
    streams: usize,
    /// Where memcpy goes on.
    at: u32,
}

impl Rig {
    pub(super) async fn new(
        args: &XferArgs,
        shape: Shape,
        turn: Turn,
        channel: &mut Channel,
    ) -> Result<Self, Failure> {
        let verbs = args.contestants()?.iter().any(|contestant| contestant.is_over_verbs());
        let published = channel.publish(shape.block_bytes, shape.blocks, verbs).await?;
        let store = Store::new(shape.blocks, shape.block_bytes).map_err(|error| no_room(&error))?;
        let local = Local {
            arena: store.arena.clone(),
            token: Token::new(published.token),
            counters: Counters::default(),
            tasks: TaskTracker::new(),
            shutdown: CancellationToken::new(),
        };
        let mut options = TcpOptions::default();
        if let Some(streams) = args.streams {
            options.connections_per_peer = usize::from(streams);
            // Each pull takes all of them.
            let bytes = u64::from(shape.batch) * shape.block_bytes;
            options.bytes_per_connection = bytes.div_ceil(u64::from(streams)).max(1);
        }
        let lanes = lanes(args, shape, &published, &store);
        Ok(Self {
            shape,
            turn,
            second: None,
            lanes,
            peer: Arc::new(published.peer()),
            tcp: Arc::new(Tcp::new(local.clone(), options)),
            shm: Arc::new(Shm::new(local.clone(), ShmOptions::default())),
            verbs: verbs.then(|| fabric::pulling(&local, &args.verbs_options())).transpose()?,
            _guard: local.shutdown.clone().drop_guard(),
            local,
            store,
            published,
            sinks: Vec::new(),
            streams: options.connections_per_peer,
            at: 0,
        })
    }

    /// Everything is touched once.
    pub(super) async fn warm_up(&mut self, contestant: Contestant) -> Result<(), Failure> {
        // Mappings are made by one task, whatever the lanes.
        let mapped = matches!(contestant, Contestant::Pull(_, OpArg::Map));
        let tasks = if mapped { 1 } else { self.lanes.len() as u32 };
        let pulls = self.shape.blocks / self.shape.batch / tasks;
        self.perform(contestant, Turn::Pulls(pulls)).await.map(drop)
    }

    /// One turn, and what it took on both sides.
    pub(super) async fn turn(
        &mut self,
        contestant: Contestant,
        channel: &mut Channel,
    ) -> Result<Sample, Failure> {
        let clock = Monotonic::process();
        let cpu = channel.cpu().await? + cpu_seconds();
        let begun = clock.now();
        let moved = self.perform(contestant, self.turn).await?;
        let took = clock.now().saturating_sub(begun);
        let cpu = channel.cpu().await? + cpu_seconds() - cpu;
        Ok(Sample { moved, took, cpu_s: cpu })
    }

    /// Pulls everything by every transport and compares it.
    pub(super) async fn check(&mut self, contestants: &[Contestant]) -> Result<u64, Failure> {
        let mut compared = 0;
        for contestant in contestants {
            let Contestant::Pull(kind, op) = contestant else { continue };
            if *op == OpArg::Map {
                // What is mapped is the target's own memory, compared with its checksum.
                continue;
            }
            let transport = self.transport(*kind, *op);
            let mut lanes = Vec::new();
            let mut failed = None;
            for lane in std::mem::take(&mut self.lanes) {
                let (lane, outcome) = lane.check(&*transport, &self.peer, &self.store).await;
                lanes.push(lane);
                match outcome {
                    Ok(blocks) => compared += blocks,
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
            self.lanes = lanes;
            if let Some(error) = failed {
                return Err(error);
            }
        }
        Ok(compared)
    }

    /// Ends what was started.
    pub(super) async fn end(self) {
        self.local.shutdown.cancel();
        self.local.tasks.close();
        if tokio::time::timeout(END_PATIENCE, self.local.tasks.wait()).await.is_err() {
            eprintln!("warning: pulls do not end");
        }
    }

    fn transport(&self, kind: TransportKind, op: OpArg) -> Arc<dyn Transport> {
        match (kind, &self.verbs) {
            (TransportKind::Tcp, _) => Arc::clone(&self.tcp),
            (TransportKind::Shm, _) => Arc::clone(&self.shm) as _,
            (TransportKind::Verbs, Some(verbs)) if op == OpArg::Write => {
                Arc::new(ByWrite(verbs.clone()))
            }
            (TransportKind::Verbs, Some(verbs)) => Arc::new(verbs.clone()),
            (kind, _) => unreachable!("no argument names {kind}"),
        }
    }

    async fn perform(&mut self, contestant: Contestant, turn: Turn) -> Result<Moved, Failure> {
        match contestant {
            Contestant::Pull(_, OpArg::Map) => self.map(turn).await,
            Contestant::Pull(kind, op) => self.pull((kind, op), turn).await,
            Contestant::Memcpy => self.memcpy(turn).await,
            Contestant::RawTcp => self.raw(turn).await,
            Contestant::Posting => self.post(turn).await,
        }
    }

    /// All lanes at once, each in a task of its own.
    async fn pull(
        &mut self,
        (kind, op): (TransportKind, OpArg),
        turn: Turn,
    ) -> Result<Moved, Failure> {
        let transport = self.transport(kind, op);
        let posted = || {
            let sample = self.local.counters.sample(kind, Op::Pull);
            (sample.work_requests, sample.doorbells)
        };
        let before = posted();
        let run = |lane: Lane| {
            let (transport, peer) = (Arc::clone(&transport), Arc::clone(&self.peer));
            self.local.tasks.spawn(async move { lane.run(&*transport, &peer, turn).await })
        };
        let running: Vec<_> = self.lanes.drain(..).map(run).collect();
        let mut moved = Moved::none();
        let mut failed = None;
        for lane in running {
            let Ok((lane, outcome)) = lane.await else {
                return Err(panicked());
            };
            self.lanes.push(lane);
            match outcome {
                Ok(lane) => moved.add(&lane),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        let after = self.local.counters.sample(kind, Op::Pull);
        moved.requests = after.work_requests - before.0;
        moved.doorbells = after.doorbells - before.1;
        failed.map_or(Ok(moved), Err)
    }

    /// Maps batch by batch, on one task; all blocks have been verified by then.
    async fn map(&mut self, turn: Turn) -> Result<Moved, Failure> {
        let (shm, peer) = (Arc::clone(&self.shm), Arc::clone(&self.peer));
        let (blocks, batch) = (self.published.descriptors(), self.shape.batch as usize);
        let over = self.local.shutdown.clone();
        let map = async move {
            let mut moved = Moved::none();
            let mut pace = Pace::new(turn);
            for blocks in blocks.chunks_exact(batch).cycle() {
                if !pace.goes_on() || over.is_cancelled() {
                    break;
                }
                let begun = pace.now();
                drop(shm.map(&peer, blocks, MAP_PATIENCE).await?);
                moved.record(batch as u64, pace.now().saturating_sub(begun));
            }
            Ok(moved)
        };
        let mapped = self.local.tasks.spawn(map).await.map_err(|_| panicked())?;
        mapped.map_err(|error: TransferError| {
            Failure::new(Exit::Unavailable, format!("blocks cannot be mapped: {error}"))
        })
    }

    /// Copies block by block from one arena to another, on one thread.
    async fn memcpy(&mut self, turn: Turn) -> Result<Moved, Failure> {
        let Shape { block_bytes, batch, blocks } = self.shape;
        let source = if let Some(second) = &self.second {
            second.arena.clone()
        } else {
            let second = Store::new(blocks, block_bytes).map_err(|error| no_room(&error))?;
            drop(second.publish());
            self.second.insert(second).arena.clone()
        };
        let (into, over, mut at) = (self.store.arena.clone(), self.local.shutdown.clone(), self.at);
        let copy = move || {
            let mut moved = Moved::none();
            let mut pace = Pace::new(turn);
            while pace.goes_on() && !over.is_cancelled() {
                let begun = pace.now();
                for _ in 0..batch {
                    into.write(at).copy_from_slice(&source.read(at));
                    at = (at + 1) % blocks;
                }
                moved.record(u64::from(batch), pace.now().saturating_sub(begun));
            }
            (moved, at)
        };
        let copied = self.local.tasks.spawn_blocking(copy).await;
        let (moved, at) = copied.map_err(|_| panicked())?;
        self.at = at;
        Ok(moved)
    }

    /// Pulls all blocks, batch by batch, through a device that does nothing.
    async fn post(&mut self, turn: Turn) -> Result<Moved, Failure> {
        let Shape { block_bytes, batch, blocks } = self.shape;
        let arena = self.store.arena.shape();
        let over = self.local.shutdown.clone();
        let post = async move {
            let mut posting = Posting::new(arena, VerbsOptions::default())?;
            let pairs: Vec<_> = scattered(blocks).collect();
            let mut moved = Moved::none();
            let mut pace = Pace::new(turn);
            for pairs in pairs.chunks_exact(batch as usize).cycle() {
                if !pace.goes_on() || over.is_cancelled() {
                    break;
                }
                let begun = pace.now();
                let round = posting.round(pairs, block_bytes).await?;
                moved.record(u64::from(batch), pace.now().saturating_sub(begun));
                moved.requests += round.requests;
                moved.doorbells += round.doorbells;
            }
            Some(moved)
        };
        let posted = self.local.tasks.spawn(post).await.map_err(|_| panicked())?;
        posted.ok_or_else(|| {
            Failure::new(Exit::Runtime, "work requests that were posted to no device did not end")
        })
    }

    /// Receives plain streams, each on a thread of its own.
    async fn raw(&mut self, turn: Turn) -> Result<Moved, Failure> {
        let bytes = u64::from(self.shape.batch) * self.shape.block_bytes;
        let working_set = u64::from(self.shape.blocks) * self.shape.block_bytes;
        let failed = |error: std::io::Error| {
            Failure::new(Exit::Unavailable, format!("a plain socket: {error}"))
        };
        while self.sinks.len() < self.streams {
            let share = self.sinks.len();
            let sink = Sink::connect(self.published.raw, working_set as usize, share, self.streams);
            self.sinks.push(sink.map_err(failed)?);
        }
        // Together the streams move one batch per step.
        let step = bytes.div_ceil(self.streams as u64) as usize;
        let receive = |mut sink: Sink| {
            let over = self.local.shutdown.clone();
            self.local.tasks.spawn_blocking(move || {
                let mut pace = Pace::new(turn);
                let received = sink.receive(step, || pace.goes_on() && !over.is_cancelled());
                (sink, received)
            })
        };
        let receiving: Vec<_> = self.sinks.drain(..).map(receive).collect();
        let mut received = 0;
        for sink in receiving {
            let (sink, outcome) = sink.await.map_err(|_| panicked())?;
            self.sinks.push(sink);
            received += outcome.map_err(failed)?;
        }
        Ok(Moved { blocks: received / self.shape.block_bytes, ..Moved::none() })
    }
}

/// Shares blocks and slots out to the lanes, in order.
fn lanes(args: &XferArgs, shape: Shape, published: &Published, store: &Store) -> Vec<Lane> {
    let mut blocks = published.descriptors();
    let mut drafts: Vec<Draft> = store.drafts();
    drafts.sort_by_key(Draft::slot);
    let share = blocks.len() / usize::from(args.threads);
    let lane = |number: u16| {
        let (blocks, drafts) = (blocks.drain(..share).collect(), drafts.drain(..share).collect());
        Lane::new(blocks, drafts, shape.batch, args.placement, u64::from(number))
    };
    (0..args.threads).map(lane).collect()
}

/// Slots of both sides so that no two neighbours meet: each block is a work request.
fn scattered(blocks: u32) -> impl Iterator<Item = (u32, u32)> {
    let (even, odd) = ((0..blocks).step_by(2), (1..blocks).step_by(2));
    let remote = even.chain(odd);
    remote.zip((0..blocks).rev())
}

fn no_room(error: &baton_arena::ArenaError) -> Failure {
    Failure::new(Exit::Unavailable, format!("--working-set: {error}"))
}

fn panicked() -> Failure {
    Failure::new(Exit::BrokenInvariant, "a thread that measures has panicked")
}
