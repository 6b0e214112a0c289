//! The held blocks of a pool: found by name, ordered as a forest by parent, and reclaimed from the
//! leaves, least recently used first.
//!
//! A block is *busy* while it is pinned or lies above a busy block; what is not busy can be
//! reclaimed, if need be after its descendants. A block becomes busy or idle together with its
//! ancestors only up to the first one that was so already, so pinning or releasing a whole prefix
//! costs one step per block.

use crate::block::{BlockKey, BlockMap};
use crate::lease::{Content, Pinned};
use crate::retention::Retention;
use baton_proto::ids::{Generation, SlotId};
use std::collections::BTreeSet;
use std::sync::Weak;

/// The held blocks.
#[derive(Debug, Default)]
pub(super) struct Forest {
    nodes: BlockMap<Node>,
    /// Unpinned leaves by the time of their last use.
    evictable: BTreeSet<(u64, BlockKey)>,
    /// Counts uses; recency needs no clock.
    uses: u64,
    held: u32,
    pinned: u32,
    reclaimable: u32,
}

/// A name that is held, or that a held block names as its parent.
#[derive(Debug, Default)]
struct Node {
    block: Option<Block>,
    /// Held blocks that name this one as their parent.
    children: u32,
    /// Those of them that are busy.
    busy_children: u32,
}

/// A held block.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) slot: SlotId,
    pub(super) generation: Generation,
    pub(super) content: Content,
    pub(super) retention: Retention,
    /// Pins whose drop has not been reported yet; all handles cloned from one count once.
    pins: u32,
    last_use: u64,
    /// The newest pin, if it still lives.
    pub(super) pin: Weak<Pinned>,
}

impl Forest {
    pub(super) fn held(&self) -> u32 {
        self.held
    }

    pub(super) fn pinned(&self) -> u32 {
        self.pinned
    }

    /// Blocks that can be reclaimed, sooner or later.
    pub(super) fn reclaimable(&self) -> u32 {
        self.reclaimable
    }

    pub(super) fn get(&self, key: &BlockKey) -> Option<&Block> {
        self.nodes.get(key)?.block.as_ref()
    }

    /// Takes up a block that is not held yet; unpinned, used just now.
    pub(super) fn insert(
        &mut self,
        slot: SlotId,
        generation: Generation,
        content: Content,
        retention: Retention,
    ) {
        let key = content.id.key();
        let parent = content.id.parent_key();
        let last_use = self.tick();
        let pin = Weak::new();
        let block = Block { slot, generation, content, retention, pins: 0, last_use, pin };
        let node = self.nodes.entry(key).or_default();
        assert!(node.block.is_none(), "{key:?} is held already");
        node.block = Some(block);
        let (leaf, idle) = (node.children == 0, node.busy_children == 0);
        self.held += 1;
        if leaf {
            self.evictable.insert((last_use, key));
        }
        if let Some(parent) = parent {
            self.add_child(parent);
        }
        // Its children may have been published before it.
        if idle {
            self.reclaimable += 1;
        } else {
            self.busy_above(parent);
        }
    }

    /// Counts a pin on a held block.
    pub(super) fn pin(&mut self, key: &BlockKey, pin: Weak<Pinned>) {
        let node = held_node(&mut self.nodes, key);
        let (idle, block) = (node.busy_children == 0, held_block(&mut node.block, key));
        block.pin = pin;
        block.pins += 1;
        if block.pins == 1 {
            let (last_use, parent) = (block.last_use, block.content.id.parent_key());
            self.pinned += 1;
            self.evictable.remove(&(last_use, *key));
            if idle {
                self.reclaimable -= 1;
                self.busy_above(parent);
            }
        }
    }

    /// One pin less. Without any, the block counts as used just now.
    pub(super) fn unpin(&mut self, key: &BlockKey) {
        let last_use = self.tick();
        let node = held_node(&mut self.nodes, key);
        let (leaf, idle) = (node.children == 0, node.busy_children == 0);
        let block = held_block(&mut node.block, key);
        assert!(block.pins > 0, "{key:?} is not pinned");
        block.pins -= 1;
        if block.pins == 0 {
            let parent = block.content.id.parent_key();
            block.last_use = last_use;
            block.pin = Weak::new();
            self.pinned -= 1;
            if leaf {
                self.evictable.insert((last_use, *key));
            }
            if idle {
                self.reclaimable += 1;
                self.idle_above(parent);
            }
        }
    }

    /// The unpinned leaf whose last use is longest ago.
    pub(super) fn oldest(&self) -> Option<&Block> {
        let (_, key) = self.evictable.first()?;
        self.get(key)
    }

    /// Counts an unpinned leaf as used just now.
    pub(super) fn touch(&mut self, key: &BlockKey) {
        let last_use = self.tick();
        let node = held_node(&mut self.nodes, key);
        let block = held_block(&mut node.block, key);
        let before = std::mem::replace(&mut block.last_use, last_use);
        let leaf = self.evictable.remove(&(before, *key));
        assert!(leaf, "{key:?} is pinned, or no leaf");
        self.evictable.insert((last_use, *key));
    }

    /// Gives up the unpinned leaf whose last use is longest ago.
    pub(super) fn evict(&mut self) -> Option<Block> {
        let (_, key) = self.evictable.pop_first()?;
        let node = self.nodes.remove(&key).expect("an evictable block is held");
        let block = node.block.expect("an evictable block is held");
        assert!(block.pins == 0 && node.children == 0, "{key:?} is in use");
        self.held -= 1;
        self.reclaimable -= 1;
        if let Some(parent) = block.content.id.parent_key() {
            self.remove_child(parent);
        }
        Some(block)
    }

    fn add_child(&mut self, parent: BlockKey) {
        let node = self.nodes.entry(parent).or_default();
        node.children += 1;
        if let (1, Some(block)) = (node.children, &node.block) {
            self.evictable.remove(&(block.last_use, parent));
        }
    }

    fn remove_child(&mut self, parent: BlockKey) {
        let node = self.nodes.get_mut(&parent).expect("a child keeps its parent's node");
        node.children -= 1;
        if node.children > 0 {
            return;
        }
        match &node.block {
            Some(block) if block.pins == 0 => {
                self.evictable.insert((block.last_use, parent));
            }
            Some(_) => {}
            None => {
                self.nodes.remove(&parent);
            }
        }
    }

    /// A block below `parent` became busy.
    fn busy_above(&mut self, mut parent: Option<BlockKey>) {
        while let Some(key) = parent {
            let node = self.nodes.get_mut(&key).expect("a child keeps its parent's node");
            node.busy_children += 1;
            let (1, Some(block)) = (node.busy_children, &node.block) else { return };
            if block.pins > 0 {
                return;
            }
            self.reclaimable -= 1;
            parent = block.content.id.parent_key();
        }
    }

    /// A block below `parent` became idle.
    fn idle_above(&mut self, mut parent: Option<BlockKey>) {
        while let Some(key) = parent {
            let node = self.nodes.get_mut(&key).expect("a child keeps its parent's node");
            node.busy_children -= 1;
            let (0, Some(block)) = (node.busy_children, &node.block) else { return };
            if block.pins > 0 {
                return;
            }
            self.reclaimable += 1;
            parent = block.content.id.parent_key();
        }
    }

    fn tick(&mut self) -> u64 {
        self.uses += 1;
        self.uses
    }
}

fn held_node<'a>(nodes: &'a mut BlockMap<Node>, key: &BlockKey) -> &'a mut Node {
    nodes.get_mut(key).unwrap_or_else(|| panic!("{key:?} is not held"))
}

fn held_block<'a>(block: &'a mut Option<Block>, key: &BlockKey) -> &'a mut Block {
    block.as_mut().unwrap_or_else(|| panic!("{key:?} is not held"))
}

#[cfg(test)]
impl Forest {
    /// Recounts from the blocks alone what is otherwise kept up to date step by step.
    pub(super) fn audit(&self) {
        use std::collections::HashMap;
        let blocks: Vec<&Block> = self.nodes.values().filter_map(|n| n.block.as_ref()).collect();
        let mut children: HashMap<BlockKey, u32> = HashMap::new();
        let mut busy: HashMap<BlockKey, bool> = HashMap::new();
        for block in &blocks {
            if let Some(parent) = block.content.id.parent_key() {
                *children.entry(parent).or_default() += 1;
            }
            // Everything from a pinned block upwards, as far as it is held, is busy.
            let mut at = (block.pins > 0).then(|| block.content.id.key());
            while let Some(held) = at.and_then(|key| self.get(&key)) {
                busy.insert(held.content.id.key(), true);
                at = held.content.id.parent_key();
            }
        }
        let leaves: BTreeSet<_> = blocks
            .iter()
            .map(|block| (block, block.content.id.key()))
            .filter(|(block, key)| block.pins == 0 && !children.contains_key(key))
            .map(|(block, key)| (block.last_use, key))
            .collect();
        assert_eq!(self.evictable, leaves);
        assert_eq!(self.held as usize, blocks.len());
        assert_eq!(self.pinned as usize, blocks.iter().filter(|b| b.pins > 0).count());
        assert_eq!(self.reclaimable as usize, blocks.len() - busy.len());
        for (key, node) in &self.nodes {
            assert_eq!(node.children, children.get(key).copied().unwrap_or(0), "{key:?}");
            assert!(node.block.is_some() || node.children > 0, "{key:?} is kept for nothing");
        }
    }
}
