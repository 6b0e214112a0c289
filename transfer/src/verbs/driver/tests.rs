//! The driver over a device of the test's own making, on which work requests complete when, and
//! how, the test says.
#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio_util::task::TaskTracker;

/// What the device of a test has seen, and what it does next.
#[derive(Default)]
struct Device {
    /// Per queue pair: numbers that were posted and have not completed, signalled or not.
    posted: Vec<VecDeque<(u64, bool)>>,
    /// Work requests and doorbells.
    counts: (u64, u64),
    ready: VecDeque<Completion>,
    failed: bool,
    /// Posts to go until one is refused half-way.
    refuse_in: Option<u32>,
    /// Does not flush when it fails.
    stuck: bool,
    most_outstanding: usize,
}

impl Device {
    /// Completes up to `count` work requests of a queue pair, in order.
    fn complete(&mut self, lane: usize, count: usize, fault: Option<LinkFault>) {
        for _ in 0..count {
            let Some((number, signalled)) = self.posted[lane].pop_front() else { return };
            if signalled || fault.is_some() {
                self.ready.push_back(Completion::Sent { lane, number, fault });
            }
        }
    }

    fn outstanding(&self) -> usize {
        self.posted.iter().map(VecDeque::len).sum()
    }
}

#[derive(Clone)]
struct Scripted {
    device: Arc<Mutex<Device>>,
    wake: Arc<Notify>,
}

impl Provider for Scripted {
    type Work = u32;

    fn lanes(&self) -> usize {
        lock(&self.device).posted.len()
    }

    fn post(&mut self, lane: usize, first: u64, works: &[u32]) -> Result<(), usize> {
        let mut device = lock(&self.device);
        assert!(!device.failed && !works.is_empty());
        let mut count = works.len();
        if let Some(posts) = &mut device.refuse_in {
            *posts = posts.saturating_sub(1);
            if *posts == 0 {
                count /= 2;
                device.refuse_in = None;
            }
        }
        for i in 0..count {
            device.posted[lane].push_back((first + i as u64, i + 1 == works.len()));
        }
        device.counts.0 += count as u64;
        device.counts.1 += 1;
        device.most_outstanding = device.most_outstanding.max(device.posted[lane].len());
        if count == works.len() { Ok(()) } else { Err(count) }
    }

    fn poll(&mut self, into: &mut Vec<Completion>, most: usize) -> Result<(), LinkFault> {
        let mut device = lock(&self.device);
        let count = most.min(device.ready.len());
        into.extend(device.ready.drain(..count));
        Ok(())
    }

    fn arm(&mut self) -> Result<(), LinkFault> {
        Ok(())
    }

    async fn woken(&mut self) -> Result<(), LinkFault> {
        self.wake.notified().await;
        Ok(())
    }

    fn fail(&mut self) -> bool {
        let mut device = lock(&self.device);
        device.failed = true;
        if !device.stuck {
            for lane in 0..device.posted.len() {
                device.complete(lane, usize::MAX, Some(LinkFault::Flushed));
            }
        }
        true
    }
}

/// A driver over a scripted device, and what the test does to the device.
struct Rig {
    device: Arc<Mutex<Device>>,
    wake: Arc<Notify>,
    handle: Handle<u32>,
    driving: tokio::task::JoinHandle<LinkFault>,
}

/// Says when it is dropped or looked at: what a job keeps.
#[derive(Debug)]
struct Kept(Arc<AtomicBool>);

impl Drop for Kept {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Rig {
    fn new(lanes: usize, depth: u32, chain: usize) -> Self {
        let posted = (0..lanes).map(|_| VecDeque::new()).collect();
        let device = Arc::new(Mutex::new(Device { posted, ..Device::default() }));
        let wake = Arc::new(Notify::new());
        let provider = Scripted { device: Arc::clone(&device), wake: Arc::clone(&wake) };
        let (driver, handle) = Driver::new(provider, depth, chain, Duration::ZERO);
        let driving = TaskTracker::new().spawn(driver.run());
        Self { device, wake, handle, driving }
    }

    fn start(&self, counts: &[u32], until: Until) -> tokio::task::JoinHandle<Option<Outcome<()>>> {
        let works = counts.iter().map(|&count| (0..count).collect()).collect();
        let handle = self.handle.clone();
        TaskTracker::new().spawn(async move { handle.run(works, (), until).await })
    }

    fn complete(&self, lane: usize, count: usize, fault: Option<LinkFault>) {
        lock(&self.device).complete(lane, count, fault);
        self.wake.notify_one();
    }

    /// Waits until so many work requests are under way.
    async fn under_way(&self, count: usize) {
        let reached = async {
            while lock(&self.device).outstanding() != count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), reached).await.expect("so many are posted");
    }
}

fn soon() -> Until {
    let deadline = Instant::now() + Duration::from_mins(1);
    Until { cancel: CancellationToken::new(), deadline, linger: Duration::from_millis(50) }
}

#[tokio::test(start_paused = true)]
async fn a_job_ends_when_the_last_of_it_has_completed() {
    let rig = Rig::new(2, 8, 4);
    let job = rig.start(&[6, 3], soon());
    rig.under_way(9).await;
    assert_eq!(lock(&rig.device).counts, (9, 3));
    rig.complete(0, 4, None);
    rig.complete(1, 3, None);
    rig.complete(0, 1, None);
    rig.under_way(1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!job.is_finished(), "one work request is under way");
    rig.complete(0, 1, None);
    assert_eq!(job.await.unwrap(), Some(((), Ok(()))));
    // Nothing at all is done at once.
    assert_eq!(rig.start(&[], soon()).await.unwrap(), Some(((), Ok(()))));
    let Rig { handle, driving, .. } = rig;
    drop(handle);
    assert_eq!(driving.await.unwrap(), LinkFault::Closed);
}

#[tokio::test(start_paused = true)]
async fn no_more_is_outstanding_than_a_queue_pair_holds() {
    let rig = Rig::new(1, 10, 4);
    let job = rig.start(&[30], soon());
    // Two whole chains fit; a part of a third would ring the doorbell once more.
    rig.under_way(8).await;
    let completing = async {
        while !job.is_finished() {
            rig.complete(0, 3, None);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), completing).await.unwrap();
    assert_eq!(job.await.unwrap(), Some(((), Ok(()))));
    let device = lock(&rig.device);
    assert_eq!(device.counts, (30, 8));
    assert!(device.most_outstanding <= 10, "{}", device.most_outstanding);
}

#[tokio::test(start_paused = true)]
async fn a_small_job_does_not_wait_for_a_large_one() {
    let rig = Rig::new(1, 8, 4);
    let large = rig.start(&[1000], soon());
    rig.under_way(8).await;
    let small = rig.start(&[1], soon());
    tokio::time::sleep(Duration::from_millis(1)).await;
    // What was posted before it, and one more chain of the large one at most.
    for _ in 0..4 {
        rig.complete(0, 4, None);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(small.is_finished() && !large.is_finished());
    large.abort();
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_job_ends_when_what_was_posted_has_completed() {
    let rig = Rig::new(1, 8, 4);
    let until = soon();
    let job = rig.start(&[100], until.clone());
    rig.under_way(8).await;
    until.cancel.cancel();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!job.is_finished(), "the device may still write");
    rig.complete(0, 8, None);
    assert_eq!(job.await.unwrap(), Some(((), Err(Stop::Cancelled))));
    assert_eq!(lock(&rig.device).counts.0, 8, "nothing was posted afterwards");
    // The connection is as good as before.
    let job = rig.start(&[1], soon());
    rig.under_way(1).await;
    rig.complete(0, 1, None);
    assert_eq!(job.await.unwrap(), Some(((), Ok(()))));
}

#[tokio::test(start_paused = true)]
async fn completions_that_come_too_late_cost_the_connection_and_not_the_memory() {
    let rig = Rig::new(2, 8, 4);
    let deadline = Instant::now() + Duration::from_secs(1);
    let overdue = rig.start(&[4, 0], Until { deadline, ..soon() });
    let other = rig.start(&[0, 4], soon());
    rig.under_way(8).await;
    assert_eq!(overdue.await.unwrap(), Some(((), Err(Stop::Deadline))));
    assert!(Instant::now() >= deadline + Duration::from_millis(50), "it lingers");
    assert!(lock(&rig.device).failed, "only the error state gives them back");
    let stopped = Some(((), Err(Stop::Link(LinkFault::Overdue))));
    assert_eq!(other.await.unwrap(), stopped);
    assert!(!rig.handle.alive());
    // And whoever comes now hears the same.
    assert_eq!(rig.start(&[1], soon()).await.unwrap(), stopped);
    assert_eq!(rig.driving.await.unwrap(), LinkFault::Overdue);
}

#[tokio::test(start_paused = true)]
async fn a_late_completion_within_the_linger_keeps_the_connection() {
    let rig = Rig::new(1, 8, 4);
    let deadline = Instant::now() + Duration::from_secs(1);
    let job = rig.start(&[4], Until { deadline, ..soon() });
    rig.under_way(4).await;
    tokio::time::sleep_until(deadline + Duration::from_millis(20)).await;
    assert!(!job.is_finished());
    rig.complete(0, 4, None);
    assert_eq!(job.await.unwrap(), Some(((), Err(Stop::Deadline))));
    assert!(rig.handle.alive());
}

#[tokio::test(start_paused = true)]
async fn a_failed_work_request_ends_everything_with_its_reason() {
    let rig = Rig::new(2, 64, 4);
    let (hit, other) = (rig.start(&[16], soon()), rig.start(&[0, 16], soon()));
    rig.under_way(32).await;
    rig.complete(0, 5, None);
    // An unsignalled one, in the middle of a chain.
    rig.complete(0, 1, Some(LinkFault::RemoteAccess));
    let reason = Some(((), Err(Stop::Link(LinkFault::RemoteAccess))));
    assert_eq!((hit.await.unwrap(), other.await.unwrap()), (reason, reason));
    assert_eq!(lock(&rig.device).outstanding(), 0, "all was flushed first");
    assert_eq!(rig.driving.await.unwrap(), LinkFault::RemoteAccess);
}

#[tokio::test(start_paused = true)]
async fn a_chain_that_is_refused_half_way_ends_the_connection() {
    let rig = Rig::new(1, 64, 4);
    lock(&rig.device).refuse_in = Some(2);
    let job = rig.start(&[16], soon());
    assert_eq!(job.await.unwrap(), Some(((), Err(Stop::Link(LinkFault::Post)))));
    let device = lock(&rig.device);
    assert_eq!((device.counts.0, device.outstanding()), (6, 0));
}

#[tokio::test(start_paused = true)]
async fn a_device_that_gives_nothing_back_is_said_to_be_stuck() {
    let rig = Rig::new(1, 8, 4);
    lock(&rig.device).stuck = true;
    let posted = rig.start(&[8], soon());
    rig.under_way(8).await;
    let waiting = rig.start(&[4], soon());
    tokio::time::sleep(Duration::from_millis(1)).await;
    rig.handle.fail(LinkFault::Device);
    // Of the second nothing was posted, so its memory is free; of the first nobody knows.
    assert_eq!(posted.await.unwrap(), Some(((), Err(Stop::Stuck))));
    assert_eq!(waiting.await.unwrap(), Some(((), Err(Stop::Link(LinkFault::Device)))));
}

#[tokio::test(start_paused = true)]
async fn a_completion_of_nothing_ends_the_connection() {
    let rig = Rig::new(1, 8, 4);
    let stray = Completion::Sent { lane: 0, number: 77, fault: None };
    lock(&rig.device).ready.push_back(stray);
    rig.wake.notify_one();
    assert_eq!(rig.driving.await.unwrap(), LinkFault::Stray);
}

#[tokio::test(start_paused = true)]
async fn what_a_job_keeps_outlives_its_work_requests_even_if_nobody_waits() {
    let rig = Rig::new(1, 8, 4);
    let dropped = Arc::new(AtomicBool::new(false));
    let kept = Kept(Arc::clone(&dropped));
    let handle = rig.handle.clone();
    let waiting =
        TaskTracker::new().spawn(async move { handle.run(vec![vec![1, 2]], kept, soon()).await });
    rig.under_way(2).await;
    waiting.abort();
    let _ = waiting.await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!dropped.load(Ordering::SeqCst), "the device may still write");
    rig.complete(0, 2, None);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(dropped.load(Ordering::SeqCst));
}

#[tokio::test(start_paused = true)]
async fn an_immediate_wakes_who_expects_it() {
    let rig = Rig::new(1, 8, 4);
    let (mine, other) = (rig.handle.expect(7), rig.handle.expect(8));
    for immediate in [9, 7] {
        lock(&rig.device).ready.push_back(Completion::Received { immediate });
    }
    rig.wake.notify_one();
    mine.await.unwrap();
    // Whoever still waits when the connection ends hears of that.
    rig.handle.fail(LinkFault::Peer);
    assert!(other.await.is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Jobs of any shape, completions in any order of queue pairs, a failure at any moment or
    /// none: every job is reported once, only when nothing of it is under way, with success only
    /// if all of it succeeded, and posted with as few doorbells as its chains need.
    #[test]
    fn whatever_happens_every_job_is_reported_when_it_is_quiet(
        jobs in proptest::collection::vec((0u32..40, 0u32..40, any::<bool>()), 1..12),
        steps in proptest::collection::vec((0usize..2, 1usize..9), 1..200),
        fail_at in proptest::option::of(0usize..100),
        (depth, chain) in (1u32..32, 1usize..20),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let rig = Rig::new(2, depth, chain);
            let chain = chain.min(depth as usize) as u32;
            let started: Vec<_> = jobs
                .iter()
                .map(|&(a, b, cancel)| {
                    let until = soon();
                    (rig.start(&[a, b], until.clone()), until.cancel, cancel)
                })
                .collect();
            for (step, (lane, count)) in steps.into_iter().enumerate() {
                tokio::time::sleep(Duration::from_millis(1)).await;
                if fail_at == Some(step) {
                    rig.complete(lane, 1, Some(LinkFault::Unanswered));
                }
                if step == 5 {
                    started.iter().filter(|(.., cancel)| *cancel).for_each(|(_, token, _)| token.cancel());
                }
                rig.complete(lane, count, None);
            }
            let failing = fail_at.is_some();
            let all = async {
                while started.iter().any(|(job, ..)| !job.is_finished()) {
                    rig.complete(0, 7, None);
                    rig.complete(1, 7, None);
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(30), all).await.expect("all jobs end");
            let mut clean = true;
            for (job, _, cancelled) in started {
                match job.await.unwrap().unwrap().1 {
                    Ok(()) => {}
                    Err(Stop::Cancelled) => {
                        clean = false;
                        assert!(cancelled);
                    }
                    Err(stop) => {
                        clean = false;
                        assert!(failing && matches!(stop, Stop::Link(_)), "{stop:?}");
                    }
                }
            }
            assert_eq!(lock(&rig.device).outstanding(), 0);
            assert!(lock(&rig.device).most_outstanding <= depth as usize);
            if clean {
                let doorbells = |count: u32| u64::from(count.div_ceil(chain));
                let works = jobs.iter().map(|&(a, b, _)| u64::from(a + b)).sum::<u64>();
                let bells = jobs.iter().map(|&(a, b, _)| doorbells(a) + doorbells(b)).sum::<u64>();
                assert_eq!(lock(&rig.device).counts, (works, bells));
            }
        });
    }
}
