//! Every format's table of cases, and the law over all of them: however an output is cut into
//! pieces, its events are the same.

mod bounds;
mod cases;
mod law;
mod style;

use super::{Event, Events, Format, Parser, Piece, Reasoning, Start, Style, Tools, Types, Warning};
use baton_proto::ids::TokenId;
use std::sync::Arc;

/// An output of a model and what it says.
struct Case {
    name: &'static str,
    start: Begin,
    output: &'static str,
    says: &'static [Event<'static>],
}

/// How the answer of a case begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Begin {
    /// With tools.
    Tools,
    /// With tools, in reasoning that the template has opened.
    Thinking,
    /// Without tools.
    NoTools,
}

/// A format with its cases.
struct Table {
    format: &'static str,
    reasoning: Reasoning,
    cases: &'static [Case],
}

impl Table {
    /// How the checkpoint writes: its markers are tokens, or spelled in text.
    fn style(&self, are_tokens: bool) -> Style {
        let id_of = |text: &str| {
            let id = text.bytes().fold(7, |id: u32, b| id.wrapping_mul(31).wrapping_add(b.into()));
            are_tokens.then_some(id as TokenId)
        };
        Style::detect("", id_of, Format::named(self.format), Some(self.reasoning))
    }

    /// All markers that may be tokens.
    fn markers(&self) -> Vec<&'static str> {
        let style = self.style(true);
        style.tokens().map(|(_, marker)| marker).collect()
    }
}

fn tools() -> Arc<Tools> {
    let mut tools = Tools::new();
    let types = [
        ("path", Types::STRING),
        ("text", Types::STRING),
        ("count", Types::NUMBER),
        ("all", Types::BOOLEAN),
        ("options", Types::OBJECT),
        ("list", Types::ARRAY),
        ("either", Types::STRING | Types::NUMBER | Types::NULL),
        ("maybe", Types::STRING | Types::NULL),
    ];
    tools.add("edit", types.map(|(name, types)| (name.to_owned(), types)));
    tools.add("ls", []);
    tools.add("get_weather", [("city".to_owned(), Types::STRING)]);
    Arc::new(tools)
}

impl Begin {
    fn start(self) -> Start {
        let tools = (self != Self::NoTools).then(tools);
        Start { in_reasoning: self == Self::Thinking, tools }
    }
}

/// The output as a checkpoint's tokenizer would give it: these words are tokens, wherever they
/// stand.
fn tokenise<'t>(mut output: &'t str, markers: &[&str]) -> Vec<Piece<'t>> {
    let mut pieces = Vec::new();
    loop {
        let found = markers.iter().filter_map(|m| Some((output.find(m)?, m.len()))).min();
        let Some((at, len)) = found else { break };
        if at > 0 {
            pieces.push(Piece::Text(&output[..at]));
        }
        pieces.push(Piece::Special(&output[at..at + len]));
        output = &output[at + len..];
    }
    if !output.is_empty() {
        pieces.push(Piece::Text(output));
    }
    pieces
}

/// An event that owns its text.
#[derive(Clone, PartialEq, Debug)]
enum Said {
    Text(String),
    Reasoning(String),
    Begin(String),
    Arguments(String),
    End(String),
    Warning(Warning),
}

impl From<Event<'_>> for Said {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Text(text) => Self::Text(text.to_owned()),
            Event::Reasoning(text) => Self::Reasoning(text.to_owned()),
            Event::CallBegin { name } => Self::Begin(name.to_owned()),
            Event::CallArguments(text) => Self::Arguments(text.to_owned()),
            Event::CallEnd { missing } => Self::End(missing.to_owned()),
            Event::Warning(warning) => Self::Warning(warning),
        }
    }
}

/// Adds events, merging neighbours of one kind.
fn add(all: &mut Vec<Said>, events: &Events) {
    for event in events.iter() {
        match (all.last_mut(), event) {
            (Some(Said::Text(last)), Event::Text(text))
            | (Some(Said::Reasoning(last)), Event::Reasoning(text))
            | (Some(Said::Arguments(last)), Event::CallArguments(text)) => last.push_str(text),
            _ => all.push(event.into()),
        }
    }
}

/// What the pieces say.
fn parse<'p>(mut parser: Parser, pieces: impl IntoIterator<Item = Piece<'p>>) -> Vec<Said> {
    let mut events = Events::new();
    let mut all = Vec::new();
    for piece in pieces {
        parser.push(piece, &mut events);
        add(&mut all, &events);
        events.clear();
    }
    parser.finish(&mut events);
    add(&mut all, &events);
    all
}

#[test]
fn every_case_says_what_its_table_says() {
    for table in cases::TABLES {
        for are_tokens in [false, true] {
            let style = table.style(are_tokens);
            let markers = if are_tokens { table.markers() } else { Vec::new() };
            for case in table.cases {
                let parser = style.parser(&case.start.start());
                let said = parse(parser, tokenise(case.output, &markers));
                let expected: Vec<Said> = case.says.iter().map(|event| (*event).into()).collect();
                let name = (table.format, case.name, are_tokens);
                assert_eq!(said, expected, "{name:?}: {:?}", case.output);
            }
        }
    }
}

#[test]
fn text_that_spells_a_token_is_text() {
    for table in cases::TABLES {
        let style = table.style(true);
        for marker in table.markers() {
            let said = parse(style.parser(&Begin::Tools.start()), [Piece::Text(marker)]);
            assert_eq!(said, [Said::Text(marker.to_owned())], "{}", table.format);
        }
    }
}

#[test]
fn every_format_has_a_table() {
    for format in Format::all() {
        let cases = cases::TABLES.iter().filter(|table| table.format == format.name());
        assert!(cases.map(|table| table.cases.len()).sum::<usize>() > 3, "{format:?}");
    }
}
