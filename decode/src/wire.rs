//! Between `proto::internal` and the schedule's types. What routers send is checked here.

use crate::event::{Failure, News, Update};
use crate::thinking::ThinkingRule;
use crate::turn::{Candidate, Report, RouterId, StopRule, TurnRequest};
use baton_engine::api::{Drawn, ModelSpec};
use baton_kv::hash::ChainRoot;
use baton_proto::ids::{Incarnation, RequestId, TokenId, WorkerId};
use baton_proto::internal as pb;
use baton_proto::ir::{FinishReason, Sampling};
use baton_proto::packed;
use baton_transfer::{Endpoints, Peer};
use baton_worker::queue::Precedence;
use baton_worker::sequence::ChainKey;
use baton_worker::tenancy::{Admitted, Gate, Refusal};
use baton_worker::wire::BadMessage;
use std::sync::Arc;
use std::time::Duration;

/// Choices in one turn, at most.
const CHOICES_MAX: u32 = 128;
/// Prefill candidates in one turn, at most.
const CANDIDATES_MAX: usize = 16;

/// What a submitted turn is checked against.
#[derive(Clone, Debug)]
pub struct Served {
    /// The model.
    pub spec: ModelSpec,
    /// The root of its hash chain.
    pub root: Arc<ChainRoot>,
    /// Who is let in.
    pub gate: Gate,
}

/// Lets a submitted turn in, at its tenant's rights; otherwise why not.
pub fn admit(
    router: RouterId,
    submit: pb::Submit,
    served: &Served,
    now: Duration,
) -> Result<TurnRequest, pb::Failed> {
    let failed = |kind: pb::failed::Kind, message| pb::Failed { kind: kind as i32, message };
    let admitted = served.gate.admit(&submit.tenant).map_err(|refused| {
        let kind = match refused {
            Refusal::Full { .. } => pb::failed::Kind::Overloaded,
            // Another worker may have the newer file.
            _ => pb::failed::Kind::Internal,
        };
        failed(kind, refused.message())
    })?;
    let turn = turn_from_wire(router, submit, served, &admitted, now);
    turn.map_err(|problem| failed(pb::failed::Kind::Invalid, problem.to_string()))
}

/// A turn that came over the wire.
fn turn_from_wire(
    router: RouterId,
    submit: pb::Submit,
    served: &Served,
    admitted: &Admitted,
    now: Duration,
) -> Result<TurnRequest, BadMessage> {
    let bad = BadMessage::new;
    let request = RequestId::from_slice(&submit.request_id)
        .ok_or(bad("submit.request_id", "is not 16 bytes"))?;
    let spec = &served.spec;
    let tokens = packed::unpack(&submit.token_ids);
    let tokens = tokens.ok_or(bad("submit.token_ids", "is not 4 bytes for each id"))?;
    let length = tokens.len() as u32;
    if length == 0 {
        return Err(bad("submit.token_ids", "is empty"));
    }
    if length >= spec.context_tokens {
        return Err(bad("submit.token_ids", "leaves no room in the model's context"));
    }
    if tokens.iter().any(|id| *id >= spec.vocab_size) {
        return Err(bad("submit.token_ids", "has an id outside the vocabulary"));
    }
    if !(1..=CHOICES_MAX).contains(&submit.choices) {
        return Err(bad("submit.choices", "is not 1 to 128"));
    }
    let sampling = submit.sampling.ok_or(bad("submit.sampling", "is missing"))?;
    let stop = submit.stop.ok_or(bad("submit.stop", "is missing"))?;
    let thinking = submit.thinking.map(|budget| ThinkingRule::from_wire(budget, spec));
    let room = admitted.answer_tokens(spec.context_tokens - length, submit.choices);
    let stop = stop_from_wire(stop, spec, room);
    let (strict_priority, priority) = admitted.precedence(submit.strict_priority, submit.priority);
    let chain_key = ChainKey {
        root: Arc::clone(&served.root),
        block_tokens: spec.block_tokens,
        tenant: admitted.guest.clone(),
        public_blocks: submit.public_blocks,
    };
    let candidates = submit.prefill.into_iter().take(CANDIDATES_MAX).map(candidate_from_wire);
    Ok(TurnRequest {
        router,
        request,
        tokens,
        chain_key,
        choices: submit.choices as u16,
        sampling: sampling_from_wire(sampling),
        osl: submit.osl.min(stop.max_tokens),
        stop,
        thinking: thinking.transpose()?,
        logprobs: submit.logprobs.map(|count| count.min(255) as u8),
        raw_top: 0,
        weight: admitted.weight(),
        precedence: Precedence::from_wire(strict_priority, priority, submit.wanted_ms, now),
        deadline: now + Duration::from_millis(u64::from(submit.deadline_ms)),
        candidates: candidates.collect::<Result<_, _>>()?,
    })
}

fn stop_from_wire(stop: pb::StopRule, spec: &ModelSpec, room: u32) -> StopRule {
    let mut end_ids: Vec<TokenId> = stop.ids;
    if !stop.ignore_eos {
        end_ids.extend(&spec.eos);
    }
    let max_tokens = stop.max_tokens.clamp(1, room);
    StopRule { max_tokens, min_tokens: stop.min_tokens.min(max_tokens), end_ids }
}

fn sampling_from_wire(sampling: pb::Sampling) -> Sampling {
    let bias = sampling.logit_bias.into_iter().map(|bias| (bias.token_id, bias.bias));
    Sampling {
        temperature: sampling.temperature,
        top_k: sampling.top_k,
        top_p: sampling.top_p,
        min_p: sampling.min_p,
        repetition_penalty: sampling.repetition_penalty,
        presence_penalty: sampling.presence_penalty,
        frequency_penalty: sampling.frequency_penalty,
        logit_bias: bias.collect(),
        seed: sampling.seed,
    }
}

fn candidate_from_wire(address: pb::PeerAddress) -> Result<Candidate, BadMessage> {
    let endpoints = Endpoints::try_from(&address.endpoints.unwrap_or_default())
        .map_err(|_| BadMessage::new("submit.prefill.endpoints", "has an address that is none"))?;
    let peer = Peer {
        worker: WorkerId(address.worker),
        incarnation: Incarnation(address.incarnation),
        endpoints,
    };
    Ok(Candidate { uri: address.uri, peer })
}

/// News as they travel.
pub fn update_to_wire(update: Update) -> pb::SequenceUpdate {
    use pb::sequence_update::Update as Wire;
    let news = match update.news {
        News::Admitted { held_tokens } => Wire::Admitted(pb::Admitted { held_tokens }),
        News::Drawn { drawn, logprobs, report } => {
            Wire::Tokens(tokens_to_wire(drawn, logprobs, report))
        }
        News::Finished(reason, report) => {
            let reason = match reason {
                FinishReason::Stop => pb::finished::Reason::Stop,
                FinishReason::Length => pb::finished::Reason::Length,
            };
            let report = Some(report_to_wire(&report));
            Wire::Finished(pb::Finished { reason: reason as i32, report })
        }
        News::Failed(failure) => Wire::Failed(failure_to_wire(failure)),
    };
    pb::SequenceUpdate {
        request_id: update.request.to_bytes().to_vec(),
        choice: u32::from(update.choice),
        update: Some(news),
    }
}

fn tokens_to_wire(drawn: Drawn, logprobs: bool, report: Option<Report>) -> pb::Tokens {
    let (top_ids, top_logprobs) = drawn.top.into_iter().unzip();
    let logprob = pb::Logprob { logprob: drawn.logprob, top_ids, top_logprobs };
    pb::Tokens {
        ids: vec![drawn.token],
        logprobs: if logprobs { vec![logprob] } else { Vec::new() },
        report: report.as_ref().map(report_to_wire),
    }
}

fn report_to_wire(report: &Report) -> pb::TurnReport {
    let us = |span: Duration| u32::try_from(span.as_micros()).unwrap_or(u32::MAX);
    pb::TurnReport {
        cached_tokens: report.cached_tokens,
        pulled_tokens: report.pulled_tokens,
        computed_tokens: report.computed_tokens,
        pulled_blocks: report.pulled_blocks,
        pulled_bytes: report.pulled_bytes,
        queue_us: us(report.queue),
        handover_us: us(report.handover),
        prefill_us: us(report.prefill),
        prefill_worker: report.prefill_worker,
    }
}

fn failure_to_wire(failure: Failure) -> pb::Failed {
    let kind = match failure {
        Failure::Overloaded => pb::failed::Kind::Overloaded,
        Failure::Deadline => pb::failed::Kind::Deadline,
        Failure::TooLarge { .. } => pb::failed::Kind::TooLarge,
        Failure::Draining => pb::failed::Kind::Draining,
    };
    pb::Failed { kind: kind as i32, message: failure.to_string() }
}

/// A turn that is not let in, as it is answered.
pub fn refusal(request_id: Vec<u8>, failed: pb::Failed) -> pb::SequenceUpdate {
    let update = Some(pb::sequence_update::Update::Failed(failed));
    pb::SequenceUpdate { request_id, choice: 0, update }
}

#[cfg(test)]
#[path = "wire_tests.rs"]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
