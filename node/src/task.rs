//! Tracked tasks: nothing runs without a name, an owner and an end.
//!
//! The only place that calls `tokio::spawn`. A task is dropped when the drain is over, a panic in
//! it is logged with the task's name and counted, and a daemon can say at any time what runs.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures_util::FutureExt;
use tokio::sync::{Notify, oneshot};

use crate::drain::{Cause, Drain};

/// The tasks of one daemon. Clones share them.
#[derive(Clone)]
pub struct Tasks {
    inner: Arc<Inner>,
}

struct Inner {
    drain: Drain,
    tasks_max: usize,
    running: AtomicUsize,
    panics: AtomicU64,
    names: Mutex<BTreeMap<&'static str, usize>>,
    one_ended: Notify,
}

/// More tasks were asked for than the daemon may run at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no room for another `{name}` task: {tasks_max} are running")]
pub struct TooManyTasks {
    /// The task that was refused.
    pub name: &'static str,
    /// The bound.
    pub tasks_max: usize,
}

/// Why a task gave no result.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the task was dropped at the end of the drain, or panicked")]
pub struct Lost;

impl Tasks {
    /// No tasks yet, and never more than `tasks_max` of those that come with load.
    pub fn new(drain: &Drain, tasks_max: usize) -> Self {
        let inner = Inner {
            drain: drain.clone(),
            tasks_max,
            running: AtomicUsize::new(0),
            panics: AtomicU64::new(0),
            names: Mutex::default(),
            one_ended: Notify::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Starts a task that the daemon has a fixed number of. For whatever grows with load use
    /// [`try_spawn`](Self::try_spawn).
    ///
    /// The future runs to its end, or is dropped when the drain is over; it watches
    /// [`Drain::draining`] itself if it has something to finish early.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let running = Running::enter(self, name);
        self.launch(name, Some(running), future)
    }

    /// Starts a task that the drain does not wait for, because it has no end of its own.
    pub(crate) fn spawn_uncounted<F>(&self, name: &'static str, future: F) -> Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.launch(name, None, future)
    }

    fn launch<F>(&self, name: &'static str, running: Option<Running>, future: F) -> Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let (done, result) = oneshot::channel();
        let tasks = self.clone();
        #[expect(clippy::disallowed_methods, reason = "the one place where tasks are made")]
        let handle = tokio::spawn(async move {
            // Held here so that it falls however the future ends, an abort included.
            let _running = running;
            let guarded = AssertUnwindSafe(future).catch_unwind();
            tokio::select! {
                biased;
                () = tasks.inner.drain.over() => {}
                ended = guarded => match ended {
                    Ok(output) => drop(done.send(output)),
                    Err(panic) => tasks.note_panic(name, panic.as_ref()),
                },
            }
        });
        Task { result, abort: handle.abort_handle() }
    }

    /// Starts a task if there is room for one.
    pub fn try_spawn<F>(
        &self,
        name: &'static str,
        future: F,
    ) -> Result<Task<F::Output>, TooManyTasks>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let tasks_max = self.inner.tasks_max;
        if self.running() >= tasks_max {
            return Err(TooManyTasks { name, tasks_max });
        }
        Ok(self.spawn(name, future))
    }

    /// Starts a task without which the daemon is nothing: should it end or panic before a drain
    /// began, the drain begins, with the task as its cause.
    pub fn spawn_vital<F>(&self, name: &'static str, future: F) -> Task<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let alarm = Alarm { drain: self.inner.drain.clone(), name };
        self.spawn(name, async move {
            let _alarm = alarm;
            future.await;
        })
    }

    /// Starts a thread of its own, for what computes and never awaits. Tracked like a task; it
    /// cannot be dropped from outside, so it must watch [`Drain::is_draining`]. Vital in the sense
    /// of [`spawn_vital`](Self::spawn_vital).
    pub fn spawn_thread<F>(&self, name: &'static str, body: F) -> std::io::Result<()>
    where
        F: FnOnce() + Send + 'static,
    {
        let running = Running::enter(self, name);
        let alarm = Alarm { drain: self.inner.drain.clone(), name };
        let tasks = self.clone();
        std::thread::Builder::new().name(name.into()).spawn(move || {
            // Locals fall in reverse order: the alarm is raised before the thread counts as gone.
            let _running = running;
            let _alarm = alarm;
            if let Err(panic) = std::panic::catch_unwind(AssertUnwindSafe(body)) {
                tasks.note_panic(name, panic.as_ref());
            }
        })?;
        Ok(())
    }

    /// The drain that these tasks end with.
    pub fn drain(&self) -> &Drain {
        &self.inner.drain
    }

    /// How many tasks and threads run.
    pub fn running(&self) -> usize {
        self.inner.running.load(Ordering::SeqCst)
    }

    /// How many tasks have panicked so far.
    pub fn panics(&self) -> u64 {
        self.inner.panics.load(Ordering::Relaxed)
    }

    /// What runs: each name with its count, in alphabetical order.
    pub fn names(&self) -> Vec<(&'static str, usize)> {
        let names = self.inner.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.iter().map(|(name, count)| (*name, *count)).collect()
    }

    /// Waits until nothing runs.
    pub async fn idle(&self) {
        loop {
            let one_ended = self.inner.one_ended.notified();
            tokio::pin!(one_ended);
            // Registered before the count is read, so that no end is missed in between.
            one_ended.as_mut().enable();
            if self.running() == 0 {
                return;
            }
            one_ended.await;
        }
    }

    /// Logs and counts a panic that was caught on behalf of `name`.
    pub(crate) fn note_panic(&self, name: &'static str, panic: &(dyn std::any::Any + Send)) {
        self.inner.panics.fetch_add(1, Ordering::Relaxed);
        tracing::error!(task = name, panic = panic_text(panic), "a task panicked");
    }
}

impl std::fmt::Debug for Tasks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.names()).finish()
    }
}

/// The message of a panic, as far as it has one.
fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&'static str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no message)")
}

/// A started task. Dropping it lets the task run on; awaiting it gives the result.
#[derive(Debug)]
pub struct Task<T> {
    result: oneshot::Receiver<T>,
    abort: tokio::task::AbortHandle,
}

impl<T> Task<T> {
    /// Drops the task's future at its next await.
    pub fn cancel(&self) {
        self.abort.abort();
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T, Lost>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.result).poll(cx).map_err(|_| Lost)
    }
}

/// Counts one task for as long as it exists.
struct Running {
    inner: Arc<Inner>,
    name: &'static str,
}

impl Running {
    fn enter(tasks: &Tasks, name: &'static str) -> Self {
        let inner = Arc::clone(&tasks.inner);
        inner.running.fetch_add(1, Ordering::SeqCst);
        let mut names = inner.names.lock().unwrap_or_else(PoisonError::into_inner);
        *names.entry(name).or_default() += 1;
        drop(names);
        Self { inner, name }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut names = self.inner.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = names.get_mut(self.name) {
            *count -= 1;
            if *count == 0 {
                names.remove(self.name);
            }
        }
        drop(names);
        self.inner.running.fetch_sub(1, Ordering::SeqCst);
        self.inner.one_ended.notify_waiters();
    }
}

/// Starts the drain when a vital task ends, however it ends.
struct Alarm {
    drain: Drain,
    name: &'static str,
}

impl Drop for Alarm {
    fn drop(&mut self) {
        // Without effect if a drain has begun for another reason: then the end was expected.
        self.drain.trigger(Cause::TaskEnded(self.name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn tasks(tasks_max: usize) -> Tasks {
        Tasks::new(&Drain::new(Duration::from_secs(5)), tasks_max)
    }

    #[tokio::test]
    async fn a_task_gives_its_result_and_is_counted_while_it_runs() {
        let tasks = tasks(8);
        let (go, wait) = oneshot::channel::<u32>();
        let task = tasks.spawn("adder", async move { wait.await.unwrap_or(0) + 1 });
        assert_eq!(tasks.names(), [("adder", 1)]);
        go.send(41).expect("the task waits");
        assert_eq!(task.await, Ok(42));
        tasks.idle().await;
        assert_eq!((tasks.running(), tasks.panics()), (0, 0));
    }

    #[tokio::test]
    async fn a_panic_is_counted_and_stops_nothing_else() {
        let tasks = tasks(8);
        let lost = tasks.spawn("clumsy", async { panic!("on purpose") });
        assert_eq!(lost.await, Err::<(), _>(Lost));
        tasks.idle().await;
        assert_eq!(tasks.panics(), 1);
        assert!(!tasks.drain().is_draining());
        assert_eq!(tasks.spawn("other", async { 7 }).await, Ok(7));
    }

    #[tokio::test]
    async fn the_bound_refuses_and_room_returns() {
        let tasks = tasks(1);
        let first = tasks.try_spawn("stays", std::future::pending::<()>()).expect("room");
        let refused = tasks.try_spawn("more", async {}).expect_err("full");
        assert_eq!(refused, TooManyTasks { name: "more", tasks_max: 1 });
        first.cancel();
        tasks.idle().await;
        tasks.try_spawn("more", async {}).expect("room again").await.expect("ran");
    }

    #[tokio::test]
    async fn a_vital_task_that_ends_begins_the_drain() {
        let tasks = tasks(8);
        tasks.spawn_vital("engine", async { panic!("on purpose") });
        tasks.drain().draining().await;
        assert_eq!(tasks.drain().cause(), Some(Cause::TaskEnded("engine")));
    }

    #[tokio::test]
    async fn a_thread_is_tracked_like_a_task() {
        let tasks = tasks(8);
        let drain = tasks.drain().clone();
        let (says, hears) = oneshot::channel();
        tasks
            .spawn_thread("loop", move || {
                says.send(std::thread::current().name().map(String::from)).expect("heard");
            })
            .expect("a thread");
        assert_eq!(hears.await.expect("said").as_deref(), Some("loop"));
        tasks.idle().await;
        assert_eq!(drain.cause(), Some(Cause::TaskEnded("loop")));
    }
}
