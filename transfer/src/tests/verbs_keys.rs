//! What an owner's keys open, for whom and how long: a caller without manners reads over verbs what
//! it was never, or is no longer, meant to see.

use super::fabric::{self, Calls};
use super::*;
use crate::guards::Guard;
use crate::verbs::raw::{Raw, Status};
use baton_arena::RECORD_BYTES;
use baton_proto::internal::{Part, Window};

/// Refused by the owner's device.
const REFUSED: Status = Status::RemoteAccess;

/// An owner, and callers that connect to it one after the other.
struct Scene {
    place: Place,
    owner: Owner,
    callers: u32,
}

impl Scene {
    async fn new(slots: u32, guards: Guards) -> Self {
        let mut place = Place::new(TransportKind::Verbs);
        let owner = Owner::start(&mut place, Store::new(slots, SLOT_BYTES), 1, guards).await;
        Self { place, owner, callers: 0 }
    }

    /// A caller, for one refusal: that ends its queue pair.
    async fn caller(&mut self) -> Raw {
        self.callers += 1;
        let calls = Calls { exchange: Arc::clone(&self.place.verbs), token: token() };
        let arena = Store::new(1, SLOT_BYTES).arena;
        let worker = WorkerId(5000 + self.callers);
        Raw::pair(Arc::new(calls), &self.owner.peer, worker, arena, &fabric::options()).await
    }

    async fn unpinned(&self) {
        let unpinned = async {
            while self.owner.store.counts().pinned > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SOON, unpinned).await.expect("the grant ends");
    }

    /// Has the only slot hold something else, which is nobody's business.
    fn reuse(&self, block: &BlockDescriptor) -> Vec<u8> {
        let other = self.owner.publish(99, SLOT_BYTES);
        assert_eq!(other.slot, block.slot);
        content(99, SLOT_BYTES)
    }
}

/// Runs a case where there is a device.
fn on_device(case: impl Future<Output = ()>) {
    wires::run(TransportKind::Verbs, case);
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Close,
    Time,
    Connection,
}

/// How a READ ends that comes when a grant is over and its slot holds another block.
async fn late_read(end: End, guards: Guards) -> Result<Vec<u8>, Status> {
    let mut scene = Scene::new(1, guards).await;
    let block = scene.owner.publish(1, SLOT_BYTES);
    let lease_remaining_ms = if end == End::Time { 300 } else { block.lease_remaining_ms };
    let mut caller = scene.caller().await;
    let reply = caller.open(&[BlockDescriptor { lease_remaining_ms, ..block }]).await;
    let window = reply.windows[0];
    assert_eq!(caller.read(&window, 0, SLOT_BYTES).await, Ok(content(1, SLOT_BYTES)));
    // The grant outlives the lease.
    scene.owner.release(&block);
    assert_eq!(scene.owner.store.counts().pinned, 1);
    match end {
        End::Close => caller.close(reply.grant).await,
        End::Connection => caller.close(0).await,
        End::Time => {}
    }
    scene.unpinned().await;
    let secret = scene.reuse(&block);
    let late = caller.read(&window, 0, SLOT_BYTES).await;
    if let Ok(bytes) = &late {
        assert!(*bytes == secret, "only what lies there by now");
    }
    scene.owner.stop().await;
    late
}

#[test]
fn a_key_opens_nothing_once_its_grant_is_over() {
    on_device(async {
        for end in [End::Close, End::Time] {
            assert_eq!(late_read(end, Guards::default()).await, Err(REFUSED), "{end:?}");
        }
        // Nobody is there any more to refuse it.
        let gone = late_read(End::Connection, Guards::default()).await;
        assert!(matches!(gone, Err(REFUSED | Status::RetriesExceeded)), "{gone:?}");
    });
}

#[test]
fn without_revocation_a_key_opens_what_came_after() {
    on_device(async {
        for end in [End::Close, End::Time] {
            let late = late_read(end, Guards::without(Guard::Revocation)).await;
            assert!(late.is_ok(), "{end:?}: the guard is what stops it, {late:?}");
        }
    });
}

#[test]
fn keys_beside_a_live_one_open_nothing() {
    on_device(async {
        let mut scene = Scene::new(2, Guards::default()).await;
        let block = scene.owner.publish(1, SLOT_BYTES);
        for step in [1, u32::MAX, 256, 256_u32.wrapping_neg()] {
            let mut caller = scene.caller().await;
            let window = caller.open(&[block]).await.windows[0];
            let beside = Window { rkey: window.rkey.wrapping_add(step), ..window };
            assert_eq!(caller.read(&beside, 0, 64).await, Err(REFUSED), "{step:#x}");
        }
        scene.owner.stop().await;
    });
}

/// Where the device holds a window to its bounds. Soft-RoCE does so for registrations only.
#[test]
fn what_lies_beside_a_granted_slot_is_closed() {
    on_device(async {
        let options = fabric::options();
        let soft = options.device.device.as_ref().is_some_and(|name| name.starts_with("rxe"));
        let mut scene = Scene::new(3, Guards::default()).await;
        let blocks: Vec<_> = (1..=3).map(|tag| scene.owner.publish(tag, SLOT_BYTES)).collect();
        for offset in [SLOT_BYTES as u64, 0_u64.wrapping_sub(64), SLOT_BYTES as u64 - 63] {
            let mut caller = scene.caller().await;
            let window = caller.open(&blocks[1..2]).await.windows[0];
            assert!(caller.read(&window, 0, SLOT_BYTES).await.is_ok());
            let from = window.address.wrapping_add(offset);
            let beside = caller.read(&Window { address: from, ..window }, 0, 64).await;
            if soft && !options.registrations_only {
                let bounds = if beside.is_ok() { "not held" } else { "held" };
                println!("soft-RoCE, {offset:#x} from the window's start: {bounds} to its bounds");
                continue;
            }
            assert_eq!(beside, Err(REFUSED), "{offset:#x}");
        }
        scene.owner.stop().await;
    });
}

/// Bytes of a block that does not fill its slot.
const SHORT: usize = SLOT_BYTES - 5000;

/// A slot that once held a long block and holds a short one now: what is left of the long one is
/// nobody's business, and neither is what of a block was not asked for.
#[test]
fn what_a_grant_does_not_name_of_a_slot_is_closed() {
    on_device(async {
        let options = fabric::options();
        let soft = options.device.device.as_ref().is_some_and(|name| name.starts_with("rxe"));
        let mut scene = Scene::new(3, Guards::default()).await;
        let lens = [SLOT_BYTES, SHORT, SLOT_BYTES];
        let blocks: Vec<_> =
            (1..).zip(lens).map(|(tag, len)| scene.owner.publish(tag, len)).collect();
        let slots: Vec<u32> = blocks.iter().map(|block| block.slot.0).collect();
        assert_eq!(slots, [0, 1, 2], "neighbours");
        let part = Part { block: 0, offset: 100, bytes: 1000 };
        let whole = |reads: &[(u64, bool)]| (Vec::new(), reads.to_vec());
        let cases = [
            (1, whole(&[(0, true), (SHORT as u64 - 64, true), (SHORT as u64 - 63, false)])),
            (0, (vec![part], vec![(100, true), (1036, true), (99, false), (1037, false)])),
        ];
        for (block, (parts, reads)) in cases {
            for (offset, open) in reads {
                let mut caller = scene.caller().await;
                let reply = caller.open_parts(&blocks[block..=block], parts.clone()).await;
                let [window] = reply.windows[..] else { panic!("{:?}", reply.windows) };
                let reach =
                    parts.first().map_or(SHORT as u64, |part| u64::from(part.offset + part.bytes));
                assert_eq!((window.bytes, window.slots), (reach, 1));
                let read = caller.read(&window, offset, 64).await;
                if open {
                    let right = &content(block as u64 + 1, lens[block])[offset as usize..];
                    assert_eq!(read.as_deref(), Ok(&right[..64]));
                } else if !soft || options.registrations_only {
                    assert_eq!(read, Err(REFUSED), "{offset} of block {block}");
                }
            }
        }
        // All three in one grant: the window of the first two ends with the second.
        let caller = scene.caller().await;
        let windows = caller.open(&blocks).await.windows;
        let ends: u64 = windows.iter().map(|window| window.bytes).sum();
        let stride = scene.owner.store.arena.layout().stride;
        let joined = stride + SHORT as u64 + SLOT_BYTES as u64;
        let cut = (SLOT_BYTES + SHORT + SLOT_BYTES) as u64;
        assert!(ends == joined || ends == cut, "{windows:?}");
        drop(caller);
        scene.owner.stop().await;
    });
}

#[test]
fn a_grant_lasts_no_longer_than_the_first_of_its_leases() {
    on_device(async {
        let mut scene = Scene::new(2, Guards::default()).await;
        let blocks = [1, 2].map(|tag| scene.owner.publish(tag, SLOT_BYTES));
        let caller = scene.caller().await;
        let short = BlockDescriptor { lease_remaining_ms: 300, ..blocks[0] };
        assert!(caller.open(&[blocks[1], short]).await.remaining_ms <= 300);
        // Whatever the caller says: the pool knows better.
        let before = scene.owner.now();
        scene.owner.advance(Duration::from_millis(59_800));
        let remaining = caller.open(&blocks).await.remaining_ms;
        assert!((150..200).contains(&remaining), "{remaining} ms since {before:?}");
        scene.owner.stop().await;
    });
}

/// Whoever ends a grant relies on its end, also if somebody else is about to end it already.
#[test]
fn a_close_returns_when_no_key_works_any_more() {
    on_device(async {
        let mut scene = Scene::new(1, Guards::default()).await;
        for dying in [false, true] {
            for tag in 1..10 {
                let block = scene.owner.publish(tag, SLOT_BYTES);
                let caller = scene.caller().await;
                let grant = caller.open(&[block]).await.grant;
                scene.owner.release(&block);
                let first = async {
                    if dying {
                        scene.place.verbs.fail_owner();
                    } else {
                        caller.close(grant).await;
                    }
                };
                let second = async {
                    caller.close(grant).await;
                    assert_eq!(scene.owner.store.counts().pinned, 0, "dying: {dying}");
                };
                futures_util::future::join(first, second).await;
                caller.close(0).await;
            }
        }
        scene.owner.stop().await;
    });
}

/// What a slow reader gets of a block whose lease ends in the middle, and what it thinks of it.
async fn slow_read(guards: Guards) -> (bool, Result<(), Mismatch>) {
    let mut scene = Scene::new(2, guards).await;
    let block = scene.owner.publish(1, SLOT_BYTES);
    let mut caller = scene.caller().await;
    let reply = caller.open(&[block]).await;
    let window = reply.windows[0];
    let half = SLOT_BYTES / 2;
    let mut bytes = caller.read(&window, 0, half).await.unwrap();
    scene.owner.release(&block);
    let mut reused = false;
    for tag in 2..6 {
        let other = scene.owner.publish(tag, SLOT_BYTES);
        reused |= other.slot == block.slot;
        scene.owner.release(&other);
    }
    bytes.extend(caller.read(&window, half as u64, half).await.unwrap());
    let records = caller.records[window.queue_pair as usize];
    let at = u64::from(block.slot.0) * RECORD_BYTES as u64;
    let record = caller.read(&records, at, RECORD_BYTES).await.unwrap().try_into().unwrap();
    let verified = verify(&block, &bytes, &record);
    assert_eq!(verified.is_ok(), bytes == content(1, SLOT_BYTES));
    caller.close(reply.grant).await;
    scene.unpinned().await;
    scene.owner.stop().await;
    (reused, verified)
}

#[test]
fn a_granted_block_is_not_reused_under_a_slow_reader() {
    on_device(async {
        assert_eq!(slow_read(Guards::default()).await, (false, Ok(())));
    });
}

#[test]
fn without_its_pin_a_granted_block_is_reused_and_the_record_says_so() {
    on_device(async {
        let (reused, verified) = slow_read(Guards::without(Guard::Pin)).await;
        assert!(reused, "the pin is what keeps the slot");
        assert!(verified.is_err());
    });
}
