//! Work that is done elsewhere for another turn of this worker: a turn that would compute the same
//! here waits for it, or asks for it itself.

use crate::event::Action;
use crate::schedule::DecodeSchedule;
use crate::turn::{Candidate, Joined, Phase, Turn, TurnId};
use std::time::Duration;

/// What a turn does that is about to compute its next block here.
enum Join {
    /// It computes.
    No,
    /// Another one has asked a prefill worker for the block.
    Wait(Joined),
    /// It asks that worker, too.
    Ask(Candidate),
}

impl DecodeSchedule {
    /// Whether a turn waits for a prefill worker instead of computing here.
    pub(crate) fn waits(&mut self, id: TurnId, now: Duration, actions: &mut Vec<Action>) -> bool {
        let join = self.join(id, now);
        let turn = self.turns.get_mut(&id).expect("the caller has seen the turn");
        match join {
            Join::No => return false,
            Join::Wait(joined) => turn.joined = Some(joined),
            Join::Ask(candidate) => {
                turn.joined = None;
                turn.request.candidates.push(candidate);
                self.ask_prefill(id, now, actions);
            }
        }
        true
    }

    /// A turn waits for those that were admitted before it, so that no two wait for each other, and
    /// no longer than for a prefill worker of its own. Where the one that asked is less urgent, it
    /// asks as well, so that the work becomes as urgent as it is; and where that one has gone before
    /// the blocks came.
    fn join(&self, id: TurnId, now: Duration) -> Join {
        let turn = &self.turns[&id];
        let Phase::Filling(fill) = &turn.choices[0].phase else { return Join::No };
        let Some(missing) = fill.missing().filter(|_| !turn.filled) else { return Join::No };
        if self.claims.holder(missing).is_some() {
            // Whoever has it brings it: this one itself, perhaps, which has computed a part.
            return Join::No;
        }
        let since = turn.joined.as_ref().map_or(now, |joined| joined.since);
        if self.limits.prefill_patience <= now.saturating_sub(since) {
            return Join::No;
        }
        let (at, chain) = (fill.have(), fill.sequence().chain());
        let mut less_urgent = None;
        for (other_id, other) in &self.turns {
            let Some(candidate) = other.asked_for(chain, at) else { continue };
            if self.shares.displaces(&turn.urgency(), &other.urgency(), now, self.limits.ageing) {
                less_urgent = Some(candidate);
            } else if (other.admitted, *other_id) < (turn.admitted, id) {
                let (candidate, blocks) = (candidate.clone(), other.blocks_in_common(chain));
                return Join::Wait(Joined { turn: *other_id, candidate, blocks, since });
            }
        }
        let gone = |joined: &&Joined| at < joined.blocks && !self.turns.contains_key(&joined.turn);
        let gone = turn.joined.as_ref().filter(gone).map(|joined| &joined.candidate);
        match less_urgent.or(gone) {
            Some(candidate) if turn.asked < self.limits.prefill_attempts => {
                Join::Ask(candidate.clone())
            }
            _ => Join::No,
        }
    }

    /// The turn that makes the block which this one waits for, if it waits for one.
    pub(crate) fn maker(&self, id: TurnId) -> Option<TurnId> {
        let Phase::Filling(fill) = &self.turns[&id].choices[0].phase else { return None };
        let seq = self.claims.holder(fill.missing()?)?;
        if seq == fill.sequence().key() {
            return None;
        }
        let makes = |turn: &Turn| turn.choices.iter().any(|choice| choice.seq() == Some(seq));
        self.turns.iter().find(|(_, turn)| makes(turn)).map(|(id, _)| *id)
    }
}
