//! The frames that docs/wire.md draws, byte by byte.

use super::*;
use crate::wire::{BlockHead, Extent, Fetch, Hello, VERSION, Welcome};
use baton_kv::record::{RECORD_BYTES, RecordState, SlotRecord};
use baton_proto::ids::{Generation, LeaseId, SlotId};
use proptest::prelude::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

/// Everything but the checksum at the end, and that the checksum fits.
fn body<const N: usize>(frame: [u8; N]) -> String {
    let (body, check) = frame.split_at(N - 4);
    assert_eq!(check, crc32c::crc32c(body).to_le_bytes());
    hex(body)
}

fn identity() -> Identity {
    Identity { worker: WorkerId(0x0403_0201), incarnation: Incarnation(0x1817_1615_1413_1211) }
}

fn block() -> BlockDescriptor {
    BlockDescriptor {
        owner: OWNER,
        incarnation: Incarnation(0x1817_1615_1413_1211),
        lease: LeaseId(0x2827_2625_2423_2221),
        lease_remaining_ms: 0,
        slot: SlotId(0x5453_5251),
        generation: Generation(0x3837_3635_3433_3231),
        hash: SequenceHash(std::array::from_fn(|i| 0x40 + i as u8)),
        group: GroupId(0x6261),
        len: 0x7473_7271,
        crc: 0x8483_8281,
    }
}

#[test]
fn the_hello_is_pinned() {
    let token = Token::new(std::array::from_fn(|i| 0xa0 + i as u8));
    let hello = Hello { peer: identity(), slot_bytes: 0x9897_9695_9493_9291, token };
    let golden = concat!(
        "4241544e58464552",                                                 // "BATNXFER"
        "03000000",                                                         // version
        "01020304",                                                         // worker
        "1112131415161718",                                                 // incarnation
        "9192939495969798",                                                 // slot_bytes
        "a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebf", // token
        "00000000",                                                         // reserved
    );
    assert_eq!(body(hello.to_bytes()), golden);
}

#[test]
fn the_welcome_is_pinned() {
    let (slots, slot_bytes) = (0x0c0b_0a09, 0x9897_9695_9493_9291);
    let accepted = Welcome::Accepted { identity: identity(), slots, slot_bytes };
    let golden = concat!(
        "4241544e58464552", // "BATNXFER"
        "03000000",         // version
        "0000",             // status
        "0000",             // reserved
        "01020304",         // worker
        "090a0b0c",         // slots
        "1112131415161718", // incarnation
        "9192939495969798", // slot_bytes
        "00000000",         // reserved
    );
    assert_eq!(body(accepted.to_bytes()), golden);
    let declined = Welcome::Declined(Refused::Incarnation);
    let golden = format!("4241544e58464552030000000400{}", "00".repeat(30));
    assert_eq!(body(declined.to_bytes()), golden);
}

#[test]
fn the_request_is_pinned() {
    let fetch = Fetch {
        number: 0x0807_0605,
        block: block(),
        span: Span { offset: 0x9493_9291, len: 0xa4a3_a2a1 },
        last: true,
        summed: true,
    };
    let golden = concat!(
        "01",                               // kind
        "01",                               // flags
        "6162",                             // group
        "05060708",                         // number
        "1112131415161718",                 // incarnation
        "2122232425262728",                 // lease
        "3132333435363738",                 // generation
        "404142434445464748494a4b4c4d4e4f", // hash
        "51525354",                         // slot
        "71727374",                         // len
        "81828384",                         // crc
        "91929394",                         // span: first byte
        "a1a2a3a4",                         // span: bytes
    );
    assert_eq!(body(fetch.to_bytes()), golden);
    for (last, summed, flags) in [(false, true, "00"), (false, false, "02"), (true, false, "03")] {
        let flagged = Fetch { last, summed, ..fetch };
        assert_eq!(body(flagged.to_bytes())[2..4], *flags);
        assert_eq!(Fetch::from_bytes(&flagged.to_bytes(), OWNER), Ok(flagged));
    }
}

#[test]
fn the_answer_is_pinned() {
    let head = BlockHead {
        number: 0x0807_0605,
        result: Ok(Extent { len: 0x7473_7271, crc: 0x8483_8281 }),
    };
    assert_eq!(body(head.to_bytes()), "02000000050607087172737481828384");
    let head = BlockHead { number: 1, result: Err(Refused::Lease) };
    assert_eq!(body(head.to_bytes()), "02001000010000000000000000000000");
}

#[test]
fn the_status_codes_are_pinned() {
    let codes = [
        (Refused::Version, 1),
        (Refused::Token, 2),
        (Refused::Worker, 3),
        (Refused::Incarnation, 4),
        (Refused::Busy, 5),
        (Refused::SlotBytes, 6),
        (Refused::Malformed, 7),
        (Refused::Tls, 8),
        (Refused::Connection, 9),
        (Refused::Device, 10),
        (Refused::Lease, 16),
        (Refused::Slot, 17),
        (Refused::Generation, 18),
        (Refused::Hash, 19),
        (Refused::Content, 20),
        (Refused::Span, 21),
    ];
    for (refused, code) in codes {
        assert_eq!(refused.code(), code);
        assert_eq!(Refused::from_code(code), Some(refused));
    }
    let known = (0..=u16::MAX).filter_map(Refused::from_code).count();
    assert_eq!(known, codes.len());
    assert_eq!(VERSION, 3);
}

/// The record travels as it stands in memory: kv's format, under this wire version.
#[test]
fn the_record_that_follows_a_payload_is_pinned() {
    let b = block();
    let record = SlotRecord {
        state: RecordState::Sealed,
        group: b.group,
        generation: b.generation,
        hash: b.hash,
        len: b.len,
        crc: b.crc,
    };
    let golden = concat!(
        "42545352",                         // "BTSR"
        "0100",                             // version
        "02",                               // state
        "00",                               // reserved
        "3132333435363738",                 // generation
        "404142434445464748494a4b4c4d4e4f", // hash
        "6162",                             // group
        "0000",                             // reserved
        "71727374",                         // len
        "81828384",                         // crc
        "000000000000000000000000",         // reserved
    );
    assert_eq!(hex(&record.to_bytes()[..RECORD_BYTES - 8]), golden);
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 72)) {
        let _ = Hello::from_bytes(bytes[..].try_into().unwrap());
        let _ = Welcome::from_bytes(bytes[..48].try_into().unwrap());
        let _ = Fetch::from_bytes(bytes[..72].try_into().unwrap(), OWNER);
        let _ = BlockHead::from_bytes(bytes[..20].try_into().unwrap());
        let _ = verify(&block(), &bytes, bytes[..64].try_into().unwrap());
    }

    #[test]
    fn a_request_comes_out_as_it_went_in(
        number: u32, slot: u32, generation: u64, lease: u64, len: u32, crc: u32, offset: u32, part: u32,
    ) {
        let (slot, generation) = (SlotId(slot), Generation(generation));
        let lease = LeaseId(lease);
        let fetch =
            Fetch {
                number,
                block: BlockDescriptor { slot, generation, lease, len, crc, ..block() },
                span: Span { offset, len: part },
                last: part % 2 == 0,
                summed: crc % 2 == 0,
            };
        prop_assert_eq!(Fetch::from_bytes(&fetch.to_bytes(), OWNER), Ok(fetch));
    }

    #[test]
    fn one_flipped_bit_makes_any_frame_void(bit in 0usize..20 * 8) {
        let mut head = BlockHead { number: 3, result: Ok(Extent { len: 77, crc: 5 }) }.to_bytes();
        head[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(BlockHead::from_bytes(&head).is_err());
    }
}
