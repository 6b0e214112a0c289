//! An array that grows while others read it, and never moves what it has: a directory of segments
//! whose sizes grow by an eighth of the whole, so that at most that much is allocated in advance.

use super::atomics::FIRST_ROWS;
use std::sync::OnceLock;

/// Segments per doubling; a power of two.
const STEPS: usize = 8;
/// Enough for 2^31 rows.
const SEGMENTS: usize = (31 - FIRST_ROWS.ilog2() as usize) * STEPS;

/// Rows of `width` cells each; a cell is an atomic, or made of atomics.
#[derive(Debug)]
pub(super) struct Segments<T> {
    width: usize,
    segments: Box<[OnceLock<Box<[T]>>]>,
}

impl<T: Default> Segments<T> {
    pub(super) fn new(width: usize) -> Self {
        let segments = std::iter::repeat_with(OnceLock::new).take(SEGMENTS).collect();
        Self { width, segments }
    }

    /// A row; `None` if it has not been added, or is not visible to this thread yet.
    pub(super) fn row(&self, row: u32) -> Option<&[T]> {
        let (segment, _, at) = place(row);
        let start = at * self.width;
        self.segments.get(segment)?.get()?.get(start..start + self.width)
    }

    /// The first cell of a row.
    pub(super) fn cell(&self, row: u32) -> Option<&T> {
        let (segment, _, at) = place(row);
        self.segments.get(segment)?.get()?.get(at * self.width)
    }

    /// Makes sure that a row exists.
    pub(super) fn add(&self, row: u32) {
        let (segment, rows, _) = place(row);
        self.segments[segment]
            .get_or_init(|| std::iter::repeat_with(T::default).take(rows * self.width).collect());
    }
}

/// The segment of a row, the number of the segment's rows, and the row's place in it. All numbers
/// are powers of two, so that there is no division: every probe of a lookup comes by here twice.
fn place(row: u32) -> (usize, usize, usize) {
    let shifted = row as usize + FIRST_ROWS * STEPS;
    let doubling = (shifted / (FIRST_ROWS * STEPS)).ilog2() as usize;
    let bits = FIRST_ROWS.ilog2() as usize + doubling;
    let step = (shifted >> bits) - STEPS;
    (doubling * STEPS + step, 1 << bits, shifted & ((1 << bits) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_has_one_place_and_segments_follow_each_other() {
        let mut expected = (0, FIRST_ROWS, 0);
        for row in 0..1_000_000 {
            let found = place(row);
            assert_eq!(found, expected, "row {row}");
            expected.2 += 1;
            if expected.2 == expected.1 {
                expected.0 += 1;
                expected.1 = FIRST_ROWS << (expected.0 / STEPS);
                expected.2 = 0;
            }
        }
        assert!(place(u32::MAX >> 1).0 < SEGMENTS);
    }
}
