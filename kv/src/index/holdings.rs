//! What one worker holds, by number of entry, and whether it is *closed*: whether with each block
//! it holds the one before it too, so that its part of any chain is a leading one.

use crate::block::KeyHasher;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hash, Hasher};

type Build = BuildHasherDefault<KeyHasher>;

/// The blocks of one worker. About five bytes each, at the table's load.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    held: HashSet<Held, Build>,
    /// Held blocks that continue the same one, where they are three or more.
    forks: HashMap<u32, u32, Build>,
    /// Blocks that are not held though held ones continue them, and how many do.
    missing: HashMap<u32, u32, Build>,
}

/// The number of a held entry, and in the top bits how many held ones continue it, up to
/// [`MANY`]. Equal if the numbers are.
#[derive(Clone, Copy, Debug)]
struct Held(u32);

const ENTRY_BITS: u32 = 30;
/// The exact count is among the forks.
const MANY: u32 = 3;

impl Held {
    fn new(entry: u32, children: u32) -> Self {
        Self(entry | children.min(MANY) << ENTRY_BITS)
    }

    fn entry(self) -> u32 {
        self.0 & ((1 << ENTRY_BITS) - 1)
    }
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        self.entry() == other.entry()
    }
}

impl Eq for Held {}

impl Hash for Held {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(u64::from(self.entry()));
    }
}

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
        self.held.iter().map(|held| held.entry())
    }

    /// Takes up an entry that is not held yet.
    pub(super) fn insert(&mut self, entry: u32, parent: Option<u32>) {
        let children = self.missing.remove(&entry).unwrap_or(0);
        self.held.insert(Held::new(entry, children));
        if children >= MANY {
            self.forks.insert(entry, children);
        }
        let Some(parent) = parent else { return };
        match self.children(parent) {
            Some(children) => self.set_children(parent, children + 1),
            None => *self.missing.entry(parent).or_default() += 1,
        }
    }

    /// Gives up an entry that is held.
    pub(super) fn remove(&mut self, entry: u32, parent: Option<u32>) {
        let children = self.children(entry).unwrap_or(0);
        self.held.remove(&Held::new(entry, 0));
        self.forks.remove(&entry);
        if children > 0 {
            self.missing.insert(entry, children);
        }
        let Some(parent) = parent else { return };
        if let Some(children) = self.children(parent) {
            self.set_children(parent, children.saturating_sub(1));
        } else if let Some(children) = self.missing.get_mut(&parent) {
            *children -= 1;
            if *children == 0 {
                self.missing.remove(&parent);
            }
        }
    }

    /// How many held blocks continue this one; `None` if it is not held.
    fn children(&self, entry: u32) -> Option<u32> {
        let held = self.held.get(&Held::new(entry, 0))?;
        match held.0 >> ENTRY_BITS {
            MANY => self.forks.get(&entry).copied(),
            few => Some(few),
        }
    }

    fn set_children(&mut self, entry: u32, children: u32) {
        self.held.replace(Held::new(entry, children));
        if children >= MANY {
            self.forks.insert(entry, children);
        } else if children + 1 == MANY {
            self.forks.remove(&entry);
        }
    }
}
