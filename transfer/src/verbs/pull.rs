//! One pull: windows from the owner, READs, the records behind them, and the comparison. What a
//! pull that the owner carries out has in common with it is here, too; the rest is in `push`.

use super::driver::{Stop, Until};
use super::links::{Link, Links, device};
use super::push;
use super::rdma::Scratch;
use super::requests::{Reads, Slots, Tables};
use super::route::{Door, Item, Route, routes};
use super::signal::judged;
use super::stages::{self, Sums};
use crate::flight::{Report, Work};
use crate::guards::Guard;
use crate::verify::check;
use crate::{LinkFault, Mismatch, Op, Peer, Refused, TransferError, TransportKind};
use baton_arena::{RECORD_BYTES, WriteGuard};
use baton_proto::internal::{OpenReply, OpenRequest, Part};
use std::ops::Range;
use std::sync::Arc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Payloads of so many bytes are compared on the thread at hand; more on one of their own.
const INLINE_BYTES: u64 = 256 << 10;

/// What a pull's work requests write to, and what has to live until they are over.
pub(super) struct Landing {
    pub(super) work: Work,
    pub(super) cargo: Cargo,
}

/// Checksums of pieces that are parts of a block, by piece.
pub(super) type PartCrcs = Vec<(usize, u32)>;

/// The blocks that were granted, or that the owner is asked to write.
pub(super) struct Cargo {
    /// By queue pair, and there by the owner's slot; or as asked for.
    pub(super) items: Vec<Item>,
    /// Exclude every other use of the slots.
    pub(super) guards: Vec<WriteGuard>,
    /// The slot records, in the order of `items`.
    pub(super) records: Scratch,
    /// What the owner says of pieces that are parts of a block.
    pub(super) part_crcs: PartCrcs,
}

/// Who moves the bytes.
#[derive(Clone, Copy)]
pub(super) enum Way {
    /// This side reads them.
    Read,
    /// The owner writes them.
    Write,
}

/// Pulls until done, out of time or unwanted, then gives the leases back.
pub(super) async fn run(
    links: Arc<Links>,
    way: Way,
    peer: Peer,
    mut work: Work,
    report: Report,
    cancel: CancellationToken,
) {
    let mut error = TransferError::Cancelled;
    let mut fresh = false;
    while !work.open().is_empty() {
        let attempted = match way {
            Way::Read => attempt(&links, &peer, work, &cancel).await,
            Way::Write => push::attempt(&links, &peer, work, &cancel).await,
        };
        let Some((back, outcome)) = attempted else {
            // The device may still write: these slots never come back.
            return;
        };
        work = back;
        match outcome {
            Ok(()) => break,
            // A kept connection may have ended since; that is no reason to fail.
            Err(TransferError::Refused(Refused::Connection)) if !fresh => fresh = true,
            Err(failure) => {
                let shut =
                    matches!(failure, TransferError::LinkFailed { fault: LinkFault::Closed });
                // A shutdown cancels the pulls, and closes the connections under them.
                if !(shut && cancel.is_cancelled()) {
                    error = failure;
                }
                break;
            }
        }
    }
    links.local.counters.failed(TransportKind::Verbs, Op::Pull, work.failures());
    report.send(work.finish(&error));
}

/// Waits for something until the pull is out of time or unwanted.
async fn within<T>(
    what: impl Future<Output = Result<T, TransferError>>,
    deadline: Instant,
    cancel: &CancellationToken,
) -> Result<T, TransferError> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(TransferError::Cancelled),
        outcome = what => outcome,
        () = tokio::time::sleep_until(deadline) => Err(TransferError::Deadline),
    }
}

pub(super) type Attempt = (Work, Result<(), TransferError>);

/// A connection for what has no result yet; `None` if everything has.
pub(super) async fn linked(
    links: &Arc<Links>,
    peer: &Peer,
    work: &mut Work,
    cancel: &CancellationToken,
) -> Result<Option<Arc<Link>>, TransferError> {
    for piece in work.open() {
        if links.guards.on(Guard::Lease) && work.lease_over(piece) {
            work.set(piece, Err(TransferError::LeaseExpired));
        }
    }
    if work.open().is_empty() {
        return Ok(None);
    }
    within(links.open(peer), work.deadline(), cancel).await.map(Some)
}

/// Gives the connection up if it was its fault that the owner did not do what it was asked.
pub(super) fn unanswered(links: &Links, peer: &Peer, link: &Link, error: &TransferError) {
    use TransferError::{Refused as Refusal, Unreachable};
    if matches!(error, Unreachable { .. } | Refusal(Refused::Connection)) {
        links.lost(peer, link, error);
    }
}

/// Pulls what has no result yet over one connection. `None` if the work is lost to the device.
async fn attempt(
    links: &Arc<Links>,
    peer: &Peer,
    mut work: Work,
    cancel: &CancellationToken,
) -> Option<Attempt> {
    let deadline = work.deadline();
    let link = match linked(links, peer, &mut work, cancel).await {
        Ok(Some(link)) => link,
        Ok(None) => return Some((work, Ok(()))),
        Err(error) => return Some((work, Err(error))),
    };
    let asked = Instant::now();
    let open = Granted::ask(links, &link, &work);
    let (grant, reply) = match within(open, deadline, cancel).await {
        Ok(granted) => granted,
        Err(error) => {
            unanswered(links, peer, &link, &error);
            return Some((work, Err(error)));
        }
    };
    // The owner counts from later on.
    let grant_ends = asked + std::time::Duration::from_millis(u64::from(reply.remaining_ms));
    let until = Until {
        cancel: cancel.clone(),
        deadline: deadline.min(grant_ends),
        linger: links.adapter.options().linger,
    };
    let (reads, sums, cargo) = match prepare(links, &link, &mut work, &reply) {
        Ok(Some(prepared)) => prepared,
        Ok(None) => return Some((work, Ok(()))),
        Err(error) => return Some((work, Err(error))),
    };
    let landing = Landing { work, cargo };
    let (landing, outcome) = stages::run(links, &link, reads, (landing, sums), until).await?;
    // The owner need not wait for the comparison.
    drop(grant);
    match outcome {
        Ok(sums) => Some((verified(links, &link, landing, sums).await?, Ok(()))),
        Err(Stop::Stuck) => None,
        Err(stop) => {
            link.keep(landing.cargo.records);
            let lease_over = stop == Stop::Deadline && grant_ends < deadline;
            let error = if lease_over { TransferError::LeaseExpired } else { stop.into() };
            Some((landing.work, Err(error)))
        }
    }
}

/// A grant that the owner holds for this pull. Dropping it tells the owner that it is over.
struct Granted {
    links: Arc<Links>,
    link: Arc<Link>,
    grant: u64,
}

impl Drop for Granted {
    fn drop(&mut self) {
        if self.grant != 0 && self.link.handle.alive() {
            self.links.tell_close(&self.link.uri, self.link.connection, self.grant);
        }
    }
}

impl Granted {
    /// Asks for windows on what has no result yet.
    async fn ask(
        links: &Arc<Links>,
        link: &Arc<Link>,
        work: &Work,
    ) -> Result<(Self, OpenReply), TransferError> {
        let open = work.open();
        let blocks = open.iter().map(|&piece| work.block(piece).into()).collect();
        let request =
            OpenRequest { connection: link.connection, blocks, parts: parts(work, &open) };
        let call = links.signalling.open(&link.uri, request);
        // A task of its own: what is granted to a pull that lost interest has to be given back.
        let (links, link) = (Arc::clone(links), Arc::clone(link));
        let asking = Arc::clone(&links);
        let answer = asking.local.tasks.spawn(async move {
            let patience = links.adapter.options().answer;
            let late = |_| TransferError::Unreachable {
                address: link.uri.clone(),
                kind: std::io::ErrorKind::TimedOut,
            };
            let reply = tokio::time::timeout(patience, call).await.map_err(late)??;
            judged(reply.status)?;
            let grant = reply.grant;
            Ok((Self { links, link, grant }, reply))
        });
        answer.await.unwrap_or(Err(TransferError::Cancelled))
    }
}

/// Which of the blocks asked for are wanted in part only.
pub(super) fn parts(work: &Work, open: &[usize]) -> Vec<Part> {
    let part = |(block, &piece): (usize, &usize)| {
        let span = work.span(piece);
        let partly = !span.is_whole(work.block(piece));
        partly.then_some(Part { block: block as u32, offset: span.offset, bytes: span.len })
    };
    open.iter().enumerate().filter_map(part).collect()
}

/// Takes in what the owner says of each block, and of parts.
pub(super) fn hear(
    work: &mut Work,
    statuses: &[u32],
    part_crcs: &[u32],
) -> Result<(Vec<usize>, PartCrcs), TransferError> {
    let open = work.open();
    let parts = parts(work, &open);
    if statuses.len() != open.len() || part_crcs.len() != parts.len() {
        return Err(TransferError::Protocol { what: "an answer to another number of blocks" });
    }
    let crcs = parts.iter().zip(part_crcs).map(|(part, &crc)| (open[part.block as usize], crc));
    let crcs = crcs.collect();
    let mut granted = Vec::with_capacity(open.len());
    for (piece, &status) in open.into_iter().zip(statuses) {
        match judged(status) {
            Ok(()) => granted.push(piece),
            Err(error) => work.set(piece, Err(error)),
        }
    }
    Ok((granted, crcs))
}

/// What is to be posted, what is to be summed up, and what lives meanwhile.
type Prepared = (Reads, Sums, Cargo);

/// What is to be posted for a reply; `None` if it grants nothing.
fn prepare(
    links: &Links,
    link: &Link,
    work: &mut Work,
    reply: &OpenReply,
) -> Result<Option<Prepared>, TransferError> {
    let broken = |what| TransferError::Protocol { what };
    let (granted, part_crcs) = hear(work, &reply.statuses, &reply.part_crcs)?;
    if granted.is_empty() {
        return Ok(None);
    }
    let lanes = link.lanes();
    let doors: Option<Vec<_>> =
        reply.windows.iter().map(|window| Door::from_wire(window, lanes)).collect();
    let doors = doors.ok_or(broken("a window that is none"))?;
    let items = granted.iter().map(|&piece| item(work, piece)).collect();
    let mut routes =
        routes(doors, items).map_err(|_| broken("a granted block without a window"))?;
    routes.sort_by_key(|route| route.door.lane);
    let records = link.scratch().map_err(device)?;
    let arena = &links.local.arena;
    let slots = Slots {
        map: link.domain.region.map(),
        stride: arena.layout().stride,
        message_bytes: links.adapter.message_bytes(),
    };
    let tables = Tables {
        slots,
        records: records.map(),
        peer_records: &link.records,
        fence: links.adapter.device().limits().fences,
    };
    let reads = tables.reads(&routes).ok_or(broken("a window that is smaller than its blocks"))?;
    let sums = Sums::new(ranges(&routes, lanes));
    let items: Vec<Item> = routes.into_iter().flat_map(|route| route.items).collect();
    let guards = items.iter().map(|item| arena.write(item.local)).collect();
    Ok(Some((reads, sums, Cargo { items, guards, records, part_crcs })))
}

/// Which items are of which queue pair, in whose order the routes are.
fn ranges(routes: &[Route], lanes: usize) -> Vec<Range<usize>> {
    let mut end = 0;
    let mut range = |lane| {
        let of_lane = routes.iter().filter(|route| route.door.lane == lane);
        let start = end;
        end += of_lane.map(|route| route.items.len()).sum::<usize>();
        start..end
    };
    (0..lanes).map(&mut range).collect()
}

/// Where a piece is, and where it goes.
pub(super) fn item(work: &Work, piece: usize) -> Item {
    let span = work.span(piece);
    Item {
        piece,
        remote: work.block(piece).slot.0,
        local: work.slot(piece),
        offset: u64::from(span.offset),
        bytes: u64::from(span.len),
    }
}

/// Compares everything that arrived. `None` if the runtime ended under it.
pub(super) async fn verified(
    links: &Arc<Links>,
    link: &Link,
    landing: Landing,
    sums: Sums,
) -> Option<Work> {
    let bytes: u64 = landing.cargo.items.iter().map(|item| item.bytes).sum();
    let compare = {
        let links = Arc::clone(links);
        move || compare(&links, landing, sums)
    };
    let (work, records) = if bytes <= INLINE_BYTES {
        compare()
    } else {
        links.local.tasks.spawn_blocking(compare).await.ok()?
    };
    link.keep(records);
    Some(work)
}

fn compare(links: &Links, landing: Landing, sums: Sums) -> (Work, Scratch) {
    let Landing { mut work, cargo } = landing;
    let Cargo { items, guards, records, part_crcs } = cargo;
    let crcs = sums.finish(&items, &guards);
    drop(guards);
    for (position, (item, crc)) in items.iter().zip(crcs).enumerate() {
        if !work.is_open(item.piece) {
            // The owner refused it.
            continue;
        }
        let mut record = [0; RECORD_BYTES];
        records.copy_out(position * RECORD_BYTES, &mut record);
        let block = *work.block(item.piece);
        // Pieces are asked for, and answered, in order.
        let part = part_crcs.binary_search_by_key(&item.piece, |&(piece, _)| piece);
        let result = match part.ok().map(|index| part_crcs[index].1) {
            // A part has the owner's word for its checksum; everything else is the block's.
            Some(said) if links.guards.on(Guard::Crc) && said != crc => {
                Err(Mismatch::Checksum { expected: said, found: crc })
            }
            Some(_) => check(&block, block.crc, &record, links.guards),
            None => check(&block, crc, &record, links.guards),
        };
        if result.is_ok() {
            let bytes = item.bytes;
            links.local.counters.moved(TransportKind::Verbs, Op::Pull, bytes, bytes);
        }
        work.set(item.piece, result.map_err(Into::into));
    }
    (work, records)
}
