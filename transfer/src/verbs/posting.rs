//! What posting costs by itself: descriptors become work requests, go into chains, and are posted
//! to a device that does nothing and completes at once.

use super::rdma::{
    ArenaMap, Chain, Completing, Completion, Posted, Remote, RemoteKey, Sending, Work, null,
};
use baton_arena::{Layout, Shape};

/// Posts descriptors to no device. Time it to learn what each costs.
pub struct Posting {
    map: ArenaMap,
    chain: Chain,
    pair: null::NullPair,
    completions: null::NullCompletions,
}

/// What a round of posting came to.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Round {
    /// Work requests that were posted.
    pub requests: u64,
    /// Calls into the provider.
    pub doorbells: u64,
    /// Completions that were read.
    pub completions: u64,
}

impl Posting {
    /// For slots of this shape, and `chain` work requests per doorbell. `None` if there is no
    /// arena of that shape, or the chain is empty.
    pub fn new(shape: Shape, chain: usize) -> Option<Self> {
        let layout = Layout::of(shape).filter(|_| chain > 0)?;
        let (completions, strings) = null::completions(COMPLETIONS);
        let (map, chain, pair) = (null::map(layout), Chain::new(chain), strings.pair(1));
        Some(Self { map, chain, pair, completions })
    }

    /// Posts one READ for each pair of slots, the peer's and the own one, and reads the
    /// completions. Slots that do not exist are passed over.
    pub fn round(&mut self, blocks: &[(u32, u32)], bytes: u64) -> Round {
        let Posted { requests, doorbells } = self.chain.posted();
        let mut completions = 0;
        let mut ends = [Completion::NONE; COMPLETIONS];
        for some in blocks.chunks(self.chain.capacity()) {
            self.chain.clear();
            for (id, &(remote, local)) in (0..).zip(some) {
                let place = |slot| self.map.slots(slot, 0, bytes);
                if let (Some(into), Some(from)) = (place(local), place(remote)) {
                    let key = RemoteKey::from_wire(0);
                    let from = Remote { address: from.address(), key };
                    self.chain.push(id, Work::Read { into, from, fenced: false });
                }
            }
            // The null provider takes everything, and has room for the one completion of each.
            let posted = self.pair.post(&mut self.chain);
            debug_assert!(posted.is_ok());
            completions += self.completions.poll(&mut ends).unwrap_or(0) as u64;
        }
        let after = self.chain.posted();
        let (requests, doorbells) = (after.requests - requests, after.doorbells - doorbells);
        Round { requests, doorbells, completions }
    }
}

/// Completions read at once.
const COMPLETIONS: usize = 64;

impl std::fmt::Debug for Posting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Posting").finish_non_exhaustive()
    }
}
