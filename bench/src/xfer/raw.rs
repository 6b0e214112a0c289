//! The limit of sockets: plain streams between two processes, without frames, checks or slots.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

/// Bytes of one system call; more is no faster.
const CALL_BYTES: usize = 256 << 10;
/// A stream on which nothing moves for so long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sends as many bytes as it is asked for, from memory that no cache holds. Ends when dropped.
pub(super) struct Source {
    address: SocketAddr,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Source {
    /// Listens at a free port; the streams share `bytes` of memory.
    pub(super) fn listen(ip: IpAddr, bytes: usize) -> std::io::Result<Self> {
        let listener = TcpListener::bind((ip, 0))?;
        let address = listener.local_addr()?;
        let over = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&over);
        let accept = move || {
            // Made when the first stream comes: most measurements of other things have none.
            let mut memory: Option<Arc<Vec<u8>>> = None;
            let mut senders: Vec<JoinHandle<()>> = Vec::new();
            while let Ok((stream, _)) = listener.accept() {
                if stop.load(Ordering::Acquire) {
                    break;
                }
                senders.retain(|sender| !sender.is_finished());
                let memory = memory.get_or_insert_with(|| Arc::new(vec![0x5a; bytes]));
                let memory = Arc::clone(memory);
                // The end of a stream is the caller's business; it sees it, too.
                let send = move || drop(send(stream, &memory));
                senders.extend(Builder::new().name("raw-send".into()).spawn(send).ok());
            }
        };
        let thread = Builder::new().name("raw-accept".into()).spawn(accept)?;
        Ok(Self { address, over, thread: Some(thread) })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        // Wakes it.
        let woken = TcpStream::connect_timeout(&self.address, PATIENCE).is_ok();
        if let (true, Some(thread)) = (woken, self.thread.take()) {
            let _ = thread.join();
        }
    }
}

/// As the transport does: on loopback an algorithm that paces by timers would make the limit lower
/// than it is.
fn unpace(stream: &TcpStream) {
    if stream.peer_addr().is_ok_and(|peer| peer.ip().to_canonical().is_loopback()) {
        // Built into every kernel and free for everybody.
        let _ = rustix::net::sockopt::set_tcp_congestion(stream, "reno");
    }
}

/// Serves one stream: where to begin and how much to send, then the bytes, again and again.
fn send(mut stream: TcpStream, memory: &[u8]) -> std::io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    unpace(&stream);
    let mut ask = [0; 16];
    loop {
        stream.read_exact(&mut ask)?;
        let [at, bytes] = halves(&ask);
        for_each_call(memory.len(), at, bytes, |range| stream.write_all(&memory[range]))?;
    }
}

/// One stream's receiving end.
pub(super) struct Sink {
    stream: TcpStream,
    memory: Vec<u8>,
    at: usize,
    first: usize,
}

impl Sink {
    /// Connects; the bytes come from and go to the `share`-th of `shares` parts of a working set.
    pub(super) fn connect(
        address: SocketAddr,
        working_set: usize,
        share: usize,
        shares: usize,
    ) -> std::io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        unpace(&stream);
        let len = (working_set / shares).max(CALL_BYTES);
        Ok(Self { stream, memory: vec![0xa5; len], at: 0, first: share * len })
    }

    /// Receives `step` bytes as often as `goes_on` says; how many in all. The source is always one
    /// step ahead, so that it never waits.
    pub(super) fn receive(
        &mut self,
        step: usize,
        mut goes_on: impl FnMut() -> bool,
    ) -> std::io::Result<u64> {
        let (mut asked, mut received) = (0, 0);
        loop {
            let more = goes_on();
            if more {
                self.ask(step, asked)?;
                asked += step;
            }
            // Of the first step there is nothing to receive before the second is asked for.
            if asked > step || !more {
                if received == asked {
                    return Ok(received as u64);
                }
                let Self { stream, memory, at, .. } = self;
                let len = memory.len();
                for_each_call(len, *at, step, |range| stream.read_exact(&mut memory[range]))?;
                *at = (*at + step) % len;
                received += step;
            }
        }
    }

    fn ask(&mut self, step: usize, ahead: usize) -> std::io::Result<()> {
        let mut ask = [0; 16];
        ask[..8].copy_from_slice(&((self.first + ahead) as u64).to_le_bytes());
        ask[8..].copy_from_slice(&(step as u64).to_le_bytes());
        self.stream.write_all(&ask)
    }
}

fn halves(ask: &[u8; 16]) -> [usize; 2] {
    let half = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&ask[at..at + 8]);
        usize::try_from(u64::from_le_bytes(bytes)).unwrap_or(usize::MAX)
    };
    [half(0), half(8)]
}

/// Goes through memory in a ring, in pieces of a system call.
fn for_each_call(
    len: usize,
    at: usize,
    mut left: usize,
    mut call: impl FnMut(std::ops::Range<usize>) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let mut at = at % len;
    while left > 0 {
        let piece = left.min(CALL_BYTES).min(len - at);
        call(at..at + piece)?;
        left -= piece;
        at = (at + piece) % len;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn all_bytes_come_and_both_ends_end() {
        let source = Source::listen([127, 0, 0, 1].into(), 3 << 20).unwrap();
        let mut sinks: Vec<_> = (0..2)
            .map(|share| Sink::connect(source.address(), 3 << 20, share, 2).unwrap())
            .collect();
        for sink in &mut sinks {
            for (step, steps) in [(100_001, 1), (512 << 10, 3), (1, 2)] {
                let mut left = steps;
                let received = sink.receive(step, || {
                    left -= 1;
                    left >= 0
                });
                assert_eq!(received.unwrap(), (step * steps as usize) as u64);
            }
            assert!(sink.memory.iter().all(|byte| *byte == 0x5a));
        }
        drop(sinks);
        drop(source);
    }

    #[test]
    fn the_ring_is_covered_without_a_gap() {
        let mut covered = Vec::new();
        for_each_call(1000, 700, 2500, |range| {
            covered.extend(range);
            Ok(())
        })
        .unwrap();
        assert_eq!(covered, (700..3200).map(|at| at % 1000).collect::<Vec<_>>());
    }
}
