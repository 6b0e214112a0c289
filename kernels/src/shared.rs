//! Output that several threads fill, each its own part.

use std::marker::PhantomData;

/// A mutable slice that may be written from several threads, if no two write the same element.
pub(crate) struct Disjoint<'a> {
    start: *mut f32,
    len: usize,
    slice: PhantomData<&'a mut [f32]>,
}

// SAFETY: access goes through `part`, whose callers promise that parts in use do not overlap.
unsafe impl Sync for Disjoint<'_> {}
// SAFETY: as above; floats may move between threads.
unsafe impl Send for Disjoint<'_> {}

impl<'a> Disjoint<'a> {
    pub(crate) fn new(slice: &'a mut [f32]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), slice: PhantomData }
    }

    /// The elements `from .. from + count`.
    ///
    /// # Safety
    ///
    /// No other part that overlaps this one is alive.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)] // The point of the type; see the contract above.
    pub(crate) unsafe fn part(&self, from: usize, count: usize) -> &'a mut [f32] {
        assert!(from <= self.len && count <= self.len - from, "a part beyond the output");
        // SAFETY: in bounds; exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(from), count) }
    }
}
