//! Reading JSON values with errors that name the field by its full path.
//!
//! `null` counts as absent everywhere, as clients that serialise optional fields expect.

use super::contract::Body;
use crate::config::Limits;
use crate::error::Invalid;
use baton_proto::ir::JsonText;
use serde_json::{Map, Value};

/// An object of the body and where it stands in it.
#[derive(Clone, Copy)]
pub(super) struct Object<'a> {
    map: &'a Map<String, Value>,
    path: &'a str,
}

impl<'a> Object<'a> {
    /// `value` must be an object; `path` is empty for the body itself.
    pub(super) fn new(value: &'a Value, path: &'a str) -> Result<Self, Invalid> {
        match value {
            Value::Object(map) => Ok(Self { map, path }),
            other if path.is_empty() => Err(Invalid {
                param: None,
                code: "invalid_type",
                message: format!("The request body must be a JSON object, but is {}.", kind(other)),
            }),
            other => Err(Invalid::kind(path, "an object", kind(other))),
        }
    }

    /// The body itself, in which every field is of its type and within its bounds, and none is refused.
    pub(super) fn body(value: &'a Value, known: &Body, limits: &Limits) -> Result<Self, Invalid> {
        let body = Self::new(value, "")?;
        known.check(body, limits)?;
        Ok(body)
    }

    /// Where it stands in the body.
    pub(super) fn path(&self) -> &'a str {
        self.path
    }

    /// The full path of one of this object's fields.
    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The field, unless it is absent or null.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        #[cfg(test)]
        read::note(&self.path_of(key));
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// The object's entries in the client's order.
    pub(super) fn entries(self) -> impl ExactSizeIterator<Item = (&'a String, &'a Value)> {
        self.map.iter()
    }

    pub(super) fn string(&self, key: &str) -> Result<Option<&'a str>, Invalid> {
        self.get(key).map(|value| string(value, &self.path_of(key))).transpose()
    }

    pub(super) fn required_string(&self, key: &str) -> Result<&'a str, Invalid> {
        self.string(key)?.ok_or_else(|| Invalid::missing(self.path_of(key)))
    }

    pub(super) fn boolean(&self, key: &str) -> Result<Option<bool>, Invalid> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(other) => Err(Invalid::kind(self.path_of(key), "a boolean", kind(other))),
        }
    }

    pub(super) fn array(&self, key: &str) -> Result<Option<&'a [Value]>, Invalid> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(values)) => Ok(Some(values)),
            Some(other) => Err(Invalid::kind(self.path_of(key), "an array", kind(other))),
        }
    }

    /// An integer; its bounds are in the endpoint's description.
    pub(super) fn integer(&self, key: &str) -> Result<Option<i64>, Invalid> {
        let Some(value) = self.get(key) else { return Ok(None) };
        integer(value, &self.path_of(key), i64::MIN, i64::MAX).map(Some)
    }

    /// A number; its bounds are in the endpoint's description.
    pub(super) fn number(&self, key: &str) -> Result<Option<f32>, Invalid> {
        let Some(value) = self.get(key) else { return Ok(None) };
        number(value, &self.path_of(key), f32::MIN, f32::MAX).map(Some)
    }
}

/// A string.
pub(super) fn string<'a>(value: &'a Value, path: &str) -> Result<&'a str, Invalid> {
    value.as_str().ok_or_else(|| Invalid::kind(path, "a string", kind(value)))
}

/// An integer within `min..=max`; a float without a fraction counts as one.
pub(super) fn integer(value: &Value, path: &str, min: i64, max: i64) -> Result<i64, Invalid> {
    let whole = match value {
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Some(whole),
            // Exactly representable, so the conversion is exact.
            (None, Some(float)) if float.fract() == 0.0 && float.abs() < 9e15 => Some(float as i64),
            (None, Some(float)) if float.fract() == 0.0 => {
                Some(if float > 0.0 { i64::MAX } else { i64::MIN })
            }
            _ => None,
        },
        _ => None,
    };
    let whole = whole.ok_or_else(|| Invalid::kind(path, "an integer", kind(value)))?;
    if whole < min {
        let message =
            format!("Invalid '{path}': expected an integer of at least {min}, but got {value}.");
        return Err(Invalid {
            param: Some(path.to_owned()),
            code: "integer_below_min_value",
            message,
        });
    }
    if whole > max {
        let message =
            format!("Invalid '{path}': expected an integer of at most {max}, but got {value}.");
        return Err(Invalid {
            param: Some(path.to_owned()),
            code: "integer_above_max_value",
            message,
        });
    }
    Ok(whole)
}

/// A number within `min..=max`.
pub(super) fn number(value: &Value, path: &str, min: f32, max: f32) -> Result<f32, Invalid> {
    let float = value.as_f64().ok_or_else(|| Invalid::kind(path, "a number", kind(value)))?;
    if float < f64::from(min) {
        let message =
            format!("Invalid '{path}': expected a value of at least {min}, but got {value}.");
        return Err(Invalid {
            param: Some(path.to_owned()),
            code: "decimal_below_min_value",
            message,
        });
    }
    if float > f64::from(max) {
        let message =
            format!("Invalid '{path}': expected a value of at most {max}, but got {value}.");
        return Err(Invalid {
            param: Some(path.to_owned()),
            code: "decimal_above_max_value",
            message,
        });
    }
    Ok(float as f32)
}

/// The value as JSON text, in the client's key order.
pub(super) fn text(value: &Value) -> JsonText {
    JsonText(value.to_string())
}

/// What a value is, for error messages.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a decimal number",
        Value::Number(_) => "an integer",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Which fields were read on this thread, by their paths.
#[cfg(test)]
pub(super) mod read {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    thread_local! {
        static PATHS: RefCell<BTreeSet<String>> = const { RefCell::new(BTreeSet::new()) };
    }

    pub(super) fn note(path: &str) {
        PATHS.with_borrow_mut(|paths| paths.insert(path.to_owned()));
    }

    /// Those since the last time.
    pub(in crate::api) fn take() -> BTreeSet<String> {
        PATHS.take()
    }
}
