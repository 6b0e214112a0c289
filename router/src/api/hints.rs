//! What a body says about intent: `intent`, `nvext.agent_hints`, and names of the session.

use super::common::Mint;
use super::fields::{self, Object};
use crate::error::Invalid;
use crate::intent::{Applied, Hint, Reading, VERSION, unserved};
use baton_proto::ir::Hints;
use serde_json::Value;

const INTENT: &str = "intent";
const AGENT_HINTS: &str = "nvext.agent_hints";

/// The hints of a request, and what came of each. Headers beat the body, and in it the neutral
/// vocabulary beats the vendor's.
///
/// `continues` says whether a further turn can be foreseen from this one; `session` is the place and
/// the name that count where nothing more telling names it.
pub(super) fn read(
    body: Object<'_>,
    mint: &Mint,
    continues: bool,
    session: Option<(&str, &str)>,
) -> Result<(Hints, Vec<Applied>), Invalid> {
    let mut reading = Reading::new(mint.bounds.clone(), continues);
    mint.said.tell(&mut reading);
    if let Some(value) = body.get(INTENT) {
        intent(Object::new(value, INTENT)?, &mut reading)?;
    }
    if let Some(nvext) = body.get("nvext")
        && let Some(value) = Object::new(nvext, "nvext")?.get("agent_hints")
    {
        agent_hints(Object::new(value, AGENT_HINTS)?, &mut reading)?;
    }
    mint.said.tell_identity(&mut reading);
    if let Some((place, name)) = session
        && !reading.has_session()
    {
        reading.name(Hint::Session, place, name);
    }
    Ok(reading.finish())
}

fn intent(object: Object<'_>, reading: &mut Reading) -> Result<(), Invalid> {
    for (name, value) in present(object) {
        let path = object.path_of(name);
        match name {
            "version" if whole(value, &path)? != VERSION => {
                reading.ignore(&path, &format!("version {VERSION} is what is read here"));
            }
            "version" => {}
            "deadline_ms" => reading.number(Hint::DeadlineMs, &path, whole(value, &path)?),
            "tool_eta_ms" => {
                whole(value, &path)?;
                reading.ignore(&path, unserved(name));
            }
            "retain" => {
                retain(Object::new(value, &path)?, reading)?;
                reading.ignore(&path, unserved(name));
            }
            "session" => session(Object::new(value, &path)?, reading)?,
            _ => shared(object, name, value, reading)?,
        }
    }
    Ok(())
}

fn session(object: Object<'_>, reading: &mut Reading) -> Result<(), Invalid> {
    for (name, value) in present(object) {
        let path = object.path_of(name);
        match name {
            "id" => reading.name(Hint::Session, &path, fields::string(value, &path)?),
            "parent" => reading.name(Hint::Parent, &path, fields::string(value, &path)?),
            "final" => {
                if object.boolean(name)? == Some(true) {
                    reading.ignore(&path, unserved("session.final"));
                }
            }
            _ => reading.unknown(&path),
        }
    }
    Ok(())
}

/// Only read: nothing here keeps blocks by wish.
fn retain(object: Object<'_>, reading: &mut Reading) -> Result<(), Invalid> {
    for (name, value) in present(object) {
        let path = object.path_of(name);
        match name {
            "ttl" if !(value.is_string() || value.is_i64() || value.is_u64()) => {
                return Err(Invalid::kind(path, "an integer or a string", fields::kind(value)));
            }
            "ttl" => {}
            "class" => drop(fields::string(value, &path)?),
            _ => reading.unknown(&path),
        }
    }
    Ok(())
}

/// The hints that Dynamo 1.6 defines.
fn agent_hints(object: Object<'_>, reading: &mut Reading) -> Result<(), Invalid> {
    for (name, value) in present(object) {
        let path = object.path_of(name);
        match name {
            "latency_sensitivity" => {
                if !value.is_number() {
                    return Err(Invalid::kind(path, "a number", fields::kind(value)));
                }
                reading.ignore(&path, unserved(name));
            }
            _ => shared(object, name, value, reading)?,
        }
    }
    Ok(())
}

/// The hints that both vocabularies have; other fields are unknown.
fn shared(
    object: Object<'_>,
    name: &str,
    value: &Value,
    reading: &mut Reading,
) -> Result<(), Invalid> {
    let path = object.path_of(name);
    match name {
        "strict_priority" => reading.number(Hint::StrictPriority, &path, whole(value, &path)?),
        "priority" => reading.number(Hint::Priority, &path, whole(value, &path)?),
        "osl" => reading.number(Hint::Osl, &path, whole(value, &path)?),
        "speculative_prefill" => {
            let said = object.boolean(name)?.unwrap_or_default();
            reading.wish(Hint::SpeculativePrefill, &path, said);
        }
        _ => reading.unknown(&path),
    }
    Ok(())
}

/// The fields that are not null.
fn present(object: Object<'_>) -> impl Iterator<Item = (&str, &Value)> {
    object.entries().map(|(name, value)| (name.as_str(), value)).filter(|(_, v)| !v.is_null())
}

/// An integer of any size; what lies beyond 64 bits is as good as their end.
fn whole(value: &Value, path: &str) -> Result<i64, Invalid> {
    fields::integer(value, path, i64::MIN, i64::MAX)
}
