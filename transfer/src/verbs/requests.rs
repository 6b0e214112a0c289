//! The work requests of pulls and pushes: from windows and slots to READs and WRITEs, in the order
//! of their queue pairs.

use super::lanes::Order;
use super::plan::{Move, stretches};
use super::rdma::{ArenaMap, Local, Remote, ScratchMap};
use super::route::{Door, Item, Route};
use baton_arena::RECORD_BYTES;

/// The own slots.
#[derive(Clone, Copy)]
pub(super) struct Slots {
    pub(super) map: ArenaMap,
    /// Bytes from one slot to the next, at both ends.
    pub(super) stride: u64,
    /// Bytes of one work request at most.
    pub(super) message_bytes: u32,
}

/// Where a pull's work requests read and write.
pub(super) struct Tables<'a> {
    pub(super) slots: Slots,
    /// Where slot records go, one behind the other.
    pub(super) records: ScratchMap,
    /// The owner's slot records, per queue pair.
    pub(super) peer_records: &'a [Door],
    /// Whether records wait for payloads by a fence, see [`Limits::fences`](super::rdma::Limits).
    pub(super) fence: bool,
}

/// The work requests of a pull by READ, for each queue pair.
pub(super) struct Reads {
    pub(super) payload: Vec<Vec<Order>>,
    /// Slot records, to be posted behind all payloads of the same queue pair. The first of them
    /// waits until those have arrived: whoever reads a record has to know that what it says was so
    /// after the payload was read.
    pub(super) records: Vec<Vec<Order>>,
}

impl Reads {
    /// One list for each queue pair.
    pub(super) fn together(mut self) -> Vec<Vec<Order>> {
        for (payload, records) in self.payload.iter_mut().zip(&mut self.records) {
            payload.append(records);
        }
        self.payload
    }
}

impl Slots {
    /// One work request for each stretch of payload, for each of `lanes` queue pairs.
    fn payload(
        &self,
        routes: &[Route],
        lanes: usize,
        order: impl Fn(Local, Remote) -> Order,
    ) -> Option<Vec<Vec<Order>>> {
        let mut orders: Vec<Vec<Order>> = (0..lanes).map(|_| Vec::new()).collect();
        let mut plan = Vec::new();
        for route in routes {
            plan.clear();
            route.payload(self.stride, self.message_bytes, &mut plan);
            for &stretch in &plan {
                let slot = u32::try_from(stretch.local / self.stride).ok()?;
                let offset = stretch.local % self.stride;
                let own = self.map.slots(slot, offset, u64::from(stretch.bytes))?;
                orders[route.door.lane].push(order(own, route.door.remote(stretch)?));
            }
        }
        Some(orders)
    }

    /// WRITEs of payloads, and behind them WRITEs of the slot records, the last of which brings an
    /// immediate. All routes have to be of the queue pair to which `records` is open: what one
    /// queue pair writes arrives in the order in which it was posted.
    ///
    /// Each record goes to where its piece is counted. `None` if a window is smaller than what is
    /// behind it, or nothing is to be written.
    pub(super) fn writes(
        &self,
        routes: &[Route],
        lanes: usize,
        records: &Door,
        immediate: u32,
    ) -> Option<Vec<Vec<Order>>> {
        let mut orders = self.payload(routes, lanes, |from, into| Order::Write { from, into })?;
        let (record, bytes) = (RECORD_BYTES as u32, RECORD_BYTES as u64);
        let mut items: Vec<&Item> = routes.iter().flat_map(|route| &route.items).collect();
        items.sort_unstable_by_key(|item| item.piece);
        let moved = |item: &&Item| {
            let remote = u32::try_from(item.piece).ok()?;
            Some(Move { remote, local: item.local, offset: 0, bytes })
        };
        let moves: Vec<Move> = items.iter().map(moved).collect::<Option<_>>()?;
        let mut plan = Vec::new();
        stretches(&moves, bytes, self.message_bytes.max(record), &mut plan);
        let lane = orders.get_mut(records.lane)?;
        for stretch in plan {
            let first = u32::try_from(stretch.local / bytes).ok()?;
            let from = self.map.records(first, stretch.bytes / record)?;
            lane.push(Order::Write { from, into: records.remote(stretch)? });
        }
        let Some(Order::Write { from, into }) = lane.pop() else { return None };
        lane.push(Order::WriteImmediate { from, into, immediate });
        Some(orders)
    }
}

impl Tables<'_> {
    /// READs of payloads and of their slot records.
    ///
    /// Routes have to be in the order of their queue pairs; records come in the order of their
    /// items. `None` if a window is smaller than what is behind it.
    pub(super) fn reads(&self, routes: &[Route]) -> Option<Reads> {
        let lanes = self.peer_records.len();
        let read = |into, from| Order::Read { into, from, fenced: false };
        let payload = self.slots.payload(routes, lanes, read)?;
        let mut records: Vec<Vec<Order>> = (0..lanes).map(|_| Vec::new()).collect();
        let mut plan = Vec::new();
        let mut fenced = vec![self.fence; lanes];
        let mut position = 0;
        let record = RECORD_BYTES as u32;
        for route in routes {
            let lane = route.door.lane;
            let bytes = u64::from(record);
            let moves = route.items.iter().zip(position..);
            let moves: Vec<Move> = moves
                .map(|(item, local)| Move { remote: item.remote, local, offset: 0, bytes })
                .collect();
            position += moves.len() as u32;
            plan.clear();
            stretches(&moves, bytes, self.slots.message_bytes.max(record), &mut plan);
            for stretch in &plan {
                let first = u32::try_from(stretch.remote / bytes).ok()?;
                let from = self.peer_records[lane].records(first, stretch.bytes / record)?;
                let into = self.records.at(stretch.local, stretch.bytes)?;
                let fenced = std::mem::take(&mut fenced[lane]);
                records[lane].push(Order::Read { into, from, fenced });
            }
        }
        Some(Reads { payload, records })
    }
}
