//! `GET /v1/capabilities`: which hints this deployment honours.

use crate::config::Switch;
use crate::intent::{Bounds, Hint, SERVED, UNSERVED, VERSION};
use crate::service::Service;
use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use std::sync::Arc;

/// The body's `intent` as a JSON Schema.
const SCHEMA: &str = include_str!("../intent/intent.schema.json");

pub(super) async fn get(State(service): State<Arc<Service>>) -> Json<Value> {
    let mut answer = capabilities(&service.bounds());
    let named = service.switches().named();
    let switches = named.map(|(name, state)| (name.to_owned(), json!(state.as_str())));
    answer["switches"] = Value::Object(switches.into_iter().collect());
    Json(answer)
}

/// What a deployment with these bounds honours.
fn capabilities(bounds: &Bounds) -> Value {
    let served = SERVED.iter().map(|(name, hint)| {
        let off = bounds.hints != Switch::On
            || (*hint == Hint::SpeculativePrefill && bounds.speculation != Switch::On);
        let mut entry = json!({"hint": name, "served": !off});
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
