//! What an owner and its readers do to the words that they share, and in which order.
//!
//! There are two kinds of words. A *record* stands beside each slot; its owner writes it. A *pin*
//! stands on a reader's board, one per slot; its reader writes it. The two rules:
//!
//! * A reader of a slot pins it, *then* reads the record, and uses the slot only if the record is
//!   the one that it expects.
//! * An owner who wants to write a slot voids the record, *then* reads the pins, and writes only if
//!   nobody has pinned the slot.
//!
//! Between the two halves of either rule stands a sequentially consistent fence. Of two such fences
//! one comes first. If it is the reader's, the owner sees the pin. If it is the owner's, the reader
//! sees the void record, or a later one. So never do both go on. When a reader lets go, its store
//! is a release that the owner's look acquires: what the reader has read, it has read before the
//! owner writes.
//!
//! The functions are generic so that the model in the tests runs the very ones that production
//! runs, on words whose every interleaving is tried.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// A word in shared memory.
pub(crate) trait Word {
    fn load(&self, order: Ordering) -> u64;
    fn store(&self, value: u64, order: Ordering);
    fn fence(order: Ordering);
}

impl Word for AtomicU64 {
    fn load(&self, order: Ordering) -> u64 {
        self.load(order)
    }

    fn store(&self, value: u64, order: Ordering) {
        self.store(value, order);
    }

    fn fence(order: Ordering) {
        std::sync::atomic::fence(order);
    }
}

/// Pins are 0 or 1.
impl Word for AtomicU8 {
    fn load(&self, order: Ordering) -> u64 {
        self.load(order).into()
    }

    fn store(&self, value: u64, order: Ordering) {
        self.store(value as u8, order);
    }

    fn fence(order: Ordering) {
        std::sync::atomic::fence(order);
    }
}

/// The reader's: sets pins. A record that is read afterwards is read after they are seen.
pub(crate) fn pin<'a, W: Word + 'a>(pins: impl IntoIterator<Item = &'a W>) {
    for pin in pins {
        pin.store(1, Ordering::Relaxed);
    }
    W::fence(Ordering::SeqCst);
}

/// The reader's: takes a pin away. What was read of the slot was read before.
pub(crate) fn unpin<W: Word>(pin: &W) {
    pin.store(0, Ordering::Release);
}

/// The owner's: whether a reader has pinned the slot. Ask after [`store_record`] has voided it.
pub(crate) fn is_pinned<W: Word>(pin: &W) -> bool {
    pin.load(Ordering::Acquire) != 0
}

/// The owner's: replaces a record. Its first word is void while the others change, so that a reader
/// who looks twice sees either the old record, the new one, or a void one. What is written or read
/// next comes after it.
pub(crate) fn store_record<W: Word, const N: usize>(words: [&W; N], record: &[u64; N]) {
    words[0].store(0, Ordering::Relaxed);
    W::fence(Ordering::Release);
    for (word, value) in words.iter().zip(record).skip(1) {
        word.store(*value, Ordering::Relaxed);
    }
    // Payload and the other words are visible before the word that validates them.
    words[0].store(record[0], Ordering::Release);
    W::fence(Ordering::SeqCst);
}

/// The reader's: a record, whole: never half of one and half of the next. Two equal looks mean
/// that: what was torn in the first is void or complete in the second. What was read before is read
/// before it. `None` if it changes all the time.
pub(crate) fn load_record<W: Word, const N: usize>(
    words: [&W; N],
    attempts: usize,
) -> Option<[u64; N]> {
    let read = || words.map(|word| word.load(Ordering::Acquire));
    W::fence(Ordering::Acquire);
    let mut before = read();
    for _ in 0..attempts {
        let after = read();
        if before == after {
            return Some(after);
        }
        before = after;
        std::hint::spin_loop();
    }
    None
}

#[cfg(test)]
mod tests;
