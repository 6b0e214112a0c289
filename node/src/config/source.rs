//! A TOML text with the places of its keys: which key stands at which byte, and the reverse.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Place, nearest};

/// One parsed file. The places of its keys are kept apart from its values.
pub(super) struct Source<'a> {
    path: &'a Path,
    text: &'a str,
    /// Each key (`pool.slots`, `prefill[0].name`) with the extents of its name and its value.
    keys: Vec<(String, Range<usize>, Range<usize>)>,
}

impl<'a> Source<'a> {
    /// Parses `text`; the errors name `path`.
    pub(super) fn parse(path: &'a Path, text: &'a str) -> Result<Self, ConfigError> {
        let mut source = Self { path, text, keys: Vec::new() };
        let document = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
            at: source.place(error.span().map_or(0, |span| span.start)),
            message: one_line(error.message()),
        })?;
        source.collect("", document.get_ref());
        Ok(source)
    }

    /// The text as values of `T`.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        toml::from_str(self.text).map_err(|error| self.explain(&error))
    }

    /// Where the names of all keys stand, those of tables included.
    pub(super) fn places(&self) -> BTreeMap<String, Place> {
        let mut keys: Vec<_> = self.keys.iter().map(|(key, name, _)| (name.start, key)).collect();
        keys.sort_unstable();
        // One walk through the text: files may be long.
        let (mut at, mut line, mut line_start) = (0, 1, 0);
        let place = |(start, key): (usize, &String)| {
            for (newline, _) in self.text[at..start].match_indices('\n') {
                (line, line_start) = (line + 1, at + newline + 1);
            }
            at = start;
            let column = self.text[line_start..start].chars().count() + 1;
            (key.clone(), Place::File { path: self.path.to_path_buf(), line, column })
        };
        keys.into_iter().map(place).collect()
    }

    fn collect(&mut self, prefix: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let key = join(prefix, name.get_ref());
            self.keys.push((key.clone(), name.span(), value.span()));
            match value.get_ref() {
                DeValue::Table(inner) => self.collect(&key, inner),
                DeValue::Array(items) => {
                    for (index, item) in items.iter().enumerate() {
                        if let DeValue::Table(inner) = item.get_ref() {
                            let (key, extent) = (format!("{key}[{index}]"), item.span());
                            // An element has no name of its own.
                            self.keys.push((key.clone(), extent.start..extent.start, extent));
                            self.collect(&key, inner);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    /// The innermost key whose name or value covers a byte.
    fn key_at(&self, byte: usize) -> Option<&(String, Range<usize>, Range<usize>)> {
        let covers = self.keys.iter().filter(|(_, name, value)| {
            name.contains(&byte) || value.contains(&byte) || value.start == byte
        });
        covers.max_by_key(|(key, name, value)| {
            // A name beats every value around it; otherwise the smallest extent is innermost.
            let extent = if name.contains(&byte) { 0 } else { value.len() };
            (std::cmp::Reverse(extent), key.len())
        })
    }

    fn place(&self, byte: usize) -> Place {
        let before = self.text.get(..byte).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Place::File {
            path: self.path.to_path_buf(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }

    fn explain(&self, error: &toml::de::Error) -> ConfigError {
        let span = error.span().unwrap_or(0..0);
        let key = self.key_at(span.start).map(|(key, ..)| key.clone()).unwrap_or_default();
        let written = self.text.get(span.clone()).unwrap_or_default();
        explain(self.place(span.start), key, error.message(), written)
    }
}

/// Turns the words of serde's errors into ours. Its standard messages have had one form from the
/// beginning; any other message is kept as it is.
pub(super) fn explain(at: Place, key: String, message: &str, written: &str) -> ConfigError {
    let message = one_line(message);
    if let Some(rest) = message.strip_prefix("unknown field ") {
        let mut names = rest.split('`').skip(1).step_by(2).map(String::from);
        let wrong = names.next().unwrap_or_default();
        let known: Vec<String> = names.collect();
        // Without a place in a file the key is the table that the unknown one stands in.
        let key = if key.ends_with(&wrong) { key } else { join(&key, &wrong) };
        let nearest = nearest(&wrong, &known).map(String::from);
        return ConfigError::UnknownKey { at, key, nearest, known };
    }
    if let Some(name) = message.strip_prefix("missing field ") {
        let key = join(&key, name.trim_matches('`'));
        return ConfigError::Value { at, key, expected: "a value".into(), found: "none".into() };
    }
    let (expected, found) = match message.split_once(", expected ") {
        Some((found, expected)) => {
            let (_, found) = found.split_once(": ").unwrap_or(("", found));
            (expected.to_string(), found.to_string())
        }
        // What the standard library says of an address.
        None if message == "invalid socket address syntax" => {
            ("an address and a port, such as \"127.0.0.1:8000\"".into(), one_line(written))
        }
        None => (format!("another value ({message})"), one_line(written)),
    };
    ConfigError::Value { at, key, expected, found }
}

/// A key inside a table.
pub(super) fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.into() } else { format!("{prefix}.{name}") }
}

/// What would span lines, on one.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
