//! A line of the audit record.

use crate::audit::Entry;
use serde_json::json;
use std::time::Duration;

/// The entry as it is written, with the time at which it was made.
pub(crate) fn audit_line(at: Duration, entry: &Entry) -> String {
    json!({
        "version": 1,
        "unix_ms": at.as_millis() as u64,
        "kind": entry.kind.as_str(),
        "request": entry.request.to_string(),
        "tenant": &*entry.tenant.0,
        "scope": &*entry.scope.0,
        "session": entry.session.map(|key| format!("{key:016x}")),
        "limited": entry.limited,
        "decode": entry.decode,
        "prefill_worker_id": entry.prefill_worker,
        "outcome": entry.outcome,
    })
    .to_string()
}
