//! How the leading whole blocks of a sequence come together: found in the pool, joined from work
//! in flight, pulled from a peer, or computed here. Prefill and decode do the same, with other
//! sources at hand.

use crate::blocks::Blocks;
use crate::claims::Claims;
use crate::sequence::Sequence;
use baton_engine::api::Item;
use baton_kv::lease::{Draft, WriteLease};
use baton_proto::block::BlockDescriptor;
use baton_proto::ids::SequenceHash;
use baton_transfer::{Pull, Settled};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Add;

/// A sequence on its way to `goal` whole blocks.
#[derive(Debug)]
pub struct Fill {
    sequence: Sequence,
    goal: usize,
    /// Blocks found before this index are not reported: the caller holds them itself.
    report_from: usize,
    /// Where a block can be pulled from, by index.
    offers: BTreeMap<usize, BlockDescriptor>,
    /// Indices that a transport is bringing.
    pulling: BTreeSet<usize>,
    /// Brought and verified, waiting for the blocks before them: children are never published
    /// before their parents, so that what is held is always a prefix.
    arrived: BTreeMap<usize, (BlockDescriptor, Draft)>,
    /// The pool had no slot for it when it was last moved on.
    short: bool,
    report: FillReport,
}

/// Where the blocks came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FillReport {
    /// Blocks found here, or joined from somebody else's work here.
    pub found_blocks: u32,
    /// Blocks that a transport brought.
    pub pulled_blocks: u32,
    /// Their bytes.
    pub pulled_bytes: u64,
    /// Blocks computed here.
    pub computed_blocks: u32,
    /// Pulls that failed.
    pub failed_pulls: u32,
}

impl Add for FillReport {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            found_blocks: self.found_blocks + other.found_blocks,
            pulled_blocks: self.pulled_blocks + other.pulled_blocks,
            pulled_bytes: self.pulled_bytes + other.pulled_bytes,
            computed_blocks: self.computed_blocks + other.computed_blocks,
            failed_pulls: self.failed_pulls + other.failed_pulls,
        }
    }
}

/// What a fill may do now.
#[derive(Clone, Copy, Debug)]
pub struct FillLimits {
    /// Blocks in flight at most.
    pub window_blocks: usize,
    /// Positions to compute in the next step, at most; 0: do not compute.
    pub compute_tokens: u32,
}

/// What a fill needs next.
#[derive(Debug)]
pub enum Next {
    /// Every block is at hand.
    Done,
    /// Somebody else's work, a pull, or a free slot.
    Wait,
    /// These pulls shall start. They are in order; pass each result to [`Fill::settled`], and what
    /// has none to [`Fill::lost`].
    Pull(Vec<Pull>),
    /// So many positions shall be computed; call [`Fill::lend`] and [`Fill::item`] with them.
    Compute(u32),
}

impl Fill {
    /// Begins a fill; the first [`Fill::advance`] takes what the pool holds. Blocks found before
    /// index `report_from` are left out of the report.
    pub fn new(sequence: Sequence, goal: usize, report_from: usize) -> Self {
        assert!(goal <= sequence.chain().len(), "a fill cannot exceed its whole blocks");
        Self {
            sequence,
            goal,
            report_from,
            offers: BTreeMap::new(),
            pulling: BTreeSet::new(),
            arrived: BTreeMap::new(),
            short: false,
            report: FillReport::default(),
        }
    }

    /// The sequence as far as it is.
    pub fn sequence(&self) -> &Sequence {
        &self.sequence
    }

    /// Number of whole blocks wanted.
    pub fn goal(&self) -> usize {
        self.goal
    }

    /// Whole blocks at hand.
    pub fn have(&self) -> usize {
        self.sequence.pins().len()
    }

    /// The hashes of the whole blocks that are wanted.
    pub fn wanted(&self) -> &[SequenceHash] {
        &self.sequence.chain()[..self.goal]
    }

    /// The first of them that is not at hand.
    pub fn missing(&self) -> Option<&SequenceHash> {
        self.wanted().get(self.have())
    }

    /// Where the blocks came from.
    pub fn report(&self) -> FillReport {
        self.report
    }

    /// Whether a transport still writes for this fill.
    pub fn is_pulling(&self) -> bool {
        !self.pulling.is_empty()
    }

    /// Whether the pool had no slot for it when it last wanted one, and it has not been moved on since.
    pub fn is_short(&self) -> bool {
        self.short
    }

    /// A peer holds these blocks; those that are not in this chain are ignored.
    pub fn offer(&mut self, descriptors: &[BlockDescriptor]) {
        let chain = self.sequence.chain();
        let mut index = self.have();
        for descriptor in descriptors {
            let Some(ahead) = chain[index..self.goal].iter().position(|h| *h == descriptor.hash)
            else {
                continue;
            };
            index += ahead;
            if !self.pulling.contains(&index) && !self.arrived.contains_key(&index) {
                self.offers.insert(index, *descriptor);
            }
        }
    }

    /// The peer is gone: what has not begun will not come from there.
    pub fn withdraw_offers(&mut self) {
        self.offers.clear();
    }

    /// Takes what has become available and says what is needed next.
    pub fn advance(&mut self, blocks: &Blocks, claims: &mut Claims, limits: FillLimits) -> Next {
        self.short = false;
        self.take_available(blocks, claims);
        if self.have() == self.goal {
            return Next::Done;
        }
        let pulls = self.start_pulls(blocks, claims, limits.window_blocks);
        if !pulls.is_empty() {
            return Next::Pull(pulls);
        }
        let next = self.have();
        let hash = self.sequence.chain()[next];
        let busy = self.is_pulling()
            || self.offers.contains_key(&next)
            || claims.taken(&hash, self.sequence.key());
        if busy || limits.compute_tokens == 0 {
            return Next::Wait;
        }
        Next::Compute(self.claim_compute(claims, limits.compute_tokens))
    }

    fn take_available(&mut self, blocks: &Blocks, claims: &mut Claims) {
        while self.have() < self.goal {
            let index = self.have();
            let hash = self.sequence.chain()[index];
            if let Some((descriptor, draft)) = self.arrived.remove(&index) {
                let parent = self.sequence.parent_of(index);
                self.report.pulled_blocks += 1;
                self.report.pulled_bytes += u64::from(descriptor.len);
                self.sequence.adopt(blocks.publish_pulled(draft, &descriptor, parent));
            } else if self.pulling.contains(&index) {
                return;
            } else if let Some(pin) = blocks.pin(&hash) {
                self.report.found_blocks += u32::from(index >= self.report_from);
                self.sequence.adopt(pin);
            } else {
                return;
            }
            self.offers.remove(&index);
            claims.release(&hash, self.sequence.key());
        }
    }

    fn start_pulls(&mut self, blocks: &Blocks, claims: &mut Claims, window: usize) -> Vec<Pull> {
        let key = self.sequence.key();
        let mut pulls = Vec::new();
        let mut index = self.have();
        while index < self.goal && self.pulling.len() + self.arrived.len() < window {
            let hash = self.sequence.chain()[index];
            if !self.pulling.contains(&index) && !self.arrived.contains_key(&index) {
                let Some(from) = self.offers.get(&index).copied() else { break };
                if claims.taken(&hash, key) {
                    break;
                }
                let Ok(draft) = blocks.draft() else {
                    self.short = true;
                    break;
                };
                claims.claim(hash, key);
                self.offers.remove(&index);
                self.pulling.insert(index);
                pulls.push(Pull::whole(from, draft.lend()));
            }
            index += 1;
        }
        pulls
    }

    /// Cuts a chunk where a block is on its way or somebody else is at work, and claims it.
    fn claim_compute(&self, claims: &mut Claims, tokens: u32) -> u32 {
        let key = self.sequence.key();
        let block_tokens = self.sequence.block_tokens();
        let end_tokens = self.goal as u32 * block_tokens;
        let mut end = (self.sequence.computed() + tokens).min(end_tokens);
        // Whole blocks are sealed sooner than parts; a part is left only where the chunk is
        // smaller than one block.
        if end / block_tokens > self.sequence.computed() / block_tokens {
            end -= end % block_tokens;
        }
        for index in self.have()..end.div_ceil(block_tokens) as usize {
            let stop = self.offers.contains_key(&index)
                || self.arrived.contains_key(&index)
                || !claims.claim(self.sequence.chain()[index], key);
            if stop {
                end = index as u32 * block_tokens;
                break;
            }
        }
        end - self.sequence.computed()
    }

    /// Whether the next block is missing and nobody, here or elsewhere, is known to bring it.
    pub fn is_waiting_for_offer(&self, claims: &Claims) -> bool {
        let next = self.have();
        next < self.goal
            && !self.is_pulling()
            && !self.arrived.contains_key(&next)
            && !self.offers.contains_key(&next)
            && !claims.taken(&self.sequence.chain()[next], self.sequence.key())
    }

    /// A pull has ended. Returns whether it brought the block.
    pub fn settled(&mut self, result: Settled, claims: &mut Claims) -> bool {
        let key = self.sequence.key();
        let (block, lease, arrived) = match result {
            Settled::Arrived { block, lease } => (block, lease, true),
            Settled::Failed { block, lease, .. } => (block, lease, false),
        };
        let draft = lease.settle();
        let Some(index) = self.no_longer_pulling(&block) else { return false };
        if arrived {
            self.arrived.insert(index, (block, draft));
        } else {
            self.report.failed_pulls += 1;
            claims.release(&block.hash, key);
        }
        arrived
    }

    /// A pull has ended without its slot, which is quarantined: the block has to come another way.
    pub fn lost(&mut self, block: &BlockDescriptor, claims: &mut Claims) {
        if self.no_longer_pulling(block).is_some() {
            self.report.failed_pulls += 1;
            claims.release(&block.hash, self.sequence.key());
        }
    }

    /// The block's index, if it was being pulled until now.
    fn no_longer_pulling(&mut self, block: &BlockDescriptor) -> Option<usize> {
        let index = self.sequence.chain().iter().position(|hash| *hash == block.hash);
        index.filter(|index| self.pulling.remove(index))
    }

    /// Slots for the positions that [`Next::Compute`] named; `None` where the pool has none now.
    pub fn lend(&mut self, count: u32, blocks: &Blocks) -> Option<Vec<WriteLease>> {
        let lent = self.sequence.lend(count, blocks).ok();
        self.short = lent.is_none();
        lent
    }

    /// The engine's view of these positions; a fill never draws.
    pub fn item(&self, count: u32, drafts: Vec<WriteLease>) -> Item<'_> {
        self.sequence.item(count, drafts, None)
    }

    /// The engine is done with these positions.
    pub fn absorb(
        &mut self,
        count: u32,
        drafts: Vec<WriteLease>,
        blocks: &Blocks,
        claims: &mut Claims,
    ) {
        let key = self.sequence.key();
        for hash in self.sequence.absorb(count, drafts, blocks) {
            self.report.computed_blocks += 1;
            claims.release(&hash, key);
        }
    }

    /// The filled sequence.
    pub fn into_sequence(self) -> Sequence {
        self.sequence
    }
}
