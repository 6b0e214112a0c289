//! The pulling side of one connection: batches of requests ahead, answers straight into the arena.

use super::batch::Batch;
use super::job::Job;
use super::links::{Link, Links};
use crate::{Peer, TransferError};
use std::collections::VecDeque;
use std::sync::Arc;

/// Requests on their way on one connection, at most: they fit the buffers of any socket, so that
/// sending one cannot wait for an owner who in turn waits for answers to be read.
const REQUESTS: usize = 256;
/// Parts of the window that are asked for at a time: with a few on their way, the owner always has
/// one to send while another is being asked for.
const BATCHES: usize = 4;

/// Fetches over one connection what a job still has to ask for.
pub(super) struct Fetcher {
    pub(super) job: Arc<Job>,
    pub(super) links: Arc<Links>,
    pub(super) peer: Peer,
    pub(super) slot_bytes: usize,
    pub(super) window_bytes: usize,
}

impl Fetcher {
    /// Fetches until nothing is left to ask for. An error stands for what was on its way.
    pub(super) async fn fetch(&self) -> Result<(), TransferError> {
        if self.job.is_asked() {
            return Ok(());
        }
        let Some(mut link) = self.open(false).await? else { return Ok(()) };
        let mut outcome = self.pipeline(&mut link).await;
        // A kept connection may have ended since; that is no reason to fail, if it said nothing.
        if let Err((TransferError::Lost { .. }, Some(unanswered))) = &mut outcome
            && link.reused
        {
            self.job.put_back(unanswered.drain(..).flat_map(Batch::into_units));
            drop(link);
            let Some(again) = self.open(true).await? else { return Ok(()) };
            link = again;
            outcome = self.pipeline(&mut link).await;
        }
        outcome.map_err(|(error, _)| error)?;
        // Only after the last answer is it known that nothing more will come.
        link.keep();
        Ok(())
    }

    /// A connection; `None` if others have asked for the rest while this waited for its turn, which
    /// may be that of a much larger pull.
    async fn open(&self, fresh: bool) -> Result<Option<Link>, TransferError> {
        let turn = tokio::select! {
            biased;
            turn = self.links.turn(&self.peer) => turn?,
            () = self.job.all_asked() => return Ok(None),
        };
        if self.job.is_asked() {
            return Ok(None);
        }
        self.links.open(turn, self.slot_bytes, fresh).await.map(Some)
    }

    /// Keeps up to a window on its way, and takes the answers in order. With an error come the
    /// batches that were asked for, if nothing was answered.
    async fn pipeline(
        &self,
        link: &mut Link,
    ) -> Result<(), (TransferError, Option<VecDeque<Batch>>)> {
        let mut asked = Asked::default();
        loop {
            let outcome = self.step(link, &mut asked).await;
            match outcome {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) => return Err((error, (!asked.heard).then_some(asked.batches))),
            }
        }
    }

    /// Asks for as much as the window allows and takes one batch of answers. False if there is
    /// nothing left to do.
    async fn step(&self, link: &mut Link, asked: &mut Asked) -> Result<bool, TransferError> {
        self.ask(link, asked).await?;
        if asked.batches.is_empty() {
            return Ok(false);
        }
        while !asked.batches[0].digest()? {
            asked.receive(link).await?;
        }
        if let Some(batch) = asked.batches.pop_front() {
            asked.bytes -= batch.bytes();
            asked.answered += batch.bytes();
            asked.units -= batch.units();
            batch.settle(&self.job, link.stream.is_direct());
        }
        // A connection on which there always is something to read leaves room for other tasks.
        if asked.answered >= super::YIELD_BYTES {
            asked.answered = 0;
            tokio::task::yield_now().await;
        }
        Ok(true)
    }

    async fn ask(&self, link: &mut Link, asked: &mut Asked) -> Result<(), TransferError> {
        let each = self.window_bytes.div_ceil(BATCHES);
        asked.requests.clear();
        while asked.bytes + each <= self.window_bytes.max(each) && asked.batches.len() < BATCHES {
            let units = self.job.take(each);
            if units.is_empty() {
                break;
            }
            let batch = Batch::ask(units, asked.next, &mut asked.requests);
            asked.next = asked.next.wrapping_add(batch.units() as u32);
            asked.bytes += batch.bytes();
            asked.units += batch.units();
            asked.batches.push_back(batch);
        }
        debug_assert!(asked.units <= REQUESTS);
        if asked.requests.is_empty() {
            return Ok(());
        }
        link.stream.write_all(&asked.requests).await.map_err(|error| TransferError::lost(&error))
    }
}

/// What is on its way over a connection.
#[derive(Default)]
struct Asked {
    batches: VecDeque<Batch>,
    bytes: usize,
    units: usize,
    /// Bytes that came since other tasks had their turn.
    answered: usize,
    /// Number of the next request.
    next: u32,
    /// Whether anything was answered.
    heard: bool,
    requests: Vec<u8>,
}

impl Asked {
    /// One read: into what the first batch waits for, and the heads of the second.
    async fn receive(&mut self, link: &mut Link) -> Result<(), TransferError> {
        let (first, second) = self.batches.as_mut_slices();
        let mut batches = first.iter_mut().chain(second);
        let Some(first) = batches.next() else { return Ok(()) };
        let mut second = batches.next();
        let mut slices = Vec::with_capacity(first.units() + 2);
        if first.offer(&mut slices)
            && let Some(second) = &mut second
        {
            second.offer_heads(&mut slices);
        }
        // The heads of what was asked for, and what accepted ones announced, will come.
        let certain = slices.iter().map(|slice| slice.len()).sum();
        let read = link.stream.read(&mut slices, certain).await;
        let read = read.map_err(|error| TransferError::lost(&error))?;
        self.heard = true;
        let beyond = first.advance(read);
        if let Some(second) = second {
            second.advance_heads(beyond);
        }
        Ok(())
    }
}
