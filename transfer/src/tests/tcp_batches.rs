//! What is particular to tcp: batches of requests, a window of bytes, blocks cut into parts.

use super::*;
use crate::tcp::{Tcp, TcpOptions};
use crate::wire::{BATCH_REQUESTS, BlockHead, Extent, Fetch, Hello, Welcome};
use std::io::{IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};

fn identity() -> Identity {
    Identity { worker: OWNER, incarnation: Incarnation(1) }
}

fn hello() -> [u8; Hello::BYTES] {
    Hello { peer: identity(), slot_bytes: SLOT_BYTES as u64, token: token() }.to_bytes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_among_many_small_blocks_shift_nothing() {
    let mut place = Place::new(TransportKind::Tcp);
    let store = Store::new(300, SLOT_BYTES);
    let owner = Owner::start(&mut place, store, 1, Guards::default()).await;
    let puller = Puller::with(&place, Guards::default(), Store::new(300, SLOT_BYTES), token());
    // More than one batch holds, of lengths from nothing to some pages.
    let blocks: Vec<_> =
        (0..300).map(|tag| owner.publish(tag, (tag as usize * 37) % 9000)).collect();
    for every in [1, 2, 3, 7, 64, 299] {
        let mut asked = blocks.clone();
        for block in asked.iter_mut().step_by(every) {
            block.lease = baton_proto::ids::LeaseId(u64::MAX);
        }
        let results = puller.pull(&owner.peer, &asked).await;
        for (i, result) in results.into_iter().enumerate() {
            let refused = Err(TransferError::Refused(Refused::Lease));
            assert_eq!(result, if i % every == 0 { refused } else { Ok(()) }, "{i} of {every}");
        }
        puller.store.assert_at_rest();
    }
    let sample = puller.local.counters.sample(TransportKind::Tcp, Op::Pull);
    assert_eq!(sample.copied_bytes, 0);
    puller.finish().await;
    owner.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_block_arrives_in_parts_and_counts_once() {
    const BYTES: usize = (3 << 20) + 17;
    let mut place = Place::new(TransportKind::Tcp);
    let owner = Owner::start(&mut place, Store::new(2, BYTES), 1, Guards::default()).await;
    let puller = Puller::with(&place, Guards::default(), Store::new(2, BYTES), token());
    let good = owner.publish(1, BYTES);
    // One byte of one part in the middle is not what its owner announced.
    let mut bytes = content(2, BYTES);
    let mut bad = owner.publish_bytes(2, &bytes);
    bytes[BYTES / 2] ^= 1;
    owner.store.arena.write(bad.slot.0)[..BYTES].copy_from_slice(&bytes);
    let results = puller.pull(&owner.peer, &[good, bad]).await;
    assert_eq!(results[0], Ok(()));
    assert!(matches!(results[1], Err(TransferError::Mismatch(Mismatch::Checksum { .. }))));
    let sample = puller.local.counters.sample(TransportKind::Tcp, Op::Pull);
    assert_eq!((sample.blocks, sample.bytes, sample.failed), (1, BYTES as u64, 1));
    assert_eq!(sample.copied_bytes, 0);
    // All parts of a block are refused, and it fails once.
    bad.lease = baton_proto::ids::LeaseId(u64::MAX);
    let refused = Err(TransferError::Refused(Refused::Lease));
    assert_eq!(puller.pull(&owner.peer, &[bad, good]).await, [refused, Ok(())]);
    assert_eq!(puller.local.counters.sample(TransportKind::Tcp, Op::Pull).failed, 2);
    puller.finish().await;
    owner.stop().await;
}

/// Hears all requests on all connections that come, answers none, and leaves with the caller.
fn silent_owner() -> (Peer, std::thread::JoinHandle<Vec<Vec<Fetch>>>, usize) {
    const CONNECTIONS: usize = 2;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let tcp = Some(listener.local_addr().unwrap());
    let hear = |mut socket: TcpStream| {
        let welcome =
            Welcome::Accepted { identity: identity(), slots: 64, slot_bytes: SLOT_BYTES as u64 };
        socket.read_exact(&mut [0; Hello::BYTES]).unwrap();
        socket.write_all(&welcome.to_bytes()).unwrap();
        let mut heard = Vec::new();
        let _ = socket.read_to_end(&mut heard);
        let (frames, rest) = heard.as_chunks::<{ Fetch::BYTES }>();
        assert!(rest.is_empty());
        frames.iter().map(|frame| Fetch::from_bytes(frame, OWNER).unwrap()).collect::<Vec<_>>()
    };
    let owner = std::thread::spawn(move || {
        let sockets: Vec<_> = (0..CONNECTIONS).map(|_| listener.accept().unwrap().0).collect();
        let threads: Vec<_> =
            sockets.into_iter().map(|socket| std::thread::spawn(move || hear(socket))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let endpoints = Endpoints { tcp, ..Endpoints::default() };
    (Peer { worker: OWNER, incarnation: Incarnation(1), endpoints }, owner, CONNECTIONS)
}

/// What is asked for on each connection of an owner who does not answer.
async fn asked_of_a_silent_owner(slots: u32, len: usize, window_bytes: usize) -> Vec<Vec<Fetch>> {
    let mut place = Place::new(TransportKind::Tcp);
    let real = Owner::start(&mut place, Store::new(slots, SLOT_BYTES), 1, Guards::default()).await;
    let blocks: Vec<_> = (0..u64::from(slots)).map(|tag| real.publish(tag, len)).collect();
    real.stop().await;
    let (peer, owner, connections_per_peer) = silent_owner();
    let store = Store::new(slots, SLOT_BYTES);
    let puller = Puller::with(&place, Guards::default(), store, token());
    let options = TcpOptions {
        connections_per_peer,
        bytes_per_connection: 1,
        window_bytes,
        part_bytes: 64 << 10,
        ..TcpOptions::default()
    };
    let tcp = Tcp::new(puller.local.clone(), options);
    let pulls = puller.pulls(&blocks);
    let settled = tcp.pull(&peer, pulls, Duration::from_secs(1)).settle().await;
    for result in puller.judge(settled, &blocks) {
        assert_eq!(result, Err(TransferError::Deadline));
    }
    drop(tcp);
    puller.finish().await;
    owner.join().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_than_a_window_of_bytes_is_asked_for() {
    for asked in asked_of_a_silent_owner(16, SLOT_BYTES, 256 << 10).await {
        let bytes: u32 = asked.iter().map(|fetch| fetch.span.len).sum();
        assert_eq!(bytes, 256 << 10);
        // Long blocks were cut, and nobody is to compute what is of no use.
        assert!(asked.iter().all(|fetch| fetch.span.len == 64 << 10 && !fetch.summed));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_ahead_are_bounded_in_number_too() {
    for asked in asked_of_a_silent_owner(700, 64, 256 << 10).await {
        assert_eq!(asked.len(), 4 * BATCH_REQUESTS);
        for (i, fetch) in asked.iter().enumerate() {
            assert_eq!(fetch.last, i % BATCH_REQUESTS == BATCH_REQUESTS - 1);
            assert_eq!(fetch.number, i as u32);
        }
    }
}

/// Says `said` to an owner after the hello; everything that it answers until it hangs up.
async fn hear(said: Vec<u8>, limits: ServeLimits) -> Vec<u8> {
    let mut place = Place::new(TransportKind::Tcp);
    let owner =
        Owner::limited(&mut place, Store::new(4, SLOT_BYTES), 1, Guards::default(), limits).await;
    let mut socket = TcpStream::connect(place.tcp).unwrap();
    socket.write_all(&hello()).unwrap();
    socket.write_all(&said).unwrap();
    let mut heard = Vec::new();
    let _ = socket.read_to_end(&mut heard);
    owner.stop().await;
    heard
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_does_not_end_ends_the_connection() {
    let block = Rig::new(TransportKind::Tcp).await.owner.publish(1, 64);
    let fetch = Fetch { last: false, ..Fetch::alone(0, block, Span::whole(&block)) };
    let heard = hear(fetch.to_bytes().repeat(BATCH_REQUESTS), ServeLimits::default()).await;
    assert_eq!(heard.len(), Welcome::BYTES);
    // One that waits for its end is not answered, and does not wait for ever.
    let limits = ServeLimits { idle: Duration::from_millis(30), ..ServeLimits::default() };
    let heard = hear(fetch.to_bytes().repeat(BATCH_REQUESTS - 1), limits).await;
    assert_eq!(heard.len(), Welcome::BYTES);
}

/// Pulls two blocks from an owner that answers their batch with `answer`, and leaves.
async fn pull_two(answer: Vec<u8>) -> Vec<Result<(), TransferError>> {
    let rig = Rig::new(TransportKind::Tcp).await;
    let blocks = [rig.owner.publish(1, 1000), rig.owner.publish(2, 1000)];
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let tcp = Some(listener.local_addr().unwrap());
    let owner = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        socket.read_exact(&mut [0; Hello::BYTES]).unwrap();
        let welcome =
            Welcome::Accepted { identity: identity(), slots: 64, slot_bytes: SLOT_BYTES as u64 };
        socket.write_all(&welcome.to_bytes()).unwrap();
        socket.read_exact(&mut [0; 2 * Fetch::BYTES]).unwrap();
        let _ = socket.write_vectored(&[IoSlice::new(&answer)]);
    });
    let endpoints = Endpoints { tcp, ..Endpoints::default() };
    let peer = Peer { worker: OWNER, incarnation: Incarnation(1), endpoints };
    let results = rig.puller.pull(&peer, &blocks).await;
    owner.join().unwrap();
    rig.finish().await;
    results
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_head_anywhere_in_a_batch_ends_it() {
    let good =
        |number| BlockHead { number, result: Ok(Extent { len: 1000, crc: 0 }) }.to_bytes().to_vec();
    let longer = BlockHead { number: 1, result: Ok(Extent { len: 1001, crc: 0 }) }.to_bytes();
    let payloads = vec![0; 3000];
    for second in [good(0), good(2), longer.to_vec(), vec![0xff; BlockHead::BYTES]] {
        for result in pull_two([good(0), second, payloads.clone()].concat()).await {
            assert!(matches!(result, Err(TransferError::Protocol { .. })), "{result:?}");
        }
    }
    // Payloads, and records that are none: each block has its own error.
    for result in pull_two([good(0), good(1), payloads].concat()).await {
        assert!(matches!(result, Err(TransferError::Mismatch(Mismatch::Record(_)))), "{result:?}");
    }
    // Refused the one, and nothing more: the other is lost, not the refusal mistaken for it.
    let refused = BlockHead { number: 0, result: Err(Refused::Hash) }.to_bytes().to_vec();
    let results = pull_two([refused, good(1), vec![0; 999]].concat()).await;
    assert!(results.iter().all(|result| matches!(result, Err(TransferError::Lost { .. }))));
}

/// The turn that it waits for may come after that of any number of larger pulls.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_connection_leaves_when_nothing_is_left_to_ask_for() {
    let mut place = Place::new(TransportKind::Tcp);
    let owner = Owner::start(&mut place, Store::new(8, SLOT_BYTES), 1, Guards::default()).await;
    let puller = Puller::new(&place, Guards::default());
    let tcp = Tcp::new(puller.local.clone(), TcpOptions::default());
    let blocks: Vec<_> = (1..=4).map(|tag| owner.publish(tag, SLOT_BYTES)).collect();
    let outrun = tcp.outrun(&owner.peer, puller.pulls(&blocks));
    let (outcome, settled) = tokio::time::timeout(SOON, outrun).await.expect("it leaves");
    assert_eq!(outcome, Ok(()));
    assert_eq!(puller.judge(settled, &blocks), vec![Err(TransferError::Cancelled); 4]);
    drop(tcp);
    puller.finish().await;
    owner.stop().await;
}
