//! Posting takes memory when it is set up, and none for each descriptor.

use baton_arena::Shape;
use baton_transfer::verbs::{Posting, Round};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// Counts what each thread allocates.
struct Counting;

// SAFETY: everything is the system's allocator's; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller says.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as the caller says.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller says.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn allocations(run: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    run();
    ALLOCATIONS.get() - before
}

const SHAPE: Shape = Shape { slots: 16 << 10, slot_bytes: 64 << 10 };
const CHAIN: usize = 16;

/// Slots in an order in which no two neighbours meet.
fn scattered(count: u32) -> Vec<(u32, u32)> {
    (0..count).map(|i| (i * 7 % SHAPE.slots, i * 11 % SHAPE.slots)).collect()
}

#[test]
fn allocations_are_counted() {
    assert_eq!(allocations(|| drop(black_box(Box::new(1)))), 1);
}

#[test]
fn no_descriptor_costs_an_allocation() {
    let mut posting = Posting::new(SHAPE, CHAIN).expect("a shape");
    let (few, many) = (scattered(1 << 10), scattered(16 << 10));
    let bytes = SHAPE.slot_bytes as u64;
    posting.round(&few, bytes);
    let mut rounds = [Round::default(); 2];
    let of_few = allocations(|| rounds[0] = posting.round(&few, bytes));
    let of_many = allocations(|| rounds[1] = posting.round(&many, bytes));
    let round = |requests: u64| {
        let chains = requests / CHAIN as u64;
        Round { requests, doorbells: chains, completions: chains }
    };
    assert_eq!(rounds, [round(1 << 10), round(16 << 10)]);
    assert_eq!((of_few, of_many), (0, 0));
}
