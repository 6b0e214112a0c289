//! Placing a turn, and placing it again when a worker refuses it or is lost.
//!
//! Every attempt after the first is paid for from the router's retry budget, so that a cluster in
//! trouble is not asked more often than a healthy one.

use super::prepare::Prepared;
use crate::choose::Ask;
use crate::cluster::{Failure, Inbox, Placement, Refused, Route};
use crate::error::{Invalid, TurnError};
use crate::service::Service;
use baton_proto::ids::WorkerId;
use tokio::time::Instant;

/// The attempts to place one turn.
#[derive(Debug, Default)]
pub(super) struct Moves {
    tried: Vec<WorkerId>,
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
        let movable = matches!(
            failure,
            Failure::Overloaded(_) | Failure::Draining | Failure::Lost(_) | Failure::Internal(_)
        );
        self.tried.push(worker);
        let moves_max = service.config().placement.moves_max as usize;
        if !movable || self.tried.len() > moves_max || !service.withdraw_retry() {
            return Err(verdict(failure));
        }
        self.last = Some(verdict(failure));
        Ok(())
    }

    fn choose(&self, service: &Service, prepared: &Prepared) -> Option<Placement> {
        let config = &service.config().placement;
        let request = &prepared.request;
        let assumed = request.hints.osl.unwrap_or(config.answer_tokens_assumed);
        let answer_tokens = assumed.min(request.stop.max_tokens) as usize;
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

fn send(prepared: &Prepared, placement: Placement) -> Result<Route, Failure> {
    let request = &prepared.request;
    // An end token comes on top of the limit where a worker counts only what it keeps.
    let inbox = Inbox::new(request.choices, request.stop.max_tokens.saturating_add(1));
    let submit = prepared.submit(placement.prefill, Instant::now());
    placement.link.submit(request.id, submit, inbox).map_err(|refused| match refused {
        Refused::Closed => Failure::Lost(format!("{} was lost", placement.link.name)),
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
        Failure::Lost(message) => TurnError::WorkerLost(message),
        Failure::Overrun => {
            TurnError::Internal("the worker said more than the request allows for".to_owned())
        }
    }
}
