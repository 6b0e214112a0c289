//! The table of all fields in docs/api.md.

use super::tests::endpoints;
use super::{Body, But, Fate, Field, Kind, Most};
use crate::config::Limits;

const BEGIN: &str =
    "<!-- Made by `BATON_UPDATE=1 cargo test -p baton-router the_table_of_fields`. -->\n";
const END: &str = "<!-- The end of what is made. -->\n";

/// The lines of the table: those that say the same of several endpoints are one.
fn table(bodies: &[Body]) -> String {
    let mut lines: Vec<(String, String, Vec<&str>)> = Vec::new();
    for body in bodies {
        for field in body.fields() {
            add(&mut lines, body, field, "");
        }
    }
    let mut table = "| field | type | of | | |\n|---|---|---|---|---|\n".to_owned();
    for (begin, end, paths) in lines {
        table.extend(["| ", &begin, " | ", &paths.join(", "), " | ", &end, " |\n"]);
    }
    table
}

fn add(lines: &mut Vec<(String, String, Vec<&str>)>, body: &Body, field: &Field, parent: &str) {
    let name = format!("{parent}{}", field.name);
    // An object is its fields.
    if let Kind::Object(fields) = field.kind {
        let parent = format!("{name}.");
        return fields.iter().for_each(|inner| add(lines, body, inner, &parent));
    }
    let begin = format!("`{name}` | {}", kind(field.kind));
    let end = format!("{} | {}", fate(field), field.meaning);
    let path = body.path.trim_start_matches("/v1/").trim_start_matches('/');
    let path = path.trim_start_matches("messages/").trim_end_matches("/completions");
    match lines.iter_mut().find(|line| (&line.0, &line.1) == (&begin, &end)) {
        Some((_, _, paths)) => paths.push(path),
        None => lines.push((begin, end, vec![path])),
    }
}

fn kind(kind: Kind) -> String {
    let most = |most: Most| match most.of(&Limits::default()) {
        most if most >= i64::from(i32::MAX) - 1 => String::new(),
        most => format!("to {most}"),
    };
    match kind {
        Kind::Boolean => "boolean".to_owned(),
        Kind::Text => "string".to_owned(),
        Kind::Integer(i64::MIN, _) => "integer of 64 bits".to_owned(),
        Kind::Integer(min, max) => format!("integer from {min} {}", most(max)).trim().to_owned(),
        Kind::Number(min, max) => format!("number from {min} to {max}"),
        Kind::Above0(max) => format!("number above 0 to {max}"),
        Kind::Words(words) => words.join(", "),
        Kind::Object(_) => "object".to_owned(),
        Kind::Any => String::new(),
        Kind::Schema(name) => format!("`{name}`"),
    }
}

fn fate(field: &Field) -> String {
    match field.fate {
        Fate::Supported if field.required => "required".to_owned(),
        Fate::Supported => "supported".to_owned(),
        Fate::Ignored => "ignored".to_owned(),
        Fate::Refused(But::Never) => "refused".to_owned(),
        Fate::Refused(But::Is(same)) => format!("refused unless `{same}`"),
        Fate::Refused(But::Equals(other)) => format!("refused unless it equals `{other}`"),
    }
}

#[test]
fn the_table_of_fields_in_the_docs_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/api.md");
    let page = std::fs::read_to_string(path).expect("the page");
    let (before, rest) = page.split_once(BEGIN).expect("the beginning of the table");
    let (stands, after) = rest.split_once(END).expect("the end of the table");
    let made = table(&endpoints().map(|tried| tried.body));
    if std::env::var_os("BATON_UPDATE").is_some() {
        std::fs::write(path, [before, BEGIN, &made, END, after].concat()).expect("written");
    } else {
        assert!(stands == made, "docs/api.md is stale; the table tells how it is made:\n{made}");
    }
}
