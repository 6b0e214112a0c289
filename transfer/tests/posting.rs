//! Posting takes memory for each pull, and none for each descriptor.

use baton_arena::Shape;
use baton_transfer::verbs::{Posting, Round, VerbsOptions};
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
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("one");
    let options = VerbsOptions { queue_pairs: 2, chain: 16, depth: 256, ..VerbsOptions::default() };
    let mut posting = Posting::new(SHAPE, options).expect("a shape");
    let mut round = |count| {
        let blocks = scattered(count);
        let mut round = Round::default();
        let allocated = allocations(|| {
            let bytes = SHAPE.slot_bytes as u64;
            round = runtime.block_on(posting.round(&blocks, bytes)).expect("a round");
        });
        (round, allocated)
    };
    round(1 << 10);
    let (few, of_few) = round(1 << 10);
    let (many, of_many) = round(16 << 10);
    // A READ for each block; records that lie side by side come with one.
    assert!(few.requests >= 1 << 10 && few.doorbells == few.requests.div_ceil(16), "{few:?}");
    assert!(many.requests >= 16 << 10, "{many:?}");
    // Lists grow by doubling: sixteen times the blocks are a few allocations more, for each list.
    println!("{of_few} allocations for {few:?}, {of_many} for {many:?}");
    assert!(of_few < 256 && of_many < of_few + 64, "{of_few} and {of_many}");
}
