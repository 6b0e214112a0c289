//! Who touches a slot right now: many readers or one writer, checked by one atomic per slot.
//!
//! Guards own a handle on the arena, so that they can travel into a task and keep the memory
//! mapped. They do not wait: two parties meeting at a slot is a mistake of the pool above.

use crate::own::Inner;
use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

const WRITER: u32 = u32::MAX;

/// Per slot: 0 nobody, `WRITER` one writer, else the number of readers.
pub(crate) struct SlotStates(Box<[AtomicU32]>);

impl SlotStates {
    pub(crate) fn new(slots: u32) -> Self {
        Self((0..slots).map(|_| AtomicU32::new(0)).collect())
    }

    pub(crate) fn in_use(&self) -> u32 {
        self.0.iter().filter(|state| state.load(Ordering::Relaxed) != 0).count() as u32
    }

    fn of(&self, slot: u32) -> &AtomicU32 {
        let slots = self.0.len();
        self.0.get(slot as usize).unwrap_or_else(|| panic!("slot {slot} of {slots} slots"))
    }

    /// One reader more, unless there is a writer or no number left.
    fn enter_reader(&self, slot: u32) -> bool {
        self.of(slot)
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, |state| {
                (state < WRITER - 1).then(|| state + 1)
            })
            .is_ok()
    }

    fn leave_reader(&self, slot: u32) {
        let before = self.of(slot).fetch_sub(1, Ordering::Release);
        debug_assert!(before != 0 && before != WRITER);
    }

    fn enter_writer(&self, slot: u32) -> bool {
        self.of(slot).compare_exchange(0, WRITER, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    fn leave_writer(&self, slot: u32) {
        let before = self.of(slot).swap(0, Ordering::Release);
        debug_assert_eq!(before, WRITER);
    }
}

/// The bytes of a slot, shared with other readers. Nobody writes the slot while it exists.
#[must_use]
pub struct ReadGuard {
    arena: Arc<Inner>,
    slot: u32,
    bytes: NonNull<u8>,
}

/// The bytes of a slot, for one writer. Nobody else touches the slot while it exists.
#[must_use]
pub struct WriteGuard {
    arena: Arc<Inner>,
    slot: u32,
    bytes: NonNull<u8>,
}

/// Some bytes of a slot, for one writer, while others may write other bytes of it. The slot stays
/// taken until the last of its parts is dropped.
#[must_use]
pub struct WritePart {
    /// Never dereferenced: it keeps everybody else out, and the memory mapped.
    slot: Arc<WriteGuard>,
    range: Range<usize>,
}

// SAFETY: the guard stands for shared, read-only access to plain bytes; the state is atomic.
unsafe impl Send for ReadGuard {}
// SAFETY: as above.
unsafe impl Sync for ReadGuard {}
// SAFETY: the guard stands for exclusive access to plain bytes, which may move between threads.
unsafe impl Send for WriteGuard {}
// SAFETY: a shared reference to it only reads.
unsafe impl Sync for WriteGuard {}

impl ReadGuard {
    pub(crate) fn new(arena: &Arc<Inner>, slot: u32) -> Option<Self> {
        arena.states.enter_reader(slot).then(|| Self {
            bytes: arena.mapping.at(arena.layout.slot_offset(slot), arena.layout.shape.slot_bytes),
            arena: Arc::clone(arena),
            slot,
        })
    }

    /// The slot.
    pub fn slot(&self) -> u32 {
        self.slot
    }

    /// The slot as numbers; bytes beyond the last whole one are left out.
    pub fn f32s(&self) -> &[f32] {
        let count = self.len() / 4;
        // SAFETY: slots start at cache lines, so the pointer is aligned; `count` numbers lie
        // inside the slot; every bit pattern is a number; nobody writes while the guard lives.
        unsafe { std::slice::from_raw_parts(self.bytes.cast::<f32>().as_ptr(), count) }
    }
}

impl WriteGuard {
    pub(crate) fn new(arena: &Arc<Inner>, slot: u32) -> Option<Self> {
        arena.states.enter_writer(slot).then(|| Self {
            bytes: arena.mapping.at(arena.layout.slot_offset(slot), arena.layout.shape.slot_bytes),
            arena: Arc::clone(arena),
            slot,
        })
    }

    /// The slot.
    pub fn slot(&self) -> u32 {
        self.slot
    }

    /// Cuts bytes of the slot into parts of at most `each`, for several writers; none of them gets
    /// the bytes beside `range`. An empty range is one empty part.
    ///
    /// # Panics
    /// If the slot does not have all of `range`, or `each` is 0.
    pub fn cut(self, range: Range<usize>, each: usize) -> impl Iterator<Item = WritePart> {
        assert!(range.start <= range.end && range.end <= self.len(), "{range:?} of {self:?}");
        let slot = Arc::new(self);
        let parts = range.len().div_ceil(each).max(1);
        (0..parts).map(move |part| {
            let start = range.start + part * each;
            let range = start..range.end.min(start.saturating_add(each));
            WritePart { slot: Arc::clone(&slot), range }
        })
    }

    /// The slot as numbers; bytes beyond the last whole one are left out.
    pub fn f32s(&self) -> &[f32] {
        let count = self.len() / 4;
        // SAFETY: as in `ReadGuard::f32s`; only this guard writes, and it is borrowed.
        unsafe { std::slice::from_raw_parts(self.bytes.cast::<f32>().as_ptr(), count) }
    }

    /// The slot as numbers, to be written.
    pub fn f32s_mut(&mut self) -> &mut [f32] {
        let count = self.len() / 4;
        // SAFETY: as in `ReadGuard::f32s`; this guard is the only access, and it is borrowed
        // mutably.
        unsafe { std::slice::from_raw_parts_mut(self.bytes.cast::<f32>().as_ptr(), count) }
    }
}

impl Deref for ReadGuard {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let len = self.arena.layout.shape.slot_bytes;
        // SAFETY: `len` bytes of the mapping, which the Arc keeps alive; nobody writes them while
        // the guard counts as a reader, and no other process can (the memfd is sealed).
        unsafe { std::slice::from_raw_parts(self.bytes.as_ptr(), len) }
    }
}

impl Deref for WriteGuard {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let len = self.arena.layout.shape.slot_bytes;
        // SAFETY: as for `ReadGuard`; the only writer is this guard, and it is borrowed.
        unsafe { std::slice::from_raw_parts(self.bytes.as_ptr(), len) }
    }
}

impl DerefMut for WriteGuard {
    fn deref_mut(&mut self) -> &mut [u8] {
        let len = self.arena.layout.shape.slot_bytes;
        // SAFETY: as for `ReadGuard`; this guard excludes every other access and is borrowed
        // mutably. Other processes may read the bytes meanwhile; they check what they got.
        unsafe { std::slice::from_raw_parts_mut(self.bytes.as_ptr(), len) }
    }
}

impl Deref for WritePart {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `cut` has checked that the range lies in the slot, and has given these bytes to
        // this part alone; the slot's guard, which only parts hold, excludes every other access.
        unsafe {
            let first = self.slot.bytes.as_ptr().add(self.range.start);
            std::slice::from_raw_parts(first, self.range.len())
        }
    }
}

impl DerefMut for WritePart {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above; the part is borrowed mutably, and parts do not overlap.
        unsafe {
            let first = self.slot.bytes.as_ptr().add(self.range.start);
            std::slice::from_raw_parts_mut(first, self.range.len())
        }
    }
}

impl Drop for ReadGuard {
    fn drop(&mut self) {
        self.arena.states.leave_reader(self.slot);
    }
}

impl Drop for WriteGuard {
    fn drop(&mut self) {
        self.arena.states.leave_writer(self.slot);
    }
}

impl fmt::Debug for ReadGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReadGuard(slot {})", self.slot)
    }
}

impl fmt::Debug for WritePart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WritePart(slot {}, {:?})", self.slot.slot, self.range)
    }
}

impl fmt::Debug for WriteGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WriteGuard(slot {})", self.slot)
    }
}
