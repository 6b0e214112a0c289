//! The owner's side of one connection: a batch of requests in, a batch of answers out.

use super::server::Host;
use super::stream::{More, Stream};
use crate::guards::Guard;
use crate::serve::resolve;
use crate::wire::{BATCH_REQUESTS, BlockHead, Extent, Fetch};
use crate::{Op, Refused, Span, TransportKind};
use baton_arena::{RECORD_BYTES, ReadGuard, crc32c};
use baton_kv::lease::ReadPin;
use std::io::{self, IoSlice, IoSliceMut};
use tokio::time::timeout;

/// Bytes of a full batch of requests.
const BATCH_BYTES: usize = BATCH_REQUESTS * Fetch::BYTES;

/// Answers requests until the peer leaves, is silent for too long, or this process shuts down.
/// Requests that were read by then are still answered.
pub(super) async fn serve(stream: &mut Stream, host: &Host) -> io::Result<()> {
    let mut requests = Requests { buffer: vec![0; 2 * BATCH_BYTES].into(), filled: 0 };
    // Records are read after their payloads were sent. They go out together with the next batch,
    // or alone behind the last one.
    let mut records = Vec::new();
    let mut sent = 0;
    loop {
        let batch = match requests.next(host)? {
            Some(batch) => batch,
            None if requests.read_now(stream)? => continue,
            None => {
                if !records.is_empty() {
                    send(stream, host, &mut [IoSlice::new(&records)], More::No).await?;
                    records.clear();
                }
                let read = tokio::select! {
                    biased;
                    () = host.context.shutdown.cancelled() => return Ok(()),
                    read = timeout(host.limits.idle, requests.read(stream)) => read?,
                };
                match read {
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                    other => other?,
                }
                continue;
            }
        };
        sent += answer(stream, host, &batch, &mut records).await?;
        // A peer whose requests never cease leaves room for other tasks.
        if sent >= super::YIELD_BYTES {
            sent = 0;
            tokio::task::yield_now().await;
        }
    }
}

/// Bytes of requests that have been read and not yet answered.
struct Requests {
    buffer: Box<[u8]>,
    filled: usize,
}

impl Requests {
    /// The next batch, if it is there as a whole.
    fn next(&mut self, host: &Host) -> io::Result<Option<Vec<Fetch>>> {
        let (frames, _) = self.buffer[..self.filled].as_chunks::<{ Fetch::BYTES }>();
        let mut batch = Vec::new();
        for frame in frames {
            let fetch = Fetch::from_bytes(frame, host.context.identity.worker)
                .map_err(|garbled| io::Error::new(io::ErrorKind::InvalidData, garbled.0))?;
            batch.push(fetch);
            if fetch.last {
                let used = batch.len() * Fetch::BYTES;
                self.buffer.copy_within(used..self.filled, 0);
                self.filled -= used;
                return Ok(Some(batch));
            }
            if batch.len() == BATCH_REQUESTS {
                let what = "a batch of more requests than are answered at once";
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
        }
        Ok(None)
    }

    /// Whether more was there already. Without a whole batch there is room for it.
    fn read_now(&mut self, stream: &mut Stream) -> io::Result<bool> {
        match stream.read_now(&mut self.buffer[self.filled..]) {
            Ok(Some(read)) => self.filled += read,
            // The end is noticed when the answers are out.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            other => return Ok(other?.is_some()),
        }
        Ok(true)
    }

    async fn read(&mut self, stream: &mut Stream) -> io::Result<()> {
        let mut room = [IoSliceMut::new(&mut self.buffer[self.filled..])];
        self.filled += stream.read(&mut room, 1).await?;
        Ok(())
    }
}

/// A block that is being sent. The pin keeps it in place until its bytes are with the system.
struct Held {
    pin: ReadPin,
    bytes: ReadGuard,
    span: Span,
}

/// Sends the records of the batch before, then heads and payloads of this one. Its records, which
/// are read when the system has taken its payloads, come to lie in `records`. The payload bytes.
async fn answer(
    stream: &mut Stream,
    host: &Host,
    batch: &[Fetch],
    records: &mut Vec<u8>,
) -> io::Result<usize> {
    let context = &host.context;
    let mut heads = Vec::with_capacity(batch.len() * BlockHead::BYTES);
    let mut held = Vec::with_capacity(batch.len());
    for fetch in batch {
        let result = hold(fetch, host).map(|(block, extent)| {
            held.push(block);
            extent
        });
        heads.extend_from_slice(&BlockHead { number: fetch.number, result }.to_bytes());
    }
    let refused = (batch.len() - held.len()) as u64;
    if refused > 0 {
        context.counters.failed(TransportKind::Tcp, Op::Serve, refused);
    }
    let payloads = held.iter().map(|Held { bytes, span, .. }| &bytes[span.range()]);
    let framing = [records.as_slice(), heads.as_slice()];
    let mut parts: Vec<_> = framing.into_iter().chain(payloads).map(IoSlice::new).collect();
    let more = if held.is_empty() { More::No } else { More::Follows };
    send(stream, host, &mut parts, more).await?;
    records.clear();
    for Held { pin, span, .. } in &held {
        records.extend_from_slice(&context.arena.record(pin.slot().0));
        let len = u64::from(span.len);
        let direct = if stream.is_direct() { len } else { 0 };
        context.counters.moved(TransportKind::Tcp, Op::Serve, len, direct);
    }
    debug_assert_eq!(records.len(), held.len() * RECORD_BYTES);
    Ok(held.iter().map(|held| held.span.range().len()).sum())
}

/// Holds what a request names in place, if all of it still holds.
fn hold(fetch: &Fetch, host: &Host) -> Result<(Held, Extent), Refused> {
    let Fetch { block, span, .. } = fetch;
    let pin = resolve(block, &host.context, host.guards)?;
    if host.guards.on(Guard::Span) && !span.fits(pin.len_bytes()) {
        return Err(Refused::Span);
    }
    let bytes = host.context.arena.read(pin.slot().0);
    let crc = match () {
        () if span.is_whole(block) => pin.crc(),
        () if fetch.summed => crc32c(0, &bytes[span.range()]),
        () => 0,
    };
    Ok((Held { pin, bytes, span: *span }, Extent { len: span.len, crc }))
}

/// Gathers all of `parts` into the socket, within the time that a peer has for a batch.
async fn send(
    stream: &mut Stream,
    host: &Host,
    parts: &mut [IoSlice<'_>],
    more: More,
) -> io::Result<()> {
    timeout(host.limits.send, stream.write(parts, more)).await?
}
