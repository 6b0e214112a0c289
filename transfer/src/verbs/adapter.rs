//! The device of this process, with its arena registered: what both sides stand on.

use super::VerbsOptions;
use super::driver::{Driver, Handle};
use super::lanes::{Lanes, Order};
use super::rdma::{
    ArenaRegion, AsyncEvent, AsyncEvents, CompletionQueue, Device, DeviceError, PairOptions,
    ProtectionDomain, QueuePair, Ready, RemoteEnd, Reset, Rights,
};
use crate::{Counters, LinkFault, Op};
use baton_arena::Arena;
use std::fmt;
use std::sync::Arc;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

/// Events of the device that a connection may be behind.
const EVENTS: usize = 64;
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
    events: broadcast::Sender<AsyncEvent>,
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
}

impl Adapter {
    /// Opens the device that `options` choose, and registers the arena. Has to be called inside a
    /// tokio runtime; it blocks for as long as it takes to pin the arena's memory.
    pub fn open(arena: &Arena, options: &VerbsOptions) -> Result<Self, DeviceError> {
        let device = Device::open(&options.device)?;
        let windows = device.limits().type_2b_windows && !options.registrations_only;
        let shared = windows.then(|| Domain::new(&device, arena, true)).transpose()?;
        let events = broadcast::Sender::new(EVENTS);
        // It ends with the last handle on the adapter, so that nobody has to wait for it.
        let listening = TaskTracker::new().spawn(listen(device.events()?, events.clone()));
        Ok(Self(Arc::new(Inner {
            device,
            arena: arena.clone(),
            options: options.clone(),
            shared,
            events,
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

    /// Makes up to `count` queue pairs whose peers may use them as `rights` say.
    pub(crate) fn unpaired(&self, count: usize, rights: Rights) -> Result<Unpaired, DeviceError> {
        let Inner { device, arena, options, shared, .. } = &*self.0;
        let domain = match shared {
            Some(domain) => domain.clone(),
            None => Domain::new(device, arena, false)?,
        };
        let sends = self.depth() + 1;
        let entries = (sends + RECEIVES) * count as u32;
        let completions = CompletionQueue::new(device, entries.min(device.limits().completions))?;
        let pair = PairOptions { sends, receives: RECEIVES, rights };
        let pairs = (0..count.clamp(1, options.queue_pairs.max(1)))
            .map(|_| QueuePair::new(&domain.pd, &completions, pair))
            .collect::<Result<_, _>>()?;
        Ok(Unpaired { domain, pairs, completions })
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

    /// Connects queue pairs to their other ends, in order; those without one are dropped.
    pub(crate) fn connect(
        &self,
        unpaired: Unpaired,
        ends: &[RemoteEnd],
        counters: &Counters,
        op: Op,
    ) -> Result<Paired, DeviceError> {
        let Unpaired { pairs, completions, .. } = unpaired;
        let mut ready = Vec::with_capacity(ends.len());
        for (pair, end) in pairs.into_iter().zip(ends) {
            let mut pair = pair.connect(end)?;
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
        let lanes = Lanes::new(ready, completions, options.chain, counters.clone(), op);
        let (driver, handle) = Driver::new(lanes, self.depth(), options.chain, options.spin);
        Ok(Paired { handle, driver, numbers, queue })
    }

    /// Runs a connection until it ends, and gives it up when the device says that it is over.
    pub(crate) async fn drive(&self, paired: Paired) -> LinkFault {
        let mut events = self.0.events.subscribe();
        let Paired { handle, driver, numbers, queue } = paired;
        // Whoever uses the connection holds it; this only looks after it.
        drop(handle);
        let breaker = driver.breaker();
        let concerns = |event| match event {
            Ok(AsyncEvent::QueuePairFatal { number }) => numbers.contains(&number),
            Ok(AsyncEvent::CompletionQueueError { queue: broken }) => broken == queue,
            Ok(
                AsyncEvent::PortError { port }
                | AsyncEvent::GidChange { port }
                | AsyncEvent::LidChange { port },
            ) => port == self.device().port().number,
            // Whoever missed events does not know whether its own was among them.
            Ok(AsyncEvent::DeviceFatal) | Err(RecvError::Lagged(_)) => true,
            Ok(AsyncEvent::PortActive { .. } | AsyncEvent::Other { .. })
            | Err(RecvError::Closed) => false,
        };
        let running = driver.run();
        tokio::pin!(running);
        loop {
            tokio::select! {
                fault = &mut running => return fault,
                event = events.recv() => if concerns(event) {
                    breaker.fail(LinkFault::Device);
                },
            }
        }
    }
}

impl Domain {
    fn new(device: &Device, arena: &Arena, windows: bool) -> Result<Self, DeviceError> {
        let pd = ProtectionDomain::new(device)?;
        let region = ArenaRegion::register(&pd, arena, windows)?;
        Ok(Self { pd, region, windows })
    }
}

/// Tells all connections what the device says.
async fn listen(mut from: AsyncEvents, to: broadcast::Sender<AsyncEvent>) {
    loop {
        match from.next().await {
            Ok(event) => {
                tracing::debug!(?event, "the RDMA device says");
                // Nobody listens while there is no connection.
                let _ = to.send(event);
            }
            Err(error) => {
                tracing::warn!(%error, "events of the RDMA device are not heard any more");
                return;
            }
        }
    }
}

impl fmt::Debug for Adapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Adapter").field(&self.0.device).finish()
    }
}
