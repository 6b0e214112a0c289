//! What was computed ahead, until somebody asks for it. Pure: times are handed in.

use baton_proto::ids::SequenceHash;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

/// Blocks that were computed for a prompt that may come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Bet {
    /// Those that did not exist; at least one.
    pub(super) blocks: Vec<SequenceHash>,
    /// Tokens in each.
    pub(super) block_tokens: u64,
    /// Since when they exist.
    pub(super) done: Option<Instant>,
}

/// A bet that was placed: its first block, and which of those on that block it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BetId(SequenceHash, u64);

/// What computing ahead has bought a turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Bought {
    /// Prompt tokens of this turn that were computed for it.
    pub(crate) hit_tokens: u64,
    /// Tokens that were computed for it, and that its prompt does not have.
    pub(crate) wasted_tokens: u64,
    /// How long they were ready when the turn came; zero if they were still being computed.
    pub(crate) lead: Duration,
}

/// The bets that are open, by their first block: whoever has that block has the history before it.
#[derive(Debug)]
pub(super) struct Bets {
    open: HashMap<SequenceHash, (u64, Bet)>,
    /// All that were placed, the oldest first; those that are over stay until they are the oldest.
    order: VecDeque<(u64, SequenceHash)>,
    placed: u64,
    /// Blocks of all open bets.
    blocks: usize,
    blocks_max: usize,
}

impl Bets {
    pub(super) fn new(blocks_max: usize) -> Self {
        Self { open: HashMap::new(), order: VecDeque::new(), placed: 0, blocks: 0, blocks_max }
    }

    /// Remembers a bet, and says how many tokens are forgotten for it. One on the same first block
    /// takes the place of the one before, whose blocks may serve it.
    pub(super) fn place(&mut self, bet: Bet) -> (BetId, u64) {
        self.placed += 1;
        let first = bet.blocks.first().copied().unwrap_or_default();
        let mut forgotten = self.remove(first).map_or(0, |old| old.tokens_beside(&bet.blocks));
        self.blocks += bet.blocks.len();
        self.open.insert(first, (self.placed, bet));
        self.order.push_back((self.placed, first));
        while self.blocks > self.blocks_max || self.order.len() > self.blocks_max {
            let Some((number, first)) = self.order.pop_front() else { break };
            if self.open.get(&first).is_some_and(|(open, _)| *open == number) {
                forgotten += self.remove(first).map_or(0, |bet| bet.tokens());
            }
        }
        (BetId(first, self.placed), forgotten)
    }

    /// The blocks of that bet exist now.
    pub(super) fn done(&mut self, BetId(first, number): BetId, now: Instant) {
        if let Some((_, bet)) = self.open.get_mut(&first).filter(|(open, _)| *open == number) {
            bet.done = Some(now);
        }
    }

    /// Nothing was computed for that bet.
    pub(super) fn withdraw(&mut self, BetId(first, number): BetId) {
        if self.open.get(&first).is_some_and(|(open, _)| *open == number) {
            self.remove(first);
        }
    }

    /// Ends the bet on a prompt of these blocks, if there is one.
    pub(super) fn claim(&mut self, chain: &[SequenceHash], now: Instant) -> Option<Bought> {
        if self.open.is_empty() {
            return None;
        }
        // What is new in a conversation stands at its end.
        let at = chain.iter().rposition(|block| self.open.contains_key(block))?;
        let bet = self.remove(chain[at])?;
        let wasted_tokens = bet.tokens_beside(&chain[at..]);
        Some(Bought {
            hit_tokens: bet.tokens() - wasted_tokens,
            wasted_tokens,
            lead: bet.done.map_or(Duration::ZERO, |done| now.saturating_duration_since(done)),
        })
    }

    fn remove(&mut self, first: SequenceHash) -> Option<Bet> {
        let (_, bet) = self.open.remove(&first)?;
        self.blocks -= bet.blocks.len();
        Some(bet)
    }
}

impl Bet {
    fn tokens(&self) -> u64 {
        self.blocks.len() as u64 * self.block_tokens
    }

    /// Of those, the ones behind what it has in common with that chain.
    fn tokens_beside(&self, chain: &[SequenceHash]) -> u64 {
        let same = self.blocks.iter().zip(chain).take_while(|(a, b)| a == b).count();
        (self.blocks.len() - same) as u64 * self.block_tokens
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn hash(block: u8) -> SequenceHash {
        SequenceHash([block; 16])
    }

    fn chain(blocks: &[u8]) -> Vec<SequenceHash> {
        blocks.iter().copied().map(hash).collect()
    }

    fn bet(blocks: &[u8]) -> Bet {
        Bet { blocks: chain(blocks), block_tokens: 16, done: None }
    }

    #[test]
    fn the_turn_that_continues_learns_what_it_was_spared_once() {
        let start = Instant::now();
        let mut bets = Bets::new(4);
        let (placed, forgotten) = bets.place(bet(&[11, 12, 13]));
        assert_eq!(forgotten, 0);
        bets.done(placed, start);
        let came = start + Duration::from_millis(30);
        assert_eq!(bets.claim(&chain(&[1, 2, 3]), came), None);
        let bought = bets.claim(&chain(&[1, 2, 11, 12, 99, 13]), came).unwrap();
        let lead = Duration::from_millis(30);
        assert_eq!(bought, Bought { hit_tokens: 32, wasted_tokens: 16, lead });
        assert_eq!(bets.claim(&chain(&[1, 2, 11, 12, 99, 13]), came), None);
    }

    #[test]
    fn what_is_still_computed_has_no_lead_and_what_failed_is_no_bet() {
        let mut bets = Bets::new(4);
        bets.place(bet(&[11]));
        let placed = bets.place(bet(&[21])).0;
        bets.withdraw(placed);
        let now = Instant::now();
        assert_eq!(bets.claim(&chain(&[11]), now).unwrap().lead, Duration::ZERO);
        assert_eq!(bets.claim(&chain(&[21]), now), None);
    }

    #[test]
    fn what_comes_of_a_bet_says_nothing_of_the_one_that_took_its_place() {
        let (start, mut bets) = (Instant::now(), Bets::new(8));
        let old = bets.place(bet(&[1, 2])).0;
        let new = bets.place(bet(&[1, 2, 3])).0;
        bets.withdraw(old);
        bets.done(old, start);
        let later = start + Duration::from_secs(1);
        bets.done(new, start + Duration::from_millis(400));
        let bought = bets.claim(&chain(&[1, 2, 3]), later).unwrap();
        assert_eq!((bought.hit_tokens, bought.lead), (48, Duration::from_millis(600)));
    }

    #[test]
    fn the_oldest_are_forgotten_and_counted_and_nothing_grows() {
        let mut bets = Bets::new(3);
        bets.place(bet(&[1]));
        bets.place(bet(&[2, 3]));
        // Another one on the same block takes its place.
        assert_eq!(bets.place(bet(&[2, 4])).1, 16);
        assert_eq!(bets.place(bet(&[5])).1, 16);
        assert_eq!(bets.claim(&chain(&[1]), Instant::now()), None);
        assert_eq!(bets.claim(&chain(&[2, 4]), Instant::now()).unwrap().hit_tokens, 32);
        for first in 0..100 {
            bets.place(bet(&[first]));
            bets.claim(&chain(&[first]), Instant::now()).unwrap();
        }
        assert!(bets.order.len() <= 3, "{bets:?}");
        assert!(bets.open.is_empty() && bets.blocks == 0, "{bets:?}");
    }
}
