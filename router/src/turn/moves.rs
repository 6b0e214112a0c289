//! Placing a turn, and placing it again when a worker refuses it or is lost.
//!
//! Every attempt after the first is paid for from the router's retry budget, so that a cluster in
//! trouble is not asked more often than a healthy one. A worker that drains is no trouble: leaving
//! it is free, and its link is not chosen again. A turn that was running when its worker was lost
//! may have been the cause, and gets one further worker, not one after the other.

use super::outside;
use super::prepare::Prepared;
use crate::choose::Ask;
use crate::cluster::{Explained, Failure, Inbox, Link, Placement, Refused, Route, Ticket, Wanted};
use crate::error::{Invalid, TurnError};
use crate::placing::{Explain, Placing};
use crate::service::{self, Service};
use baton_proto::ids::WorkerId;
use baton_proto::internal::PeerAddress;
use std::sync::Arc;
use tokio::time::Instant;

/// Of so many workers a turn may see the loss before it is given up.
const LOSSES_MAX: usize = 1;

/// The attempts to place one turn.
#[derive(Debug, Default)]
pub(super) struct Moves {
    placing: Placing,
    tried: Vec<WorkerId>,
    /// Moves that count against `placement.moves_max`.
    counted: usize,
    /// Workers that were lost while the turn was theirs.
    losses: usize,
    /// What the last worker that was tried said.
    last: Option<TurnError>,
}

/// A turn that was sent.
pub(crate) struct Placed {
    pub(crate) route: Route,
    pub(crate) ticket: Ticket,
    /// Why there, where that is wanted.
    pub(crate) why: Option<Arc<Explained>>,
}

/// Sends a turn to the best worker, and to no other if that one does not take it. An external policy
/// is not asked.
pub(crate) fn send_once(
    service: &Service,
    prepared: &Prepared,
    placing: Placing,
) -> Result<Placed, TurnError> {
    let wanted = wanted(service, prepared, placing, &[]);
    let placement = service.cluster().place(&wanted).ok_or(TurnError::NoWorker)?;
    let Placement { link, prefill, ticket, .. } = placement;
    let route = send(prepared, &link, prefill).map_err(verdict)?;
    Ok(Placed { route, ticket, why: None })
}

impl Moves {
    /// Nothing was tried yet.
    pub(super) fn new(placing: Placing) -> Self {
        Self { placing, ..Self::default() }
    }

    /// Sends a turn to the best worker that has not been tried. It waits for an external policy
    /// and for nothing else; dropped meanwhile, it has done nothing.
    pub(super) async fn place(
        &mut self,
        service: &Service,
        prepared: &Prepared,
    ) -> Result<Placed, TurnError> {
        loop {
            let told = outside::consult(service, prepared, self.placing, &self.tried).await;
            let wanted = wanted(service, prepared, self.placing, &self.tried);
            let placement = service.cluster().place(&Wanted { told: told.as_ref(), ..wanted });
            if let Some(told) = &told {
                outside::count(service, told, placement.as_ref().and_then(|p| p.fallback));
            }
            let Some(placement) = placement else {
                return Err(self.last.take().unwrap_or(TurnError::NoWorker));
            };
            let Placement { link, prefill, ticket, why, shadows, .. } = placement;
            for (feature, same) in shadows {
                service.metrics().shadowed(feature, same);
            }
            let worker = link.worker;
            match send(prepared, &link, prefill) {
                Ok(route) => {
                    let with_tiers = |why| match self.placing.explain {
                        Explain::Off => why,
                        _ => service.cluster().with_tiers(why, &prepared.chain),
                    };
                    return Ok(Placed { route, ticket, why: why.map(with_tiers).map(Arc::new) });
                }
                Err(failure) => self.refused(service, worker, failure)?,
            }
        }
    }

    /// Notes that a worker did not take the turn; an error if no other may be tried.
    pub(super) fn refused(
        &mut self,
        service: &Service,
        worker: WorkerId,
        failure: Failure,
    ) -> Result<(), TurnError> {
        self.tried.push(worker);
        if failure != Failure::Draining {
            self.losses += usize::from(matches!(failure, Failure::Lost(_)));
            self.counted += 1;
            let moves_max = service.config().placement.moves_max as usize;
            let spent = self.counted > moves_max || self.losses > LOSSES_MAX;
            if spent || !is_movable(&failure) || !service.withdraw_retry() {
                return Err(verdict(failure));
            }
        }
        self.last = Some(verdict(failure));
        Ok(())
    }
}

/// What the choice is told of a turn.
pub(super) fn wanted<'a>(
    service: &Service,
    prepared: &'a Prepared,
    placing: Placing,
    tried: &'a [WorkerId],
) -> Wanted<'a> {
    let request = &prepared.request;
    let ask = Ask {
        prompt_tokens: prepared.ids.len(),
        // Whoever expects nothing waits, and holds up others, all the same.
        answer_tokens: prepared.answer_tokens.max(1) as usize,
        choices: usize::from(request.choices),
        block_tokens: prepared.block_tokens(),
        spread: request.id.0 as u64,
        turn: 0,
        session: service::session_key(request),
    };
    Wanted {
        model: &prepared.model,
        ask,
        chain: &prepared.chain,
        policy: placing.policy,
        told: None,
        rules: service.config().placement.rules(),
        switches: service.switches(),
        tried,
        explain: placing.explain != Explain::Off || service.decisions().is_some(),
    }
}

/// Whether another worker may do better.
fn is_movable(failure: &Failure) -> bool {
    match failure {
        Failure::Overloaded(_)
        | Failure::Draining
        | Failure::Lost(_)
        | Failure::NotSent(_)
        | Failure::Internal(_) => true,
        Failure::Deadline | Failure::TooLarge(_) | Failure::Invalid(_) | Failure::Overrun => false,
    }
}

fn send(
    prepared: &Prepared,
    link: &Arc<Link>,
    prefill: Vec<PeerAddress>,
) -> Result<Route, Failure> {
    let request = &prepared.request;
    // An end token comes on top of the limit where a worker counts only what it keeps.
    let inbox = Inbox::new(request.choices, request.stop.max_tokens.saturating_add(1));
    let submit = prepared.submit(prefill, Instant::now());
    link.submit(request.id, submit, inbox).map_err(|refused| match refused {
        Refused::Closed => Failure::NotSent(format!("{} was lost", link.name)),
        Refused::Full => Failure::Overloaded(format!("the queue to {} is full", link.name)),
    })
}

/// What a worker's failure means to the client.
pub(crate) fn verdict(failure: Failure) -> TurnError {
    let invalid = |code, message| TurnError::Invalid(Invalid { param: None, code, message });
    match failure {
        Failure::Overloaded(message) => TurnError::Overloaded(message),
        Failure::Deadline => TurnError::Deadline,
        Failure::TooLarge(message) => invalid("request_too_large", message),
        Failure::Invalid(message) => invalid("invalid_value", message),
        Failure::Internal(message) => TurnError::Internal(message),
        Failure::Draining => TurnError::NoWorker,
        Failure::Lost(message) | Failure::NotSent(message) => TurnError::WorkerLost(message),
        Failure::Overrun => {
            TurnError::Internal("the worker said more than the request allows for".to_owned())
        }
    }
}
