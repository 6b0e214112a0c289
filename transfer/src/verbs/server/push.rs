//! Blocks that their owner writes to where the caller wants them.

use super::served::Served;
use super::{Host, Resolved};
use crate::Refused;
use crate::verbs::driver::{Outcome, Stop, Until};
use crate::verbs::lanes::Order;
use crate::verbs::requests::Slots;
use crate::verbs::route::{Door, Item, routes};
use crate::verbs::signal::status;
use baton_proto::internal::{PushReply, PushRequest};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Lets the blocks of a push go, unless the device may still read them.
fn unpinned<P>(outcome: Option<Outcome<Vec<P>>>) -> Result<(), Refused> {
    match outcome {
        Some((_, Ok(()))) => Ok(()),
        Some((_, Err(Stop::Deadline | Stop::Cancelled))) => Err(Refused::Busy),
        Some((pins, Err(Stop::Stuck))) => {
            tracing::error!("blocks that the device may still read stay pinned for good");
            std::mem::forget(pins);
            Err(Refused::Connection)
        }
        // Queue pairs that failed send nothing any more.
        Some((_, Err(Stop::Link(_)))) | None => Err(Refused::Connection),
    }
}

impl Host {
    /// Writes what a request names, as far as all of it still holds. The blocks stay pinned until
    /// every write has completed, or was flushed.
    pub(super) async fn push(self: Arc<Self>, request: PushRequest) -> Result<PushReply, Refused> {
        let served = self.connection(request.connection)?;
        let _turn = served.turn().ok_or(Refused::Busy)?;
        served.touch();
        let blocks = request.blocks.len();
        if request.into_slots.len() != blocks || request.windows.len() > blocks {
            return Err(Refused::Malformed);
        }
        let mut resolved = self.resolve(&request.blocks, &request.parts).await?;
        let statuses = resolved.results.iter().map(status).collect();
        let part_crcs = std::mem::take(&mut resolved.part_crcs);
        let reply = PushReply { statuses, part_crcs, ..PushReply::default() };
        if resolved.pins.is_empty() {
            return Ok(reply);
        }
        let orders = self.writes(&served, &resolved, &request).ok_or(Refused::Malformed)?;
        // As long as its caller waits, and as a grant on its blocks.
        let wanted = Duration::from_millis(u64::from(request.deadline_ms));
        let until = Until {
            cancel: CancellationToken::new(),
            deadline: Instant::now() + wanted.min(resolved.time),
            linger: self.adapter.options().linger,
        };
        unpinned(served.handle.run(orders, resolved.pins, until).await).map(|()| reply)
    }

    /// The work requests of a push; `None` if the caller's windows do not fit it.
    fn writes(
        &self,
        served: &Served,
        resolved: &Resolved,
        request: &PushRequest,
    ) -> Option<Vec<Vec<Order>>> {
        let lanes = served.lanes;
        let records = Door::from_wire(request.records.as_ref()?, lanes)?;
        let doors = request.windows.iter().map(|window| Door::from_wire(window, lanes));
        // All on one queue pair, or the records might come before the payloads.
        let doors = doors.map(|door| door.filter(|door| door.lane == records.lane));
        let doors: Vec<Door> = doors.collect::<Option<_>>()?;
        let granted = (0..).zip(&resolved.results).filter(|(_, result)| result.is_ok());
        let items = granted.zip(&resolved.pins).map(|((piece, _), pin)| {
            let whole = (0, pin.len_bytes());
            let part = request.parts.iter().find(|part| part.block as usize == piece);
            let (offset, bytes) = part.map_or(whole, |part| (part.offset, part.bytes));
            Item {
                piece,
                remote: request.into_slots[piece],
                local: pin.slot().0,
                offset: u64::from(offset),
                bytes: u64::from(bytes),
            }
        });
        let routes = routes(doors, items.collect()).ok()?;
        let slots = Slots {
            map: served.domain.region.map(),
            stride: self.context.arena.layout().stride,
            message_bytes: self.adapter.message_bytes(),
        };
        slots.writes(&routes, lanes, &records, request.immediate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LinkFault;
    use std::sync::Weak;

    /// Whether a pin outlives its push, by how that ends.
    fn kept(outcome: Result<(), Stop>) -> (bool, Result<(), Refused>) {
        let pin = Arc::new(());
        let pinned: Weak<()> = Arc::downgrade(&pin);
        let result = unpinned(Some((vec![pin], outcome)));
        (pinned.upgrade().is_some(), result)
    }

    #[test]
    fn what_a_stuck_device_may_still_read_stays_pinned() {
        assert_eq!(kept(Ok(())), (false, Ok(())));
        assert_eq!(kept(Err(Stop::Deadline)), (false, Err(Refused::Busy)));
        let failed = Err(Stop::Link(LinkFault::Unanswered));
        assert_eq!(kept(failed), (false, Err(Refused::Connection)));
        assert_eq!(kept(Err(Stop::Stuck)), (true, Err(Refused::Connection)));
    }
}
