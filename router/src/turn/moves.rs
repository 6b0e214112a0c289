//! Placing a turn, and placing it again when a worker refuses it or is lost.
//!
//! Every attempt after the first is paid for from the router's retry budget, so that a cluster in
//! trouble is not asked more often than a healthy one. A worker that drains is no trouble: leaving
//! it is free, and its link is not chosen again. A turn that was running when its worker was lost
//! may have been the cause, and gets one further worker, not one after the other.

use super::prepare::Prepared;
use crate::choose::Ask;
use crate::cluster::{Failure, Inbox, Placement, Refused, Route};
use crate::error::{Invalid, TurnError};
use crate::service::Service;
use baton_proto::ids::WorkerId;
use tokio::time::Instant;

/// Of so many workers a turn may see the loss before it is given up.
const LOSSES_MAX: usize = 1;

/// The attempts to place one turn.
#[derive(Debug, Default)]
pub(super) struct Moves {
    tried: Vec<WorkerId>,
    /// Moves that count against `placement.moves_max`.
    counted: usize,
    /// Workers that were lost while the turn was theirs.
    losses: usize,
    /// What the last worker that was tried said.
    last: Option<TurnError>,
}

impl Moves {
    /// Sends a turn to the best worker that has not been tried.
    pub(super) fn place(
        &mut self,
        service: &Service,
        prepared: &Prepared,
    ) -> Result<Route, TurnError> {
        loop {
            let Some(placement) = self.choose(service, prepared) else {
                return Err(self.last.take().unwrap_or(TurnError::NoWorker));
            };
            let worker = placement.link.worker;
            match send(prepared, placement) {
                Ok(route) => return Ok(route),
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

    fn choose(&self, service: &Service, prepared: &Prepared) -> Option<Placement> {
        let config = &service.config().placement;
        let request = &prepared.request;
        let answer_tokens = prepared.answer_tokens as usize;
        let ask = Ask {
            prompt_tokens: prepared.ids.len(),
            answer_tokens: answer_tokens * usize::from(request.choices),
            block_tokens: prepared.model.description.block_tokens as usize,
            spread: request.id.0 as u64,
        };
        let threshold = config.disaggregate_min_blocks;
        service.cluster().place(&prepared.model, &ask, &prepared.chain, threshold, &self.tried)
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

fn send(prepared: &Prepared, placement: Placement) -> Result<Route, Failure> {
    let request = &prepared.request;
    // An end token comes on top of the limit where a worker counts only what it keeps.
    let inbox = Inbox::new(request.choices, request.stop.max_tokens.saturating_add(1));
    let submit = prepared.submit(placement.prefill, Instant::now());
    placement.link.submit(request.id, submit, inbox).map_err(|refused| match refused {
        Refused::Closed => Failure::NotSent(format!("{} was lost", placement.link.name)),
        Refused::Full => {
            Failure::Overloaded(format!("the queue to {} is full", placement.link.name))
        }
    })
}

/// What a worker's failure means to the client.
pub(super) fn verdict(failure: Failure) -> TurnError {
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
