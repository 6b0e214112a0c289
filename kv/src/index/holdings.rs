//! What one worker holds, by number of entry, and whether it is *closed*: whether with each block
//! it holds the one before it too, so that its part of any chain is a leading one.

use super::pages::Pages;
use crate::block::KeyHasher;
use std::collections::HashMap;
use std::hash::BuildHasherDefault;

type Build = BuildHasherDefault<KeyHasher>;

/// The blocks of one worker. Between one and fifteen bytes each.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    held: Pages,
    /// Held blocks that continue the same one, where they are [`MANY`] or more.
    forks: HashMap<u32, u32, Build>,
    /// Blocks that are not held though held ones continue them, and how many do.
    missing: HashMap<u32, u32, Build>,
}

/// Of so many that continue a block the exact count is among the forks.
const MANY: u32 = 3;

impl Holdings {
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether each held block's chain is held from its first block on.
    pub(super) fn is_closed(&self) -> bool {
        self.missing.is_empty()
    }

    /// The entries of the held blocks, in no particular order.
    pub(super) fn entries(&self) -> impl Iterator<Item = u32> + '_ {
        self.held.iter()
    }

    /// Says that an entry will be looked up or changed.
    pub(super) fn expect(&self, entry: u32) {
        self.held.expect(entry);
    }

    /// Takes up an entry that is not held yet.
    pub(super) fn insert(&mut self, entry: u32, parent: Option<u32>) {
        let children =
            if self.missing.is_empty() { 0 } else { self.missing.remove(&entry).unwrap_or(0) };
        self.held.set(entry, children.min(MANY));
        if children >= MANY {
            self.forks.insert(entry, children);
        }
        let Some(parent) = parent else { return };
        match self.held.change(parent, |few| (few + 1).min(MANY)) {
            Some(MANY) => *self.forks.entry(parent).or_insert(MANY) += 1,
            Some(few) if few + 1 == MANY => drop(self.forks.insert(parent, MANY)),
            Some(_) => {}
            None => *self.missing.entry(parent).or_default() += 1,
        }
    }

    /// Gives up an entry that is held.
    pub(super) fn remove(&mut self, entry: u32, parent: Option<u32>) {
        let mut children = self.held.remove(entry).unwrap_or(0);
        if children == MANY {
            children = self.forks.remove(&entry).unwrap_or(MANY);
        }
        if children > 0 {
            self.missing.insert(entry, children);
        }
        let Some(parent) = parent else { return };
        match self.held.change(parent, |few| if few == MANY { MANY } else { few.saturating_sub(1) })
        {
            Some(MANY) => self.leave_fork(parent),
            Some(_) => {}
            None => {
                if let Some(children) = self.missing.get_mut(&parent) {
                    *children -= 1;
                    if *children == 0 {
                        self.missing.remove(&parent);
                    }
                }
            }
        }
    }

    /// One block less continues one that many continue.
    fn leave_fork(&mut self, parent: u32) {
        let Some(children) = self.forks.get_mut(&parent) else { return };
        *children -= 1;
        if *children < MANY {
            self.forks.remove(&parent);
            self.held.set(parent, MANY - 1);
        }
    }
}
