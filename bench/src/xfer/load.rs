//! Threads that keep cores busy.

use baton_node::exit::{Exit, Failure};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};

/// Busy threads, until it is dropped.
pub(super) struct Load {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    pub(super) fn start(threads: u16) -> Result<Self, Failure> {
        let mut load = Self { over: Arc::default(), threads: Vec::new() };
        for _ in 0..threads {
            let over = Arc::clone(&load.over);
            let spin = move || {
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            };
            let thread = Builder::new().name("load".to_owned()).spawn(spin);
            load.threads.push(thread.map_err(|error| {
                Failure::new(Exit::Unavailable, format!("--load {threads}: {error}"))
            })?);
        }
        Ok(load)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A loop without a body does not panic.
            let _ = thread.join();
        }
    }
}
