//! Reading again what may change while a daemon runs: SIGHUP, and a list of what is to be read.
//!
//! Whoever has something of the kind registers it at start. Each function says in one clause what
//! is different now; one that fails leaves everything as it was.

use crate::exit::Failure;
use crate::task::Tasks;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::signal::unix::{SignalKind, signal};

type Read = Box<dyn FnMut() -> Result<String, Failure> + Send>;

/// What is read again. Clones share it; it grows at start only.
#[derive(Clone, Default)]
pub struct Reload {
    entries: Arc<Mutex<Vec<(&'static str, Read)>>>,
}

/// What came of reading one thing again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reloaded {
    /// What it is.
    pub what: &'static str,
    /// What is different, or why nothing is.
    pub outcome: Result<String, Failure>,
}

impl Reload {
    /// Nothing is read again yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on this is read again, after all that was registered before. `read` must leave
    /// everything as it is when it fails.
    pub fn register(
        &self,
        what: &'static str,
        read: impl FnMut() -> Result<String, Failure> + Send + 'static,
    ) {
        self.lock().push((what, Box::new(read)));
    }

    /// Reads everything again, one after the other, with a line in the log for each.
    pub fn run(&self) -> Vec<Reloaded> {
        let mut entries = self.lock();
        if entries.is_empty() {
            tracing::info!("nothing of this daemon's configuration is read again while it runs");
        }
        let read = |(what, read): &mut (&'static str, Read)| {
            let outcome = read();
            match &outcome {
                Ok(news) => tracing::info!("{what} read again: {news}"),
                Err(failure) => tracing::error!("{what} stay as they were: {failure}"),
            }
            Reloaded { what, outcome }
        };
        entries.iter_mut().map(read).collect()
    }

    /// Reads everything again at every SIGHUP from now on.
    pub fn watch_signal(&self, tasks: &Tasks) -> io::Result<()> {
        let mut hangup = signal(SignalKind::hangup())?;
        let reload = self.clone();
        // Not counted among what the drain waits for: it has no end of its own.
        tasks.spawn_uncounted("reload", async move {
            while hangup.recv().await.is_some() {
                let reload = reload.clone();
                // Files are read, which may take a while. One that panics is told by the runtime.
                let _ = tokio::task::spawn_blocking(move || reload.run()).await;
            }
        });
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(&'static str, Read)>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what: Vec<_> = self.lock().iter().map(|(what, _)| *what).collect();
        f.debug_tuple("Reload").field(&what).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drain::Drain;
    use crate::exit::Exit;
    use std::time::Duration;
    use tokio::sync::mpsc;

    #[test]
    fn one_that_fails_is_told_and_holds_up_no_other() {
        let reload = Reload::new();
        assert_eq!(reload.run(), []);
        let mut runs = 0;
        reload.register("rules", || Err(Failure::new(Exit::Config, "rules.toml:3:1: no")));
        reload.register("switches", move || {
            runs += 1;
            Ok(format!("run {runs}"))
        });
        for run in 1..=2 {
            let [rules, switches] = &reload.run()[..] else { panic!("two outcomes") };
            assert_eq!((rules.what, switches.what), ("rules", "switches"));
            let failure = rules.outcome.as_ref().expect_err("it fails");
            assert_eq!(failure.to_string(), "rules.toml:3:1: no");
            assert_eq!(switches.outcome, Ok(format!("run {run}")));
        }
    }

    #[tokio::test]
    async fn a_hangup_reads_again_and_ends_nothing() {
        let drain = Drain::new(Duration::from_secs(1));
        let tasks = Tasks::new(&drain, 16);
        let reload = Reload::new();
        let (sender, mut read) = mpsc::channel(4);
        reload.register("this", move || {
            sender.try_send(()).expect("room");
            Ok("done".to_owned())
        });
        reload.watch_signal(&tasks).expect("a handler");
        for _ in 0..2 {
            let pid = rustix::process::getpid();
            rustix::process::kill_process(pid, rustix::process::Signal::HUP).expect("sent");
            let heard = tokio::time::timeout(Duration::from_secs(20), read.recv()).await;
            heard.expect("in time").expect("read again");
        }
        assert!(!drain.is_draining());
    }
}
