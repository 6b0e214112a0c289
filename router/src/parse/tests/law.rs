//! The law, over outputs that are the tables' own or made of them: broken off, mixed, with junk.
//! `BATON_SEED` repeats a run; `BATON_LONG` makes it 100,000 cuts for each table.

use super::cases::TABLES;
use super::{Begin, Piece, Said, Table, parse, tokenise};
use crate::parse::{Style, Warning};
use crate::seeded_tests::{Draws, rounds};

/// What makes trouble where it does not belong.
const JUNK: [&str; 24] = [
    "<", ">", "{", "}", "[", "]", "\"", "\\", "\n", " ", ",", ":", ";", "é", "☃", "0", "1.", "\\u",
    "d83d", "true", "<t", "</", "\n\n", "null",
];

#[test]
fn every_cut_gives_the_same_events() {
    let mut draws = Draws::announced();
    for table in TABLES {
        let markers = table.markers();
        for round in 0..rounds(2500) {
            let output = output(table, &markers, &mut draws);
            let begin =
                [Begin::Tools, Begin::Tools, Begin::Thinking, Begin::NoTools][draws.place(4)];
            let are_tokens = draws.below(2) == 0;
            let style = table.style(are_tokens);
            let pieces = tokenise(&output, if are_tokens { &markers } else { &[] });
            let whole = parse(style.parser(&begin.start()), pieces.iter().copied());
            let cut = parse(style.parser(&begin.start()), cut(&pieces, &mut draws));
            let name = table.format;
            assert_eq!(cut, whole, "{name}, round {round}, tokens {are_tokens}: {output:?}");
            check(&whole, &output);
            if is_free_of(&output, &markers, &style) {
                let text = if output.is_empty() { vec![] } else { vec![Said::Text(output)] };
                if begin != Begin::Thinking {
                    assert_eq!(whole, text, "{name}");
                }
            }
        }
    }
}

/// No format can mean anything by this text.
fn is_free_of(output: &str, markers: &[&str], style: &Style) -> bool {
    let bare = style.format().name() == "llama3" && output.contains('{');
    let others = ["<function=", " to="];
    !bare && !markers.iter().chain(&others).any(|marker| output.contains(marker))
}

/// An output of the table, or what chance makes of several.
fn output(table: &Table, markers: &[&str], draws: &mut Draws) -> String {
    let mut output = table.cases[draws.place(table.cases.len())].output.to_owned();
    if draws.below(4) == 0 {
        output.push_str(table.cases[draws.place(table.cases.len())].output);
    }
    for _ in 0..draws.below(4) {
        let place = draws.place(output.len() + 1);
        let at = output.floor_char_boundary(place);
        match draws.below(5) {
            0 => output.truncate(at),
            1 => output.insert_str(at, JUNK[draws.place(JUNK.len())]),
            2 if !markers.is_empty() => output.insert_str(at, markers[draws.place(markers.len())]),
            3 => {
                let end = output.floor_char_boundary((at + draws.place(12)).min(output.len()));
                output.replace_range(at..end.max(at), "");
            }
            _ => {
                let other = table.cases[draws.place(table.cases.len())].output;
                let start = other.floor_char_boundary(draws.place(other.len() + 1));
                output.insert_str(at, &other[start..]);
            }
        }
    }
    output
}

/// The same pieces, with the text cut between characters: often, seldom, or into single ones.
fn cut<'p>(pieces: &[Piece<'p>], draws: &mut Draws) -> Vec<Piece<'p>> {
    let every = [1, 2, 4, 16, 64][draws.place(5)];
    let mut cut = Vec::new();
    for piece in pieces {
        let Piece::Text(mut text) = *piece else {
            cut.push(*piece);
            continue;
        };
        let mut len = 0;
        while len < text.len() {
            len = text.ceil_char_boundary(len + 1);
            if draws.below(every) == 0 {
                cut.push(Piece::Text(&text[..len]));
                text = &text[len..];
                len = 0;
            }
        }
        if draws.below(8) == 0 {
            cut.push(Piece::Text(""));
        }
        cut.push(Piece::Text(text));
    }
    cut
}

/// Calls are whole, their arguments JSON objects, and what is missing is said with a warning.
fn check(said: &[Said], output: &str) {
    let mut arguments = None;
    let mut warned = false;
    for said in said {
        match said {
            Said::Begin(_) => {
                assert!(arguments.is_none(), "a call in a call: {output:?}");
                arguments = Some(String::new());
                warned = false;
            }
            Said::Arguments(more) => arguments.as_mut().expect("an open call").push_str(more),
            Said::End(missing) => {
                let all = arguments.take().expect("an open call") + missing;
                let parsed = serde_json::from_str::<serde_json::Value>(&all);
                assert!(parsed.is_ok_and(|value| value.is_object()), "{all:?} of {output:?}");
                assert!(missing.is_empty() || warned, "{output:?}");
            }
            Said::Warning(Warning::Mended) => {}
            Said::Warning(_) => warned = true,
            Said::Text(text) | Said::Reasoning(text) => {
                assert!(arguments.is_none() && !text.is_empty(), "{output:?}");
            }
        }
    }
    assert!(arguments.is_none(), "an open end: {output:?}");
}

#[test]
fn garbage_does_no_harm() {
    let mut draws = Draws::announced_or(12);
    for table in TABLES {
        let markers = table.markers();
        for round in 0..rounds(500) {
            let mut output = String::new();
            for _ in 0..draws.below(60) {
                match draws.below(6) {
                    0 if !markers.is_empty() => {
                        output.push_str(markers[draws.place(markers.len())]);
                    }
                    1 => output.extend(char::from_u32(draws.below(0x11_0000) as u32)),
                    2 => output.push(draws.below(128) as u8 as char),
                    _ => output.push_str(JUNK[draws.place(JUNK.len())]),
                }
            }
            let style = table.style(round % 2 == 0);
            let pieces = tokenise(&output, if round % 2 == 0 { &markers } else { &[] });
            let start = Begin::Tools.start();
            let whole = parse(style.parser(&start), pieces.iter().copied());
            let cut = parse(style.parser(&start), cut(&pieces, &mut draws));
            assert_eq!(cut, whole, "{}: {output:?}", table.format);
            check(&whole, &output);
        }
    }
}
