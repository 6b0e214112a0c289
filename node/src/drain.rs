//! The end of a daemon: a signal starts a drain, work in flight gets a grace, then all is over.
//!
//! Two moments matter. From *draining* on, nothing new is taken and what runs may finish. Once
//! the drain is *over* - nothing is left, the grace has passed, or a second signal came -
//! whatever still runs is dropped.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Poll, Waker};
use std::time::Duration;

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::task::Tasks;

/// How long dropped tasks may take to fall before the process stops waiting for them.
const FALL: Duration = Duration::from_secs(1);

/// One daemon's end. Clones share it.
#[derive(Clone)]
pub struct Drain {
    inner: Arc<Inner>,
}

struct Inner {
    grace: Duration,
    cause: OnceLock<Cause>,
    draining: Moment,
    forced: CancellationToken,
    over: Moment,
}

/// A moment that many wait for beside something else.
#[derive(Default)]
struct Moment {
    /// What the token says, without its lock.
    has_come: AtomicBool,
    token: CancellationToken,
}

impl Moment {
    fn come(&self) {
        self.has_come.store(true, Ordering::Release);
        self.token.cancel();
    }

    /// Waits for it. Who polls this at every turn of something else pays for a look at a flag, but
    /// for the first time in a task.
    async fn wait(&self) {
        let mut token = pin!(self.token.cancelled());
        let mut known: Option<Waker> = None;
        poll_fn(|cx| {
            if self.has_come.load(Ordering::Acquire) {
                return Poll::Ready(());
            }
            if known.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
                return Poll::Pending;
            }
            known = Some(cx.waker().clone());
            token.as_mut().poll(cx)
        })
        .await;
    }
}

/// Why a drain began.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// SIGTERM: a service manager or a parent wants the process gone.
    Terminated,
    /// SIGINT: Ctrl-C.
    Interrupted,
    /// The program itself asked for it.
    Requested,
    /// A task without which the daemon is nothing came to an end.
    TaskEnded(&'static str),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Terminated => f.write_str("SIGTERM"),
            Self::Interrupted => f.write_str("SIGINT"),
            Self::Requested => f.write_str("asked to stop"),
            Self::TaskEnded(name) => write!(f, "the task `{name}` ended"),
        }
    }
}

/// How a drain went.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Drained {
    /// Why it began.
    pub cause: Cause,
    /// What was still running when the grace ended; empty after a graceful end.
    pub dropped: Vec<(&'static str, usize)>,
    /// What did not even fall when it was dropped: threads that ignore the drain, tasks that
    /// block.
    pub stuck: Vec<(&'static str, usize)>,
}

impl Drained {
    /// Whether everything came to its own end.
    pub fn is_graceful(&self) -> bool {
        self.dropped.is_empty()
    }
}

impl Drain {
    /// A drain that has not begun; `grace` is what work in flight will get.
    pub fn new(grace: Duration) -> Self {
        let inner = Inner {
            grace,
            cause: OnceLock::new(),
            draining: Moment::default(),
            forced: CancellationToken::new(),
            over: Moment::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Begins the drain. The first cause counts, later ones are without effect.
    pub fn trigger(&self, cause: Cause) {
        if self.inner.cause.set(cause).is_ok() {
            tracing::info!(%cause, grace = ?self.inner.grace, "draining");
            self.inner.draining.come();
        }
    }

    /// Ends the grace at once.
    pub fn force(&self) {
        self.inner.forced.cancel();
    }

    /// Begins the drain at SIGTERM or SIGINT; the next signal after that ends it at once.
    pub fn watch_signals(&self, tasks: &Tasks) -> io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let drain = self.clone();
        // Not counted among what the drain waits for: it has no end of its own.
        tasks.spawn_uncounted("signals", async move {
            loop {
                let cause = tokio::select! {
                    Some(()) = terminate.recv() => Cause::Terminated,
                    Some(()) = interrupt.recv() => Cause::Interrupted,
                };
                if drain.is_draining() {
                    tracing::warn!(%cause, "a second signal: ending at once");
                    drain.force();
                }
                drain.trigger(cause);
            }
        });
        Ok(())
    }

    /// Whether the drain has begun.
    pub fn is_draining(&self) -> bool {
        self.inner.draining.has_come.load(Ordering::Acquire)
    }

    /// Why it began, if it has.
    pub fn cause(&self) -> Option<Cause> {
        self.inner.cause.get().copied()
    }

    /// Waits for the drain to begin.
    pub async fn draining(&self) {
        self.inner.draining.wait().await;
    }

    /// Waits for the drain to be over.
    pub async fn over(&self) {
        self.inner.over.wait().await;
    }

    /// A token that is cancelled when the drain begins, for libraries that want one.
    pub fn token(&self) -> &CancellationToken {
        &self.inner.draining.token
    }

    /// The last line of a main: waits for the drain to begin, gives `tasks` their grace, drops
    /// what is left and says how it went.
    pub async fn conclude(&self, tasks: &Tasks) -> Drained {
        self.draining().await;
        tokio::select! {
            biased;
            () = tasks.idle() => {}
            () = self.inner.forced.cancelled() => {}
            () = tokio::time::sleep(self.inner.grace) => {}
        }
        let dropped = tasks.names();
        self.inner.over.come();
        let stuck = match tokio::time::timeout(FALL, tasks.idle()).await {
            Ok(()) => Vec::new(),
            Err(_) => tasks.names(),
        };
        let drained = Drained { cause: self.cause().unwrap_or(Cause::Requested), dropped, stuck };
        if drained.is_graceful() {
            tracing::info!("shutdown completed gracefully");
        } else {
            tracing::warn!(dropped = ?drained.dropped, stuck = ?drained.stuck, "the grace ended");
        }
        drained
    }
}

impl fmt::Debug for Drain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drain").field("cause", &self.cause()).finish_non_exhaustive()
    }
}

/// The parent was gone before its death could be watched.
#[derive(Debug, thiserror::Error)]
pub enum Orphan {
    /// The parent is not the process that it should be.
    #[error("the parent process {expected} has ended")]
    ParentGone {
        /// The parent's process id.
        expected: u32,
    },
    /// The system call failed.
    #[error("cannot ask to be told of the parent's death")]
    System(#[from] io::Error),
}

impl crate::Hint for Orphan {}

/// From now on this process is killed when its parent ends, even if that was killed itself:
/// children of `baton up` never outlive it.
///
/// `parent` is the parent's process id, handed down by it: a parent that died before this call
/// would never be noticed otherwise. The kernel watches the *thread* that started this process;
/// so the parent must start its children from a thread that lives as long as it does.
pub fn die_with_parent(parent: u32) -> Result<(), Orphan> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(io::Error::from)?;
    let now = getppid().map(Pid::as_raw_nonzero).map(|pid| pid.get() as u32);
    if now == Some(parent) { Ok(()) } else { Err(Orphan::ParentGone { expected: parent }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    const GRACE: Duration = Duration::from_secs(10);

    fn start() -> (Drain, Tasks) {
        let drain = Drain::new(GRACE);
        let tasks = Tasks::new(&drain, 16);
        (drain, tasks)
    }

    #[tokio::test(start_paused = true)]
    async fn work_in_flight_finishes_within_the_grace() {
        let (drain, tasks) = start();
        let (done, finished) = oneshot::channel();
        let watched = drain.clone();
        tasks.spawn("request", async move {
            watched.draining().await;
            tokio::time::sleep(GRACE / 2).await;
            done.send(()).expect("somebody waits");
        });
        drain.trigger(Cause::Requested);
        drain.trigger(Cause::Terminated);
        let drained = drain.conclude(&tasks).await;
        finished.await.expect("the request finished");
        assert!(drained.is_graceful());
        assert_eq!(drained.cause, Cause::Requested);
    }

    #[tokio::test(start_paused = true)]
    async fn what_outlasts_the_grace_is_dropped_and_named() {
        let (drain, tasks) = start();
        let began = tokio::time::Instant::now();
        tasks.spawn("endless", std::future::pending::<()>());
        drain.trigger(Cause::Requested);
        let drained = drain.conclude(&tasks).await;
        assert_eq!(began.elapsed(), GRACE);
        assert_eq!(drained.dropped, [("endless", 1)]);
        assert_eq!(drained.stuck, []);
        assert_eq!(tasks.running(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn force_ends_the_grace_at_once() {
        let (drain, tasks) = start();
        let began = tokio::time::Instant::now();
        tasks.spawn("endless", std::future::pending::<()>());
        drain.trigger(Cause::Requested);
        drain.force();
        drain.conclude(&tasks).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
