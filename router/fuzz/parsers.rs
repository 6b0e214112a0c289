//! What holds for every output of a model, whatever the format: cut into pieces it says what it says
//! as a whole, calls do not overlap, and no text comes within one.
//!
//! The first line of an input has the format's name, how the answer begins (`r`: within reasoning;
//! `t`: markers are tokens) and how many bytes are in a piece; the rest is the output.

use baton_router::parse::{
    Event, Events, Format, Parser, Piece, Reasoning, Start, Style, Tools, Types,
};
use std::sync::Arc;

/// Fails if something does not hold for this input.
pub(crate) fn check(data: &[u8]) {
    let data = String::from_utf8_lossy(data);
    let Some((first, output)) = data.split_once('\n') else { return };
    let mut words = first.split(' ');
    let (name, flags) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let Some(format) = Format::named(name) else { return };
    let bytes = words.next().and_then(|bytes| bytes.parse().ok()).unwrap_or(1).clamp(1, 64);
    let (in_reasoning, are_tokens) = (flags.contains('r'), flags.contains('t'));
    let id_of = |text: &str| {
        are_tokens.then(|| text.bytes().fold(7, |id, b| id * 31 % 999_983 + u32::from(b)))
    };
    let style = Style::detect("", id_of, Some(format), Some(Reasoning::Think));
    let start = Start { in_reasoning, tools: Some(tools()) };
    let pieces = tokenise(output, &style);
    let whole = parse(style.parser(&start), pieces.iter().copied());
    let pieces = pieces.iter().flat_map(|piece| pieces_of(*piece, bytes));
    assert_eq!(parse(style.parser(&start), pieces), whole, "{format:?}");
}

fn tools() -> Arc<Tools> {
    let mut tools = Tools::new();
    let types = [
        ("s", Types::STRING),
        ("n", Types::NUMBER),
        ("o", Types::OBJECT | Types::ARRAY),
        ("m", Types::STRING | Types::NULL),
    ];
    tools.add("f", types.map(|(name, types)| (name.to_owned(), types)));
    Arc::new(tools)
}

/// Markers that are tokens are pieces of their own.
fn tokenise<'t>(mut output: &'t str, style: &Style) -> Vec<Piece<'t>> {
    let mut pieces = Vec::new();
    while !output.is_empty() {
        let found = style.tokens().filter_map(|(_, m)| Some((output.find(m)?, m.len()))).min();
        let (at, len) = found.unwrap_or((output.len(), 0));
        if at > 0 {
            pieces.push(Piece::Text(&output[..at]));
        }
        if len > 0 {
            pieces.push(Piece::Special(&output[at..at + len]));
        }
        output = &output[at + len..];
    }
    pieces
}

/// Text in so many bytes at a time, or a few more up to the end of a character.
fn pieces_of(piece: Piece<'_>, bytes: usize) -> Vec<Piece<'_>> {
    let Piece::Text(mut text) = piece else { return vec![piece] };
    let mut pieces = Vec::new();
    while !text.is_empty() {
        let (first, rest) = text.split_at(text.ceil_char_boundary(bytes.min(text.len())));
        pieces.push(Piece::Text(first));
        text = rest;
    }
    pieces
}

/// The events in words, neighbours of one kind together.
fn parse<'p>(
    mut parser: Parser,
    pieces: impl IntoIterator<Item = Piece<'p>>,
) -> Vec<(&'static str, String)> {
    let mut events = Events::new();
    for piece in pieces {
        parser.push(piece, &mut events);
    }
    parser.finish(&mut events);
    let mut all: Vec<(&'static str, String)> = Vec::new();
    let mut in_call = false;
    for event in events.iter() {
        let (kind, text) = match event {
            Event::Text(text) => ("text", text),
            Event::Reasoning(text) => ("reasoning", text),
            Event::CallBegin { name } => ("begin", name),
            Event::CallArguments(text) => ("arguments", text),
            Event::CallEnd { missing } => ("end", missing),
            Event::Warning(warning) => ("warning", warning.as_str()),
        };
        match kind {
            "begin" => assert!(!std::mem::replace(&mut in_call, true), "a call in a call"),
            "end" => assert!(std::mem::replace(&mut in_call, false), "no call ends"),
            "arguments" => assert!(in_call, "arguments of no call"),
            "text" | "reasoning" => assert!(!in_call, "text in a call"),
            _ => {}
        }
        match all.last_mut() {
            Some((last, said))
                if *last == kind && matches!(kind, "text" | "reasoning" | "arguments") =>
            {
                said.push_str(text);
            }
            _ => all.push((kind, text.to_owned())),
        }
    }
    assert!(!in_call, "a call without an end");
    all
}
