//! What slot records must do: keep to their golden bytes, and refuse everything else.

#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;

const GOLDEN: SlotRecord = SlotRecord {
    state: RecordState::Sealed,
    group: GroupId(0x0102),
    generation: Generation(0x1112_1314_1516_1718),
    hash: SequenceHash(*b"0123456789abcdef"),
    len: 0x2122_2324,
    crc: 0x3132_3334,
};

#[test]
fn the_bytes_are_those_of_the_diagram() {
    let mut golden = [0; RECORD_BYTES];
    golden[..8].copy_from_slice(b"BTSR\x01\x00\x02\x00");
    golden[8..16].copy_from_slice(b"\x18\x17\x16\x15\x14\x13\x12\x11");
    golden[16..32].copy_from_slice(b"0123456789abcdef");
    golden[32..44].copy_from_slice(b"\x02\x01\x00\x00\x24\x23\x22\x21\x34\x33\x32\x31");
    golden[56..].copy_from_slice(b"\xf1\xd6\x05\x1b\xde\x43\xe1\x09");
    assert_eq!(GOLDEN.to_bytes(), golden);
}

#[test]
fn whatever_differs_is_named() {
    let good = GOLDEN.to_bytes();
    assert_eq!(SlotRecord::from_bytes(&[0; 64]), Err(RecordError::Magic { found: [0; 4] }));
    let mut newer = good;
    newer[4] = 2;
    assert_eq!(SlotRecord::from_bytes(&newer), Err(RecordError::Version { found: 2 }));
    assert_eq!(
        SlotRecord::from_bytes(&rechecked(good, 6, 3)),
        Err(RecordError::State { found: 3 })
    );
    for at in [7, 34, 35, 44, 55] {
        assert_eq!(SlotRecord::from_bytes(&rechecked(good, at, 1)), Err(RecordError::Reserved));
    }
}

#[test]
fn a_record_made_of_two_is_refused() {
    let old = GOLDEN.to_bytes();
    let new = SlotRecord { generation: Generation(7), crc: 1, ..GOLDEN }.to_bytes();
    for cut in (8..64).step_by(8) {
        let mut torn = old;
        torn[cut..].copy_from_slice(&new[cut..]);
        if torn != old && torn != new {
            assert_eq!(SlotRecord::from_bytes(&torn), Err(RecordError::Check), "cut at {cut}");
        }
    }
}

/// A record that somebody wrote with `value` at `at`, check and all.
fn rechecked(mut bytes: [u8; RECORD_BYTES], at: usize, value: u8) -> [u8; RECORD_BYTES] {
    bytes[at] = value;
    let check = check_of(&bytes);
    bytes[CHECKED_BYTES..].copy_from_slice(&check);
    bytes
}

prop_compose! {
    fn any_record()(
        state in prop_oneof![
            Just(RecordState::Empty), Just(RecordState::Draft), Just(RecordState::Sealed)
        ],
        group: u16, generation: u64, hash: [u8; 16], len: u32, crc: u32,
    ) -> SlotRecord {
        SlotRecord {
            state,
            group: GroupId(group),
            generation: Generation(generation),
            hash: SequenceHash(hash),
            len,
            crc,
        }
    }
}

proptest! {
    #[test]
    fn a_record_survives_its_bytes(record in any_record()) {
        prop_assert_eq!(SlotRecord::from_bytes(&record.to_bytes()), Ok(record));
    }

    #[test]
    fn any_changed_bit_is_noticed(record in any_record(), bit in 0..512_usize) {
        let mut bytes = record.to_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(SlotRecord::from_bytes(&bytes).is_err());
    }

    #[test]
    fn foreign_bytes_never_panic_and_what_is_accepted_is_canonical(
        record in any_record(),
        start in prop::collection::vec(any::<u8>(), 0..64),
        fixed: bool,
    ) {
        let mut bytes = record.to_bytes();
        bytes[8..8 + start.len().min(56)].copy_from_slice(&start[..start.len().min(56)]);
        if fixed {
            let check = check_of(&bytes);
            bytes[CHECKED_BYTES..].copy_from_slice(&check);
        }
        if let Ok(read) = SlotRecord::from_bytes(&bytes) {
            prop_assert_eq!(read.to_bytes(), bytes);
        }
    }
}
