//! Speculative prefill: what the next prompt of a conversation certainly begins with is computed
//! while its tools run or its reader thinks.
//!
//! 1. A turn that asks for it keeps its conversation until its end ([`Ahead`]).
//! 2. [`next`] renders what is certain of the next prompt: the history with this answer in it.
//! 3. Its ids are compared with those that were just computed. Mostly they are the same, and nothing
//!    is to be done. Where the template writes history in another way than the model did (without
//!    the reasoning, say), the difference is placed like a turn of its own, behind all others, with
//!    an answer of one token that nobody reads.
//! 4. [`bets`] remembers it; the turn that continues the conversation tells what that has bought.
//!
//! Nothing here can change an answer: blocks are found by the hash of their ids, or not at all.

mod bets;
mod next;
mod said;

pub(crate) use bets::Bought;

use crate::audit::{Entry, Kind};
use crate::bodies::{Bodies, Held};
use crate::cluster::Update;
use crate::config::{SpeculationConfig, Switch};
use crate::error::TurnError;
use crate::metrics::Metrics;
use crate::placing::Placing;
use crate::service::Service;
use crate::turn::{Delta, Placed, Prepared, send_once, verdict};
use baton_proto::ids::TokenId;
use baton_proto::ir::Chat;
use bets::{Bet, BetId, Bets};
use said::Said;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// What a turn keeps so that the next one can be prepared for.
pub(crate) struct Ahead {
    chat: Chat,
    /// The answer so far.
    said: Said,
    ids: Vec<TokenId>,
    _held: Held,
}

impl Ahead {
    /// For a turn that wants it, where there is memory for its conversation.
    pub(crate) fn new(service: &Service, prepared: &mut Prepared) -> Option<Self> {
        let chat = prepared.chat.take()?;
        let speculation = service.speculation();
        let mut held = speculation.memory.enter();
        if held.grow(next::bytes(&chat)).is_err() {
            note(service, prepared, "skipped", None);
            return None;
        }
        let said = Said::new(prepared);
        Some(Self { chat, said, ids: Vec::new(), _held: held })
    }

    /// A piece of the answer.
    pub(crate) fn push(&mut self, delta: &Delta) {
        self.said.push(delta);
        self.ids.extend(delta.tokens.iter().map(|token| token.id));
    }

    /// The answer is complete: prepares for what follows it, in a task of its own.
    pub(crate) fn finish(self, service: &Arc<Service>, turn: Arc<Prepared>, placing: Placing) {
        let speculation = service.speculation();
        let Some(permit) = speculation.enter() else {
            return note(service, &turn, "skipped", None);
        };
        let (drain, service) = (service.tasks().drain().clone(), service.clone());
        service.tasks().clone().spawn("speculation", async move {
            let outcome = tokio::select! {
                outcome = prepare_for(&service, self, turn.clone(), placing) => outcome,
                // Whoever goes down bets on nothing.
                () = drain.draining() => Ok(("skipped", None)),
            };
            let (outcome, worker) = outcome.unwrap_or_else(|error| {
                tracing::debug!(%error, "speculative prefill came to nothing");
                ("failed", None)
            });
            note(&service, &turn, outcome, worker);
            drop(permit);
        });
    }
}

/// What came of preparing for the prompt after a turn, and who computed for it.
fn note(service: &Service, turn: &Prepared, outcome: &'static str, worker: Option<String>) {
    service.speculation().count(outcome);
    if let Some(audit) = service.audit() {
        let entry = Entry::new(Kind::Speculation, turn, outcome);
        audit.write(Entry { decode: worker, ..entry });
    }
}

/// What a router has computed ahead.
pub(crate) struct Speculation {
    running: Arc<Semaphore>,
    /// For conversations of turns that are not over.
    memory: Bodies,
    bets: Mutex<Bets>,
    metrics: Metrics,
}

impl Speculation {
    pub(crate) fn new(config: &SpeculationConfig, metrics: Metrics) -> Self {
        Self {
            running: Arc::new(Semaphore::new(config.running_max.min(Semaphore::MAX_PERMITS))),
            memory: Bodies::new(config.bytes_max.bytes()),
            bets: Mutex::new(Bets::new(config.remembered_blocks_max)),
            metrics,
        }
    }

    /// What was computed ahead for this prompt, if anything was. It is told once.
    pub(crate) fn claim(&self, prepared: &Prepared) -> Option<Bought> {
        let bought = self.lock().claim(&prepared.chain, prepared.arrived)?;
        self.metrics.speculated("hit", bought.hit_tokens);
        self.metrics.speculated("wasted", bought.wasted_tokens);
        Some(bought)
    }

    fn enter(&self) -> Option<OwnedSemaphorePermit> {
        self.running.clone().try_acquire_owned().ok()
    }

    fn place(&self, bet: Bet) -> BetId {
        let (id, forgotten) = self.lock().place(bet);
        self.metrics.speculated("wasted", forgotten);
        id
    }

    fn count(&self, outcome: &'static str) {
        self.metrics.speculation(outcome);
    }

    fn lock(&self) -> MutexGuard<'_, Bets> {
        self.bets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Computes what the next prompt begins with, as far as it does not exist; what came of it, and who
/// did.
async fn prepare_for(
    service: &Arc<Service>,
    ahead: Ahead,
    turn: Arc<Prepared>,
    placing: Placing,
) -> Result<(&'static str, Option<String>), TurnError> {
    let deadline = Instant::now() + service.config().speculation.patience.0;
    let shared = service.clone();
    let work = move || {
        let Ahead { chat, said, ids, _held } = ahead;
        next::prepare(&shared, chat, said, &ids, &turn, deadline)
    };
    let Some(next) = service.text_pool().run(deadline, work).await? else {
        return Ok(("needless", None));
    };
    match service.switches().speculation {
        Switch::On => {}
        Switch::Shadow => return Ok(("shadow", None)),
        Switch::Off => return Ok(("skipped", None)),
    }
    let blocks = next.prepared.chain[next.known_blocks.min(next.prepared.chain.len())..].to_vec();
    let block_tokens = next.prepared.block_tokens() as u64;
    let bet = service.speculation().place(Bet { blocks, block_tokens, done: None });
    let outcome = compute(service, &next.prepared, placing).await;
    let mut bets = service.speculation().lock();
    match &outcome {
        Ok(_) => bets.done(bet, Instant::now()),
        Err(_) => bets.withdraw(bet),
    }
    outcome.map(|worker| ("computed", Some(worker)))
}

/// Has a prompt computed where a turn with it would go; who that is. There is no second try.
async fn compute(
    service: &Arc<Service>,
    prepared: &Prepared,
    placing: Placing,
) -> Result<String, TurnError> {
    // How long it takes is learned by nobody: it waits for everybody.
    let Placed { mut route, ticket: _ticket, .. } = send_once(service, prepared, placing)?;
    loop {
        let update = tokio::time::timeout_at(prepared.deadline, route.recv()).await;
        let outcome = match update.map_err(|_| TurnError::Deadline)? {
            Update::Admitted | Update::Tokens(_) => continue,
            Update::Finished { .. } => Ok(route.link().name.clone()),
            Update::Failed(failure) => Err(verdict(failure)),
        };
        route.complete();
        return outcome;
    }
}

/// The next prompt's certain beginning.
struct Next {
    prepared: Prepared,
    /// So many of its blocks were computed by the turn before.
    known_blocks: usize,
}

/// Leading blocks of a prompt whose ids are those of `one` and then `other`.
fn blocks_in_common(
    ids: &[TokenId],
    (one, other): (&[TokenId], &[TokenId]),
    block_tokens: usize,
) -> usize {
    let before = one.iter().chain(other);
    ids.iter().zip(before).take_while(|(a, b)| a == b).count() / block_tokens
}
