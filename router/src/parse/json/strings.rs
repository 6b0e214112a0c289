//! Strings between text and JSON.

use super::Sink;
use memchr::memchr;

/// Bytes up to the first that means something in a string or may not stand there.
#[inline]
pub(super) fn plain_len(bytes: &[u8]) -> usize {
    let special = |byte: u8| byte < 0x20 || byte == b'"' || byte == b'\\';
    let mut at = 0;
    for chunk in bytes.chunks_exact(16) {
        if chunk.iter().fold(false, |any, byte| any | special(*byte)) {
            break;
        }
        at += 16;
    }
    at + bytes[at..].iter().position(|byte| special(*byte)).unwrap_or(bytes.len() - at)
}

/// The text may stand in a string as it is, with escapes that are whole and need no closer look.
#[inline]
pub(super) fn is_plain(text: &str) -> bool {
    let bytes = text.as_bytes();
    let mut at = 0;
    loop {
        at += plain_len(&bytes[at..]);
        let Some(byte) = bytes.get(at) else { return true };
        if *byte != b'\\' || !bytes.get(at + 1).is_some_and(|next| is_short_escape(*next)) {
            return false;
        }
        at += 2;
    }
}

pub(super) fn is_short_escape(byte: u8) -> bool {
    matches!(byte, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't')
}

/// A control character as an escape.
pub(super) fn escape_control(byte: u8, buffer: &mut [u8; 6]) -> &str {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    match byte {
        b'\n' => "\\n",
        b'\r' => "\\r",
        b'\t' => "\\t",
        _ => {
            *buffer = *b"\\u0000";
            buffer[4] = DIGITS[usize::from(byte >> 4)];
            buffer[5] = DIGITS[usize::from(byte & 15)];
            std::str::from_utf8(buffer).unwrap_or_default()
        }
    }
}

/// Text as the inside of a JSON string.
pub(in crate::parse) fn escape_into(text: &str, sink: &mut impl Sink) {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let plain = plain_len(&bytes[at..]);
        if plain > 0 {
            sink.put(&text[at..at + plain]);
            at += plain;
        }
        match bytes.get(at) {
            None => break,
            Some(b'"') => sink.put("\\\""),
            Some(b'\\') => sink.put("\\\\"),
            Some(&control) => sink.put(escape_control(control, &mut [0; 6])),
        }
        at += 1;
    }
}

/// The text that a whole, valid JSON string stands for.
pub(in crate::parse) fn unescape(quoted: &str) -> String {
    let mut rest =
        quoted.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(quoted);
    let mut out = String::with_capacity(rest.len());
    while let Some(at) = memchr(b'\\', rest.as_bytes()) {
        out.push_str(&rest[..at]);
        let unit = |from: usize| {
            let digits = rest.get(from..from + 4)?;
            u16::from_str_radix(digits, 16).ok()
        };
        let (decoded, len) = match rest.as_bytes().get(at + 1) {
            Some(b'n') => ('\n', 2),
            Some(b'r') => ('\r', 2),
            Some(b't') => ('\t', 2),
            Some(b'b') => ('\u{8}', 2),
            Some(b'f') => ('\u{c}', 2),
            Some(b'u') => {
                let pair = [unit(at + 2), unit(at + 8)].into_iter().flatten();
                let first = char::decode_utf16(pair).next();
                let first = first.and_then(Result::ok).unwrap_or(char::REPLACEMENT_CHARACTER);
                (first, if first as u32 > 0xffff { 12 } else { 6 })
            }
            Some(&other) => (char::from(other), 2),
            None => break,
        };
        out.push(decoded);
        rest = rest.get(at + len..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}
