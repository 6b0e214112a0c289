//! The device of this process, with its arena registered: what both sides stand on.

use super::VerbsOptions;
use super::driver::{Driver, Handle};
use super::lanes::{Lanes, Order};
use super::rdma::{
    ArenaRegion, AsyncEvent, CompletionQueue, Device, DeviceError, PairOptions, Port,
    ProtectionDomain, QueuePair, Ready, RemoteEnd, Reset, Rights,
};
use super::reports::{Hearing, Reports};
use crate::{Counters, LinkFault, Op};
use baton_arena::Arena;
use std::fmt;
use std::io;
use std::sync::Arc;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

/// Immediates that may be on their way on one queue pair.
const RECEIVES: u32 = 16;

/// An opened RDMA device on which blocks of one arena are pulled and served. Clones are handles on
/// the same one.
#[derive(Clone)]
pub struct Adapter(Arc<Inner>);

struct Inner {
    device: Device,
    arena: Arena,
    options: VerbsOptions,
    /// What all connections share where windows open single stretches of it. Where there are none,
    /// a key opens its stretch to all queue pairs of a domain, so that each connection gets its own.
    shared: Option<Domain>,
    reports: Reports,
    #[cfg(test)]
    fuses: std::sync::Mutex<Vec<super::rdma::Fuse>>,
    _listening: AbortOnDropHandle<()>,
}

/// A protection domain in which the arena is registered, for nobody but this process.
#[derive(Clone)]
pub(crate) struct Domain {
    pub(crate) pd: ProtectionDomain,
    pub(crate) region: ArenaRegion,
    /// Whether peers get in by windows; otherwise by registrations of their own.
    pub(crate) windows: bool,
}

/// Queue pairs that know of no peer yet.
pub(crate) struct Unpaired {
    pub(crate) domain: Domain,
    /// The port that they leave by.
    pub(crate) port: Port,
    pub(crate) pairs: Vec<QueuePair<Reset>>,
    completions: CompletionQueue,
}

/// A connection that is set up and not driven yet.
pub(crate) struct Paired {
    pub(crate) handle: Handle<Order>,
    driver: Driver<Lanes<QueuePair<Ready>, CompletionQueue>>,
    /// Its queue pairs' numbers and its completion queue's id, as the device's events say them.
    numbers: Vec<u32>,
    queue: u64,
    hearing: Hearing,
}

impl Adapter {
    /// Opens the device that `options` choose, and registers the arena. Has to be called inside a
    /// tokio runtime; it blocks for as long as it takes to pin the arena's memory.
    pub fn open(arena: &Arena, options: &VerbsOptions) -> Result<Self, DeviceError> {
        let device = Device::open(&options.device)?;
        let windows = device.limits().type_2b_windows && !options.registrations_only;
        let shared = windows.then(|| Domain::new(&device, arena, true)).transpose()?;
        let reports = Reports::default();
        let events = futures_util::stream::unfold(device.events()?, |mut events| async {
            Some((events.next().await, events))
        });
        // It ends with the last handle on the adapter, so that nobody has to wait for it.
        let listening = TaskTracker::new().spawn(reports.clone().listen(events));
        Ok(Self(Arc::new(Inner {
            device,
            arena: arena.clone(),
            options: options.clone(),
            shared,
            reports,
            #[cfg(test)]
            fuses: std::sync::Mutex::default(),
            _listening: AbortOnDropHandle::new(listening),
        })))
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.0.device
    }

    /// Breaks all queue pairs that there are, behind the back of whoever uses them.
    #[cfg(test)]
    pub(crate) fn break_pairs(&self) {
        crate::caller::lock(&self.0.fuses).drain(..).for_each(|fuse| fuse.blow());
    }

    pub(crate) fn options(&self) -> &VerbsOptions {
        &self.0.options
    }

    /// Makes up to `count` queue pairs whose peers may use them as `rights` say. The calls that this
    /// takes may block, and do so in a task of `tasks`.
    pub(crate) async fn unpaired(
        &self,
        tasks: &TaskTracker,
        count: usize,
        rights: Rights,
    ) -> Result<Unpaired, DeviceError> {
        let adapter = self.clone();
        blocking(tasks, move || adapter.unpaired_now(count, rights)).await
    }

    fn unpaired_now(&self, count: usize, rights: Rights) -> Result<Unpaired, DeviceError> {
        let Inner { device, arena, options, shared, reports, .. } = &*self.0;
        if reports.is_over() {
            return Err(DeviceError::Lost { device: device.name().to_owned() });
        }
        let port = device.port_now()?;
        let domain = match shared {
            Some(domain) => domain.clone(),
            None => Domain::new(device, arena, false)?,
        };
        let count = count.clamp(1, options.queue_pairs.max(1));
        let sends = self.depth() + 1;
        // More than there are refused, with the number that was asked for.
        let each = sends.saturating_add(RECEIVES);
        let entries = each.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX));
        let completions = CompletionQueue::new(device, entries)?;
        let pair = PairOptions { sends, receives: RECEIVES, rights };
        let pairs = (0..count)
            .map(|_| QueuePair::new(&domain.pd, &completions, pair))
            .collect::<Result<_, _>>()?;
        Ok(Unpaired { domain, port, pairs, completions })
    }

    /// Work requests outstanding on one queue pair; one more fits, to mark its end.
    fn depth(&self) -> u32 {
        let most = self.0.device.limits().send_requests.saturating_sub(1);
        self.0.options.depth.clamp(1, most.max(1))
    }

    /// Bytes of one work request at most.
    pub(crate) fn message_bytes(&self) -> u32 {
        self.0.options.message_bytes.min(self.0.device.limits().message_bytes).max(1)
    }

    /// Connects queue pairs to their other ends, in order; those without one are dropped. In a task
    /// of `tasks`, as [`unpaired`](Self::unpaired).
    pub(crate) async fn connect(
        &self,
        tasks: &TaskTracker,
        unpaired: Unpaired,
        ends: Vec<RemoteEnd>,
        counted: (Counters, Op),
    ) -> Result<Paired, DeviceError> {
        let adapter = self.clone();
        blocking(tasks, move || adapter.connect_now(unpaired, &ends, counted)).await
    }

    fn connect_now(
        &self,
        unpaired: Unpaired,
        ends: &[RemoteEnd],
        (counters, op): (Counters, Op),
    ) -> Result<Paired, DeviceError> {
        let Unpaired { port, pairs, completions, .. } = unpaired;
        // What happens to the queue pairs from here on is heard by whoever drives them.
        let hearing = self.0.reports.subscribe();
        let mut ready = Vec::with_capacity(ends.len());
        for (pair, end) in pairs.into_iter().zip(ends) {
            let mut pair = pair.connect(&port, end)?;
            pair.post_receives(RECEIVES).map_err(|error| DeviceError::Call {
                call: "ibv_post_recv",
                source: error.source,
            })?;
            #[cfg(test)]
            crate::caller::lock(&self.0.fuses).push(pair.fuse());
            ready.push(pair);
        }
        let options = self.options();
        let (numbers, queue) = (ready.iter().map(QueuePair::number).collect(), completions.id());
        let lanes = Lanes::new(ready, completions, options.chain, counters, op);
        let (driver, handle) = Driver::new(lanes, self.depth(), options.chain, options.spin);
        Ok(Paired { handle, driver, numbers, queue, hearing })
    }

    /// Runs a connection until it ends, and gives it up when the device says that it is over.
    pub(crate) async fn drive(&self, paired: Paired) -> LinkFault {
        let Paired { handle, driver, numbers, queue, hearing } = paired;
        // Whoever uses the connection holds it; this only looks after it.
        drop(handle);
        let breaker = driver.breaker();
        let concerns = |event| match event {
            AsyncEvent::QueuePairFatal { number } => numbers.contains(&number),
            AsyncEvent::CompletionQueueError { queue: broken } => broken == queue,
            AsyncEvent::PortError { port }
            | AsyncEvent::GidChange { port }
            | AsyncEvent::LidChange { port } => port == self.device().port().number,
            AsyncEvent::DeviceFatal => true,
            AsyncEvent::PortActive { .. } | AsyncEvent::Other { .. } => false,
        };
        hearing.watch(driver.run(), concerns, &breaker).await
    }
}

impl Domain {
    fn new(device: &Device, arena: &Arena, windows: bool) -> Result<Self, DeviceError> {
        let pd = ProtectionDomain::new(device)?;
        let region = ArenaRegion::register(&pd, arena, windows)?;
        Ok(Self { pd, region, windows })
    }
}

/// Runs system calls that may take long where that holds up nobody.
async fn blocking<T: Send + 'static>(
    tasks: &TaskTracker,
    run: impl FnOnce() -> Result<T, DeviceError> + Send + 'static,
) -> Result<T, DeviceError> {
    let ended =
        |error| DeviceError::Call { call: "a blocking task", source: io::Error::other(error) };
    tasks.spawn_blocking(run).await.map_err(ended)?
}

impl fmt::Debug for Adapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Adapter").field(&self.0.device).finish()
    }
}
