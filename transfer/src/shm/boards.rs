//! The boards of all readers of an arena, and the gate that asks them before a slot is reused.

use crate::caller::lock;
use crate::guards::{Guard, Guards};
use baton_arena::{Arena, Board};
use baton_kv::pool::SlotGate;
use baton_kv::record::SlotRecord;
use baton_proto::ids::SlotId;
use std::sync::{Arc, Mutex};

/// The boards that are looked at, one per connected reader: as many as a server has seats.
#[derive(Clone, Default, Debug)]
pub(super) struct Boards(Arc<Mutex<State>>);

#[derive(Default, Debug)]
struct State {
    boards: Vec<Arc<Board>>,
    /// No more will come.
    ended: bool,
}

/// A board among those that are looked at. Dropping it leaves it there: its reader may still be
/// reading, and it takes a decision to say that it is not.
#[derive(Debug)]
pub(super) struct Place {
    board: Arc<Board>,
    boards: Boards,
}

impl Boards {
    /// Looks at one more board. `None` after the [end](Self::end): the gate may be over then, so
    /// that nobody would look.
    pub(super) fn add(&self, board: Board) -> Option<Place> {
        let board = Arc::new(board);
        let mut state = lock(&self.0);
        if state.ended {
            return None;
        }
        state.boards.push(Arc::clone(&board));
        Some(Place { board, boards: self.clone() })
    }

    /// Takes no more boards.
    pub(super) fn end(&self) {
        lock(&self.0).ended = true;
    }

    fn hold(&self, slot: u32) -> bool {
        lock(&self.0).boards.iter().any(|board| board.holds(slot))
    }
}

impl Place {
    pub(super) fn board(&self) -> &Board {
        &self.board
    }

    /// Looks at the board no longer: its reader has let go of everything, is dead, or has broken
    /// the rules.
    pub(super) fn leave(self) {
        lock(&self.boards.0).boards.retain(|board| !Arc::ptr_eq(board, &self.board));
    }
}

/// Keeps slots that readers have mapped from being reused.
#[derive(Debug)]
pub(super) struct Gate {
    arena: Arena,
    boards: Boards,
    guards: Guards,
}

impl Gate {
    pub(super) fn new(arena: Arena, boards: Boards, guards: Guards) -> Self {
        Self { arena, boards, guards }
    }
}

impl SlotGate for Gate {
    fn close(&mut self, slot: SlotId, held: Option<&SlotRecord>) -> bool {
        if !self.guards.on(Guard::Board) {
            return true;
        }
        // Looked at twice: the first time so that the record of a block in use is not touched in
        // vain; only the second, after the record is void, is proof.
        if !self.boards.hold(slot.0) {
            self.arena.void_record(slot.0);
            if !self.boards.hold(slot.0) {
                return true;
            }
        }
        if let Some(held) = held.map(SlotRecord::to_bytes)
            && self.arena.record(slot.0) != held
        {
            self.arena.set_record(slot.0, &held);
        }
        false
    }

    fn is_over(&self) -> bool {
        let state = lock(&self.boards.0);
        state.ended && state.boards.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use baton_arena::ArenaOptions;

    #[test]
    fn no_board_comes_to_a_gate_that_may_be_over() {
        let options = ArenaOptions { slots: 4, slot_bytes: 64, name: "test" };
        let (arena, boards) = (Arena::create(options).unwrap(), Boards::default());
        let gate = Gate::new(arena, boards.clone(), Guards::default());
        let place = boards.add(Board::create(4, 1).unwrap()).unwrap();
        boards.end();
        assert!(!gate.is_over(), "a board is left");
        assert!(boards.add(Board::create(4, 1).unwrap()).is_none());
        place.leave();
        assert!(gate.is_over());
        assert!(boards.add(Board::create(4, 1).unwrap()).is_none());
        assert!(gate.is_over());
    }
}
