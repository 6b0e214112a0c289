//! The stream to one decode worker, shared by all requests that run there.
//!
//! Outward, submissions wait in a bounded queue; cancellations cannot be refused, and are bounded
//! because each belongs to a request that was submitted. Inward, each update goes to its request's
//! [`Inbox`], which never blocks: one request cannot hold up another.

use super::inbox::{Failure, Inbox, NewTokens, Update};
use baton_proto::ids::{Incarnation, RequestId, WorkerId};
use baton_proto::internal::{
    Cancel, DecodeFrame, Failed, Finished, RouterFrame, SequenceUpdate, Submit, failed, finished,
    router_frame, sequence_update,
};
use baton_proto::ir::FinishReason;
use futures_util::Stream;
use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// One attachment to a decode worker; a new one is made when the stream is lost.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) worker: WorkerId,
    pub(crate) incarnation: Incarnation,
    pub(crate) name: String,
    submits_max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    routes: HashMap<RequestId, Arc<Inbox>>,
    submits: VecDeque<(RequestId, Submit)>,
    cancels: VecDeque<Cancel>,
    waker: Option<Waker>,
    closed: bool,
    /// The worker has refused a request because it is going down: what runs there goes on.
    draining: bool,
}

/// Why a request was not sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refused {
    /// The stream is gone.
    Closed,
    /// Too many submissions wait for it.
    Full,
}

impl Link {
    pub(crate) fn new(
        worker: WorkerId,
        incarnation: Incarnation,
        name: String,
        submits_max: usize,
    ) -> Self {
        Self { worker, incarnation, name, submits_max, state: Mutex::default() }
    }

    /// Sends a request and routes what the worker says about it to the result.
    pub(crate) fn submit(
        self: &Arc<Self>,
        id: RequestId,
        submit: Submit,
        inbox: Inbox,
    ) -> Result<Route, Refused> {
        let inbox = Arc::new(inbox);
        let waker = {
            let mut state = self.lock();
            if state.closed {
                return Err(Refused::Closed);
            }
            if state.submits.len() >= self.submits_max {
                return Err(Refused::Full);
            }
            state.routes.insert(id, inbox.clone());
            state.submits.push_back((id, submit));
            state.waker.take()
        };
        wake(waker);
        Ok(Route { link: self.clone(), id, inbox, over: false })
    }

    /// Hands the worker's news to the requests they are about. News about requests that are over
    /// are in the nature of a stream and ignored.
    pub(crate) fn deliver(&self, frame: DecodeFrame) {
        for update in frame.updates {
            let Some(id) = RequestId::from_slice(&update.request_id) else { continue };
            let Some(inbox) = self.lock().routes.get(&id).cloned() else { continue };
            let Some(update) = translate(update) else { continue };
            if update == Update::Failed(Failure::Draining) {
                self.lock().draining = true;
            }
            if inbox.push(update).is_err() {
                inbox.fail(Failure::Overrun);
            }
        }
    }

    /// The stream is lost: every request on it is told, and no further one is taken.
    pub(crate) fn close(&self, cause: &str) {
        let routes = {
            let mut state = self.lock();
            state.closed = true;
            state.submits.clear();
            state.cancels.clear();
            std::mem::take(&mut state.routes)
        };
        for inbox in routes.into_values() {
            inbox.fail(Failure::Lost(cause.to_owned()));
        }
    }

    /// Whether the worker has said that it takes nothing new.
    pub(crate) fn is_draining(&self) -> bool {
        self.lock().draining
    }

    /// Requests that run here on behalf of this router.
    #[cfg(test)]
    fn in_flight(&self) -> usize {
        self.lock().routes.len()
    }

    /// What is to be sent to the worker; read by the one stream of this link.
    pub(crate) fn outgoing(self: &Arc<Self>) -> Outgoing {
        Outgoing(self.clone())
    }

    fn cancel(&self, id: RequestId, choice: Option<u16>) {
        let waker = {
            let mut state = self.lock();
            let whole = choice.is_none();
            if whole {
                state.routes.remove(&id);
                let waiting = state.submits.iter().position(|(waiting, _)| *waiting == id);
                if waiting.is_some_and(|at| state.submits.remove(at).is_some()) {
                    return;
                }
            }
            if state.closed {
                return;
            }
            let choice = choice.map(u32::from);
            state.cancels.push_back(Cancel { request_id: id.to_bytes().to_vec(), choice });
            state.waker.take()
        };
        wake(waker);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request's place on a link. Dropping it cancels the request, unless it is over.
#[derive(Debug)]
pub(crate) struct Route {
    link: Arc<Link>,
    id: RequestId,
    inbox: Arc<Inbox>,
    over: bool,
}

impl Route {
    /// The worker's next news about the request.
    pub(crate) async fn recv(&self) -> Update {
        self.inbox.recv().await
    }

    /// The same for whoever is polled.
    pub(crate) fn poll_recv(&self, cx: &Context<'_>) -> Poll<Update> {
        self.inbox.poll_recv(cx)
    }

    /// Ends one of several choices.
    pub(crate) fn cancel_choice(&self, choice: u16) {
        self.link.cancel(self.id, Some(choice));
    }

    /// The worker has said its last word about the request: nothing is left to cancel.
    pub(crate) fn complete(&mut self) {
        self.over = true;
        self.link.lock().routes.remove(&self.id);
    }

    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.link
    }
}

impl Drop for Route {
    fn drop(&mut self) {
        if !self.over {
            self.link.cancel(self.id, None);
        }
    }
}

/// The frames to a worker; ends when the link is closed.
#[derive(Debug)]
pub(crate) struct Outgoing(Arc<Link>);

impl Stream for Outgoing {
    type Item = RouterFrame;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<RouterFrame>> {
        let mut state = self.0.lock();
        // Cancellations first: they free what submissions need, and a request that is still
        // waiting here is cancelled by taking it out.
        let frame = match state.cancels.pop_front() {
            Some(cancel) => Some(router_frame::Frame::Cancel(cancel)),
            None => {
                state.submits.pop_front().map(|(_, submit)| router_frame::Frame::Submit(submit))
            }
        };
        if frame.is_some() {
            return Poll::Ready(Some(RouterFrame { frame }));
        }
        if state.closed {
            return Poll::Ready(None);
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// From the wire; `None` for what this version does not know.
fn translate(update: SequenceUpdate) -> Option<Update> {
    let choice = u16::try_from(update.choice).ok()?;
    Some(match update.update? {
        sequence_update::Update::Admitted(_) => Update::Admitted,
        sequence_update::Update::Tokens(tokens) => {
            let mut logprobs = tokens.logprobs;
            if !logprobs.is_empty() {
                logprobs.resize_with(tokens.ids.len(), Default::default);
            }
            Update::Tokens(NewTokens { choice, ids: tokens.ids, logprobs, report: tokens.report })
        }
        sequence_update::Update::Finished(Finished { reason, report }) => {
            let reason = match finished::Reason::try_from(reason).ok()? {
                finished::Reason::Length => FinishReason::Length,
                finished::Reason::Stop | finished::Reason::Unspecified => FinishReason::Stop,
            };
            Update::Finished { choice, reason, report }
        }
        sequence_update::Update::Failed(failed) => Update::Failed(failure(failed)),
    })
}

fn failure(failed: Failed) -> Failure {
    match failed::Kind::try_from(failed.kind).unwrap_or_default() {
        failed::Kind::Overloaded => Failure::Overloaded(failed.message),
        failed::Kind::Deadline => Failure::Deadline,
        failed::Kind::TooLarge => Failure::TooLarge(failed.message),
        failed::Kind::Invalid => Failure::Invalid(failed.message),
        failed::Kind::Draining => Failure::Draining,
        failed::Kind::Internal | failed::Kind::Unspecified => Failure::Internal(failed.message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{FutureExt, StreamExt};

    fn link(submits_max: usize) -> Arc<Link> {
        Arc::new(Link::new(WorkerId(1), Incarnation(1), "d1".to_owned(), submits_max))
    }

    fn send(link: &Arc<Link>, id: u128) -> Result<Route, Refused> {
        let id = RequestId(id);
        let submit = Submit { request_id: id.to_bytes().to_vec(), ..Submit::default() };
        link.submit(id, submit, Inbox::new(1, 16))
    }

    fn sent(out: &mut Outgoing) -> Option<router_frame::Frame> {
        out.next().now_or_never().flatten().and_then(|frame| frame.frame)
    }

    #[test]
    fn dropping_a_sent_request_cancels_it() {
        let link = link(4);
        let mut out = link.outgoing();
        let route = send(&link, 7).expect("room");
        assert!(matches!(sent(&mut out), Some(router_frame::Frame::Submit(_))));
        drop(route);
        let Some(router_frame::Frame::Cancel(cancel)) = sent(&mut out) else {
            panic!("no cancellation")
        };
        assert_eq!((cancel.request_id, cancel.choice), (RequestId(7).to_bytes().to_vec(), None));
        assert_eq!(link.in_flight(), 0);
    }

    #[test]
    fn a_request_that_was_not_sent_yet_is_never_sent() {
        let link = link(4);
        drop(send(&link, 7).expect("room"));
        assert_eq!(sent(&mut link.outgoing()), None);
    }

    #[test]
    fn a_complete_request_is_not_cancelled() {
        let link = link(4);
        let mut out = link.outgoing();
        let mut route = send(&link, 7).expect("room");
        assert!(sent(&mut out).is_some());
        route.complete();
        drop(route);
        assert_eq!(sent(&mut out), None);
    }

    #[test]
    fn submissions_are_bounded_and_cancellations_never_refused() {
        let link = link(1);
        let mut out = link.outgoing();
        let first = send(&link, 1).expect("room");
        assert_eq!(send(&link, 2).err(), Some(Refused::Full));
        assert!(sent(&mut out).is_some());
        let _second = send(&link, 2).expect("room again");
        drop(first);
        assert!(matches!(sent(&mut out), Some(router_frame::Frame::Cancel(_))));
    }

    #[test]
    fn one_refusal_for_a_drain_marks_the_link() {
        let link = link(4);
        let route = send(&link, 1).expect("room");
        assert!(!link.is_draining());
        let failed = Failed { kind: failed::Kind::Draining as i32, message: String::new() };
        let update = SequenceUpdate {
            request_id: RequestId(1).to_bytes().to_vec(),
            choice: 0,
            update: Some(sequence_update::Update::Failed(failed)),
        };
        link.deliver(DecodeFrame { updates: vec![update] });
        assert!(link.is_draining());
        assert_eq!(route.recv().now_or_never(), Some(Update::Failed(Failure::Draining)));
    }

    #[test]
    fn closing_tells_every_request_and_takes_no_more() {
        let link = link(4);
        let route = send(&link, 1).expect("room");
        link.close("reset");
        let told = route.recv().now_or_never();
        assert_eq!(told, Some(Update::Failed(Failure::Lost("reset".to_owned()))));
        assert_eq!(send(&link, 2).err(), Some(Refused::Closed));
    }
}
