//! A tokenizer's decoder as stages through which pieces stream.
//!
//! Each stage does to a stream of pieces what the decoder of the same name does to the whole list,
//! and keeps only the state it needs for that: an incomplete character, a run of byte tokens, or
//! whether something came before. So decoding costs the same per token however long the answer
//! is, and the pieces' concatenation equals the decoding of the whole.

use serde_json::Value as Json;

/// Byte tokens that may be held back at once. A run of them is text only if *all* of it is valid
/// UTF-8, so it is held until it ends; longer runs (no real text has them) are let through as they
/// are, character by character.
const BYTE_RUN_MAX: usize = 1024;
/// What an undecodable byte becomes.
const REPLACEMENT: &str = "\u{fffd}";

/// One stage with its state.
#[derive(Clone, Debug)]
pub(crate) enum Stage {
    /// Characters that stand for bytes, as in GPT-2; the bytes are UTF-8 of the whole text.
    ByteLevel { partial: Vec<u8> },
    /// `▁` is a space, except in the first piece.
    Metaspace { replacement: char, drop_first: bool },
    /// One string instead of another, within a piece.
    Replace { from: String, to: String },
    /// Pieces such as `<0x0A>` are bytes.
    ByteFallback { run: Vec<u8>, broken: bool },
    /// Cuts a character from both ends of each piece.
    Strip { content: char, start: usize, stop: usize },
    /// Cuts a character from the beginning of the whole text.
    StripText { content: char, left: usize },
    /// Puts a space between pieces: what happens where no decoder is given.
    Spaces { first: bool },
}

/// The stages of a decoder as tokenizer.json describes it; `Err` names what is not supported.
pub(crate) fn stages(decoder: Option<&Json>) -> Result<Vec<Stage>, String> {
    let Some(decoder) = decoder.filter(|d| !d.is_null()) else {
        return Ok(vec![Stage::Spaces { first: true }]);
    };
    let mut stages = Vec::new();
    // Whether the pieces have been made one text.
    let mut fused = false;
    for part in flatten(decoder) {
        let kind = part["type"].as_str().unwrap_or("(without a type)");
        match (kind, fused) {
            ("Fuse", _) => fused = true,
            ("ByteLevel", false) => {
                stages.push(Stage::ByteLevel { partial: Vec::new() });
                fused = true;
            }
            ("ByteFallback", false) => {
                stages.push(Stage::ByteFallback { run: Vec::new(), broken: false });
            }
            ("Metaspace", false) => stages.push(metaspace(part)?),
            ("Replace", _) => stages.push(replace(part, fused)?),
            ("Strip", _) => stages.push(strip(part, fused)?),
            (kind, false) => return Err(format!("the decoder {kind:?}")),
            (kind, true) => return Err(format!("the decoder {kind:?} after pieces were fused")),
        }
    }
    Ok(stages)
}

fn flatten(decoder: &Json) -> Vec<&Json> {
    match decoder["decoders"].as_array() {
        Some(parts) if decoder["type"] == "Sequence" => parts.iter().flat_map(flatten).collect(),
        _ => vec![decoder],
    }
}

fn character(part: &Json, key: &str) -> Result<char, String> {
    let text = part[key].as_str().unwrap_or_default();
    text.chars().next().ok_or_else(|| format!("a decoder without {key:?}"))
}

fn metaspace(part: &Json) -> Result<Stage, String> {
    let never = part["prepend_scheme"] == "never";
    Ok(Stage::Metaspace { replacement: character(part, "replacement")?, drop_first: !never })
}

fn replace(part: &Json, fused: bool) -> Result<Stage, String> {
    let from = part["pattern"]["String"].as_str().unwrap_or_default();
    // A longer pattern might lie across two pieces once they are one text.
    if from.is_empty() || (fused && from.chars().count() > 1) {
        return Err(format!("a Replace decoder with the pattern {}", part["pattern"]));
    }
    let to = part["content"].as_str().unwrap_or_default();
    Ok(Stage::Replace { from: from.to_owned(), to: to.to_owned() })
}

fn strip(part: &Json, fused: bool) -> Result<Stage, String> {
    let content = character(part, "content")?;
    let count = |key: &str| part[key].as_u64().unwrap_or(0) as usize;
    match (fused, count("start"), count("stop")) {
        (false, start, stop) => Ok(Stage::Strip { content, start, stop }),
        (true, left, 0) => Ok(Stage::StripText { content, left }),
        (true, ..) => Err("a Strip decoder that cuts the end of the text".to_owned()),
    }
}

/// Sends a piece through the stages; what comes out at the end is appended to `out`.
pub(crate) fn feed(stages: &mut [Stage], piece: &str, out: &mut String) {
    match stages.split_first_mut() {
        None => out.push_str(piece),
        Some((stage, rest)) => stage.feed(piece, &mut |piece| feed(rest, piece, out)),
    }
}

/// No more pieces follow: lets go what is held back.
pub(crate) fn finish(stages: &mut [Stage], out: &mut String) {
    for i in 0..stages.len() {
        let (stage, rest) = stages[i..].split_first_mut().expect("i is a stage's index");
        stage.finish(&mut |piece| feed(rest, piece, out));
    }
}

impl Stage {
    fn feed(&mut self, piece: &str, emit: &mut dyn FnMut(&str)) {
        match self {
            Self::ByteLevel { partial } => {
                append_bytes(piece, partial);
                if let Ok(text) = std::str::from_utf8(partial) {
                    emit(text);
                    return partial.clear();
                }
                let text = take_text(partial);
                if !text.is_empty() {
                    emit(&text);
                }
            }
            Self::Metaspace { replacement, drop_first } => {
                let space = if *drop_first { "" } else { " " };
                // Only the very first piece is without its spaces.
                *drop_first = false;
                emit(&piece.replace(*replacement, space));
            }
            Self::Replace { from, to } => emit(&piece.replace(from.as_str(), to)),
            Self::ByteFallback { run, broken } => {
                if let Some(byte) = byte_token(piece) {
                    add_to_run(byte, run, broken, emit);
                } else {
                    end_run(run, broken, emit);
                    emit(piece);
                }
            }
            Self::Strip { content, start, stop } => {
                emit(cut_end(cut_start(piece, *content, *start), *content, *stop));
            }
            Self::StripText { content, left } => {
                let rest = cut_start(piece, *content, *left);
                *left -= (piece.len() - rest.len()) / content.len_utf8();
                if !rest.is_empty() {
                    *left = 0;
                    emit(rest);
                }
            }
            Self::Spaces { first } => {
                if !std::mem::take(first) {
                    emit(" ");
                }
                emit(piece);
            }
        }
    }

    fn finish(&mut self, emit: &mut dyn FnMut(&str)) {
        match self {
            Self::ByteLevel { partial } if !partial.is_empty() => {
                emit(&String::from_utf8_lossy(partial));
                partial.clear();
            }
            Self::ByteFallback { run, broken } => end_run(run, broken, emit),
            _ => {}
        }
    }
}

/// The byte that a byte-level character stands for.
fn byte_of(c: char) -> Option<u8> {
    let code = c as u32;
    match code {
        // Printable characters of Latin-1 stand for themselves,
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => Some(code as u8),
        // the other bytes are numbered from 256, in order.
        0x100..=0x120 => Some((code - 0x100) as u8),
        0x121..=0x142 => Some((code - 0x121 + 0x7f) as u8),
        0x143 => Some(0xad),
        _ => None,
    }
}

/// Appends the bytes a byte-level piece stands for; a piece with any other character (an added
/// token) stands for its own.
fn append_bytes(piece: &str, bytes: &mut Vec<u8>) {
    let before = bytes.len();
    for c in piece.chars() {
        let Some(byte) = byte_of(c) else {
            bytes.truncate(before);
            bytes.extend_from_slice(piece.as_bytes());
            return;
        };
        bytes.push(byte);
    }
}

/// Takes the text out of `bytes` and leaves an incomplete character at the end.
fn take_text(bytes: &mut Vec<u8>) -> String {
    let mut text = String::with_capacity(bytes.len());
    let mut kept = 0;
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        kept = chunk.invalid().len();
        if kept > 0 {
            text.push_str(REPLACEMENT);
        }
    }
    // An invalid end may become valid; anything else is lost for good.
    let end = bytes.len() - kept;
    match std::str::from_utf8(&bytes[end..]) {
        Err(e) if e.error_len().is_none() => {
            text.truncate(text.len() - REPLACEMENT.len());
            bytes.drain(..end);
        }
        _ => bytes.clear(),
    }
    text
}

fn byte_token(piece: &str) -> Option<u8> {
    let hex = piece.strip_prefix("<0x")?.strip_suffix('>')?;
    (hex.len() == 2).then(|| u8::from_str_radix(hex, 16).ok())?
}

fn add_to_run(byte: u8, run: &mut Vec<u8>, broken: &mut bool, emit: &mut dyn FnMut(&str)) {
    if *broken {
        return emit(REPLACEMENT);
    }
    run.push(byte);
    match std::str::from_utf8(run) {
        Err(e) if e.error_len().is_some() => {
            *broken = true;
            run.drain(..).for_each(|_| emit(REPLACEMENT));
        }
        _ if run.len() >= BYTE_RUN_MAX => emit(&take_text(run)),
        _ => {}
    }
}

fn end_run(run: &mut Vec<u8>, broken: &mut bool, emit: &mut dyn FnMut(&str)) {
    *broken = false;
    match std::str::from_utf8(run) {
        Ok("") => {}
        Ok(text) => emit(text),
        Err(_) => run.iter().for_each(|_| emit(REPLACEMENT)),
    }
    run.clear();
}

fn cut_start(mut piece: &str, content: char, count: usize) -> &str {
    for _ in 0..count {
        match piece.strip_prefix(content) {
            Some(rest) => piece = rest,
            None => break,
        }
    }
    piece
}

fn cut_end(mut piece: &str, content: char, count: usize) -> &str {
    for _ in 0..count {
        match piece.strip_suffix(content) {
            Some(rest) => piece = rest,
            None => break,
        }
    }
    piece
}

/// The text of one piece by itself, as it would read within a text.
pub(crate) fn alone(stages: &[Stage], piece: &str) -> String {
    String::from_utf8_lossy(&alone_bytes(stages, piece)).into_owned()
}

/// The bytes of one piece by itself, as they would stand within a text.
pub(crate) fn alone_bytes(stages: &[Stage], piece: &str) -> Vec<u8> {
    let mut text = piece.to_owned();
    for stage in stages {
        match stage {
            Stage::ByteLevel { .. } => {
                let mut bytes = Vec::new();
                append_bytes(&text, &mut bytes);
                return bytes;
            }
            Stage::ByteFallback { .. } => {
                if let Some(byte) = byte_token(&text) {
                    return vec![byte];
                }
            }
            Stage::Metaspace { replacement, .. } => text = text.replace(*replacement, " "),
            Stage::Replace { from, to } => text = text.replace(from.as_str(), to),
            Stage::Strip { content, start, stop } => {
                let cut = cut_end(cut_start(&text, *content, *start), *content, *stop);
                text = String::from(cut);
            }
            // These concern the beginning of the whole text.
            Stage::StripText { .. } | Stage::Spaces { .. } => {}
        }
    }
    text.into_bytes()
}
