//! The work requests of a pull: from windows and slots to READs, in the order of their queue pairs.

use super::lanes::Order;
use super::plan::{Move, stretches};
use super::rdma::{ArenaMap, ScratchMap};
use super::route::{Door, Route};
use baton_arena::RECORD_BYTES;

/// Where a pull's work requests read and write.
pub(super) struct Tables<'a> {
    /// The own slots.
    pub(super) slots: ArenaMap,
    /// Bytes from one slot to the next, at both ends.
    pub(super) stride: u64,
    /// Where slot records go, one behind the other.
    pub(super) records: ScratchMap,
    /// The owner's slot records, per queue pair.
    pub(super) peer_records: &'a [Door],
    /// Bytes of one work request at most.
    pub(super) message_bytes: u32,
}

impl Tables<'_> {
    /// READs of payloads, and behind them on each queue pair READs of their slot records. The
    /// first of those waits until all payloads before it have arrived: whoever reads a record has
    /// to know that what it says was so after the payload was read.
    ///
    /// Routes have to be in the order of their queue pairs; records come in the order of their
    /// items. `None` if a window is smaller than what is behind it.
    pub(super) fn reads(&self, routes: &[Route]) -> Option<Vec<Vec<Order>>> {
        let (most, stride) = (self.message_bytes, self.stride);
        let lanes = self.peer_records.len();
        let mut orders: Vec<Vec<Order>> = (0..lanes).map(|_| Vec::new()).collect();
        let mut plan = Vec::new();
        for route in routes {
            plan.clear();
            route.payload(stride, most, &mut plan);
            for &stretch in &plan {
                let (slot, offset) = (stretch.local / stride, stretch.local % stride);
                let slot = u32::try_from(slot).ok()?;
                let into = self.slots.slots(slot, offset, u64::from(stretch.bytes))?;
                let from = route.door.remote(stretch)?;
                orders[route.door.lane].push(Order::Read { into, from, fenced: false });
            }
        }
        let mut fenced = vec![true; lanes];
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
            stretches(&moves, bytes, most.max(record), &mut plan);
            for stretch in &plan {
                let first = u32::try_from(stretch.remote / bytes).ok()?;
                let from = self.peer_records[lane].records(first, stretch.bytes / record)?;
                let into = self.records.at(stretch.local, stretch.bytes)?;
                let fenced = std::mem::take(&mut fenced[lane]);
                orders[lane].push(Order::Read { into, from, fenced });
            }
        }
        Some(orders)
    }
}
