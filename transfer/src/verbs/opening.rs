//! Stretches of the own memory that a peer may touch, from when they are opened until they are
//! closed for certain.

use super::adapter::Domain;
use super::driver::Until;
use super::lanes::{Memory, Order, SharedWindow};
use super::plan::{deal, runs};
use super::rdma::{DeviceError, Local, MemoryWindow, RemoteKey, RemoteRegion, Rights};
use crate::caller::lock;
use baton_arena::Arena;
use baton_proto::internal::Window;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long work requests on windows may take: they never leave the host.
const LOCAL: Duration = Duration::from_secs(1);
/// Less than this is not dealt to several queue pairs.
const SHARE_BYTES: u64 = 256 << 10;

/// Terms of work requests that concern this host only.
pub(crate) fn local() -> Until {
    let (cancel, deadline) = (CancellationToken::new(), Instant::now() + LOCAL);
    Until { cancel, deadline, linger: Duration::ZERO }
}

/// Keys of one grant, or of one push. Dropping it closes what is still open, at once, but with a system call for
/// each; [`Opening::invalidate`] does it by the queue pair.
#[derive(Default)]
pub(crate) struct Opening {
    doors: Vec<Door>,
}

struct Door {
    key: Key,
    lane: usize,
    on: Memory,
    stretch: Local,
    rights: Rights,
    first_slot: u32,
    slots: u32,
}

enum Key {
    Window(SharedWindow),
    Region(RemoteRegion),
}

impl Opening {
    /// Keys for runs of adjacent slots, dealt to these queue pairs. The slots have to exist.
    pub(crate) fn of_slots(
        domain: &Domain,
        arena: &Arena,
        slots: impl IntoIterator<Item = u32>,
        lanes: Range<usize>,
        rights: Rights,
    ) -> Result<Self, DeviceError> {
        let layout = arena.layout();
        let (stride, slot_bytes) = (layout.stride, layout.shape.slot_bytes as u64);
        let least = SHARE_BYTES.div_ceil(stride);
        let most = (u64::from(u32::MAX) / stride).max(1);
        let clamp = |slots: u64| u32::try_from(slots).unwrap_or(u32::MAX);
        let mut opening = Self::default();
        for (lane, run) in deal(&runs(slots), lanes.len(), clamp(least), clamp(most)) {
            let bytes = u64::from(run.slots - 1) * stride + slot_bytes;
            let Some(stretch) = domain.region.map().slots(run.first, 0, bytes) else {
                continue;
            };
            let what = (Memory::Arena(domain.region.clone()), stretch, rights);
            opening.add(domain, arena, what, lanes.start + lane, (run.first, run.slots))?;
        }
        Ok(opening)
    }

    /// Adds a stretch, to be opened for one queue pair. It covers `slots` slots from `first_slot`
    /// on, or records of so many.
    pub(crate) fn add(
        &mut self,
        domain: &Domain,
        arena: &Arena,
        (on, stretch, rights): (Memory, Local, Rights),
        lane: usize,
        (first_slot, slots): (u32, u32),
    ) -> Result<(), DeviceError> {
        let key = if domain.windows {
            Key::Window(Arc::new(Mutex::new(MemoryWindow::alloc(&domain.pd)?)))
        } else {
            Key::Region(match &on {
                Memory::Arena(_) => RemoteRegion::of_arena(&domain.pd, arena, stretch, rights)?,
                Memory::Scratch(scratch) => {
                    RemoteRegion::of_scratch(&domain.pd, scratch, stretch, rights)?
                }
            })
        };
        self.doors.push(Door { key, lane, on, stretch, rights, first_slot, slots });
        Ok(())
    }

    /// The work requests that open everything, for each queue pair. Keys are good once they have
    /// completed.
    pub(crate) fn bind(&self, lanes: usize) -> Vec<Vec<Order>> {
        self.orders(lanes, |window, door| Order::Bind {
            window,
            on: door.on.bindable(),
            stretch: door.stretch,
            rights: door.rights,
        })
    }

    /// The work requests that close everything. Once they have completed, no key opens anything.
    pub(crate) fn invalidate(&self, lanes: usize) -> Vec<Vec<Order>> {
        self.orders(lanes, |window, _| Order::Invalidate { window })
    }

    fn orders(
        &self,
        lanes: usize,
        order: impl Fn(SharedWindow, &Door) -> Order,
    ) -> Vec<Vec<Order>> {
        let mut orders: Vec<Vec<Order>> = (0..lanes).map(|_| Vec::new()).collect();
        for door in &self.doors {
            if let Key::Window(window) = &door.key {
                orders[door.lane].push(order(Arc::clone(window), door));
            }
        }
        orders
    }

    /// Keeps another one's keys open as long as its own.
    pub(crate) fn absorb(&mut self, other: Self) {
        self.doors.extend(other.doors);
    }

    /// What the peer has to know, in the order in which the stretches were added.
    pub(crate) fn to_wire(&self) -> Vec<Window> {
        let window = |door: &Door| Window {
            queue_pair: door.lane as u32,
            address: door.stretch.address(),
            rkey: door.key.remote().to_wire(),
            bytes: u64::from(door.stretch.bytes()),
            first_slot: door.first_slot,
            slots: door.slots,
        };
        self.doors.iter().map(window).collect()
    }
}

impl AsRef<Self> for Opening {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl Key {
    fn remote(&self) -> RemoteKey {
        match self {
            Self::Window(window) => lock(window).key(),
            Self::Region(region) => region.key(),
        }
    }
}
