//! What an answer of any dialect tells beside itself, in `nvext`.

use super::common::Delivery;
use super::explain;
use crate::intent::Applied;
use crate::turn::Summary;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// Puts `nvext` into a body or an event, where anything was asked for. `created` is when the request
/// came, since 1970.
pub(super) fn attach(body: &mut Value, delivery: &Delivery, created: Duration, summary: &Summary) {
    let mut extra = Map::new();
    if delivery.timing {
        extra.insert("timing".to_owned(), timing(created, summary));
    }
    if delivery.worker_id {
        let prefill = summary.report.map(|report| report.prefill_worker).filter(|id| *id != 0);
        let ids =
            json!({"prefill_worker_id": prefill, "decode_worker_id": summary.decode_worker.0});
        extra.insert("worker_id".to_owned(), ids);
    }
    if let Some(applied) = &delivery.applied {
        extra.insert("applied".to_owned(), applied.iter().map(told).collect());
    }
    if let Some(bought) = &summary.bought {
        extra.insert(
            "speculation".to_owned(),
            json!({
                "hit_tokens": bought.hit_tokens,
                "wasted_tokens": bought.wasted_tokens,
                "lead_ms": millis(bought.lead),
            }),
        );
    }
    if let Some(why) = &summary.why {
        extra.insert("explain".to_owned(), explain::decision(why));
    }
    if !extra.is_empty() {
        body["nvext"] = Value::Object(extra);
    }
}

/// What came of a hint.
fn told(applied: &Applied) -> Value {
    let mut told = json!({"hint": applied.hint, "outcome": applied.outcome.as_str()});
    if let Some(value) = applied.value {
        told["value"] = json!(value);
    }
    if let Some(why) = &applied.why {
        told["why"] = json!(why);
    }
    told
}

/// Times in milliseconds, as far as they are known.
fn timing(created: Duration, summary: &Summary) -> Value {
    let ms = |micros: u32| f64::from(micros) / 1e3;
    let report = summary.report;
    json!({
        "request_received_ms": created.as_millis() as u64,
        "prefill_wait_time_ms": report.map(|report| ms(report.queue_us)),
        "prefill_time_ms": report.map(|report| ms(report.prefill_us)),
        "handover_ms": report.filter(|report| report.pulled_blocks > 0).map(|report| ms(report.handover_us)),
        "ttft_ms": summary.ttft.map(millis),
        "total_time_ms": millis(summary.total),
        "kv_hit_rate": summary.cached_tokens as f64 / summary.prompt_tokens.max(1) as f64,
        "pulled_blocks": report.map(|report| report.pulled_blocks),
        "pulled_bytes": report.map(|report| report.pulled_bytes),
    })
}

fn millis(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e3
}
