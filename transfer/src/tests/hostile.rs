//! Peers that break the protocol, on either end: an error for them, nothing for anybody else.

use super::*;
use crate::shm::ShmOptions;
use crate::wire::{BlockHead, Extent, Fetch, Hello, Welcome};
use baton_arena::{Board, Layout, Shape};
use baton_proto::ids::SlotId;
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

const SLOTS: u32 = 4;

fn identity() -> Identity {
    Identity { worker: OWNER, incarnation: Incarnation(1) }
}

fn welcome() -> [u8; Welcome::BYTES] {
    let slot_bytes = SLOT_BYTES as u64;
    Welcome::Accepted { identity: identity(), slots: SLOTS, slot_bytes }.to_bytes()
}

fn hello() -> [u8; Hello::BYTES] {
    Hello { peer: identity(), slot_bytes: SLOT_BYTES as u64, token: token() }.to_bytes()
}

/// A block that only has to be asked for.
async fn some_block() -> BlockDescriptor {
    let rig = Rig::new(TransportKind::Tcp).await;
    let block = rig.owner.publish(1, 4096);
    rig.finish().await;
    block
}

/// Pulls a block from an owner that accepts one connection, reads the hello, says `welcome`, reads
/// a request if `answer` is not empty, says `answer`, and leaves.
async fn pull_from(welcome: Vec<u8>, answer: Vec<u8>, deadline: Duration) -> TransferError {
    let block = some_block().await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let tcp = Some(listener.local_addr().unwrap());
    let (done, over) = std::sync::mpsc::sync_channel::<()>(1);
    let owner = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        socket.read_exact(&mut [0; Hello::BYTES]).unwrap();
        socket.write_all(&welcome).unwrap();
        if !answer.is_empty() {
            socket.read_exact(&mut [0; Fetch::BYTES]).unwrap();
            socket.write_all(&answer).unwrap();
        }
        if deadline < SOON {
            // Stays, and says nothing more, until the puller has given up.
            over.recv().unwrap();
        }
    });
    let endpoints = Endpoints { tcp, ..Endpoints::default() };
    let peer = Peer { worker: OWNER, incarnation: Incarnation(1), endpoints };
    let puller = Puller::new(&Place::new(TransportKind::Tcp), Guards::default());
    let pulls = puller.pulls(&[block]);
    let settled = puller.transport.pull(&peer, pulls, deadline).settle().await;
    let error = puller.judge(settled, &[block]).remove(0).unwrap_err();
    puller.finish().await;
    let _ = done.send(());
    owner.join().unwrap();
    error
}

fn head(number: u32, result: Result<u32, Refused>) -> Vec<u8> {
    let result = result.map(|len| Extent { len, crc: 0 });
    BlockHead { number, result }.to_bytes().to_vec()
}

#[tokio::test]
async fn an_owner_whose_welcome_is_none_is_left() {
    for garbage in [vec![0; 48], vec![0xff; 48], b"HTTP/1.1 400 Bad Request\r\n\r\n".repeat(2)] {
        let error = pull_from(garbage, vec![], SOON).await;
        assert!(matches!(error, TransferError::Protocol { .. }), "{error}");
    }
    let mut damaged = welcome().to_vec();
    damaged[20] ^= 1;
    let error = pull_from(damaged, vec![], SOON).await;
    assert!(matches!(error, TransferError::Protocol { .. }), "{error}");
    let error = pull_from(welcome()[..47].to_vec(), vec![], SOON).await;
    assert!(matches!(error, TransferError::Lost { .. }), "{error}");
}

#[tokio::test]
async fn an_owner_of_another_version_or_run_is_left() {
    let mut other = welcome();
    other[8] += 1;
    let error = pull_from(other.to_vec(), vec![], SOON).await;
    assert_eq!(error, TransferError::Refused(Refused::Version));

    let identity = Identity { incarnation: Incarnation(2), ..identity() };
    let slot_bytes = SLOT_BYTES as u64;
    let other = Welcome::Accepted { identity, slots: SLOTS, slot_bytes }.to_bytes();
    let error = pull_from(other.to_vec(), vec![], SOON).await;
    assert_eq!(error, TransferError::Refused(Refused::Incarnation));
}

#[tokio::test]
async fn an_answer_that_is_not_the_one_asked_for_ends_the_connection() {
    let mut damaged = head(0, Ok(4096));
    damaged[9] ^= 1;
    let mut unknown = head(0, Ok(0));
    unknown[2] = 200;
    let crc = crc32c::crc32c(&unknown[..16]);
    unknown[16..].copy_from_slice(&crc.to_le_bytes());
    for answer in [damaged, unknown, head(1, Ok(4096)), head(0, Ok(4097)), head(0, Ok(u32::MAX))] {
        let error = pull_from(welcome().to_vec(), answer, SOON).await;
        assert!(matches!(error, TransferError::Protocol { .. }), "{error}");
    }
}

#[tokio::test]
async fn an_answer_that_stops_half_way_is_an_error() {
    let mut half = head(0, Ok(4096));
    half.extend_from_slice(&[1; 2000]);
    let error = pull_from(welcome().to_vec(), half.clone(), SOON).await;
    assert!(matches!(error, TransferError::Lost { .. }), "{error}");
    let error = pull_from(welcome().to_vec(), half, Duration::from_millis(100)).await;
    assert_eq!(error, TransferError::Deadline);
}

/// Answers requests on two connections, one after the other: on the first by `first`, on the
/// second by a refusal. Two pulls follow each other; what became of them.
async fn two_pulls(first: Vec<Vec<u8>>) -> [TransferError; 2] {
    let block = some_block().await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let tcp = Some(listener.local_addr().unwrap());
    // Not joined: whoever never comes for the second connection has failed the test already.
    std::thread::spawn(move || {
        for answers in [first, vec![head(0, Err(Refused::Content))]] {
            let (mut socket, _) = listener.accept().unwrap();
            socket.read_exact(&mut [0; Hello::BYTES]).unwrap();
            socket.write_all(&welcome()).unwrap();
            for answer in answers {
                // A puller that has left asks nothing more.
                if socket.read_exact(&mut [0; Fetch::BYTES]).is_ok() {
                    socket.write_all(&answer).unwrap();
                }
            }
            // Leaves only when asked once more, or when the puller has left.
            let _ = socket.read_exact(&mut [0; Fetch::BYTES]);
        }
    });
    let endpoints = Endpoints { tcp, ..Endpoints::default() };
    let peer = Peer { worker: OWNER, incarnation: Incarnation(1), endpoints };
    let puller = Puller::new(&Place::new(TransportKind::Tcp), Guards::default());
    let one = puller.pull_one(&peer, &block).await.unwrap_err();
    let two = puller.pull_one(&peer, &block).await.unwrap_err();
    puller.finish().await;
    [one, two]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_went_wrong_is_not_used_again() {
    // The second answer is for whoever asks again on the first connection.
    let answers = vec![head(7, Err(Refused::Lease)), head(0, Err(Refused::Lease))];
    let [one, two] = two_pulls(answers).await;
    assert!(matches!(one, TransferError::Protocol { .. }), "{one}");
    assert_eq!(two, TransferError::Refused(Refused::Content));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_connection_that_ends_without_a_word_is_replaced() {
    // It answers the first pull and hangs up on the second, which then takes another connection.
    let [one, two] = two_pulls(vec![head(0, Err(Refused::Lease))]).await;
    assert_eq!(one, TransferError::Refused(Refused::Lease));
    assert_eq!(two, TransferError::Refused(Refused::Content));
}

/// What an owner may hand out in place of its arena.
async fn attach_to(fds: &[BorrowedFd<'_>]) -> TransferError {
    attach_as(fds, &welcome()).await
}

/// The same with another welcome.
async fn attach_as(fds: &[BorrowedFd<'_>], welcome: &[u8; Welcome::BYTES]) -> TransferError {
    let block = some_block().await;
    let mut place = Place::new(TransportKind::Shm);
    let listener = UnixListener::bind(&place.shm).unwrap();
    place.kind = TransportKind::Shm;
    let peer = Peer { worker: OWNER, incarnation: Incarnation(1), endpoints: place.endpoints() };
    let puller = Puller::new(&Place::new(TransportKind::Shm), Guards::default());
    let flight = puller.start(&peer, &[block]);
    let (mut socket, _) = listener.accept().unwrap();
    socket.read_exact(&mut [0; Hello::BYTES]).unwrap();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(5))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
    }
    let bytes = [IoSlice::new(welcome)];
    rustix::net::sendmsg(socket.as_fd(), &bytes, &mut control, SendFlags::empty()).unwrap();
    let error = puller.judge(flight.settle().await, &[block]).remove(0).unwrap_err();
    puller.finish().await;
    error
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_sealed_arena_of_the_announced_shape_is_mapped() {
    let file = tempfile::tempfile().unwrap();
    let memfd = rustix::fs::memfd_create("foreign", MemfdFlags::ALLOW_SEALING).unwrap();
    let shape = Store::new(SLOTS + 1, SLOT_BYTES);
    let right = Store::new(SLOTS, SLOT_BYTES);
    let board = Board::create(SLOTS, 1).unwrap();
    let other = Board::create(SLOTS + 4096, 1).unwrap();
    let (arena, board) = (right.arena.fd(), board.fd());
    let pairs = [
        [file.as_fd(), board],
        [memfd.as_fd(), board],
        [shape.arena.fd(), board],
        [board, arena],
        [arena, file.as_fd()],
        [arena, memfd.as_fd()],
        [arena, arena],
        [arena, other.fd()],
    ];
    for fds in [&[][..]].into_iter().chain(pairs.iter().map(|pair| &pair[..])) {
        let error = attach_to(fds).await;
        assert!(matches!(error, TransferError::Protocol { .. }), "{error}");
    }
    for fds in [&[arena][..], &[arena, board, board], &[arena; 5]] {
        let error = attach_to(fds).await;
        assert!(matches!(error, TransferError::Lost { .. }), "{error}");
    }
    // The right ones are mapped; the slots hold nothing.
    let error = attach_to(&[arena, board]).await;
    assert!(matches!(error, TransferError::Mismatch(Mismatch::Record(_))), "{error}");
}

/// A memfd that is an arena of this shape, as far as its size, seals and header go. Its pages cost
/// its owner nothing.
fn sparse_arena(shape: Shape, seals: SealFlags) -> OwnedFd {
    let layout = Layout::of(shape).unwrap();
    let fd = rustix::fs::memfd_create("sparse", MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::fs::ftruncate(&fd, layout.total).unwrap();
    rustix::io::pwrite(&fd, &layout.header(), 0).unwrap();
    rustix::fs::fcntl_add_seals(&fd, seals).unwrap();
    fd
}

/// What is kept here for each slot that an owner claims to have is bounded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_arena_of_too_many_slots_is_not_mapped() {
    let slot_bytes = SLOT_BYTES as u64;
    let most = ShmOptions::default().peer_slots;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE;
    for (slots, too_many) in [(most + 1, true), (1 << 30, true), (8 * SLOTS, false)] {
        let arena = sparse_arena(Shape { slots, slot_bytes: SLOT_BYTES }, seals);
        let board = Board::create(slots.min(most), 1).unwrap();
        let welcome = Welcome::Accepted { identity: identity(), slots, slot_bytes }.to_bytes();
        let error = attach_as(&[arena.as_fd(), board.fd()], &welcome).await;
        let right = if too_many {
            error == TransferError::Protocol { what: "an arena of more slots than are allowed" }
        } else {
            matches!(error, TransferError::Mismatch(Mismatch::Record(_)))
        };
        assert!(right, "{slots}: {error}");
    }
}

/// Whoever can punch holes can have a reader pay for pages again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_arena_that_could_get_holes_is_not_mapped() {
    let shape = Shape { slots: SLOTS, slot_bytes: SLOT_BYTES };
    let board = Board::create(SLOTS, 1).unwrap();
    let arena = sparse_arena(shape, SealFlags::SHRINK | SealFlags::GROW);
    let error = attach_to(&[arena.as_fd(), board.fd()]).await;
    let what = "its memory is not sealed against shrinking and holes";
    assert_eq!(error, TransferError::Protocol { what });
    rustix::fs::fcntl_add_seals(&arena, SealFlags::FUTURE_WRITE).unwrap();
    let hole = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
    assert!(rustix::fs::fallocate(&arena, hole, 0, 4096).is_err(), "that is what the seal is for");
    let error = attach_to(&[arena.as_fd(), board.fd()]).await;
    assert!(matches!(error, TransferError::Mismatch(Mismatch::Record(_))), "{error}");
}

/// A slot that was never written has no memory, and a reference to it does not give it any.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_reference_allocates_nothing_in_the_owners_arena() {
    let rig = Rig::new(TransportKind::Shm).await;
    let block = rig.owner.publish(1, SLOT_BYTES);
    assert_eq!(rig.puller.pull_one(&rig.owner.peer, &block).await, Ok(()));
    let used = || rustix::fs::fstat(rig.owner.store.arena.fd()).unwrap().st_blocks;
    let before = used();
    let stale = BlockDescriptor { slot: SlotId(60), ..block };
    let error = rig.puller.pull_one(&rig.owner.peer, &stale).await.unwrap_err();
    assert!(matches!(error, TransferError::Mismatch(Mismatch::Record(_))), "{error}");
    assert_eq!(used(), before);
    rig.finish().await;
}

/// A caller that speaks bytes, to either kind of server.
enum Caller {
    Tcp(TcpStream),
    Shm(UnixStream),
}

impl Caller {
    fn connect(place: &Place) -> Self {
        match place.kind {
            TransportKind::Tcp => Self::Tcp(TcpStream::connect(place.tcp).unwrap()),
            TransportKind::Shm => Self::Shm(UnixStream::connect(&place.shm).unwrap()),
            kind => panic!("{kind} is not rigged here"),
        }
    }

    fn say(&mut self, bytes: &[u8]) {
        match self {
            Self::Tcp(socket) => socket.write_all(bytes).unwrap(),
            Self::Shm(socket) => socket.write_all(bytes).unwrap(),
        }
    }

    /// Everything until the server hangs up.
    fn hear(&mut self) -> Vec<u8> {
        let mut heard = Vec::new();
        // A reset is a way of hanging up, too.
        let _ = match self {
            Self::Tcp(socket) => socket.read_to_end(&mut heard),
            Self::Shm(socket) => socket.read_to_end(&mut heard),
        };
        heard
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_talk_nonsense_are_told_so_and_left() {
    for kind in [TransportKind::Shm, TransportKind::Tcp] {
        let rig = Rig::new(kind).await;
        let block = rig.owner.publish(1, 4096);
        let mut version = hello();
        version[8] += 1;
        let mut damaged = hello();
        damaged[40] ^= 1;
        let cases = [
            (vec![0; Hello::BYTES], Refused::Malformed),
            (b"GET / HTTP/1.1\r\nHost: example\r\n".repeat(3)[..72].to_vec(), Refused::Malformed),
            (damaged.to_vec(), Refused::Malformed),
            (version.to_vec(), Refused::Version),
        ];
        for (said, refused) in cases {
            let mut caller = Caller::connect(&rig.place);
            caller.say(&said);
            assert_eq!(caller.hear(), Welcome::Declined(refused).to_bytes());
        }
        assert_eq!(rig.puller.pull_one(&rig.owner.peer, &block).await, Ok(()));
        rig.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_say_nothing_are_left() {
    for kind in [TransportKind::Shm, TransportKind::Tcp] {
        let mut place = Place::new(kind);
        let limits = ServeLimits {
            connections: 1,
            hello: Duration::from_millis(30),
            idle: Duration::from_millis(30),
            ..ServeLimits::default()
        };
        let store = Store::new(SLOTS, SLOT_BYTES);
        let owner = Owner::limited(&mut place, store, 1, Guards::default(), limits).await;
        assert!(Caller::connect(&place).hear().is_empty());
        if kind == TransportKind::Tcp {
            // Hello, half a request, and nothing more.
            let mut caller = Caller::connect(&place);
            caller.say(&hello());
            caller.say(&[1; 30]);
            assert_eq!(caller.hear(), welcome());
        }
        owner.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_none_ends_its_connection_alone() {
    let rig = Rig::new(TransportKind::Tcp).await;
    let block = rig.owner.publish(1, 4096);
    assert_eq!(rig.puller.pull_one(&rig.owner.peer, &block).await, Ok(()));
    let mut damaged = Fetch::alone(0, block, Span::whole(&block)).to_bytes();
    damaged[20] ^= 1;
    for request in [[0xff; Fetch::BYTES], damaged] {
        let mut caller = Caller::connect(&rig.place);
        caller.say(&hello());
        caller.say(&request);
        // 64 slots, otherwise the welcome above.
        assert_eq!(caller.hear().len(), Welcome::BYTES);
    }
    assert_eq!(rig.puller.pull_one(&rig.owner.peer, &block).await, Ok(()));
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_does_not_read_loses_its_pin() {
    const BYTES: usize = 24 << 20;
    let mut place = Place::new(TransportKind::Tcp);
    let limits = ServeLimits { send: Duration::from_millis(50), ..ServeLimits::default() };
    let store = Store::new(1, BYTES);
    let owner = Owner::limited(&mut place, store, 1, Guards::default(), limits).await;
    let block = owner.publish(1, BYTES);
    let mut caller = Caller::connect(&place);
    caller.say(&Hello { peer: identity(), slot_bytes: BYTES as u64, token: token() }.to_bytes());
    caller.say(&Fetch::alone(0, block, Span::whole(&block)).to_bytes());
    let unpinned = async {
        // The lease is one pin, the sender's guard is another.
        while owner.store.arena.guards() == 0 {
            tokio::task::yield_now().await;
        }
        while owner.store.arena.guards() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, unpinned).await.expect("the owner gives up on the caller");
    owner.release(&block);
    assert_eq!(owner.store.counts().pinned, 0);
    drop(caller);
    owner.stop().await;
}

/// Bytes behind a block are somebody else's, whoever asks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_for_bytes_behind_a_block_is_refused() {
    let rig = Rig::new(TransportKind::Tcp).await;
    let block = rig.owner.publish(1, 4096);
    let mut caller = Caller::connect(&rig.place);
    caller.say(&hello());
    let spans = [(0, 4097), (4096, 1), (u32::MAX, 1), (1, u32::MAX), (0, 0), (4095, 1)];
    for (number, (offset, len)) in (0..).zip(spans) {
        caller.say(&Fetch::alone(number, block, Span { offset, len }).to_bytes());
    }
    let Caller::Tcp(socket) = &mut caller else { panic!("not tcp") };
    let mut heard = [0; Welcome::BYTES + 6 * BlockHead::BYTES + 1 + 64];
    socket.read_exact(&mut heard).unwrap();
    for number in 0..5 {
        let at = Welcome::BYTES + number * BlockHead::BYTES;
        let head = BlockHead::from_bytes(heard[at..][..BlockHead::BYTES].try_into().unwrap());
        assert_eq!(head.unwrap().result, Err(Refused::Span));
    }
    let at = Welcome::BYTES + 5 * BlockHead::BYTES;
    let head = BlockHead::from_bytes(heard[at..][..BlockHead::BYTES].try_into().unwrap());
    let right = content(1, 4096)[4095];
    assert_eq!(head.unwrap().result, Ok(Extent { len: 1, crc: crc32c::crc32c(&[right]) }));
    assert_eq!(heard[at + BlockHead::BYTES], right);
    drop(caller);
    rig.finish().await;
}
