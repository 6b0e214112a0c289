//! The body of a request: what it must be, read whole, and as JSON.

use crate::bodies::Held;
use crate::error::{Invalid, TurnError, clip};
use crate::service::Service;
use axum::body::Body;
use axum::extract::Request;
use baton_node::serve::BodyFault;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, header};
use http_body_util::BodyExt;
use serde_json::Value;

/// A header says that the body is something that is not read here.
pub(super) const UNSUPPORTED_MEDIA: &str = "unsupported_media_type";

/// The whole body; its limits in size and time are the server's.
pub(super) async fn read(service: &Service, request: Request) -> Result<(Bytes, Held), TurnError> {
    let (head, body) = request.into_parts();
    let read = read_whole(service, body).await?;
    // Only now: a client that is answered while it still sends may never read the answer.
    check_kind(&head.headers)?;
    Ok(read)
}

async fn read_whole(service: &Service, mut body: Body) -> Result<(Bytes, Held), TurnError> {
    let (mut whole, mut held) = (BytesMut::new(), service.bodies().enter());
    while let Some(frame) = body.frame().await {
        let frame = match frame.map_err(|error| fault(&error)) {
            Ok(frame) => frame,
            Err(TurnError::BodyTooLarge) => {
                drop((whole, held));
                discard(body).await;
                return Err(TurnError::BodyTooLarge);
            }
            Err(error) => return Err(error),
        };
        if let Ok(data) = frame.into_data() {
            held.grow(data.len())?;
            whole.extend_from_slice(&data);
        }
    }
    Ok((whole.freeze(), held))
}

fn fault(error: &axum::Error) -> TurnError {
    match BodyFault::find(error) {
        Some(BodyFault::TooLarge) => TurnError::BodyTooLarge,
        Some(BodyFault::TooSlow) => TurnError::BodyTooSlow,
        None => TurnError::BodyBroken(error.to_string()),
    }
}

/// Takes the rest of a body that is too large and keeps nothing of it: to close a connection with unread
/// bytes resets it, and many clients would see that instead of the answer. Ends with the body, or when the
/// time for it is over.
async fn discard(mut body: Body) {
    while let Some(frame) = body.frame().await {
        if frame.is_err_and(|error| fault(&error) != TurnError::BodyTooLarge) {
            return;
        }
    }
}

/// Bodies are JSON, as it is. Who names no type is believed to have sent some.
fn check_kind(headers: &HeaderMap) -> Result<(), Invalid> {
    let is_json = |kind: &str| {
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
    };
    expect(headers, &header::CONTENT_TYPE, "application/json", is_json)?;
    let is_plain = |encoding: &str| encoding.trim().eq_ignore_ascii_case("identity");
    expect(headers, &header::CONTENT_ENCODING, "a body that is not compressed", is_plain)
}

fn expect(
    headers: &HeaderMap,
    name: &HeaderName,
    expected: &str,
    fits: impl Fn(&str) -> bool,
) -> Result<(), Invalid> {
    let said = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    let Some(got) = said.into_iter().find(|value| !fits(value)) else { return Ok(()) };
    let message =
        format!("Invalid header '{name}': expected {expected}, but got `{}`.", clip(&got));
    Err(Invalid { param: Some(name.to_string()), code: UNSUPPORTED_MEDIA, message })
}

/// The body as JSON. Of equal keys the last one counts, as with the interfaces' own servers.
pub(super) fn json(body: &[u8]) -> Result<Value, Invalid> {
    let parsed = serde_json::from_slice(body);
    // Looked for only where something is wrong.
    let parsed = parsed.or_else(|error| match whole_characters(body) {
        Some(mended) => serde_json::from_slice(&mended),
        None => Err(error),
    });
    parsed.map_err(|error| Invalid {
        param: None,
        code: "invalid_json",
        message: format!("The request body is not valid JSON: {error}."),
    })
}

/// The text with U+FFFD in place of each escaped half of a surrogate pair, if there is any. A harness that
/// cuts a tool's output by UTF-16 units writes such halves, and with one in its history a conversation
/// could not go on.
fn whole_characters(text: &[u8]) -> Option<Vec<u8>> {
    let mut mended: Option<Vec<u8>> = None;
    let mut at = 0;
    while let Some(next) = memchr::memchr(b'\\', &text[at..]) {
        at += next;
        at += match escaped(&text[at..]) {
            Some(0xd800..=0xdbff) if matches!(escaped(&text[at + 6..]), Some(0xdc00..=0xdfff)) => {
                12
            }
            Some(0xd800..=0xdfff) => {
                mended.get_or_insert_with(|| text.to_vec())[at + 2..at + 6]
                    .copy_from_slice(b"fffd");
                6
            }
            _ => 2,
        };
        if at >= text.len() {
            break;
        }
    }
    mended
}

/// The unit that a text begins with, where that is an escape with four digits.
fn escaped(text: &[u8]) -> Option<u16> {
    let digits = text.strip_prefix(b"\\u")?.get(..4)?;
    let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
    u16::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_of_surrogate_pairs_are_replaced_and_nothing_else_is() {
        for (text, expected) in [
            (r"a\ud83d", "a\u{fffd}"),
            (r"\udc00b", "\u{fffd}b"),
            (r"\ud83d\ud83d\ude00", "\u{fffd}\u{1f600}"),
            (r"\ud83d\n", "\u{fffd}\n"),
            (r"\\ud83d\udead", "\\ud83d\u{fffd}"),
        ] {
            let parsed = json(format!("\"{text}\"").as_bytes());
            assert_eq!(parsed, Ok(Value::String(expected.to_owned())), "{text}");
        }
        for text in [r"\ud83", r"\u+83d", r"\ud83d\", r"\uzzzz", "\\"] {
            assert!(json(format!("\"{text}\"").as_bytes()).is_err(), "{text}");
        }
        assert_eq!(whole_characters(br"\ud83d\ude00 \u0041 \\"), None);
    }
}
