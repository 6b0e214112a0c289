//! Behaviour of arenas: own and foreign, alone and under concurrent use.
#![allow(clippy::unwrap_used)]

use baton_arena::{
    Arena, ArenaError, ArenaOptions, Board, PeerArena, PeerArenaError, PeerBoard, Shape,
};
use rustix::fs::{MemfdFlags, SealFlags};
use std::io::Write;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

fn arena(slots: u32, slot_bytes: usize) -> Arena {
    Arena::create(ArenaOptions { slots, slot_bytes, name: "test" }).unwrap()
}

#[test]
fn slots_start_as_zeros_and_keep_what_is_written() {
    let arena = arena(3, 1000);
    assert!(arena.read(1).iter().all(|&b| b == 0));
    arena.write(1).fill(7);
    assert!(arena.read(1).iter().all(|&b| b == 7));
    assert!(arena.read(0).iter().chain(arena.read(2).iter()).all(|&b| b == 0));
    assert_eq!(arena.read(1).len(), 1000);
}

#[test]
fn numbers_and_bytes_are_two_views_of_the_same_slot() {
    let arena = arena(2, 10);
    let mut guard = arena.write(1);
    guard.f32s_mut()[1] = -2.5;
    assert_eq!(guard.f32s(), [0.0, -2.5]);
    assert_eq!(guard[4..8], (-2.5f32).to_le_bytes());
    drop(guard);
    assert_eq!(arena.read(1).f32s(), [0.0, -2.5]);
}

#[test]
fn many_readers_or_one_writer() {
    let arena = arena(2, 64);
    let (one, two) = (arena.read(0), arena.read(0));
    assert!(arena.try_write(0).is_none());
    assert_eq!(arena.guards(), 1);
    drop((one, two));
    let writer = arena.write(0);
    assert!(arena.try_read(0).is_none());
    assert!(arena.try_write(0).is_none());
    assert!(arena.try_write(1).is_some());
    drop(writer);
    assert!(arena.try_read(0).is_some());
    assert_eq!(arena.guards(), 0);
}

#[test]
fn a_conflict_is_a_broken_invariant() {
    let arena = arena(1, 64);
    let _reader = arena.read(0);
    assert!(catch_unwind(AssertUnwindSafe(|| arena.write(0))).is_err());
    assert!(catch_unwind(AssertUnwindSafe(|| arena.read(1))).is_err());
}

#[test]
fn guards_outlive_the_handle_they_came_from() {
    let arena = arena(1, 64);
    arena.write(0).fill(9);
    let guard = arena.read(0);
    drop(arena);
    assert!(guard.iter().all(|&b| b == 9));
}

#[test]
fn writers_on_many_threads_never_meet() {
    let arena = arena(4, 256);
    std::thread::scope(|scope| {
        for tag in 1..=4u8 {
            let arena = arena.clone();
            scope.spawn(move || {
                for round in 0..2000u32 {
                    let slot = (round + u32::from(tag)) % 4;
                    if let Some(mut guard) = arena.try_write(slot) {
                        guard.fill(tag);
                        std::hint::black_box(&guard);
                        assert!(guard.iter().all(|&b| b == tag));
                    } else if let Some(guard) = arena.try_read(slot) {
                        assert!(guard.iter().all(|&b| b == guard[0]));
                    }
                }
            });
        }
    });
    assert_eq!(arena.guards(), 0);
}

#[test]
fn an_arena_larger_than_the_machine_is_refused_with_both_sizes() {
    let options = ArenaOptions { slots: 1 << 20, slot_bytes: 1 << 30, name: "huge" };
    let error = Arena::create(options).unwrap_err();
    let ArenaError::TooLarge { wanted, available, .. } = error else { panic!("{error}") };
    assert!(wanted > 1 << 50 && available < wanted);
    assert!(error.to_string().contains(&wanted.to_string()));
    assert!(error.to_string().contains(&available.to_string()));

    let nothing = Arena::create(ArenaOptions { slots: 0, slot_bytes: 1, name: "none" });
    assert!(matches!(nothing, Err(ArenaError::Shape { slots: 0, slot_bytes: 1 })));
}

#[test]
fn a_peer_sees_bytes_and_records_at_any_offset() {
    let arena = arena(2, 100);
    for (i, byte) in arena.write(1).iter_mut().enumerate() {
        *byte = i as u8;
    }
    let record: [u8; 64] = std::array::from_fn(|i| i as u8 ^ 0x5a);
    arena.set_record(1, &record);
    let peer = PeerArena::open(arena.fd(), arena.shape()).unwrap();
    for offset in 0..=20 {
        for len in 0..=40 {
            let mut seen = vec![0; len];
            peer.copy_out(1, offset, &mut seen).unwrap();
            assert!(seen.iter().enumerate().all(|(i, &b)| b == (offset + i) as u8));
        }
    }
    assert_eq!(peer.record(1).unwrap(), record);
    assert_eq!(arena.record(1), record);
    assert_eq!(peer.record(0).unwrap(), [0; 64]);
}

#[test]
fn a_peer_cannot_reach_beyond_a_slot() {
    let arena = arena(2, 100);
    let peer = PeerArena::open(arena.fd(), arena.shape()).unwrap();
    let refused = |slot, offset, len| {
        let answer = peer.copy_out(slot, offset, &mut vec![0; len]);
        matches!(answer, Err(PeerArenaError::OutOfRange { .. }))
    };
    assert!(refused(2, 0, 1) && refused(u32::MAX, 0, 1));
    assert!(refused(0, 0, 101) && refused(0, 100, 1) && refused(0, usize::MAX, 2));
    assert!(!refused(1, 0, 100) && !refused(1, 100, 0));
    assert!(matches!(peer.record(2), Err(PeerArenaError::OutOfRange { slot: 2, .. })));
}

#[test]
fn only_the_expected_shape_is_opened() {
    let arena = arena(2, 100);
    let open = |slots, slot_bytes| PeerArena::open(arena.fd(), Shape { slots, slot_bytes });
    assert!(matches!(open(2000, 100), Err(PeerArenaError::Size { .. })));
    // The same number of pages, so only the header tells.
    assert!(matches!(open(2, 101), Err(PeerArenaError::Header { .. })));
    assert!(matches!(open(0, 100), Err(PeerArenaError::Header { .. })));
    assert!(open(2, 100).is_ok());
}

#[test]
fn a_file_that_could_shrink_is_not_mapped() {
    let shape = Shape { slots: 1, slot_bytes: 64 };
    let fd = rustix::fs::memfd_create("foreign", MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::fs::ftruncate(&fd, 3 * 4096).unwrap();
    assert!(matches!(PeerArena::open(fd.as_fd(), shape), Err(PeerArenaError::NotSealed)));
    // Nor one that could get holes.
    rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK).unwrap();
    assert!(matches!(PeerArena::open(fd.as_fd(), shape), Err(PeerArenaError::NotSealed)));
    rustix::fs::fcntl_add_seals(&fd, SealFlags::FUTURE_WRITE).unwrap();
    assert!(matches!(PeerArena::open(fd.as_fd(), shape), Err(PeerArenaError::Header { .. })));

    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[0; 3 * 4096]).unwrap();
    assert!(matches!(PeerArena::open(file.as_fd(), shape), Err(PeerArenaError::NotSealed)));
}

/// A file of huge pages can be sealed and still lack memory when it is read.
#[test]
fn a_file_of_huge_pages_is_not_mapped() {
    let flags = MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
    let Ok(fd) = rustix::fs::memfd_create("huge", flags) else {
        return eprintln!("skipped: this kernel has no files of huge pages");
    };
    // One slot that fills the first huge page behind header and record.
    let shape = Shape { slots: 1, slot_bytes: (2 << 20) - 8192 };
    rustix::fs::ftruncate(&fd, 2 << 20).unwrap();
    rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::FUTURE_WRITE).unwrap();
    assert!(matches!(PeerArena::open(fd.as_fd(), shape), Err(PeerArenaError::NotShared)));
}

#[test]
fn whoever_gets_the_descriptor_can_neither_resize_nor_write() {
    let arena = arena(1, 64);
    assert!(rustix::fs::ftruncate(arena.fd(), 0).is_err());
    assert!(rustix::fs::ftruncate(arena.fd(), 1 << 20).is_err());
    assert!(rustix::io::pwrite(arena.fd(), b"x", 8192).is_err());
    arena.write(0).fill(1);
    assert_eq!(arena.read(0)[0], 1);
}

#[test]
fn a_record_is_never_seen_half_written() {
    let arena = arena(1, 64);
    let peer = PeerArena::open(arena.fd(), arena.shape()).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut tag = 0u8;
            while !stop.load(Ordering::Relaxed) {
                tag = tag.wrapping_add(1);
                arena.set_record(0, &[tag; 64]);
                for _ in 0..50 {
                    std::hint::spin_loop();
                }
            }
        });
        let mut whole = 0;
        for _ in 0..5_000_000 {
            if whole == 2000 {
                break;
            }
            let record = peer.record(0).unwrap();
            // The first word is void while the rest changes.
            if record[..8] != [0; 8] {
                assert!(record.iter().all(|&b| b == record[0]), "{record:?}");
                whole += 1;
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert_eq!(whole, 2000);
    });
}

#[test]
fn payload_that_is_written_before_a_record_is_seen_before_it() {
    // A writer fills the slot, then names the filling in the record. A reader who finds the same
    // record before and after its copy has a whole copy of that filling.
    let arena = arena(1, 4096);
    let peer = PeerArena::open(arena.fd(), arena.shape()).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut tag = 0u8;
            while !stop.load(Ordering::Relaxed) {
                tag = tag % 250 + 1;
                arena.set_record(0, &[0; 64]);
                arena.write(0).fill(tag);
                arena.set_record(0, &[tag; 64]);
                for _ in 0..200 {
                    std::hint::spin_loop();
                }
            }
        });
        let mut bytes = vec![0; 4096];
        let mut compared = 0;
        for _ in 0..5_000_000 {
            if compared == 2000 {
                break;
            }
            let before = peer.record(0).unwrap();
            peer.copy_out(0, 0, &mut bytes).unwrap();
            if before[0] != 0 && peer.record(0).unwrap() == before {
                // The writer may have come round to the same tag only after 250 fillings.
                assert!(bytes.iter().all(|&b| b == before[0]));
                compared += 1;
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert_eq!(compared, 2000);
    });
}

#[test]
fn parts_of_a_slot_do_not_overlap_and_keep_it_until_the_last_is_gone() {
    let arena = Arena::create(ArenaOptions { slots: 2, slot_bytes: 1000, name: "parts" }).unwrap();
    arena.write(1).fill(9);
    let mut parts: Vec<_> = arena.write(1).cut(100..950, 300).collect();
    assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [300, 300, 250]);
    std::thread::scope(|scope| {
        for (i, part) in parts.iter_mut().enumerate() {
            scope.spawn(move || part.fill(i as u8));
        }
    });
    while let Some(part) = parts.pop() {
        assert!(arena.try_read(1).is_none() && arena.try_write(1).is_none());
        drop(part);
    }
    let right = [vec![9; 100], vec![0; 300], vec![1; 300], vec![2; 250], vec![9; 50]].concat();
    assert!(arena.read(1)[..] == right);
    for (range, each) in [(0..0, 5), (1000..1000, 1), (7..1000, usize::MAX)] {
        let parts: Vec<_> = arena.write(0).cut(range.clone(), each).collect();
        assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [range.len()]);
    }
    assert_eq!(arena.guards(), 0);
}

#[test]
#[should_panic(expected = "of WriteGuard")]
fn parts_that_a_slot_does_not_have_are_not_cut() {
    let arena = Arena::create(ArenaOptions { slots: 1, slot_bytes: 10, name: "parts" }).unwrap();
    drop(arena.write(0).cut(5..11, 1));
}

#[test]
fn a_board_shows_its_owner_what_its_reader_pins() {
    let board = Board::create(100, 7).unwrap();
    let peer = PeerBoard::open(board.fd(), 100).unwrap();
    assert_eq!((peer.limit(), board.limit(), board.pinned()), (7, 7, 0));
    peer.pin([0, 42, 99]);
    assert!(board.holds(0) && board.holds(42) && board.holds(99) && !board.holds(41));
    peer.unpin(42);
    assert!(!board.holds(42));
    assert_eq!(board.pinned(), 2);
    assert!(!peer.is_closed());
    board.close();
    assert!(peer.is_closed());
    assert_eq!(board.pinned(), 2);
}

#[test]
fn only_a_board_of_the_right_size_is_mapped() {
    let board = Board::create(100, 7).unwrap();
    assert!(matches!(PeerBoard::open(board.fd(), 5000), Err(PeerArenaError::Size { .. })));
    assert!(matches!(PeerBoard::open(board.fd(), 101), Err(PeerArenaError::Board { slots: 101 })));
    let arena = arena(1, 64);
    // For writing, nobody may map an arena.
    let bytes = u32::try_from(rustix::fs::fstat(arena.fd()).unwrap().st_size).unwrap();
    assert!(matches!(
        PeerBoard::open(arena.fd(), bytes - 128),
        Err(PeerArenaError::System { step: "mmap", .. })
    ));
    let fd = rustix::fs::memfd_create("foreign", MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::fs::ftruncate(&fd, 4096).unwrap();
    assert!(matches!(PeerBoard::open(fd.as_fd(), 100), Err(PeerArenaError::NotSealed)));
    // Whoever holds a board can neither resize it nor take its seals away.
    assert!(rustix::fs::ftruncate(board.fd(), 0).is_err());
    assert!(rustix::fs::ftruncate(board.fd(), 1 << 20).is_err());
}

#[test]
fn a_damaged_header_is_no_board() {
    for at in 0..64 {
        let board = Board::create(100, 7).unwrap();
        let mut byte = [0];
        rustix::io::pread(board.fd(), &mut byte, at).unwrap();
        rustix::io::pwrite(board.fd(), &[byte[0] ^ 1], at).unwrap();
        let opened = PeerBoard::open(board.fd(), 100);
        assert!(matches!(opened, Err(PeerArenaError::Board { .. })), "byte {at}");
    }
}
