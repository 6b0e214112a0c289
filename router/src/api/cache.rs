//! `nvext.cache_control`: what agents' toolkits say in any dialect to have a whole prompt kept.

use super::fields::{self, Object};
use crate::error::Invalid;
use baton_proto::ir::{CacheTtl, Content, Message, Part};
use serde_json::Value;

/// Toolkits name any time; there are two classes of it, and up to this it is the shorter one.
const SHORT_MAX_S: u64 = 300;

/// What a body says about its whole prompt.
pub(super) fn wanted(body: Object<'_>) -> Result<Option<CacheTtl>, Invalid> {
    let Some(nvext) = body.get("nvext") else { return Ok(None) };
    let Some(value) = Object::new(nvext, "nvext")?.get("cache_control") else { return Ok(None) };
    let directive = Object::new(value, "nvext.cache_control")?;
    let kind = directive.required_string("type")?;
    if kind != "ephemeral" {
        let path = directive.path_of("type");
        let message = format!("Invalid '{path}': expected `ephemeral`.");
        return Err(Invalid::value(path, message));
    }
    let Some(ttl) = directive.get("ttl") else { return Ok(Some(CacheTtl::Minutes5)) };
    let path = directive.path_of("ttl");
    let seconds = match ttl {
        Value::Number(_) => Some(fields::integer(ttl, &path, 0, i64::MAX)? as u64),
        _ => seconds(fields::string(ttl, &path)?),
    };
    let Some(seconds) = seconds else {
        let message = format!("Invalid '{path}': expected a time such as `300s`, `5m` or `1h`.");
        return Err(Invalid::value(path, message));
    };
    Ok(Some(if seconds <= SHORT_MAX_S { CacheTtl::Minutes5 } else { CacheTtl::Hour1 }))
}

/// `90s`, `5m`, `1h`; a number alone is seconds.
fn seconds(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return None,
    };
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    // One that is too long is a long time.
    is_number.then(|| digits.parse::<u64>().unwrap_or(u64::MAX).saturating_mul(unit))
}

/// The last part that says something: what marks it marks all that lies before it.
pub(super) fn last_part(messages: &mut [Message]) -> Option<&mut Part> {
    let parts = messages.iter_mut().rev().flat_map(|message| message.parts.iter_mut().rev());
    let mut said =
        parts.filter(|part| !matches!(&part.content, Content::Text(text) if text.is_empty()));
    said.next()
}

/// Marks the conversation as the body wants it.
pub(super) fn mark(body: Object<'_>, messages: &mut [Message]) -> Result<(), Invalid> {
    let wanted = wanted(body)?;
    if let (Some(ttl), Some(part)) = (wanted, last_part(messages)) {
        part.cache = Some(ttl);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn any_time_is_one_of_two() {
        let read = |directive: Value| {
            let body = json!({"nvext": {"cache_control": directive}});
            wanted(Object::new(&body, "").expect("an object"))
        };
        let (short, long) = (Ok(Some(CacheTtl::Minutes5)), Ok(Some(CacheTtl::Hour1)));
        for (ttl, expected) in [
            (json!(null), &short),
            (json!("5m"), &short),
            (json!("300s"), &short),
            (json!("0"), &short),
            (json!(300), &short),
            (json!(301), &long),
            (json!("301s"), &long),
            (json!("1h"), &long),
            (json!("99999999999999999999h"), &long),
        ] {
            assert_eq!(&read(json!({"type": "ephemeral", "ttl": ttl})), expected, "{ttl}");
        }
        for (directive, param) in [
            (json!(5), "nvext.cache_control"),
            (json!({"ttl": "1h"}), "nvext.cache_control.type"),
            (json!({"type": "pinned"}), "nvext.cache_control.type"),
            (json!({"type": "ephemeral", "ttl": "soon"}), "nvext.cache_control.ttl"),
            (json!({"type": "ephemeral", "ttl": "1.5h"}), "nvext.cache_control.ttl"),
            (json!({"type": "ephemeral", "ttl": "h"}), "nvext.cache_control.ttl"),
            (json!({"type": "ephemeral", "ttl": -1}), "nvext.cache_control.ttl"),
            (json!({"type": "ephemeral", "ttl": []}), "nvext.cache_control.ttl"),
        ] {
            let refused = read(directive).expect_err(param);
            assert_eq!(refused.param.as_deref(), Some(param));
        }
        assert_eq!(wanted(Object::new(&json!({"nvext": {}}), "").expect("one")), Ok(None));
    }
}
