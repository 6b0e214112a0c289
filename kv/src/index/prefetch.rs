//! Asks the processor for memory before it is needed. In place of a load, which would hold up what
//! comes after it: so of the accesses of many events or lookups only a few would overlap.
#![allow(unsafe_code)]

/// Asks for the cache line that `what` begins in.
#[inline]
pub(super) fn prefetch<T>(what: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing and faults never; the address is that of a live value.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(what).cast()) };
    }
    #[cfg(target_arch = "aarch64")]
    {
        let at = std::ptr::from_ref(what);
        // SAFETY: a prefetch reads nothing and faults never; the address is that of a live value.
        unsafe {
            std::arch::asm!("prfm pldl1keep, [{}]", in(reg) at, options(nostack, readonly, preserves_flags));
        }
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = what;
}
