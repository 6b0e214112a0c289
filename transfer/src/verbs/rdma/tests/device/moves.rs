//! What is asked for happens.

use super::*;

#[test]
fn bytes_are_read_and_written_through_windows() {
    with_device("bytes_are_read_and_written_through_windows", |device| async move {
        let (mut a, mut x, mut b, mut y) = connected(&device);
        b.fill(3, 0x5a);
        let mut window = MemoryWindow::alloc(&b.pd).unwrap();
        let from = b.open(&mut y, &mut window, b.slot(3), Rights::READ).await;
        let into = a.slot(5);
        let read = a.carry_out(&mut x, Work::Read { into, from, fenced: true }).await;
        assert_eq!(read, Status::Done);
        assert!(a.holds(5, 0x5a), "the bytes came to slot 5");

        a.fill(6, 0xc3);
        let mut window = MemoryWindow::alloc(&b.pd).unwrap();
        let into = b.open(&mut y, &mut window, b.slot(7), Rights::WRITE).await;
        let from = a.slot(6);
        assert_eq!(a.carry_out(&mut x, Work::Write { from, into }).await, Status::Done);
        assert!(b.holds(7, 0xc3), "the bytes came to slot 7");

        y.post_receives(1).unwrap();
        a.fill(6, 0x11);
        let write = Work::WriteImmediate { from, into, immediate: 0x0102_0304 };
        assert_eq!(a.carry_out(&mut x, write).await, Status::Done);
        let received = b.one().await;
        assert_eq!((received.status, received.work), (Status::Done, RECEIVE));
        assert_eq!(received.immediate, Some(0x0102_0304));
        assert_eq!(received.bytes as usize, SLOT_BYTES);
        assert!(b.holds(7, 0x11), "the bytes came before the immediate");
    });
}

#[test]
fn a_chain_is_one_doorbell_and_one_completion() {
    with_device("a_chain_is_one_doorbell_and_one_completion", |device| async move {
        let (mut a, mut x, mut b, mut y) = connected(&device);
        for slot in 0..8 {
            b.fill(slot, slot as u8);
            b.arena.set_record(slot, &[slot as u8; 64]);
        }
        let run = b.region.map().slots(0, 0, 8 * SLOT_BYTES as u64).unwrap();
        let mut payload = MemoryWindow::alloc(&b.pd).unwrap();
        let payload = b.open(&mut y, &mut payload, run, Rights::READ).await;
        let records = b.region.map().records(0, SLOTS).unwrap();
        let mut window = MemoryWindow::alloc(&b.pd).unwrap();
        let records = b.open(&mut y, &mut window, records, Rights::READ).await;
        let scratch = Scratch::new(&a.pd, 4096, false).unwrap();

        let before = a.chain.posted();
        a.chain.clear();
        for slot in 0..8u32 {
            let address = payload.address + u64::from(slot) * SLOT_BYTES as u64;
            let from = Remote { address, key: payload.key };
            let into = a.slot(7 - slot);
            assert!(a.chain.push(u64::from(slot), Work::Read { into, from, fenced: false }));
        }
        let into = scratch.at(64, 8 * 64).unwrap();
        assert!(a.chain.push(99, Work::Read { into, from: records, fenced: true }));
        x.post(&mut a.chain).unwrap();
        let end = a.one().await;
        assert_eq!((end.work, end.status), (99, Status::Done));
        let after = a.chain.posted();
        let counted = (after.requests - before.requests, after.doorbells - before.doorbells);
        assert_eq!(counted, (9, 1));
        for slot in 0..8 {
            assert!(a.holds(7 - slot, slot as u8), "slot {slot} arrived");
            let mut record = [0; 64];
            scratch.copy_out(64 + slot as usize * 64, &mut record);
            assert_eq!(record, [slot as u8; 64]);
        }
        scratch.clear(64, 64);
        let mut record = [1; 64];
        scratch.copy_out(64, &mut record);
        assert_eq!(record, [0; 64]);
    });
}

#[test]
fn every_nth_request_is_signalled() {
    with_device("every_nth_request_is_signalled", |device| async move {
        let (mut a, mut x, mut b, mut y) = connected(&device);
        let mut window = MemoryWindow::alloc(&b.pd).unwrap();
        let from = b.open(&mut y, &mut window, b.slot(0), Rights::READ).await;
        let mut chain = Chain::signalling(8, 3);
        for id in 0..8 {
            assert!(chain.push(id, Work::Read { into: a.slot(0), from, fenced: false }));
        }
        assert!(!chain.push(8, Work::Invalidate { key: from.key }), "there is no room");
        x.post(&mut chain).unwrap();
        let ends: Vec<u64> = a.completions(3).await.iter().map(|end| end.work).collect();
        assert_eq!(ends, [2, 5, 7]);
    });
}

#[test]
fn a_peer_writes_into_scratch_memory() {
    with_device("a_peer_writes_into_scratch_memory", |device| async move {
        let (mut a, mut x, mut b, mut y) = connected(&device);
        let scratch = Scratch::new(&b.pd, 8192, true).unwrap();
        assert_eq!(scratch.bytes(), 8192);
        let stretch = scratch.at(4096, 128).unwrap();
        let mut window = MemoryWindow::alloc(&b.pd).unwrap();
        let region = &scratch.bindable();
        let bind = Work::Bind { window: &mut window, region, stretch, rights: Rights::WRITE };
        assert_eq!(b.carry_out(&mut y, bind).await, Status::Done);
        a.fill(1, 9);
        let from = a.region.map().slots(1, 0, 128).unwrap();
        let into = Remote { address: stretch.address(), key: window.key() };
        assert_eq!(a.carry_out(&mut x, Work::Write { from, into }).await, Status::Done);
        let mut bytes = [0; 128];
        scratch.copy_out(4096, &mut bytes);
        assert_eq!(bytes, a.arena.read(1)[..128]);
    });
}

#[test]
fn without_windows_a_registration_of_its_own_opens_a_stretch() {
    let test = "without_windows_a_registration_of_its_own_opens_a_stretch";
    with_device(test, |device| async move {
        let (mut a, mut x, b, _y) = connected(&device);
        b.fill(4, 0x77);
        let open = RemoteRegion::of_arena(&b.pd, &b.arena, b.slot(4), Rights::READ).unwrap();
        let from = Remote { address: b.slot(4).address(), key: open.key() };
        let read = Work::Read { into: a.slot(2), from, fenced: false };
        assert_eq!(a.carry_out(&mut x, read).await, Status::Done);
        assert!(a.holds(2, 0x77));
        drop(open);
        let read = Work::Read { into: a.slot(3), from, fenced: false };
        assert_eq!(a.carry_out(&mut x, read).await, Status::RemoteAccess);
        assert!(!a.holds(3, 0x77));

        let (mut a, mut x, b, _y) = connected(&device);
        let scratch = Scratch::new(&b.pd, 4096, false).unwrap();
        let stretch = scratch.at(64, 64).unwrap();
        let open = RemoteRegion::of_scratch(&b.pd, &scratch, stretch, Rights::WRITE).unwrap();
        a.fill(0, 1);
        let from = a.region.map().slots(0, 0, 64).unwrap();
        let into = Remote { address: stretch.address(), key: open.key() };
        assert_eq!(a.carry_out(&mut x, Work::Write { from, into }).await, Status::Done);
        let mut bytes = [0; 64];
        scratch.copy_out(64, &mut bytes);
        assert_eq!(bytes, a.arena.read(0)[..64]);
    });
}

#[test]
fn a_window_can_be_bound_again_under_another_key() {
    with_device("a_window_can_be_bound_again_under_another_key", |device| async move {
        let (mut a, mut x, mut b, mut y) = connected(&device);
        let mut window = MemoryWindow::alloc(&b.pd).unwrap();
        let mut keys = vec![window.key()];
        for slot in 0..4 {
            b.fill(slot, slot as u8);
            let from = b.open(&mut y, &mut window, b.slot(slot), Rights::READ).await;
            assert!(!keys[keys.len() - 1..].contains(&from.key), "the key changes");
            keys.push(from.key);
            let read = Work::Read { into: a.slot(slot), from, fenced: false };
            assert_eq!(a.carry_out(&mut x, read).await, Status::Done);
            assert!(a.holds(slot, slot as u8));
            let close = Work::Invalidate { key: from.key };
            assert_eq!(b.carry_out(&mut y, close).await, Status::Done);
        }
    });
}
