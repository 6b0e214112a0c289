//! How fast texts become ids, beside the tokenizers library on the same texts in the same run.
//!
//! ```text
//! cargo run --release -p baton-text --example encode_speed -- CHECKPOINT TEXT_FILE...
//! ```
//!
//! Each file is encoded in parts of 2 KiB, first by a model that has seen nothing, then again. Medians
//! of alternating rounds, in MB/s of one thread.

use baton_text::TextModel;
use std::hint::black_box;
use std::path::PathBuf;
use std::time::Instant;
use tokenizers::Tokenizer;

const PART_BYTES: usize = 2048;
const ROUNDS: usize = 9;

fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let dir = args.next().ok_or("usage: encode_speed CHECKPOINT TEXT_FILE...")?;
    let tokenizer = Tokenizer::from_bytes(std::fs::read(dir.join("tokenizer.json"))?)?;
    println!("{:28} {:>8} {:>8} {:>8} {:>7}", "", "library", "new", "again", "ratio");
    for path in args {
        let text = String::from_utf8_lossy(&std::fs::read(&path)?).into_owned();
        let parts = parts(&text);
        let model = TextModel::load(&dir)?;
        for part in &parts {
            let ids = model.encode_rendered(part)?;
            assert_eq!(ids, tokenizer.encode_fast(*part, false)?.get_ids(), "other ids: {part:?}");
        }
        let (mut library, mut new, mut again) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            library.push(speed(&parts, |part| {
                black_box(tokenizer.encode_fast(part, false).expect("an encoding"));
            }));
            let model = TextModel::load(&dir)?;
            let ours = |part: &str| {
                black_box(model.encode_rendered(part).expect("ids"));
            };
            new.push(speed(&parts, ours));
            again.push(speed(&parts, ours));
        }
        let [library, new, again] = [library, new, again].map(median);
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        println!("{name:28} {library:8.1} {new:8.1} {again:8.1} {:7.1}", again / library);
    }
    Ok(())
}

/// A text in parts of whole characters.
fn parts(mut text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    while !text.is_empty() {
        let (part, rest) = text.split_at(text.floor_char_boundary(PART_BYTES.min(text.len())));
        parts.push(part);
        text = rest;
    }
    parts
}

/// MB/s.
#[expect(clippy::disallowed_methods, reason = "it measures time")]
fn speed(parts: &[&str], mut encode: impl FnMut(&str)) -> f64 {
    let bytes: usize = parts.iter().map(|part| part.len()).sum();
    let begun = Instant::now();
    for part in parts {
        encode(part);
    }
    bytes as f64 / 1e6 / begun.elapsed().as_secs_f64()
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}
