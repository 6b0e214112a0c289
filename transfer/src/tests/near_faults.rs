//! Neighbours on one host that break the rules, or die: an error for them, nothing for anybody
//! else.

use super::mapping::{Near, intact, soon};
use super::*;
use crate::shm::{Shm, ShmOptions};
use crate::wire::{Hello, Welcome};
use baton_arena::{PeerBoard, Shape};
use baton_proto::ids::{Generation, LeaseId, SlotId};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::process::Pid;
use std::io::{BufRead, BufReader, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tokio::time::Instant;

/// A reader that does as it likes with what it was given.
struct Rogue {
    socket: UnixStream,
    arena: OwnedFd,
    board_fd: OwnedFd,
    board: PeerBoard,
}

impl Rogue {
    fn connect(near: &Near) -> Self {
        Self::at(&near.rig.place.shm, near.owner().store.arena.shape())
    }

    /// Has the arena of that shape, and a board, from whoever listens at a path.
    fn at(path: &Path, Shape { slots, slot_bytes }: Shape) -> Self {
        let mut socket = UnixStream::connect(path).unwrap();
        let peer = Identity { worker: OWNER, incarnation: Incarnation(1) };
        let hello = Hello { peer, slot_bytes: slot_bytes as u64, token: token() };
        socket.write_all(&hello.to_bytes()).unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut welcome = [0; Welcome::BYTES];
        let mut bytes = [IoSliceMut::new(&mut welcome)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        rustix::net::recvmsg(socket.as_fd(), &mut bytes, &mut control, flags).unwrap();
        let fds = control.drain().filter_map(|part| match part {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        });
        let [arena, board_fd]: [OwnedFd; 2] = fds.flatten().collect::<Vec<_>>().try_into().unwrap();
        let board = PeerBoard::open(board_fd.as_fd(), slots).unwrap();
        Self { socket, arena, board_fd, board }
    }
}

/// Every slot can be had, all of them at once.
async fn all_slots_come_back(near: &Near) {
    let mut drafts = Vec::new();
    for _ in 0..near.owner().store.arena.slots() {
        drafts.push(near.draft_soon().await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_pins_too_much_is_cut_off() {
    let near = Near::new(16, Guards::default()).await;
    let rogue = Rogue::connect(&near);
    assert_eq!(rogue.board.limit(), 4);
    rogue.board.pin(0..4);
    // These are its good right: every other slot can be had, and they cannot.
    let drafts: Vec<_> = (0..12).map(|_| near.draft().unwrap()).collect();
    assert!(drafts.iter().all(|draft| draft.slot().0 >= 4));
    assert!(near.draft().is_none());
    assert_eq!(near.owner().store.counts().set_aside, 4);
    assert!(!rogue.board.is_closed());
    drop(drafts);
    rogue.board.pin(0..16);
    soon(|| rogue.board.is_closed().then_some(())).await;
    all_slots_come_back(&near).await;
    // Nobody else suffers.
    let block = near.owner().publish(1, 4096);
    assert!(intact(&near.map(&[block]).await.unwrap()));
    drop(rogue);
    near.finish().await;
}

/// It may have been counted wrongly, or mend its ways: only what it may not pin costs it its pins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_is_told_to_pin_no_more_keeps_what_it_may_pin() {
    let near = Near::new(16, Guards::default()).await;
    let rogue = Rogue::connect(&near);
    rogue.board.pin(0..5);
    soon(|| rogue.board.is_closed().then_some(())).await;
    rogue.board.unpin(4);
    let drafts: Vec<_> = (0..12).map(|_| near.draft().unwrap()).collect();
    assert!(drafts.iter().all(|draft| draft.slot().0 >= 4));
    assert!(near.draft().is_none());
    drop(drafts);
    (0..4).for_each(|slot| rogue.board.unpin(slot));
    all_slots_come_back(&near).await;
    drop(rogue);
    near.finish().await;
}

/// Its pins are never more than it may have, however they look to who walks over the board.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_turns_over_at_its_limit_is_not_cut_off() {
    const SLOTS: u32 = 1 << 18;
    const LIMIT: u32 = 8;
    let limits = ServeLimits { mapped_slots: LIMIT, ..ServeLimits::default() };
    let near = Near::of(Store::new(SLOTS, 64), limits, Guards::default()).await;
    let rogue = Rogue::connect(&near);
    let ends = [0..LIMIT, SLOTS - LIMIT..SLOTS];
    // As long as several looks take.
    let until = Instant::now() + Duration::from_millis(800);
    for end in ends.iter().cycle() {
        rogue.board.pin(end.clone());
        // Pins them for longer than it does not.
        for _ in 0..100 {
            assert!(!rogue.board.is_closed(), "cut off at its limit");
        }
        end.clone().for_each(|slot| rogue.board.unpin(slot));
        if Instant::now() >= until {
            break;
        }
    }
    drop(rogue);
    near.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_hangs_up_keeps_its_pins_until_it_lets_go() {
    let near = Near::new(16, Guards::default()).await;
    let Rogue { socket, board, .. } = Rogue::connect(&near);
    board.pin([3]);
    drop(socket);
    soon(|| board.is_closed().then_some(())).await;
    // Its process lives: it may be reading.
    let drafts: Vec<_> = (0..15).map(|_| near.draft().unwrap()).collect();
    assert!(near.draft().is_none());
    board.unpin(3);
    assert_eq!(near.draft().unwrap().slot(), SlotId(3));
    drop(drafts);
    // Soon the board is not looked at any more.
    let quiet = |near: &Near| near.owner().tasks.len();
    soon(|| (quiet(&near) <= 1).then_some(())).await;
    board.pin(0..16);
    all_slots_come_back(&near).await;
    near.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_can_damage_nothing_but_its_own_board() {
    let near = Near::new(16, Guards::default()).await;
    let block = near.owner().publish(1, 4096);
    let mapped = near.map(&[block]).await.unwrap();
    let rogue = Rogue::connect(&near);
    let noise = content(99, 4096);
    assert_eq!(rustix::io::pwrite(&rogue.board_fd, &noise, 0), Ok(4096));
    for offset in [0, 4096, 8192, 1 << 16] {
        assert!(rustix::io::pwrite(&rogue.arena, &noise, offset).is_err());
    }
    for fd in [&rogue.arena, &rogue.board_fd] {
        assert!(rustix::fs::ftruncate(fd, 0).is_err());
    }
    // Noise pins more than it may.
    all_slots_but_mapped(&near).await;
    assert!(intact(&mapped));
    drop((rogue, mapped));
    near.finish().await;
}

async fn all_slots_but_mapped(near: &Near) {
    let mut drafts = Vec::new();
    for _ in 1..near.owner().store.arena.slots() {
        drafts.push(near.draft_soon().await);
    }
}

/// An owner that writes noise over records and payloads while they are read: errors, or the right
/// bytes, and nothing worse. Everything it can reach is written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_scribbles_causes_errors_and_nothing_worse() {
    let near = Near::new(8, Guards::default()).await;
    let blocks: Vec<_> = (1..=4).map(|tag| near.owner().publish(tag, 4096)).collect();
    let stop = CancellationToken::new();
    let scribbler = {
        let (arena, stop) = (near.owner().store.arena.clone(), stop.clone());
        let records: Vec<_> = blocks.iter().map(|block| arena.record(block.slot.0)).collect();
        let blocks = blocks.clone();
        std::thread::spawn(move || {
            let mut round = 0u64;
            while !stop.is_cancelled() {
                round += 1;
                let i = (round % 4) as usize;
                let (slot, noise) = (blocks[i].slot.0, content(round, 4096));
                let mut record = records[i];
                match round / 4 % 4 {
                    0 => record.copy_from_slice(&noise[..64]),
                    1 => record[noise[0] as usize % 64] ^= 1 << (noise[1] % 8),
                    _ => {}
                }
                arena.set_record(slot, &record);
                let right = content(tag(&blocks[i]), 4096);
                let payload = if (round / 16).is_multiple_of(2) { &noise } else { &right };
                arena.write(slot)[..4096].copy_from_slice(payload);
            }
        })
    };
    let (mut good, mut bad) = (0, 0);
    for _ in 0..300 {
        let other = Shm::new(near.rig.puller.local.clone(), ShmOptions::default());
        match other.map(&near.owner().peer, &blocks[..2], SOON).await {
            Ok(mapped) => {
                intact(&mapped);
                good += 1;
            }
            Err(TransferError::Mismatch(_)) => bad += 1,
            Err(error) => panic!("{error}"),
        }
        // Compares what arrived, byte by byte.
        for outcome in near.rig.puller.pull(&near.owner().peer, &blocks).await {
            match outcome {
                Ok(()) => good += 1,
                Err(TransferError::Mismatch(_)) => bad += 1,
                Err(error) => panic!("{error}"),
            }
        }
    }
    stop.cancel();
    scribbler.join().unwrap();
    assert!(bad > 0, "{good} good, {bad} bad");
    near.finish().await;
}

/// What a child process is told and says: fields of a descriptor.
fn to_line(block: &BlockDescriptor) -> String {
    let BlockDescriptor { lease, slot, generation, len, crc, .. } = block;
    format!("{} {} {} {} {} {}", tag(block), lease.0, slot.0, generation.0, len, crc)
}

fn from_line(line: &str) -> BlockDescriptor {
    let n: Vec<u64> = line.split_whitespace().map(|word| word.parse().unwrap()).collect();
    BlockDescriptor {
        owner: OWNER,
        incarnation: Incarnation(1),
        lease: LeaseId(n[1]),
        lease_remaining_ms: 60_000,
        slot: SlotId(n[2] as u32),
        generation: Generation(n[3]),
        hash: hash(n[0]),
        group: GroupId(0),
        len: n[4] as u32,
        crc: n[5] as u32,
    }
}

const ROLE: &str = "BATON_TEST_NEIGHBOUR";
const PLACE: &str = "BATON_TEST_PLACE";
const SAYS: &str = "neighbour: ";

/// Starts this test binary again, to play a part; what it says first.
fn neighbour(role: &str, place: &Path) -> (Child, String) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["tests::near_faults::a_neighbour", "--exact", "--ignored", "--nocapture"])
        .env(ROLE, role)
        .env(PLACE, place)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let mut lines = out.lines().map_while(Result::ok);
    // The test harness writes the name of the test on the same line.
    let said = lines.find_map(|line| line.split_once(SAYS).map(|(_, said)| said.to_owned()));
    (child, said.expect("the child says something"))
}

/// Not a test: the other process of the tests below. Plays its part until it is killed, or until
/// its parent is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by other tests as a process of its own"]
async fn a_neighbour() {
    let (Ok(role), Some(path)) = (std::env::var(ROLE), std::env::var_os(PLACE)) else { return };
    let mut place = Place::new(TransportKind::Shm);
    place.shm = path.into();
    let wait = || std::io::stdin().read_line(&mut String::new());
    if let Some(block) = role.strip_prefix("reader ") {
        let block = from_line(block);
        let puller = Puller::new(&place, Guards::default());
        let shm = Shm::new(puller.local.clone(), ShmOptions::default());
        let endpoints = place.endpoints();
        let peer = Peer { worker: OWNER, incarnation: Incarnation(1), endpoints };
        let mapped = shm.map(&peer, &[block], SOON).await.unwrap();
        println!("{SAYS}{}", intact(&mapped));
        let _ = wait();
        drop(mapped);
    } else if role == "parent" {
        let shape = Shape { slots: 1, slot_bytes: SLOT_BYTES };
        let rogue = Rogue::at(&place.shm, shape);
        rogue.board.pin([0]);
        // Holds the other end of the connection until the owner ends it.
        let socket = OwnedFd::from(rogue.socket.try_clone().unwrap());
        let mut child = Command::new("cat").stdin(socket).stdout(Stdio::null()).spawn().unwrap();
        println!("{SAYS}{}", child.id());
        let _ = wait();
        drop(rogue);
        let _ = child.wait();
    } else {
        let store = Store::new(4, SLOT_BYTES);
        let owner = Owner::start(&mut place, store, 1, Guards::default()).await;
        println!("{SAYS}{}", to_line(&owner.publish(5, 4096)));
        let _ = wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pins_of_a_reader_that_was_killed_are_gone() {
    let near = Near::new(1, Guards::default()).await;
    let block = near.owner().publish(1, 4096);
    let role = format!("reader {}", to_line(&block));
    let (mut child, said) = neighbour(&role, &near.rig.place.shm);
    assert_eq!(said, "true");
    near.owner().release(&block);
    assert!(near.draft().is_none(), "the reader holds the only slot");
    child.kill().unwrap();
    child.wait().unwrap();
    drop(near.draft_soon().await);
    near.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pins_of_a_dead_reader_are_gone_whoever_holds_its_socket() {
    let near = Near::new(1, Guards::default()).await;
    let (mut child, heir) = neighbour("parent", &near.rig.place.shm);
    assert!(near.draft().is_none(), "the reader holds the only slot");
    child.kill().unwrap();
    child.wait().unwrap();
    let heir = Pid::from_raw(heir.parse().unwrap()).unwrap();
    rustix::process::test_kill_process(heir).expect("its child lives");
    drop(near.draft_soon().await);
    near.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_says_nothing_does_not_hold_up_the_end() {
    let mut place = Place::new(TransportKind::Shm);
    let limits = ServeLimits { hello: 10 * SOON, ..ServeLimits::default() };
    let store = Store::new(1, SLOT_BYTES);
    let owner = Owner::limited(&mut place, store, 1, Guards::default(), limits).await;
    let _silent = UnixStream::connect(&place.shm).unwrap();
    soon(|| (owner.tasks.len() > 1).then_some(())).await;
    owner.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_was_killed_is_noticed() {
    let place = Place::new(TransportKind::Shm);
    let (mut child, said) = neighbour("owner", &place.shm);
    let block = from_line(&said);
    let endpoints = place.endpoints();
    let peer = Peer { worker: OWNER, incarnation: Incarnation(1), endpoints };
    let puller = Puller::new(&place, Guards::default());
    let shm = Shm::new(puller.local.clone(), ShmOptions::default());
    let mapped = shm.map(&peer, &[block], SOON).await.unwrap();
    assert!(mapped.held().is_ok() && intact(&mapped));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(matches!(mapped.held(), Err(TransferError::Lost { .. })));
    // Its memory is there as long as somebody maps it.
    assert!(intact(&mapped));
    let error = shm.map(&peer, &[block], SOON).await.unwrap_err();
    assert!(
        matches!(error, TransferError::Lost { .. } | TransferError::Unreachable { .. }),
        "{error}"
    );
    drop((mapped, shm));
    puller.finish().await;
}
