//! `GET /v1/capabilities`: which hints this deployment honours, and what the asking tenant may have.

use super::http::identify;
use crate::config::Switch;
use crate::error::TurnError;
use crate::intent::{Bounds, Hint, SERVED, UNSERVED, VERSION};
use crate::service::Service;
use axum::Json;
use axum::extract::State;
use baton_node::config::Threshold;
use baton_node::tenants::{Speculate, Tenant};
use http::HeaderMap;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The body's `intent` as a JSON Schema.
const SCHEMA: &str = include_str!("../intent/intent.schema.json");

pub(super) async fn get(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
) -> Result<Json<Value>, TurnError> {
    let visitor = identify(&service, &headers)?;
    let mut answer = capabilities(&service.bounds(&visitor));
    let named = service.switches().named();
    let switches = named.map(|(name, state)| (name.to_owned(), json!(state.as_str())));
    answer["switches"] = Value::Object(switches.into_iter().collect());
    Ok(Json(answer))
}

/// What a deployment with these bounds honours.
fn capabilities(bounds: &Bounds) -> Value {
    let served = SERVED.iter().map(|(name, hint)| {
        let denied = bounds.tenant.as_ref().map(|tenant| tenant.rules.speculate);
        let speculates = bounds.speculation == Switch::On && denied != Some(Speculate::Off);
        let off = bounds.hints != Switch::On || (*hint == Hint::SpeculativePrefill && !speculates);
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
    let mut capabilities = json!({
        "object": "baton.capabilities",
        "intent": {
            "version": VERSION,
            "hints": served.chain(unserved).collect::<Vec<_>>(),
            "schema": schema,
        },
    });
    if let Some(rules) = bounds.tenant.as_deref().map(tenant) {
        capabilities["tenant"] = rules;
    }
    capabilities
}

/// What a tenants file grants; `inf` is null.
fn tenant(tenant: &Tenant) -> Value {
    let rules = &tenant.rules;
    let limit = |limit: Threshold<u32>| limit.at().map_or(Value::Null, |limit| json!(limit));
    let quota = rules.quota.all().into_iter();
    let quota = quota.map(|(key, most)| (key.replace("quota.", ""), limit(most)));
    let coldest = rules.coldest.classes().into_iter();
    let coldest = coldest.map(|(class, tier)| (class.to_owned(), json!(tier.as_str())));
    json!({
        "name": &*tenant.name.0,
        "priority": rules.priority,
        "strict_priority": rules.strict_priority,
        "speculate": rules.speculate.as_str(),
        "reuse": rules.reuse.as_str(),
        "weight": rules.weight,
        "quota": quota.collect::<Map<_, _>>(),
        "retention": {
            "served": false,
            "why": "blocks lie in one tier and leave when memory is needed",
            "ttl_max_s": rules.ttl_max.0.as_secs_f64(),
            "coldest": coldest.collect::<Map<_, _>>(),
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
