//! What a harness says about its intent, from whichever of its ways of saying it.
//!
//! A hint never fails a request by its value: what is out of bounds is clamped, what contradicts a
//! more telling place or is not served is ignored, and [`Applied`] says so. A value of the wrong
//! type is refused, since whoever sent it means something else than what is understood.
//! docs/intent.md is the vocabulary for people.

mod headers;
mod vocabulary;

pub(crate) use headers::Said;
pub(crate) use vocabulary::{SERVED, UNSERVED, VERSION, unserved};

use crate::config::{Config, Switch, Switches};
use crate::error::NAME_BYTES_MAX;
use baton_node::tenants::{Speculate, Tenant};
use baton_proto::ir::{Hints, Stop};
use std::sync::Arc;
use std::time::Duration;

/// Unknown fields that are named in an answer; what comes beyond is not.
const UNKNOWN_NAMED_MAX: usize = 8;

/// What came of a hint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Applied {
    /// Where it stood: `intent.priority`, `header x-dynamo-session-id`.
    pub(crate) hint: String,
    pub(crate) outcome: Outcome,
    /// What counts now, where that is a number.
    pub(crate) value: Option<i64>,
    /// Why it does not count as it was said.
    pub(crate) why: Option<String>,
}

/// Whether a hint counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    Used,
    /// With another value than was said.
    Clamped,
    Ignored,
    /// No word of the vocabulary.
    Unknown,
}

impl Outcome {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Used => "used",
            Self::Clamped => "clamped",
            Self::Ignored | Self::Unknown => "ignored",
        }
    }
}

/// A hint that is served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Hint {
    StrictPriority,
    Priority,
    Osl,
    DeadlineMs,
    SpeculativePrefill,
    Session,
    Parent,
}

const HINTS: usize = Hint::Parent as usize + 1;

/// Collects what is said, the most telling place first: who speaks first decides.
#[derive(Debug)]
pub(crate) struct Reading {
    bounds: Bounds,
    /// Whether a further turn can be foreseen from this one.
    continues: bool,
    hints: Hints,
    decided_by: [Option<String>; HINTS],
    applied: Vec<Applied>,
    unknown: usize,
}

/// What hints are clamped to.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    pub(crate) priority_max: i64,
    pub(crate) strict_priority_max: i64,
    /// No request lives longer.
    pub(crate) request: Duration,
    /// Whether hints count.
    pub(crate) hints: Switch,
    /// Whether anything is computed ahead.
    pub(crate) speculation: Switch,
    /// The tenant, where a file says what it may ask for.
    pub(crate) tenant: Option<Arc<Tenant>>,
}

impl Bounds {
    pub(crate) fn new(config: &Config, switches: Switches) -> Self {
        Self {
            priority_max: i64::from(config.hints.priority_max),
            strict_priority_max: i64::from(config.hints.strict_priority_max),
            request: config.timeouts.request.0,
            hints: switches.hints,
            speculation: switches.speculation,
            tenant: None,
        }
    }

    /// The values that count as they are said, both ends included.
    pub(crate) fn range(&self, hint: Hint) -> Option<(i64, i64)> {
        match hint {
            Hint::StrictPriority => {
                let most = self.tenants_most(hint).unwrap_or(i64::MAX);
                Some((0, most.min(self.strict_priority_max)))
            }
            Hint::Priority => {
                let (least, most) = (-self.priority_max, self.priority_max);
                Some((least, self.tenants_most(hint).unwrap_or(most).clamp(least, most)))
            }
            Hint::Osl => Some((0, i64::from(i32::MAX))),
            Hint::DeadlineMs => {
                Some((0, i64::try_from(self.request.as_millis()).unwrap_or(i64::MAX)))
            }
            Hint::SpeculativePrefill | Hint::Session | Hint::Parent => None,
        }
    }

    /// The tenant's own limit.
    fn tenants_most(&self, hint: Hint) -> Option<i64> {
        let rules = &self.tenant.as_ref()?.rules;
        match hint {
            Hint::StrictPriority => Some(i64::from(rules.strict_priority)),
            Hint::Priority => Some(i64::from(rules.priority)),
            _ => None,
        }
    }

    /// Whose limit cuts what was said to `value`, if it is the tenant's: its key, and a clause.
    fn tenants_limit(&self, hint: Hint, said: i64, value: i64) -> Option<(&'static str, String)> {
        let key = if hint == Hint::Priority { "priority" } else { "strict_priority" };
        let most = self.tenants_most(hint).filter(|most| said > *most && value == *most)?;
        let name = &self.tenant.as_ref()?.name.0;
        Some((key, format!("`{key}` of tenant `{name}` is at most {most}")))
    }

    /// Cuts an answer to what the tenant may have; what came of it, where more was asked for.
    pub(crate) fn limit_answer(
        &self,
        stop: &mut Stop,
        choices: u16,
        param: &str,
        hints: &mut Hints,
    ) -> Option<Applied> {
        let tenant = self.tenant.as_ref()?;
        let most = tenant.answer_tokens(u32::from(choices))?;
        let said = stop.max_tokens;
        stop.max_tokens = said.min(most);
        stop.min_tokens = stop.min_tokens.min(stop.max_tokens);
        if said <= most || said == u32::MAX {
            return None;
        }
        hints.limited.push("quota.answer_tokens");
        let name = &tenant.name.0;
        Some(Applied {
            hint: param.to_owned(),
            outcome: Outcome::Clamped,
            value: Some(i64::from(most)),
            why: Some(format!(
                "`quota.answer_tokens` of tenant `{name}` leaves each choice {most}"
            )),
        })
    }
}

impl Reading {
    pub(crate) fn new(bounds: Bounds, continues: bool) -> Self {
        Self {
            bounds,
            continues,
            hints: Hints::default(),
            decided_by: [const { None }; HINTS],
            applied: Vec::new(),
            unknown: 0,
        }
    }

    /// A hint that is a number.
    pub(crate) fn number(&mut self, hint: Hint, place: &str, said: i64) {
        if !self.decides(hint, place) {
            return;
        }
        let (min, max) = self.bounds.range(hint).unwrap_or((i64::MIN, i64::MAX));
        let value = said.clamp(min, max);
        match hint {
            Hint::StrictPriority => self.hints.strict_priority = value as u8,
            Hint::Priority => self.hints.priority = value as i32,
            Hint::Osl => self.hints.osl = Some(value as u32),
            Hint::DeadlineMs => {
                self.hints.wanted_within = Some(Duration::from_millis(value as u64));
            }
            Hint::SpeculativePrefill | Hint::Session | Hint::Parent => {}
        }
        let why = match self.bounds.tenants_limit(hint, said, value) {
            Some((key, why)) => {
                self.hints.limited.push(key);
                Some(why)
            }
            None => (value != said).then(|| format!("{min} to {max} is what counts here")),
        };
        self.counts(place, Some(value), why);
    }

    /// A hint that is a wish or none.
    pub(crate) fn wish(&mut self, hint: Hint, place: &str, said: bool) {
        if !self.decides(hint, place) {
            return;
        }
        if said && !self.continues {
            return self.ignore(place, "only a chat with one choice has a next turn to foresee");
        }
        if said && self.tenants_speculate() == Some(Speculate::Off) {
            self.hints.limited.push("speculate");
            let name = self.bounds.tenant.as_ref().map_or("", |tenant| &tenant.name.0);
            let why = format!("`speculate` of tenant `{name}` is off");
            return self.ignore(place, &why);
        }
        self.hints.speculative_prefill = said && self.bounds.speculation != Switch::Off;
        if said && self.bounds.speculation != Switch::On {
            let mode = self.bounds.speculation.as_str();
            return self.ignore(place, &format!("this router's `switches.speculation` is {mode}"));
        }
        self.counts(place, None, None);
    }

    /// A hint that is a name.
    pub(crate) fn name(&mut self, hint: Hint, place: &str, said: &str) {
        if said.is_empty() {
            return self.ignore(place, "it is empty");
        }
        if !self.decides(hint, place) {
            return;
        }
        let (name, shortened) = shortened(said);
        match hint {
            Hint::Session => self.hints.session = Some(name),
            Hint::Parent => self.hints.parent = Some(name),
            _ => {}
        }
        let why = || format!("longer than {NAME_BYTES_MAX} bytes; its digest is used instead");
        self.counts(place, None, shortened.then(why));
    }

    /// A hint that is understood, and does not count.
    pub(crate) fn ignore(&mut self, place: &str, why: &str) {
        self.note(place, Outcome::Ignored, None, Some(why.to_owned()));
    }

    /// A field that the vocabulary does not have.
    pub(crate) fn unknown(&mut self, place: &str) {
        self.unknown += 1;
        if self.unknown <= UNKNOWN_NAMED_MAX {
            let why = Some("no word of this vocabulary".to_owned());
            self.note(crate::error::clip(place), Outcome::Unknown, None, why);
        }
    }

    /// Whether any place has named the session up to now.
    pub(crate) fn has_session(&self) -> bool {
        self.hints.session.is_some()
    }

    /// The hints, with the tenant's word where nothing was said.
    pub(crate) fn finish(mut self) -> (Hints, Vec<Applied>) {
        if self.bounds.hints != Switch::On {
            self.hints = Hints::default();
        }
        if let Some((_, most)) = self.bounds.range(Hint::Priority) {
            self.hints.priority = self.hints.priority.min(most as i32);
        }
        let unsaid = self.decided_by[Hint::SpeculativePrefill as usize].is_none();
        if unsaid && self.continues && self.tenants_speculate() == Some(Speculate::Always) {
            self.hints.speculative_prefill = self.bounds.speculation != Switch::Off;
        }
        (self.hints, self.applied)
    }

    fn tenants_speculate(&self) -> Option<Speculate> {
        self.bounds.tenant.as_ref().map(|tenant| tenant.rules.speculate)
    }

    /// It counts, and `why` it does not count as it was said.
    fn counts(&mut self, place: &str, value: Option<i64>, why: Option<String>) {
        if self.bounds.hints != Switch::On {
            let mode = self.bounds.hints.as_str();
            return self.ignore(place, &format!("this router's `switches.hints` is {mode}"));
        }
        let outcome = if why.is_some() { Outcome::Clamped } else { Outcome::Used };
        self.note(place, outcome, value, why);
    }

    fn note(&mut self, place: &str, outcome: Outcome, value: Option<i64>, why: Option<String>) {
        self.applied.push(Applied { hint: place.to_owned(), outcome, value, why });
    }

    fn decides(&mut self, hint: Hint, place: &str) -> bool {
        let slot = &mut self.decided_by[hint as usize];
        match slot {
            None => {
                *slot = Some(place.to_owned());
                true
            }
            Some(first) => {
                let why = format!("{first} decides");
                self.ignore(place, &why);
                false
            }
        }
    }
}

/// The unknown fields, for a header of the answer.
pub(crate) fn warning(applied: &[Applied]) -> Option<String> {
    let unknown = applied.iter().filter(|applied| applied.outcome == Outcome::Unknown);
    // What stands in a header must be visible ASCII.
    let plain = |name: &str| name.replace(|c: char| !c.is_ascii_graphic(), "?");
    let names: Vec<_> = unknown.map(|applied| plain(&applied.hint)).collect();
    (!names.is_empty()).then(|| format!("ignored unknown fields: {}", names.join(", ")))
}

/// A name that is short enough to be kept: itself, or its digest. Two long names that begin alike
/// are two.
fn shortened(name: &str) -> (String, bool) {
    if name.len() <= NAME_BYTES_MAX {
        return (name.to_owned(), false);
    }
    (format!("blake3:{}", blake3::hash(name.as_bytes()).to_hex()), true)
}

#[cfg(test)]
mod tests;
