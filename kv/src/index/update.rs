//! What becomes of the index when a worker says what it has and has no more.

use super::Worker;
use super::sets::{EMPTY, SetWriter};
use super::table::{Block, Sought, TableWriter};
use super::view::Shared;
use crate::block::{BlockKey, Tier};
use crate::events::{BlockEvent, EventKind};
use std::sync::atomic::Ordering;

/// Events whose memory is asked for together, before they are taken up.
const TOGETHER: usize = 64;

/// Changes what is known of one worker.
pub(super) struct Update<'a> {
    pub(super) shared: &'a Shared,
    pub(super) blocks: &'a mut TableWriter,
    pub(super) sets: &'a mut SetWriter,
    pub(super) worker: &'a mut Worker,
    /// The worker's number in sets.
    pub(super) slot: u32,
    /// Blocks that the worker may have.
    pub(super) held_max: usize,
}

/// A block that an event speaks of.
#[derive(Clone, Copy, Default)]
struct Named {
    sought: Sought,
    /// Its entry, probably, or 0.
    guess: u32,
}

impl<'a> Update<'a> {
    /// A block that appears twice, or goes without having come, changes nothing: the events after
    /// it count all the same.
    pub(super) fn apply(&mut self, events: &[BlockEvent]) {
        let mut last = None;
        for events in events.chunks(TOGETHER) {
            let mut named = [Named::default(); TOGETHER];
            let named = &mut named[..events.len()];
            self.expect(events, named);
            for (event, named) in events.iter().zip(&*named) {
                match event.kind {
                    EventKind::Published => self.publish(event, *named, &mut last),
                    EventKind::Removed => self.remove(*named),
                }
            }
        }
    }

    /// Asks for the memory that the events will need, so that the accesses of all of them overlap.
    fn expect(&self, events: &[BlockEvent], named: &mut [Named]) {
        let table = &self.shared.table;
        let mut before = None;
        for (event, named) in events.iter().zip(&mut *named) {
            named.sought = Sought::new(&BlockKey { hash: event.hash, group: event.group });
            table.expect(&named.sought);
            if let Some(hash) = event.parent
                && event.parent != before
            {
                table.expect(&Sought::new(&BlockKey { hash, group: event.group }));
            }
            before = Some(event.hash);
        }
        for (named, new) in named.iter_mut().zip(self.blocks.upcoming()..) {
            named.guess = table.expect_entry(&named.sought);
            self.worker.holdings.expect(if named.guess == 0 { new } else { named.guess });
        }
    }

    /// `last`: the block that was published last, which is mostly the one before this.
    fn publish(&mut self, event: &BlockEvent, named: Named, last: &mut Option<Block<'a>>) {
        let known = self.find(named);
        let set = known.map_or(EMPTY, Block::set);
        let block = match (known, SetWriter::tier_of(&self.shared.rows, set, self.slot)) {
            (_, Some(held)) if held == event.tier => return,
            (Some(block), Some(_)) => block,
            _ => {
                let parent = event.parent.filter(|parent| *parent != event.hash && set == EMPTY);
                let parent = parent.map(|hash| BlockKey { hash, group: event.group });
                let Some(block) = self.take_up(named.sought, known, parent, *last) else { return };
                block
            }
        };
        self.change(block, Some(event.tier));
        *last = Some(block);
    }

    fn find(&self, Named { sought, guess }: Named) -> Option<Block<'a>> {
        let table = &self.shared.table;
        let guessed = TableWriter::find_at(table, sought.name, guess);
        guessed.or_else(|| TableWriter::find(table, &sought))
    }

    /// Adds a block to what the worker holds; `None`, and it is counted, if there is no room.
    /// Whoever holds it first says what it continues; the same hash has the same parent.
    fn take_up(
        &mut self,
        sought: Sought,
        known: Option<Block<'a>>,
        parent: Option<BlockKey>,
        last: Option<Block<'a>>,
    ) -> Option<Block<'a>> {
        let table = &self.shared.table;
        let parent = parent.map(|key| {
            let sought = Sought::new(&key);
            let last = last.filter(|last| last.is_now(sought.name));
            (sought, last.or_else(|| TableWriter::find(table, &sought)))
        });
        let more = usize::from(known.is_none())
            + usize::from(parent.is_some_and(|(_, block)| block.is_none()));
        if self.worker.holdings.len() >= self.held_max || !self.blocks.has_room(more) {
            self.worker.overflowed = self.worker.overflowed.saturating_add(1);
            return None;
        }
        let block = known.unwrap_or_else(|| self.blocks.add(table, &sought));
        if let Some((sought, parent)) = parent {
            block.link(parent.unwrap_or_else(|| self.blocks.add(table, &sought)));
        }
        self.worker.holdings.insert(block.id, block.parent());
        Some(block)
    }

    fn remove(&mut self, named: Named) {
        let Some(block) = self.find(named) else { return };
        if SetWriter::tier_of(&self.shared.rows, block.set(), self.slot).is_none() {
            return;
        }
        self.worker.holdings.remove(block.id, block.parent());
        self.change(block, None);
    }

    /// Changes what readers see of the worker, whose holdings have changed. They must never take it
    /// for closed while it is not: the mark comes before the change, and goes after it.
    fn change(&mut self, block: Block<'a>, tier: Option<Tier>) {
        let closed = self.worker.holdings.is_closed();
        if !closed {
            self.shared.mark(self.slot, true);
            self.shared.steps.fetch_add(1, Ordering::Release);
        }
        self.set_tier(block, tier);
        if closed {
            self.shared.mark(self.slot, false);
        }
    }

    fn set_tier(&mut self, block: Block<'a>, tier: Option<Tier>) {
        let rows = &self.shared.rows;
        let old = block.set();
        let new = self.sets.with(rows, old, self.slot, tier);
        block.replace_set(new);
        if tier.is_some() {
            rows.note_latest(new, block.id);
        } else if let Some(parent) = block.parent() {
            rows.note_latest(old, parent);
        }
        self.sets.release(rows, old);
        if new == EMPTY {
            self.blocks.unlink(&self.shared.table, block);
        }
    }

    /// The worker holds nothing any more. In any order: it is not closed until that is so.
    pub(super) fn forget(&mut self) {
        let holdings = std::mem::take(&mut self.worker.holdings);
        self.shared.mark(self.slot, true);
        for entry in holdings.entries() {
            self.set_tier(TableWriter::at(&self.shared.table, entry), None);
        }
        self.shared.mark(self.slot, false);
    }
}
