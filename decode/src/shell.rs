//! Carries out what the schedule wants: frames to routers, calls of prefill workers, pulls.

use crate::event::{Action, Event, PrefillCall, Update};
use crate::prefill_call::PrefillCaller;
use crate::turn::{RouterId, TurnId};
use crate::wire::update_to_wire;
use baton_node::clock::Clock;
use baton_node::task::Tasks;
use baton_proto::internal as pb;
use baton_transfer::{Peer, Pull};
use baton_worker::engine_loop::Shell;
use baton_worker::links::{Ended, Links};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

/// What goes to one router.
pub type FrameSender = mpsc::Sender<Result<pb::DecodeFrame, tonic::Status>>;

/// The attached routers.
#[derive(Clone, Debug, Default)]
pub struct Routers {
    inner: Arc<Mutex<RouterTable>>,
}

#[derive(Debug, Default)]
struct RouterTable {
    next: u64,
    links: BTreeMap<RouterId, RouterLink>,
}

#[derive(Debug)]
struct RouterLink {
    sender: FrameSender,
    /// Ends the stream of a router that does not keep up.
    cut: CancellationToken,
    /// Whether the schedule has been told that the router lags.
    lags: bool,
}

impl Routers {
    /// A router has attached. The token is cancelled when it does not keep up.
    pub fn attach(&self, sender: FrameSender) -> (RouterId, CancellationToken) {
        let mut table = self.lock();
        table.next += 1;
        let id = RouterId(table.next);
        let cut = CancellationToken::new();
        table.links.insert(id, RouterLink { sender, cut: cut.clone(), lags: false });
        (id, cut)
    }

    /// A router is gone.
    pub fn detach(&self, id: RouterId) {
        self.lock().links.remove(&id);
    }

    /// Sends a frame. A router that lags is not drawn for; one whose queue is full all the same is
    /// cut, which ends its turns: a slow router never holds up a step.
    fn send(&self, id: RouterId, frame: pb::DecodeFrame) {
        let mut table = self.lock();
        let Some(link) = table.links.get(&id) else { return };
        if link.sender.try_send(Ok(frame)).is_err() {
            tracing::warn!(router = id.0, "a router does not keep up; its streams are dropped");
            link.cut.cancel();
            table.links.remove(&id);
        }
    }

    /// Routers that have begun or ceased to lag, as far as `tell` takes the news.
    fn tell_lag(&self, mut tell: impl FnMut(RouterId, bool) -> bool) {
        for (id, link) in &mut self.lock().links {
            let (free, all) = (link.sender.capacity(), link.sender.max_capacity());
            // Two thresholds, so that a router at the edge is not told of at every step.
            let lags = if link.lags { free < all / 4 * 3 } else { free < all / 4 };
            if lags != link.lags && tell(*id, lags) {
                link.lags = lags;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, RouterTable> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Carries out actions on the engine's thread: sends what fits, starts tasks for the rest.
pub struct DecodeShell {
    /// Where frames go.
    pub routers: Routers,
    /// Who brings blocks.
    pub links: Links,
    /// Who calls prefill workers.
    pub caller: Arc<PrefillCaller>,
    /// Where results go.
    pub events: flume::Sender<Event>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Where calls and pulls run.
    pub tasks: Tasks,
    /// The runtime of those tasks: the engine's thread is not one of its own.
    pub runtime: tokio::runtime::Handle,
    /// The calls under way, one per turn at most; each ends when its guard falls, also together
    /// with the shell.
    pub calls: BTreeMap<TurnId, DropGuard>,
}

impl Shell<Action> for DecodeShell {
    fn deliver(&mut self, actions: &mut Vec<Action>) {
        self.carry_out(actions);
        let events = &self.events;
        self.routers.tell_lag(|router, lags| events.try_send(Event::Lag(router, lags)).is_ok());
    }
}

impl DecodeShell {
    fn carry_out(&mut self, actions: &mut Vec<Action>) {
        if actions.is_empty() {
            return;
        }
        let runtime = self.runtime.clone();
        let _inside = runtime.enter();
        let mut frames: BTreeMap<RouterId, Vec<Update>> = BTreeMap::new();
        for action in actions.drain(..) {
            match action {
                Action::Update(router, update) => frames.entry(router).or_default().push(update),
                Action::StartPrefill(turn, call) => self.start_call(turn, *call),
                Action::StopPrefill(turn) => {
                    drop(self.calls.remove(&turn));
                }
                Action::Pull(turn, peer, pulls, deadline) => {
                    self.start_pull(turn, &peer, pulls, deadline);
                }
            }
        }
        for (router, updates) in frames {
            let updates = updates.into_iter().map(update_to_wire).collect();
            self.routers.send(router, pb::DecodeFrame { updates });
        }
    }

    fn start_call(&mut self, turn: TurnId, call: PrefillCall) {
        let cancelled = CancellationToken::new();
        self.calls.insert(turn, cancelled.clone().drop_guard());
        let caller = Arc::clone(&self.caller);
        let events = self.events.clone();
        self.tasks.spawn("prefill call", async move {
            tokio::select! {
                biased;
                () = cancelled.cancelled() => {}
                () = caller.run(turn, call, &events) => {
                    // The lease lives as long as the call: keep it until the turn hangs up.
                }
            }
        });
    }

    fn start_pull(&self, turn: TurnId, peer: &Peer, pulls: Vec<Pull>, deadline: Duration) {
        let timeout = deadline.saturating_sub(self.clock.now());
        let (from, to) = ((&self.tasks, &self.events), (peer, pulls));
        self.links.start(from, to, timeout, move |ended| match ended {
            Ended::Settled(results) => Event::Settled(turn, results),
            Ended::Lost(blocks) => Event::Lost(turn, blocks),
        });
    }
}
