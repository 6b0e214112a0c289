//! Decisions as JSON: in answers, for dry runs, and as lines of the record.

use crate::choose::external::{Fallback, Told};
use crate::choose::{Considered, Explanation, Terms};
use crate::cluster::Explained;
use crate::decisions::Outcome;
use baton_kv::Tier;
use baton_proto::ids::WorkerId;
use serde_json::{Map, Value, json};
use std::time::Duration;

const TIERS: [(Tier, &str); Tier::COUNT] = [
    (Tier::Device, "device"),
    (Tier::Host, "host"),
    (Tier::Disk, "disk"),
    (Tier::Remote, "remote"),
];

/// The answer to a dry run.
pub(super) fn dry_run(why: &Explained) -> Value {
    json!({"object": "baton.decision", "decision": decision(why)})
}

/// A decision with its reasons; docs/routing.md describes every field.
pub(super) fn decision(why: &Explained) -> Value {
    let Explanation { policy, ask, plan, .. } = &why.explanation;
    let name =
        |worker: &WorkerId| why.names.get(worker).map_or_else(|| worker.to_string(), Clone::clone);
    let side = |candidates: &[Considered]| -> Vec<Value> {
        candidates.iter().map(|candidate| considered(why, candidate)).collect()
    };
    let chosen = why.explanation.chosen();
    let mut value = json!({
        "policy": policy.as_str(),
        "prompt_tokens": ask.prompt_tokens,
        "answer_tokens": ask.answer_tokens,
        "choices": ask.choices,
        "block_tokens": ask.block_tokens,
        "decode": name(&plan.decode),
        "prefill": plan.prefill.iter().map(name).collect::<Vec<_>>(),
        "compute_tokens": plan.compute_tokens,
        "queue_position": why.explanation.queue_position(),
        "predicted_ms": chosen.map(|chosen| ms(chosen.terms.total_s())),
        "decode_candidates": side(&why.explanation.decode),
        "decode_candidates_total": why.explanation.decode_count,
        "prefill_candidates": side(&why.explanation.prefill),
        "prefill_candidates_total": why.explanation.prefill_count,
    });
    if let Some((told, fallback)) = &why.told {
        value["fallback"] = json!(fallback.filter(|_| told.acts).map(Fallback::as_str));
        value["external"] = external(told, *fallback, name);
    }
    value
}

/// What an external policy has said, whether it counts or not.
fn external(told: &Told, fallback: Option<Fallback>, name: impl Fn(&WorkerId) -> String) -> Value {
    let answer = told.answer.as_ref().ok();
    json!({
        "acts": told.acts,
        "outcome": fallback.map_or("answered", Fallback::as_str),
        "took_ms": told.took.map(|took| ms(took.as_secs_f64())),
        "decode": answer.map(|answer| name(&answer.decode)),
        "prefill": answer.map(|answer| answer.prefill.iter().map(name).collect::<Vec<_>>()),
        "probability": answer.and_then(|answer| answer.probability),
        "reason": answer.and_then(|answer| answer.reason.as_deref()),
    })
}

fn considered(why: &Explained, candidate: &Considered) -> Value {
    let worker = candidate.worker;
    let name =
        |worker: WorkerId| why.names.get(&worker).map_or_else(|| worker.to_string(), Clone::clone);
    let block_tokens = why.explanation.ask.block_tokens;
    let mut value = json!({
        "worker": name(worker),
        "worker_id": worker.0,
        "held_tokens": candidate.held_blocks as usize * block_tokens,
        "queued": candidate.load.queued,
        "running": candidate.load.running,
        "pending_tokens": candidate.load.pending_tokens,
        "free_blocks": candidate.load.free_blocks,
        "evictable_blocks": candidate.load.evictable_blocks,
        "sent_turns": candidate.own.turns,
        "sent_pending_tokens": candidate.own.pending_tokens,
        "promised_blocks": candidate.own.blocks,
        "fits": candidate.fits,
        "cost_ms": cost(&candidate.terms),
        "score": finite(candidate.score),
    });
    if let Some(tiers) = why.tiers.get(&worker) {
        let held = TIERS.iter().map(|(tier, name)| (*name, tiers[tier.bits() as usize]));
        let held = held.filter(|(_, blocks)| *blocks > 0);
        let held: Map<_, _> =
            held.map(|(name, blocks)| (name.to_owned(), json!(blocks * block_tokens))).collect();
        value["held_tokens_by_tier"] = Value::Object(held);
    }
    if why.explanation.decode.iter().any(|decode| decode.worker == worker) {
        value["probability"] = json!(candidate.probability);
        value["with_prefill"] = json!(candidate.with.map(name));
    }
    value
}

fn cost(terms: &Terms) -> Value {
    json!({
        "queue": ms(terms.queue_s),
        "memory": ms(terms.memory_s),
        "fetch": ms(terms.fetch_s),
        "join": ms(terms.join_s),
        "compute": ms(terms.compute_s),
        "handover": ms(terms.handover_s),
        "decode": ms(terms.decode_s),
        "harm": ms(terms.harm_s),
        "eviction": ms(terms.eviction_s),
        "total": ms(terms.total_s()),
    })
}

/// A line of the record of decisions.
pub(crate) fn decision_line(at: Duration, outcome: &Outcome) -> String {
    let Outcome { request, session, parent, ending, summary } = outcome;
    let report = summary.report.as_ref();
    let micros = |micros: u32| f64::from(micros) / 1e3;
    let key = |key: &Option<u64>| key.map(|key| format!("{key:016x}"));
    json!({
        "version": 1,
        "unix_ms": at.as_millis() as u64,
        "request": request.to_string(),
        "session": key(session),
        "parent": key(parent),
        "decision": summary.why.as_ref().map(|why| decision(why)),
        "outcome": {
            "ending": ending.as_str(),
            "ttft_ms": summary.ttft.map(|ttft| ms(ttft.as_secs_f64())),
            "total_ms": ms(summary.total.as_secs_f64()),
            "prompt_tokens": summary.prompt_tokens,
            "cached_tokens": report.map(|_| summary.cached_tokens),
            "completion_tokens": summary.completion_tokens,
            "queue_ms": report.map(|report| micros(report.queue_us)),
            "prefill_ms": report.map(|report| micros(report.prefill_us)),
            "handover_ms": report.map(|report| micros(report.handover_us)),
            "pulled_blocks": report.map(|report| report.pulled_blocks),
            "pulled_bytes": report.map(|report| report.pulled_bytes),
            "prefill_worker_id": report.map(|report| report.prefill_worker).filter(|id| *id != 0),
            "decode_worker_id": summary.decode_worker.0,
        },
    })
    .to_string()
}

/// Milliseconds, to a microsecond; no zero is negative.
fn ms(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e3 + 0.0
}

/// JSON has no infinity: null is "not compared".
fn finite(score: f64) -> Option<f64> {
    score.is_finite().then_some(score)
}
