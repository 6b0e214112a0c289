//! What is not open stays closed, whoever asks and however.

use super::*;

/// How a READ of a place ends, and that it brought nothing.
async fn read(a: &mut Side, x: &mut QueuePair<Ready>, from: Remote) -> Status {
    a.arena.write(0).fill(0);
    let into = a.region.map().slots(0, 0, 64).unwrap();
    let end = a.carry_out(x, Work::Read { into, from, fenced: false }).await;
    assert_eq!(end == Status::Done, a.arena.read(0)[..64] != [0; 64], "{end}");
    end
}

/// Has every case start with fresh queue pairs, because a refusal ends them.
async fn refused<F>(device: &Device, what: &str, case: F)
where
    F: AsyncFnOnce(&mut Side, &mut QueuePair<Ready>, &mut Side, &mut QueuePair<Ready>) -> Status,
{
    let (mut a, mut x, mut b, mut y) = connected(device);
    (0..SLOTS).for_each(|slot| b.fill(slot, 0xff));
    let end = case(&mut a, &mut x, &mut b, &mut y).await;
    assert_eq!(end, Status::RemoteAccess, "{what}");
    // Nothing more comes through.
    let key = RemoteKey::from_wire(1);
    let from = Remote { address: 0, key };
    assert_eq!(read(&mut a, &mut x, from).await, Status::Flushed, "after {what}");
}

#[test]
fn a_closed_window_is_closed() {
    with_device("a_closed_window_is_closed", |device| async move {
        refused(&device, "an invalidated window", async |a, x, b, y| {
            let mut window = MemoryWindow::alloc(&b.pd).unwrap();
            let from = b.open(y, &mut window, b.slot(3), Rights::READ).await;
            assert_eq!(read(a, x, from).await, Status::Done);
            let close = Work::Invalidate { key: from.key };
            assert_eq!(b.carry_out(y, close).await, Status::Done);
            read(a, x, from).await
        })
        .await;
        refused(&device, "a window that is gone", async |a, x, b, y| {
            let mut window = MemoryWindow::alloc(&b.pd).unwrap();
            let from = b.open(y, &mut window, b.slot(3), Rights::READ).await;
            assert_eq!(read(a, x, from).await, Status::Done);
            drop(window);
            read(a, x, from).await
        })
        .await;
        refused(&device, "the key of an earlier bind", async |a, x, b, y| {
            let mut window = MemoryWindow::alloc(&b.pd).unwrap();
            let old = b.open(y, &mut window, b.slot(3), Rights::READ).await;
            let close = Work::Invalidate { key: old.key };
            assert_eq!(b.carry_out(y, close).await, Status::Done);
            let new = b.open(y, &mut window, b.slot(3), Rights::READ).await;
            assert_eq!(read(a, x, new).await, Status::Done);
            read(a, x, old).await
        })
        .await;
    });
}

#[test]
fn a_window_is_open_to_its_peer_for_its_purpose_only() {
    let test = "a_window_is_open_to_its_peer_for_its_purpose_only";
    with_device(test, |device| async move {
        refused(&device, "a key that was guessed", async |a, x, b, y| {
            let mut window = MemoryWindow::alloc(&b.pd).unwrap();
            let from = b.open(y, &mut window, b.slot(3), Rights::READ).await;
            let key = RemoteKey::from_wire(from.key.to_wire() ^ 1);
            read(a, x, Remote { key, ..from }).await
        })
        .await;
        refused(&device, "a window of another queue pair", async |a, x, b, _| {
            let (_third, mut other) = connect(&device, a, b);
            let mut window = MemoryWindow::alloc(&b.pd).unwrap();
            let from = b.open(&mut other, &mut window, b.slot(3), Rights::READ).await;
            read(a, x, from).await
        })
        .await;
        refused(&device, "writing what is open for reading", async |a, x, b, y| {
            let mut window = MemoryWindow::alloc(&b.pd).unwrap();
            let into = b.open(y, &mut window, b.slot(3), Rights::READ).await;
            let end = a.carry_out(x, Work::Write { from: a.slot(1), into }).await;
            assert!(b.holds(3, 0xff), "nothing was written");
            end
        })
        .await;
        refused(&device, "reading what is open for writing", async |a, x, b, y| {
            let mut window = MemoryWindow::alloc(&b.pd).unwrap();
            let from = b.open(y, &mut window, b.slot(3), Rights::WRITE).await;
            read(a, x, from).await
        })
        .await;
    });
}

#[test]
fn a_window_ends_where_its_stretch_ends() {
    with_device("a_window_ends_where_its_stretch_ends", |device| async move {
        if device.name().starts_with("rxe") {
            eprintln!("SKIPPED: soft-RoCE holds a window to the bounds of its region only");
            return;
        }
        refused(&device, "the neighbouring slot", async |a, x, b, y| {
            let mut window = MemoryWindow::alloc(&b.pd).unwrap();
            let from = b.open(y, &mut window, b.slot(3), Rights::READ).await;
            assert_eq!(read(a, x, from).await, Status::Done);
            read(a, x, Remote { address: b.slot(4).address(), ..from }).await
        })
        .await;
        refused(&device, "one byte too far", async |a, x, b, y| {
            let mut window = MemoryWindow::alloc(&b.pd).unwrap();
            let from = b.open(y, &mut window, b.slot(3), Rights::READ).await;
            let address = from.address + SLOT_BYTES as u64 - 63;
            read(a, x, Remote { address, ..from }).await
        })
        .await;
    });
}

#[test]
fn the_arena_itself_is_open_to_nobody() {
    with_device("the_arena_itself_is_open_to_nobody", |device| async move {
        refused(&device, "the key of the arena's own registration", async |a, x, b, _| {
            // As large as it is, one that a peer could learn by trying.
            let key = RemoteKey::from_wire(b.slot(0).key);
            read(a, x, Remote { address: b.slot(0).address(), key }).await
        })
        .await;
        refused(&device, "what lies beside a registration of its own", async |a, x, b, _| {
            let open = RemoteRegion::of_arena(&b.pd, &b.arena, b.slot(3), Rights::READ).unwrap();
            let from = Remote { address: b.slot(3).address(), key: open.key() };
            assert_eq!(read(a, x, from).await, Status::Done);
            read(a, x, Remote { address: from.address + SLOT_BYTES as u64 - 63, ..from }).await
        })
        .await;
        refused(&device, "a registration in another domain", async |a, x, b, _| {
            let pd = ProtectionDomain::new(&device).unwrap();
            let open = RemoteRegion::of_arena(&pd, &b.arena, b.slot(3), Rights::READ).unwrap();
            let from = Remote { address: b.slot(3).address(), key: open.key() };
            read(a, x, from).await
        })
        .await;
    });
}

#[test]
fn a_queue_pair_without_rights_serves_nothing() {
    with_device("a_queue_pair_without_rights_serves_nothing", |device| async move {
        let (mut a, b) = (Side::new(&device), Side::new(&device));
        let options = PairOptions { sends: DEPTH, receives: 1, rights: Rights::NONE };
        let x = QueuePair::new(&a.pd, &a.completions, options).unwrap();
        let y = QueuePair::new(&b.pd, &b.completions, options).unwrap();
        let (to_y, to_x) = (end(&device, y.number(), y.psn()), end(&device, x.number(), x.psn()));
        let (mut x, _y) =
            (x.connect(&device.port(), &to_y).unwrap(), y.connect(&device.port(), &to_x).unwrap());
        let open = RemoteRegion::of_arena(&b.pd, &b.arena, b.slot(3), Rights::READ).unwrap();
        let from = Remote { address: b.slot(3).address(), key: open.key() };
        let end = read(&mut a, &mut x, from).await;
        assert!(matches!(end, Status::RemoteAccess | Status::RemoteRefused), "{end}");
    });
}

#[test]
fn stretches_beyond_a_memory_are_not_named_and_not_registered() {
    let test = "stretches_beyond_a_memory_are_not_named_and_not_registered";
    with_device(test, |device| async move {
        let side = Side::new(&device);
        let map = side.region.map();
        assert!(map.slots(SLOTS - 1, 0, SLOT_BYTES as u64).is_some());
        assert!(map.slots(SLOTS - 1, 1, SLOT_BYTES as u64).is_none());
        assert!(map.slots(SLOTS, 0, 1).is_none());
        assert!(map.slots(0, 0, 0).is_none());
        assert!(map.slots(0, u64::MAX, 1).is_none());
        assert!(map.records(0, SLOTS).is_some());
        assert!(map.records(1, SLOTS).is_none());
        let scratch = Scratch::new(&side.pd, 4096, false).unwrap();
        assert!(scratch.at(4096, 1).is_none() && scratch.at(0, 0).is_none());
        assert!(scratch.at(u64::MAX, 1).is_none());
        let beyond = Local { address: 4090, bytes: 10, key: 0 };
        let error = RemoteRegion::of_scratch(&side.pd, &scratch, beyond, Rights::READ).err();
        assert!(matches!(error, Some(DeviceError::OutOfRange { .. })), "{error:?}");
    });
}
