//! What every endpoint takes: each field's name, type and bounds, and what becomes of it.
//!
//! This is the one description there is. A body is checked against it before anything is read out of
//! it ([`Object::body`]), so types, bounds and refusals are what stands here; the OpenAPI document
//! and the table in docs/api.md are made from it; and a test sends every field through the decoders, to
//! see that what is supported changes something, that what is ignored changes nothing, and that they
//! read no name that is missing here.

mod chat;
mod completions;
#[cfg(test)]
mod docs;
mod messages;
mod openapi;
mod responses;
mod shared;
#[cfg(test)]
mod tests;
mod tokens;

pub(super) use chat::{CHAT, CONVERSATION};
pub(super) use completions::COMPLETIONS;
pub(super) use messages::{COUNT_TOKENS, MESSAGES};
pub(super) use openapi::openapi;
pub(super) use responses::RESPONSES;
pub(super) use tokens::{DETOKENIZE, TOKENIZE};

use super::common::clip;
use super::fields::{self, Object};
use crate::config::Limits;
use crate::error::Invalid;
use serde_json::Value;
use std::borrow::Cow;

/// The body of an endpoint's requests.
pub(super) struct Body {
    /// Where it is sent to.
    pub(super) path: &'static str,
    /// Its fields, in groups.
    pub(super) fields: &'static [&'static [Field]],
    /// Whether unknown fields are named in a header of the answer.
    pub(super) names_unknown: bool,
}

/// A field of a body, or of an object in it.
#[derive(Clone, Copy)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) fate: Fate,
    /// It must be there.
    pub(super) required: bool,
    /// For people: what it means, or what is done instead.
    pub(super) meaning: &'static str,
}

/// What becomes of a field.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It does what it says.
    Supported,
    /// Whatever it says changes nothing; it may have to be of a type nevertheless.
    Ignored,
    /// A 400 that names it, but where it says what happens anyway.
    Refused(But),
}

/// What a refused field may say.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum But {
    /// Nothing.
    Never,
    /// This, in JSON.
    Is(&'static str),
    /// The same as that other field, or 1 where that is absent.
    Equals(&'static str),
}

/// The type of a field, with its bounds.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Boolean,
    Text,
    /// From the first to the second.
    Integer(i64, Most),
    /// From the first to the second.
    Number(f32, f32),
    /// Above 0, up to this.
    Above0(f32),
    /// One of these.
    Words(&'static [&'static str]),
    /// An object with these fields, and others that are ignored.
    Object(&'static [Field]),
    /// Whatever it is: nobody looks.
    Any,
    /// The decoder's own to check; the schema that says what it takes.
    Schema(&'static str),
}

/// The largest value of an integer.
#[derive(Clone, Copy)]
pub(super) enum Most {
    Fixed(i64),
    /// As the router is configured.
    Limit(fn(&Limits) -> i64),
}

impl Most {
    pub(super) fn of(self, limits: &Limits) -> i64 {
        match self {
            Self::Fixed(most) => most,
            Self::Limit(most) => most(limits),
        }
    }
}

/// What fits a count of tokens.
const COUNT_MAX: Most = Most::Fixed(i32::MAX as i64);

const fn supported(name: &'static str, kind: Kind, meaning: &'static str) -> Field {
    Field { name, kind, fate: Fate::Supported, required: false, meaning }
}

const fn ignored(name: &'static str, meaning: &'static str) -> Field {
    Field { name, kind: Kind::Any, fate: Fate::Ignored, required: false, meaning }
}

const fn refused(name: &'static str, why: &'static str) -> Field {
    Field { name, kind: Kind::Any, fate: Fate::Refused(But::Never), required: false, meaning: why }
}

impl Field {
    const fn required(self) -> Self {
        Self { required: true, ..self }
    }

    const fn ignored(self) -> Self {
        Self { fate: Fate::Ignored, ..self }
    }

    /// Refused, but where it says that.
    const fn refused(self, but: But) -> Self {
        Self { fate: Fate::Refused(but), ..self }
    }

    fn check(&self, value: &Value, object: Object<'_>, limits: &Limits) -> Result<(), Invalid> {
        let path = match object.path() {
            "" => Cow::Borrowed(self.name),
            _ => Cow::Owned(object.path_of(self.name)),
        };
        self.kind.check(value, &path, limits)?;
        let Fate::Refused(but) = self.fate else { return Ok(()) };
        let (is_allowed, only) = match but {
            But::Never => (false, "not supported".to_owned()),
            But::Is(same) => (is(value, same), format!("only supported as {same}")),
            But::Equals(name) => {
                let other = object.get(name).map_or(Some(1), Value::as_i64);
                (value.as_i64() == other, format!("only supported where it equals '{name}'"))
            }
        };
        if is_allowed {
            return Ok(());
        }
        let message = format!("'{path}' is {only}: {}.", self.meaning);
        Err(Invalid::unsupported(path, message))
    }
}

impl Kind {
    fn check(&self, value: &Value, path: &str, limits: &Limits) -> Result<(), Invalid> {
        match *self {
            Self::Any | Self::Schema(_) => {}
            Self::Boolean if value.is_boolean() => {}
            Self::Boolean => return Err(Invalid::kind(path, "a boolean", fields::kind(value))),
            Self::Text => drop(fields::string(value, path)?),
            Self::Integer(min, most) => {
                fields::integer(value, path, min, most.of(limits))?;
            }
            Self::Number(min, max) => {
                fields::number(value, path, min, max)?;
            }
            Self::Above0(max) => {
                // A number that 32 bits have as 0 would be one.
                if fields::number(value, path, 0.0, max)? == 0.0 {
                    let message =
                        format!("Invalid '{path}': expected a value above 0, but got {value}.");
                    return Err(Invalid::value(path, message));
                }
            }
            Self::Words(words) => {
                let word = fields::string(value, path)?;
                if !words.contains(&word) {
                    let (word, words) = (clip(word), words.join(", "));
                    let message = format!("Invalid '{path}': `{word}` is none of {words}.");
                    return Err(Invalid::value(path, message));
                }
            }
            Self::Object(fields) => check(Object::new(value, path)?, &[fields], limits)?,
        }
        Ok(())
    }
}

/// Whether a value is what that JSON says.
fn is(value: &Value, json: &str) -> bool {
    serde_json::from_str::<Value>(json).is_ok_and(|other| *value == other)
}

/// Whether an object is what its fields say it must be.
fn check(object: Object<'_>, known: &[&[Field]], limits: &Limits) -> Result<(), Invalid> {
    // In the order of the description, so that of several faults the same one is told whatever the order
    // of the body.
    for field in known.iter().copied().flatten() {
        match object.get(field.name) {
            Some(value) => field.check(value, object, limits)?,
            None if field.required => return Err(Invalid::missing(object.path_of(field.name))),
            None => {}
        }
    }
    Ok(())
}

impl Body {
    /// Every field, in order.
    pub(super) fn fields(&self) -> impl Iterator<Item = &'static Field> {
        self.fields.iter().copied().flatten()
    }

    /// Whether a body is what the fields say it must be.
    pub(super) fn check(&self, body: Object<'_>, limits: &Limits) -> Result<(), Invalid> {
        check(body, self.fields, limits)
    }

    /// The fields of a body that nobody here knows, where they are told.
    pub(super) fn unknown(&self, body: Object<'_>) -> Vec<String> {
        if !self.names_unknown {
            return Vec::new();
        }
        let is_known = |name: &str| self.fields().any(|field| field.name == name);
        let unknown = body.entries().filter(|(name, value)| !value.is_null() && !is_known(name));
        unknown.map(|(name, _)| clip(name).to_owned()).collect()
    }
}
