//! What posting costs by itself: descriptors become windows, routes, work requests, chains, and go
//! through a connection's driver to a device that does nothing and completes at once.

use super::VerbsOptions;
use super::driver::{Driver, Handle, Until};
use super::lanes::{Lanes, Order};
use super::rdma::null::{self, NullCompletions, NullPair};
use super::rdma::{ArenaMap, ScratchMap};
use super::requests::{Slots, Tables};
use super::route::{Door, Item, routes};
use crate::{Counters, LinkFault, Op, TransportKind};
use baton_arena::{Layout, RECORD_BYTES, Shape};
use baton_proto::internal::Window;
use std::fmt;
use std::pin::Pin;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Pulls blocks from nowhere. Time it to learn what each descriptor costs on this side.
pub struct Posting {
    layout: Layout,
    map: ArenaMap,
    scratch: ScratchMap,
    options: VerbsOptions,
    records: Vec<Door>,
    handle: Handle<Order>,
    driving: Pin<Box<dyn Future<Output = LinkFault> + Send>>,
    counters: Counters,
}

/// What a round of posting came to.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Round {
    /// Work requests that were posted.
    pub requests: u64,
    /// Calls into the provider.
    pub doorbells: u64,
}

impl Posting {
    /// A connection to an owner with an arena of the same shape, with queue pairs, depth, chains
    /// and messages as the options say. `None` if there is no arena of that shape.
    pub fn new(shape: Shape, options: VerbsOptions) -> Option<Self> {
        let layout = Layout::of(shape)?;
        let lanes = options.queue_pairs.max(1);
        let depth = options.depth.max(1);
        let (completions, strings) = null::completions(lanes * (depth as usize + 1));
        let pairs: Vec<NullPair> = (0..lanes as u32).map(|number| strings.pair(number)).collect();
        let counters = Counters::default();
        let connection: Lanes<NullPair, NullCompletions> =
            Lanes::new(pairs, completions, options.chain, counters.clone(), Op::Pull);
        let (driver, handle) = Driver::new(connection, depth, options.chain, options.spin);
        let records = (0..lanes).map(|lane| {
            let bytes = u64::from(shape.slots) * RECORD_BYTES as u64;
            let address = layout.records;
            Door::from_wire(&window(lane, address, bytes, 0, shape.slots), lanes)
        });
        Some(Self {
            layout,
            map: null::map(layout),
            scratch: null::scratch(u64::from(shape.slots) * RECORD_BYTES as u64),
            records: records.collect::<Option<_>>()?,
            options,
            handle,
            driving: Box::pin(driver.run()),
            counters,
        })
    }

    /// Pulls `bytes` bytes from the start of each of the owner's slots into an own one: all that a
    /// pull does from the owner's answer up to the last completion. `None` if there is no such
    /// slot, or a slot has fewer bytes, or the runtime ends. Has to be called inside a tokio
    /// runtime.
    pub async fn round(&mut self, blocks: &[(u32, u32)], bytes: u64) -> Option<Round> {
        let before = self.posted();
        let items = blocks.iter().enumerate();
        let items =
            items.map(|(piece, &(remote, local))| Item { piece, remote, local, offset: 0, bytes });
        let mut routes = routes(self.doors(), items.collect()).ok()?;
        routes.sort_by_key(|route| route.door.lane);
        let tables = Tables {
            slots: Slots {
                map: self.map,
                stride: self.layout.stride,
                message_bytes: self.options.message_bytes,
            },
            records: self.scratch,
            peer_records: &self.records,
            fence: true,
        };
        let orders = tables.reads(&routes)?.together();
        let until = Until {
            cancel: CancellationToken::new(),
            deadline: Instant::now() + Duration::from_mins(1),
            linger: Duration::ZERO,
        };
        let ((), outcome) = tokio::select! {
            outcome = self.handle.run(orders, (), until) => outcome?,
            _fault = &mut self.driving => return None,
        };
        outcome.ok()?;
        let after = self.posted();
        Some(Round {
            requests: after.requests - before.requests,
            doorbells: after.doorbells - before.doorbells,
        })
    }

    /// The owner's windows: its slots dealt to the queue pairs in equal parts.
    fn doors(&self) -> Vec<Door> {
        let lanes = self.records.len();
        let Layout { shape, stride, payload, .. } = self.layout;
        let share = shape.slots.div_ceil(lanes as u32);
        let door = |lane: usize| {
            let first = share * lane as u32;
            let slots = share.min(shape.slots.checked_sub(first)?);
            let (address, bytes) = (payload + u64::from(first) * stride, u64::from(slots) * stride);
            Door::from_wire(&window(lane, address, bytes, first, slots), lanes)
        };
        (0..lanes).filter_map(door).collect()
    }

    fn posted(&self) -> Round {
        let sample = self.counters.sample(TransportKind::Verbs, Op::Pull);
        Round { requests: sample.work_requests, doorbells: sample.doorbells }
    }
}

fn window(lane: usize, address: u64, bytes: u64, first_slot: u32, slots: u32) -> Window {
    Window { queue_pair: lane as u32, address, rkey: 0, bytes, first_slot, slots }
}

impl fmt::Debug for Posting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Posting").field("shape", &self.layout.shape).finish_non_exhaustive()
    }
}
