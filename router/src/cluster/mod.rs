//! What the router knows about the workers: who is there, what they hold, what they have to do.
//!
//! One task per configured worker ([`session`]) keeps this up to date; turns read it to be placed.

mod inbox;
mod link;
mod place;
mod session;

pub(crate) use inbox::{Failure, Inbox, NewTokens, Update};
pub(crate) use link::{Link, Refused, Route};
pub(crate) use place::{Explained, Placement, Ticket, Wanted};
pub(crate) use session::{Connector, follow};

use crate::choose::{AnswerLengths, Assumed, Fleet, Load, Role};
use baton_kv::events::Batch;
use baton_kv::hash::ChainRoot;
use baton_kv::index::{Index, IndexConfig, NeedSnapshot, View};
use baton_proto::ids::{EventSeq, GroupId, Incarnation, WorkerId};
use baton_proto::internal::{self, Endpoints, ModelDescription, PeerAddress, WorkerDescription};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// More blocks of one worker are not remembered.
const BLOCKS_PER_WORKER_MAX: usize = 4 << 20;
/// More distinct blocks are not remembered; they cost about fifty bytes each.
const BLOCKS_MAX: usize = 64 << 20;
/// More blocks on their way are not remembered.
const PENDING_MAX: usize = 1 << 20;
/// The one group of blocks that today's models have.
const GROUP: GroupId = GroupId(0);

/// The model that the workers serve, as the first of them described it.
pub(crate) struct Model {
    pub(crate) description: ModelDescription,
    pub(crate) root: ChainRoot,
}

/// Everything known about the workers.
pub(crate) struct Cluster {
    secret: [u8; 32],
    /// Of this router's own tokenizer.json; empty if it has none.
    text_digest: Vec<u8>,
    /// Who holds which block: looked up without the lock.
    view: View,
    state: Mutex<State>,
    /// How many decode workers can be given work.
    decoders: watch::Sender<usize>,
}

struct State {
    /// Decided by the first worker, for as long as the router lives: the text side is loaded once.
    model: Option<Arc<Model>>,
    members: BTreeMap<WorkerId, Member>,
    /// The same workers, as the choice sees them.
    fleet: Fleet,
    /// Turns that were placed.
    turns: u64,
    lengths: AnswerLengths,
    index: Index,
}

/// A worker that can be given work.
struct Member {
    name: String,
    uri: String,
    incarnation: Incarnation,
    endpoints: Option<Endpoints>,
    /// The stream to a decode worker; none to a prefill worker.
    link: Option<Arc<Link>>,
    /// It has said what it has to do.
    has_reported: bool,
}

/// Why a described worker is not given work.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum NotAccepted {
    /// Its blocks and those of the others are not interchangeable.
    #[error(
        "serves `{theirs}` (domain {their_domain}), but the cluster serves `{ours}` (domain {our_domain}); \
         hint: start all workers with the same checkpoint, engine and block size; a router keeps the \
         model of its first worker until it is restarted"
    )]
    OtherModel { ours: String, our_domain: String, theirs: String, their_domain: String },
    /// Its ids mean other text than this router's.
    #[error(
        "has another tokenizer.json (digest {theirs}) than this router (digest {ours}); \
         hint: let the router's `model.dir` and the worker's name the same checkpoint"
    )]
    OtherText { ours: String, theirs: String },
    /// Its description makes no sense.
    #[error("describes itself wrongly: {0}")]
    Malformed(&'static str),
    /// Two addresses in the configuration lead to workers of the same name.
    #[error("has the same name as another worker; hint: give each worker a name of its own")]
    Twin,
}

impl Cluster {
    /// For a cluster with that secret and at most so many workers, of which this is assumed, and a
    /// router whose tokenizer has that digest, if it has one.
    pub(crate) fn new(
        secret: [u8; 32],
        workers_max: usize,
        assumed: Assumed,
        text_digest: Vec<u8>,
    ) -> Self {
        let index = Index::new(IndexConfig {
            workers_max,
            blocks_per_worker_max: BLOCKS_PER_WORKER_MAX,
            blocks_max: BLOCKS_MAX,
            pending_max: PENDING_MAX,
        });
        let view = index.view().clone();
        let state = Mutex::new(State {
            model: None,
            members: BTreeMap::new(),
            fleet: Fleet::new(assumed),
            turns: 0,
            lengths: AnswerLengths::new(),
            index,
        });
        Self { secret, text_digest, view, state, decoders: watch::Sender::new(0) }
    }

    /// The model, once a worker has described it.
    pub(crate) fn model(&self) -> Option<Arc<Model>> {
        self.lock().model.clone()
    }

    /// How many decode workers can be given work, and every change of it.
    pub(crate) fn decoders(&self) -> watch::Receiver<usize> {
        self.decoders.subscribe()
    }

    /// Checks a worker's description against what the cluster serves, so that a worker which can
    /// never join is not attached to. What counts is the same check inside [`Cluster::join`].
    fn check(&self, description: &WorkerDescription) -> Result<(), NotAccepted> {
        self.check_against(self.model().as_deref(), description).map(|_| ())
    }

    /// The described model, if it is what the cluster serves. The first worker decides what that is.
    fn check_against<'a>(
        &self,
        served: Option<&Model>,
        description: &'a WorkerDescription,
    ) -> Result<&'a ModelDescription, NotAccepted> {
        let model = description.model.as_ref().ok_or(NotAccepted::Malformed("no model"))?;
        if model.domain.len() != 32 {
            return Err(NotAccepted::Malformed("the model's domain is not 32 bytes"));
        }
        if !model.block_tokens.is_power_of_two()
            || model.vocab_size == 0
            || model.context_tokens == 0
        {
            return Err(NotAccepted::Malformed("block size, vocabulary or context is impossible"));
        }
        let (ours, theirs) = (&self.text_digest, &model.text_digest);
        if !ours.is_empty() && !theirs.is_empty() && ours != theirs {
            return Err(NotAccepted::OtherText {
                ours: short_hex(ours),
                theirs: short_hex(theirs),
            });
        }
        let Some(ours) = served else { return Ok(model) };
        if ours.description.domain == model.domain
            && ours.description.block_tokens == model.block_tokens
        {
            return Ok(model);
        }
        Err(NotAccepted::OtherModel {
            ours: ours.description.name.clone(),
            our_domain: short_hex(&ours.description.domain),
            theirs: model.name.clone(),
            their_domain: short_hex(&model.domain),
        })
    }

    /// From now on the worker can be given work. Checked and inserted under one lock: of two
    /// workers with different models that come at once, one is refused.
    fn join(
        &self,
        description: WorkerDescription,
        uri: &str,
        link: Option<Arc<Link>>,
    ) -> Result<(), NotAccepted> {
        let worker = WorkerId(description.worker);
        let mut state = self.lock();
        let model = self.check_against(state.model.as_deref(), &description)?;
        if state.members.get(&worker).is_some_and(|other| other.uri != uri) {
            return Err(NotAccepted::Twin);
        }
        if state.model.is_none() {
            state.model = self.adopt(model.clone()).map(Arc::new);
        }
        let member = Member {
            name: description.name,
            uri: uri.to_owned(),
            incarnation: Incarnation(description.incarnation),
            endpoints: description.endpoints,
            link,
            has_reported: false,
        };
        let role = if member.link.is_some() { Role::Decode } else { Role::Prefill };
        state.fleet.join(worker, role, description.slots);
        state.members.insert(worker, member);
        self.decoders.send_replace(state.counts().0);
        Ok(())
    }

    fn adopt(&self, description: ModelDescription) -> Option<Model> {
        let domain = description.domain.as_slice().try_into().ok()?;
        Some(Model { root: ChainRoot::new(&self.secret, domain), description })
    }

    /// The worker is gone, and what it held with it. An incarnation that has been replaced
    /// meanwhile takes nothing with it.
    fn leave(&self, worker: WorkerId, incarnation: Incarnation) {
        let mut state = self.lock();
        if state.members.get(&worker).is_some_and(|member| member.incarnation == incarnation) {
            state.members.remove(&worker);
            state.fleet.leave(worker);
            state.index.remove_worker(worker);
            self.decoders.send_replace(state.counts().0);
        }
    }

    /// The first event wanted of a worker whose events are about to be followed; `None` if the
    /// index has no room for it, which costs hits and nothing else.
    fn follow_from(&self, worker: WorkerId, incarnation: Incarnation) -> Option<EventSeq> {
        self.lock().index.join(worker, incarnation).ok()
    }

    /// Nothing is known any more about what the worker holds; it goes on working.
    fn forget_blocks(&self, worker: WorkerId) {
        self.lock().index.remove_worker(worker);
    }

    fn apply(
        &self,
        worker: WorkerId,
        incarnation: Incarnation,
        batch: &Batch,
    ) -> Result<(), NeedSnapshot> {
        self.lock().index.apply(worker, incarnation, batch).map(|_| ())
    }

    /// The worker has begun to drain: it counts no more among those that can be given work.
    fn note_drain(&self, worker: WorkerId) {
        let mut state = self.lock();
        state.fleet.set_draining(worker);
        self.decoders.send_replace(state.counts().0);
    }

    fn set_load(&self, worker: WorkerId, load: internal::Load) {
        let mut state = self.lock();
        let Some(member) = state.members.get_mut(&worker) else { return };
        // The first words of a worker that has only just started come before it knows what it has:
        // it has room.
        member.has_reported |= load != internal::Load::default();
        if !member.has_reported {
            return;
        }
        let load = Load {
            queued: load.queued,
            running: load.running,
            free_blocks: load.free_slots,
            evictable_blocks: load.evictable_slots,
            pending_tokens: load.pending_tokens,
        };
        state.fleet.set_load(worker, load);
    }

    /// How many decode and prefill workers can be given work.
    pub(crate) fn counts(&self) -> (usize, usize) {
        self.lock().counts()
    }

    /// Names and addresses of the workers that can be given work.
    pub(crate) fn workers(&self) -> Vec<(String, String)> {
        let state = self.lock();
        state.members.values().map(|member| (member.name.clone(), member.uri.clone())).collect()
    }

    /// The name of each worker, and how many of its blocks are known.
    pub(crate) fn known_blocks(&self) -> Vec<(String, usize)> {
        let state = self.lock();
        let known = |(worker, member): (&WorkerId, &Member)| {
            (member.name.clone(), state.index.blocks_of(*worker))
        };
        state.members.iter().map(known).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn counts(&self) -> (usize, usize) {
        let (decode, prefill): (Vec<_>, Vec<_>) =
            self.members.values().partition(|member| member.link.is_some());
        (decode.iter().filter(|member| !member.is_draining()).count(), prefill.len())
    }

    fn address(&self, worker: WorkerId) -> Option<PeerAddress> {
        let member = self.members.get(&worker)?;
        Some(PeerAddress {
            worker: worker.0,
            incarnation: member.incarnation.0,
            uri: member.uri.clone(),
            endpoints: member.endpoints.clone(),
        })
    }
}

impl Member {
    fn is_draining(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.is_draining())
    }
}

/// The first bytes of a digest, enough to tell two apart.
fn short_hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes.iter().take(6) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests;
