//! What is held back and how deep a call may be nested has bounds, which do not depend on the cuts.

use super::{Begin, Events, Piece, Said, Warning, cases, parse, tokenise};
use crate::parse::{Event, HELD_BYTES_MAX};
use crate::seeded_tests::{Draws, rounds};

/// What an output says; whole, in pieces, and in single characters.
fn said(format: &str, output: &str) -> Vec<Said> {
    let table = cases::TABLES.iter().find(|table| table.format == format).expect("a table");
    let style = table.style(false);
    let mut said = Vec::new();
    for step in [output.len(), 1000, 7, 1] {
        let mut pieces = Vec::new();
        let mut rest = output;
        while !rest.is_empty() {
            let (piece, other) = rest.split_at(rest.ceil_char_boundary(step.min(rest.len())));
            pieces.push(Piece::Text(piece));
            rest = other;
        }
        let now = parse(style.parser(&Begin::Tools.start()), pieces);
        assert!(said.is_empty() || said == now, "pieces of {step}");
        said = now;
    }
    said
}

fn text(text: impl Into<String>) -> Said {
    Said::Text(text.into())
}

#[test]
fn arguments_before_the_name_are_held_back_up_to_a_bound() {
    let call = |arguments: usize| {
        let value = "é".repeat(arguments / 2);
        format!("<tool_call>{{\"arguments\": {{\"a\": \"{value}\"}}, \"name\": \"x\"}}</tool_call>")
    };
    let fits = said("hermes", &call(HELD_BYTES_MAX - 100));
    assert!(matches!(&fits[..], [Said::Begin(_), Said::Arguments(_), Said::End(_)]));
    let long = call(HELD_BYTES_MAX);
    assert_eq!(said("hermes", &long), [Said::Warning(Warning::TooLong), text(long)]);
}

#[test]
fn long_arguments_after_the_name_are_not_held_back() {
    let value = "x".repeat(4 * HELD_BYTES_MAX);
    let call = format!(
        "<tool_call>{{\"name\": \"x\", \"arguments\": {{\"a\": \"{value}\"}}}}</tool_call>"
    );
    let arguments = Said::Arguments(format!("{{\"a\": \"{value}\"}}"));
    let expected = [Said::Begin("x".into()), arguments, Said::End(String::new())];
    assert_eq!(said("hermes", &call), expected);
}

#[test]
fn a_key_is_held_back_up_to_a_bound() {
    let key = "☃".repeat(4000);
    let call = format!("<tool_call>{{\"name\": \"x\", \"arguments\": {{\"a\": 1, \"{key}\": 2}}}}");
    let arguments = Said::Arguments("{\"a\": 1".into());
    let rest = format!(", \"{key}\": 2}}}}");
    let warning = Said::Warning(Warning::TooLong);
    let expected = [Said::Begin("x".into()), arguments, warning, Said::End("}".into()), text(rest)];
    assert_eq!(said("hermes", &call), expected);
}

#[test]
fn nesting_has_a_bound() {
    let call = |depth: usize| {
        let brackets = "[".repeat(depth);
        format!("<tool_call>{{\"name\": \"x\", \"arguments\": {{\"a\": {brackets}1")
    };
    assert!(said("hermes", &call(119)).contains(&Said::Warning(Warning::Unfinished)));
    let deep = said("hermes", &call(120));
    let [_, Said::Arguments(arguments), warning, Said::End(missing), rest] = &deep[..] else {
        panic!("{deep:?}");
    };
    assert_eq!((warning, rest), (&Said::Warning(Warning::TooDeep), &text("[1")));
    assert!(serde_json::from_str::<serde_json::Value>(&format!("{arguments}{missing}")).is_ok());
}

#[test]
fn a_long_value_comes_before_it_is_whole() {
    let long = "é".repeat(HELD_BYTES_MAX);
    let call = |value: &str| {
        format!("<function=edit><parameter=options>\n{value}\n</parameter></function>")
    };
    let value = format!("{{\"a\": \"{long}\"}}");
    let whole = said("qwen3_coder", &call(&value));
    let arguments = Said::Arguments(format!("{{\"options\": {value}}}"));
    assert_eq!(whole, [Said::Begin("edit".into()), arguments, Said::End(String::new())]);

    let broken = said("qwen3_coder", &call(&format!("{value} so")));
    let arguments = Said::Arguments(format!("{{\"options\": {value}"));
    let rest = text("so\n</parameter></function>");
    let warning = Said::Warning(Warning::Malformed);
    let expected = [Said::Begin("edit".into()), arguments, warning, Said::End("}".into()), rest];
    assert_eq!(broken, expected);

    // What is no JSON by then is a string.
    let value = format!("[{long}");
    let arguments = Said::Arguments(format!("{{\"options\": \"{value}\"}}"));
    let expected = [Said::Begin("edit".into()), arguments, Said::End(String::new())];
    assert_eq!(said("qwen3_coder", &call(&value)), expected);
}

#[test]
fn json_that_cannot_be_a_call_is_not_held_back() {
    let table = cases::TABLES.iter().find(|table| table.format == "llama3").expect("a table");
    let mut parser = table.style(false).parser(&Begin::Tools.start());
    let mut events = Events::new();
    parser.push(Piece::Text("{\"name\": \"ls\", \"age\": 3"), &mut events);
    assert!(events.iter().eq([Event::Text("{\"name\": \"ls\", \"age\": 3")]));
}

/// However an output began, what goes on for long is not held back for ever.
#[test]
fn nothing_is_held_back_beyond_the_bound() {
    const MORE: usize = HELD_BYTES_MAX + (32 << 10);
    let mut draws = Draws::announced_or(13);
    for table in cases::TABLES {
        let markers = table.markers();
        for round in 0..rounds(24) {
            let output = table.cases[draws.place(table.cases.len())].output;
            let output = &output[..output.floor_char_boundary(draws.place(output.len() + 1))];
            let more = [" ", "x", "1"][draws.place(3)].repeat(MORE);
            let are_tokens = round % 2 == 0;
            let mut pieces = tokenise(output, if are_tokens { &markers } else { &[] });
            pieces.push(Piece::Text(&more));
            let mut parser = table.style(are_tokens).parser(&Begin::Tools.start());
            let mut events = Events::new();
            for piece in pieces {
                parser.push(piece, &mut events);
            }
            let texts = events.iter().map(|event| match event {
                Event::Text(text) | Event::Reasoning(text) | Event::CallArguments(text) => {
                    text.len()
                }
                _ => 0,
            });
            let said: usize = texts.sum();
            // Whitespace between parts and members that belong to no call are passed over.
            let in_call = matches!(
                events.iter().last(),
                Some(Event::CallBegin { .. } | Event::CallArguments(_))
            );
            let is_object = matches!(table.format, "hermes" | "llama3" | "mistral");
            let is_dropped = more.starts_with(' ') || (in_call && is_object);
            assert!(
                said > (8 << 10) || is_dropped,
                "{}: {output:?} and {:?}",
                table.format,
                &more[..1]
            );
        }
    }
}
