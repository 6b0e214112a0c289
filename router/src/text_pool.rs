//! The threads that parse, render and tokenise, so that a long prompt does not hold up the streams
//! of others: a fixed number, with a bounded queue.

use crate::error::TurnError;
use baton_node::Tasks;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};
use tokio::sync::oneshot;
use tokio::time::Instant;

type Job = Box<dyn FnOnce() + Send>;

/// The threads. They end when the pool is closed.
pub(crate) struct TextPool {
    jobs: Mutex<Option<flume::Sender<Job>>>,
}

impl TextPool {
    /// Starts `threads` threads; at most `queue_max` jobs wait for one.
    pub(crate) fn start(tasks: &Tasks, threads: usize, queue_max: usize) -> io::Result<Self> {
        let (jobs, queue) = flume::bounded::<Job>(queue_max);
        for _ in 0..threads {
            let queue = queue.clone();
            tasks.spawn_thread("text", move || {
                for job in queue {
                    // A panic over one request's text costs that request: its result never comes.
                    let _ = catch_unwind(AssertUnwindSafe(job));
                }
            })?;
        }
        Ok(Self { jobs: Mutex::new(Some(jobs)) })
    }

    /// Runs `work` on one of the threads, and waits for it until the deadline. Work whose result
    /// nobody waits for any more is skipped.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        deadline: Instant,
        work: impl FnOnce() -> Result<T, TurnError> + Send + 'static,
    ) -> Result<T, TurnError> {
        let (done, result) = oneshot::channel();
        let job = move || {
            if !done.is_closed() {
                let _ = done.send(work());
            }
        };
        match self.lock().as_ref().map(|jobs| jobs.try_send(Box::new(job))) {
            Some(Ok(())) => {}
            Some(Err(_)) => return Err(TurnError::Overloaded("too many prompts wait".to_owned())),
            None => return Err(TurnError::Draining),
        }
        let defect = "a defect was hit while the prompt was prepared";
        match tokio::time::timeout_at(deadline, result).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(TurnError::Internal(defect.to_owned())),
            Err(_) => Err(TurnError::Deadline),
        }
    }

    /// Ends the threads after the jobs that wait.
    pub(crate) fn close(&self) {
        self.lock().take();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<flume::Sender<Job>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_node::Drain;
    use std::time::Duration;

    fn later() -> Instant {
        Instant::now() + Duration::from_mins(1)
    }

    #[tokio::test]
    async fn a_panic_costs_one_job_and_closing_ends_the_threads() {
        let tasks = Tasks::new(&Drain::new(Duration::from_secs(1)), 8);
        let pool = TextPool::start(&tasks, 1, 8).expect("threads");
        let broken: Result<(), _> = pool.run(later(), || panic!("a defect")).await;
        assert!(matches!(broken, Err(TurnError::Internal(_))), "{broken:?}");
        assert_eq!(pool.run(later(), || Ok(3)).await, Ok(3));
        pool.close();
        tasks.idle().await;
        assert_eq!(pool.run(later(), || Ok(3)).await, Err(TurnError::Draining));
    }

    #[tokio::test]
    async fn waiting_for_a_thread_ends_at_the_deadline_and_the_work_is_skipped() {
        let tasks = Tasks::new(&Drain::new(Duration::from_secs(1)), 8);
        let pool = TextPool::start(&tasks, 1, 4).expect("a thread");
        let (begun, begins) = oneshot::channel();
        let (release, released) = std::sync::mpsc::sync_channel(1);
        let mut running = Box::pin(pool.run(later(), move || {
            let _ = begun.send(());
            released.recv().map_err(|_| TurnError::Draining)
        }));
        assert!(futures_util::poll!(&mut running).is_pending());
        begins.await.expect("the thread took it");
        let (ran, runs) = oneshot::channel();
        let soon = Instant::now() + Duration::from_millis(5);
        let late = pool.run(soon, move || {
            let _ = ran.send(());
            Ok(2)
        });
        assert_eq!(late.await, Err(TurnError::Deadline));
        release.send(1).expect("the thread listens");
        assert_eq!(running.await, Ok(1));
        assert!(runs.await.is_err(), "nobody waits for it any more");
    }

    #[tokio::test]
    async fn the_queue_is_bounded() {
        let tasks = Tasks::new(&Drain::new(Duration::from_secs(1)), 8);
        let pool = TextPool::start(&tasks, 1, 1).expect("a thread");
        let (begun, begins) = oneshot::channel();
        let (release, released) = std::sync::mpsc::sync_channel(1);
        let mut running = Box::pin(pool.run(later(), move || {
            let _ = begun.send(());
            released.recv().map_err(|_| TurnError::Draining)
        }));
        assert!(futures_util::poll!(&mut running).is_pending());
        begins.await.expect("the thread took it");
        let mut waiting = Box::pin(pool.run(later(), || Ok(2)));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        assert!(matches!(pool.run(later(), || Ok(3)).await, Err(TurnError::Overloaded(_))));
        release.send(1).expect("the thread listens");
        assert_eq!((running.await, waiting.await), (Ok(1), Ok(2)));
    }
}
