//! What goes wrong is told, and ends.

use super::*;
use std::process::Command;

fn choice(device: &str) -> DeviceChoice {
    DeviceChoice { device: Some(device.to_owned()), ..DeviceChoice::default() }
}

#[test]
fn a_choice_that_cannot_be_met_says_what_there_is() {
    with_device("a_choice_that_cannot_be_met_says_what_there_is", |device| async move {
        let name = device.name();
        assert_eq!(Device::open(&DeviceChoice::default()).unwrap().port(), device.port());
        let error = Device::open(&choice("nothing7")).unwrap_err();
        let DeviceError::NoSuchDevice { found, .. } = &error else { panic!("{error}") };
        assert!(found.iter().any(|found| found == name), "{error}");

        let error = Device::open(&DeviceChoice { port: Some(9), ..choice(name) }).unwrap_err();
        assert!(matches!(error, DeviceError::NoSuchPort { port: 9, .. }), "{error}");
        let error = Device::open(&DeviceChoice { port: Some(0), ..choice(name) }).unwrap_err();
        assert!(matches!(error, DeviceError::NoSuchPort { port: 0, .. }), "{error}");

        let error = Device::open(&DeviceChoice { gid_index: Some(200), ..choice(name) });
        let Err(DeviceError::Gid { problem: GidProblem::Empty { index: 200, found }, .. }) = error
        else {
            panic!("{error:?}")
        };
        assert!(found.contains(&u32::from(device.port().gid_index)));
        let index = device.port().gid_index;
        let chosen = DeviceChoice { gid_index: Some(index), port: Some(1), ..choice(name) };
        assert_eq!(Device::open(&chosen).unwrap().port(), device.port());
    });
}

#[test]
fn more_than_the_device_has_is_refused_by_name() {
    with_device("more_than_the_device_has_is_refused_by_name", |device| async move {
        let side = Side::new(&device);
        let sends = device.limits().send_requests + 1;
        let options = PairOptions { sends, receives: 1, rights: Rights::READ };
        let error = QueuePair::new(&side.pd, &side.completions, options).unwrap_err();
        assert!(matches!(error, DeviceError::Limit { what: "send requests", .. }), "{error}");
        let error = CompletionQueue::new(&device, device.limits().completions + 1).unwrap_err();
        assert!(matches!(error, DeviceError::Limit { .. }), "{error}");
    });
}

#[test]
fn ends_that_cannot_be_are_refused() {
    with_device("ends_that_cannot_be_are_refused", |device| async move {
        let side = Side::new(&device);
        let good = end(&device, 17, 5);
        let bad = [
            RemoteEnd { gid: crate::verbs::Gid([0; 16]), ..good },
            RemoteEnd { mtu: 0, ..good },
            RemoteEnd { mtu: 6, ..good },
            RemoteEnd { number: 1 << 24, ..good },
            RemoteEnd { psn: 1 << 24, ..good },
        ];
        for bad in bad {
            let options = PairOptions { sends: 1, receives: 1, rights: Rights::READ };
            let pair = QueuePair::new(&side.pd, &side.completions, options).unwrap();
            let error = pair.connect(&device.port(), &bad).unwrap_err();
            assert!(matches!(error, DeviceError::RemoteEnd { .. }), "{error}");
        }
    });
}

#[test]
fn a_registration_beyond_the_limit_names_the_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    alone("a_registration_beyond_the_limit_names_the_limit", async |name| {
        let device = open(&name);
        let pd = ProtectionDomain::new(&device).unwrap();
        let options = ArenaOptions { slots: SLOTS, slot_bytes: SLOT_BYTES, name: "verbs-test" };
        let arena = Arena::create(options).unwrap();
        // Whoever may lock memory without bound is not held to the limit; this thread may not.
        let (before, limit) = (capabilities(None).unwrap(), getrlimit(Resource::Memlock));
        let mut without = before;
        without.effective.remove(CapabilitySet::IPC_LOCK);
        set_capabilities(None, without).unwrap();
        setrlimit(Resource::Memlock, Rlimit { current: Some(64 << 10), ..limit }).unwrap();
        let refused = ArenaRegion::register(&pd, &arena, true);
        setrlimit(Resource::Memlock, limit).unwrap();
        set_capabilities(None, before).unwrap();
        let error = refused.err().unwrap();
        let DeviceError::LockedMemory { wanted, limit: 65_536 } = error else { panic!("{error}") };
        assert_eq!(wanted, arena.layout().total);
        assert!(error.to_string().contains("LimitMEMLOCK=infinity"), "{error}");
        assert!(ArenaRegion::register(&pd, &arena, true).is_ok(), "with the limit as it was");
    });
}

#[test]
fn a_failed_queue_pair_gives_back_all_that_was_outstanding() {
    let test = "a_failed_queue_pair_gives_back_all_that_was_outstanding";
    with_device(test, |device| async move {
        for round in 0..8 {
            let (mut a, mut x, mut b, mut y) = connected(&device);
            (0..SLOTS).for_each(|slot| b.fill(slot, 0xff));
            let run = b.region.map().slots(0, 0, SLOT_BYTES as u64 * u64::from(SLOTS)).unwrap();
            let mut window = MemoryWindow::alloc(&b.pd).unwrap();
            let from = b.open(&mut y, &mut window, run, Rights::READ).await;
            let mut posted = Vec::new();
            for chain in 0..3u64 {
                a.chain.clear();
                for slot in 0..SLOTS {
                    let id = chain * 16 + u64::from(slot);
                    let into = a.slot(slot);
                    assert!(a.chain.push(id, Work::Read { into, from, fenced: false }));
                    posted.push(id);
                }
                x.post(&mut a.chain).unwrap();
            }
            // Somewhere in the middle.
            for _ in 0..round {
                tokio::task::yield_now().await;
            }
            let number = x.number();
            let mut failed = x.fail().unwrap();
            failed.mark(1000).unwrap();
            let mut seen = Vec::new();
            while !seen.iter().any(|end: &Completion| end.work == 1000) {
                seen.extend(a.completions(1).await);
            }
            assert_eq!(seen.last().unwrap().work, 1000, "the marker comes last");
            assert!(seen.iter().all(|end| end.queue_pair == number));
            assert!(seen.iter().any(|end| end.status == Status::Flushed));
            // Whatever was not carried out says so, in order; the rest was done before.
            let flushed: Vec<u64> = seen
                .iter()
                .filter(|end| end.status == Status::Flushed && end.work != 1000)
                .map(|end| end.work)
                .collect();
            assert_eq!(flushed[..], posted[posted.len() - flushed.len()..]);

            // Nothing is written from here on, while others are.
            for slot in 0..SLOTS {
                a.arena.write(slot).fill(0xca);
            }
            let (mut x, _y) = connect(&device, &a, &b);
            let open = RemoteRegion::of_arena(&b.pd, &b.arena, run, Rights::READ).unwrap();
            let from = Remote { address: run.address(), key: open.key() };
            let read = Work::Read { into: a.slot(0), from, fenced: false };
            assert_eq!(a.carry_out(&mut x, read).await, Status::Done);
            for slot in 1..SLOTS {
                assert!(a.arena.read(slot).iter().all(|&byte| byte == 0xca), "slot {slot}");
            }
        }
    });
}

#[test]
fn receives_of_a_failed_queue_pair_come_back() {
    with_device("receives_of_a_failed_queue_pair_come_back", |device| async move {
        let (mut a, mut x, _b, _y) = connected(&device);
        x.post_receives(5).unwrap();
        let _failed = x.fail().unwrap();
        for end in a.completions(5).await {
            assert_eq!((end.work, end.status), (RECEIVE, Status::Flushed));
            assert_eq!(end.immediate, None);
        }
    });
}

#[test]
fn a_peer_that_is_gone_is_noticed() {
    with_device("a_peer_that_is_gone_is_noticed", |device| async move {
        let (mut a, mut x, mut b, mut y) = connected(&device);
        let mut window = MemoryWindow::alloc(&b.pd).unwrap();
        let from = b.open(&mut y, &mut window, b.slot(0), Rights::READ).await;
        let _gone = y.fail().unwrap();
        let read = Work::Read { into: a.slot(0), from, fenced: false };
        assert_eq!(a.carry_out(&mut x, read).await, Status::RetriesExceeded);
        let read = Work::Read { into: a.slot(0), from, fenced: false };
        assert_eq!(a.carry_out(&mut x, read).await, Status::Flushed);
    });
}

#[test]
fn what_does_not_fit_the_queue_is_counted_from_where_it_stopped() {
    let test = "what_does_not_fit_the_queue_is_counted_from_where_it_stopped";
    with_device(test, |device| async move {
        let (mut a, mut x, mut b, mut y) = connected(&device);
        let mut window = MemoryWindow::alloc(&b.pd).unwrap();
        let from = b.open(&mut y, &mut window, b.slot(0), Rights::READ).await;
        // Providers round the depth up, but never to this.
        let mut chain = Chain::new(16 * DEPTH as usize);
        while chain.push(chain.len() as u64, Work::Read { into: a.slot(0), from, fenced: false }) {}
        let error = x.post(&mut chain).unwrap_err();
        let range = DEPTH as usize..16 * DEPTH as usize;
        assert!(range.contains(&error.posted), "{error}");
        assert_eq!(error.asked, 16 * DEPTH as usize);
        // The accepted ones are outstanding, and none of them was signalled.
        let accepted = error.posted as u64;
        let mut failed = x.fail().unwrap();
        let mut last = None;
        while failed.mark(5000).is_err() {
            last = a.completions(1).await.last().map(|end| end.work).or(last);
        }
        loop {
            let ends = a.completions(1).await;
            if ends.last().is_some_and(|end| end.work == 5000) {
                last = ends.iter().rev().nth(1).map(|end| end.work).or(last);
                break;
            }
            last = ends.last().map(|end| end.work);
        }
        assert!(last.is_none_or(|last| last == accepted - 1), "{last:?} of {accepted}");
    });
}

/// `ip`, on the interface below the device.
fn link(device: &str, set: &str) {
    let net = format!("/sys/class/infiniband/{device}/ports/1/gid_attrs/ndevs/0");
    let interface = std::fs::read_to_string(net).unwrap();
    let set = Command::new("ip").args(["link", "set", interface.trim(), set]).status().unwrap();
    assert!(set.success());
}

#[test]
fn a_port_that_goes_down_is_reported_and_refused() {
    alone("a_port_that_goes_down_is_reported_and_refused", async |name| {
        let device = open(&name);
        let mut events = device.events().unwrap();
        link(&name, "down");
        loop {
            match events.next().await.unwrap() {
                crate::verbs::rdma::AsyncEvent::PortError { port: 1 } => break,
                other => eprintln!("also: {other:?}"),
            }
        }
        let down = Device::open(&choice(&name));
        link(&name, "up");
        let error = down.unwrap_err();
        assert!(matches!(error, DeviceError::PortDown { port: 1, .. }), "{error}");
        assert!(error.to_string().contains("ip link"), "{error}");
        loop {
            match events.next().await.unwrap() {
                crate::verbs::rdma::AsyncEvent::PortActive { port: 1 } => break,
                other => eprintln!("also: {other:?}"),
            }
        }
        while Device::open(&choice(&name)).is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

/// Queue pairs, queues, regions and domains of the device that exist now, as the kernel counts.
fn resources(device: &str) -> String {
    let said = Command::new("rdma").args(["resource", "show", device]).output().unwrap();
    String::from_utf8(said.stdout).unwrap()
}

#[test]
fn handles_may_be_dropped_in_any_order_and_leave_nothing() {
    alone("handles_may_be_dropped_in_any_order_and_leave_nothing", async |name| {
        let before = resources(&name);
        for round in 0..4 {
            let device = open(&name);
            let (mut a, x, mut b, mut y) = connected(&device);
            let mut window = MemoryWindow::alloc(&b.pd).unwrap();
            let from = b.open(&mut y, &mut window, b.slot(0), Rights::READ).await;
            let open = RemoteRegion::of_arena(&b.pd, &b.arena, b.slot(1), Rights::READ).unwrap();
            let scratch = Scratch::new(&a.pd, 4096, true).unwrap();
            assert_ne!(resources(&name), before);
            let mut x = x;
            a.chain.clear();
            assert!(a.chain.push(1, Work::Read { into: a.slot(0), from, fenced: false }));
            x.post(&mut a.chain).unwrap();
            let events = device.events().unwrap();
            let mut things: Vec<Box<dyn std::any::Any>> = vec![
                Box::new(device),
                Box::new(a),
                Box::new(b),
                Box::new(window),
                Box::new(x),
                Box::new(y),
                Box::new(open),
                Box::new(scratch),
                Box::new(events),
            ];
            things.rotate_left(2 * round);
            things.into_iter().for_each(drop);
            assert_eq!(resources(&name), before, "round {round}");
        }
    });
}
