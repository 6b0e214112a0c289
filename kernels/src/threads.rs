//! A fixed set of threads that share one loop at a time.
//!
//! Which thread runs which index is left to chance; no kernel's result depends on it, because
//! indices are outputs (rows, columns, heads) and never parts of one sum.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// How often an idle thread looks for work before it sleeps: a step is a few hundred loops with
/// only microseconds between them, and a wake-up costs more than that.
const SPINS: u32 = 4_000;

/// A pool of threads; the caller's own thread is one of them.
pub struct Threads {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// One loop at a time.
    turn: Mutex<()>,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    quiet: Condvar,
    /// Mirrors of `state` for spinning without the lock.
    open: AtomicBool,
    active: AtomicUsize,
    /// The next index of the current loop.
    next: AtomicUsize,
}

#[derive(Default)]
struct State {
    job: Option<Job>,
    /// Counts loops, so that a thread joins each at most once.
    epoch: u64,
    panic: Option<Box<dyn Any + Send>>,
    stop: bool,
}

/// A loop body that lives on the stack of the thread in [`Threads::run`].
#[derive(Clone, Copy)]
struct Job {
    work: *const (dyn Fn(usize) + Sync),
    count: usize,
}

// SAFETY: the pointer is to a `Sync` closure, and `Threads::run` keeps it alive until every
// thread that copied the job has said that it is done with it.
unsafe impl Send for Job {}

impl Threads {
    /// A pool of `count` threads in all (at least 1: the caller's).
    pub fn new(count: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            wake: Condvar::new(),
            quiet: Condvar::new(),
            open: AtomicBool::new(false),
            active: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
        });
        let mut threads = Self { shared, workers: Vec::new(), turn: Mutex::new(()) };
        for i in 1..count {
            let shared = Arc::clone(&threads.shared);
            let builder = std::thread::Builder::new().name(format!("kernel-{i}"));
            threads.workers.push(builder.spawn(move || shared.serve())?);
        }
        Ok(threads)
    }

    /// Threads, the caller's included.
    pub fn count(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `work` once for every index below `count` and returns when all calls have returned.
    /// A panic of `work` is passed on, after the others have finished. `work` must not call `run`.
    pub fn run(&self, count: usize, work: &(dyn Fn(usize) + Sync)) {
        if self.workers.is_empty() || count <= 1 {
            (0..count).for_each(work);
            return;
        }
        let _turn = lock(&self.turn);
        // SAFETY: only the lifetime changes. The job is withdrawn and `active` has come back to 0
        // before this function returns, so nobody dereferences the pointer after that.
        let work: &'static (dyn Fn(usize) + Sync) = unsafe { std::mem::transmute(work) };
        self.shared.next.store(0, Ordering::Relaxed);
        self.shared.open(Job { work, count });
        let own = catch_unwind(AssertUnwindSafe(|| self.shared.take_indices(work, count)));
        let stolen = self.shared.close();
        if let Err(panic) = own {
            resume_unwind(panic);
        }
        if let Some(panic) = stolen {
            resume_unwind(panic);
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        lock(&self.shared.state).stop = true;
        self.shared.open.store(true, Ordering::Release);
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches the panics of its work; there is nothing to pass on here.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// The life of a pool thread.
    fn serve(&self) {
        let mut seen = 0;
        while let Some((job, epoch)) = self.join(seen) {
            seen = epoch;
            // SAFETY: this thread is counted in `active`, so the closure's owner is still waiting.
            let work = unsafe { &*job.work };
            let result = catch_unwind(AssertUnwindSafe(|| self.take_indices(work, job.count)));
            let mut state = lock(&self.state);
            if let Err(panic) = result {
                state.panic.get_or_insert(panic);
            }
            if self.active.fetch_sub(1, Ordering::Release) == 1 {
                self.quiet.notify_one();
            }
        }
    }

    /// Waits for a loop after number `seen` and joins it; `None` when the pool stops.
    fn join(&self, seen: u64) -> Option<(Job, u64)> {
        for _ in 0..SPINS {
            if self.open.load(Ordering::Acquire) {
                break;
            }
            std::hint::spin_loop();
        }
        let mut state = lock(&self.state);
        loop {
            if state.stop {
                return None;
            }
            if let Some(job) = state.job.filter(|_| state.epoch != seen) {
                self.active.fetch_add(1, Ordering::Relaxed);
                return Some((job, state.epoch));
            }
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn take_indices(&self, work: &(dyn Fn(usize) + Sync), count: usize) {
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return;
            }
            work(index);
        }
    }

    fn open(&self, job: Job) {
        let mut state = lock(&self.state);
        state.job = Some(job);
        state.epoch += 1;
        drop(state);
        self.open.store(true, Ordering::Release);
        self.wake.notify_all();
    }

    /// Withdraws the loop, so that nobody joins any more, and waits for those who did.
    fn close(&self) -> Option<Box<dyn Any + Send>> {
        lock(&self.state).job = None;
        self.open.store(false, Ordering::Release);
        for _ in 0..SPINS {
            if self.active.load(Ordering::Acquire) == 0 {
                break;
            }
            std::hint::spin_loop();
        }
        let mut state = lock(&self.state);
        while self.active.load(Ordering::Acquire) > 0 {
            state = self.quiet.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.panic.take()
    }
}

/// The state stays consistent across a panic: it is only changed by single assignments.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_runs_once() {
        for threads in [1, 2, 5] {
            let pool = Threads::new(threads).expect("threads start");
            for count in [0, 1, 2, 7, 1000] {
                let hits: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
                pool.run(count, &|i| {
                    hits[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(hits.iter().all(|h| h.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Threads::new(3).expect("threads start");
        for at in [0, 50, 99] {
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.run(100, &|i| assert_ne!(i, at, "on purpose"));
            }));
            assert!(result.is_err());
        }
        let sum = AtomicUsize::new(0);
        pool.run(100, &|i| {
            sum.fetch_add(i, Ordering::Relaxed);
        });
        assert_eq!(sum.into_inner(), 4950);
    }
}
