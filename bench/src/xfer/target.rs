//! The process that holds the blocks.

use super::XferArgs;
use super::args::{BLOCK_BYTES, BLOCKS_MAX};
use super::control::{Answer, Ask, Channel, Published, SILENCE, understood};
use super::fabric;
use super::raw;
use super::store::Store;
use baton_kv::pool;
use baton_node::clock::{Clock, Monotonic};
use baton_node::drain::die_with_parent;
use baton_node::exit::{Exit, Failure};
use baton_node::scratch::Scratch;
use baton_proto::ids::{Incarnation, WorkerId};
use baton_transfer::verbs::VerbsOptions;
use baton_transfer::{Counters, Identity, ServeContext, ServeLimits, Token, shm, tcp};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Longer than any measurement: what is measured is not how leases are renewed.
const LEASE: Duration = Duration::from_hours(24 * 7);
/// Whoever serves is the only worker there is.
const WORKER: WorkerId = WorkerId(1);
/// How long what was served may take to end.
const END_PATIENCE: Duration = Duration::from_secs(20);

/// Serves callers one after the other: one, if a parent started this process, else until
/// interrupted.
pub(super) async fn serve(listen: SocketAddr, args: &XferArgs) -> Result<(), Failure> {
    let memory = args.memory();
    if let Some(parent) = args.parent {
        die_with_parent(parent)?;
    }
    let unavailable = |error| Failure::new(Exit::Unavailable, format!("--serve {listen}: {error}"));
    let listener = TcpListener::bind(listen).await.map_err(unavailable)?;
    let address = listener.local_addr().map_err(unavailable)?;
    println!("serving: {address}");
    let scratch = Scratch::new("xfer-bench")?;
    for run in 1.. {
        let (stream, caller) = listener.accept().await.map_err(unavailable)?;
        if args.parent.is_none() {
            eprintln!("{caller} measures");
        }
        let verbs = args.verbs_options();
        let mut session = Session { scratch: &scratch, memory, verbs, run: run << 32, held: None };
        tokio::select! {
            result = session.run(stream) => if let Err(error) = result {
                eprintln!("{caller}: {error}");
            },
            () = turn_away(&listener) => {}
        }
        session.end().await;
        if args.parent.is_some() {
            break;
        }
    }
    Ok(())
}

/// Tells others that somebody measures already; for ever.
async fn turn_away(listener: &TcpListener) {
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            let busy = Answer::Refused("the target is busy with another measurement".to_owned());
            // Whoever does not wait for the answer does not need it.
            let _ = Channel::new(stream).send(&busy).await;
        }
        // Without file descriptors accepting fails at once, again and again.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// One caller's measurement.
struct Session<'a> {
    scratch: &'a Scratch,
    memory: u64,
    verbs: VerbsOptions,
    /// The incarnation of the next publication, less one.
    run: u64,
    held: Option<Held>,
}

/// Blocks that are served.
struct Held {
    tasks: TaskTracker,
    shutdown: CancellationToken,
    _raw: raw::Source,
}

impl Session<'_> {
    async fn run(&mut self, stream: TcpStream) -> std::io::Result<()> {
        // The data is reached as the caller reached this.
        let ip = stream.local_addr()?.ip();
        let mut channel = Channel::new(stream);
        loop {
            let ask = tokio::time::timeout(SILENCE, channel.receive()).await;
            let answer = match ask.map_err(|_| std::io::ErrorKind::TimedOut)?? {
                None => return Ok(()),
                Some(Ask::Cpu) => Answer::Cpu(super::cpu_seconds()),
                Some(Ask::Publish { version, .. }) if !understood(version) => {
                    Answer::Refused("the target is of another release: run the same".to_owned())
                }
                Some(Ask::Publish { block_bytes, blocks, verbs, .. }) => {
                    self.end().await;
                    match self.publish(ip, (block_bytes, blocks), verbs).await {
                        Ok(published) => Answer::Published(Box::new(published)),
                        Err(why) => Answer::Refused(format!("the target: {why}")),
                    }
                }
            };
            channel.send(&answer).await?;
        }
    }

    async fn publish(
        &mut self,
        ip: IpAddr,
        (block_bytes, blocks): (u64, u32),
        verbs: bool,
    ) -> Result<Published, String> {
        let said = |error: &dyn std::fmt::Display| error.to_string();
        let wanted = block_bytes.saturating_mul(u64::from(blocks));
        let memory = self.memory;
        if !BLOCK_BYTES.contains(&block_bytes) || u64::from(blocks) > BLOCKS_MAX {
            let (least, most) = (BLOCK_BYTES.start(), BLOCK_BYTES.end());
            return Err(format!(
                "{blocks} blocks of {block_bytes} bytes are asked for: at most {BLOCKS_MAX} of \
                 {least} to {most} bytes can be had"
            ));
        }
        if wanted > memory {
            return Err(format!(
                "{wanted} bytes of blocks are asked for, --memory allows {memory}"
            ));
        }
        self.run += 1;
        let clock = Monotonic::process();
        let store = Store::new(blocks, block_bytes).map_err(|error| said(&error))?;
        let pins = store.publish();
        let records = pins.iter().map(|pin| (pin.slot().0, pin.generation().0, pin.crc()));
        let records = records.collect();
        let lease = pool::lock(&store.pool).lease(pins, LEASE, clock.now());
        let lease = lease.map_err(|error| said(&error))?;
        let mut token = [0; 32];
        getrandom::fill(&mut token).map_err(|error| said(&error))?;
        let context = ServeContext {
            arena: store.arena.clone(),
            pool: Arc::clone(&store.pool),
            identity: Identity { worker: WORKER, incarnation: Incarnation(self.run) },
            token: Token::new(token),
            clock: Arc::new(move || clock.now()),
            counters: Counters::default(),
            tasks: TaskTracker::new(),
            shutdown: CancellationToken::new(),
        };
        let (tasks, shutdown) = (context.tasks.clone(), context.shutdown.clone());
        // Whatever fails below: what has begun ends.
        let guard = shutdown.clone().drop_guard();
        let limits = ServeLimits::default();
        let tcp = tcp::Server::bind(SocketAddr::new(ip, 0), context.clone(), limits);
        let tcp = tcp.await.map_err(|error| said(&error))?.local_addr();
        let path = self.scratch.path().join(format!("arena-{}.sock", self.run));
        let verbs =
            if verbs { Some(fabric::serve(ip, context.clone(), &self.verbs).await?) } else { None };
        shm::Server::bind(&path, context, limits).await.map_err(|error| said(&error))?;
        let source = raw::Source::listen(ip, wanted as usize).map_err(|error| said(&error))?;
        let published = Published {
            worker: WORKER.0,
            incarnation: self.run,
            token,
            host: String::new(),
            tcp: Some(tcp),
            shm: Some(path),
            verbs,
            raw: source.address(),
            lease: lease.0,
            lease_ms: u32::MAX,
            block_bytes: block_bytes as u32,
            blocks: records,
        };
        guard.disarm();
        self.held = Some(Held { tasks, shutdown, _raw: source });
        Ok(published)
    }

    /// Ends what is served.
    async fn end(&mut self) {
        let Some(held) = self.held.take() else { return };
        held.shutdown.cancel();
        held.tasks.close();
        if tokio::time::timeout(END_PATIENCE, held.tasks.wait()).await.is_err() {
            eprintln!("warning: what was served does not end");
        }
    }
}
