//! Slots that are reused while somebody reads them.

use super::*;
use crate::guards::Guard;
use crate::wire::{BlockHead, Fetch, Hello, Welcome};
use std::io::{Read, Write};
use std::sync::atomic::AtomicBool;

// Over the simulated network the owner and its pool would need the thread that churns.
wires::on!([on_shm Shm, on_tcp Tcp, on_verbs Verbs] {
    pulls_against_a_busy_pool_get_the_right_bytes_or_none
    the_order_of_payload_and_record_is_enough_without_the_checksum
});

async fn pulls_against_a_busy_pool_get_the_right_bytes_or_none(kind: TransportKind) {
    against_a_busy_pool(kind, Guards::default()).await;
}

async fn the_order_of_payload_and_record_is_enough_without_the_checksum(kind: TransportKind) {
    against_a_busy_pool(kind, Guards::without(Guard::Crc)).await;
}

/// The owner evicts and rewrites as fast as it can; descriptors go stale on their way.
async fn against_a_busy_pool(kind: TransportKind, guards: Guards) {
    let mut place = Place::new(kind);
    let store = Store::new(1, SLOT_BYTES);
    let owner = Arc::new(Owner::start(&mut place, store, 1, guards).await);
    let puller = Puller::new(&place, guards);
    let announced = Arc::new(Mutex::new(owner.publish(1, 100_000)));
    let stop = Arc::new(AtomicBool::new(false));
    let churn = {
        let (owner, announced) = (Arc::clone(&owner), Arc::clone(&announced));
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || {
            let mut tag = 1;
            while !stop.load(Ordering::Relaxed) {
                tag += 1;
                let before = *announced.lock().unwrap();
                owner.release(&before);
                // While a sender still pins the block, its slot is not handed out.
                while owner.store.counts().pinned > 0 {
                    std::thread::yield_now();
                }
                *announced.lock().unwrap() = owner.publish(tag, 100_000);
            }
        })
    };
    let (mut arrived, mut refused) = (0, 0);
    for _ in 0..3000 {
        let block = *announced.lock().unwrap();
        match puller.pull_one(&owner.peer, &block).await {
            // `pull_one` compared every byte.
            Ok(()) => arrived += 1,
            Err(TransferError::Refused(_) | TransferError::Mismatch(_)) => refused += 1,
            Err(error) => panic!("{error}"),
        }
        if arrived >= 30 && refused >= 30 {
            break;
        }
    }
    stop.store(true, Ordering::Relaxed);
    churn.join().unwrap();
    assert!(refused > 0, "{arrived} arrived, {refused} refused");
    let last = *announced.lock().unwrap();
    assert_eq!(puller.pull_one(&owner.peer, &last).await, Ok(()));
    puller.finish().await;
    owner.stop().await;
    assert_eq!(owner.store.counts().quarantined, 0);
}

/// A reader that takes its time keeps the block, even when its lease has ended meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_that_is_being_sent_is_not_reused() {
    const BYTES: usize = 24 << 20;
    let mut place = Place::new(TransportKind::Tcp);
    let owner = Owner::start(&mut place, Store::new(2, BYTES), 1, Guards::default()).await;
    let block = owner.publish(1, BYTES);
    let bytes = TaskTracker::new().spawn_blocking(move || {
        let mut socket = std::net::TcpStream::connect(place.tcp).unwrap();
        let peer = Identity { worker: OWNER, incarnation: Incarnation(1) };
        let hello = Hello { peer, slot_bytes: BYTES as u64, token: token() };
        socket.write_all(&hello.to_bytes()).unwrap();
        socket.read_exact(&mut [0; Welcome::BYTES]).unwrap();
        socket.write_all(&Fetch::alone(0, block, Span::whole(&block)).to_bytes()).unwrap();
        let mut head = [0; BlockHead::BYTES];
        socket.read_exact(&mut head).unwrap();
        // More than the sockets hold, so the owner is in the middle of it.
        owner.release(&block);
        assert_eq!(owner.store.counts().pinned, 1);
        for tag in 2..6 {
            let other = owner.publish(tag, BYTES);
            assert_ne!(other.slot, block.slot);
            owner.release(&other);
        }
        let mut bytes = vec![0; BYTES];
        socket.read_exact(&mut bytes).unwrap();
        socket.read_exact(&mut [0; 64]).unwrap();
        (bytes, owner)
    });
    let (bytes, owner) = bytes.await.unwrap();
    assert!(bytes == content(1, BYTES));
    owner.stop().await;
    assert_eq!(owner.store.counts().pinned, 0);
}
