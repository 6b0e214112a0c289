//! Which work requests move a list of blocks. Pure: numbers in, numbers out.
//!
//! The owner sees slots and makes *runs* of adjacent ones, each of which one window covers. The
//! puller sees pairs of slots and merges those that are adjacent on both sides into one *stretch*,
//! which is one work request.

/// Bytes of a slot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Extent {
    /// The slot.
    pub(crate) slot: u32,
    /// First byte.
    pub(crate) start: u64,
    /// One past the last byte.
    pub(crate) end: u64,
}

/// Adjacent slots: all bytes but, perhaps, the first ones of the first and the last ones of the
/// last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Run {
    /// The first of them.
    pub(crate) first: u32,
    /// How many.
    pub(crate) slots: u32,
    /// First byte, in the first slot.
    pub(crate) start: u64,
    /// One past the last byte, in the last slot.
    pub(crate) last: u64,
}

impl Run {
    /// The slot behind the last one.
    pub(crate) fn end(self) -> u32 {
        self.first + self.slots
    }
}

/// Sorted, without repetitions, and adjacent bytes joined: across slots only where one is wanted to
/// its last byte, `full`, and the next from its first. What lies behind a short block is somebody
/// else's. Several stretches of one slot are one, with what is between them.
pub(crate) fn runs(extents: impl IntoIterator<Item = Extent>, full: u64) -> Vec<Run> {
    let mut extents: Vec<Extent> = extents.into_iter().collect();
    extents.sort_unstable();
    // Those of one slot are in the order of their starts.
    extents.dedup_by(|next, kept| {
        let same = next.slot == kept.slot;
        if same {
            kept.end = kept.end.max(next.end);
        }
        same
    });
    let mut runs: Vec<Run> = Vec::new();
    for Extent { slot, start, end } in extents {
        match runs.last_mut() {
            Some(run) if run.end() == slot && run.last == full && start == 0 => {
                run.slots += 1;
                run.last = end;
            }
            _ => runs.push(Run { first: slot, slots: 1, start, last: end }),
        }
    }
    runs
}

/// A window of type 2 has at most so many bytes on some cards (mlx5).
const WINDOW_BYTES: u64 = 1 << 31;

/// Slots that fit a window, of `stride` bytes each.
pub(crate) fn most_slots(stride: u64) -> u32 {
    u32::try_from((WINDOW_BYTES / stride.max(1)).max(1)).unwrap_or(u32::MAX)
}

/// Deals runs to `queue_pairs` so that each gets about as many slots as any other: runs are cut
/// where a queue pair has its share. A share is at least `least` slots, so that little work does
/// not need many windows. A run has at most `most` slots: a window has so many bytes at most. Where
/// one is cut, slots end at `full`.
pub(crate) fn deal(
    runs: &[Run],
    queue_pairs: usize,
    (least, most): (u32, u32),
    full: u64,
) -> Vec<(usize, Run)> {
    let total: u64 = runs.iter().map(|run| u64::from(run.slots)).sum();
    let share = total.div_ceil(queue_pairs.max(1) as u64).max(u64::from(least)).max(1);
    let mut dealt = Vec::new();
    let (mut queue_pair, mut left) = (0, share);
    for &run in runs {
        let mut rest = run;
        while rest.slots > 0 {
            if left == 0 {
                (queue_pair, left) = (queue_pair + 1, share);
            }
            let slots = u32::try_from(left).unwrap_or(u32::MAX).min(rest.slots).min(most.max(1));
            let last = if slots == rest.slots { rest.last } else { full };
            dealt.push((queue_pair, Run { slots, last, ..rest }));
            left -= u64::from(slots);
            let (first, slots) = (rest.first + slots, rest.slots - slots);
            rest = Run { first, slots, start: 0, last: rest.last };
        }
    }
    dealt
}

/// Bytes of an element of one table, which go to the same place of an element of another. Elements
/// are slots of an arena, or slot records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Move {
    /// Element of the peer's table.
    pub(crate) remote: u32,
    /// Element of the own table.
    pub(crate) local: u32,
    /// First byte in both elements.
    pub(crate) offset: u64,
    /// Bytes; with the offset at most the stride of both tables.
    pub(crate) bytes: u64,
}

/// One work request: bytes that are adjacent on both sides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stretch {
    /// Bytes from the start of the peer's table.
    pub(crate) remote: u64,
    /// Bytes from the start of the own table.
    pub(crate) local: u64,
    /// How many.
    pub(crate) bytes: u32,
}

/// Joins moves, in the order in which they are given, into stretchs of at most `most` bytes. Both
/// tables have elements of `stride` bytes. Only bytes that belong to a move are ever touched: two
/// moves are joined where one ends at the end of its element and the next starts with its own.
pub(crate) fn stretches(moves: &[Move], stride: u64, most: u32, into: &mut Vec<Stretch>) {
    let most = most.max(1);
    let start = into.len();
    for &Move { remote, local, offset, bytes } in moves {
        let at = |element| u64::from(element) * stride + offset;
        let (mut remote, mut local) = (at(remote), at(local));
        let mut left = bytes;
        if let Some(last) = into[start..].last_mut() {
            let reach = u64::from(last.bytes);
            if last.remote + reach == remote && last.local + reach == local {
                let joined = left.min(u64::from(most - last.bytes.min(most)));
                last.bytes += joined as u32;
                (remote, local, left) = (remote + joined, local + joined, left - joined);
            }
        }
        while left > 0 {
            let bytes = left.min(u64::from(most));
            into.push(Stretch { remote, local, bytes: bytes as u32 });
            (remote, local, left) = (remote + bytes, local + bytes, left - bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    #[test]
    fn adjacent_slots_are_one_run() {
        let run = |first, slots| Run { first, slots, start: 0, last: FULL };
        assert_eq!(whole_runs([7, 3, 4, 5, 3, 9]), [run(3, 3), run(7, 1), run(9, 1)]);
        assert_eq!(whole_runs([]), []);
        assert_eq!(whole_runs([u32::MAX - 1]), [run(u32::MAX - 1, 1)]);
    }

    const FULL: u64 = 100;

    fn whole_runs(slots: impl IntoIterator<Item = u32>) -> Vec<Run> {
        runs(slots.into_iter().map(|slot| Extent { slot, start: 0, end: FULL }), FULL)
    }

    #[test]
    fn nothing_beside_what_was_asked_for_is_in_a_run() {
        let bytes = |slot, start, end| Extent { slot, start, end };
        let run = |first, slots, start, last| Run { first, slots, start, last };
        // Short blocks, one behind the other.
        let short = [bytes(1, 0, 60), bytes(2, 0, 60), bytes(4, 0, 100)];
        assert_eq!(runs(short, FULL), [run(1, 1, 0, 60), run(2, 1, 0, 60), run(4, 1, 0, 100)]);
        // A run may begin late and end early, but has no holes.
        let parts = [bytes(1, 30, 100), bytes(2, 0, 100), bytes(3, 0, 7), bytes(4, 1, 100)];
        assert_eq!(runs(parts, FULL), [run(1, 3, 30, 7), run(4, 1, 1, 100)]);
        // Several parts of one block, in any order; and the block itself beside a part of it.
        let several = [bytes(1, 70, 80), bytes(1, 10, 20), bytes(2, 5, 6), bytes(2, 0, 100)];
        assert_eq!(runs(several, FULL), [run(1, 1, 10, 80), run(2, 1, 0, 100)]);
        // Cuts keep both ends.
        let dealt = deal(&[run(1, 5, 30, 7)], 2, (1, 2), FULL);
        let cut = [(0, run(1, 2, 30, 100)), (0, run(3, 1, 0, 100)), (1, run(4, 2, 0, 7))];
        assert_eq!(dealt, cut);
    }

    #[test]
    fn a_window_is_not_larger_than_cards_allow() {
        for stride in [1, 4096, (1 << 20) + 4096, 3 << 28, 1 << 31] {
            let slots = u64::from(most_slots(stride));
            assert!(slots >= 1 && slots * stride <= 1 << 31, "{stride}");
            assert!((slots + 1) * stride > 1 << 31, "{stride}: no more windows than needed");
        }
        // A slot is never cut.
        assert_eq!(most_slots(1 << 33), 1);
    }

    #[test]
    fn full_neighbours_are_joined_and_others_are_not() {
        let plan = |moves: &[(u32, u32, u64)], most| {
            let moves: Vec<_> = moves
                .iter()
                .map(|&(remote, local, bytes)| Move { remote, local, offset: 0, bytes })
                .collect();
            let mut plan = Vec::new();
            stretches(&moves, 100, most, &mut plan);
            plan.iter()
                .map(|stretch| (stretch.remote, stretch.local, stretch.bytes))
                .collect::<Vec<_>>()
        };
        assert_eq!(plan(&[(1, 4, 100), (2, 5, 100), (3, 6, 40)], 1000), [(100, 400, 240)]);
        // A gap behind a short block; neighbours on one side only; backwards.
        assert_eq!(plan(&[(1, 4, 99), (2, 5, 100)], 1000), [(100, 400, 99), (200, 500, 100)]);
        assert_eq!(plan(&[(1, 4, 100), (2, 6, 100)], 1000), [(100, 400, 100), (200, 600, 100)]);
        assert_eq!(plan(&[(2, 5, 100), (1, 4, 100)], 1000), [(200, 500, 100), (100, 400, 100)]);
        // A bound that falls into a block.
        assert_eq!(plan(&[(1, 4, 100), (2, 5, 100)], 150), [(100, 400, 150), (250, 550, 50)]);
        assert_eq!(plan(&[(0, 0, 0)], 10), []);
    }

    /// How many work requests there have to be: one for each stretch without a break, and one more
    /// for each time that it fills a message.
    fn naive(moves: &[Move], stride: u64, most: u64) -> u64 {
        let mut found: Vec<u64> = Vec::new();
        for (i, this) in moves.iter().enumerate() {
            let joins = i > 0 && {
                let before = moves[i - 1];
                before.offset + before.bytes == stride
                    && this.offset == 0
                    && before.remote.checked_add(1) == Some(this.remote)
                    && before.local.checked_add(1) == Some(this.local)
            };
            match found.last_mut() {
                Some(last) if joins => *last += this.bytes,
                _ => found.push(this.bytes),
            }
        }
        found.iter().map(|bytes| bytes.div_ceil(most)).sum()
    }

    /// Moves between tables of 64 elements: each element of the own table at most once.
    fn moves(stride: u64) -> impl Strategy<Value = Vec<Move>> {
        let one = (0u32..64, 1u32..8, 0u32..64, 0..stride, 1..=stride);
        proptest::collection::vec(one, 0..12).prop_map(move |parts| {
            let mut used = BTreeSet::new();
            let mut moves = Vec::new();
            for (remote, count, local, start, end) in parts {
                for i in 0..count {
                    // The first may start late, the last end early.
                    let offset = if i == 0 { start } else { 0 };
                    let end = if i + 1 == count { end.max(offset + 1) } else { stride };
                    let (remote, local) = ((remote + i) % 64, local + i);
                    if used.insert(local) {
                        moves.push(Move { remote, local, offset, bytes: end - offset });
                    }
                }
            }
            moves
        })
    }

    proptest! {
        #[test]
        fn every_byte_is_moved_exactly_once_and_no_other(
            (moves, most) in (moves(24), 1u32..200),
        ) {
            let mut plan = vec![Stretch { remote: 1, local: 2, bytes: 3 }];
            stretches(&moves, 24, most, &mut plan);
            // What was there stays as it was.
            prop_assert_eq!(plan.remove(0), Stretch { remote: 1, local: 2, bytes: 3 });
            prop_assert!(plan.iter().all(|stretch| stretch.bytes > 0 && stretch.bytes <= most));
            let mut moved = BTreeMap::new();
            for stretch in &plan {
                for byte in 0..u64::from(stretch.bytes) {
                    let twice = moved.insert(stretch.local + byte, stretch.remote + byte);
                    prop_assert_eq!(twice, None);
                }
            }
            let mut wanted = BTreeMap::new();
            for this in &moves {
                for byte in this.offset..this.offset + this.bytes {
                    wanted.insert(
                        u64::from(this.local) * 24 + byte,
                        u64::from(this.remote) * 24 + byte,
                    );
                }
            }
            prop_assert_eq!(moved, wanted);
            prop_assert_eq!(plan.len() as u64, naive(&moves, 24, u64::from(most)));
        }

        #[test]
        fn runs_hold_every_slot_once_and_are_as_few_as_can_be(
            slots in proptest::collection::vec(0u32..200, 0..100),
        ) {
            let wanted: BTreeSet<u32> = slots.iter().copied().collect();
            let runs = whole_runs(slots);
            let held: Vec<u32> = runs.iter().flat_map(|run| run.first..run.end()).collect();
            prop_assert_eq!(held, wanted.into_iter().collect::<Vec<_>>());
            prop_assert!(runs.windows(2).all(|pair| pair[0].end() < pair[1].first));
        }

        #[test]
        fn dealing_keeps_every_slot_and_gives_equal_shares(
            slots in proptest::collection::vec(0u32..200, 0..100),
            queue_pairs in 1usize..6,
            least in 0u32..20,
            most in 1u32..40,
        ) {
            let runs = whole_runs(slots);
            let total: u32 = runs.iter().map(|run| run.slots).sum();
            let dealt = deal(&runs, queue_pairs, (least, most), FULL);
            let slots = |run: &Run| run.first..run.end();
            let before: Vec<u32> = runs.iter().flat_map(slots).collect();
            let after: Vec<u32> = dealt.iter().flat_map(|(_, run)| slots(run)).collect();
            prop_assert_eq!(before, after);
            let share = total.div_ceil(queue_pairs as u32).max(least);
            for queue_pair in 0..queue_pairs {
                let own = dealt.iter().filter(|(to, _)| *to == queue_pair);
                prop_assert!(own.map(|(_, run)| run.slots).sum::<u32>() <= share);
            }
            prop_assert!(dealt.iter().all(|(to, _)| *to < queue_pairs));
            prop_assert!(dealt.iter().all(|(_, run)| (1..=most).contains(&run.slots)));
            // Each further queue pair cuts at most one run, and so does each time that one is full.
            prop_assert!(dealt.len() < runs.len() + queue_pairs + (total / most) as usize);
        }
    }
}
