//! Numbers as Python writes them.

use minijinja::Value;
use minijinja::value::{Object, ObjectRepr, ValueKind};
use std::fmt;
use std::sync::Arc;

/// The float that a value is, if it is one.
pub(super) fn float(value: &Value) -> Option<f64> {
    if value.kind() != ValueKind::Number || value.is_integer() {
        return None;
    }
    f64::try_from(value.clone()).ok()
}

/// Python's `repr` of a float: the shortest digits that give the same number, with an exponent
/// below -4 and from 16 on.
pub(super) fn repr(float: f64) -> String {
    if float.is_nan() {
        return "nan".to_owned();
    }
    if float.is_infinite() {
        return if float > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = format!("{float:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let text = float.to_string();
        return if text.contains('.') { text } else { text + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

/// An integer beyond 128 bits, kept as its digits: templates pass such numbers on and no more.
#[derive(Debug)]
pub(super) struct BigInt(pub(super) String);

impl Object for BigInt {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An integer from its decimal digits, with an optional minus sign.
pub(super) fn integer(digits: &str) -> Value {
    match digits.parse::<i128>() {
        Ok(number) => i64::try_from(number).map_or_else(|_| Value::from(number), Value::from),
        Err(_) => Value::from_object(BigInt(digits.to_owned())),
    }
}
