//! Copying, and checksumming, bytes that somebody else may be writing at the same time.
//!
//! Every byte of the source is loaded exactly once, by an instruction that the compiler can neither
//! repeat nor leave out: by `asm!` or by a relaxed atomic. So a race yields torn *values*, never
//! undefined behaviour, and a checksum is that of the bytes that were stored, whatever the source
//! turns into meanwhile.
//!
//! On x86-64 the checksum is folded by carry-less multiplication while the bytes are in registers
//! on their way from source to destination, so that checking costs little more than copying; long
//! copies store past the caches, which need neither fetch the destination first nor give up what
//! is in them. Elsewhere words are copied, and the checksum is taken of what has just arrived.

#[cfg(target_arch = "x86_64")]
mod x86;

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Copies at least this long store past the caches.
const STREAM_BYTES: usize = 16 << 10;
/// Copied word by word before its checksum is taken: stays in the nearest cache.
const WORDS_STRETCH: usize = 16 << 10;

/// How to copy: what this processor offers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kernel {
    /// 64 bytes at a time: AVX-512 with VPCLMULQDQ.
    #[cfg(target_arch = "x86_64")]
    Wide,
    /// 16 bytes at a time: SSE4.2 with PCLMULQDQ.
    #[cfg(target_arch = "x86_64")]
    Narrow,
    /// 8 bytes at a time, on any processor.
    Words,
}

impl Kernel {
    /// The fastest that works here.
    pub(crate) fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        if x86::has_wide() {
            return Self::Wide;
        } else if x86::has_narrow() {
            return Self::Narrow;
        }
        Self::Words
    }

    /// All that work here.
    #[cfg(test)]
    pub(crate) fn all() -> Vec<Self> {
        let mut kernels = vec![Self::Words];
        #[cfg(target_arch = "x86_64")]
        {
            kernels.extend(x86::has_narrow().then_some(Self::Narrow));
            kernels.extend(x86::has_wide().then_some(Self::Wide));
        }
        kernels
    }

    /// Copies into `into`.
    ///
    /// # Safety
    /// `source` has to be readable for as many bytes as `into` has, which nobody in this process
    /// may write except by atomics.
    pub(crate) unsafe fn copy(self, source: *const u8, into: &mut [u8]) {
        let stream = into.len() >= STREAM_BYTES;
        match self {
            // SAFETY: as promised; the variant exists only where the processor can do it.
            #[cfg(target_arch = "x86_64")]
            Self::Wide => unsafe { x86::wide_copy(source, into, stream) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Narrow => unsafe { x86::narrow_copy(source, into, stream) },
            // SAFETY: as promised.
            Self::Words => unsafe { copy_words(source, into) },
        }
    }

    /// Copies into `into`, and continues the CRC32C `crc` over the bytes that arrived there.
    ///
    /// # Safety
    /// As for [`copy`](Self::copy).
    pub(crate) unsafe fn copy_crc(self, source: *const u8, into: &mut [u8], crc: u32) -> u32 {
        let stream = into.len() >= STREAM_BYTES;
        match self {
            // SAFETY: as in `copy`.
            #[cfg(target_arch = "x86_64")]
            Self::Wide => unsafe { x86::wide_copy_crc(source, into, stream, crc) },
            // SAFETY: as in `copy`.
            #[cfg(target_arch = "x86_64")]
            Self::Narrow => unsafe { x86::narrow_copy_crc(source, into, stream, crc) },
            Self::Words => {
                let mut crc = crc;
                for (i, stretch) in into.chunks_mut(WORDS_STRETCH).enumerate() {
                    // SAFETY: a part of what was promised.
                    unsafe { copy_words(source.add(i * WORDS_STRETCH), stretch) };
                    crc = crc32c::crc32c_append(crc, stretch);
                }
                crc
            }
        }
    }

    /// Continues the CRC32C `crc` over `len` bytes where they lie.
    ///
    /// # Safety
    /// As for [`copy`](Self::copy), for `len` bytes.
    pub(crate) unsafe fn crc(self, source: *const u8, len: usize, crc: u32) -> u32 {
        match self {
            // SAFETY: as in `copy`.
            #[cfg(target_arch = "x86_64")]
            Self::Wide => unsafe { x86::wide_crc(source, len, crc) },
            // SAFETY: as in `copy`.
            #[cfg(target_arch = "x86_64")]
            Self::Narrow => unsafe { x86::narrow_crc(source, len, crc) },
            Self::Words => {
                let (mut crc, mut at) = (crc, 0);
                let mut stretch = [0; 4 << 10];
                while at < len {
                    let part = (len - at).min(stretch.len());
                    // SAFETY: a part of what was promised.
                    unsafe { copy_words(source.add(at), &mut stretch[..part]) };
                    crc = crc32c::crc32c_append(crc, &stretch[..part]);
                    at += part;
                }
                crc
            }
        }
    }
}

/// Continues the CRC32C `crc` over bytes, as fast as this processor can; 0 begins one.
pub fn crc32c(crc: u32, bytes: &[u8]) -> u32 {
    // SAFETY: a slice can be read, and nobody writes it while it is borrowed.
    unsafe { Kernel::best().crc(bytes.as_ptr(), bytes.len(), crc) }
}

/// Copies by atomic loads of 8 bytes where the source is aligned, of single ones around that.
///
/// # Safety
/// As for [`Kernel::copy`].
#[allow(clippy::cast_ptr_alignment, reason = "words are read from where they are aligned on")]
unsafe fn copy_words(source: *const u8, into: &mut [u8]) {
    let head = source.align_offset(8).min(into.len());
    let (first, rest) = into.split_at_mut(head);
    // SAFETY: the first `head` of the bytes that may be read.
    unsafe { copy_bytes(source, first) };
    let mut at = head;
    let mut words = rest.chunks_exact_mut(8);
    for chunk in &mut words {
        // SAFETY: inside what may be read; `head` bytes on, and words from there, it is aligned.
        let word = unsafe { &*source.add(at).cast::<AtomicU64>() };
        chunk.copy_from_slice(&native(word.load(Ordering::Relaxed)));
        at += 8;
    }
    // SAFETY: the bytes behind the last whole word.
    unsafe { copy_bytes(source.add(at), words.into_remainder()) };
}

/// # Safety
/// As for [`Kernel::copy`].
unsafe fn copy_bytes(source: *const u8, into: &mut [u8]) {
    for (i, byte) in into.iter_mut().enumerate() {
        // SAFETY: inside what may be read; bytes are always aligned.
        *byte = unsafe { &*source.add(i).cast::<AtomicU8>() }.load(Ordering::Relaxed);
    }
}

/// A word's bytes in memory order: this is a copy, not a number.
#[allow(clippy::host_endian_bytes, reason = "bytes go back to memory in the order they lay in")]
pub(crate) fn native(word: u64) -> [u8; 8] {
    word.to_ne_bytes()
}

#[cfg(test)]
mod tests;
