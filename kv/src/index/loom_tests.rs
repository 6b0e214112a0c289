//! The table and the sets under a model checker: their sources once more, on the checker's atomics.
//! It lets the writer interrupt the reader, and the reader the writer, at any access, and gives the
//! reader every stale value that the memory model allows; all orders are tried. Without any one of
//! the reader's checks a test here fails. `BATON_LONG` allows more interruptions.
#![allow(clippy::unwrap_used, dead_code)]
#![allow(clippy::duplicate_mod, reason = "the same sources, on other atomics")]

mod atomics {
    use std::cell::Cell;

    pub(super) use loom::hint::spin_loop;
    pub(super) use loom::sync::atomic::{Ordering, fence};

    pub(super) const FIRST_BUCKETS: usize = 2;
    pub(super) const FIRST_ROWS: usize = 1;
    pub(super) const PLACES: usize = 1;
    pub(super) const FULL: usize = 3;

    loom::thread_local! {
        /// Whether this thread is the writer.
        pub(super) static WRITES: Cell<bool> = Cell::new(false);
    }

    /// The writer is alone and knows what it stored, so the checker does not see it load: a load
    /// before a store of the same object would hide from it that the store and an earlier load of
    /// the reader can change places, and each load would double what there is to try.
    macro_rules! atomic {
        ($name:ident, $inner:ty) => {
            #[derive(Debug, Default)]
            pub(super) struct $name {
                seen: loom::sync::atomic::$name,
                stored: std::sync::atomic::$name,
            }

            impl $name {
                pub(super) fn new(value: $inner) -> Self {
                    Self {
                        seen: loom::sync::atomic::$name::new(value),
                        stored: std::sync::atomic::$name::new(value),
                    }
                }

                pub(super) fn load(&self, order: Ordering) -> $inner {
                    if WRITES.with(Cell::get) {
                        return self.stored.load(Ordering::Relaxed);
                    }
                    self.seen.load(order)
                }

                pub(super) fn store(&self, value: $inner, order: Ordering) {
                    assert!(WRITES.with(Cell::get), "only the writer stores");
                    self.stored.store(value, Ordering::Relaxed);
                    self.seen.store(value, order);
                }

                pub(super) fn swap(&self, value: $inner, order: Ordering) -> $inner {
                    let before = self.load(Ordering::Relaxed);
                    self.store(value, order);
                    before
                }
            }
        };
    }
    atomic!(AtomicU32, u32);
    atomic!(AtomicU64, u64);
}
#[path = "bucket.rs"]
mod bucket;
#[path = "prefetch.rs"]
mod prefetch;
#[path = "segments.rs"]
mod segments;
#[path = "sets.rs"]
mod sets;
#[path = "table.rs"]
mod table;

use super::model_tests::rounds;
use crate::block::{BlockKey, Tier};
use crate::guard::Guard;
use baton_proto::ids::{GroupId, SequenceHash};
use loom::sync::Arc;
use sets::{EMPTY, SetRef, SetRows, SetWriter, slots, tier_in};
use table::{Name, Sought, Table, TableWriter, bucket_of};

/// How often one thread may interrupt the other, at any places, in the short and the long form.
/// Without any of the checks one interruption is enough for a wrong answer.
const INTERRUPTIONS: [usize; 2] = [3, 5];

/// The entry of `y`, which was added third.
const ENTRY_OF_Y: u32 = 3;

/// A set's workers, by slot.
type Members = Vec<(u32, Tier)>;

/// What the reader sees.
struct Shared {
    table: Table,
    rows: SetRows,
}

/// The writer, with four blocks: `w`, `x` and `y` share a bucket, in which `w` has the place, and
/// `x` and `y` are linked, `y` first; `w` and `y` move when the table grows; `z` is in another
/// bucket, and not in the table yet.
struct Writer {
    blocks: TableWriter,
    sets: SetWriter,
    x: Name,
    y: Name,
    z: Name,
}

/// The first name that comes into one bucket of two, and into one of three.
fn name(of_two: u32, of_three: u32) -> Name {
    names(of_two, of_three).next().unwrap()
}

fn names(of_two: u32, of_three: u32) -> impl Iterator<Item = Name> {
    let names = (0..=u8::MAX)
        .map(|n| Sought::new(&BlockKey { hash: SequenceHash([n; 16]), group: GroupId(0) }).name);
    names.filter(move |name| (bucket_of(*name, 2), bucket_of(*name, 3)) == (of_two, of_three))
}

fn w() -> Name {
    names(0, 2).nth(1).unwrap()
}

impl Writer {
    /// Worker 0 holds `w`, `x` and `y`, worker 1 also `x` if that is `shared`.
    fn new(seen: &Shared, shared: bool) -> Self {
        // Rows that are added later are seen through a `OnceLock`, of which the checker knows
        // nothing: so they are all there before the threads.
        seen.table.add_rows(4);
        let (x, y, z) = (name(0, 0), name(0, 2), name(1, 1));
        let w = w();
        let mut writer = Self { blocks: TableWriter::new(8), sets: SetWriter::default(), x, y, z };
        for name in [w, x, y] {
            writer.blocks.add(&seen.table, &Sought::named(name));
            writer.hold(seen, name, 0, Some(Tier::Device));
        }
        if shared {
            writer.hold(seen, x, 1, Some(Tier::Host));
        }
        writer
    }

    fn hold(&mut self, seen: &Shared, name: Name, slot: u32, tier: Option<Tier>) {
        let block = TableWriter::find(&seen.table, &Sought::named(name)).unwrap();
        let old = block.set();
        let new = self.sets.with(&seen.rows, old, slot, tier);
        block.replace_set(new);
        self.sets.release(&seen.rows, old);
        if new == EMPTY {
            self.blocks.unlink(&seen.table, block);
        }
    }

    fn add_z(&mut self, seen: &Shared) {
        self.blocks.add(&seen.table, &Sought::named(self.z));
        self.hold(seen, self.z, 2, Some(Tier::Disk));
    }
}

impl Shared {
    fn find(&self, name: Name) -> SetRef {
        self.table.find(&self.table.aim(self.table.begin(name)), &self.rows).set
    }
}

/// Lets the one write while the other reads, in every order and with every stale value.
fn model(
    shared: bool,
    write: fn(&mut Writer, &Shared),
    read: impl Fn(&Shared) + Send + Sync + 'static,
) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(rounds(INTERRUPTIONS[0], INTERRUPTIONS[1]));
    model.check(move || {
        atomics::WRITES.with(|writes| writes.set(true));
        let seen = Arc::new(Shared { table: Table::new(), rows: SetRows::new(4) });
        let mut writer = Writer::new(&seen, shared);
        atomics::WRITES.with(|writes| writes.set(false));
        let thread = {
            let seen = Arc::clone(&seen);
            loom::thread::spawn(move || {
                atomics::WRITES.with(|writes| writes.set(true));
                write(&mut writer, &seen);
            })
        };
        read(&seen);
        thread.join().unwrap();
    });
}

/// `y` goes, and its entry comes into another bucket as `z`'s. Whoever stands on it on the way to
/// `x` is led astray.
fn an_entry_changes_hands() {
    let write = |writer: &mut Writer, seen: &Shared| {
        writer.hold(seen, writer.y, 0, None);
        writer.add_z(seen);
    };
    model(false, write, |seen| assert!(!seen.find(name(0, 0)).is_empty(), "x is held"));
}

/// The same, and whoever takes the entry for that of a block which it was, or will be, has to
/// notice that it is not.
fn a_guess_goes_out_of_date(name: Name, held: fn(&[(u32, Tier)]) -> bool) {
    let write = |writer: &mut Writer, seen: &Shared| {
        writer.hold(seen, writer.y, 0, None);
        writer.add_z(seen);
    };
    model(false, write, move |seen| {
        let found = seen.table.find_at(name, ENTRY_OF_Y, &seen.rows);
        let Some(members) = found.and_then(|found| taken(seen, found.set)) else { return };
        assert!(held(&members), "not a set of that block: {members:?}");
    });
}

fn a_guess_at_y() {
    a_guess_goes_out_of_date(name(0, 2), |members| members == [(0, Tier::Device)]);
}

fn a_guess_at_z() {
    a_guess_goes_out_of_date(name(1, 1), |members| members == [(2, Tier::Disk)]);
}

/// `z` makes the table grow, and `w` and `y` move to the new bucket; meanwhile they are in none.
fn the_table_grows() {
    model(false, Writer::add_z, |seen| assert!(!seen.find(name(0, 2)).is_empty(), "y is held"));
    model(false, Writer::add_z, |seen| assert!(!seen.find(w()).is_empty(), "w is held"));
}

/// `w` gives up its place, and gets it again, while another one is looked for.
fn a_place_changes_hands() {
    let write = |writer: &mut Writer, seen: &Shared| {
        writer.hold(seen, w(), 0, None);
        writer.hold(seen, writer.y, 0, None);
        writer.blocks.add(&seen.table, &Sought::named(writer.y));
        writer.hold(seen, writer.y, 0, Some(Tier::Device));
    };
    model(false, write, |seen| assert!(!seen.find(name(0, 0)).is_empty(), "x is held"));
}

/// Worker 1 gives up `x`, and the row of its set becomes that of another one.
fn a_row_changes_hands(read: fn(&Shared, SetRef) -> Option<Members>) {
    let write = |writer: &mut Writer, seen: &Shared| {
        writer.hold(seen, writer.x, 1, None);
        writer.hold(seen, writer.y, 3, Some(Tier::Remote));
    };
    model(true, write, move |seen| {
        let Some(found) = read(seen, seen.find(name(0, 0))) else { return };
        let both = [(0, Tier::Device), (1, Tier::Host)];
        assert!(found == both || found == both[..1], "not a set of x: {found:?}");
    });
}

fn copied(seen: &Shared, set: SetRef) -> Option<Members> {
    let mut planes = seen.rows.planes();
    seen.rows.read(set, &mut planes).ok()?;
    Some(slots(&planes[..1]).map(|slot| (slot, tier_in(&planes, slot).unwrap())).collect())
}

fn taken(seen: &Shared, set: SetRef) -> Option<Members> {
    let mut members = Vec::new();
    seen.rows.take(set, &mut [0], |part| members.extend(part.slots())).ok()?;
    Some(members)
}

#[test]
fn a_held_block_is_found_while_another_entry_changes_hands() {
    an_entry_changes_hands();
}

#[test]
fn a_held_block_is_found_while_the_table_grows() {
    the_table_grows();
}

#[test]
fn a_held_block_is_found_while_a_place_changes_hands() {
    a_place_changes_hands();
}

#[test]
fn a_set_is_read_whole_or_not_at_all() {
    a_row_changes_hands(copied);
    a_row_changes_hands(taken);
}

#[test]
fn a_guessed_entry_is_believed_only_of_the_block_that_has_it() {
    a_guess_at_y();
    a_guess_at_z();
}

#[test]
#[should_panic(expected = "x is held")]
fn without_the_version_after_the_look_a_held_block_is_missed() {
    Guard::Version.without(an_entry_changes_hands);
}

#[test]
#[should_panic(expected = "y is held")]
fn without_the_version_before_the_look_a_held_block_is_missed() {
    Guard::Odd.without(the_table_grows);
}

#[test]
#[should_panic(expected = "not a set of x")]
fn without_the_rows_version_a_copied_set_is_another_one() {
    Guard::Row.without(|| a_row_changes_hands(copied));
}

#[test]
#[should_panic(expected = "not a set of x")]
fn without_the_rows_version_a_taken_set_is_another_one() {
    Guard::Row.without(|| a_row_changes_hands(taken));
}

#[test]
#[should_panic(expected = "not a set of that block")]
fn without_the_name_after_the_set_a_guess_finds_the_entrys_next_block() {
    Guard::Name.without(a_guess_at_y);
}

#[test]
#[should_panic(expected = "y is held")]
fn without_the_bucket_after_the_look_a_held_block_is_missed() {
    Guard::Bucket.without(the_table_grows);
}

#[test]
#[should_panic(expected = "not a set of x")]
fn without_the_set_after_the_rows_version_a_row_is_another_sets() {
    Guard::Set.without(|| a_row_changes_hands(copied));
}
