//! Stretches of the own memory that a peer may touch, from when they are opened until they are
//! closed for certain.

use super::adapter::Domain;
use super::driver::{Handle, Stop, Until};
use super::lanes::{Memory, Order, SharedWindow};
use super::plan::{Extent, deal, most_slots, runs};
use super::rdma::{Bindable, DeviceError, Local, MemoryWindow, RemoteKey, RemoteRegion, Rights};
use crate::LinkFault;
use crate::caller::lock;
use baton_arena::Arena;
use baton_proto::internal::Window;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Less than this is not dealt to several queue pairs.
const SHARE_BYTES: u64 = 256 << 10;

/// Terms of work requests on windows. They never leave the host, but they wait behind what else is
/// posted on their queue pair.
pub(crate) fn by(deadline: Instant) -> Until {
    Until { cancel: CancellationToken::new(), deadline, linger: Duration::ZERO }
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
    on: Bindable,
    stretch: Local,
    rights: Rights,
    /// The start of its first slot, which may lie before the stretch.
    address: u64,
    first_slot: u32,
    slots: u32,
}

enum Key {
    Window(SharedWindow),
    Region(RemoteRegion),
}

impl Opening {
    /// Keys for runs of adjacent bytes, and nothing beside them, dealt to these queue pairs. The
    /// slots have to exist.
    pub(crate) fn of_slots(
        domain: &Domain,
        arena: &Arena,
        extents: impl IntoIterator<Item = Extent>,
        lanes: Range<usize>,
        rights: Rights,
    ) -> Result<Self, DeviceError> {
        let layout = arena.layout();
        let (stride, slot_bytes) = (layout.stride, layout.shape.slot_bytes as u64);
        let least = SHARE_BYTES.div_ceil(stride);
        let least = u32::try_from(least).unwrap_or(u32::MAX);
        let runs = runs(extents, slot_bytes);
        let mut opening = Self::default();
        for (lane, run) in deal(&runs, lanes.len(), (least, most_slots(stride)), slot_bytes) {
            let bytes = u64::from(run.slots - 1) * stride + run.last - run.start;
            let Some(stretch) = domain.region.map().slots(run.first, run.start, bytes) else {
                continue;
            };
            let what = (Memory::Arena(domain.region.clone()), stretch, rights);
            opening.add(domain, arena, what, lanes.start + lane, (run.first, run.slots))?;
            if let Some(door) = opening.doors.last_mut() {
                door.address -= run.start;
            }
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
        let (on, address) = (on.bindable(), stretch.address());
        self.doors.push(Door { key, lane, on, stretch, rights, address, first_slot, slots });
        Ok(())
    }

    /// Frees everything: no key of it opens anything any more. After an error something may still
    /// be open, and is kept.
    pub(crate) fn close(&mut self) -> Result<(), DeviceError> {
        let mut outcome = Ok(());
        for door in std::mem::take(&mut self.doors) {
            if let Err((key, error)) = door.key.close() {
                self.doors.push(Door { key, ..door });
                outcome = Err(error);
            }
        }
        outcome
    }

    /// The work requests that open everything, for each queue pair. Keys are good once they have
    /// completed.
    pub(crate) fn bind(&self, lanes: usize) -> Vec<Vec<Order>> {
        self.orders(lanes, |window, door| Order::Bind {
            window,
            on: door.on.clone(),
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
            address: door.address,
            rkey: door.key.remote().to_wire(),
            bytes: door.stretch.address() - door.address + u64::from(door.stretch.bytes()),
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

impl AsMut<Self> for Opening {
    fn as_mut(&mut self) -> &mut Self {
        self
    }
}

/// Has everything closed by the queue pairs, and frees it: afterwards no key of it opens anything,
/// and `keep` comes back.
///
/// What cannot be closed is cut off by giving the connection up. If the device does not even do
/// that, the error is `keep`: whatever it guards must never be used again. It is `None` if the
/// runtime has ended.
pub(crate) async fn revoke<K>(
    handle: &Handle<Order>,
    lanes: usize,
    keep: K,
    until: Until,
) -> Result<K, Option<K>>
where
    K: AsRef<Opening> + AsMut<Opening> + Send + 'static,
{
    let orders = keep.as_ref().invalidate(lanes);
    let (keep, outcome) = handle.run(orders, keep, until).await.ok_or(None)?;
    match outcome {
        Ok(()) => {}
        Err(Stop::Stuck) => return Err(Some(keep)),
        Err(_) => {
            handle.fail(LinkFault::Overdue);
            // Whatever comes of that: what follows does not rely on it.
            handle.gone().await;
        }
    }
    shut(handle, keep).await.map_err(Some)
}

/// The same where nothing is open by a work request, or is not any more: frees it.
pub(crate) async fn shut<K>(handle: &Handle<Order>, mut keep: K) -> Result<K, K>
where
    K: AsMut<Opening>,
{
    let Err(error) = keep.as_mut().close() else { return Ok(keep) };
    tracing::warn!(%error, "a key could not be taken back; its connection is given up");
    handle.fail(LinkFault::Device);
    // Keys are good for queue pairs of this connection only.
    if handle.gone().await || keep.as_mut().close().is_ok() {
        return Ok(keep);
    }
    tracing::error!("nor could the connection; what the key opens stays out of use");
    Err(keep)
}

impl Key {
    fn close(self) -> Result<(), (Self, DeviceError)> {
        match self {
            Self::Window(window) => match Arc::try_unwrap(window) {
                Ok(window) => {
                    let window = window.into_inner().unwrap_or_else(PoisonError::into_inner);
                    let again = |window| Self::Window(Arc::new(Mutex::new(window)));
                    window.close().map_err(|(window, error)| (again(window), error))
                }
                Err(window) => {
                    let source = io::Error::other("a work request still refers to the window");
                    let error = DeviceError::Call { call: "ibv_dealloc_mw", source };
                    Err((Self::Window(window), error))
                }
            },
            Self::Region(region) => {
                region.close().map_err(|(region, error)| (Self::Region(region), error))
            }
        }
    }

    fn remote(&self) -> RemoteKey {
        match self {
            Self::Window(window) => lock(window).key(),
            Self::Region(region) => region.key(),
        }
    }
}

#[cfg(test)]
impl Opening {
    /// Windows of the null provider, all of the first queue pair.
    pub(crate) fn of_null(windows: impl IntoIterator<Item = MemoryWindow>) -> Self {
        use super::rdma::null;
        use baton_arena::{Layout, Shape};
        let layout = Layout::of(Shape { slots: 4, slot_bytes: 64 });
        let stretch = layout.and_then(|layout| null::map(layout).slots(0, 0, 64));
        let door = |window| Door {
            key: Key::Window(Arc::new(Mutex::new(window))),
            lane: 0,
            on: null::bindable(),
            stretch: stretch.expect("such an arena has a slot"),
            rights: Rights::READ,
            address: 0,
            first_slot: 0,
            slots: 1,
        };
        Self { doors: windows.into_iter().map(door).collect() }
    }
}
