//! Methods and filters of strings that differ from Python's, or are missing, in the engine.

use super::number;
use minijinja::value::{Kwargs, Tuple, ValueKind, from_args};
use minijinja::{Environment, Error, State, Value};
use minijinja_contrib::pycompat;

/// The widest string that padding makes.
const WIDTH_MAX: usize = 10_000;

/// Gives the engine Python's methods and the filters that depend on them.
pub(super) fn install(env: &mut Environment<'_>) {
    env.set_unknown_method_callback(|state, value, method, args| match value.as_str() {
        Some(text) => match string_method(text, method, args)? {
            Some(result) => Ok(result),
            None => pycompat::unknown_method_callback(state, value, method, args),
        },
        None => pycompat::unknown_method_callback(state, value, method, args),
    });
    env.add_filter("trim", |text: String, chars: Option<String>| {
        strip(&text, chars.as_deref(), true, true).to_owned()
    });
    env.add_filter("string", |value: &Value| match value.kind() {
        ValueKind::String => value.clone(),
        _ => Value::from(number::float(value).map_or_else(|| value.to_string(), number::repr)),
    });
    env.add_filter("float", |value: &Value, default: Option<f64>| {
        let text = value.as_str().map(|text| text.trim().parse().ok());
        let number = text.unwrap_or_else(|| f64::try_from(value.clone()).ok());
        number.unwrap_or(default.unwrap_or(0.0))
    });
    env.add_filter("int", |value: &Value, default: Option<i64>| match value.as_str() {
        Some(text) => integer(text.trim()).unwrap_or_else(|| Value::from(default.unwrap_or(0))),
        None if value.kind() == ValueKind::Bool => Value::from(i64::from(value.is_true())),
        None if value.is_integer() => value.clone(),
        None => match f64::try_from(value.clone()) {
            Ok(float) if float.is_finite() => Value::from(float.trunc() as i128),
            _ => Value::from(default.unwrap_or(0)),
        },
    });
    env.add_filter("default", default);
    env.add_filter("d", default);
    env.add_filter("replace", replace);
}

/// A text as a whole number, which may be written as a float.
fn integer(text: &str) -> Option<Value> {
    let float = || text.parse::<f64>().ok().filter(|float| float.is_finite());
    let number =
        text.parse::<i128>().ok().or_else(|| float().map(|float| float.trunc() as i128))?;
    Some(i64::try_from(number).map_or_else(|_| Value::from(number), Value::from))
}

/// `default(value, boolean=False)`: with `boolean`, also for what is false.
#[allow(clippy::needless_pass_by_value)] // The engine hands filters their arguments by value.
fn default(
    value: &Value,
    other: Option<Value>,
    boolean: Option<bool>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let boolean = match boolean {
        Some(boolean) => boolean,
        None => kwargs.get::<Option<bool>>("boolean")?.unwrap_or(false),
    };
    let other = match other {
        Some(other) => other,
        None => kwargs.get::<Option<Value>>("default_value")?.unwrap_or_else(|| Value::from("")),
    };
    kwargs.assert_all_used()?;
    let absent = value.is_undefined() || (boolean && !value.is_true());
    Ok(if absent { other } else { value.clone() })
}

fn replace(
    state: &mut State<'_, '_>,
    text: &Value,
    from: &Value,
    to: &Value,
    count: Option<Value>,
) -> Result<Value, Error> {
    let text = Value::from(text.to_string());
    let mut args = vec![from.clone(), to.clone()];
    args.extend(count.filter(|count| !count.is_none()));
    pycompat::unknown_method_callback(state, &text, "replace", &args)
}

fn string_method(text: &str, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    Ok(Some(match method {
        "strip" | "lstrip" | "rstrip" => {
            let (chars,): (Option<&str>,) = from_args(args)?;
            Value::from(strip(text, chars, method != "rstrip", method != "lstrip"))
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Value::from(text.strip_prefix(prefix).unwrap_or(text))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Value::from(text.strip_suffix(suffix).unwrap_or(text))
        }
        "rsplit" => {
            let (separator, max): (Option<&str>, Option<i64>) = from_args(args)?;
            Value::from(rsplit(text, separator, max.unwrap_or(-1)))
        }
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            Value::from(partition(text, separator, method == "rpartition"))
        }
        "ljust" | "rjust" => {
            let (width, fill): (usize, Option<char>) = from_args(args)?;
            let padding = padding(text, width, fill.unwrap_or(' '));
            Value::from(if method == "ljust" { text.to_owned() + &padding } else { padding + text })
        }
        "zfill" => {
            let (width,): (usize,) = from_args(args)?;
            let digits = text.trim_start_matches('-');
            let sign = &text[..text.len() - digits.len()];
            Value::from(format!("{sign}{}{digits}", padding(text, width, '0')))
        }
        "title" => Value::from(title(text)),
        _ => return Ok(None),
    }))
}

/// What Python takes for white space, or the given characters, cut from the ends.
fn strip<'t>(text: &'t str, chars: Option<&str>, start: bool, end: bool) -> &'t str {
    let cut = |c: char| match chars {
        Some(chars) => chars.contains(c),
        None => c.is_whitespace() || ('\x1c'..='\x1f').contains(&c),
    };
    let text = if start { text.trim_start_matches(cut) } else { text };
    if end { text.trim_end_matches(cut) } else { text }
}

fn rsplit(text: &str, separator: Option<&str>, max: i64) -> Vec<String> {
    let limit = usize::try_from(max).map_or(usize::MAX, |max| max.saturating_add(1));
    let mut parts: Vec<String> = Vec::new();
    if let Some(separator) = separator {
        parts.extend(text.rsplitn(limit, separator).map(str::to_owned));
    } else {
        let mut rest = text.trim_end();
        while !rest.trim_start().is_empty() {
            // The last part takes all that is left.
            let last = parts.len() + 1 >= limit;
            let start =
                if last { 0 } else { rest.trim_end_matches(|c: char| !c.is_whitespace()).len() };
            parts.push(rest[start..].to_owned());
            rest = rest[..start].trim_end();
        }
    }
    parts.reverse();
    parts
}

fn partition(text: &str, separator: &str, last: bool) -> Tuple {
    let parts = if last { text.rsplit_once(separator) } else { text.split_once(separator) };
    let parts = match parts {
        Some((before, after)) => [before, separator, after],
        None if last => ["", "", text],
        None => [text, "", ""],
    };
    Tuple::from(parts.map(Value::from).to_vec())
}

fn padding(text: &str, width: usize, fill: char) -> String {
    let missing = width.min(WIDTH_MAX).saturating_sub(text.chars().count());
    std::iter::repeat_n(fill, missing).collect()
}

/// Upper case after everything that is not a letter, lower case elsewhere.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_word = false;
    for c in text.chars() {
        if in_word {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
        in_word = c.is_alphabetic();
    }
    out
}
