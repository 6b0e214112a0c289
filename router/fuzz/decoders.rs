//! What holds for every body of a request, in each JSON dialect: it is decoded in one way, whatever the
//! order of its fields and the blanks between them; what comes of it is not larger than it; and a refusal
//! names the field in a few words.

use baton_router::{Decoded, Decoder, Refused, decode};
use serde_json::{Map, Value};

/// What comes of a body may be so many times as large: escapes, numbers that are written out, and what a
/// tool without a schema is given.
const GROWTH_MAX: usize = 8;
/// Bytes of a field's path, and of a message.
const PATH_MAX: usize = 512;
const MESSAGE_MAX: usize = 1024;

/// Fails if something does not hold for this body.
pub(crate) fn check(decoder: Decoder, body: &[u8]) {
    let result = decode(decoder, body);
    same(&result, &decode(decoder, body));
    match &result {
        Ok(decoded) => check_sizes(decoded, body.len()),
        Err(refused) => check_words(refused),
    }
    // Half of a surrogate pair is mended for a client, but not here.
    let Ok(Value::Object(fields)) = serde_json::from_slice(body) else { return };
    let Err(refused) = &result else {
        let reversed: Map<String, Value> = fields.into_iter().rev().collect();
        let spaced = serde_json::to_vec_pretty(&reversed).expect("JSON");
        return same(&result, &decode(decoder, &spaced));
    };
    let path = refused.param.as_deref().expect("a field at fault");
    let outermost = path.split(['.', '[']).next().unwrap_or_default();
    let is_missing = refused.code == "missing_required_parameter";
    assert!(is_missing || fields.contains_key(outermost), "{refused:?}");
}

fn same(one: &Result<Decoded, Refused>, two: &Result<Decoded, Refused>) {
    match (one, two) {
        (Ok(one), Ok(two)) => assert!(one.asks_the_same(two), "{one:?} {two:?}"),
        (Err(one), Err(two)) => assert_eq!(one, two),
        other => panic!("{other:?}"),
    }
}

fn check_sizes(decoded: &Decoded, bytes: usize) {
    assert!(decoded.text_bytes() <= GROWTH_MAX * bytes, "{} of {bytes}", decoded.text_bytes());
    let [messages, tools, stops] = decoded.counts();
    // A block of a message may become a message of its own.
    assert!(messages > 0 && messages <= bytes && tools <= 1024 && stops <= 16);
}

fn check_words(refused: &Refused) {
    assert!((1..MESSAGE_MAX).contains(&refused.message.len()), "{:.2000}", refused.message);
    if let Some(path) = &refused.param {
        assert!((1..PATH_MAX).contains(&path.len()), "{path:.2000}");
        assert!(refused.message.contains(&**path), "{refused:?}");
    }
}
