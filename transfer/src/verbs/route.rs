//! A peer's windows, and which of them leads to a slot.

use super::plan::{Move, Stretch, stretches};
use super::rdma::{Remote, RemoteKey};
use baton_arena::RECORD_BYTES;
use baton_proto::internal::Window;

/// A window of a peer, as it says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Door {
    /// The queue pair that it is open to.
    pub(crate) lane: usize,
    address: u64,
    key: RemoteKey,
    bytes: u64,
    first_slot: u32,
    slots: u32,
}

/// One block, or a part of it, that goes from a slot to another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Item {
    /// Which of the blocks it is.
    pub(crate) piece: usize,
    /// The peer's slot.
    pub(crate) remote: u32,
    /// The own slot.
    pub(crate) local: u32,
    /// First byte.
    pub(crate) offset: u64,
    /// How many.
    pub(crate) bytes: u64,
}

/// The work that goes through one window.
pub(crate) struct Route {
    pub(crate) door: Door,
    /// By the peer's slot.
    pub(crate) items: Vec<Item>,
}

impl Door {
    /// A window that a peer sent, if it is open to one of so many queue pairs.
    pub(crate) fn from_wire(window: &Window, lanes: usize) -> Option<Self> {
        let lane = usize::try_from(window.queue_pair).ok().filter(|&lane| lane < lanes)?;
        let key = RemoteKey::from_wire(window.rkey);
        let Window { address, bytes, first_slot, slots, .. } = *window;
        address.checked_add(bytes)?;
        first_slot.checked_add(slots)?;
        Some(Self { lane, address, key, bytes, first_slot, slots })
    }

    fn covers(&self, slot: u32) -> bool {
        slot.checked_sub(self.first_slot).is_some_and(|index| index < self.slots)
    }

    /// Where a stretch of the table behind the window is; `None` if it reaches beyond it.
    pub(crate) fn remote(&self, stretch: Stretch) -> Option<Remote> {
        let end = stretch.remote.checked_add(u64::from(stretch.bytes))?;
        (end <= self.bytes)
            .then(|| Remote { address: self.address + stretch.remote, key: self.key })
    }

    /// Where the records of so many slots from `slot` on are, if this is the window on all records.
    pub(crate) fn records(&self, slot: u32, count: u32) -> Option<Remote> {
        let record = RECORD_BYTES as u64;
        let start = u64::from(slot.checked_sub(self.first_slot)?) * record;
        let end = start + u64::from(count) * record;
        (end <= self.bytes).then(|| Remote { address: self.address + start, key: self.key })
    }
}

/// Sorts items by the windows that lead to them. The piece without a window is the error.
pub(crate) fn routes(doors: Vec<Door>, items: Vec<Item>) -> Result<Vec<Route>, usize> {
    let mut routes: Vec<Route> =
        doors.into_iter().map(|door| Route { door, items: Vec::new() }).collect();
    routes.sort_unstable_by_key(|route| route.door.first_slot);
    for item in items {
        let behind = routes.partition_point(|route| route.door.first_slot <= item.remote);
        let route = behind.checked_sub(1).map(|index| &mut routes[index]);
        match route.filter(|route| route.door.covers(item.remote)) {
            Some(route) => route.items.push(item),
            None => return Err(item.piece),
        }
    }
    for route in &mut routes {
        route.items.sort_by_key(|item| (item.remote, item.local));
    }
    Ok(routes)
}

impl Route {
    /// The payload's work requests: stretches from the start of the window, and of the own arena's
    /// slots.
    pub(crate) fn payload(&self, stride: u64, most: u32, into: &mut Vec<Stretch>) {
        let moves: Vec<Move> = self
            .items
            .iter()
            .map(|&Item { remote, local, offset, bytes, .. }| Move {
                remote: remote - self.door.first_slot,
                local,
                offset,
                bytes,
            })
            .collect();
        stretches(&moves, stride, most, into);
    }
}
