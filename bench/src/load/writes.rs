//! `baton bench writes`: what it costs this machine to write a small event to each of many connections,
//! in a thread that does nothing else. No server that sends each event as it comes can take less.

use super::unavailable;
use crate::stats::{Sample, rounded};
use baton_node::clock::{Clock, Monotonic};
use baton_node::exit::Failure;
use clap::Args;
use futures_util::future::try_join_all;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;
use tokio::io::AsyncReadExt;

/// `baton bench writes`
#[derive(Debug, Args)]
pub(crate) struct WritesArgs {
    /// Connections
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    streams: u32,
    /// Events of each
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    events: u32,
    /// From one event of a connection to its next
    #[arg(long, value_name = "MS", default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    interval_ms: u32,
}

/// An event as large as that of a chat's token, in its chunk.
const EVENT: &[u8] = &[b'x'; 250];

/// Measures and prints one JSON object. Of several cores the writer has the first and the reader the last.
pub(crate) fn main(args: &WritesArgs) -> Result<(), Failure> {
    let took = measure(args).map_err(|error| unavailable(&error))?;
    println!(
        "{}",
        json!({"write_us": rounded(took.median()), "write_us_max": rounded(took.max())})
    );
    Ok(())
}

/// The microseconds of a write, burst by burst.
fn measure(args: &WritesArgs) -> io::Result<Sample> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let allowed = sched_getaffinity(None)?;
    let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
    let first = cores.next().unwrap_or(0);
    let last = cores.next_back().unwrap_or(first);
    let streams = args.streams;
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || {
            pin(last)?;
            read(listener, streams)
        });
        pin(first)?;
        let connect = |_| {
            let connection = TcpStream::connect(address)?;
            connection.set_nodelay(true).map(|()| connection)
        };
        let mut connections = (0..streams).map(connect).collect::<io::Result<Vec<_>>>()?;
        let took = write(&mut connections, args);
        drop(connections);
        reader.join().unwrap_or_else(|_| Err(io::Error::other("the reader failed")))?;
        took
    })
}

fn pin(core: usize) -> io::Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    Ok(sched_setaffinity(None, &cores)?)
}

fn write(connections: &mut [TcpStream], args: &WritesArgs) -> io::Result<Sample> {
    let clock = Monotonic::process();
    let interval = Duration::from_millis(args.interval_ms.into());
    let mut due = clock.now();
    let mut took = Vec::new();
    for _ in 0..args.events {
        let before = cpu_time();
        for connection in &mut *connections {
            connection.write_all(EVENT)?;
        }
        let spent = cpu_time().saturating_sub(before);
        took.push(1e6 * spent.as_secs_f64() / f64::from(args.streams));
        due += interval;
        #[expect(
            clippy::disallowed_methods,
            reason = "the pause between bursts is what is asked for"
        )]
        std::thread::sleep(due.saturating_sub(clock.now()));
    }
    Ok(took.into_iter().collect())
}

/// What this thread has computed so far.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// Reads so many connections to their ends.
fn read(listener: TcpListener, streams: u32) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let mut connections = Vec::new();
        for _ in 0..streams {
            connections.push(listener.accept().await?.0);
        }
        let drain = async |mut connection: tokio::net::TcpStream| {
            let mut buffer = [0; 2 * EVENT.len()];
            while connection.read(&mut buffer).await? > 0 {}
            io::Result::Ok(())
        };
        try_join_all(connections.into_iter().map(drain)).await.map(drop)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_burst_is_timed() {
        let args = WritesArgs { streams: 3, events: 10, interval_ms: 0 };
        let took = measure(&args).expect("loopback");
        assert_eq!(took.count(), 10);
        assert!(took.min().is_some_and(|least| least > 0.0));
    }
}
