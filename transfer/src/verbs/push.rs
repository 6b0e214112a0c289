//! One push: windows on the own slots, the request, the owner's WRITEs; then the windows are closed,
//! and only what lies behind closed windows is looked at or given back.

use super::VerbsOptions;
use super::driver::{Stop, Until};
use super::lanes::Memory;
use super::links::{Expected, Link, Links, device};
use super::opening::{Opening, by, revoke, shut};
use super::plan::Extent;
use super::pull::{Attempt, Cargo, Landing, hear, item, linked, parts, unanswered, verified};
use super::rdma::{DeviceError, Rights};
use super::signal::{SignalError, judged};
use super::stages::Sums;
use crate::flight::Work;
use crate::guards::Guard;
use crate::{LinkFault, Peer, TransferError};
use baton_arena::RECORD_BYTES;
use baton_proto::internal::PushRequest;
use std::sync::Arc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What the owner may write to. The order of the fields is that of their end: what is open closes
/// before a lease goes.
struct Opened {
    opening: Opening,
    landing: Landing,
}

impl AsRef<Opening> for Opened {
    fn as_ref(&self) -> &Opening {
        &self.opening
    }
}

impl AsMut<Opening> for Opened {
    fn as_mut(&mut self) -> &mut Opening {
        &mut self.opening
    }
}

/// Has the owner write what has no result yet. `None` if the work is lost to the device.
pub(super) async fn attempt(
    links: &Arc<Links>,
    peer: &Peer,
    mut work: Work,
    cancel: &CancellationToken,
) -> Option<Attempt> {
    let link = match linked(links, peer, &mut work, cancel).await {
        Ok(Some(link)) => link,
        Ok(None) => return Some((work, Ok(()))),
        Err(error) => return Some((work, Err(error))),
    };
    let until = Until {
        cancel: cancel.clone(),
        deadline: work.deadline(),
        linger: links.adapter.options().linger,
    };
    let mut expected = link.expect();
    // One queue pair for all of a push: there the records cannot overtake the payloads.
    let lane = expected.immediate as usize % link.lanes();
    let (opening, cargo) = match prepare(links, &link, &work, lane) {
        Ok(prepared) => prepared,
        Err(error) => return Some((work, Err(device(error)))),
    };
    let orders = opening.bind(link.lanes());
    let opened = Opened { opening, landing: Landing { work, cargo } };
    let (mut opened, bound) = link.handle.run(orders, opened, until).await?;
    match bound {
        Ok(()) => {}
        Err(Stop::Stuck) => return None,
        Err(stop) => {
            // No key has left this side. Windows that may not be bound must not be invalidated:
            // that is an error, and soft-RoCE (Linux 6.1) takes the whole system down for it.
            let Opened { landing, .. } = shut(&link.handle, opened).await.ok()?;
            link.keep(landing.cargo.records);
            return Some((landing.work, Err(stop.into())));
        }
    }
    let (outcome, heard) = ask(links, &link, &mut opened, &mut expected, cancel).await;
    if !heard {
        // The owner may write now or later; queue pairs that failed accept nothing. A window that
        // closes under a write would end the connection just so, for a reason that nobody knows.
        link.handle.fail(LinkFault::Overdue);
    }
    let landing = closed(links, &link, opened).await?;
    let late = Instant::now() >= landing.work.deadline();
    match outcome {
        Ok(()) => {
            // What the owner could write to was open until now: nothing was worth looking at.
            let all = 0..landing.cargo.items.len();
            let sums = Sums::new(Vec::from([all]));
            Some((verified(links, &link, landing, sums).await?, Ok(())))
        }
        Err(error) => {
            unanswered(links, peer, &link, &error);
            link.keep(landing.cargo.records);
            Some((landing.work, Err(if late { TransferError::Deadline } else { error })))
        }
    }
}

/// Windows on the slots of all that is asked for, and, last, one on memory for their records.
fn prepare(
    links: &Links,
    link: &Link,
    work: &Work,
    lane: usize,
) -> Result<(Opening, Cargo), DeviceError> {
    let open = work.open();
    let arena = &links.local.arena;
    let extents = open.iter().map(|&piece| {
        let (slot, span) = (work.slot(piece), work.span(piece));
        // A whole block may have all of its slot, so that neighbours share a window; beside a part
        // may lie what another owner has sent.
        let range =
            if span.is_whole(work.block(piece)) { 0..arena.slot_bytes() } else { span.range() };
        Extent { slot, start: range.start as u64, end: range.end as u64 }
    });
    let lanes = lane..lane + 1;
    let mut opening = Opening::of_slots(&link.domain, arena, extents, lanes, Rights::WRITE)?;
    let records = link.scratch()?;
    let bytes = open.len() * RECORD_BYTES;
    // What an earlier pull left there must not pass for what comes now.
    records.clear(0, bytes);
    if let Some(stretch) = records.at(0, bytes as u32) {
        let what = (Memory::Scratch(records.clone()), stretch, Rights::WRITE);
        opening.add(&link.domain, arena, what, lane, (0, open.len() as u32))?;
    }
    let items: Vec<_> = open.iter().map(|&piece| item(work, piece)).collect();
    let guards = items.iter().map(|item| arena.write(item.local)).collect();
    Ok((opening, Cargo { items, guards, records, part_crcs: Vec::new() }))
}

/// Asks the owner to write, and waits until it says that it has, and the last write has come. Also
/// says whether the owner is known to write nothing any more.
async fn ask(
    links: &Links,
    link: &Link,
    opened: &mut Opened,
    expected: &mut Expected<'_>,
    cancel: &CancellationToken,
) -> (Result<(), TransferError>, bool) {
    let Landing { work, cargo } = &mut opened.landing;
    let deadline = work.deadline();
    let open = work.open();
    let mut windows = opened.opening.to_wire();
    let left = deadline.saturating_duration_since(Instant::now());
    let request = PushRequest {
        connection: link.connection,
        blocks: open.iter().map(|&piece| work.block(piece).into()).collect(),
        records: windows.pop(),
        windows,
        into_slots: open.iter().map(|&piece| work.slot(piece)).collect(),
        immediate: expected.immediate,
        // Rounded up: it is this side that says when it is too late.
        deadline_ms: u32::try_from(left.as_millis() + 1).unwrap_or(u32::MAX),
        parts: parts(work, &open),
    };
    let call = links.signalling.push(&link.uri, request);
    let ended =
        || TransferError::LinkFailed { fault: link.handle.fault().unwrap_or(LinkFault::Closed) };
    let pushed = async {
        let reply = match call.await {
            Ok(reply) => reply,
            Err(error) => {
                let heard = !matches!(error, SignalError::Unreachable { .. });
                return (Err(error.into()), heard);
            }
        };
        let outcome = async {
            judged(reply.status)?;
            let (granted, part_crcs) = hear(work, &reply.statuses, &reply.part_crcs)?;
            if !granted.is_empty() {
                (&mut expected.arrival).await.map_err(|_| ended())?;
            }
            cargo.part_crcs = part_crcs;
            Ok(())
        };
        (outcome.await, true)
    };
    tokio::select! {
        biased;
        outcome = pushed => outcome,
        () = link.handle.ended() => (Err(ended()), true),
        error = over(cancel, deadline, links.adapter.options()) => (Err(error), false),
    }
}

/// Waits until a push is out of time and should be over on the owner's side too, which knows the
/// deadline. If it is not wanted any more, it may end by itself for a while: to end it at once
/// would cost the connection.
async fn over(
    cancel: &CancellationToken,
    deadline: Instant,
    options: &VerbsOptions,
) -> TransferError {
    tokio::select! {
        () = tokio::time::sleep_until(deadline + options.linger) => TransferError::Deadline,
        () = async {
            cancel.cancelled().await;
            tokio::time::sleep(options.connect).await;
        } => TransferError::Cancelled,
    }
}

/// Closes the windows. `None` if the device may still write to what is behind them.
async fn closed(links: &Links, link: &Link, opened: Opened) -> Option<Landing> {
    if !links.guards.on(Guard::Revocation) {
        // What tests have to find: keys that work after the leases are back.
        std::mem::forget(opened.opening);
        return Some(opened.landing);
    }
    // As long as others may take for what they have posted before.
    let deadline = opened.landing.work.deadline().max(Instant::now());
    let until = by(deadline + links.adapter.options().connect);
    // Dropping what could not be closed quarantines the slots.
    revoke(&link.handle, link.lanes(), opened, until).await.ok().map(|opened| opened.landing)
}
