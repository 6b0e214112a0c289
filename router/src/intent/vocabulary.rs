//! The words, which of them this release acts on, and `GET /v1/capabilities`.

use super::{Bounds, Hint};
use serde_json::{Value, json};

/// The version of the vocabulary.
const VERSION: i64 = 1;
/// The body's `intent` as a JSON Schema.
const SCHEMA: &str = include_str!("intent.schema.json");

/// What is said about hints that are understood and not acted on yet.
const UNSERVED: [(&str, &str); 5] = [
    ("speculative_prefill", "this router does not prefill ahead"),
    ("tool_eta_ms", "this router does not plan for the time after a tool call"),
    ("retain", "blocks leave when memory is needed, the least recently used first"),
    ("session.final", "a session's blocks leave like all others"),
    ("latency_sensitivity", "deprecated; use priority"),
];

const SERVED: [(&str, Hint); 6] = [
    ("strict_priority", Hint::StrictPriority),
    ("priority", Hint::Priority),
    ("osl", Hint::Osl),
    ("deadline_ms", Hint::DeadlineMs),
    ("session.id", Hint::Session),
    ("session.parent", Hint::Parent),
];

/// Why that word of the vocabulary does nothing.
pub(crate) fn unserved(name: &str) -> &'static str {
    UNSERVED.iter().find(|(unserved, _)| *unserved == name).map_or("not served", |(_, why)| why)
}

/// What this deployment honours.
pub(crate) fn capabilities(bounds: &Bounds) -> Value {
    let served = SERVED.iter().map(|(name, hint)| {
        let mut entry = json!({"hint": name, "served": true});
        if let Some((min, max)) = bounds.range(*hint) {
            entry["minimum"] = json!(min);
            entry["maximum"] = json!(max);
        }
        entry
    });
    let unserved =
        UNSERVED.iter().map(|(name, why)| json!({"hint": name, "served": false, "why": why}));
    let schema: Value = serde_json::from_str(SCHEMA).unwrap_or_default();
    json!({
        "object": "baton.capabilities",
        "intent": {
            "version": VERSION,
            "hints": served.chain(unserved).collect::<Vec<_>>(),
            "schema": schema,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_schema_has_every_word_and_no_other() {
        let schema: Value = serde_json::from_str(SCHEMA).expect("JSON");
        let mut words = BTreeSet::new();
        for (name, property) in schema["properties"].as_object().expect("properties") {
            match property["properties"].as_object().filter(|_| name == "session") {
                Some(inner) => words.extend(inner.keys().map(|key| format!("{name}.{key}"))),
                None => drop(words.insert(name.clone())),
            }
        }
        let known = SERVED.iter().map(|(name, _)| *name).chain(UNSERVED.map(|(name, _)| name));
        // A word of nvext alone, and the one that is about the others.
        let known = known.filter(|name| *name != "latency_sensitivity").chain(["version"]);
        assert_eq!(words, known.map(str::to_owned).collect());
    }
}
