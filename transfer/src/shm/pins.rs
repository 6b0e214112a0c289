//! Which slots of a peer this process uses in place, and which of them it has verified.

use crate::TransferError;
use crate::caller::lock;
use baton_arena::PeerBoard;
use baton_proto::block::BlockDescriptor;
use std::sync::Mutex;

/// The board of one attachment, shared by all threads.
#[derive(Debug)]
pub(super) struct Pins {
    board: PeerBoard,
    table: Mutex<Table>,
}

/// One entry per slot of the peer.
#[derive(Debug)]
struct Table {
    slots: Box<[Slot]>,
    /// Slots with a pin.
    pinned: u32,
}

#[derive(Clone, Copy, Default, Debug)]
struct Slot {
    /// Mappings that use the slot.
    users: u32,
    /// The check of the record under which the payload was last found to match its checksum. It
    /// stands for generation, identity, length and checksum. Zero: never.
    verified: [u8; 8],
}

impl Pins {
    pub(super) fn new(board: PeerBoard, slots: u32) -> Self {
        let slots = vec![Slot::default(); slots as usize].into();
        Self { board, table: Mutex::new(Table { slots, pinned: 0 }) }
    }

    /// Pins the slots of all `blocks`, which have to exist, or of none.
    pub(super) fn pin(&self, blocks: &[BlockDescriptor]) -> Result<(), TransferError> {
        let mut guard = lock(&self.table);
        let table = &mut *guard;
        let mut new = 0;
        for block in blocks {
            let slot = &mut table.slots[block.slot.0 as usize];
            new += u32::from(slot.users == 0);
            slot.users += 1;
        }
        let limit = self.board.limit();
        if new > limit.saturating_sub(table.pinned) {
            for block in blocks {
                table.slots[block.slot.0 as usize].users -= 1;
            }
            return Err(TransferError::TooManyMapped { limit });
        }
        table.pinned += new;
        // Under the lock, so that nobody takes a pin away that was just counted on. A slot that was
        // pinned before is set once more: the fence behind it is needed all the same.
        self.board.pin(blocks.iter().map(|block| block.slot.0));
        drop(guard);
        if self.board.is_closed() {
            self.unpin(blocks);
            return Err(closed());
        }
        Ok(())
    }

    /// Takes the pins away that [`pin`](Self::pin) set.
    pub(super) fn unpin(&self, blocks: &[BlockDescriptor]) {
        let mut table = lock(&self.table);
        for block in blocks {
            let slot = &mut table.slots[block.slot.0 as usize];
            slot.users -= 1;
            if slot.users == 0 {
                table.pinned -= 1;
                self.board.unpin(block.slot.0);
            }
        }
    }

    /// The checks of the records under which the slots of `blocks` were verified.
    pub(super) fn verified(&self, blocks: &[BlockDescriptor]) -> Vec<[u8; 8]> {
        let table = lock(&self.table);
        blocks.iter().map(|block| table.slots[block.slot.0 as usize].verified).collect()
    }

    /// Remembers that a slot was verified under the record of that check.
    pub(super) fn remember(&self, block: &BlockDescriptor, check: [u8; 8]) {
        lock(&self.table).slots[block.slot.0 as usize].verified = check;
    }

    /// Whether the owner still looks at the board.
    pub(super) fn honoured(&self) -> Result<(), TransferError> {
        if self.board.is_closed() { Err(closed()) } else { Ok(()) }
    }
}

fn closed() -> TransferError {
    TransferError::Lost { kind: std::io::ErrorKind::ConnectionAborted }
}
