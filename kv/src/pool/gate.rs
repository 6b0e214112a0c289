//! Readers that the pool does not know: those that use a block where it lies.
//!
//! A pin is a handle in this process. A reader in another process, which has mapped the arena, says
//! in memory that it shares with the owner which slots it uses. The pool sees no memory; it asks a
//! *gate* before it hands a slot out to be written.

use super::{Pool, Use};
use crate::lease::Content;
use crate::record::SlotRecord;
use baton_proto::ids::{Generation, SlotId};
use std::collections::VecDeque;
use std::fmt;

/// How many blocks that could make room, and how many slots that were set aside, are looked at for
/// one draft, and how many of the latter when it is asked what is available. What was looked at
/// comes last the next time.
pub(super) const LOOKS: usize = 64;

/// Knows who uses a slot besides the holders of this pool's handles.
///
/// It is asked while the pool is locked, so it must be quick, and must not call the pool.
pub trait SlotGate: fmt::Debug + Send {
    /// Whether nobody uses the slot, nor can begin to before it holds another block: the answer
    /// `true` closes the slot. `held` is the record of the block that it holds, `None` if it holds
    /// none; with the answer `false` the block stays, and its record has to stand there again,
    /// whatever this gate or another has done to it.
    fn close(&mut self, slot: SlotId, held: Option<&SlotRecord>) -> bool;

    /// Whether it has ended, so that it need not be asked any more.
    fn is_over(&self) -> bool;
}

/// The gates, and the free slots that they have not let pass.
#[derive(Debug, Default)]
pub(super) struct Gates {
    gates: Vec<Box<dyn SlotGate>>,
    /// The one looked at longest ago first.
    set_aside: VecDeque<SlotId>,
}

impl Gates {
    pub(super) fn set_aside(&self) -> u32 {
        self.set_aside.len() as u32
    }

    fn close(&mut self, slot: SlotId, held: Option<&SlotRecord>) -> bool {
        self.gates.iter_mut().all(|gate| gate.close(slot, held))
    }
}

impl Pool {
    /// From now on `gate` is asked before a slot is handed out to be written.
    pub fn add_gate(&mut self, gate: Box<dyn SlotGate>) {
        self.gates.gates.retain(|gate| !gate.is_over());
        self.gates.gates.push(gate);
    }

    /// A free slot that every gate lets pass.
    pub(super) fn take_free(&mut self) -> Option<SlotId> {
        while let Some(id) = self.free.pop() {
            if self.gates.close(id, None) {
                return Some(id);
            }
            self.slots[id.0 as usize].used_as = Use::SetAside;
            self.gates.set_aside.push_back(id);
        }
        for _ in 0..self.gates.set_aside.len().min(LOOKS) {
            let id = self.gates.set_aside.pop_front()?;
            if self.gates.close(id, None) {
                return Some(id);
            }
            self.gates.set_aside.push_back(id);
        }
        None
    }

    /// Asks the gates about slots that were set aside: those that nobody uses any more are free.
    pub(super) fn readmit(&mut self) {
        for _ in 0..self.gates.set_aside.len().min(LOOKS) {
            let Some(id) = self.gates.set_aside.pop_front() else { return };
            if self.gates.close(id, None) {
                self.free_slot(id);
            } else {
                self.gates.set_aside.push_back(id);
            }
        }
    }

    /// Whether every gate lets the slot of a held block pass.
    pub(super) fn close(&mut self, slot: SlotId, generation: Generation, held: Content) -> bool {
        self.gates.close(slot, Some(&held.record(generation)))
    }
}
