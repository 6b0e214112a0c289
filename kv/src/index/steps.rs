//! What a lookup has found: which workers hold how much of a chain, in bits.

use super::sets::Part;
use crate::block::Tier;
use std::cmp::Reverse;

/// Who holds a chain to which depth, the deepest first, and in which tier the last block of that.
#[derive(Debug, Default)]
pub(super) struct Steps {
    steps: Vec<Step>,
    /// Of the steps, by their place, whose workers do not all have the first tier; in order.
    tiers: Vec<(usize, [u64; 2])>,
}

/// Workers whose slots share a word.
#[derive(Clone, Copy, Debug)]
struct Step {
    depth: u32,
    word: u32,
    members: u64,
}

impl Steps {
    pub(super) fn clear(&mut self) {
        self.steps.clear();
        self.tiers.clear();
    }

    pub(super) fn push(&mut self, depth: usize, part: &Part) {
        let &Part { word, members, tiers } = part;
        if tiers != [0, 0] {
            self.tiers.push((self.steps.len(), tiers));
        }
        self.steps.push(Step { depth: depth as u32, word, members });
    }

    /// How many workers.
    pub(super) fn len(&self) -> usize {
        self.steps.iter().map(|step| step.members.count_ones() as usize).sum()
    }

    /// The greatest depth.
    pub(super) fn deepest(&self) -> Option<usize> {
        self.steps.first().map(|step| step.depth as usize)
    }

    /// Each slot with its depth and tier.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, u32, Tier)> + '_ {
        self.parts()
            .flat_map(|(depth, part)| part.slots().map(move |(slot, tier)| (depth, slot, tier)))
    }

    /// Puts the deepest first.
    pub(super) fn sort(&mut self) {
        let mut parts: Vec<_> = self.parts().collect();
        parts.sort_by_key(|(depth, _)| Reverse(*depth));
        self.clear();
        for (depth, part) in &parts {
            self.push(*depth, part);
        }
    }

    fn parts(&self) -> impl Iterator<Item = (usize, Part)> + '_ {
        let mut tiers = self.tiers.iter().peekable();
        self.steps.iter().enumerate().map(move |(at, &Step { depth, word, members })| {
            let tiers = tiers.next_if(|(of, _)| *of == at).map_or([0, 0], |(_, tiers)| *tiers);
            (depth as usize, Part { word, members, tiers })
        })
    }
}
