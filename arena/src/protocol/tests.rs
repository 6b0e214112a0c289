//! The protocol under a model checker: every interleaving of one owner and one reader, and every
//! stale value that the memory model allows. The payload is a cell whose unsynchronised use the
//! checker reports.

use super::*;
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::AtomicU64 as LoomU64;
use loom::thread;

impl Word for LoomU64 {
    fn load(&self, order: Ordering) -> u64 {
        self.load(order)
    }

    fn store(&self, value: u64, order: Ordering) {
        self.store(value, order);
    }

    fn fence(order: Ordering) {
        loom::sync::atomic::fence(order);
    }
}

/// One slot: its record, here the generation alone; the pin of one reader; the payload.
struct Slot {
    record: LoomU64,
    pin: LoomU64,
    payload: UnsafeCell<u64>,
}

impl Slot {
    /// Sealed at generation 1, whose payload is 1.
    fn new() -> Arc<Self> {
        Arc::new(Self {
            record: LoomU64::new(1),
            pin: LoomU64::new(0),
            payload: UnsafeCell::new(1),
        })
    }

    fn words(&self) -> [&LoomU64; 1] {
        [&self.record]
    }

    /// The owner's turn: reuses the slot for generation 2, if nobody has pinned it.
    fn reuse(&self, look: impl Fn(&LoomU64) -> bool) -> bool {
        store_record(self.words(), &[0]);
        if look(&self.pin) {
            store_record(self.words(), &[1]);
            return false;
        }
        // SAFETY: nobody else uses the payload now; that is what the model checks.
        self.payload.with_mut(|payload| unsafe { *payload = 2 });
        store_record(self.words(), &[2]);
        true
    }

    /// The reader's turn, after it has pinned: what it reads, if the record is `generation`'s.
    fn read(&self, generation: u64) -> Option<u64> {
        (load_record(self.words(), 1)? == [generation]).then(|| {
            // SAFETY: as above.
            self.payload.with(|payload| unsafe { *payload })
        })
    }
}

/// An owner that tries to reuse the slot `tries` times, beside a reader.
fn model(tries: usize, look: fn(&LoomU64) -> bool, reader: fn(&Slot)) {
    loom::model(move || {
        let slot = Slot::new();
        let owner = {
            let slot = Arc::clone(&slot);
            thread::spawn(move || {
                for _ in 0..tries {
                    if slot.reuse(look) {
                        break;
                    }
                }
            })
        };
        reader(&slot);
        owner.join().unwrap_or_else(|_| panic!("the owner panicked"));
    });
}

/// Maps, reads, and lets go.
fn map_once(slot: &Slot) {
    pin([&slot.pin]);
    if let Some(payload) = slot.read(1) {
        assert_eq!(payload, 1);
    }
    unpin(&slot.pin);
}

#[test]
fn a_pinned_slot_is_not_written_and_a_written_one_not_read() {
    model(2, is_pinned, map_once);
}

#[test]
fn a_reader_that_lets_go_and_comes_back_gets_the_one_or_the_other() {
    model(1, is_pinned, |slot| {
        map_once(slot);
        pin([&slot.pin]);
        if let Some(payload) = slot.read(2) {
            assert_eq!(payload, 2);
        }
        unpin(&slot.pin);
    });
}

/// A record of two words that is replaced while it is read.
#[test]
fn a_record_is_read_whole_or_void() {
    loom::model(|| {
        let record = Arc::new([LoomU64::new(1), LoomU64::new(7)]);
        let owner = {
            let record = Arc::clone(&record);
            thread::spawn(move || store_record(record.each_ref(), &[1, 8]))
        };
        if let Some(words) = load_record(record.each_ref(), 1) {
            assert!(words == [1, 7] || words == [1, 8] || words[0] == 0, "{words:?}");
        }
        owner.join().unwrap_or_else(|_| panic!("the owner panicked"));
    });
}

#[test]
#[should_panic(expected = "Causality violation")]
fn without_the_readers_fence_the_model_fails() {
    model(1, is_pinned, |slot| {
        slot.pin.store(1, Ordering::Relaxed);
        if let Some(payload) = slot.read(1) {
            assert_eq!(payload, 1);
        }
        unpin(&slot.pin);
    });
}

#[test]
#[should_panic(expected = "Causality violation")]
fn without_the_owners_look_the_model_fails() {
    model(1, |_| false, map_once);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn without_the_acquiring_look_the_model_fails() {
    model(1, |pin| pin.load(Ordering::Relaxed) != 0, map_once);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn without_the_releasing_unpin_the_model_fails() {
    model(1, is_pinned, |slot| {
        pin([&slot.pin]);
        let _ = slot.read(1);
        slot.pin.store(0, Ordering::Relaxed);
    });
}
