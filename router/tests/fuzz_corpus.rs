//! Replays what fuzzing has found, and what it starts from; and a little of what fuzzing does.

#[path = "../fuzz/decoders.rs"]
mod decoders;
#[path = "../fuzz/parsers.rs"]
mod parsers;

use baton_router::Decoder;
use serde_json::{Value, json};

const DECODERS: [(&str, Decoder); 3] =
    [("chat", Decoder::Chat), ("messages", Decoder::Messages), ("responses", Decoder::Responses)];

/// All files of a target's corpus, in their order.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let dir = format!("{}/fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
    let entries = std::fs::read_dir(dir).expect("a corpus");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("a file")).collect()
}

#[test]
fn the_corpus_of_the_parsers() {
    let corpus = corpus("parsers");
    for data in &corpus {
        parsers::check(data);
    }
    assert!(corpus.len() > 30, "only {} files", corpus.len());
}

#[test]
fn the_corpora_of_the_decoders() {
    for (target, decoder) in DECODERS {
        let corpus = corpus(target);
        for body in &corpus {
            decoders::check(decoder, body);
        }
        let taken =
            corpus.iter().filter(|body| baton_router::decode(decoder, body).is_ok()).count();
        assert!(taken >= 5 && corpus.len() >= taken + 5, "{target}: {taken} of {}", corpus.len());
    }
}

/// A sequence of draws (SplitMix64), from the seed in `BATON_SEED` or the usual one.
struct Draws(u64);

impl Draws {
    fn announced() -> Self {
        let seed = std::env::var("BATON_SEED").map_or(11, |seed| seed.parse().expect("a number"));
        println!("BATON_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end.max(1) as u64) as usize
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// Values that are wrong in many places.
fn strange(draws: &mut Draws) -> Value {
    let all = [
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(1_u64 << 31),
        json!(u64::MAX),
        json!(0.5),
        json!(1e300),
        json!(""),
        json!("x".repeat(5000)),
        json!("\u{0}\u{ffff}\u{1f600}"),
        json!("text"),
        json!("auto"),
        json!("{\"a\": 1}"),
        json!([]),
        json!([[]]),
        json!({}),
        json!({"type": "ephemeral"}),
        json!({"type": "text", "text": "x"}),
        json!({"role": "system", "content": "x"}),
    ];
    draws.of(&all).clone()
}

/// Changes something somewhere.
fn mutate(value: &mut Value, other: &Value, draws: &mut Draws) {
    let deeper = draws.below(5) > 0;
    match value {
        Value::Object(fields) if deeper && !fields.is_empty() => {
            let name = fields.keys().nth(draws.below(fields.len())).cloned().unwrap_or_default();
            match draws.below(12) {
                0 => drop(fields.shift_remove(&name)),
                1 => drop(fields.insert(name + "x", strange(draws))),
                2 => {
                    let found = other.get(&name).cloned().unwrap_or_else(|| strange(draws));
                    fields.insert(name, found);
                }
                _ => {
                    if let Some(value) = fields.get_mut(&name) {
                        mutate(value, other, draws);
                    }
                }
            }
        }
        Value::Array(values) if deeper && !values.is_empty() => {
            let at = draws.below(values.len());
            match draws.below(8) {
                0 => drop(values.remove(at)),
                1 => values.push(values[at].clone()),
                2 => values.insert(at, strange(draws)),
                3 => values.reverse(),
                _ => mutate(&mut values[at], other, draws),
            }
        }
        Value::String(text) if deeper && !text.is_empty() => {
            let at = text.floor_char_boundary(draws.below(text.len()));
            if draws.below(2) == 0 { text.truncate(at) } else { text.insert_str(at, "\\\"é\n") }
        }
        value => *value = strange(draws),
    }
}

#[test]
fn bodies_that_chance_has_changed() {
    let mut draws = Draws::announced();
    let rounds = if std::env::var_os("BATON_LONG").is_some() { 40_000 } else { 1000 };
    for (target, decoder) in DECODERS {
        let corpus = corpus(target);
        let parsed = corpus.iter().filter_map(|body| serde_json::from_slice(body).ok());
        let parsed: Vec<Value> = parsed.collect();
        for _ in 0..rounds {
            let (mut value, other) = (draws.of(&parsed).clone(), draws.of(&parsed).clone());
            for _ in 0..=draws.below(4) {
                mutate(&mut value, &other, &mut draws);
            }
            let mut body = value.to_string().into_bytes();
            for _ in 0..draws.below(3) {
                let at = draws.below(body.len());
                match draws.below(8) {
                    _ if body.is_empty() => {}
                    0 => body.truncate(at),
                    1 => body[at] ^= 1 << draws.below(8),
                    2 => body.insert(at, *draws.of(b"{}[]\",:\\0e-\0\x80")),
                    _ => {}
                }
            }
            decoders::check(decoder, &body);
        }
    }
}
