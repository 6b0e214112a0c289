//! Every kernel against a plain copy and the checksum crate, at every alignment and length that matters.

#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let step = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 33) as u8
    };
    std::iter::repeat_with(step).take(len).collect()
}

/// Checks every kernel against the standard library and the crate, and the bytes around.
fn check(from: usize, to: usize, len: usize, crc: u32) {
    let source = noise(from + len, (from ^ len) as u64);
    let expected = crc32c::crc32c_append(crc, &source[from..]);
    for kernel in Kernel::all() {
        let case = || format!("{kernel:?}: {len} bytes from {from} to {to}");
        let at = source[from..].as_ptr();
        let mut into = vec![0xa5; to + len + 100];
        // SAFETY: `len` bytes from `from` on.
        unsafe { kernel.copy(at, &mut into[to..to + len]) };
        assert!(into[to..to + len] == source[from..], "{}", case());
        let mut again = vec![0xa5; to + len + 100];
        // SAFETY: as above.
        let found = unsafe { kernel.copy_crc(at, &mut again[to..to + len], crc) };
        assert!(again == into, "{}", case());
        assert!(into[..to].iter().chain(&into[to + len..]).all(|&b| b == 0xa5), "{}", case());
        assert_eq!(found, expected, "{}", case());
        // SAFETY: as above.
        assert_eq!(unsafe { kernel.crc(at, len, crc) }, expected, "{}", case());
    }
}

#[test]
fn every_length_up_to_some_rounds_is_copied_and_checked() {
    for len in 0..700 {
        check(0, 0, len, 0);
        check(len % 65, (len * 7) % 65, len, 0xdead_beef);
    }
}

#[test]
fn long_ones_too() {
    for len in [STREAM_BYTES - 1, STREAM_BYTES, STREAM_BYTES + 1, 100_003, 1 << 20] {
        check(0, 0, len, 0);
        check(1, 63, len, 1);
    }
}

proptest! {
    #[test]
    fn anything_is_copied_and_checked(
        from in 0usize..130, to in 0usize..130, len in 0usize..40_000, crc: u32,
    ) {
        check(from, to, len, crc);
    }
}

/// The check vector of RFC 3720, appendix B.4, for whoever mistrusts the crate too.
#[test]
fn thirty_two_ascending_bytes_have_the_checksum_of_the_standard() {
    let bytes: Vec<u8> = (0..32).collect();
    for kernel in Kernel::all() {
        // SAFETY: 32 bytes.
        assert_eq!(unsafe { kernel.crc(bytes.as_ptr(), 32, 0) }, 0x46dd_794e, "{kernel:?}");
    }
}
