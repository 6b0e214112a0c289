//! A pull in stages: while later bytes are still on their way, the checksums of earlier ones are
//! computed. What a READ has brought does not change any more, so that is sound; whether the slots
//! were the right ones all the time is known when their records have come, behind all payloads.

use super::driver::{Stop, Until};
use super::lanes::Order;
use super::links::{Link, Links};
use super::pull::Landing;
use super::requests::Reads;
use super::route::Item;
use baton_arena::WriteGuard;
use futures_util::StreamExt;
use std::ops::Range;
use std::sync::Arc;

/// Bytes of a stage on each queue pair, at least; its last work request may reach beyond.
const STAGE_BYTES: u64 = 1 << 20;
/// Stages under way at once. What comes after them is not posted yet.
const UNDER_WAY: usize = 8;

/// Some work requests of each queue pair, and how many bytes of it have come when they are over.
struct Stage {
    orders: Vec<Vec<Order>>,
    reach: Vec<u64>,
}

/// Cuts each queue pair's work requests into stages.
fn stages(payload: Vec<Vec<Order>>, least: u64) -> Vec<Stage> {
    let lanes = payload.len();
    let mut reach = vec![0; lanes];
    let mut rest: Vec<_> =
        payload.into_iter().map(|orders| orders.into_iter().peekable()).collect();
    let mut stages = Vec::new();
    while rest.iter_mut().any(|orders| orders.peek().is_some()) {
        let mut stage: Vec<Vec<Order>> = (0..lanes).map(|_| Vec::new()).collect();
        for ((orders, rest), reach) in stage.iter_mut().zip(&mut rest).zip(&mut reach) {
            let end = *reach + least;
            while *reach < end
                && let Some(order) = rest.next()
            {
                *reach += order.bytes();
                orders.push(order);
            }
        }
        stages.push(Stage { orders: stage, reach: reach.clone() });
    }
    stages
}

/// The checksums of blocks that come piece by piece.
pub(super) struct Sums {
    /// By item: of its bytes up to where its queue pair has come.
    crcs: Vec<u32>,
    lanes: Vec<Position>,
}

/// How far the items of a queue pair, one behind the other, have been summed up.
struct Position {
    /// Those that are not complete.
    items: Range<usize>,
    /// Bytes of the first of them.
    within: u64,
    /// Bytes in all.
    reached: u64,
}

impl Sums {
    /// Nothing has come. `lanes` are the items of each queue pair, in the order of their bytes.
    pub(super) fn new(lanes: Vec<Range<usize>>) -> Self {
        let items = lanes.iter().map(|items| items.end).max().unwrap_or(0);
        let position = |items| Position { items, within: 0, reached: 0 };
        Self { crcs: vec![0; items], lanes: lanes.into_iter().map(position).collect() }
    }

    /// Sums up what has come until each queue pair has moved so many bytes.
    fn advance(&mut self, items: &[Item], guards: &[WriteGuard], reach: &[u64]) {
        for (position, &reach) in self.lanes.iter_mut().zip(reach) {
            while position.reached < reach && !position.items.is_empty() {
                let at = position.items.start;
                let (item, from) = (&items[at], position.within);
                let bytes = (item.bytes - from).min(reach - position.reached);
                let start = (item.offset + from) as usize;
                let come = &guards[at][start..start + bytes as usize];
                self.crcs[at] = crc32c::crc32c_append(self.crcs[at], come);
                position.within += bytes;
                position.reached += bytes;
                if position.within == item.bytes {
                    (position.items.start, position.within) = (at + 1, 0);
                }
            }
        }
    }

    /// The checksums when everything has come.
    pub(super) fn finish(mut self, items: &[Item], guards: &[WriteGuard]) -> Vec<u32> {
        let everything = vec![u64::MAX; self.lanes.len()];
        self.advance(items, guards, &everything);
        self.crcs
    }
}

/// Reads everything. `None` if the work is lost to the device or the runtime.
pub(super) async fn run(
    links: &Links,
    link: &Link,
    reads: Reads,
    (landing, sums): (Landing, Sums),
    until: Until,
) -> Option<(Landing, Result<Sums, Stop>)> {
    let bytes = |orders: &Vec<Order>| orders.iter().map(Order::bytes).sum::<u64>();
    if reads.payload.iter().map(bytes).max().unwrap_or(0) <= STAGE_BYTES {
        // Payloads and records with one doorbell.
        let (landing, outcome) = link.handle.run(reads.together(), landing, until).await?;
        return Some((landing, outcome.map(|()| sums)));
    }
    let Reads { payload, records } = reads;
    let landing = Arc::new(landing);
    let summed = payloads(links, link, payload, (&landing, sums), &until).await?;
    let sums = match summed {
        Ok(sums) => sums,
        Err(Stop::Stuck) => return None,
        Err(stop) => return Some((Arc::into_inner(landing)?, Err(stop))),
    };
    let (landing, outcome) = link.handle.run(records, landing, until).await?;
    Some((Arc::into_inner(landing)?, outcome.map(|()| sums)))
}

/// Reads the payloads in stages, each of which keeps the landing until it is over.
async fn payloads(
    links: &Links,
    link: &Link,
    payload: Vec<Vec<Order>>,
    (landing, mut sums): (&Arc<Landing>, Sums),
    until: &Until,
) -> Option<Result<Sums, Stop>> {
    let mut stopped = Ok(());
    let stage = |Stage { orders, reach }| {
        let (keep, until) = (Arc::clone(landing), until.clone());
        async move {
            let (_keep, outcome) = link.handle.run(orders, keep, until).await?;
            Some((reach, outcome))
        }
    };
    let stages = futures_util::stream::iter(stages(payload, STAGE_BYTES)).map(stage);
    let mut stages = std::pin::pin!(stages.buffered(UNDER_WAY));
    // To the end in any case: nothing is given back before all of it is over.
    while let Some(over) = stages.next().await {
        let (reach, outcome) = over?;
        stopped = match (stopped, outcome) {
            (_, Err(Stop::Stuck)) | (Err(Stop::Stuck), _) => Err(Stop::Stuck),
            (stopped, outcome) => stopped.and(outcome),
        };
        if stopped.is_ok() {
            let landing = Arc::clone(landing);
            let sum = move || {
                let cargo = &landing.cargo;
                sums.advance(&cargo.items, &cargo.guards, &reach);
                sums
            };
            sums = links.local.tasks.spawn_blocking(sum).await.ok()?;
        }
    }
    Some(stopped.map(|()| sums))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::verbs::rdma::{Remote, RemoteKey, null};
    use baton_arena::{Arena, ArenaOptions, Layout, Shape};
    use proptest::prelude::*;

    fn read(bytes: u64) -> Order {
        let map = null::map(Layout::of(Shape { slots: 1, slot_bytes: 1 << 20 }).unwrap());
        let into = map.slots(0, 0, bytes).unwrap();
        Order::Read {
            into,
            from: Remote { address: 0, key: RemoteKey::from_wire(1) },
            fenced: false,
        }
    }

    #[test]
    fn a_stage_has_its_bytes_on_every_queue_pair_that_has_some_left() {
        let reads = |bytes: &[u64]| bytes.iter().map(|&bytes| read(bytes)).collect::<Vec<_>>();
        let cut = stages(vec![reads(&[4, 4, 9, 1]), Vec::new(), reads(&[3])], 8);
        let shape = |stage: &Stage| stage.orders.iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(cut.iter().map(shape).collect::<Vec<_>>(), [[2, 0, 1], [1, 0, 0], [1, 0, 0]]);
        let reach: Vec<_> = cut.iter().map(|stage| stage.reach.clone()).collect();
        assert_eq!(reach, [[8, 0, 3], [17, 0, 3], [18, 0, 3]]);
        assert!(stages(vec![Vec::new()], 8).is_empty());
    }

    proptest! {
        /// However the bytes come, the checksums are those of the whole items.
        #[test]
        fn sums_are_those_of_whole_items(
            lanes in prop::collection::vec(prop::collection::vec((0u64..64, 1u64..900), 0..4), 1..4),
            steps in prop::collection::vec(prop::collection::vec(0u64..700, 4), 0..8),
        ) {
            let count: usize = lanes.iter().map(Vec::len).sum();
            let slots = count.max(1) as u32;
            let options = ArenaOptions { slots, slot_bytes: 1024, name: "sums-test" };
            let arena = Arena::create(options).unwrap();
            let (mut items, mut ranges) = (Vec::new(), Vec::new());
            for lane in &lanes {
                let first = items.len();
                for &(offset, bytes) in lane {
                    let slot = items.len() as u32;
                    items.push(Item { piece: 0, remote: slot, local: slot, offset, bytes });
                }
                ranges.push(first..items.len());
            }
            let mut guards: Vec<_> = items.iter().map(|item| arena.write(item.local)).collect();
            for (seed, guard) in guards.iter_mut().enumerate() {
                for (at, byte) in guard.iter_mut().enumerate() {
                    *byte = (at * 31 + seed * 7) as u8;
                }
            }
            let expected: Vec<_> = items.iter().zip(&guards).map(|(item, guard)| {
                let start = item.offset as usize;
                crc32c::crc32c(&guard[start..start + item.bytes as usize])
            }).collect();
            let mut sums = Sums::new(ranges);
            let mut reach = vec![0; lanes.len()];
            for step in &steps {
                reach.iter_mut().zip(step).for_each(|(reach, step)| *reach += step);
                sums.advance(&items, &guards, &reach);
            }
            prop_assert_eq!(sums.finish(&items, &guards), expected);
        }
    }
}
