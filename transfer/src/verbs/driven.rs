//! A connection's driver with its queue pairs, over the provider that moves nothing and fails when
//! it is told to.
#![allow(clippy::unwrap_used)]

use super::driver::{Driver, Handle, Stop, Until};
use super::lanes::{Lanes, Order, SharedWindow};
use super::opening::{Opening, revoke, shut};
use super::rdma::null::{self, Strings};
use super::rdma::{AsyncEvent, DeviceError, Remote, RemoteKey, Rights, Sending, Status};
use super::reports::{Hearing, Reports};
use crate::{Counters, LinkFault, Op, TransportKind};
use baton_arena::{Layout, Shape};
use futures_util::{StreamExt, stream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

struct Rig {
    handle: Handle<Order>,
    strings: Strings,
    counters: Counters,
    driving: JoinHandle<LinkFault>,
}

/// Two queue pairs of 16 work requests, 4 to a doorbell.
fn rig() -> Rig {
    let (completions, strings) = null::completions(64);
    let mut pairs = vec![strings.pair(0), strings.pair(1)];
    for pair in &mut pairs {
        pair.post_receives(1).unwrap();
    }
    let counters = Counters::default();
    let lanes = Lanes::new(pairs, completions, 4, counters.clone(), Op::Pull);
    let (driver, handle) = Driver::new(lanes, 16, 4, Duration::ZERO);
    let driving = tokio::runtime::Handle::current().spawn(driver.run());
    Rig { handle, strings, counters, driving }
}

fn reads(count: usize) -> Vec<Order> {
    let map = null::map(Layout::of(Shape { slots: 4, slot_bytes: 64 }).unwrap());
    let into = map.slots(0, 0, 64).unwrap();
    let from = Remote { address: 0, key: RemoteKey::from_wire(1) };
    (0..count).map(|_| Order::Read { into, from, fenced: false }).collect()
}

fn until(linger: Duration) -> Until {
    let deadline = Instant::now() + Duration::from_secs(5);
    Until { cancel: CancellationToken::new(), deadline, linger }
}

impl Rig {
    async fn run(&self, works: Vec<Vec<Order>>) -> Result<(), Stop> {
        let (kept, outcome) = self.handle.run(works, 7, until(Duration::ZERO)).await.unwrap();
        assert_eq!(kept, 7);
        outcome
    }

    fn posted(&self) -> (u64, u64) {
        let sample = self.counters.sample(TransportKind::Verbs, Op::Pull);
        (sample.work_requests, sample.doorbells)
    }
}

#[tokio::test(start_paused = true)]
async fn as_many_requests_and_doorbells_as_planned() {
    let rig = rig();
    assert_eq!(rig.run(vec![reads(33), reads(8)]).await, Ok(()));
    assert_eq!(rig.posted(), (41, 9 + 2));
    drop(rig.handle);
    assert_eq!(rig.driving.await.unwrap(), LinkFault::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_fails_ends_the_connection_and_gives_everything_back() {
    let rig = rig();
    rig.strings.fail_after(9, Status::RemoteAccess);
    let failed = Err(Stop::Link(LinkFault::RemoteAccess));
    assert_eq!(rig.run(vec![reads(40), reads(40)]).await, failed);
    assert!(!rig.handle.alive());
    assert_eq!(rig.run(vec![reads(1)]).await, failed, "nothing is taken any more");
    assert_eq!(rig.driving.await.unwrap(), LinkFault::RemoteAccess);
}

#[tokio::test(start_paused = true)]
async fn a_chain_that_is_refused_half_way_ends_the_connection_and_gives_everything_back() {
    let rig = rig();
    rig.strings.refuse_after(6);
    let failed = Err(Stop::Link(LinkFault::Post));
    assert_eq!(rig.run(vec![reads(8), Vec::new()]).await, failed);
    assert_eq!(rig.posted(), (6, 2));
}

#[tokio::test(start_paused = true)]
async fn what_the_device_holds_is_given_back_only_when_the_queue_pair_has_failed() {
    let rig = rig();
    rig.strings.hold();
    let handle = rig.handle.clone();
    let term = until(Duration::from_secs(1));
    let (cancel, deadline) = (term.cancel.clone(), term.deadline);
    let mut pull = tokio::task::JoinSet::new();
    pull.spawn(async move { handle.run(vec![reads(4)], (), term).await.unwrap().1 });
    while rig.strings.outstanding() < 4 {
        tokio::task::yield_now().await;
    }
    cancel.cancel();
    let outcome = pull.join_next().await.unwrap().unwrap();
    assert_eq!(outcome, Err(Stop::Cancelled));
    assert!(Instant::now() >= deadline + Duration::from_secs(1), "not before the linger is over");
    assert_eq!(rig.strings.outstanding(), 0);
    assert_eq!(rig.driving.await.unwrap(), LinkFault::Overdue);
}

#[tokio::test(start_paused = true)]
async fn an_immediate_wakes_who_expects_it_and_its_receive_is_replaced() {
    let rig = rig();
    for immediate in 0..3 {
        let expected = rig.handle.expect(immediate);
        assert!(rig.strings.arrive(1, immediate), "there is a receive");
        expected.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn windows_open_under_another_key_each_time() {
    let rig = rig();
    let map = null::map(Layout::of(Shape { slots: 4, slot_bytes: 64 }).unwrap());
    let (stretch, rights) = (map.slots(0, 0, 64).unwrap(), Rights::READ);
    let window = Arc::new(Mutex::new(null::window(0x100)));
    let mut keys = vec![window.lock().unwrap().key()];
    for _ in 0..3 {
        let (on, window) = (null::bindable(), Arc::clone(&window));
        let bind = Order::Bind { window: Arc::clone(&window), on, stretch, rights };
        assert_eq!(rig.run(vec![vec![bind], Vec::new()]).await, Ok(()));
        let key = window.lock().unwrap().key();
        assert_ne!(keys.last(), Some(&key));
        keys.push(key);
        let close = Order::Invalidate { window };
        assert_eq!(rig.run(vec![vec![close], Vec::new()]).await, Ok(()));
    }
}

/// Notes how many others hold a window when it is dropped itself.
struct Watching {
    seen: Arc<AtomicUsize>,
    window: SharedWindow,
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.seen.store(Arc::strong_count(&self.window) - 1, Ordering::SeqCst);
    }
}

/// Who hears of the end of a job may let go of what its windows opened: by then no work request may
/// hold one of them.
#[tokio::test(start_paused = true)]
async fn when_a_job_is_over_its_work_requests_hold_no_window() {
    for fails in [false, true] {
        let rig = rig();
        rig.strings.hold();
        let map = null::map(Layout::of(Shape { slots: 4, slot_bytes: 64 }).unwrap());
        let (stretch, rights) = (map.slots(0, 0, 64).unwrap(), Rights::READ);
        let window = Arc::new(Mutex::new(null::window(0x100)));
        let seen = Arc::new(AtomicUsize::new(usize::MAX));
        let keep = Watching { seen: Arc::clone(&seen), window: Arc::clone(&window) };
        let bind = Order::Bind { window, on: null::bindable(), stretch, rights };
        let (handle, term) = (rig.handle.clone(), until(Duration::ZERO));
        let mut job = tokio::task::JoinSet::new();
        job.spawn(async move { handle.run(vec![vec![bind]], keep, term).await.is_some() });
        while rig.strings.outstanding() < 1 {
            tokio::task::yield_now().await;
        }
        // Nobody waits any more: what was kept is dropped as it is reported.
        job.shutdown().await;
        if fails {
            rig.handle.fail(LinkFault::Device);
        } else {
            rig.strings.release();
        }
        while seen.load(Ordering::SeqCst) == usize::MAX {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(seen.load(Ordering::SeqCst), 0, "fails: {fails}");
    }
}

/// Windows that cannot be freed so many times.
fn sticky(times: usize) -> Opening {
    Opening::of_null([null::sticky_window(0x100, Arc::new(AtomicUsize::new(times)))])
}

#[tokio::test(start_paused = true)]
async fn a_revocation_that_works_keeps_the_connection() {
    let rig = rig();
    assert!(revoke(&rig.handle, 2, sticky(0), until(Duration::ZERO)).await.is_ok());
    assert_eq!(rig.posted().0, 1);
    assert!(rig.handle.alive());
}

#[tokio::test(start_paused = true)]
async fn a_revocation_that_comes_to_nothing_costs_the_connection() {
    let rig = rig();
    // Its time is over before anything is posted: other queue pairs' peers have nothing to fear.
    let late = Until { deadline: Instant::now(), ..until(Duration::ZERO) };
    assert!(revoke(&rig.handle, 2, sticky(0), late).await.is_ok());
    assert_eq!(rig.posted().0, 0);
    assert_eq!(rig.handle.fault(), Some(LinkFault::Overdue));
    assert!(rig.driving.is_finished(), "nothing comes back before the queue pairs are dead");
}

#[tokio::test(start_paused = true)]
async fn a_window_that_is_not_freed_costs_the_connection() {
    for times in [1, usize::MAX] {
        let rig = rig();
        assert!(revoke(&rig.handle, 2, sticky(times), until(Duration::ZERO)).await.is_ok());
        assert_eq!(rig.handle.fault(), Some(LinkFault::Device));
        assert!(rig.driving.is_finished(), "nothing comes back before the queue pairs are dead");
    }
}

#[tokio::test(start_paused = true)]
async fn what_can_neither_be_closed_nor_cut_off_is_kept() {
    let rig = rig();
    rig.strings.refuse_to_fail();
    // The second attempt frees it.
    assert!(revoke(&rig.handle, 2, sticky(1), until(Duration::ZERO)).await.is_ok());
    let rig = self::rig();
    rig.strings.refuse_to_fail();
    let kept = revoke(&rig.handle, 2, sticky(2), until(Duration::ZERO)).await;
    assert!(matches!(kept, Err(Some(_))));
    let kept = shut(&rig.handle, sticky(2)).await;
    assert!(kept.is_err());
}

/// Runs a connection that hears of the device as it does in an adapter, concerned by events of
/// port 1.
fn heard(hearing: Hearing) -> (Handle<Order>, JoinHandle<LinkFault>) {
    let (completions, strings) = null::completions(64);
    let lanes = Lanes::new(vec![strings.pair(0)], completions, 4, Counters::default(), Op::Pull);
    let (driver, handle) = Driver::new(lanes, 16, 4, Duration::ZERO);
    let breaker = driver.breaker();
    let concerns = |event| event == AsyncEvent::GidChange { port: 1 };
    let driving = tokio::runtime::Handle::current()
        .spawn(async move { hearing.watch(driver.run(), concerns, &breaker).await });
    (handle, driving)
}

#[tokio::test(start_paused = true)]
async fn a_connection_hears_what_the_device_said_while_it_was_set_up() {
    let reports = Reports::default();
    let hearing = reports.subscribe();
    let said = [2, 1].map(|port| Ok(AsyncEvent::GidChange { port }));
    // Only now does anybody listen; the device says nothing more, and stays.
    let events = stream::iter(said).chain(stream::pending());
    let _listening = AbortOnDropHandle::new(
        tokio::runtime::Handle::current().spawn(reports.clone().listen(events)),
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (_handle, driving) = heard(hearing);
    assert_eq!(driving.await.unwrap(), LinkFault::Device);
    let (other, driving) = heard(reports.subscribe());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(other.alive() && !reports.is_over(), "what came before is of no concern");
    drop(other);
    assert_eq!(driving.await.unwrap(), LinkFault::Closed);
}

#[tokio::test(start_paused = true)]
async fn connections_end_when_the_device_is_not_heard_any_more() {
    let reports = Reports::default();
    let (_before, driving) = heard(reports.subscribe());
    let lost = DeviceError::Lost { device: "null".into() };
    reports.clone().listen(stream::iter([Err(lost)])).await;
    assert_eq!(driving.await.unwrap(), LinkFault::Device);
    assert!(reports.is_over());
    let (_after, driving) = heard(reports.subscribe());
    assert_eq!(driving.await.unwrap(), LinkFault::Device);
}
