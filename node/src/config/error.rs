//! What is wrong with a configuration, in one line: file, line, column, key, expected, found.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::{Exit, Hint};

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is larger than any configuration is.
    #[error("{}: a configuration of at most {bytes_max} bytes, found more", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The bound.
        bytes_max: u64,
    },
    /// The text is not TOML.
    #[error("{at}: {message}")]
    Syntax {
        /// Where.
        at: Place,
        /// What the parser says.
        message: String,
    },
    /// A key that no daemon of this kind knows.
    #[error("{at}: unknown key `{key}`{}", Nearest(nearest.as_deref()))]
    UnknownKey {
        /// Where.
        at: Place,
        /// The key with the tables that it stands in.
        key: String,
        /// The known key that is spelled most like it.
        nearest: Option<String>,
        /// All keys that would be understood there.
        known: Vec<String>,
    },
    /// A value of the wrong type, or outside its range.
    #[error("{at}: `{key}`: expected {expected}, found {found}")]
    Value {
        /// Where.
        at: Place,
        /// The key with the tables that it stands in.
        key: String,
        /// What would be understood.
        expected: String,
        /// What stands there.
        found: String,
    },
}

/// Where a value was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// In a file; line and column count from 1.
    File {
        /// The file as it was named.
        path: PathBuf,
        /// The line.
        line: usize,
        /// The column, in characters.
        column: usize,
    },
    /// On the command line, as this flag.
    Flag(&'static str),
    /// Nowhere: a default that does not fit the rest.
    Default,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line, column } => {
                write!(f, "{}:{line}:{column}", path.display())
            }
            Self::Flag(flag) => f.write_str(flag),
            Self::Default => f.write_str("default"),
        }
    }
}

/// Prints the suggestion, if there is one.
struct Nearest<'a>(Option<&'a str>);

impl fmt::Display for Nearest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |key| write!(f, ", did you mean `{key}`?"))
    }
}

impl Hint for ConfigError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::UnknownKey { nearest: None, known, .. } if !known.is_empty() => {
                Some(format!("known here: {}", known.join(", ")).into())
            }
            Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some("--config names a TOML file".into())
            }
            _ => None,
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Exit::Permission
            }
            _ => Exit::Config,
        }
    }
}

/// The name among `known` that `wrong` was probably meant to be: at most a third of its letters
/// differ.
pub(super) fn nearest<'a>(wrong: &str, known: &'a [String]) -> Option<&'a str> {
    let far = (wrong.chars().count() / 3).max(1);
    let near = known.iter().map(|name| (distance(wrong, name), name.as_str()));
    near.filter(|(distance, _)| *distance <= far).min().map(|(_, name)| name)
}

/// How many letters have to be added, removed or replaced to make `b` out of `a`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_and_a_stranger_is_not() {
        let known = ["block_tokens", "listen", "chunk_tokens"].map(String::from);
        assert_eq!(nearest("chunk_tokns", &known), Some("chunk_tokens"));
        assert_eq!(nearest("listne", &known), Some("listen"));
        assert_eq!(nearest("colour", &known), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
